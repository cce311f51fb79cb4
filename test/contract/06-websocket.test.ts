import t, { type Test } from 'tap'
import {
  ask,
  build,
  isProblem,
  metricsOf,
  post,
  publish,
  publishAll,
  type TestServer
} from '../support/app.ts'
import { makeCertificate } from '../support/certificate.ts'
import { eventually } from '../support/inbox.ts'
import { listen } from '../support/reader.ts'
import { instances, redisFor } from '../support/redis-system.ts'
import { bearer, SECRET, tokenFor } from '../support/tokens.ts'
import { connect, type Message, type Protocol, type WsClient } from '../support/websocket.ts'

const PROTOCOLS: readonly Protocol[] = ['ringside.v1.json', 'ringside.v1.cbor']

/** Without development mode, in which loopback has no limits. */
const PUBLIC = { JWT_SECRET: SECRET, ANONYMOUS_SUBSCRIBE: '**' }

t.setTimeout(400_000)

t.test('the handshake', async t => {
  const server = await build(t)

  t.test('who asks for no subprotocol speaks JSON, and is told of none', async t => {
    const client = await connect(t, server)
    t.equal(client.ws.protocol, '')
    t.strictSame(await client.ask('ping'), { op: 'pong', ref: 1 })
  })

  t.test('the first one that is known is taken', async t => {
    for (const protocols of [
      ...PROTOCOLS.map(name => [name]),
      ['chat', ...PROTOCOLS],
      ['x', 'ringside.v1.cbor']
    ]) {
      const client = await connect(t, server, { protocols })
      t.equal(
        client.ws.protocol,
        protocols.find(name => name.startsWith('ringside.'))
      )
      t.strictSame(await client.ask('ping'), { op: 'pong', ref: 1 })
    }
  })

  t.test('what can not become a WebSocket is refused with a problem', async t => {
    const headers = {
      ...{ connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13' },
      'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ=='
    }
    const refused = async (changes: Record<string, string | undefined>, status: number, says: RegExp) => {
      const merged = Object.entries({ ...headers, ...changes }).filter(([, value]) => value !== undefined)
      const answer = await ask(server, '/ws', {
        headers: Object.fromEntries(merged)
      })
      isProblem(t, answer, status, says)
      return answer
    }
    await refused({ 'sec-websocket-protocol': 'chat, ringside.v2.json' }, 400, /ringside\.v1\.json/)
    await refused({ 'sec-websocket-protocol': '' }, 400, /ringside\.v1\.json/)
    for (const key of [undefined, '', 'short', 'dGhlIHNhbXBsZSBub25jZQ=']) {
      await refused({ 'sec-websocket-key': key }, 400, /Sec-WebSocket-Key/)
    }
    for (const version of [undefined, '8', '12', '14']) {
      const { headers } = await refused({ 'sec-websocket-version': version }, 426, /Version: it must be 13/)
      t.equal(headers['sec-websocket-version'], '13')
    }
    const { headers: plain } = await refused({ connection: undefined, upgrade: undefined }, 426, /WebSocket/)
    t.equal(plain.upgrade, 'websocket')
    isProblem(t, await ask(server, '/ws', { method: 'POST' }), 405, /POST/)
  })

  t.test('nothing is compressed', async t => {
    const client = await connect(t, server, { perMessageDeflate: true })
    t.equal(client.ws.extensions, '')
  })
})

t.test('a quiet client is told its cursor now and then', async t => {
  const server = await build(t, { HEARTBEAT: '100ms' })
  const client = await connect(t, server)
  const first = await client.do('subscribe', { topics: ['a', 'b/*'] })
  const told = await client.first('cursor')
  t.strictSame(told, { op: 'cursor', cursor: told['cursor'], topics: ['a', 'b/*'] })
  const second = await client.do('subscribe', { topics: ['c'] })
  const own = await client.first('cursor', ({ topics }) => String(topics) === 'c')
  t.ok(String(own['cursor']) >= String(second['cursor']))
  t.ok(String(told['cursor']) >= String(first['cursor']))
  client.close()
  const missed = await publish(server, 'a', 'missed')
  const again = await connect(t, server)
  await again.do('subscribe', { topics: ['a', 'b/*'], after: told['cursor'] })
  t.match(await again.until(1), [{ id: missed }])
})

t.test('the end', async t => {
  t.test(
    '1001 with the reason when the server stops, spread over DRAIN; nobody comes in meanwhile',
    async t => {
      const server = await build(t, { DRAIN: '600ms', RETRY: '100ms' })
      const clients = await Promise.all(Array.from({ length: 12 }, () => connect(t, server)))
      const watcher = clients[0]!
      for (const client of clients) await client.do('subscribe', { topics: ['a'] })
      for (const client of clients) await client.do('join', { topic: 'a' })
      await publish(server, 'a', 'last')
      for (const client of clients) await client.until(1)
      const started = Date.now()
      const ends: number[] = []
      for (const client of clients) void client.closed.then(() => ends.push(Date.now() - started))
      const drained = server.app.ringside.drain()
      const late = await connect(t, server)
      t.match(await late.closed, { code: 1001, reason: /"shutdown"/ })
      await drained
      const retries = new Set<number>()
      for (const client of clients) {
        const { code, reason } = await client.closed
        t.equal(code, 1001)
        const { reason: why, retry } = JSON.parse(reason) as { reason: string; retry: number }
        t.equal(why, 'shutdown')
        t.ok(retry >= 100)
        retries.add(retry)
      }
      t.ok(retries.size > 1, 'each with a retry of its own')
      t.ok(Math.max(...ends) - Math.min(...ends) > 300, `${ends}`)
      t.ok(watcher.messages.all.length > 0)
      const metrics = await metricsOf(server)
      t.equal(metrics.get('ringside_connections_closed_total{transport="ws",reason="shutdown"}'), 12)
      t.equal(metrics.get('ringside_connections_rejected_total{reason="shutdown"}'), 1)
      t.equal(metrics.get('ringside_connections{transport="ws"}'), 0)
    }
  )

  t.test('1013 when it is full: WebSockets and streams take the same places', async t => {
    const server = await build(t, { MAX_CONNECTIONS: '2' })
    const stream = await listen(t, server, '/events/a')
    const client = await connect(t, server)
    for (let count = 0; count < 3; count++) await client.do('subscribe', { topics: [`t${count}`] })
    const third = await connect(t, server)
    t.match(await third.closed, { code: 1013, reason: /"full".*"retry":\d+/ })
    isProblem(t, await ask(server, '/events/a'), 503, /taken/)
    t.equal((await metricsOf(server)).get('ringside_connections_rejected_total{reason="full"}'), 2)
    stream.close()
    await eventually(
      () => server.app.ringside.hub.connections.taken,
      taken => taken === 1,
      'a free place'
    )
    await (await connect(t, server)).do('ping')
  })

  t.test('1009 for a message past WS_MAX_BYTES', async t => {
    const server = await build(t, { WS_MAX_BYTES: '1000' })
    const client = await connect(t, server)
    await client.do('ping', { ref: 'x' }).catch(() => {})
    client.ws.send(' '.repeat(1000))
    await client.first('error')
    client.ws.send(' '.repeat(1001))
    t.equal((await client.closed).code, 1009)
    const plain = await connect(t, await build(t, { MAX_EVENT_BYTES: '100' }))
    t.match(await plain.ask('publish', { topic: 'a', data: 'x'.repeat(8000) }), { code: 'too_large' })
    plain.ws.send(' '.repeat(8393))
    t.equal((await plain.closed).code, 1009, 'by default twice MAX_EVENT_BYTES and 8 KiB')
    const open = await connect(t, await build(t, { WS_MAX_BYTES: '0' }))
    open.ws.send(' '.repeat(2_000_000))
    await open.first('error')
    await open.do('ping')
  })

  t.test('past WS_MESSAGE_RATE messages are refused; who goes on is closed with 1008', async t => {
    const server = await build(t, { ...PUBLIC, WS_MESSAGE_RATE: '10' })
    const client = await connect(t, server)
    for (let ref = 0; ref < 30; ref++) client.send({ op: 'ping', ref })
    await client.messages.until(() => client.messages.all.length === 30, 'thirty answers')
    for (let ref = 0; ref < 10; ref++) t.match(await client.answer(ref), { op: 'pong' })
    t.match(await client.answer(29), { op: 'error', code: 'rate_limited', message: /10 messages a second/ })
    await eventually(
      () => client.ask('ping'),
      ({ op }) => op === 'pong',
      'it to be served again'
    )
    for (let ref = 0; ref < 300; ref++) client.send({ op: 'ping', ref })
    t.match(await client.closed, { code: 1008, reason: 'too many messages' })
    const metrics = await metricsOf(server)
    t.equal(metrics.get('ringside_connections_closed_total{transport="ws",reason="policy"}'), 1)

    const other = await connect(t, await build(t, PUBLIC))
    for (let ref = 0; ref < 50; ref++) other.send({ op: 'ping', ref })
    for (let ref = 0; ref < 50; ref++) t.match(await other.answer(ref), { op: 'pong' }, '50 by default')
    for (const [name, env] of [
      ['0 is no limit', { ...PUBLIC, WS_MESSAGE_RATE: '0' }],
      ['in development mode loopback has none', {}]
    ] as const) {
      const free = await connect(t, await build(t, env))
      for (let ref = 0; ref < 500; ref++) free.send({ op: 'ping', ref })
      t.match(await free.answer(499), { op: 'pong' }, name)
    }
  })

  t.test('1008 for bad messages without end', async t => {
    const server = await build(t, { WS_MESSAGE_RATE: '0' })
    for (const bad of [
      '{',
      '{"op":"publish","ref":"bad","topic":"tickers/x","data":1}',
      '{"op":"leave","ref":"bad","topic":"x"}'
    ]) {
      const client = await connect(t, server)
      for (let count = 0; count < 90; count++) client.ws.send(bad)
      await client.messages.until(() => client.messages.all.length === 90, 'ninety answers')
      await client.do('ping')
      for (let count = 0; count < 90; count++) client.ws.send(bad)
      t.match(await client.closed, { code: 1008, reason: 'too many bad messages' }, bad)
    }
  })

  t.test('a close is answered with the same code, and nothing comes after it', async t => {
    const server = await build(t)
    for (const code of [1000, 1001, 3000, 4999]) {
      const client = await connect(t, server)
      await client.do('subscribe', { topics: ['a'] })
      client.ws.close(code, 'bye')
      for (let count = 0; count < 5; count++) await publish(server, 'a', 'x')
      t.equal((await client.closed).code, code)
    }
    await eventually(
      () => server.app.ringside.hub.connections.taken,
      taken => taken === 0,
      'nobody to be left'
    )
    t.equal(server.app.ringside.hub.sessions.size, 0)
    t.equal((await metricsOf(server)).get('ringside_topics'), 0)
  })
})

t.test('a WebSocket counts once, whatever goes on in it', async t => {
  const server = await build(t)
  const value = async (name: string) => (await metricsOf(server)).get(name) ?? 0
  const clients = [await connect(t, server), await connect(t, server)]
  t.equal(await value('ringside_connections{transport="ws"}'), 2)
  for (const topic of ['a', 'b', 'c', 'd', 'e']) await clients[0]!.do('subscribe', { topics: [topic] })
  await clients[0]!.do('unsubscribe', { topics: ['a', 'b'] })
  t.equal(await value('ringside_connections{transport="ws"}'), 2)
  t.equal(await value('ringside_connections_opened_total{transport="ws"}'), 2)
  t.equal(await value('ringside_connections_closed_total{transport="ws",reason="client"}'), 0)
  t.equal(await value('ringside_topics'), 3)
  await clients[1]!.do('publish', { topic: 'c', data: 1 })
  await clients[0]!.until(1)
  t.equal(await value('ringside_events_delivered_total{transport="ws"}'), 1)
  t.ok((await value('ringside_bytes_sent_total{transport="ws"}')) > 100)
  await clients[1]!.ask('dance')
  clients[1]!.ws.send('{')
  await clients[1]!.do('ping')
  for (const [op, count] of Object.entries({
    subscribe: 5,
    unsubscribe: 1,
    publish: 1,
    ping: 1,
    unknown: 2
  })) {
    t.equal(await value(`ringside_ws_messages_total{op="${op}"}`), count, op)
  }
  for (const client of clients) client.close()
  await eventually(
    () => value('ringside_connections_closed_total{transport="ws",reason="client"}'),
    closed => closed === 2,
    'both to be gone'
  )
  t.equal(await value('ringside_connections{transport="ws"}'), 0)
  t.equal(await value('ringside_connection_duration_seconds_count{transport="ws"}'), 2)
})

t.test('who has no token joins without info, and hears of others', async t => {
  const server = await build(t, { JWT_SECRET: SECRET, ANONYMOUS_SUBSCRIBE: 'room/*' })
  const topic = 'room/1'
  const visitor = await connect(t, server)
  t.match(await visitor.ask('join', { topic, info: { name: 'admin' } }), {
    ...{ op: 'error', code: 'forbidden', message: /info/ }
  })
  t.match((await visitor.do('join', { topic }))['members'], [{ sub: null, info: null }])
  const headers = bearer(await tokenFor({ subscribe: [topic], publish: [topic] }))
  const alice = await connect(t, server, { headers })
  await alice.do('join', { topic, info: 1 })
  t.match(await visitor.first('joined'), { member: { sub: 'alice', info: 1 } })
  t.match(await visitor.ask('signal', { topic, data: 1 }), { op: 'error', code: 'forbidden' })
  t.match(await visitor.ask('publish', { topic, data: 1 }), { op: 'error', code: 'forbidden' })
})

t.test('a key belongs to its user: another one may use the same', async t => {
  const server = await build(t, { JWT_SECRET: SECRET })
  const ids = []
  for (const sub of ['alice', 'bob', 'alice']) {
    const headers = bearer(await tokenFor({ publish: ['orders'] }, sub))
    const client = await connect(t, server, { headers })
    const data = `of ${sub}`
    ids.push((await client.do('publish', { topic: 'orders', data, key: 'order-17' }))['id'])
  }
  t.equal(new Set(ids).size, 2)
  t.equal(ids[0], ids[2])
})

t.test('over TLS', async t => {
  const { TLS_CERT, TLS_KEY } = makeCertificate(t.testdir())
  const server = await build(t, { TLS_CERT, TLS_KEY })
  const client = await connect(t, server, { scheme: 'wss', rejectUnauthorized: false })
  await client.do('subscribe', { topics: ['a'] })
  await client.do('publish', { topic: 'a', data: 1 })
  await client.until(1)
  await t.rejects(connect(t, server, { scheme: 'wss', rejectUnauthorized: false, path: '/livez' }), /200/)
})

const SETUPS: Record<string, (t: Test) => Promise<[TestServer, TestServer]>> = {
  'one instance with its memory': async t => {
    const server = await build(t, { WS_MESSAGE_RATE: '0', RING_SIZE: '5' })
    return [server, server]
  },
  'two instances on one Redis': async t => {
    const redis = await redisFor(t)
    const env = { WS_MESSAGE_RATE: '0', RING_SIZE: '5', SHARDS: '1' }
    return (await instances(t, redis.url, 2, env)) as [TestServer, TestServer]
  }
}

for (const [setup, start] of Object.entries(SETUPS)) {
  for (const protocol of PROTOCOLS) {
    t.test(`${protocol}, ${setup}`, async t => {
      const [a, b] = await start(t)
      const open = (server: TestServer, user?: string, t2 = t) =>
        connect(t2, server, { protocols: [protocol], path: user ? `/ws?user=${user}` : '/ws' })
      await speaks(t, a, b, open, protocol)
    })
  }
}

/** What the members of a topic call this connection. */
async function idOf(client: WsClient): Promise<unknown> {
  const topic = 'who-am-i'
  const { members } = await client.do('join', { topic })
  await client.do('leave', { topic })
  return (members as Message[])[0]!['id']
}

type Open = (server: TestServer, user?: string, t?: Test) => Promise<WsClient>

/** Everything that a client can ask for and hears; on `b` it finds what happened on `a`. */
async function speaks(t: Test, a: TestServer, b: TestServer, open: Open, protocol: Protocol): Promise<void> {
  const isCbor = protocol === 'ringside.v1.cbor'

  await t.test('subscribe: ok with where it starts, then the events', async t => {
    const client = await open(b)
    const answer = await client.do('subscribe', { topics: ['s/a', 'w/*'] })
    t.strictSame(Object.keys(answer).sort(), ['cursor', 'op', 'ref'])
    t.match(answer, { op: 'ok', ref: 1, cursor: /^\d+-\d+$/ })
    const ids = [
      await publish(a, 's/a', 'text'),
      ...(await publishAll(a, [
        { topic: 'w/1', type: 'quote', data: { n: [1, 2.5, null, 'ü'] } },
        { topic: 'other', data: 1 },
        { topic: 'w/2', data: 'a string' }
      ]))
    ]
    const events = await client.until(3)
    t.strictSame(
      events.map(({ time, ...event }) => {
        t.type(time, 'number')
        t.equal(time, Number(String(event['id']).split('-')[0]))
        return event
      }),
      [
        { op: 'event', id: ids[0], topic: 's/a', type: 'message', data: 'text' },
        { op: 'event', id: ids[1], topic: 'w/1', type: 'quote', data: { n: [1, 2.5, null, 'ü'] } },
        { op: 'event', id: ids[3], topic: 'w/2', type: 'message', data: 'a string' }
      ]
    )
    t.strictSame(client.messages.all.length, 4, 'and nothing else')
  })

  await t.test('data may be bytes', async t => {
    const client = await open(b)
    await client.do('subscribe', { topics: ['bytes'] })
    const bytes = Buffer.from([0, 1, 127, 128, 255])
    await post(a, '/events/bytes', bytes, { 'content-type': 'application/octet-stream' })
    if (isCbor) await (await open(a)).do('publish', { topic: 'bytes', data: new Uint8Array(bytes) })
    const events = await client.until(isCbor ? 2 : 1)
    for (const event of events) {
      if (isCbor) t.strictSame([...(event['data'] as Uint8Array)], [...bytes])
      else t.match(event, { encoding: 'base64', data: bytes.toString('base64') })
      t.equal('encoding' in event, !isCbor)
    }
  })

  await t.test('numbers stay as they were written, as far as the client can hold them', async t => {
    const client = await open(b)
    await client.do('subscribe', { topics: ['numbers'] })
    const reader = await listen(t, b, '/events/numbers')
    const publisher = await open(a)
    if (isCbor) {
      await publisher.do('publish', { topic: 'numbers', data: [12345678901234567890n, -5n, 0.1] })
      t.strictSame((await client.until(1))[0]!['data'], [12345678901234567890n, -5, 0.1])
      t.equal((await reader.until(1))[0]!.data, '[12345678901234567890,-5,0.1]')
      await publish(a, 'numbers', '[123456789012345678901234567890, 1e400]')
      t.strictSame((await client.until(2))[1]!['data'], [Number('123456789012345678901234567890'), Infinity])
    } else {
      const data = '[12345678901234567890, 1.00, 0.10000000000000000001]'
      publisher.ws.send(`{"op":"publish","ref":1,"topic":"numbers","data":${data}}`)
      await publisher.answer(1)
      t.equal((await reader.until(1))[0]!.data, data.replaceAll(' ', ''))
    }
  })

  await t.test('after: what followed that id, each once and in order', async t => {
    const ids = await publishAll(
      a,
      [1, 2, 3, 4].map(data => ({ topic: 'after', data }))
    )
    const client = await open(b)
    t.match(await client.do('subscribe', { topics: ['after'], after: ids[1] }), { cursor: ids[1] })
    await publish(a, 'after', '5')
    t.strictSame(
      (await client.until(3)).map(({ data }) => data),
      [3, 4, 5]
    )
    const other = await open(b)
    for (const [after, topics] of [
      [null, ['none/1']],
      ['', ['none/2']]
    ] as const) {
      t.match(await other.do('subscribe', { topics, after }), { op: 'ok', cursor: String }, 'none is none')
    }
    t.strictSame(other.told, [])
  })

  await t.test('rewind: first the last events of each topic', async t => {
    await publishAll(
      a,
      ['r/1', 'r/1', 'r/1', 'r/2'].map((topic, data) => ({ topic, data }))
    )
    const client = await open(b)
    await client.do('subscribe', { topics: ['r/*'], rewind: 2 })
    t.strictSame(
      (await client.until(3)).map(({ data }) => data),
      [1, 2, 3]
    )
  })

  await t.test('rate: the newest, so often', async t => {
    const client = await open(b)
    await client.do('subscribe', { topics: ['rate'], rate: 5 })
    for (let data = 0; data <= 30; data++) await publish(a, 'rate', String(data))
    await client.messages.until(() => client.events.at(-1)?.['data'] === 30, 'the newest')
    t.ok(client.events.length < 10, `${client.events.length} of 31`)
  })

  await t.test('a gap comes before any later event', async t => {
    const [first] = await publishAll(
      a,
      [0, 1, 2, 3, 4, 5, 6, 7].map(data => ({ topic: 'gap', data }))
    )
    const expired = await open(b)
    await expired.do('subscribe', { topics: ['gap'], after: first })
    await expired.until(5)
    const [ok, gap, ...events] = expired.messages.all
    t.match(ok, { op: 'ok', cursor: first })
    t.strictSame(gap, { op: 'gap', reason: 'expired', topics: ['gap'], after: first })
    t.strictSame(
      events.map(({ data }) => data),
      [3, 4, 5, 6, 7]
    )

    const unknown = await open(b)
    await unknown.do('subscribe', { topics: ['gap', 'x'], after: 'nonsense' })
    await publish(a, 'gap', '8')
    await unknown.until(1)
    // the answer has a new cursor: who drops before it must be told again
    t.match(unknown.messages.all, [
      { op: 'gap', reason: 'unknown', topics: ['gap', 'x'], after: 'nonsense' },
      { op: 'ok', cursor: /^\d+-\d+$/ },
      { op: 'event', data: 8 }
    ])
  })

  await t.test('topics that overlap with those of before are refused', async t => {
    const client = await open(b)
    await client.do('subscribe', { topics: ['o/a', 'p/*'] })
    for (const [topic, other] of [
      ['o/a', 'o/a'],
      ['o/*', 'o/a'],
      ['p/1', 'p/*'],
      ['p/*', 'p/*']
    ] as const) {
      const answer = await client.ask('subscribe', { topics: ['new', topic] })
      t.match(answer, { op: 'error', code: 'bad_request' })
      t.match(answer['message'], `${topic} overlaps with ${other}`)
    }
    await client.do('subscribe', { topics: ['new', 'o/b', 'p', 'o', 'p/1/2', 'new'] })
    await client.do('unsubscribe', { topics: ['o/a'] })
    await client.do('subscribe', { topics: ['o/c', 'o/a'] })
    const within = await open(b)
    await within.do('subscribe', { topics: ['q/*', 'q/1', 'q/1'] })
    await publish(a, 'q/1', '1')
    await publish(a, 'q/2', '2')
    t.strictSame(
      (await within.until(2)).map(({ data }) => data),
      [1, 2],
      'together each comes once'
    )
  })

  await t.test('at most MAX_TOPICS on a connection', async t => {
    const client = await open(b)
    const topics = (from: number, to: number) =>
      Array.from({ length: to - from }, (_, index) => `many/${from + index}`)
    t.match(await client.ask('subscribe', { topics: topics(0, 101) }), {
      code: 'bad_request',
      message: /100/
    })
    for (let from = 0; from < 100; from += 25)
      await client.do('subscribe', { topics: topics(from, from + 25) })
    t.match(await client.ask('subscribe', { topics: ['one-more'] }), {
      code: 'bad_request',
      message: /101.*100/
    })
    await client.do('unsubscribe', { topics: topics(10, 20) })
    await client.do('subscribe', { topics: ['one-more'] })
  })

  await t.test('unsubscribe: of all, or of a part; the rest goes on without a break', async t => {
    const client = await open(b)
    await client.do('subscribe', { topics: ['u/1', 'u/2', 'u/3', 'v/*'] })
    const numbers = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    for (const data of numbers) {
      if (data === 4 || data === 8) await client.until(data === 4 ? 16 : 24)
      if (data === 4)
        t.strictSame(await client.do('unsubscribe', { topics: ['u/2', 'v/*'] }), { op: 'ok', ref: 2 })
      if (data === 8) await client.do('unsubscribe', { topics: ['u/3'] })
      await publishAll(
        a,
        ['u/1', 'u/2', 'u/3', 'v/1'].map(topic => ({ topic, data }))
      )
    }
    const of = (topic: string) =>
      client.events.filter(event => event['topic'] === topic).map(({ data }) => data as number)
    await client.messages.until(() => of('u/1').length === 12, 'all that it still wants')
    t.strictSame(of('u/1'), numbers)
    t.strictSame(of('u/3'), numbers.slice(0, 8))
    for (const topic of ['u/2', 'v/1']) t.strictSame(of(topic), numbers.slice(0, 4))
    await client.do('unsubscribe', { topics: ['u/1'] })
    t.match(await client.ask('unsubscribe', { topics: ['u/1'] }), {
      ...{ op: 'error', code: 'bad_request', message: /"u\/1" is not subscribed/ }
    })
    await publish(a, 'u/1', 'late')
    await client.do('subscribe', { topics: ['u/9'] })
    await publish(a, 'u/9', 'end')
    await client.messages.until(() => client.events.at(-1)?.['data'] === 'end', 'the end')
    t.notOk(client.events.some(({ data }) => data === 'late'))
  })

  await t.test('publish: ok with the id once it is stored', async t => {
    const client = await open(a)
    const reader = await listen(t, b, '/events/p/1')
    const answer = await client.do('publish', { topic: 'p/1', type: 'note', data: { a: [1, 'ü'] } })
    t.strictSame(Object.keys(answer).sort(), ['id', 'op', 'ref'])
    t.match((await reader.until(1))[0], { id: answer['id'], event: 'note', data: '{"a":[1,"ü"]}' })
    const page = await ask(b, '/events/p/1?rewind=1', { headers: { accept: 'application/json' } })
    t.match(page.json(), { events: [{ id: answer['id'], type: 'note' }] }, 'it is there')
    for (const data of [null, 0, false, '', 'text', []]) await client.do('publish', { topic: 'p/1', data })
    t.strictSame(
      (await reader.until(7)).slice(1).map(({ data }) => data),
      ['null', '0', 'false', '""', '"text"', '[]']
    )
  })

  await t.test('publish with a key is stored once', async t => {
    const client = await open(a)
    const event = { topic: 'p/key', data: 1, key: `key-${protocol}` }
    const { id } = await client.do('publish', event)
    t.match(await (await open(b)).do('publish', event), { id })
    t.match(await client.ask('publish', { ...event, data: 2 }), {
      op: 'error',
      code: 'bad_request',
      message: /key/i
    })
    const page = await ask(b, '/events/p/key?rewind=10', { headers: { accept: 'application/json' } })
    t.equal((page.json()['events'] as unknown[]).length, 1)
  })

  await t.test('publish is checked as POST /events is', async t => {
    const client = await open(a)
    for (const [message, code, says] of [
      [{ topic: 'tickers/A', data: 1 }, 'forbidden', /\/tickers/],
      [{ topic: 'notifications/x', data: 1 }, 'forbidden', /\/notifications/],
      [{ topic: 'a/*', data: 1 }, 'bad_request', /topic/],
      [{ topic: 'a//b', data: 1 }, 'bad_request', /topic/],
      [{ topic: 'a', type: 'gap', data: 1 }, 'bad_request', /reserved/],
      [{ topic: 'a', type: 'a b', data: 1 }, 'bad_request', /type/],
      [{ topic: 'a', data: 'x'.repeat(61_440) }, 'too_large', /61442.*61440/],
      [{ topic: 'a', data: 1, key: '' }, 'bad_request', /key/],
      [{ topic: 'a', data: 1, key: 'a b' }, 'bad_request', /key/],
      [{ topic: 'a', data: 1, key: '\ud800' }, 'bad_request', /key/],
      [{ topic: 'a', data: 1, ttl: 0 }, 'bad_request', /ttl/],
      [{ topic: 'a' }, 'bad_request', /data/],
      [{ data: 1 }, 'bad_request', /topic/],
      [{ topic: 'a', data: 1, datta: 1 }, 'bad_request', /datta/]
    ] as const) {
      const answer = await client.ask('publish', message)
      t.match(answer, { op: 'error', code, message: says }, JSON.stringify(message).slice(0, 80))
      t.strictSame(Object.keys(answer).sort(), ['code', 'message', 'op', 'ref'])
    }
    await client.do('publish', { topic: 'a', data: 'x'.repeat(61_438) })
  })

  await t.test('what is published at once is stored in that order', async t => {
    const client = await open(a)
    await client.do('subscribe', { topics: ['order'] })
    for (let ref = 100; ref < 180; ref++) client.send({ op: 'publish', ref, topic: 'order', data: ref })
    t.strictSame(
      (await client.until(80)).map(({ data }) => data),
      Array.from({ length: 80 }, (_, index) => index + 100)
    )
    for (let ref = 100; ref < 180; ref++) t.match(await client.answer(ref), { op: 'ok', id: String })
  })

  await t.test('what is asked for at once is done in that order', async t => {
    const client = await open(a)
    client.send({ op: 'subscribe', ref: 1, topics: ['turn/1', 'turn/2'] })
    client.send({ op: 'publish', ref: 2, topic: 'turn/1', data: 'heard' })
    client.send({ op: 'unsubscribe', ref: 3, topics: ['turn/1'] })
    client.send({ op: 'join', ref: 4, topic: 'turn/1' })
    client.send({ op: 'leave', ref: 5, topic: 'turn/1' })
    client.send({ op: 'ping', ref: 6 })
    await client.answer(6)
    for (const ref of [1, 2, 3, 4, 5]) t.match(await client.answer(ref), { op: 'ok' })
  })

  await t.test('signal: to the other WebSocket subscribers, and nobody else', async t => {
    const [alice, bob, nobody, stranger] = await Promise.all([
      open(a, 'alice'),
      open(b, 'bob'),
      open(b),
      open(b)
    ])
    const stream = await listen(t, b, '/events/sig/1')
    for (const client of [alice, bob]) await client.do('subscribe', { topics: ['sig/1'] })
    await nobody.do('subscribe', { topics: ['sig/*'] })
    await stranger.do('subscribe', { topics: ['sig/2'] })
    await stranger.do('join', { topic: 'sig/1' })
    const id = await idOf(alice)
    t.match(await alice.do('signal', { topic: 'sig/1', data: { typing: true } }), { op: 'ok' })
    for (const client of [bob, nobody]) {
      t.strictSame(await client.first('signal'), {
        ...{ op: 'signal', topic: 'sig/1', from: { id, sub: 'alice' }, data: { typing: true } }
      })
    }
    const data = isCbor ? new Uint8Array([1, 255]) : 'text'
    await nobody.do('signal', { topic: 'sig/1', data })
    const anonymous = await alice.first('signal')
    t.strictSame(
      anonymous['from'],
      { id: await idOf(nobody), sub: null },
      'one without a name by its connection'
    )
    t.strictSame(anonymous['data'], data)
    await bob.first('signal', ({ from }) => (from as Message)['sub'] === null)
    await publish(a, 'sig/1', 'event')
    await stream.until(1)
    t.equal(stream.messages.length, 1, 'not to a stream')
    const page = await ask(b, '/events/sig/1?rewind=10', { headers: { accept: 'application/json' } })
    t.equal((page.json()['events'] as unknown[]).length, 1, 'it is not stored')
    for (const client of [alice, nobody]) {
      t.equal(client.told.filter(({ op }) => op === 'signal').length, 1, 'not to who sent it')
    }
    await stranger.do('ping')
    t.notOk(
      stranger.told.some(({ op }) => op === 'signal'),
      'not to who has not subscribed'
    )
    for (const [message, code] of [
      [{ topic: 'sig/*', data: 1 }, 'bad_request'],
      [{ topic: 'sig/1' }, 'bad_request'],
      [{ topic: 'sig/1', data: 'x'.repeat(62_000) }, 'too_large']
    ] as const) {
      t.match(await alice.ask('signal', message), { op: 'error', code })
    }
    for (const topic of ['tickers/AAPL', 'dashboards/ops', 'notifications/alice']) {
      const answer = await alice.ask('signal', { topic, data: 1 })
      t.match(answer, { op: 'error', code: 'forbidden', message: topic }, "not on a feed's topic")
    }
  })

  await t.test('join: ok with the members; the others are told who comes and goes', async t => {
    const topic = 'room/1'
    const [alice, bob] = [await open(a, 'alice'), await open(b, 'bob')]
    const watcher = await open(b)
    await watcher.do('subscribe', { topics: ['room/*'] })
    const first = await alice.do('join', { topic, info: { colour: 'red', n: [1.5] } })
    t.strictSame(Object.keys(first).sort(), ['members', 'op', 'ref'])
    const [self] = first['members'] as Message[]
    t.match(self, { id: /^[\w-]{10,}$/, sub: 'alice', info: { colour: 'red', n: [1.5] } })
    const second = await bob.do('join', { topic })
    t.match(second['members'], [{ sub: 'bob', info: null }, self], 'itself first')
    for (const client of [alice, watcher]) {
      const joined = await client.first('joined', ({ member }) => (member as Message)['sub'] === 'bob')
      t.strictSame(joined, { op: 'joined', topic, member: (second['members'] as unknown[])[0] })
    }
    const tab = await open(b, 'bob')
    t.equal(((await tab.do('join', { topic }))['members'] as unknown[]).length, 3, 'each connection is one')
    const again = await alice.do('join', { topic, info: { colour: 'blue' } })
    t.strictSame(again['members'], [{ ...self, info: { colour: 'blue' } }], 'itself alone')
    t.match(await bob.first('joined', ({ member }) => (member as Message)['sub'] === 'alice'), {
      member: { id: self!['id'], info: { colour: 'blue' } }
    })
    tab.ws.terminate()
    t.match(await alice.first('left'), { op: 'left', topic, member: { sub: 'bob' } })
    const left = await bob.do('leave', { topic })
    t.match(left['members'], [{ sub: 'alice', info: { colour: 'blue' } }])
    await alice.messages.until(() => alice.told.filter(({ op }) => op === 'left').length === 2, 'both to go')
    t.strictSame(
      alice.told.map(({ op }) => op),
      ['joined', 'joined', 'left', 'left'],
      'nothing of itself'
    )
    t.match(await bob.ask('leave', { topic }), { op: 'error', code: 'bad_request', message: /not joined/ })
    for (const [message, code] of [
      [{ topic: 'room/*' }, 'bad_request'],
      [{ topic: '' }, 'bad_request'],
      [{ topic, info: 'x'.repeat(1100) }, 'too_large']
    ] as const) {
      t.match(await alice.ask('join', message), { op: 'error', code })
    }
    await watcher.messages.until(() => watcher.told.length === 6, 'six changes')
    await alice.do('join', { topic: 'room/2' })
    alice.close()
    await watcher.messages.until(() => watcher.told.length === 9, 'both to be left with the connection')
    t.strictSame(
      watcher.told
        .slice(7)
        .map(message => message['topic'])
        .sort(),
      ['room/1', 'room/2']
    )
  })

  await t.test('who has joined and subscribes by a wildcard is told once', async t => {
    const client = await open(b)
    const other = await open(a)
    await client.do('subscribe', { topics: ['both/*'] })
    await client.do('join', { topic: 'both/1' })
    await other.do('join', { topic: 'both/1' })
    await other.do('signal', { topic: 'both/1', data: 1 })
    await client.first('signal')
    await client.do('leave', { topic: 'both/1' })
    await other.do('leave', { topic: 'both/1' })
    await client.first('left')
    await client.do('ping')
    t.strictSame(
      client.told.map(({ op }) => op),
      ['joined', 'signal', 'left']
    )
  })

  await t.test('read: ok with how many are unread; the other tabs follow', async t => {
    const user = `reader-${protocol.slice(-4)}`
    const ids: string[] = []
    for (const title of ['one', 'two', 'three']) {
      const answer = await post(a, '/notifications', JSON.stringify({ to: user, title }), {
        'content-type': 'application/json'
      })
      ids.push((answer.json()['ids'] as Record<string, string>)[user]!)
    }
    const [client, tab] = [await open(a, user), await open(b, user)]
    await tab.do('subscribe', { topics: [`notifications/${user}`] })
    t.strictSame(await client.do('read', { ids: [ids[0]] }), { op: 'ok', ref: 1, unread: 2 })
    t.match(await tab.until(1), [{ type: 'read', data: { ids: [ids[0]], unread: 2 } }])
    t.match(await client.do('read', { ids: [ids[0], ids[1], 'none'] }), { unread: 1 })
    t.match(
      await (await open(a)).ask('read', { ids }),
      { op: 'error', code: 'forbidden' },
      'nobody known has none'
    )
    t.match(await client.ask('read', { ids: [] }), { op: 'error', code: 'bad_request', message: /ids/ })
    t.match(await client.ask('read'), { op: 'error', code: 'bad_request', message: /ids/ })
  })

  await t.test(
    'a message that cannot be done is answered, with its ref, and the connection stays',
    async t => {
      const client = await open(b)
      for (const ref of [0, -1, 'text', '', 2 ** 53 - 1, 'x'.repeat(128)]) {
        client.send({ op: 'ping', ref })
        t.strictSame(await client.answer(ref), { op: 'pong', ref })
        client.send({ op: 'dance', ref })
      }
      t.match(await client.first('error'), { ref: 0, code: 'bad_request', message: /op.*subscribe.*ping/ })
      const before = () => client.messages.all.filter(({ op }) => op === 'error')
      for (const message of [
        { op: 'ping' },
        { op: 'ping', ref: null },
        { op: 'ping', ref: 1.5 },
        { op: 'ping', ref: 'x'.repeat(129) },
        { op: 'ping', ref: { a: 1 } },
        [],
        ['ping']
      ]) {
        const count = before().length
        client.send(message)
        await client.messages.until(() => before().length > count, 'an error')
        t.match(before().at(-1), { ref: null, code: 'bad_request' }, JSON.stringify(message))
      }
      for (const raw of isCbor
        ? [Buffer.from([0xff]), Buffer.from([0xa1]), Buffer.from('{}')]
        : ['', '{', 'null', '1', '"x"']) {
        const count = before().length
        client.ws.send(raw)
        await client.messages.until(() => before().length > count, 'an error')
        t.match(before().at(-1), { ref: null, code: 'bad_request' })
      }
      client.ws.send(isCbor ? '{"op":"ping","ref":77}' : Buffer.from('{"op":"ping","ref":77}'))
      await client.first('error', ({ message }) => /has (text|binary) messages/.test(String(message)))
      for (const message of [
        {},
        { topics: [] },
        { topics: 'a' },
        { topics: [1] },
        { topics: ['a//b'] },
        { topics: ['*/a'] }
      ]) {
        t.match(await client.ask('subscribe', message), {
          op: 'error',
          code: 'bad_request',
          message: /topics/
        })
      }
      t.match(await client.ask('subscribe', { topics: ['a'], rewind: 1001 }), {
        code: 'bad_request',
        message: /rewind/
      })
      t.match(await client.ask('subscribe', { topics: ['a'], rate: 101 }), {
        code: 'bad_request',
        message: /rate/
      })
      t.match(await client.ask('subscribe', { topics: ['a'], after: 5 }), {
        code: 'bad_request',
        message: /after/
      })
      t.strictSame(await client.do('ping'), { op: 'pong', ref: 10 }, 'it is still there')
    }
  )
}
