/** Pages of wildcards on a real Redis: what they cost, and that they are complete, whatever has become of the order. */
import t, { type Test } from 'tap'
import type { Cursor, Position } from '../../src/event.ts'
import { comparePositions, covers, formatPosition } from '../../src/event.ts'
import { randomFrom } from '../support/random.ts'
import { startRedis, type RedisServer } from '../support/redis-server.ts'
import { subjectsOn } from '../support/redis-subject.ts'
import { begin, idsOf, type Bench } from './conformance/bench.ts'

t.setTimeout(400_000)

t.test('the order of a family', async t => {
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const make = subjectsOn(redis.url, redis)

  for (const count of [10, 1000, 20_000]) {
    t.test(`what reading ${count} topics costs`, async t => {
      const bench = await begin(t, make)
      const start = await bench.log.position()
      const topics = Array.from({ length: count }, (_, index) => `s/${index}`)
      for (let from = 0; from < count; from += 1000) {
        const some = topics.slice(from, from + 1000)
        await bench.log.append(
          some.map(topic => ({ topic, type: 'message', data: 'x', state: { value: 'x' } }))
        )
      }
      const cost = async (ask: () => Promise<unknown>) => {
        await redis.command('CONFIG', 'RESETSTAT')
        await ask()
        return callsOf(await redis.info('commandstats'))
      }

      const page = await cost(async () => {
        const { events } = await bench.range('s/*', start, 100)
        t.equal(events.length, Math.min(count, 100))
      })
      t.equal(page['scripts'], 1)
      t.ok(page['xrange']! <= 101, `${page['xrange']} looks for 100 events`)

      const all = await cost(async () => {
        t.equal((await bench.pages('s/*', 256)).length, count)
      })
      const pages = Math.floor(count / 256) + 1
      t.equal(all['scripts'], pages)
      // besides, each page looks into the order, and some are by ticks and by checks of the store, one in two seconds
      t.ok(all['xrange']! <= count + pages + 20, `each event was looked for once: ${all['xrange']}`)

      const rewind = await cost(async () => {
        t.equal((await bench.log.rewind('s/*', 1)).size, count)
      })
      t.ok(rewind['scripts']! <= Math.ceil(count / 500), `${rewind['scripts']} calls`)

      const states = await cost(async () => {
        t.equal((await bench.log.states(await bench.log.topics('s/*'))).size, count)
      })
      t.ok(states['scripts']! <= Math.ceil(count / 500), `${states['scripts']} calls`)
    })
  }

  t.test('random events in small rings: no page lacks any, and each loss is told', async t => {
    const random = randomFrom(7)
    const bench = await begin(t, make, { RING_SIZE: 3 })
    const cursors: Cursor[] = [await bench.log.position()]
    for (let round = 0; round < 40; round++) {
      const topics = Array.from({ length: 1 + Math.floor(random() * 40) }, () => {
        // a busy one, and others that have an event now and then: the order is trimmed, and so are rings
        return random() < 0.5 ? 's/busy' : `s/${Math.floor(random() * 12)}`
      })
      cursors.push(...idsOf(await bench.log.append(topics.map(topic => ({ topic, type: 'm', data: 'x' })))))
    }
    for (const cursor of cursors.filter((_, index) => index % 9 === 0)) await compare(t, bench, cursor)
    t.ok(Number(await redis.command('XLEN', await keyOf(redis, bench, 'order:s/*'))) < 400, 'it was trimmed')
  })

  t.test('events of an older version, which keeps no order, are read', async t => {
    const bench = await begin(t, make)
    const start = await bench.log.position()
    await bench.appendAll(['s/a', 's/b'])
    await storeAsBefore(redis, bench, 's/a')
    t.equal((await bench.range('s/*', start)).events.length, 3, 'before anybody has given another id')
    await bench.append('s/b')
    t.equal((await bench.range('s/*', start)).events.length, 4, 'and after')
    await storeAsBefore(redis, bench, 's/new')
    const ticks = bench.ticks.all.length
    await bench.ticks.until(() => bench.ticks.all.length > ticks + 1, 'a tick has given another id')
    t.equal((await bench.range('s/*', start)).events.length, 5)
    const later = await bench.log.position()
    await bench.appendAll(['s/a', 's/b'])
    await redis.command('CONFIG', 'RESETSTAT')
    t.equal((await bench.range('s/*', later)).events.length, 2)
    t.equal(callsOf(await redis.info('commandstats'))['scripts'], 1, 'by the order again')
  })

  t.test('an order that is gone, as one of a store of before, hides nothing', async t => {
    const bench = await begin(t, make)
    const start = await bench.log.position()
    await bench.appendAll(['s/a', 's/b'])
    const middle = await bench.log.position()
    await redis.command('DEL', await keyOf(redis, bench, 'order:s/*'))
    t.equal((await bench.range('s/*', start)).events.length, 2)
    await bench.append('s/b')
    t.equal((await bench.range('s/*', start)).events.length, 3)
    t.equal((await bench.range('s/*', middle)).events.length, 1)
  })
})

