import t, { type Test } from 'tap'
import { build, type Address } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { randomFrom } from '../support/random.ts'
import { instances, redisFor, Stream as Publisher } from '../support/redis-system.ts'
import { dataOf, listenTo } from './subscriber.ts'
import { wayTo, type Mode, type Way } from './way.ts'

// each runs through tens of faults
t.setTimeout(400_000)

const TOPICS = ['a', 'b/1', 'b/2', 'c']
const FILTERS = ['a', 'b/*', 'c']
const ROUNDS = 25
const ENV = { RETRY: '20ms', RING_SIZE: '100000' }

/** Impatient, so that every fallback is taken within a test. */
const OPTIONS = { heartbeat: 1, patience: 150, streamAgain: 200 }

const MODES: readonly Mode[] = ['open', 'open', 'open', 'held back', 'held back', 'refused', 'dead']

/** Does to a way what happens to ways, at random, and lets it be at the end. */
async function torment(way: Way, seed: number): Promise<void> {
  const random = randomFrom(seed)
  for (let round = 0; round < ROUNDS; round++) {
    way.mode = MODES[Math.floor(random() * MODES.length)]!
    way.delay = random() < 0.3 ? 20 * random() : 0
    const what = random()
    if (what < 0.6) way.cut()
    else if (what < 0.8) way.silence()
    await new Promise(resolve => setTimeout(resolve, 50 + 400 * random()))
  }
  way.mode = 'open'
  way.delay = 0
  way.cut()
}

/** Publishes through it all, and compares what each subscriber was told with what was stored. */
async function isExact(t: Test, servers: readonly Address[], seed: number): Promise<void> {
  const ways = await Promise.all([0, 1, 2].map(() => wayTo(t, ...servers)))
  const subscribers = ways.map(way => listenTo<number>(t, FILTERS, { url: way.url, ...OPTIONS }))
  await Promise.all(
    subscribers.map(({ states, subscription }) =>
      states.until(() => subscription.cursor !== undefined, 'a start')
    )
  )
  const publisher = new Publisher(servers, TOPICS)
  await Promise.all(ways.map((way, index) => torment(way, seed + index)))
  await publisher.more(10)
  await publisher.stop()
  for (const [index, subscriber] of subscribers.entries()) {
    await eventually(
      () => dataOf(subscriber).length,
      length => length >= publisher.stored.length,
      `all events of ${index}`
    )
    for (const topic of TOPICS) {
      const got = subscriber.events.all.filter(event => event.topic === topic).map(({ data }) => data)
      const stored = publisher.stored.filter(each => each.topic === topic).map(({ data }) => Number(data))
      t.strictSame(got, stored, `${index}: ${stored.length} of ${topic}, once and in order`)
    }
    t.strictSame(subscriber.gaps.all, [])
    const states = new Set(subscriber.states.all.map(({ state }) => state))
    t.comment(`${[...states].join(', ')}: ${subscriber.states.all.length} changes`)
  }
}

t.test('in memory', async t => {
  await isExact(t, [await build(t, ENV)], 1)
})

t.test('over two instances, in three shards, where ids are vectors', async t => {
  const redis = await redisFor(t)
  await isExact(t, await instances(t, redis.url, 2, { ...ENV, SHARDS: '3' }), 10)
})

t.end()
