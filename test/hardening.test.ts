import t, { type Test } from 'tap'
import { ask, build, isProblem, post, publish, publishAll, type Address } from './support/app.ts'
import { eventually } from './support/inbox.ts'
import { serve } from './support/process.ts'
import { rawConnection } from './support/raw.ts'
import { listen, subscribe } from './support/reader.ts'

const JSON_TYPE = { 'content-type': 'application/json' }

t.setTimeout(400_000)

// One server takes it all, so that what one attack leaves behind shows in another; it must live through every one.
const server = await build(t, { RETRY: '50ms' })

function attack(name: string, mount: (t: Test) => Promise<void>): void {
  void t.test(name, async t => {
    await mount(t)
    t.equal((await roundTrip(t, server)).data, 'alive', 'the server serves on')
  })
}

async function roundTrip(t: Test, address: Address) {
  const stream = await listen(t, address, '/events/health')
  await publish(address, 'health', 'alive')
  const frame = await stream.next()
  stream.close()
  return frame
}

// An event type ends up in a line of everybody's stream: a line end in it would start a field of the attacker's own.
attack('injection of stream lines through the type', async t => {
  const stream = await listen(t, server, '/events/injected')
  for (const type of ['a\nid: 9-9', 'a\r\ndata: x', 'a\rretry: 1', 'a\n\ndata: y\n\n', 'a\u2028b', 'a\0']) {
    isProblem(t, await post(server, `/events/injected?type=${encodeURIComponent(type)}`, 'x'), 400, /type/)
    isProblem(
      t,
      await post(server, '/events', JSON.stringify([{ topic: 'injected', type, data: 1 }]), JSON_TYPE),
      400,
      /type/
    )
  }
  for (const query of ['type=a&type=b', 'type[]=a', 'type[x]=a', 'type=%0aid:%201']) {
    const { status } = await post(server, `/events/injected?${query}`, 'x')
    t.ok(status === 201 || status === 400, `${query}: ${status}`)
  }
  await publish(server, 'injected', 'end')
  await stream.frames.until(() => stream.messages.at(-1)?.data === 'end', 'the end')
  t.ok(stream.messages.every(({ event }) => event === undefined))
})

// A topic is told in gaps and envelopes, and decides who gets an event.
attack('injection through the topic', async t => {
  for (const topic of ['a\nb', 'a\r\n\r\nb', 'a\0', '\u202ea']) {
    isProblem(t, await ask(server, `/events?topic=${encodeURIComponent(topic)}`), 400, /topic/)
    isProblem(t, await post(server, `/events/${encodeURIComponent(topic)}`, 'x'), 400, /topic/)
  }
  const odd = '"}\u2028</script>\\{$'
  const stream = await subscribe(t, server, `/events?topic=${encodeURIComponent(odd)}&after=x&envelope=true`)
  const gap = await stream.first('gap')
  t.match(JSON.parse(gap.data!), { topics: [odd] })
  await publishAll(server, [{ topic: odd, data: odd }])
  await stream.until(1)
  t.match(JSON.parse(stream.messages[0]!.data!), { topic: odd, data: odd })
})

// What a client sends as its cursor is told back to it: in a gap, in an id: line, in a header.
attack('injection through the cursor', async t => {
  const full = await build(t, { MAX_CONNECTIONS: '1' })
  await listen(t, full, '/events/a')
  const cursors = [
    '1-0\ndata: x',
    '1-0\r\n\r\nHTTP/1.1 200',
    '1-0"},{"',
    '1-0\u2028',
    '<script>',
    '1-0\0',
    '1-0 '
  ]
  for (const cursor of cursors) {
    const path = `/events/a?after=${encodeURIComponent(cursor)}`
    const stream = await subscribe(t, server, path)
    t.match(await stream.next(), { event: 'gap' })
    const opened = await stream.next()
    t.match(opened.id, /^\d+-\d+$/)
    t.equal(stream.response.headers['ringside-cursor'], opened.id)
    const turnedAway = await (await subscribe(t, full, path)).whole()
    t.strictSame(
      turnedAway.map(({ event }) => event),
      ['goodbye'],
      'no cursor that is none is told back as one'
    )
    stream.close()
  }
})

