import t, { type Test } from 'tap'
import { ask, build, isProblem, post, publish, publishAll, type TestServer } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { rawConnection } from '../support/raw.ts'
import { listen, subscribe, type Reader } from '../support/reader.ts'

const SSE = { accept: 'text/event-stream' }
const ALIASES = ['after', 'last_event_id', 'lastEventId', 'lastEventID', 'evs_last_event_id']

t.setTimeout(400_000)

t.test('the head of a stream', async t => {
  const server = await build(t, { CORS_ORIGIN: 'https://page.example' })

  t.test('says what it is, and no more than that', async t => {
    const stream = await listen(t, server, '/events?topic=head', { ...SSE, origin: 'https://page.example' })
    const { headers, statusCode, httpVersion } = stream.response
    t.equal(statusCode, 200)
    t.equal(httpVersion, '1.1')
    t.equal(headers['content-type'], 'text/event-stream; charset=utf-8')
    t.equal(headers['cache-control'], 'no-cache, no-transform')
    t.equal(headers['x-accel-buffering'], 'no')
    t.equal(headers['transfer-encoding'], 'chunked')
    t.equal(headers['content-length'], undefined)
    t.equal(headers['content-encoding'], undefined)
    t.match(headers['vary'], /\bAccept\b/)
    const { rawHeaders } = stream.response
    const names = rawHeaders.filter((_, index) => index % 2 === 0).map(name => name.toLowerCase())
    t.equal(new Set(names).size, names.length, 'each once')
  })

  t.test('has the cursor that it starts from, which CORS exposes', async t => {
    const stream = await listen(t, server, '/events?topic=head', { ...SSE, origin: 'https://page.example' })
    const { headers } = stream.response
    t.equal(headers['ringside-cursor'], stream.cursor)
    t.match(headers['access-control-expose-headers'], /\bRingside-Cursor\b/)
    t.equal(headers['access-control-allow-origin'], 'https://page.example')
    const resumed = await listen(t, server, '/events?topic=head', { 'last-event-id': stream.cursor })
    t.equal(resumed.response.headers['ringside-cursor'], stream.cursor)
  })

  for (const [name, accept] of Object.entries({
    'by name': 'text/event-stream',
    'by name among others': 'text/html, text/event-stream;q=0.5',
    'by its kind': 'text/*',
    '*/*': '*/*'
  })) {
    t.test(`comes to who accepts it: ${name}`, async t => {
      const stream = await subscribe(t, server, '/events/head', { accept })
      t.equal(stream.status, 200)
      t.equal(stream.response.headers['content-type'], 'text/event-stream; charset=utf-8')
    })
  }

  t.test('comes to who says nothing of what it accepts', async t => {
    t.equal((await subscribe(t, server, '/events/head', {})).status, 200)
  })

  for (const accept of ['text/html', 'image/png, application/xml;q=0.9', 'text/event-stream;q=0']) {
    t.test(`is a 406 to who accepts only ${accept}`, async t => {
      isProblem(t, await ask(server, '/events/head', { headers: { accept } }), 406, /text\/event-stream/)
    })
  }

  t.test('is all that HEAD is given', async t => {
    const answer = await ask(server, '/events?topic=head', { method: 'HEAD' })
    t.equal(answer.status, 200)
    t.equal(answer.headers['content-type'], 'text/event-stream; charset=utf-8')
    t.equal(answer.headers['cache-control'], 'no-cache, no-transform')
    t.equal(answer.headers['x-accel-buffering'], 'no')
    t.match(answer.headers['ringside-cursor'], /^\d+-\d+$/)
    t.equal(answer.headers['content-length'], undefined)
    t.equal(answer.text, '')
    t.equal((await ask(server, '/events?topic=', { method: 'HEAD' })).status, 400)
    t.equal(
      (await ask(server, '/events?topic=a', { method: 'HEAD', headers: { accept: 'text/html' } })).status,
      406
    )
  })
})

