/** Redis answers, and refuses: it is full, a replica now, has no scripts, or too few replicas. */
import t, { type Test } from 'tap'
import { ask, isProblem, post, publish, type Answer, type TestServer } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { listen } from '../support/reader.ts'
import type { RedisServer } from '../support/redis-server.ts'
import {
  instance,
  instances,
  isOpen,
  publishSurely,
  ready,
  redisFor,
  told,
  toldUntil,
  unready
} from '../support/redis-system.ts'
import { connect } from '../support/websocket.ts'

t.test('full (OOM): nothing is stored by halves, and it goes on once there is room', async t => {
  const redis = await redisFor(t, { maxmemory: '1gb' })
  const [a, b] = (await instances(t, redis.url, 2)) as [TestServer, TestServer]
  const reader = await listen(t, b, '/events?topic=x&topic=y')
  await publish(a, 'x', '1')
  await toldUntil(reader, '1')
  const keys = await dump(redis)

  await redis.command('CONFIG', 'SET', 'maxmemory', '1')
  const batch = JSON.stringify([
    { topic: 'x', data: 2 },
    { topic: 'y', data: 3 }
  ])
  for (const [path, body, type] of [
    ['/events/x', '2', 'text/plain'],
    ['/events', batch, 'application/json']
  ] as const) {
    const answer = await post(a, path, body, { 'content-type': type })
    isProblem(t, answer, 503, /./)
    t.ok(Number(answer.headers['retry-after']) >= 1)
  }
  await redis.command('CONFIG', 'SET', 'maxmemory', '0')
  t.strictSame(await dump(redis), keys, 'no key has changed')
  await ready(a)
  await publishSurely(a, 'x', '2', 'second')
  t.strictSame(await toldUntil(reader, '2'), ['1', '2'])
  t.ok(await isOpen(reader))
})

t.test('a replica now (READONLY), and the master again', async t => {
  const redis = await redisFor(t)
  const master = await redisFor(t)
  const servers = await instances(t, redis.url, 2)
  const reader = await listen(t, servers[0]!, '/events/x')
  await publish(servers[1]!, 'x', '1')
  await toldUntil(reader, '1')
  // it can't be reached, so that nothing is taken from it
  await master.kill()
  await redis.command('REPLICAOF', '127.0.0.1', master.port)
  const answer = await post(servers[0]!, '/events/x', 'refused')
  isProblem(t, answer, 503, /./)
  t.ok(Number(answer.headers['retry-after']) >= 1)
  t.ok((await unready(servers[0]!)) < 5000)
  await redis.command('REPLICAOF', 'NO', 'ONE')
  t.ok(Math.max(...(await Promise.all(servers.map(ready)))) < 5000)
  await publish(servers[1]!, 'x', '2')
  t.strictSame(await toldUntil(reader, '2'), ['1', '2'])
  t.ok(await isOpen(reader))
})

t.test('what Redis says is for the log: no answer has its words', async t => {
  const acl = ['user app on >secret ~* &* +@all']
  const redis = await redisFor(t, { acl, maxmemory: '1gb' })
  const server = await instance(t, redis.url.replace('//', '//app:secret@'))
  const socket = await connect(t, server)
  const quietly = async (words: string) => {
    const answers = [post(server, '/events/x', '1'), post(server, '/tickers', QUOTE, JSON_TYPE)]
    for (const answer of await Promise.all(answers))
      t.equal(isProblem(t, answer, 503, /./)['detail'], `${words}; what was to be stored may not be`)
    t.match(await socket.ask('publish', { topic: 'x', data: 1 }), { code: 'unavailable', message: words })
  }

  t.comment('it may not write')
  await redis.command('ACL', 'SETUSER', 'app', '-xadd')
  await quietly('Redis refused it')
  await redis.command('ACL', 'SETUSER', 'app', '+xadd')
  t.comment('somebody else has made something else of its keys')
  for (const key of ['ring:x', 'ring:tickers/A']) await redis.command('SET', `ringside:{0}:${key}`, 'foreign')
  await quietly('Redis refused it')
  await redis.command('DEL', 'ringside:{0}:ring:x', 'ringside:{0}:ring:tickers/A')
  t.comment('it is full')
  await redis.command('CONFIG', 'SET', 'maxmemory', '1')
  await quietly('Redis is full')
})

