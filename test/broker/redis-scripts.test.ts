/** The append script on a real Redis: what one append can't do to the others in its call, and how much goes into one. */
import { randomUUID } from 'node:crypto'
import t from 'tap'
import type { Append } from '../../src/broker/event-log.ts'
import { startRedis, type RedisServer } from '../support/redis-server.ts'
import { subjectsOn } from '../support/redis-subject.ts'
import { begin, idsOf, outcomes, type Bench } from './conformance/bench.ts'

const event = (topic: string, rest: Partial<Append> = {}): Append => ({
  ...{ topic, type: 'message', data: 'x' },
  ...rest
})

t.test('one call', async t => {
  const redis = await startRedis()
  t.teardown(() => redis.stop())

  t.test('a key may be any text, and Redis has only its hash', async t => {
    const bench = await begin(t, subjectsOn(redis.url, redis))
    const key = 'order 17\n"ü"\ud800'
    const [first] = await bench.log.append([event('a', { key, ttl: 60 })])
    const [again] = await bench.log.append([event('a', { key, ttl: 60 })])
    t.strictSame(again, { ...first, outcome: 'replayed' })
    const names = (await redis.command('KEYS', '*:key:*')) as string[]
    t.equal(names.length, 1)
    t.match(names[0], /:key:[\w-]{43}$/)
  })

  t.test('what can not be done fails alone: nobody misses what others have published', async t => {
    const bench = await begin(t, subjectsOn(redis.url, redis))
    await bench.subscribe('s/*')
    const prefix = await prefixOf(redis, bench)
    // somebody else writes to our keys
    await redis.command('SET', `${prefix}ring:s/ring`, 'x')
    await redis.command('SET', `${prefix}state:s/state`, 'x')
    const strangers = ['s/a', 's/b'].map(topic => bench.log.append([event(topic)]))
    const failing = [
      bench.log.append([event('s/ring')]),
      bench.log.append([event('s/first'), event('s/state', { state: { value: '1', version: null } })])
    ]
    const last = bench.log.append([event('s/c')])
    for (const each of failing) await t.rejects(each, { message: 'Redis refused it' })
    const ids = (await Promise.all([...strangers, last])).flatMap(idsOf)
    t.equal(new Set(ids.map(([position]) => position!.ms + position!.seq / 1000)).size, 3)
    await bench.append('s/a')
    await bench.inbox.until(() => bench.inbox.all.length === 4, 'what was stored')
    t.strictSame(
      bench.inbox.all.map(({ topic }) => topic),
      ['s/a', 's/b', 's/c', 's/a']
    )
    t.strictSame((await bench.range('s/first')).events, [], 'not even what was to be stored with it')
  })

  t.test('a topic has ended for as long as its ring is there', async t => {
    const bench = await begin(t, subjectsOn(redis.url, redis))
    const prefix = await prefixOf(redis, bench)
    await bench.log.append([event('s/a', { type: 'end' })])
    await bench.log.append([event('s/b', { type: 'end' })])
    const publish = async (topic: string) => outcomes(await bench.log.append([event(topic)]))[0]
    t.equal(await publish('s/a'), 'ended')
    const [ring, ends] = ['ring:s/a', 'ended:s/*'].map(name => redis.command('PTTL', `${prefix}${name}`))
    t.ok(Math.abs(Number(await ring) - Number(await ends)) < 5000, 'both run out together')
    await redis.command('DEL', `${prefix}ring:s/a`)
    t.equal(await publish('s/a'), 'stored', 'it begins anew')
    t.equal((await bench.log.subscribe('s/a')).end, null)
    t.strictSame(await redis.command('HKEYS', `${prefix}ended:s/*`), ['s/b'], 'which is noted')
    t.equal(await publish('s/b'), 'ended')
  })

  for (const SHARDS of ['1', '3']) {
    t.test(`5,000 topics together on ${SHARDS} shards`, async t => {
      const bench = await begin(t, subjectsOn(redis.url, redis, { SHARDS }))
      await bench.subscribe('many/*')
      const topics = Array.from({ length: 5000 }, (_, index) => `many/${index}`)
      await bench.appendAll(topics)
      await bench.appendAll(topics)
      t.strictSame((await bench.log.topics('many/*')).sort(), [...topics].sort())
      await bench.inbox.until(() => bench.inbox.all.length === 10_000, 'all of them')
      t.equal((await bench.pages('many/*', 1000)).length, 10_000)
    })
  }
})

async function prefixOf(redis: RedisServer, bench: Bench): Promise<string> {
  const topic = randomUUID()
  await bench.append(topic)
  const [name] = (await redis.command('KEYS', `*:ring:${topic}`)) as string[]
  return name!.slice(0, -`ring:${topic}`.length)
}
