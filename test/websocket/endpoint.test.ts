/** What hangs on time, rights and the wire: the route on its own, over real sockets. */
import type { AddressInfo } from 'node:net'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import type { Grant } from '../../src/access/grant.ts'
import { BrokerUnavailable } from '../../src/broker/unavailable.ts'
import { LocalBroker } from '../../src/broker/local/broker.ts'
import { systemClock, type Clock } from '../../src/clock.ts'
import { Notifications } from '../../src/feeds/notifications.ts'
import { resolveSettings, type PartialSettings } from '../../src/config.ts'
import { Agents } from '../../src/http/agents.ts'
import { Limits } from '../../src/http/limits.ts'
import { Notices } from '../../src/http/notices.ts'
import { TurnedAway } from '../../src/http/turned-away.ts'
import { websocketRoutes } from '../../src/websocket/endpoint.ts'
import { Hub } from '../../src/hub/hub.ts'
import { Memory } from '../../src/memory.ts'
import { Metrics } from '../../src/metrics.ts'
import { Publisher } from '../../src/publisher.ts'
import { websocketFormat } from '../../src/wire/websocket.ts'
import { HeldClock } from '../support/clock.ts'
import { eventually } from '../support/inbox.ts'
import { connect } from '../support/websocket.ts'

const EVERYTHING: Grant = {
  sub: 'alice',
  maySubscribe: () => true,
  mayPublish: () => true,
  expires: Infinity
}

interface Options {
  readonly grant?: Partial<Grant>
  readonly clock?: Clock
  readonly settings?: PartialSettings
}

async function serve(t: Test, { grant, clock = systemClock, settings: partial }: Options = {}) {
  const settings = resolveSettings(partial)
  const metrics = new Metrics('test')
  const broker = new LocalBroker(settings, clock)
  const hub = new Hub(broker.log, broker.roster, settings, clock, metrics)
  const publisher = new Publisher(broker.log, metrics, settings.MAX_EVENT_BYTES, clock)
  await broker.log.start(hub)
  const memory = new Memory(2 ** 30)
  const app = Fastify()
  app.decorateRequest('grant')
  app.addHook('onRequest', async request => {
    request.grant = { ...EVERYTHING, ...grant }
  })
  await app.register(websocketRoutes, {
    ...{ hub, roster: broker.roster, metrics, publisher, clock, settings },
    notifications: new Notifications(broker.log, publisher, clock),
    limits: new Limits({ tally: broker.tally, settings, clock, metrics, development: false }),
    memory,
    turnedAway: new TurnedAway(metrics, new Notices(clock), app.log),
    agents: new Agents(),
    refusal: () => null
  })
  app.addHook('preClose', () => hub.connections.drain(0))
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const closed = async (reason: string) =>
    (await metrics.connectionsClosed.get()).values.find(
      ({ labels }) => labels.transport === 'ws' && labels.reason === reason
    )!.value
  return { port: (app.server.address() as AddressInfo).port, hub, broker, memory, closed }
}

/** What is asked of a part of the broker. */
type Questions = Record<string, (...args: unknown[]) => Promise<unknown>>

/** Timers wait for the test, the event loop doesn't. */
function heldTimers() {
  const held = new HeldClock()
  const clock: Clock = {
    now: () => held.now(),
    after: (ms, callback) => held.after(ms, callback),
    soon: callback => systemClock.soon(callback)
  }
  return { held, clock }
}

t.test('the server pings every 20 s, and ends a peer that misses one', async t => {
  const { held, clock } = heldTimers()
  const server = await serve(t, { clock })
  const client = await connect(t, server)
  let pings = 0
  client.ws.on('ping', () => pings++)
  await held.advance(15_000)
  const mute = await connect(t, server, { autoPong: false })
  const timers = held.timers
  await Promise.all(Array.from({ length: 10 }, () => connect(t, server)))
  t.equal(held.timers, timers, 'by one timer for all')
  await held.advance(4000)
  await client.do('ping')
  t.equal(pings, 0)
  for (let round = 1; round <= 3; round++) {
    await held.advance(round === 1 ? 1000 : 20_000)
    await eventually(
      () => pings,
      count => count === round,
      'a ping'
    )
    await client.do('ping') // its pong has come before this
  }
  t.equal((await mute.closed).code, 1006)
  t.equal(await server.closed('unresponsive'), 1)
  await client.do('ping')
})

