/** What an instance keeps of the time that passes while nothing happens: nothing. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { RedisBroker } from '../../src/broker/redis/broker.ts'
import { readRedisUrl } from '../../src/broker/redis/url.ts'
import { systemClock, type Clock } from '../../src/clock.ts'
import { readSettings } from '../../src/config.ts'
import { redisFor } from '../support/redis-system.ts'

/** How many ticks pass before the heap is looked at: until then caches fill and code is compiled. */
const WARM = 1500

/** Over how many steps it is looked at, and how many ticks each of them has. What grows once doesn't count. */
const STEPS = 5
const TICKS = 1000

/** What a tick may leave behind, in bytes: by so much the size of the heap is uncertain. */
const ALLOWED = 200

t.test('a tick leaves nothing behind', async t => {
  const redis = await redisFor(t)
  const settings = readSettings({ REDIS_URL: redis.url })
  const broker = new RedisBroker(readRedisUrl(redis.url), settings, fastClock, () => {})
  t.teardown(() => broker.close())
  let ticks = 0
  let wake = () => {}
  const nothing = () => {}
  await broker.log.start({
    ...{ event: nothing, jump: nothing, gap: nothing, up: nothing },
    tick: () => {
      ticks++
      wake()
    }
  })
  const until = (count: number) =>
    new Promise<void>(resolve => (wake = () => void (ticks >= count && resolve())))

  await until(WARM)
  const grown: number[] = []
  for (let step = 0; step < STEPS; step++) {
    const [before, start] = [heap(), ticks]
    await until(start + TICKS)
    grown.push(Math.round((heap() - before) / (ticks - start)))
  }
  t.comment(`${grown.join(', ')} bytes a tick`)
  const median = grown.sort((a, b) => a - b)[(STEPS - 1) / 2]!
  t.ok(median < ALLOWED, `${median} bytes a tick`)
})

/** The machine's clock, but the second between two ticks has passed at once. */
const fastClock: Clock = {
  ...systemClock,
  after(ms, callback) {
    return systemClock.after(ms === 1000 ? 0 : ms, callback)
  }
}

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** How many bytes of the heap are in use. */
function heap(): number {
  collect()
  return process.memoryUsage().heapUsed
}