t.test('a stream begins at once with one block: retry, id, cursor and its data', async t => {
  const server = await build(t, { RETRY: '4500ms' })
  const stream = await subscribe(t, server, '/events/begin')
  const frame = await stream.next()
  t.strictSame(Object.keys(frame), ['retry', 'event', 'id', 'data'])
  t.equal(frame.retry, 4500)
  t.equal(frame.event, 'cursor')
  t.strictSame(JSON.parse(frame.data!), { cursor: frame.id })

  const connection = rawConnection(t, server)
  connection.send('GET /events/begin HTTP/1.1\r\nHost: localhost\r\n\r\n')
  const text = await connection.until('\n\n\r\n')
  const [, size, chunk] = /\r\n\r\n([0-9a-f]+)\r\n([^]*)\r\n$/.exec(text) ?? []
  t.match(chunk, /^retry: 4500\nevent: cursor\ndata: {"cursor":"(\d+-\d+)"}\nid: \1\n\n$/, 'byte for byte')
  t.equal(parseInt(size!, 16), chunk!.length)
})

t.test('an event is its type if it has one, what was published, and its id', async t => {
  const server = await build(t)
  const connection = rawConnection(t, server)
  connection.send('GET /events/quotes HTTP/1.1\r\nHost: localhost\r\n\r\n')
  await connection.until('\n\n\r\n')
  const { text } = await post(server, '/events/quotes?type=quote', '{"symbol":"AAPL"}')
  const { id } = JSON.parse(text) as { id: string }
  await connection.until(`event: quote\ndata: {"symbol":"AAPL"}\nid: ${id}\n\n`)
  const plain = await publish(server, 'quotes', 'hello')
  await connection.until(`data: hello\nid: ${plain}\n\n`)
})

t.test('topics', async t => {
  const server = await build(t, { MAX_TOPICS: '100' })

  t.test('come from the query, the path, or both; one that is named twice counts once', async t => {
    const stream = await listen(t, server, '/events/p?topic=q&topic=r&topic=q&topic=p')
    for (const topic of ['p', 'q', 'r', 's', 'p']) await publish(server, topic, topic)
    t.strictSame(
      (await stream.until(4)).map(({ data }) => data),
      ['p', 'q', 'r', 'p']
    )
  })

  t.test('that several filters cover come once', async t => {
    const stream = await listen(t, server, '/events?topic=w/*&topic=w/1&topic=w/1')
    await publishAll(
      server,
      ['w/1', 'w/2', 'w/1', 'w/1'].map((topic, index) => ({ topic, data: index }))
    )
    t.strictSame(
      (await stream.until(4)).map(({ data }) => data),
      ['0', '1', '2', '3']
    )
    const again = await listen(t, server, '/events?topic=w/*&topic=w/1', { 'last-event-id': stream.cursor })
    t.strictSame(
      (await again.until(4)).map(({ data }) => data),
      ['0', '1', '2', '3']
    )
  })

  t.test('are 1 to 100', async t => {
    const topics = (count: number) => Array.from({ length: count }, (_, index) => `topic=t${index}`).join('&')
    const stream = await listen(t, server, `/events?${topics(100)}`)
    await publish(server, 't99', 'last')
    t.match(await stream.next(), { data: 'last' })
    isProblem(t, await ask(server, `/events?${topics(101)}`), 400, /101.*100/)
    isProblem(t, await ask(server, '/events'), 400, /topic/)
    isProblem(t, await ask(server, '/events?after=1-0'), 400, /topic/)
  })
})

t.test('a cursor', async t => {
  const server = await build(t)
  const ids: string[] = []
  for (let index = 0; index < 5; index++) ids.push(await publish(server, 'c', String(index)))
  const dataAfter = async (stream: Reader, count: number) =>
    (await stream.until(count)).map(({ data }) => data)

  for (const alias of ALIASES) {
    t.test(`is ${alias}=`, async t => {
      const stream = await listen(t, server, `/events/c?${alias}=${ids[2]}`)
      t.equal(stream.cursor, ids[2], "the stream starts from the client's own")
      t.strictSame(await dataAfter(stream, 2), ['3', '4'])
    })
  }

  t.test('is the header Last-Event-ID, which wins over all', async t => {
    const query = ALIASES.map(alias => `${alias}=${ids[0]}`).join('&')
    const stream = await listen(t, server, `/events/c?${query}`, { 'last-event-id': ids[3]! })
    t.equal(stream.cursor, ids[3])
    t.strictSame(await dataAfter(stream, 1), ['4'])
  })

  t.test('wins over rewind and since', async t => {
    const stream = await listen(t, server, `/events/c?after=${ids[3]}&rewind=5&since=1h`)
    t.strictSame(await dataAfter(stream, 1), ['4'])
    t.equal(stream.cursor, ids[3])
  })

  t.test('that is empty is none', async t => {
    const stream = await listen(t, server, '/events/c', { 'last-event-id': '' })
    t.not(stream.cursor, '')
    const next = await publish(server, 'c', '5')
    t.match(await stream.next(), { id: next, data: '5' })
    const rewound = await listen(t, server, '/events/c?after=&rewind=1', { 'last-event-id': '' })
    t.match(await rewound.next(), { id: next })
    const queried = await listen(t, server, `/events/c?after=${ids[4]}`, { 'last-event-id': '' })
    t.equal(queried.cursor, ids[4], 'an empty header leaves it to the query')
    t.match(await queried.next(), { id: next })
  })

  t.test('of the last event has nothing to replay', async t => {
    const last = await publish(server, 'c', 'last')
    const stream = await listen(t, server, '/events/c', { 'last-event-id': last })
    t.equal(stream.cursor, last)
    const next = await publish(server, 'c', 'next')
    t.match(await stream.next(), { id: next })
  })

  t.test('of one topic is a position for all', async t => {
    const before = await publish(server, 'c1', 'a')
    await publish(server, 'c2', 'b')
    const stream = await listen(t, server, `/events?topic=c2&topic=c3&after=${before}`)
    t.match(await stream.next(), { data: 'b' })
  })
})