// The header that every EventSource sends by itself: whatever a server before us gave as an id comes back in it.
attack('a Last-Event-ID with quotes, 8-bit letters, or 10 kB', async t => {
  for (const cursor of [
    '"quoted"',
    "'; DROP TABLE events; --",
    'caf\u00e9\u00ff',
    '{"a":1}',
    'x'.repeat(10_000),
    '9'.repeat(10_000)
  ]) {
    const stream = await subscribe(t, server, '/events/a', { 'last-event-id': cursor })
    t.equal(stream.status, 200)
    const { event, data } = await stream.next()
    t.equal(event, 'gap')
    t.ok(data!.length < 1000, 'it is not told back at any length')
    t.match(await stream.next(), { event: 'cursor', id: /^\d+-\d+$/ })
    stream.close()
  }
})

// Twice the same header, or the same parameter: which one counts must not depend on who looks.
attack('a cursor that is sent several times', async t => {
  const id = await publish(server, 'twice', 'x')
  for (const path of [`/events/twice?after=&after=${id}`, `/events/twice?after=${id}&after=${id}`]) {
    const stream = await subscribe(t, server, path)
    t.equal(stream.status, 200, path)
    stream.close()
  }
  const connection = rawConnection(t, server)
  connection.send(
    `GET /events/twice HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: ${id}\r\nLast-Event-ID: ${id}\r\n\r\n`
  )
  await connection.until('event: cursor')
})

// A raw line end in a header is the classic way to split an answer, or to smuggle a request.
attack('header injection and request smuggling', async t => {
  for (const request of [
    'GET /events/a HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 1-0\nX: y\r\n\r\n',
    'GET /events/a HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 1-0\rX: y\r\n\r\n',
    'POST /events/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n',
    'POST /events/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef',
    'POST /events/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\nabc',
    'POST /events/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nabc\r\n0\r\n\r\n',
    'GET /events/a HTTP/9.9\r\nHost: localhost\r\n\r\n'
  ]) {
    const connection = rawConnection(t, server)
    connection.send(request)
    const text = await connection.closed
    t.match(text, /^HTTP\/1\.1 4\d\d /, JSON.stringify(request))
    t.notMatch(text, /smuggled|HTTP\/1\.1 2/)
  }
})

// Without a Host two servers may disagree on whom a request is for (RFC 9112, section 3.2).
attack('a request without Host', async t => {
  for (const path of ['/livez', '/events/a']) {
    const connection = rawConnection(t, server)
    connection.send(`GET ${path} HTTP/1.1\r\n\r\n`)
    t.match(await connection.until('\r\n\r\n'), /^HTTP\/1\.1 400 /, path)
  }
})

// An idempotency key is kept, and compared with others.
attack('an Idempotency-Key of odd content', async t => {
  for (const key of ['__proto__', 'constructor', 'toString', '"quoted"', '{}', '%00', '0']) {
    const first = await post(server, '/events/keys', key, { 'idempotency-key': key })
    t.equal(first.status, 201, key)
    t.notOk('idempotent-replayed' in first.headers, key)
    const again = await post(server, '/events/keys', key, { 'idempotency-key': key })
    t.equal(again.headers['idempotent-replayed'], 'true', key)
  }
  for (const key of ['caf\u00e9', 'a b', 'a\tb', 'k'.repeat(10_000)])
    isProblem(t, await post(server, '/events/keys', 'x', { 'idempotency-key': key }), 400, /idempotency-key/i)
})

// Names that every object has: as a member of JSON, a topic, a parameter or a type they must be names like any other.
attack('prototype pollution', async t => {
  const stream = await listen(
    t,
    server,
    '/events?topic=__proto__&topic=constructor/prototype&topic=proto&topic=toString'
  )
  const body = '{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}'
  t.equal((await post(server, '/events/proto', body, JSON_TYPE)).status, 201)
  t.equal(
    (await post(server, '/events', `[{"topic":"proto","data":${body},"__proto__":{"type":"x"}}]`, JSON_TYPE))
      .status,
    201
  )
  t.equal((await post(server, '/events/__proto__?type=constructor', body, JSON_TYPE)).status, 201)
  t.equal((await post(server, '/events/constructor/prototype', 'x')).status, 201)
  t.equal((await post(server, '/events/toString?__proto__=x&constructor=y', 'y')).status, 201)
  const frames = await stream.until(5)
  t.strictSame(
    frames.map(({ data }) => data),
    [body, body, body, 'x', 'y']
  )
  t.strictSame(
    frames.map(({ event }) => event),
    [undefined, undefined, 'constructor', undefined, undefined]
  )
  t.notOk('polluted' in {})
  isProblem(
    t,
    await post(server, '/events', '[{"__proto__":{"topic":"proto","data":1}}]', JSON_TYPE),
    400,
    /\/0/
  )
  isProblem(t, await ask(server, '/events?__proto__[topic]=a'), 400, /topic/)
})

