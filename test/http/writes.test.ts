/** That each write counts, whatever becomes of it, by its bytes as well; and that bodies take no more memory than they may. */
import { connect, type AddressInfo, type Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { ringside } from '../../src/index.ts'
import type { PartialSettings } from '../../src/config.ts'
import { HeldClock } from '../support/clock.ts'
import { eventually } from '../support/inbox.ts'

const RATE = 10
const JSON_BODY = { 'content-type': 'application/json' }

interface Ask {
  readonly method: 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  readonly url: string
  readonly payload?: string
  readonly headers?: Record<string, string>
}

/** An app whose time stands still, so that nobody gets a write back; each client is an address. */
async function setUp(t: Test, settings: PartialSettings = {}) {
  const app = Fastify()
  t.teardown(() => app.close())
  const clock = new HeldClock()
  await app.register(ringside, {
    clock,
    settings: { WRITE_RATE: RATE, MAX_EVENT_BYTES: 100, ...settings },
    grant: ({ headers }) => ({
      sub: null,
      expires: Number(headers['x-expires'] ?? Infinity),
      maySubscribe: () => true,
      mayPublish: topic => topic !== 'secret',
      publishesNothing: headers['x-reader'] !== undefined
    })
  })
  const ask = async (client: number, request: Ask) => {
    const answer = await app.inject({ ...request, remoteAddress: `203.0.113.${client}` })
    return answer.statusCode
  }
  /** How many writes a client has left. */
  const left = async (client: number) => {
    for (let count = 0; ; count++) {
      if ((await ask(client, { method: 'POST', url: '/events/a', payload: 'x' })) === 429) return count
    }
  }
  return { app, clock, ask, left }
}

t.test('a write counts once, also one that is refused or changes nothing', async t => {
  const { ask, left } = await setUp(t)
  const batch = JSON.stringify(Array.from({ length: 20 }, () => ({ topic: 'a', data: 1 })))
  const events = { method: 'POST', url: '/events/a' } as const
  const cases: [status: number, request: Ask][] = [
    [201, { ...events, payload: 'x' }],
    [201, { ...events, url: '/events', payload: batch, headers: JSON_BODY }],
    [201, { ...events, url: '/tickers', payload: '{"symbol":"A","price":1}', headers: JSON_BODY }],
    [201, { method: 'PUT', url: '/dashboards/a', payload: '{}', headers: JSON_BODY }],
    [204, { method: 'DELETE', url: '/dashboards/a' }],
    [400, { ...events, payload: '{', headers: JSON_BODY }],
    [400, { ...events, url: '/events/a?ttl=x', payload: 'x' }],
    [400, { ...events, url: '/events/a//b', payload: 'x' }],
    [403, { ...events, url: '/events/secret', payload: 'x' }],
    [403, { ...events, url: '/events/tickers/A', payload: 'x' }],
    [403, { ...events, url: '/events', payload: batch, headers: { ...JSON_BODY, 'x-reader': '' } }],
    [403, { ...events, url: '/events', payload: '[{"topic":"secret","data":1}]', headers: JSON_BODY }],
    [404, { method: 'DELETE', url: '/dashboards/none' }],
    [404, { method: 'PATCH', url: '/dashboards/none', payload: '{}', headers: JSON_BODY }],
    [403, { ...events, url: '/notifications/read', payload: '{"all":true}', headers: JSON_BODY }],
    [413, { ...events, payload: 'x'.repeat(101) }],
    [413, { ...events, payload: 'x'.repeat(10_000) }],
    [415, { ...events, payload: 'x', headers: { 'content-type': 'text/html' } }],
    [422, { ...events, url: '/events/a?type=cursor', payload: 'x' }]
  ]
  for (const [client, [status, request]] of cases.entries()) {
    const what = `${request.method} ${request.url}: ${status}`
    t.equal(await ask(client, request), status, what)
    t.equal(await left(client), RATE - 1, what)
  }
})

t.test('who is past the rate is told so before all else', async t => {
  const { ask, left } = await setUp(t)
  await left(0)
  for (const url of ['/events/secret', '/events/a//b', '/events/a?ttl=x', '/events', '/notifications/read'])
    t.equal(await ask(0, { method: 'POST', url, payload: '{', headers: JSON_BODY }), 429, url)
  t.equal(await ask(0, { method: 'POST', url: '/nowhere' }), 404)
})

t.test('a flood of bad writes is held to the rate', async t => {
  const { ask } = await setUp(t)
  const bad = { method: 'POST', url: '/events/secret', payload: 'x' } as const
  const answers = []
  for (let count = 0; count < 2 * RATE; count++) answers.push(await ask(0, bad))
  t.equal(answers.filter(status => status === 403).length, RATE)
  t.equal(answers.filter(status => status === 429).length, RATE)
})

t.test('marking what is read already counts as well', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(ringside, { clock: new HeldClock(), settings: { WRITE_RATE: 1 } })
  const mark = () =>
    app.inject({
      method: 'POST',
      url: '/notifications/read?user=alice',
      payload: '{"all":true}',
      headers: JSON_BODY,
      remoteAddress: '203.0.113.1'
    })
  t.equal((await mark()).statusCode, 200)
  t.equal((await mark()).statusCode, 429)
})

