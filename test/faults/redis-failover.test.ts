/** Another server takes over: a failover by Sentinel, in a Cluster, and a slot that moves. */
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { isProblem, post, publish, publishAll, type TestServer } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { listen, subscribe, type Reader } from '../support/reader.ts'
import { startCluster, startSentinel, type RedisServer } from '../support/redis-server.ts'
import {
  instance,
  instances,
  isOpen,
  publishSurely,
  ready,
  redisFor,
  Stream,
  told,
  toldUntil
} from '../support/redis-system.ts'

t.test('Sentinel', async t => {
  const setup = await startSentinel()
  t.teardown(() => setup.stop())
  const servers = await instances(t, setup.url, 2)

  t.test('the master is killed, and its replica takes over', async t => {
    const readers = await Promise.all(servers.map(server => listen(t, server, '/events?topic=a&topic=b/*')))
    const stream = new Stream(servers, ['a', 'b/1', 'b/2'])
    await stream.more(20)
    // else it may take over with nothing at all: another life
    await hasReplica(await setup.master())
    const killed = await setup.killMaster()
    await stream.more(20)
    await stream.stop()
    await Promise.all(servers.map(ready))
    await expectAllOrGap(t, readers, stream)

    t.test('and comes back as a replica that has everything', async t => {
      await killed.restart()
      await eventually(
        () => killed.info('replication'),
        info => info['role'] === 'slave' && info['master_link_status'] === 'up',
        'it to follow'
      )
      const [reader] = readers
      await publish(servers[1]!, 'a', 'again')
      t.equal((await toldUntil(reader!, 'again')).at(-1), 'again')
    })
  })

  t.test('the master hangs, its replica takes over, and nobody stays with the old one', async t => {
    const readers = await Promise.all(servers.map(server => listen(t, server, '/events/hang')))
    await publish(servers[0]!, 'hang', '1')
    for (const reader of readers) await toldUntil(reader, '1')
    const old = await setup.master()
    await hasReplica(old)
    old.freeze()
    await eventually(
      () => setup.master(),
      master => master !== old,
      'another master'
    )
    for (const [index, server] of servers.entries())
      await publishSurely(server, 'hang', `after ${index}`, `after-${index}`)
    for (const reader of readers)
      t.strictSame(await toldUntil(reader, 'after 1'), ['1', 'after 0', 'after 1'])
    old.thaw()
    await eventually(
      () => old.info('replication'),
      info => info['role'] === 'slave' && info['master_link_status'] === 'up',
      'it to follow'
    )
    await publishSurely(servers[0]!, 'hang', 'end', 'end')
    for (const reader of readers) {
      t.strictSame(await toldUntil(reader, 'end'), ['1', 'after 0', 'after 1', 'end'])
      t.ok(await isOpen(reader))
    }
  })
})