// A parser that calls itself for each level ends with the stack.
attack('deeply nested JSON', async t => {
  const levels = 25_000
  const deep = '['.repeat(levels) + ']'.repeat(levels)
  const deepObject = '{"a":'.repeat(10_000) + '1' + '}'.repeat(10_000)
  for (const json of [deep, deepObject]) {
    const stream = await listen(t, server, '/events/deep')
    const enveloped = await listen(t, server, '/events/deep?envelope=true')
    for (const [path, body] of [
      ['/events/deep', json],
      ['/events', `[{"topic":"deep","data":${json}}]`]
    ] as const) {
      const answer = await post(server, path, body, JSON_TYPE)
      t.equal(answer.status, 201, answer.text)
      t.ok((await stream.next()).data === json)
      t.ok((await enveloped.next()).data!.endsWith(`"data":${json}}`))
    }
    stream.close()
    enveloped.close()
  }
  for (const item of [
    '['.repeat(50_000),
    `{"topic":${deep},"data":1}`,
    `{"topic":"a","data":1,"ttl":${deep}}`
  ]) {
    const { status, text } = await post(server, '/events', `[${item}]`, JSON_TYPE)
    t.equal(status, 400, text.slice(0, 200))
  }
})

// Regular expressions and parsers that look back may take quadratic time.
attack('text that is slow to parse', async t => {
  const started = Date.now()
  for (const body of [
    `"${'\\"'.repeat(30_000)}"`,
    `[${'1.'.repeat(10)}`,
    ' '.repeat(60_000),
    `"${' '.repeat(60_000)}"`,
    `${' '.repeat(60_000)}1`,
    `[${'1,'.repeat(30_000)}1]`,
    `"${'\\'.repeat(60_000)}`,
    '9'.repeat(61_000)
  ]) {
    const single = await post(server, '/events/slow', body, JSON_TYPE)
    t.ok([201, 400].includes(single.status), `${single.status}`)
    const batch = await post(server, '/events', `[{"topic":"slow","data":${body}}]`, JSON_TYPE)
    t.ok([201, 400].includes(batch.status), `${batch.status}`)
  }
  const spaces = `text/plain;${' '.repeat(8000)}x`
  t.ok((await post(server, '/events/slow', 'x', { 'content-type': spaces })).status < 500)
  t.ok((await ask(server, '/events/slow', { headers: { accept: `${'a/b,'.repeat(2000)}x` } })).status < 500)
  t.ok(Date.now() - started < 5000, `${Date.now() - started} ms`)
})

// A batch has a limit of its own: nobody may make the server keep more.
attack('a body without end', async t => {
  const small = await build(t, { MAX_EVENT_BYTES: '100' })
  const big = 'x'.repeat(5_000_000)
  isProblem(t, await post(small, '/events/a', 'x'.repeat(2000)), 413, /./)
  const answer = await post(small, '/events', `[{"topic":"a","data":"${big}"}]`, JSON_TYPE).catch(() => null)
  t.ok(answer === null || answer.status === 413, `${answer?.status}`)
  const chunk = `fa00\r\n${'x'.repeat(64_000)}\r\n`
  for (const [path, type] of [
    ['/events/a', 'text/plain'],
    ['/events', 'application/x-ndjson'],
    ['/tickers', 'application/json'],
    ['/notifications', 'application/json']
  ]) {
    const connection = rawConnection(t, small)
    connection.send(`POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: ${type}\r\n`)
    connection.send('Transfer-Encoding: chunked\r\n\r\n')
    const pour = setInterval(() => connection.send(chunk), 1)
    t.teardown(() => clearInterval(pour))
    t.match(await connection.closed, /^HTTP\/1\.1 413 [^]*"status":413/, `${path}: it is not read on`)
  }
  t.equal((await roundTrip(t, small)).data, 'alive')
})