const toUsers = (count: number) =>
  JSON.stringify({ to: Array.from({ length: count }, (_, user) => `${user}`), title: 'x' })

t.test('a notification counts for each user; what is owed is waited for', async t => {
  const { app, clock, ask, left } = await setUp(t)
  const send = { method: 'POST', url: '/notifications', headers: JSON_BODY } as const
  t.equal(await ask(0, { ...send, payload: toUsers(4) }), 201)
  t.equal(await left(0), RATE - 4)
  t.equal(await ask(1, { ...send, payload: toUsers(3 * RATE) }), 201, 'more than there ever are')
  const refused = await app.inject({ ...send, payload: toUsers(1), remoteAddress: '203.0.113.1' })
  t.equal(refused.statusCode, 429)
  t.equal(refused.headers['retry-after'], '3')
  await clock.advance(2000)
  t.equal(await ask(1, { ...send, payload: toUsers(1) }), 429, 'being idle forgives nothing')
  await clock.advance(1000)
  t.equal(await ask(1, { ...send, payload: toUsers(1) }), 201)
})

t.test('WRITE_BYTES', async t => {
  const settings = { WRITE_BYTES: 1000, MAX_EVENT_BYTES: 2000, WRITE_RATE: 0 }

  t.test('holds bodies to so many bytes a second', async t => {
    const { app, clock, ask } = await setUp(t, settings)
    const post = (bytes: number) =>
      ({ method: 'POST', url: '/events/a', payload: 'x'.repeat(bytes) }) as const
    t.equal(await ask(0, post(600)), 201)
    const refused = await app.inject({ ...post(600), remoteAddress: '203.0.113.0' })
    t.equal(refused.statusCode, 429)
    t.match(refused.json(), { detail: /1000.*WRITE_BYTES/ })
    t.equal(refused.headers['retry-after'], '1')
    t.equal(await ask(0, post(400)), 201)
    t.equal(await ask(1, post(600)), 201, 'each client has its own')
    await clock.advance(1000)
    t.equal(await ask(0, post(2000)), 201, 'one that is larger, when there is all of it')
    await clock.advance(1000)
    t.equal(await ask(0, post(100)), 429, 'and what it took too much is owed')
    await clock.advance(200)
    t.equal(await ask(0, post(100)), 201)
  })

  t.test('counts a body that does not say how long it is as it comes', async t => {
    const { app } = await setUp(t, settings)
    const socket = await open(t, app)
    socket.write('POST /events/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n')
    for (let count = 0; count < 3; count++) socket.write(`190\r\n${'x'.repeat(400)}\r\n`)
    t.match(await firstOf(socket), /^HTTP\/1.1 429 /, 'before it has ended')
  })
})

/** A connection to an app that listens from now on, at the latest. */
async function open(t: Test, app: FastifyInstance): Promise<Socket> {
  if (!app.server.listening) await app.listen({ host: '127.0.0.1', port: 0 })
  const socket = connect((app.server.address() as AddressInfo).port, '127.0.0.1')
  t.teardown(() => socket.destroy())
  return socket
}

/** What comes first on a connection. */
function firstOf(socket: Socket): Promise<string> {
  return new Promise(resolve => socket.once('data', bytes => resolve(bytes.toString())))
}

