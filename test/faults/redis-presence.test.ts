/** Who is present, while Redis is away, emptied or mute: no ghost stays, and nobody is missing. */
import t, { type Test } from 'tap'
import type { TestServer } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { as, changes, join, until, untilGone } from '../support/presence.ts'
import { serve } from '../support/process.ts'
import { startRedisProxy } from '../support/redis-proxy.ts'
import type { RedisServer } from '../support/redis-server.ts'
import { instance, instances, ready, redisFor, unready } from '../support/redis-system.ts'
import type { Message, WsClient } from '../support/websocket.ts'

// they wait for instances to come back
t.setTimeout(400_000)

t.test('members come and go on every instance, also by wildcard, and with their connection', async t => {
  const redis = await redisFor(t)
  const [a, b] = (await instances(t, redis.url, 2, { SHARDS: '2' })) as [TestServer, TestServer]
  const watcher = await as(t, b, 'watcher')
  await watcher.do('subscribe', { topics: ['rooms/*'] })
  const alice = await as(t, a, 'alice')
  t.strictSame(await join(alice, 'rooms/1'), ['alice'])
  const bob = await as(t, b, 'bob')
  t.strictSame(await join(bob, 'rooms/1'), ['bob', 'alice'])
  t.strictSame(await join(bob, 'rooms/2'), ['bob'])
  await until(alice, '+bob')
  await bob.do('leave', { topic: 'rooms/2' })
  await alice.do('join', { topic: 'rooms/1', info: { mood: 'good' } })
  const { member } = await bob.first('joined')
  t.match(member, { sub: 'alice', info: { mood: 'good' } }, 'what it tells of itself may change')
  alice.close()
  await until(bob, '-alice')
  bob.ws.terminate()
  await watcher.messages.until(() => changes(watcher).length === 7, 'all changes')
  t.strictSame(
    changes(watcher).sort(),
    ['+alice', '+alice', '+bob', '+bob', '-alice', '-bob', '-bob'],
    'each once'
  )
  t.strictSame(changes(alice), ['+bob'], 'nobody is told of itself')
  await onlyLeases(t, redis)
})

t.test(
  'a store that is emptied: everybody is put back, and nobody is told of what did not change',
  async t => {
    const redis = await redisFor(t)
    const [a, b] = (await instances(t, redis.url, 2)) as [TestServer, TestServer]
    const ghostly = await serve(t, { REDIS_URL: redis.url })
    await ready(ghostly)
    const [alice, bob, ghost] = [
      await as(t, a, 'alice'),
      await as(t, b, 'bob'),
      await as(t, ghostly, 'ghost')
    ]
    for (const client of [alice, bob, ghost]) await join(client, 'room')
    await until(bob, '+ghost')
    ghostly.child.kill('SIGKILL')
    await ghost.closed
    await redis.command('FLUSHALL')
    await eventually(
      () => redis.command('HKEYS', 'ringside:{0}:members:room') as Promise<string[]>,
      ids => ids.length === 2,
      'both to be put back'
    )
    t.strictSame(
      (await join(await as(t, a, 'carol'), 'room')).sort(),
      ['alice', 'bob', 'carol', 'ghost'].sort()
    )
    await untilGone(() => changes(bob).includes('-ghost') && changes(alice).includes('-ghost'), 'no ghost')
    t.strictSame(changes(alice), ['+bob', '+ghost', '+carol', '-ghost'])
    t.strictSame(changes(bob), ['+ghost', '+carol', '-ghost'])
    t.strictSame((await join(await as(t, b, 'dave'), 'room')).sort(), ['alice', 'bob', 'carol', 'dave'])
  }
)

t.test('Redis restarts with nothing: the same', async t => {
  const redis = await redisFor(t)
  const [a, b] = (await instances(t, redis.url, 2)) as [TestServer, TestServer]
  const [alice, bob] = [await as(t, a, 'alice'), await as(t, b, 'bob')]
  for (const client of [alice, bob]) await join(client, 'room')
  await until(alice, '+bob')
  await redis.kill()
  await unready(a)
  t.match(await bob.ask('join', { topic: 'other' }), { op: 'error', code: 'unavailable' })
  t.match(await bob.ask('signal', { topic: 'room', data: 1 }), { op: 'error', code: 'unavailable' })
  t.match(await bob.ask('leave', { topic: 'room' }), { op: 'ok' }, 'who leaves has left')
  await redis.start()
  await Promise.all([a, b].map(ready))
  await untilGone(() => changes(alice).includes('-bob'), 'one that left meanwhile')
  t.strictSame(changes(alice), ['+bob', '-bob'])
  t.strictSame(await join(bob, 'room'), ['bob', 'alice'])
  await until(alice, '+bob')
})