// What is no UTF-8 reads differently in each program, and no stream can carry it as text.
attack('bodies that are no UTF-8', async t => {
  const bad = (before: string, after: string) =>
    Buffer.concat([
      Buffer.from(before),
      Buffer.from([0xc3, 0x28, 0xff, 0xed, 0xa0, 0x80]),
      Buffer.from(after)
    ])
  for (const [method, path, type, body] of [
    ['POST', '/events/a', 'text/plain', bad('', '')],
    ['POST', '/events/a', 'application/json', bad('"', '"')],
    ['POST', '/events', 'application/json', bad('[{"topic":"a","data":"', '"}]')],
    ['POST', '/events', 'application/x-ndjson', bad('{"topic":"', '","data":1}')],
    ['POST', '/tickers', 'application/json', bad('{"symbol":"A","price":1,"x":"', '"}')],
    ['PUT', '/dashboards/ops', 'application/json', bad('{"x":"', '"}')],
    ['POST', '/notifications', 'application/json', bad('{"to":"alice","title":"', '"}')]
  ] as const) {
    const answer = await ask(server, path, { method, body, headers: { 'content-type': type } })
    isProblem(t, answer, 400, /UTF-8/)
  }
  const stream = await listen(t, server, '/events/bytes')
  const bytes = bad('', '')
  const stored = await post(server, '/events/bytes', bytes, { 'content-type': 'application/octet-stream' })
  t.equal(stored.status, 201)
  t.equal((await stream.next()).data, bytes.toString('base64'), 'as bytes they are bytes')
})

// A name must not become another one on its way through the decoders, nor a path of files.
attack('encoded slashes and NULs in names', async t => {
  for (const topic of ['a%2F%2Fb', '%2Fa', 'a%2F', 'a%00b', '%00', 'a%0Ab', 'a%7F', '%2F']) {
    isProblem(t, await post(server, `/events/${topic}`, 'x'), 400, /topic/)
    isProblem(t, await ask(server, `/events/${topic}`), 400, /topic/)
    isProblem(t, await ask(server, `/events?topic=${topic}`), 400, /topic/)
  }
  for (const id of ['a%2Fb', 'a%00b', '%2F', '%0D%0AX:%20y', '..%2F..%2Fetc']) {
    const headers = { 'content-type': 'application/json' }
    isProblem(t, await ask(server, `/dashboards/${id}`, { method: 'PUT', body: '{}', headers }), 400, /./)
  }
  // decoded once, and never twice
  for (const [path, topic] of [
    ['a%252Fb', 'a%2Fb'],
    ['a%2Fb', 'a/b'],
    ['..%2F..%2Fetc', '../../etc'],
    ['a%3Fb%23c', 'a?b#c'],
    ['a+b', 'a+b']
  ] as const) {
    t.match((await post(server, `/events/${path}`, 'x')).json(), { topic })
  }
})

// A query is parsed whole, before anything has been checked.
attack('a huge query', async t => {
  const topics = 'topic=a&'.repeat(1500)
  isProblem(t, await ask(server, `/events?${topics}`), 400, /1500.*100/)
  isProblem(t, await ask(server, `/events?${'topic=a&'.repeat(10_000)}`), 431, /./)
  const { status, text } = await ask(server, `/events?topic=${'a'.repeat(12_000)}`)
  t.equal(status, 400)
  t.ok(text.length < 2 * 12_000 + 1000)
  t.equal((await ask(server, `/events?topic=a&${'x=1&'.repeat(3000)}`, { method: 'HEAD' })).status, 200)
  const tooLong = await ask(server, `/events?topic=${'a'.repeat(20_000)}`)
  isProblem(t, tooLong, 431, /./)
})

// One subscription must not be worth thousands.
attack('101 topics', async t => {
  const many = Array.from({ length: 101 }, (_, index) => `topic=t${index}`).join('&')
  isProblem(t, await ask(server, `/events?${many}`), 400, /101.*100/)
  isProblem(t, await ask(server, `/events/t?${many.split('&').slice(0, 100).join('&')}`), 400, /101.*100/)
  isProblem(t, await ask(server, `/events?${'topic=same&'.repeat(101)}`), 400, /101.*100/)
})