t.test('an unknown cursor is a gap before the cursor event, then live', async t => {
  const server = await build(t)
  const known = await publish(server, 'u', 'before')
  const [ms, seq] = known.split('-').map(Number) as [number, number]
  const unknown: Record<string, string> = {
    'no id': 'abc',
    'half an id': String(ms),
    'an id and more': `${known}-1`,
    'a negative one': `-${known}`,
    'an id of another number of shards': `${known}_${known}`,
    'a number of too many digits': `${'9'.repeat(30)}-0`,
    'one from the future': `${ms + 3_600_000}-0`,
    'one from another life of the store': `${ms - 3_600_000}-${seq}`,
    'a line of its own, encoded': '1-0\n\ndata: x'
  }
  for (const [name, cursor] of Object.entries(unknown)) {
    t.test(name, async t => {
      const stream = await subscribe(t, server, `/events?topic=u&topic=v&after=${encodeURIComponent(cursor)}`)
      t.equal(stream.status, 200)
      const gap = await stream.next()
      t.strictSame(Object.keys(gap), ['event', 'data'])
      t.equal(gap.event, 'gap')
      t.strictSame(JSON.parse(gap.data!), { reason: 'unknown', topics: ['u', 'v'], after: cursor })
      const opened = await stream.next()
      t.equal(opened.event, 'cursor')
      t.match(opened.id, /^\d+-\d+$/)
      t.not(opened.id, cursor)
      const id = await publish(server, 'v', name)
      t.match(await stream.next(), { id, data: name }, 'live, and nothing before')
      t.equal(stream.response.headers['ringside-cursor'], opened.id)
    })
  }

  t.test('also from a header, and with rewind or since, which count for nothing then', async t => {
    const stream = await subscribe(t, server, '/events?topic=u&rewind=5&since=1h', {
      'last-event-id': 'nonsense'
    })
    t.match(await stream.next(), { event: 'gap' })
    t.match(await stream.next(), { event: 'cursor' })
    const id = await publish(server, 'u', 'live')
    t.match(await stream.next(), { id })
  })
})

