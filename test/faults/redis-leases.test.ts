/** Members whose instance dies, is cut off, or finds its lease gone. */
import t from 'tap'
import type { TestServer } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { as, changes, join, until, untilGone } from '../support/presence.ts'
import { serve } from '../support/process.ts'
import { startRedisProxy } from '../support/redis-proxy.ts'
import { instance, instances, ready, redisFor, unready } from '../support/redis-system.ts'

// leases have to run out
t.setTimeout(400_000)

t.test('a member whose instance is killed leaves within 30 s, and is told once', async t => {
  const redis = await redisFor(t)
  const doomed = await serve(t, { REDIS_URL: redis.url })
  await ready(doomed)
  const [a, b] = (await instances(t, redis.url, 2)) as [TestServer, TestServer]
  const lost = await Promise.all(['x', 'y', 'z'].map(user => as(t, doomed, user)))
  for (const client of lost) await join(client, 'room')
  const alice = await as(t, a, 'alice')
  const bob = await as(t, b, 'bob')
  await join(alice, 'room')
  await join(bob, 'room')
  doomed.child.kill('SIGKILL')
  for (const client of lost) await client.closed
  const gone = () =>
    [alice, bob].every(client => changes(client).filter(line => line[0] === '-').length === 3)
  const took = await untilGone(gone, 'three that leave')
  t.ok(took > 5000, `it may only have been slow: ${took} ms`)
  for (const client of [alice, bob]) {
    t.strictSame(
      changes(client)
        .filter(line => line[0] === '-')
        .sort(),
      ['-x', '-y', '-z']
    )
  }
  t.strictSame((await join(await as(t, b, 'carol'), 'room')).sort(), ['alice', 'bob', 'carol'])
  for (const client of [alice, bob]) client.close()
})

t.test('keys that Redis has evicted are put back', async t => {
  const redis = await redisFor(t)
  const [a, b] = (await instances(t, redis.url, 2)) as [TestServer, TestServer]
  const [alice, bob] = [await as(t, a, 'alice'), await as(t, b, 'bob')]
  for (const client of [alice, bob]) await join(client, 'room')
  await until(alice, '+bob')
  await redis.command('DEL', 'ringside:{0}:instances', 'ringside:{0}:members:room')
  const members = () => redis.command('HLEN', 'ringside:{0}:members:room') as Promise<number>
  await eventually(members, count => count === 2, 'both to be put back')
  t.strictSame((await join(await as(t, a, 'carol'), 'room')).sort(), ['alice', 'bob', 'carol'])
  t.strictSame(changes(alice), ['+bob', '+carol'])
})

t.test('an instance that is cut off loses its members elsewhere, and puts them back', async t => {
  const redis = await redisFor(t)
  const proxy = await startRedisProxy(t, redis.port)
  const a = await instance(t, redis.url)
  const cutOff = await instance(t, proxy.url)
  const [alice, bob, gone] = [
    await as(t, a, 'alice'),
    await as(t, cutOff, 'bob'),
    await as(t, cutOff, 'gone')
  ]
  for (const client of [alice, bob, gone]) await join(client, 'room')
  await until(alice, '+gone')
  proxy.blackHole()
  await unready(cutOff)
  gone.close()
  await untilGone(() => changes(alice).includes('-bob'), 'those that nobody hears of')
  t.strictSame(changes(alice).sort(), ['+bob', '+gone', '-bob', '-gone'])
  proxy.heal()
  await ready(cutOff)
  await alice.messages.until(() => changes(alice).length === 5, 'the one that is still there')
  t.strictSame(changes(alice).at(-1), '+bob')
  await until(bob, '-gone')
  t.strictSame(changes(bob), ['+gone', '-gone'], 'whose own instance knew it all the time')
  t.strictSame((await join(await as(t, a, 'late'), 'room')).sort(), ['alice', 'bob', 'late'])
})
