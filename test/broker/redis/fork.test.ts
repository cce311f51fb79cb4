/** What the scripts make of a checkpoint: whether its event is there, trimmed, run out, or was never there. */
import t, { type Test } from 'tap'
import { Appends } from '../../../src/broker/redis/appends.ts'
import { Checkpoints } from '../../../src/broker/redis/checkpoints.ts'
import { RedisConnections } from '../../../src/broker/redis/connections.ts'
import { Life } from '../../../src/broker/redis/life.ts'
import { readRedisUrl } from '../../../src/broker/redis/url.ts'
import { formatPosition } from '../../../src/event.ts'
import { HeldClock } from '../../support/clock.ts'
import { redisFor } from '../../support/redis-system.ts'
import type { RedisServer } from '../../support/redis-server.ts'
import { at, KEYS, RING_TTL } from './stage.ts'
import { Rules } from '../../../src/rules/rules.ts'

/** The appends of one instance to a Redis of its own, with rings of two events. */
async function begin(t: Test) {
  const redis = await redisFor(t)
  const connections = new RedisConnections(
    readRedisUrl(redis.url),
    0,
    () => {},
    () => {}
  )
  t.teardown(() => connections.close())
  await new Promise<void>(resolve => connections.commands.once('ready', () => resolve()))
  const clock = new HeldClock()
  const life = new Life({ ringTtl: RING_TTL, onBirth: () => {} })
  life.noteClock(`${Date.now()}-0`)
  const appends = new Appends({
    ...{ clock, life, keys: KEYS, store: connections, waits: false },
    checkpoints: new Checkpoints(life),
    rules: new Rules({ RING_SIZE: 2, RING_TTL }, [{ match: 'e', ephemeral: true }]),
    publishCommand: () => 'PUBLISH',
    announced: () => Promise.resolve(),
    position: () => at(0)
  })
  const append = async (topic: string, key?: string) => {
    const event = { topic, type: 'message', data: '', ...(key && { key }) }
    const stored = appends.append([{ event, print: 'print' }])
    await clock.turn()
    const [outcome] = await stored
    const [birth, lost] = (await redis.command('HMGET', KEYS.clock, 'birth', 'lost')) as (string | null)[]
    life.note(birth!, lost ?? '')
    if (!outcome || !('id' in outcome)) throw new Error('not stored')
    return formatPosition(outcome.id)
  }
  return { redis, append, lost: () => redis.command('HGET', KEYS.clock, 'lost') }
}

const RING = KEYS.ring('a')

/** How the store is changed once `a` has had four events; each is what a primary looks like. */
const CASES: Record<
  string,
  { forked: boolean; change: (redis: RedisServer, ids: string[]) => Promise<unknown> }
> = {
  'it is there': { forked: false, change: async () => {} },
  'it was trimmed, and is what the first one follows on': {
    forked: false,
    change: async (redis, ids) => {
      await redis.command('DEL', RING)
      await redis.command('XADD', RING, '9999999999999-0', 'h', `${ids[3]} - t message`, 'd', '')
    }
  },
  'it was trimmed long ago': {
    forked: false,
    change: async redis => {
      await redis.command('DEL', RING)
      await redis.command('XADD', RING, '9999999999999-0', 'h', '9999999999998-0 - t message', 'd', '')
    }
  },
  'the ring has run out': { forked: false, change: redis => redis.command('DEL', RING) },
  'a trimmed ring never had it': {
    forked: true,
    change: async (redis, ids) => {
      await redis.command('XDEL', RING, ids[3]!)
      await redis.command('HSET', KEYS.last('*'), 'a', ids[2]!)
    }
  },
  'the ring has run out, and never had it': {
    forked: true,
    change: async (redis, ids) => {
      await redis.command('DEL', RING)
      await redis.command('HSET', KEYS.last('*'), 'a', ids[2]!)
    }
  },
  'nothing is known of its topic': {
    forked: true,
    change: async redis => {
      await redis.command('DEL', RING)
      await redis.command('HDEL', KEYS.last('*'), 'a')
    }
  }
}

for (const [name, { forked, change }] of Object.entries(CASES)) {
  t.test(`${name}: ${forked ? 'a fork' : 'no fork'}`, async t => {
    const { redis, append, lost } = await begin(t)
    const ids: string[] = []
    for (let count = 0; count < 4; count++) ids.push(await append('a'))
    await change(redis, ids)
    const next = await append('b')
    const declared = (await lost()) as string | null
    if (!forked) return t.equal(declared, null)
    t.ok(declared, 'a loss is declared')
    t.ok(position(declared!) < position(next), 'before what is stored next')
    t.ok(position(declared!) > position(ids[3]!), 'and of more than the checkpoint')
    await append('b')
    t.equal(await lost(), declared, 'once')
  })
}

t.test(
  'an ephemeral event leaves nothing to be looked for: neither it nor its repetition shows a fork',
  async t => {
    const { redis, append, lost } = await begin(t)
    for (const key of [undefined, 'k', 'k']) await append('e', key)
    await append('e')
    t.equal(await lost(), null, 'nothing is known of its topic')
    const first = await append('a')
    await append('e', 'k')
    t.equal(await lost(), null)
    const names = (await redis.command('KEYS', '*')) as string[]
    t.strictSame(
      names.sort(),
      [KEYS.clock, KEYS.index('*'), names.find(name => /:key:/.test(name))!, KEYS.last('*'), RING].sort()
    )
    t.strictSame(await redis.command('HGETALL', KEYS.last('*')), ['a', first])
    await redis.command('DEL', RING)
    await redis.command('HDEL', KEYS.last('*'), 'a')
    await append('e')
    t.ok(await lost(), 'one that only such events follow is looked for')
  }
)

/** A position as a number that can be compared. */
function position(id: string): number {
  const [ms, seq] = id.split('-').map(Number)
  return (ms! % 1e9) * 1000 + seq!
}