t.test('an expired cursor is a gap after the cursor event and before any event', async t => {
  t.test('when the ring has moved on: for the topics that lost something alone', async t => {
    const server = await build(t, { RING_SIZE: '2' })
    const start = await publish(server, 'e1', 'start')
    await publish(server, 'e2', 'kept')
    for (const data of ['1', '2', '3']) await publish(server, 'e1', data)
    const stream = await listen(t, server, `/events?topic=e1&topic=e2&topic=e3&after=${start}`)
    t.equal(stream.cursor, start, "the client's own: who drops here is told again")
    const gap = await stream.next()
    t.equal(gap.id, start, 'whoever drops behind it is told again')
    t.strictSame(JSON.parse(gap.data!), { reason: 'expired', topics: ['e1'], after: start })
    t.strictSame(
      (await stream.until(3)).map(({ data }) => data),
      ['kept', '2', '3']
    )
    t.equal(stream.frames.all.filter(({ event }) => event === 'gap').length, 1)
  })

  t.test('when a wildcard lost something: for the topics under it', async t => {
    const server = await build(t, { RING_SIZE: '1' })
    const start = await publish(server, 'f/1', 'start')
    await publishAll(
      server,
      ['f/1', 'f/2', 'f/3', 'f/2', 'f/1'].map((topic, data) => ({ topic, data }))
    )
    const stream = await listen(t, server, `/events?topic=f/*&after=${start}`)
    const { event, data } = await stream.next()
    t.equal(event, 'gap')
    const gap = JSON.parse(data!) as { reason: string; topics: string[] }
    t.strictSame([gap.reason, gap.topics.sort()], ['expired', ['f/1', 'f/2']])
    t.strictSame(
      (await stream.until(3)).map(({ data }) => data),
      ['2', '3', '4']
    )
  })

  t.test('when it is older than RING_TTL, whatever is found', async t => {
    const server = await build(t, { RING_TTL: '1h' })
    await publish(server, 'g', 'held')
    const old = `${Date.now() - 3_601_000}-0`
    const stream = await listen(t, server, '/events?topic=g&topic=h', { 'last-event-id': old })
    t.equal(stream.cursor, old)
    const gap = await stream.next()
    t.strictSame(JSON.parse(gap.data!), { reason: 'expired', topics: ['g', 'h'], after: old })
    t.match(await stream.next(), { data: 'held' })
  })
})

let marks = 0

/** What a subscription begins with, until something is published after it has opened. */
async function beginning(t: Test, server: TestServer, query: string): Promise<(string | undefined)[]> {
  const mark = `mark-${++marks}`
  const stream = await listen(t, server, `/events?topic=${mark}&${query}`)
  await publish(server, mark, mark)
  await stream.frames.until(() => stream.messages.at(-1)?.data === mark, mark)
  t.notOk(stream.frames.all.some(({ event }) => event === 'gap'))
  return stream.messages.slice(0, -1).map(({ data }) => data)
}

t.test('rewind=N: with no cursor, first the last N events of each topic, in id order', async t => {
  const server = await build(t)
  await publishAll(
    server,
    ['r1', 'r2', 'r1', 'r1', 'r2', 's/1', 's/2', 's/1'].map((topic, data) => ({ topic, data }))
  )
  const rewound: Record<string, string[]> = {
    'topic=r1&topic=r2': [],
    'topic=r1&topic=r2&rewind=0': [],
    'topic=r1&topic=r2&rewind=1': ['3', '4'],
    'topic=r1&topic=r2&rewind=2': ['1', '2', '3', '4'],
    'topic=r1&rewind=1000': ['0', '2', '3'],
    'topic=s/*&rewind=1': ['6', '7'],
    'topic=s/*&topic=s/1&rewind=1': ['6', '7'],
    'topic=never&rewind=10': []
  }
  for (const [query, data] of Object.entries(rewound)) {
    t.strictSame(await beginning(t, server, query), data, query)
  }
  for (const rewind of ['-1', '1001', '1.5', 'x', '']) {
    isProblem(t, await ask(server, `/events?topic=r1&rewind=${rewind}`), 400, /rewind/)
  }
})

t.test('since: with no cursor, first everything in the ring since then', async t => {
  const server = await build(t)
  const first = await publish(server, 'since', '0')
  const at = Number(first.split('-')[0])
  await eventually(Date.now, now => now > at + 1, 'the clock')
  const second = await publish(server, 'since', '1')
  const secondAt = new Date(Number(second.split('-')[0])).toISOString()

  for (const since of ['30s', '10m', '2h', '1d', '90000ms', '1.5h', '2020-01-31T12:00:00Z', '2020-01-31']) {
    t.strictSame(await beginning(t, server, `topic=since&since=${since}`), ['0', '1'], since)
  }
  t.strictSame(
    await beginning(t, server, `topic=since&since=${secondAt}`),
    ['1'],
    'that very millisecond belongs to it'
  )
  const later = encodeURIComponent('2999-01-31T12:00:00+02:00')
  t.strictSame(await beginning(t, server, `topic=since&since=${later}`), [])

  for (const since of [
    '',
    'x',
    '10',
    '10x',
    '-10s',
    '10 apples',
    'apples 10',
    '2026-13-45T00:00:00Z',
    'yesterday',
    '0x10'
  ]) {
    isProblem(t, await ask(server, `/events?topic=since&since=${encodeURIComponent(since)}`), 400, /since/)
  }
})