t.test('what was missed while announcements did not come is told as what is different', async t => {
  const redis = await redisFor(t)
  const proxy = await startRedisProxy(t, redis.port)
  const a = await instance(t, redis.url)
  const deaf = await instance(t, proxy.url)
  const bob = await as(t, deaf, 'bob')
  const others = await Promise.all(['stays', 'goes', 'returns'].map(user => as(t, a, user)))
  await join(bob, 'room')
  for (const client of others) await join(client, 'room')
  await bob.messages.until(() => changes(bob).length === 3, 'three')

  proxy.holdAnnouncements()
  await others[1]!.do('leave', { topic: 'room' })
  await others[2]!.do('leave', { topic: 'room' })
  await others[2]!.do('join', { topic: 'room' })
  const comes = await as(t, a, 'comes')
  await join(comes, 'room')
  const short = await as(t, a, 'short')
  await join(short, 'room')
  short.close()
  await until(comes, '-short')
  t.equal(changes(bob).length, 3)
  proxy.cut()
  proxy.releaseAnnouncements()

  await bob.messages.until(() => changes(bob).length >= 5, 'what is different')
  t.strictSame(changes(bob).slice(3).sort(), ['+comes', '-goes'])
  t.strictSame((await join(await as(t, deaf, 'late'), 'room')).sort(), [
    'bob',
    'comes',
    'late',
    'returns',
    'stays'
  ])
})

t.test('one that joins while the members are being read is among them, or is told of next', async t => {
  const redis = await redisFor(t)
  const proxy = await startRedisProxy(t, redis.port)
  const a = await instance(t, redis.url)
  const late = await instance(t, proxy.url)
  const [alice, bob] = [await as(t, a, 'alice'), await as(t, late, 'bob')]
  const reads = async () => {
    const stats = await redis.info('commandstats')
    return Number(/calls=(\d+)/.exec(stats['cmdstat_hgetall'] ?? '')?.[1] ?? 0)
  }
  const before = await reads()
  proxy.holdAnswers()
  const joining = join(bob, 'room')
  await eventually(reads, count => count > before, 'the members to be read')
  const announced = proxy.announced()
  await join(alice, 'room')
  await eventually(proxy.announced, bytes => bytes > announced, 'the announcement')
  proxy.releaseAnswers()
  const members = await joining
  // what was announced meanwhile may have been a tick
  if (!members.includes('alice')) await until(bob, '+alice')
  t.strictSame([...members, ...changes(bob)].map(name => name.replace('+', '')).sort(), ['alice', 'bob'])
})

t.test('what an instance knows by its own doing it is not told once more', async t => {
  const redis = await redisFor(t)
  const proxy = await startRedisProxy(t, redis.port)
  const server = await instance(t, proxy.url)
  const [alice, bob] = [await as(t, server, 'alice'), await as(t, server, 'bob')]
  for (const client of [alice, bob]) await join(client, 'room')
  await until(alice, '+bob')
  proxy.holdAnnouncements()
  await bob.do('leave', { topic: 'room' })
  await join(bob, 'room')
  const announced = proxy.announced()
  proxy.releaseAnnouncements()
  await join(await as(t, server, 'carol'), 'room')
  await until(alice, '+carol')
  t.ok(announced > 0)
  t.strictSame(changes(alice), ['+bob', '+carol'], 'he was there before and after')
})

t.test('signals pass between instances, to those who are there', async t => {
  const redis = await redisFor(t)
  const [a, b] = (await instances(t, redis.url, 2, { SHARDS: '3' })) as [TestServer, TestServer]
  const [alice, bob, carol] = [await as(t, a, 'alice'), await as(t, b, 'bob'), await as(t, b, 'carol')]
  for (const client of [alice, bob]) await client.do('subscribe', { topics: ['rooms/1', 'rooms/2'] })
  await carol.do('subscribe', { topics: ['rooms/*'] })
  for (let index = 0; index < 20; index++) {
    await alice.do('signal', { topic: `rooms/${(index % 2) + 1}`, data: { index } })
  }
  const signals = (client: WsClient): Message[] => client.messages.all.filter(({ op }) => op === 'signal')
  for (const client of [bob, carol]) {
    await client.messages.until(() => signals(client).length === 20, 'twenty signals')
    for (const topic of ['rooms/1', 'rooms/2']) {
      const indices = signals(client)
        .filter(signal => signal['topic'] === topic)
        .map(({ data }) => (data as { index: number }).index)
      t.strictSame(
        indices,
        [...indices].sort((x, y) => x - y),
        'in order'
      )
    }
    t.match(signals(client)[0], {
      op: 'signal',
      topic: 'rooms/1',
      from: { sub: 'alice' },
      data: { index: 0 }
    })
  }
  t.strictSame(signals(alice), [], 'never to who sent it')
})

/** Once everybody has left nothing is there but leases, and those run out; and the instances themselves. */
async function onlyLeases(t: Test, redis: RedisServer): Promise<void> {
  const kinds = /\}:(members|present|joined|instances)/
  const keys = () =>
    (redis.command('KEYS', '*') as Promise<string[]>).then(async all => {
      const found = all.filter(key => kinds.test(key) && !key.includes('$ringside/'))
      const own = await Promise.all(found.map(key => isOfInstances(redis, key)))
      return found.filter((_, index) => !own[index])
    })
  const left = await eventually(
    keys,
    all => all.every(key => key.endsWith(':instances')),
    'nothing but leases'
  )
  t.ok(left.length > 0)
  for (const key of left) t.ok(((await redis.command('PTTL', key)) as number) > 0, `${key} goes away`)
}

/** Whether all that an instance has joined is what the instances ask each other on. */
async function isOfInstances(redis: RedisServer, key: string): Promise<boolean> {
  if (!key.includes(':joined:')) return false
  const lines = (await redis.command('SMEMBERS', key)) as string[]
  return lines.every(line => line.endsWith(' $ringside/exchange'))
}
