/** One client that writes to several instances, which tell each other through Redis. */
import t from 'tap'
import { post, type TestServer } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { instances, redisFor } from '../support/redis-system.ts'

const RATE = 20
const ALICE = { 'x-forwarded-for': '203.0.113.1' }
const LIMITED = { TRUST_PROXY: 'true', WRITE_RATE: `${RATE}` }

/** Writes as fast as it can until it is told to stop, and keeps when each write was stored. */
function flood(server: TestServer) {
  const stored: number[] = []
  let stops = false
  const lanes = Array.from({ length: 2 }, async () => {
    while (!stops) {
      const { status } = await post(server, '/events/a', 'x', ALICE)
      if (status === 201) stored.push(performance.now())
    }
  })
  return {
    stored,
    stop: () => {
      stops = true
      return Promise.all(lanes)
    }
  }
}

t.test('the sum of what a client writes on two instances is within its rate', async t => {
  const redis = await redisFor(t)
  const servers = await instances(t, redis.url, 2, LIMITED)
  const started = performance.now()
  const floods = servers.map(flood)
  // they have told each other by the third second
  const [from, to] = [started + 3000, started + 7000]
  await eventually(
    () => performance.now(),
    now => now > to,
    'some seconds of it'
  )
  await Promise.all(floods.map(({ stop }) => stop()))
  const counts = floods.map(({ stored }) => stored.filter(at => at >= from && at < to).length / 4)
  const sum = counts[0]! + counts[1]!
  t.ok(sum <= 1.5 * RATE, `${counts.join(' and ')} a second, of ${RATE}`)
  t.ok(sum >= 0.6 * RATE, 'and not much less')
  t.ok(Math.min(...counts) > 0, 'each instance has its part')
})

t.test('what instances tell each other', async t => {
  const redis = await redisFor(t)
  const [one, other] = (await instances(t, redis.url, 2, LIMITED)).map(
    server => server.app.ringside.broker.tally
  )
  const alice = (count: number) => new Map([['alice', count]])
  t.strictSame([...(await one!.count(alice(3)))], [['alice', 0]])
  t.strictSame([...(await other!.count(alice(4)))], [['alice', 3]])
  t.strictSame([...(await one!.count(alice(5)))], [['alice', 4]], 'its own is not among it')
  t.strictSame([...(await other!.count(new Map([['bob', 1]])))], [['bob', 0]])
  const keys = (await redis.command('KEYS', '*:t:*')) as string[]
  t.equal(keys.length, 2)
  t.notMatch(keys.join(), /alice|bob/, 'nobody is named')

  await eventually(
    () => redis.command('KEYS', '*:t:*') as Promise<string[]>,
    left => left.length === 0,
    'it to be forgotten'
  )
  t.strictSame([...(await other!.count(alice(1)))], [['alice', 0]], 'what is old does not count')

  await redis.stop()
  t.strictSame([...(await one!.count(alice(5)))], [], 'without Redis nothing is known of others')
})