// What can't be decoded has no meaning, and no two readers would agree on one.
attack('bad percent encoding', async t => {
  for (const path of [
    '/events/%',
    '/events/%zz',
    '/events/%c3',
    '/events/%ff%fe',
    '/events/%ed%a0%80',
    '/%',
    '/events/a%2'
  ]) {
    isProblem(t, await ask(server, path), 400, /./)
    isProblem(t, await post(server, path, 'x'), 400, /./)
  }
  for (const query of [
    'topic=%',
    'topic=%zz',
    'topic=%c3',
    'topic=%ed%a0%80',
    'topic=a&after=%ff',
    'topic=a&since=%'
  ]) {
    const { status } = await ask(server, `/events?${query}`, { method: 'HEAD' })
    t.ok(status === 200 || status === 400, `${query}: ${status}`)
  }
})

// Half of a character is no character: no UTF-8 can carry it.
attack('lone surrogates', async t => {
  for (const half of ['\\ud800', '\\udfff', 'a\\ud83d']) {
    isProblem(t, await post(server, '/events', `[{"topic":"${half}","data":1}]`, JSON_TYPE), 400, /topic/)
    const stream = await listen(t, server, '/events/half?envelope=true')
    t.equal((await post(server, '/events', `[{"topic":"half","data":"${half}"}]`, JSON_TYPE)).status, 201)
    t.equal((await post(server, '/events/half', `"${half}"`, JSON_TYPE)).status, 201)
    for (const { data } of await stream.until(2)) {
      t.equal(
        (JSON.parse(data!) as { data: string }).data,
        JSON.parse(`"${half}"`),
        'as an escape it is data like any other'
      )
    }
    stream.close()
  }
})

// The live page and the API's page are files; nothing else of the disk is.
attack('path traversal', async t => {
  for (const path of [
    '/../package.json',
    '/..%2fpackage.json',
    '/%2e%2e/package.json',
    '/%2e%2e%2fpackage.json',
    '/..%5cpackage.json',
    '/....//package.json',
    '/chart/../../package.json',
    '/chart/..%2fpackage.json',
    '/chart/%2e%2e/package.json',
    '/docs/static/..%2f..%2fpackage.json',
    '/docs/static/%2e%2e/package.json',
    '//etc/passwd',
    '/%2fetc%2fpasswd',
    '/.env',
    '/.git/config',
    '/index.html%00.js',
    '/chart/package.json%00'
  ]) {
    const connection = rawConnection(t, server)
    connection.send(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)
    const text = await connection.closed
    t.match(text, /^HTTP\/1\.1 40\d /, path)
    t.notMatch(text, /"dependencies"|root:|\[core\]/)
  }
})

// Many requests that never come to their end must not keep others from theirs.
attack('half requests, byte by byte (slowloris)', async t => {
  const slow = Array.from({ length: 200 }, () => rawConnection(t, server))
  for (const [index, connection] of slow.entries()) {
    connection.send(
      index % 2
        ? 'GET /events/a HTTP/1.1\r\nHost: localhost\r\nX: '
        : 'POST /events/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx'
    )
  }
  const { app } = server
  const count = () =>
    new Promise<number>((resolve, reject) =>
      app.server.getConnections((error, n) => (error ? reject(error) : resolve(n)))
    )
  await eventually(count, n => n >= 200, 'all of them')
  const started = Date.now()
  t.equal((await roundTrip(t, server)).data, 'alive')
  t.ok(Date.now() - started < 5000)
  slow[1]!.send('y\r\n\r\n')
  await slow[1]!.until('event: cursor')
  for (const connection of slow) connection.destroy()
  await eventually(count, n => n < 200, 'their end')
})

// A connection that goes at the worst moment must not leave a stream, nor an exception that nobody catches.
attack('connections that are reset at every moment', async t => {
  const request = 'GET /events/reset HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n'
  const sizes = [1, 20, request.length - 1, request.length]
  for (let round = 0; round < 25; round++) {
    for (const size of sizes) {
      const connection = rawConnection(t, server)
      connection.send(request.slice(0, size))
      if (round % 2) await publish(server, 'reset', 'x'.repeat(10_000))
      connection.destroy()
    }
  }
  await eventually(
    () => server.app.ringside.hub.sessions.size,
    size => size === 0,
    'no stream'
  )
})