t.test('an event that has outlived its ttl is passed over, and is no gap', async t => {
  const server = await build(t)
  const start = await publish(server, 'ttl', 'start')
  const live = await listen(t, server, '/events/ttl')
  await post(server, '/events/ttl?ttl=2', 'short')
  await publishAll(server, [
    { topic: 'ttl', data: 'brief', ttl: 2 },
    { topic: 'ttl', data: 'long', ttl: 3600 }
  ])
  t.strictSame(
    (await live.until(3)).map(({ data }) => data),
    ['short', '"brief"', '"long"'],
    'live it comes'
  )
  t.strictSame(await beginning(t, server, 'topic=ttl&rewind=10'), ['start', 'short', '"brief"', '"long"'])
  const replayed = () => beginning(t, server, `topic=ttl&after=${start}`)
  t.strictSame(await eventually(replayed, ({ length }) => length === 1, 'the end of the short ones'), [
    '"long"'
  ])
})

t.test('envelope=true: data is the whole event as JSON', async t => {
  const server = await build(t)
  const stream = await listen(t, server, '/events?topic=env/*&envelope=true')
  const bytes = { 'content-type': 'application/octet-stream' }
  const json = { 'content-type': 'application/json' }
  await post(server, '/events/env/1?type=quote', '{ "price": 189.25,\n "big": 12345678901234567890 }', json)
  await post(server, '/events/env/2', 'two\nlines')
  await post(server, '/events/env/3', Buffer.from([1, 2, 255]), bytes)
  await post(server, '/events/env/4', '')
  await post(server, '/events/env/5', '[1,\r\n2]')
  await post(server, '/events/env/6', 'null', json)
  const frames = await stream.until(6)
  t.match(frames[0]!.data, /"data":\{"price":189\.25,"big":12345678901234567890\}\}$/)
  const events = frames.map(({ data }) => JSON.parse(data!) as Record<string, unknown>)
  for (const [index, { id, time }] of events.entries()) {
    t.equal(id, frames[index]!.id)
    t.equal(time, Number(String(id).split('-')[0]))
  }
  t.strictSame(events.map(({ topic, type, data, encoding }) => [topic, type, data, encoding]).slice(1), [
    ['env/2', 'message', 'two\nlines', undefined],
    ['env/3', 'message', 'AQL/', 'base64'],
    ['env/4', 'message', '', undefined],
    ['env/5', 'message', [1, 2], undefined],
    ['env/6', 'message', null, undefined]
  ])
  t.strictSame(Object.keys(events[0]!), ['id', 'topic', 'type', 'time', 'data'])
  t.equal(frames[0]!.event, 'quote', 'the event: line stays')
  const bare = await listen(t, server, '/events?topic=env/2&envelope=false&rewind=1')
  t.match(await bare.next(), { data: 'two\nlines' })
  isProblem(t, await ask(server, '/events?topic=a&envelope=maybe'), 400, /envelope/)
})

t.test('heartbeat=S: a visible event every S seconds, with the time and the cursor', async t => {
  const server = await build(t)
  const stream = await listen(t, server, '/events?topic=beat&heartbeat=1')
  const id = await publish(server, 'beat', 'x')
  const first = await stream.first('heartbeat')
  const { time, cursor } = JSON.parse(first.data!) as { time: number; cursor: string }
  t.equal(first.id, cursor)
  t.ok(Math.abs(Date.now() - time) < 5000)
  t.ok(notBefore(cursor, id), 'it has got the event before')
  const beats = () => stream.frames.all.filter(({ event }) => event === 'heartbeat')
  await stream.frames.until(() => beats().length === 2, 'another one')
  const [one, two] = beats().map(({ data }) => (JSON.parse(data!) as { time: number }).time)
  t.ok(two! - one! > 900 && two! - one! < 5000, `${two! - one!} ms later`)

  const resumed = await listen(t, server, '/events/beat', { 'last-event-id': cursor })
  const next = await publish(server, 'beat', 'y')
  t.match(await resumed.next(), { id: next }, 'its cursor is one to resume from')

  for (const heartbeat of ['0', '0.5', '301', '-1', 'x', '']) {
    isProblem(t, await ask(server, `/events?topic=a&heartbeat=${heartbeat}`), 400, /heartbeat/)
  }
})