/** What all pages after a cursor say, and what the topics' own rings say. */
async function compare(t: Test, bench: Bench, start: Cursor): Promise<void> {
  for (const limit of [1, 7, 1000]) {
    const events: string[] = []
    const gaps = new Map<string, string>()
    const end = await bench.log.position()
    let cursor = start
    while (!covers(cursor, end)) {
      const page = await bench.range('s/*', cursor, limit)
      for (const [topic, last] of page.gaps) gaps.set(topic, formatPosition(last))
      for (const { id, topic } of page.events) events.push(`${formatPosition(id)} ${topic}`)
      cursor = page.end
    }
    const expected: { id: Position; topic: string }[] = []
    const lost = new Map<string, string>()
    for (const topic of await bench.log.topics('s/*')) {
      const page = await bench.range(topic, start)
      expected.push(...page.events)
      for (const [, last] of page.gaps) lost.set(topic, formatPosition(last))
    }
    expected.sort((a, b) => comparePositions(a.id, b.id))
    t.strictSame(
      events,
      expected.map(({ id, topic }) => `${formatPosition(id)} ${topic}`)
    )
    t.strictSame(new Map([...gaps].sort()), new Map([...lost].sort()))
  }
}

/** Stores an event as the script of before did. */
async function storeAsBefore(redis: RedisServer, bench: Bench, topic: string): Promise<void> {
  const [seconds] = (await redis.command('TIME')) as [string, string]
  const clock = await keyOf(redis, bench, 'clock')
  const [, seq] = (await redis.command('HMGET', clock, 'ms', 'seq')) as [string, string]
  const ms = (Number(seconds) + 1) * 1000
  const id = `${ms}-${Number(seq) + 1}`
  const last = await keyOf(redis, bench, 'last:s/*')
  const prev = ((await redis.command('HGET', last, topic)) as string | null) ?? '-'
  const ring = await keyOf(redis, bench, `ring:${topic}`)
  await redis.command('XADD', ring, id, 'h', `${prev} - t m`, 'd', 'x')
  await redis.command('HSET', last, topic, id)
  await redis.command('ZADD', await keyOf(redis, bench, 'index:s/*'), ms, topic)
  await redis.command('HSET', clock, 'ms', ms, 'seq', Number(seq) + 1)
}

const prefixes = new WeakMap<Bench, string>()

async function keyOf(redis: RedisServer, bench: Bench, name: string): Promise<string> {
  let prefix = prefixes.get(bench)
  if (prefix === undefined) {
    const topic = `here-${Math.random()}`
    await bench.append(topic)
    const [ring] = (await redis.command('KEYS', `*:ring:${topic}`)) as string[]
    prefix = ring!.slice(0, -`ring:${topic}`.length)
    prefixes.set(bench, prefix)
  }
  return prefix + name
}

/** How often each command was called; `scripts`: those that only read. */
function callsOf(stats: Record<string, string>): Record<string, number> {
  const calls: Record<string, number> = Object.fromEntries(
    Object.entries(stats).map(([name, text]) => [
      name.replace('cmdstat_', ''),
      Number(/calls=(\d+)/.exec(text)![1])
    ])
  )
  // the others ask for the time, as ticks do
  const scripts = (calls['evalsha'] ?? 0) + (calls['eval'] ?? 0) - (calls['time'] ?? 0)
  return { ...calls, scripts }
}