t.test('Cluster', async t => {
  const setup = await startCluster()
  t.teardown(() => setup.stop())
  const servers = await instances(t, setup.url, 2, { SHARDS: '3' })
  const topics = Array.from({ length: 9 }, (_, index) => `t/${index}`)
  const path = `/events?topic=${topics.join('&topic=')}`

  t.test('each shard is on a node of its own', async t => {
    for (const topic of topics) await publish(servers[0]!, topic, 'x')
    const used = await Promise.all(
      setup.nodes.map(node => node.command('KEYS', 'ringside:*ring:*') as Promise<string[]>)
    )
    const primaries = await Promise.all(
      setup.nodes.map(async node => (await node.info('replication'))['role'] === 'master')
    )
    t.equal(used.filter((keys, index) => primaries[index] && keys.length > 0).length, 3)
  })

  t.test('with WAIT_REPLICAS=1 what is answered 201 is on a replica', async t => {
    const server = await instance(t, setup.url, { SHARDS: '3', WAIT_REPLICAS: '1', KEY_PREFIX: 'waits:' })
    const reader = await listen(t, server, path)
    for (const topic of topics) {
      await publish(server, topic, topic)
      const holders = await Promise.all(
        setup.nodes.map(node => node.command('KEYS', `waits:*ring:${topic}`) as Promise<string[]>)
      )
      t.equal(holders.filter(keys => keys.length === 1).length, 2)
    }
    for (const topic of topics) await toldUntil(reader, topic)
    t.equal(told(reader).length, topics.length)
  })

  t.test('a slot moves to another node while its topics are listened to', async t => {
    const readers = await Promise.all(
      servers.flatMap(server => [listen(t, server, path), listen(t, server, '/events/t/*')])
    )
    const stream = new Stream(servers, topics)
    await stream.more(30)
    const key = await someKey()
    const from = await setup.primaryOf(key)
    t.not(await setup.moveSlot(key), from)
    await stream.more(30)
    await stream.stop()
    await Promise.all(servers.map(ready))
    await expectAll(t, readers, stream)
  })

  t.test('a slot that goes away and comes back, while something else on it is listened to anew', async t => {
    const [a, b] = servers as [TestServer, TestServer]
    const key = await someKey()
    const [before] = key.split('ring:')
    const others = Array.from({ length: 20 }, (_, index) => `back/${index}`)
    for (const topic of others) await publish(b, topic, '')
    const keys = await Promise.all(setup.nodes.map(node => node.command('KEYS', `${before}ring:back/*`)))
    const other = (keys.flat() as string[])[0]!.slice(`${before}ring:`.length)

    const reader = await listen(t, a, '/events/t/0')
    const from = await setup.primaryOf(key)
    await setup.moveSlot(key)
    await publishSurely(b, 't/0', 'away', 'away')
    while ((await setup.primaryOf(key)) !== from) await setup.moveSlot(key)
    await ready(a)
    const fresh = await listen(t, a, `/events/${other}`)
    await publishSurely(b, other, 'back', 'back')
    await toldUntil(fresh, 'back')
    const late = await listen(t, a, '/events/t/0', {
      accept: 'text/event-stream',
      'last-event-id': reader.cursor
    })
    t.strictSame(await toldUntil(late, 'away'), ['away'])
    t.strictSame(await toldUntil(reader, 'away'), ['away'])
    await Promise.all(servers.map(ready))
  })

  t.test('a slot that is on its way: 503, and nothing is stored on a part of its keys', async t => {
    const [server] = servers as [TestServer, TestServer]
    const reader = await listen(t, server, '/events/t/0')
    await publish(server, 't/0', 'before')
    const clock = (await someKey()).replace(/ring:.*/, 'clock')
    await setup.moveSlot(clock, async () => {
      isProblem(t, await post(server, '/events/t/0', 'halfway'), 503, /Redis/)
    })
    await publishSurely(server, 't/0', 'after', 'after')
    t.strictSame(await toldUntil(reader, 'after'), ['before', 'after'])
    await Promise.all(servers.map(ready))
    t.ok(await isOpen(reader))
  })

  t.test('with WAIT_REPLICAS=1 publishing follows a slot that moved', async t => {
    const server = await instance(t, setup.url, { SHARDS: '3', WAIT_REPLICAS: '1', KEY_PREFIX: 'waits:' })
    for (let round = 0; round < 2; round++) {
      await setup.moveSlot(await someKey())
      // a node that hasn't heard of it yet may be the one that is asked
      await publishSurely(server, 't/0', String(round), String(round))
    }
    await Promise.all(servers.map(ready))
  })

  t.test('an operator asks a replica to take over', async t => {
    const key = await someKey()
    const primary = await setup.primaryOf(key)
    const replica = await setup.replicaOf(primary)
    const readers = await Promise.all(servers.map(server => listen(t, server, path)))
    const stream = new Stream(servers, topics)
    await stream.more(20)
    await replica!.command('CLUSTER', 'FAILOVER')
    await eventually(
      () => setup.primaryOf(key),
      node => node === replica,
      'the replica to take over'
    )
    await stream.more(20)
    await stream.stop()
    await Promise.all(servers.map(ready))
    await expectAllOrGap(t, readers, stream)
  })

  t.test('a primary is killed, and its replica takes over', async t => {
    const readers = await Promise.all(
      servers.flatMap(server => [listen(t, server, path), listen(t, server, '/events/t/*')])
    )
    const stream = new Stream(servers, topics)
    await stream.more(30)
    await setup.killPrimary(await someKey())
    await stream.more(30)
    await stream.stop()
    await Promise.all(servers.map(ready))
    await expectAllOrGap(t, readers, stream)
  })

  async function someKey(): Promise<string> {
    for (const node of setup.nodes) {
      const keys = await node.command('KEYS', 'ringside:*ring:t/0').catch(() => [])
      if ((keys as string[]).length > 0) return (keys as string[])[0]!
    }
    throw new Error('no node has it')
  }
})

t.test(
  'one that never had the last event takes over, and no connection is lost: `lost` before what follows',
  async t => {
    const redis = await redisFor(t)
    const servers = await instances(t, redis.url, 2)
    const readers = await Promise.all(servers.map(server => listen(t, server, '/events/x')))
    const first = await publish(servers[0]!, 'x', '1')
    const second = await publish(servers[0]!, 'x', '2')
    for (const reader of readers) await toldUntil(reader, '2')
    // what a replica looks like that had not got the second
    await redis.command('XDEL', 'ringside:{0}:ring:x', second)
    await redis.command('HSET', 'ringside:{0}:last:*', 'x', first)
    await publish(servers[1]!, 'x', '3')
    for (const reader of readers) t.strictSame(await toldUntil(reader, '3'), ['1', '2', '<lost>', '3'])
    await Promise.all(servers.map(ready))
    await publish(servers[0]!, 'x', '4')
    for (const reader of readers) {
      t.strictSame(await toldUntil(reader, '4'), ['1', '2', '<lost>', '3', '4'])
      t.ok(await isOpen(reader))
    }
  }
)