t.test(
  'after HEARTBEAT without an event: a whole cursor event, that only who listens for it hears',
  async t => {
    const server = await build(t, { HEARTBEAT: '100ms' })
    const stream = await listen(t, server, '/events/quiet')
    const first = await stream.next()
    t.match(first, { event: 'cursor', data: JSON.stringify({ cursor: first.id }), retry: undefined })
    t.ok(notBefore(first.id!, stream.cursor))
    const moved = () => stream.frames.all.some(({ id }) => id !== undefined && id !== stream.cursor)
    await stream.frames.until(moved, "a quiet subscriber's cursor to move on")

    const fresh = stream.frames.all.at(-1)!.id!
    const resumed = await listen(t, server, '/events/quiet', { 'last-event-id': fresh })
    const id = await publish(server, 'quiet', 'x')
    await resumed.until(1)
    t.match(resumed.messages, [{ id }])
    t.notOk(resumed.frames.all.some(({ event }) => event === 'gap'))
    t.notOk(
      stream.frames.all.some(({ id, data }) => id === undefined && data === undefined),
      'each has the cursor'
    )
  }
)

t.test('a stream that is not quiet is not told its cursor besides', async t => {
  const server = await build(t, { HEARTBEAT: '1s' })
  const stream = await listen(t, server, '/events/busy')
  const other = await listen(t, server, '/events?topic=idle&heartbeat=2')
  let count = 0
  while (!other.frames.all.some(({ event }) => event === 'heartbeat')) {
    await publish(server, 'busy', String(++count))
    await stream.until(count)
  }
  t.strictSame(
    stream.frames.all.slice(1).filter(({ event }) => event === 'cursor'),
    []
  )
})

t.test('rate=R: at most R events a second for each topic, always the newest, and no gap', async t => {
  const server = await build(t)
  const stream = await listen(t, server, '/events?topic=fast&topic=slow&rate=2')
  await publish(server, 'slow', 'only')
  for (let index = 0; index <= 200; index++) await publish(server, 'fast', String(index))
  await stream.frames.until(() => stream.messages.at(-1)?.data === '200', 'the newest')
  const seen = stream.messages.map(({ data }) => data)
  t.ok(seen.includes('only'))
  const fast = seen.filter(data => data !== 'only').map(Number)
  t.strictSame(
    fast,
    [...fast].sort((a, b) => a - b)
  )
  const spent = Number(stream.messages.at(-1)!.id!.split('-')[0]) - Number(stream.cursor.split('-')[0])
  t.ok(fast.length <= 2 + Math.ceil((spent / 1000) * 2), `${fast.length} in ${spent} ms`)
  t.notOk(stream.frames.all.some(({ event }) => event === 'gap'))
  for (const rate of ['0', '0.05', '101', '-1', 'x', '']) {
    isProblem(t, await ask(server, `/events?topic=a&rate=${rate}`), 400, /rate/)
  }
})

t.test('rate: a resumed view gets the newest, not what lies between, and no expired gap', async t => {
  const server = await build(t, { RING_SIZE: '5' })
  const start = await publish(server, 'view', 'start')
  for (let index = 0; index < 20; index++) await publish(server, 'view', String(index))
  const stream = await listen(t, server, `/events?topic=view&rate=10&after=${start}`)
  t.match(await stream.next(), { data: '19' })
  const id = await publish(server, 'view', 'live')
  t.match(await stream.next(), { id, data: 'live' })
})

t.test('a wrong query is a 400 that names it', async t => {
  const server = await build(t)
  const problem = isProblem(t, await ask(server, '/events?topic=a&rewind=x&rate=0'), 400, /rewind/)
  t.match(problem['errors'], [{ path: /rewind/, message: String }])
  t.equal(problem['title'], 'Bad Request')
})

t.test('a quiet stream may be silent for longer than STALL_TIMEOUT', async t => {
  const server = await build(t, { STALL_TIMEOUT: '1s', HEARTBEAT: '60s' })
  const stream = await listen(t, server, '/events?topic=silent&heartbeat=3')
  const beat = await Promise.race([stream.first('heartbeat').catch(() => null), stream.ended])
  t.match(beat, { event: 'heartbeat' })
  await publish(server, 'silent', 'x')
  await stream.until(1)
})

/** Whether an id lies at or past another. */
function notBefore(id: string, other: string): boolean {
  const [ms, seq] = id.split('-').map(Number) as [number, number]
  const [otherMs, otherSeq] = other.split('-').map(Number) as [number, number]
  return ms > otherMs || (ms === otherMs && seq >= otherSeq)
}