t.test('signal, join and leave count as writes, also those that are refused', async t => {
  const { held, clock } = heldTimers()
  const server = await serve(t, { clock, settings: { WRITE_RATE: 10 } })
  const client = await connect(t, server)
  const messages = [
    ['signal', { topic: 'a', data: 1 }],
    ['join', { topic: 'a' }],
    ['leave', { topic: 'a' }],
    ['leave', { topic: 'a' }],
    ['signal', { topic: 'tickers/A', data: 1 }]
  ] as const
  for (const [op, message] of [...messages, ...messages]) await client.ask(op, message)
  for (const [op, message] of [...messages.slice(0, 2), ['publish', { topic: 'a', data: 1 }]] as const)
    t.match(await client.ask(op, message), { op: 'error', code: 'rate_limited' }, op)
  await held.advance(1000)
  await client.do('signal', { topic: 'a', data: 1 })
})

t.test('writes count by their bytes', async t => {
  const { clock } = heldTimers()
  const server = await serve(t, { clock, settings: { WRITE_BYTES: 1000 } })
  const client = await connect(t, server)
  await client.do('publish', { topic: 'a', data: 'x'.repeat(900) })
  for (const op of ['publish', 'signal']) {
    const answer = await client.ask(op, { topic: 'a', data: 'x'.repeat(100) })
    t.match(answer, { op: 'error', code: 'rate_limited', message: /WRITE_BYTES/ })
  }
  await client.do('subscribe', { topics: ['a', 'x'.repeat(100)] })
})

t.test('messages under way count as memory', async t => {
  const server = await serve(t)
  const { memory } = server
  const client = await connect(t, server)
  let isStored = () => {}
  server.broker.log.append = () =>
    new Promise((_resolve, reject) => (isStored = () => reject(new BrokerUnavailable('x'))))
  const answer = client.ask('publish', { topic: 'a', data: 'x'.repeat(1000) })
  await eventually(
    () => memory.held('bodies'),
    held => held > 1000,
    'the message to count'
  )
  isStored()
  await answer
  await client.do('ping')
  t.equal(memory.held('bodies'), 0)
  memory.add('states', memory.limit)
  t.match(await client.ask('publish', { topic: 'a', data: 1 }), { op: 'error', code: 'unavailable' })
})

t.test('at most 1,000 members are told at once', async t => {
  const { broker, ...server } = await serve(t)
  const topic = 'room'
  await broker.roster.follow(topic)
  for (let index = 0; index < 999; index++)
    await broker.roster.join(topic, { id: `${index}`, sub: null, info: null })
  const client = await connect(t, server)
  const all = await client.do('join', { topic })
  t.equal((all['members'] as unknown[]).length, 1000)
  t.notOk('more' in all)
  await broker.roster.join(topic, { id: 'one more', sub: null, info: null })
  const other = await connect(t, server)
  const some = await other.do('join', { topic })
  t.equal((some['members'] as unknown[]).length, 1000)
  t.equal(some['more'], true)
  const left = await other.do('leave', { topic })
  t.equal((left['members'] as unknown[]).length, 1000)
  t.equal(left['more'], true)
})

