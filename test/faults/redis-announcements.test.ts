/** The connection on which announcements come in is lost, late or full: what was missed is read, once and in order. */
import type { AddressInfo } from 'node:net'
import Fastify from 'fastify'
import fastifyPlugin from 'fastify-plugin'
import t, { type Test } from 'tap'
import { ringside } from '../../src/app.ts'
import type { EventLog } from '../../src/broker/event-log.ts'
import { RedisBroker } from '../../src/broker/redis/broker.ts'
import { readRedisUrl } from '../../src/broker/redis/url.ts'
import { systemClock, type Clock } from '../../src/clock.ts'
import { readSettings } from '../../src/config.ts'
import { publish, publishAll, type TestServer } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { listen, subscribe, type Reader } from '../support/reader.ts'
import { startRedisProxy } from '../support/redis-proxy.ts'
import {
  instance,
  instances,
  isOpen,
  ready,
  redisFor,
  resume,
  Stream,
  told,
  toldUntil
} from '../support/redis-system.ts'

const KILLS: Record<string, readonly string[]> = {
  'the connections of the announcements': ['TYPE', 'pubsub'],
  'the connections of the commands': ['TYPE', 'normal'],
  'every connection': ['SKIPME', 'yes']
}

for (const [what, which] of Object.entries(KILLS)) {
  t.test(`${what} killed again and again, while two instances are published to`, async t => {
    const redis = await redisFor(t)
    const servers = await instances(t, redis.url, 2)
    const readers = await Promise.all(
      servers.map(server => listen(t, server, '/events?topic=a&topic=b&topic=c/*'))
    )
    const stream = new Stream(servers, ['a', 'b', 'c/1', 'c/2'])
    for (let round = 0; round < 3; round++) {
      await stream.more(20)
      await redis.command('CLIENT', 'KILL', ...which)
      await stream.more(20)
      await Promise.all(servers.map(ready))
    }
    await stream.more(20)
    await stream.stop()
    await expectAll(t, readers, stream)
    const late = await listen(t, servers[0]!, `/events?topic=a&topic=b&topic=c/*&after=${readers[1]!.cursor}`)
    await expectAll(t, [late], stream)
  })
}

t.test('the last event before a kill, on a topic that then falls silent, arrives', async t => {
  const redis = await redisFor(t)
  const [a, b] = (await instances(t, redis.url, 2)) as [TestServer, TestServer]
  const reader = await listen(t, a, '/events/quiet')
  for (let round = 0; round < 3; round++) {
    await redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub')
    const last = String(round)
    await publish(b, 'quiet', last)
    await toldUntil(reader, last)
  }
  t.strictSame(told(reader), ['0', '1', '2'])
})

t.test('an event that comes after a tick and before the answer to it arrives', async t => {
  const redis = await redisFor(t)
  const proxy = await startRedisProxy(t, redis.port)
  const a = await instance(t, proxy.url)
  const b = await instance(t, redis.url)
  const reader = await listen(t, a, '/events?topic=x&topic=y')
  await publish(b, 'x', '1')
  await toldUntil(reader, '1')

  // the new connection listens, and its first tick has come in
  proxy.holdAnswersOnceSubscribed()
  await redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub')
  const before = proxy.ticks()
  await eventually(proxy.ticks, ticks => ticks > before, 'a tick')
  await publish(b, 'x', '2')
  const announced = proxy.announced()
  await publish(b, 'y', 'y')
  await eventually(proxy.announced, bytes => bytes > announced, 'the announcements')
  proxy.releaseAnswers()

  await toldUntil(reader, 'y')
  await publish(b, 'x', '3')
  t.strictSame(await toldUntil(reader, '3'), ['1', '2', 'y', '3'])
})

t.test('a burst that overflows what Redis keeps for a subscriber', async t => {
  const redis = await redisFor(t, { config: { 'client-output-buffer-limit': 'pubsub 65536 0 0' } })
  const [a, b] = (await instances(t, redis.url, 2)) as [TestServer, TestServer]
  const readers = await Promise.all([listen(t, a, '/events/burst'), listen(t, b, '/events?topic=burst')])
  const filler = 'x'.repeat(1000)
  const expected: string[] = []
  for (let round = 0; round < 3; round++) {
    const events = Array.from({ length: 250 }, (_, index) => ({
      topic: 'burst',
      data: `${round}/${index} ${filler}`
    }))
    await publishAll(a, events)
    expected.push(...events.map((_, index) => `${round}/${index}`))
    for (const reader of readers) await reader.until(expected.length)
  }
  t.match(redis.log(), /closed.*overcoming of output buffer limits/, 'Redis has cut them off')
  for (const reader of readers)
    t.strictSame(
      told(reader).map(data => (JSON.parse(data) as string).split(' ')[0]),
      expected
    )
})

t.test('what is published at once, however much, is announced in pieces that Redis holds', async t => {
  // The most that is on its way is 4 MiB, for who listens to a topic and to its wildcard twice; and somewhat more to an
  // instance that is slower than the publisher's own. All of it would be 46 MB.
  const redis = await redisFor(t, { config: { 'client-output-buffer-limit': 'pubsub 24mb 0 0' } })
  const [publisher, other] = [await brokerOn(t, redis.url), await brokerOn(t, redis.url)]
  for (const { log } of [publisher, other]) for (const filter of ['s/a', 's/*']) await log.subscribe(filter)
  const data = 'x'.repeat(60_000)
  const batch = Array.from({ length: 16 }, () => ({ topic: 's/a', type: 'message', data }))
  await Promise.all(Array.from({ length: 24 }, () => publisher.log.append(batch)))
  for (const { handed } of [publisher, other]) {
    await eventually(
      () => handed.length,
      count => count >= 24 * 16 || handed.includes('<jump>'),
      'all of it'
    )
    t.equal(handed.filter(each => each === data).length, 24 * 16)
    t.notOk(handed.includes('<jump>'), 'nothing was missed, as when a connection is lost')
  }
  t.notMatch(redis.log(), /output buffer limits/)
})