// What a client sends after its request is of no interest, and must not be kept or answered.
attack('data after the request of a stream', async t => {
  const connection = rawConnection(t, server)
  connection.send('GET /events/after HTTP/1.1\r\nHost: localhost\r\n\r\n')
  await connection.until('event: cursor')
  for (let count = 0; count < 100; count++) connection.send('\0nonsense\r\n\r\n'.repeat(1000))
  await publish(server, 'after', 'x')
  const text = await connection.until('data: x\nid: ')
  t.equal(text.split('HTTP/1.1 ').length, 2, 'one answer')
})

// An upgrade to something that is not spoken here is no way around the routes.
attack('upgrades to other protocols', async t => {
  for (const upgrade of ['h2c', 'websocket', 'TLS/1.0', 'nonsense']) {
    for (const path of ['/events/a', '/livez', '/nothing']) {
      const connection = rawConnection(t, server)
      const headers = `Connection: Upgrade, close\r\nUpgrade: ${upgrade}\r\nHTTP2-Settings: AAMAAABkAAQAAP__`
      connection.send(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n${headers}\r\n\r\n`)
      t.notMatch(await connection.closed, /^HTTP\/1\.1 101/, `${upgrade} ${path}`)
    }
  }
})

// Who can write lines of their own into a log can hide what they did, and pretend what they didn't.
attack('log injection', async t => {
  const real = await serve(t, { LOG_LEVEL: 'trace', TRUST_PROXY: 'true' })
  const forged = '{"level":50,"msg":"forged"}'
  const texts = [
    `\n${forged}\n`,
    `\r\n${forged}\r\n`,
    '\x1b[2J\x1b]0;forged\x07',
    '\u2028forged',
    '"}\n',
    '\0'
  ]
  for (const text of texts) {
    const encoded = encodeURIComponent(text)
    for (const path of [
      `/nothing/${encoded}`,
      `/events/${encoded}`,
      `/events?topic=${encoded}&token=secret`
    ]) {
      // some are topics
      await ask(real, path, { headers: { accept: 'application/json' } })
      await post(real, path, text, JSON_TYPE)
    }
    const raw = Buffer.from(text).toString('latin1')
    for (const request of [
      `GET /${raw} HTTP/1.1\r\nHost: localhost\r\n\r\n`,
      `GET /livez HTTP/1.1\r\nHost: ${raw}\r\nConnection: close\r\n\r\n`,
      `GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: ${raw}\r\nConnection: close\r\n\r\n`,
      `${raw} /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`
    ]) {
      const connection = rawConnection(t, real)
      connection.send(request)
      await connection.until(/HTTP\/1\.1 \d+/).catch(() => '')
      connection.destroy()
    }
  }
  t.equal((await roundTrip(t, real)).data, 'alive')
  const log = real
    .stdout()
    .split('\n')
    .filter(line => line.startsWith('{'))
  t.ok(log.length > 0, 'there is a log')
  for (const line of log) t.not((JSON.parse(line) as { msg?: string }).msg, 'forged', line)
  t.notMatch(real.stdout(), /secret|[^\P{Cc}\n]/u)
  t.equal(real.stderr(), '')
})

// In the real process an exception that nobody catches would be its end; here the test runner might catch it.
attack('all of it at once, on the real process', async t => {
  const real = await serve(t)
  const attacks = [
    'nonsense\r\n\r\n',
    'GET /events/%zz HTTP/1.1\r\nHost: localhost\r\n\r\n',
    'GET /events/a HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: \xff\xfe"\r\n\r\n',
    `GET /events/a HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`,
    'POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nnull',
    'POST /events/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n',
    'HEAD /events/a HTTP/1.1\r\nHost: localhost\r\n\r\n',
    'GET /events/a HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
    'CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n',
    'OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n',
    'GET http://evil.example/events/a HTTP/1.1\r\nHost: localhost\r\n\r\n',
    'GET /events/a HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(5)
  ]
  for (let round = 0; round < 5; round++) {
    for (const attack of attacks) {
      const connection = rawConnection(t, real)
      connection.send(attack)
      if (round > 0) await connection.until(/HTTP\/1\.1 \d+/).catch(() => '')
      connection.destroy()
    }
  }
  t.equal((await roundTrip(t, real)).data, 'alive')
  t.equal(real.stderr(), '')
  t.equal(real.child.exitCode, null)
})