t.test('4401 when the token runs out', async t => {
  const { held, clock } = heldTimers()
  // a token says it in whole seconds
  const expires = (Math.ceil(clock.now() / 1000) + 5) * 1000
  const server = await serve(t, { clock, grant: { expires } })
  const client = await connect(t, server)
  await client.do('subscribe', { topics: ['a'] })
  await held.advance(expires - clock.now() - 1)
  await client.do('ping')
  await held.advance(1)
  t.match(await client.closed, { code: 4401, reason: /^{"reason":"expired"/ })
  t.equal(await server.closed('expired'), 1)
  t.equal(server.hub.sessions.size, 0)
  const late = await connect(t, server)
  await held.advance(0)
  t.equal((await late.closed).code, 4401)
  const later = await connect(t, server)
  void later.do('publish', { topic: 'a', data: 1 }).catch(() => {})
  t.equal((await later.closed).code, 4401, 'also where it publishes before it is looked at')
  t.equal(server.hub.connections.size, 0)
})

t.test('only what the token allows', async t => {
  const server = await serve(t, {
    grant: {
      maySubscribe: filter => filter.startsWith('mine/'),
      mayPublish: topic => topic === 'mine/1'
    }
  })
  const client = await connect(t, server)
  for (const [op, message] of [
    ['subscribe', { topics: ['mine/1', 'yours/1'] }],
    ['subscribe', { topics: ['*'] }],
    ['join', { topic: 'yours/1' }],
    ['publish', { topic: 'mine/2', data: 1 }],
    ['signal', { topic: 'mine/2', data: 1 }]
  ] as const) {
    t.match(await client.ask(op, message), { op: 'error', code: 'forbidden' }, op)
  }
  t.strictSame(client.told, [])
  await client.do('subscribe', { topics: ['mine/*'] })
  await client.do('join', { topic: 'mine/2' })
  await client.do('publish', { topic: 'mine/1', data: 1 })
  await client.do('signal', { topic: 'mine/1', data: 1 })
  await client.until(1)
})

t.test('a message that writes counts once, also when it is refused or changes nothing', async t => {
  const { clock } = heldTimers()
  const grant = { mayPublish: (topic: string) => topic !== 'secret' }
  const messages = [
    ['publish', { topic: 'secret', data: 1 }, 'forbidden'],
    ['publish', { topic: 'a//b', data: 1 }, 'bad_request'],
    ['publish', { topic: 'a', type: 'cursor', data: 1 }, 'bad_request'],
    ['publish', { topic: 'a', data: 1 }, undefined],
    ['read', { ids: ['1-0'] }, undefined]
  ] as const
  for (const [op, message, code] of messages) {
    const server = await serve(t, { clock, grant, settings: { WRITE_RATE: 2 } })
    const client = await connect(t, server)
    t.equal((await client.ask(op, message))['code'], code)
    await client.do('publish', { topic: 'a', data: 1 })
    t.match(await client.ask('publish', { topic: 'a', data: 1 }), { op: 'error', code: 'rate_limited' })
  }
})

t.test('an event is encoded once for each subprotocol, and its frame is shared', async t => {
  const server = await serve(t)
  const clients = await Promise.all(
    Array.from({ length: 6 }, (_, index) =>
      connect(t, server, { protocols: [index < 3 ? 'ringside.v1.json' : 'ringside.v1.cbor'] })
    )
  )
  for (const client of clients) await client.do('subscribe', { topics: ['a', 'b'] })
  const encoded: string[] = []
  for (const protocol of ['ringside.v1.json', 'ringside.v1.cbor'] as const) {
    const format = websocketFormat(protocol)
    for (const method of ['event', 'signal', 'joined'] as const) {
      const original = format[method] as (...args: unknown[]) => Buffer
      const counting = (...args: unknown[]) => {
        encoded.push(`${protocol} ${method}`)
        return original(...args)
      }
      Object.assign(format, { [method]: counting })
      t.teardown(() => Object.assign(format, { [method]: original }))
    }
  }
  await clients[0]!.do('publish', { topic: 'a', data: { n: 1 } })
  await clients[0]!.do('signal', { topic: 'a', data: 1 })
  await clients[0]!.do('join', { topic: 'a' })
  for (const client of clients) await client.until(1)
  for (const client of clients.slice(1)) await client.first('joined')
  t.strictSame(encoded.sort(), [
    'ringside.v1.cbor event',
    'ringside.v1.cbor joined',
    'ringside.v1.cbor signal',
    'ringside.v1.json event',
    'ringside.v1.json joined',
    'ringside.v1.json signal'
  ])
})

t.test('a connection that ends while something is under way leaves nothing behind', async t => {
  const server = await serve(t)
  const { broker, hub } = server
  // answers come when the test lets them
  const held: (() => void)[] = []
  const hold = () => new Promise<void>(resolve => held.push(resolve))
  for (const method of ['subscribe', 'follow', 'join'] as const) {
    const part = (method === 'subscribe' ? broker.log : broker.roster) as unknown as Questions
    const original = part[method]!.bind(part)
    Object.assign(part, { [method]: (...args: unknown[]) => hold().then(() => original(...args)) })
  }
  for (const [message, waits] of [
    [{ op: 'subscribe', ref: 1, topics: ['a', 'b/*'] }, 4],
    [{ op: 'join', ref: 1, topic: 'c' }, 1],
    [{ op: 'join', ref: 1, topic: 'd' }, 2]
  ] as const) {
    const client = await connect(t, server)
    client.send(message)
    for (let count = 0; count < waits; count++) {
      if (message.op === 'join' && count === 1) held.shift()!() // now it joins
      await eventually(
        () => held.length,
        length => length >= (message.op === 'join' ? 1 : waits),
        'a question'
      )
    }
    client.ws.terminate()
    await eventually(
      () => hub.connections.size,
      size => size === 0,
      'its end'
    )
    while (held.length > 0) {
      held.shift()!()
      await new Promise(setImmediate)
    }
    await eventually(
      () => hub.sessions.size + broker.roster.members('c').length + broker.roster.members('d').length,
      count => count === 0,
      `nothing of ${message.op}`
    )
    t.equal((await hub.metrics.topics.get()).values[0]!.value, 0)
  }
})