t.test('a client that is ahead of the instance it comes to gets nothing twice and loses nothing', async t => {
  const redis = await redisFor(t)
  const proxy = await startRedisProxy(t, redis.port)
  const a = await instance(t, redis.url)
  const behind = await instance(t, proxy.url)
  const witness = await listen(t, behind, '/events/x')
  await publish(a, 'x', '1')
  await toldUntil(witness, '1')

  t.test('when the announcements come late', async t => {
    const first = await listen(t, a, '/events/x')
    proxy.holdAnnouncements()
    await publish(a, 'x', '2')
    await toldUntil(first, '2')
    const second = await resume(t, behind, '/events/x', first)
    await publish(a, 'x', '3')
    proxy.releaseAnnouncements()
    t.strictSame(await toldUntil(second, '3'), ['3'])
    t.strictSame(await toldUntil(witness, '3'), ['1', '2', '3'])
  })

  t.test('when they never come, and the connection is given up', async t => {
    const first = await listen(t, a, '/events/x')
    proxy.holdAnnouncements()
    await publish(a, 'x', '4')
    await toldUntil(first, '4')
    const second = await resume(t, behind, '/events/x', first)
    await publish(a, 'x', '5')
    proxy.cut()
    proxy.releaseAnnouncements()
    t.strictSame(await toldUntil(second, '5'), ['5'])
    t.strictSame(await toldUntil(witness, '5'), ['1', '2', '3', '4', '5'])
  })
})

t.test(
  'a filter that was given up and is watched again has missed nothing that anybody asked for',
  async t => {
    const redis = await redisFor(t)
    const { handed, log } = await brokerOn(t, redis.url)
    const append = (data: string) => log.append([{ topic: 'x', type: 'message', data }])
    for (const round of ['1', '2']) {
      await log.subscribe('x')
      await append(`heard ${round}`)
      await eventually(
        () => handed,
        all => all.includes(`heard ${round}`),
        'the event'
      )
      log.unsubscribe('x')
      await append(`not heard ${round}`)
    }
    t.strictSame(handed, ['heard 1', 'heard 2'])
  }
)

t.test('a stream that could not be opened does not end those that come after it', async t => {
  const redis = await redisFor(t)
  const { clock, runOut } = holdLongTimers()
  const settings = readSettings({ REDIS_URL: redis.url, DEMO: 'false' })
  const app = Fastify()
  await app.register(fastifyPlugin(ringside), { settings, maxConnections: Infinity, clock })
  t.teardown(() => app.close())
  const url = await app.listen({ host: '127.0.0.1', port: 0 })
  const server = { url, port: (app.server.address() as AddressInfo).port }
  await ready(server)

  redis.freeze()
  const refused = await subscribe(t, server, '/events/x')
  t.match(await refused.next(), { event: 'goodbye', data: /unavailable/ })
  redis.thaw()
  await ready(server)
  const reader = await listen(t, server, '/events/x')
  await publish(server, 'x', '1')
  await toldUntil(reader, '1')
  runOut()
  await publish(server, 'x', '2')
  t.strictSame(await toldUntil(reader, '2'), ['1', '2'])
})

/** Every reader gets all that was stored, each once and in the order of its publishing, and nobody was sent away. */
async function expectAll(t: Test, readers: readonly Reader[], { stored }: Stream): Promise<void> {
  const expected = stored.map(({ data }) => data)
  for (const reader of readers) {
    t.strictSame(await toldUntil(reader, expected.at(-1)!), expected)
    t.ok(await isOpen(reader))
  }
}

/** A broker that is up, and what it hands over from then on: the data of events, and that some were missed or are gone. */
async function brokerOn(t: Test, url: string): Promise<{ log: EventLog; handed: string[] }> {
  const settings = readSettings({ REDIS_URL: url, RING_SIZE: '100' })
  const broker = new RedisBroker(readRedisUrl(url), settings, systemClock, () => {})
  t.teardown(() => broker.close())
  const { log } = broker
  const handed: string[] = []
  await log.start({
    event: ({ data }) => handed.push(data.toString()),
    tick: () => {},
    jump: () => handed.push('<jump>'),
    gap: reason => handed.push(`<${reason}>`),
    up: () => {}
  })
  await eventually(
    () => log.up,
    up => up,
    'the broker'
  )
  handed.length = 0
  return { log, handed }
}

/** The machine's clock, but what is a minute off or more waits for `runOut`. */
function holdLongTimers(): { clock: Clock; runOut: () => void } {
  const held = new Set<() => void>()
  const clock: Clock = {
    ...systemClock,
    after(ms, callback) {
      if (ms < 60_000) return systemClock.after(ms, callback)
      held.add(callback)
      return { refresh: () => held.add(callback), cancel: () => held.delete(callback) }
    }
  }
  const runOut = () => {
    const due = [...held]
    held.clear()
    for (const callback of due) callback()
  }
  return { clock, runOut }
}