t.test('bodies under way', async t => {
  const MIB = 2 ** 20

  t.test('count until they are answered', async t => {
    const { app, ask } = await setUp(t)
    const { broker, memory } = app.ringside
    const append = broker.log.append.bind(broker.log)
    let resolve = () => {}
    const promise = new Promise<void>(done => (resolve = done))
    broker.log.append = async events => {
      await promise
      return append(events)
    }
    const answer = ask(0, { method: 'POST', url: '/events/a', payload: 'x'.repeat(100) })
    await eventually(
      () => memory.held('bodies'),
      held => held === 100,
      'the body to count'
    )
    resolve()
    t.equal(await answer, 201)
    t.equal(memory.held('bodies'), 0)
    await ask(0, { method: 'POST', url: '/events/a', payload: '{', headers: JSON_BODY })
    t.equal(memory.held('bodies'), 0, 'also of what is refused')
  })

  t.test('of which more comes after the answer are not counted again', async t => {
    const app = Fastify({ handlerTimeout: 50 })
    t.teardown(() => app.close())
    await app.register(ringside)
    const { memory } = app.ringside
    const socket = await open(t, app)
    socket.write('POST /events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n')
    socket.write('Content-Type: application/x-ndjson\r\n\r\n5\r\n\n\n\n\n\n\r\n')
    t.match(await firstOf(socket), /^HTTP\/1.1 503 /)
    t.equal(memory.held('bodies'), 0)
    socket.write('5\r\n\n\n\n\n\n\r\n0\r\n\r\nGET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n')
    t.match(await firstOf(socket), /^HTTP\/1.1 200 /)
    t.equal(memory.held('bodies'), 0)
  })

  t.test('that there is no room for are answered 503, and are not read', async t => {
    const { app, ask } = await setUp(t)
    const { memory } = app.ringside
    memory.add('states', memory.limit)
    t.equal(await ask(0, { method: 'POST', url: '/events/a', payload: 'x' }), 503)
    memory.give('states', memory.limit)
    t.equal(await ask(0, { method: 'POST', url: '/events/a', payload: 'x' }), 201)
    t.equal(memory.held('bodies'), 0)
  })

  t.test('take an eighth of the memory, and drive out nothing', async t => {
    const { app, ask } = await setUp(t, { MEMORY: 8 * MIB, MAX_BATCH_BYTES: 8 * MIB, WRITE_BYTES: 0 })
    const relieved: number[] = []
    app.ringside.memory.onShortage({ spare: 0, relieve: bytes => relieved.push(bytes) })
    const payload = '\n'.repeat(MIB + 1)
    const batch = {
      method: 'POST',
      url: '/events',
      headers: { 'content-type': 'application/x-ndjson' }
    } as const
    t.equal(await ask(0, { ...batch, payload }), 503)
    t.equal(await ask(0, { ...batch, payload: payload.slice(1) }), 400)
    t.strictSame(relieved, [])
  })
})

t.test('who may publish nothing is told so before the body is read', async t => {
  const { app } = await setUp(t, { WRITE_RATE: 0 })
  const paths = ['/events', '/events/secret', '/tickers', '/notifications', '/notifications/read']
  for (const path of [...paths, '/nowhere']) {
    const socket = await open(t, app)
    socket.write(`POST ${path} HTTP/1.1\r\nHost: localhost\r\nX-Reader: 1\r\nContent-Length: 100\r\n\r\n`)
    t.match(await firstOf(socket), path === '/nowhere' ? /^HTTP\/1.1 404 / : /^HTTP\/1.1 403 /, path)
  }
})

t.test('a token that runs out while the body comes publishes nothing', async t => {
  const { app, clock } = await setUp(t)
  const headers = { 'content-type': 'application/json', 'x-expires': String(clock.now() + 1000) }
  const cases: [method: 'POST' | 'PUT', url: string, body: string][] = [
    ['POST', '/events/a', '1'],
    ['POST', '/events', '[{"topic":"a","data":1}]'],
    ['POST', '/tickers', '{"symbol":"A","price":1}'],
    ['POST', '/notifications', toUsers(1)],
    ['PUT', '/dashboards/a', '{}']
  ]
  const bodies = cases.map(() => new PassThrough())
  const answers = cases.map(([method, url], index) =>
    app.inject({ method, url, headers, payload: bodies[index]! })
  )
  for (const body of bodies) body.write(' ')
  await new Promise(setImmediate)
  await clock.advance(1000)
  for (const [index, body] of bodies.entries()) body.end(cases[index]![2])
  for (const answer of await Promise.all(answers)) {
    t.equal(answer.statusCode, 401)
    t.match(answer.json(), { detail: /run out/ })
  }
  t.strictSame(await app.ringside.broker.log.topics('a'), [])
})