t.test(
  'an event that only its publisher was told of is gone: `lost` before what follows, to all',
  async t => {
    const redis = await redisFor(t)
    const [a, b] = (await instances(t, redis.url, 2)) as [TestServer, TestServer]
    const first = await publish(a, 'x', '1')
    const live = await listen(t, b, '/events/y')
    const second = await publish(a, 'x', '2')
    // what another node looks like that had not got it, and has led since
    await redis.command('XDEL', 'ringside:{0}:ring:x', second)
    await redis.command('HSET', 'ringside:{0}:last:*', 'x', first)
    await publishAll(a, [
      { topic: 'x', data: 3 },
      { topic: 'y', data: 4 }
    ])
    t.strictSame(await toldUntil(live, '4'), ['<lost>', '4'])
    const back = await subscribe(t, b, '/events/x', { accept: 'text/event-stream', 'last-event-id': first })
    t.strictSame(await toldUntil(back, '3'), ['<lost>', '3'])

    t.test('also the first one of its topic', async t => {
      await publish(a, 'z', 'gone')
      await redis.command('DEL', 'ringside:{0}:ring:z')
      await redis.command('HDEL', 'ringside:{0}:last:*', 'z')
      await publishAll(a, [
        { topic: 'z', data: 'first here' },
        { topic: 'y', data: 41 }
      ])
      t.strictSame(await toldUntil(live, '41'), ['<lost>', '4', '<lost>', '41'])
    })

    t.test('also where nothing is published after it', async t => {
      const last = await publish(a, 'z', 'last')
      await redis.command('XDEL', 'ringside:{0}:ring:z', last)
      await live.frames.until(() => told(live).length === 5, 'the third gap')
      t.strictSame(told(live), ['<lost>', '4', '<lost>', '41', '<lost>'])
    })

    t.test('and once only', async t => {
      await publishAll(a, [
        { topic: 'x', data: 5 },
        { topic: 'y', data: 6 }
      ])
      t.strictSame((await toldUntil(live, '6')).slice(5), ['6'])
      t.strictSame((await toldUntil(back, '5')).slice(-2), ['<lost>', '5'])
    })
  }
)

t.test(
  'of ephemeral events nothing is looked for when a connection was lost: nothing seems gone',
  async t => {
    const redis = await redisFor(t)
    const folder = t.testdir({ 'topics.json': '[{"match":"e/*","ephemeral":true}]' })
    const servers = await instances(t, redis.url, 2, { TOPICS: join(folder, 'topics.json') })
    const [a, b] = servers as [TestServer, TestServer]
    const readers = await Promise.all(servers.map(server => listen(t, server, '/events?topic=x&topic=e/a')))
    const expected: string[] = []
    for (let round = 0; round < 3; round++) {
      // who has got the first is live again, and gets the second
      for (const [server, topic] of [
        [a, 'x'],
        [b, 'e/a']
      ] as const) {
        expected.push(`${topic} ${round}`)
        await publish(server, topic, expected.at(-1)!)
        for (const reader of readers) t.strictSame(await toldUntil(reader, expected.at(-1)!), expected)
      }
      await redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub')
    }
    await publish(a, 'x', 'end')
    for (const reader of readers) t.strictSame(await toldUntil(reader, 'end'), [...expected, 'end'])
    t.strictSame(await redis.command('KEYS', '*e/a*'), [])
  }
)

/** Resolves once a replica has been handed the data and follows. */
async function hasReplica(server: RedisServer): Promise<void> {
  await eventually(
    () => server.command('WAIT', 1, 100),
    count => count === 1,
    'its replica'
  )
}

/** Every reader gets all that was stored, each once, and of each topic in the order of its publishing. */
async function expectAll(t: Test, readers: readonly Reader[], stream: Stream): Promise<void> {
  for (const reader of readers) {
    for (const { data } of stream.stored.slice(-9)) await toldUntil(reader, data)
    t.notOk(told(reader).some(isGap), 'no gap')
    expectEachOnce(t, reader, stream)
  }
}

/**
 * A replica may take over before it had the last events, which then are gone: that is told as `lost`.
 * Nothing else is missing, nothing comes twice, and no stream ends.
 */
async function expectAllOrGap(t: Test, readers: readonly Reader[], stream: Stream): Promise<void> {
  for (const reader of readers) {
    for (const { data } of stream.stored.slice(-9)) await toldUntil(reader, data)
    const all = told(reader)
    if (!all.some(isGap)) expectEachOnce(t, reader, stream)
    t.strictSame(
      all.filter(isGap).filter(gap => gap !== '<lost>'),
      []
    )
    const numbers = all.filter(each => !isGap(each))
    t.equal(new Set(numbers).size, numbers.length, 'nothing comes twice')
    t.ok(await isOpen(reader))
  }
}

function expectEachOnce(t: Test, reader: Reader, { stored }: Stream): void {
  const topicOf = new Map(stored.map(({ topic, data }) => [data, topic]))
  for (const topic of new Set(topicOf.values())) {
    const got = told(reader).filter(data => topicOf.get(data) === topic)
    t.strictSame(
      got,
      stored.filter(each => each.topic === topic).map(({ data }) => data)
    )
  }
}

function isGap(text: string): boolean {
  return text.startsWith('<')
}