const QUOTE = '{"symbol":"A","price":1}'
const JSON_TYPE = { 'content-type': 'application/json' }

for (const WAIT_REPLICAS of ['0', '1']) {
  t.test(`without its scripts (NOSCRIPT) between publishes, WAIT_REPLICAS=${WAIT_REPLICAS}`, async t => {
    const { redis } = await withReplica(t)
    const server = await instance(t, redis.url, { WAIT_REPLICAS })
    const reader = await listen(t, server, '/events/x')
    const expected = Array.from({ length: 10 }, (_, index) => String(index))
    for (const data of expected) {
      await redis.command('SCRIPT', 'FLUSH')
      await publish(server, 'x', data)
    }
    await redis.command('SCRIPT', 'FLUSH')
    const late = await listen(t, server, '/events?topic=x&rewind=100')
    t.strictSame(await toldUntil(reader, '9'), expected)
    t.strictSame(await toldUntil(late, '9'), expected)
    t.ok(await isOpen(reader))
  })
}

t.test('WAIT_REPLICAS=1: 503 while the replica hangs, 201 once it is back', async t => {
  const { redis, replica } = await withReplica(t)
  const server = await instance(t, redis.url, { WAIT_REPLICAS: '1' })
  const reader = await listen(t, server, '/events/x')
  await publish(server, 'x', '1')
  t.equal(await replica.command('XLEN', 'ringside:{0}:ring:x'), 1)
  replica.freeze()
  const answers = await Promise.all(
    ['2', '3', '4'].map(data => post(server, '/events/x', data, { 'idempotency-key': data }))
  )
  for (const answer of answers) {
    isProblem(t, answer, 503, /./)
    t.ok(Number(answer.headers['retry-after']) >= 1)
  }
  replica.thaw()
  for (const data of ['2', '3', '4']) await publishSurely(server, 'x', data, data)
  const all = await toldUntil(reader, '4')
  t.strictSame([...all].sort(), ['1', '2', '3', '4'], 'each once: the key makes the retry safe')
  t.equal(await replica.command('XLEN', 'ringside:{0}:ring:x'), 4)
  t.ok(await isOpen(reader))
  t.strictSame(told(reader), all)
})

t.test('a hung replica holds up publishers alone: who reads goes on', async t => {
  const { redis, replica } = await withReplica(t)
  const server = await instance(t, redis.url, { WAIT_REPLICAS: '1' })
  const other = await instance(t, redis.url)
  const reader = await listen(t, server, '/events/y')
  replica.freeze()
  const refused: Promise<Answer>[] = []
  const expected = Array.from({ length: 15 }, (_, index) => String(index))
  for (const data of expected) {
    refused.push(post(server, '/events/x', data))
    // five at a time: more than are answered before the next tick
    await refused.at(-5)
    await publish(other, 'y', data)
    t.equal((await ask(server, '/readyz')).status, 200)
    await toldUntil(reader, data)
  }
  t.strictSame(told(reader), expected)
  for (const { status } of await Promise.all(refused)) t.equal(status, 503)
})

async function withReplica(t: Test): Promise<{ redis: RedisServer; replica: RedisServer }> {
  const redis = await redisFor(t)
  const replica = await redisFor(t, { config: { replicaof: `127.0.0.1 ${redis.port}` } })
  await eventually(
    () => redis.command('WAIT', 1, 100),
    count => count === 1,
    'the replica'
  )
  return { redis, replica }
}

/** All keys but the clock, which ticks move, with what they hold. */
async function dump(redis: RedisServer): Promise<unknown[]> {
  const keys = ((await redis.command('KEYS', '*')) as string[]).filter(key => !key.endsWith(':clock')).sort()
  return Promise.all(keys.map(async key => [key, await valueOf(redis, key)]))
}

async function valueOf(redis: RedisServer, key: string): Promise<unknown> {
  const type = await redis.command('TYPE', key)
  if (type === 'stream') return redis.command('XRANGE', key, '-', '+')
  if (type === 'hash') return redis.command('HGETALL', key)
  if (type === 'zset') return redis.command('ZRANGE', key, 0, -1, 'WITHSCORES')
  return redis.command('GET', key)
}
