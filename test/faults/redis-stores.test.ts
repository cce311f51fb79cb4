/** Stores that are not what we need: too old, not the real thing, or such as may evict what is still to be read. */
import t, { type Test } from 'tap'
import { RedisBroker } from '../../src/broker/redis/broker.ts'
import { readRedisUrl } from '../../src/broker/redis/url.ts'
import { systemClock } from '../../src/clock.ts'
import { readSettings } from '../../src/config.ts'
import { ask, build, isProblem, metricsOf, post, publish, type TestServer } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { subscribe } from '../support/reader.ts'
import { startRedisProxy } from '../support/redis-proxy.ts'
import type { RedisServer } from '../support/redis-server.ts'
import { instance, publishSurely, ready, redisFor, told } from '../support/redis-system.ts'

t.jobs = 4
t.setTimeout(60_000)

/** Resolves once `/readyz` is a 503 that says so; that it is one for want of a store goes without saying. */
async function notReady(t: Test, server: TestServer, says: RegExp): Promise<void> {
  const answer = await eventually(
    () => ask(server, '/readyz'),
    ({ status, text }) => status === 503 && says.test(text),
    `a reason such as ${says}`
  )
  isProblem(t, answer, 503, says)
}

/** A broker on a store, and what is logged of that from now on. */
function brokerOn(t: Test, url: string) {
  const lines: string[] = []
  const settings = readSettings({ REDIS_URL: url, KEY_PREFIX: 'log:' })
  const broker = new RedisBroker(readRedisUrl(url), settings, systemClock, (stage, { message }) =>
    lines.push(`${stage}: ${message}`)
  )
  t.teardown(() => broker.close())
  const nothing = () => {}
  void broker.log.start({ event: nothing, tick: nothing, jump: nothing, gap: nothing, up: nothing })
  return { log: broker.log, lines }
}

async function refuses(t: Test, url: string, says: RegExp): Promise<TestServer> {
  const server = await build(t, { REDIS_URL: url })
  const { lines } = brokerOn(t, url)
  const started = performance.now()
  await notReady(t, server, says)
  t.ok(performance.now() - started < 5000)
  isProblem(t, await post(server, '/events/x', '1'), 503, /./)
  t.equal((await metricsOf(server)).get('ringside_broker_up'), 0)
  await eventually(
    () => lines.length,
    count => count > 0,
    'a line of the log'
  )
  t.match(lines, [says])
  t.equal(lines.length, 1, 'one line')
  return server
}

t.test('too old', async t => {
  const redis = await redisFor(t)
  const { redis_version: version } = await eventually(
    () => redis.info('server'),
    ({ redis_version }) => redis_version !== undefined,
    'a version'
  )
  const proxy = await startRedisProxy(t, redis.port)
  proxy.rewrite([`${version}`, '6.0.9'.padEnd(version!.length, '9')])
  const server = await refuses(t, proxy.url, /is too old: it is version 6\.0\.9+, and 6\.2 is needed/)
  isProblem(t, await post(server, '/events/x', '1'), 503, /^Redis is too old/)
  proxy.rewrite(null)
  await ready(server)
  t.strictSame((await ask(server, '/readyz')).json(), { status: 'ok', write: true })
  // another one of these may be at it
  const left = () => redis.command('KEYS', '*try:*')
  await eventually(left, keys => (keys as string[]).length === 0, 'nothing to be left of what was tried')
})

t.test('another store under the instances: what is new is tried', async t => {
  const redis = await redisFor(t)
  const proxy = await startRedisProxy(t, redis.port)
  const server = await instance(t, proxy.url)
  proxy.rewrite([(await redis.info('server'))['redis_version']!, '6.0.99'])
  proxy.cut()
  await notReady(t, server, /too old/)
})

t.test('without a command', async t => {
  for (const [command, says] of [
    ['XRANGE', /takes no exclusive ranges/],
    ['EVAL', /does not know the command EVAL/],
    ['INFO', /does not know the command INFO/],
    ['XREVRANGE', /can not run the script newest\.lua/],
    ['ZADD', /can not run the script append\.lua/]
  ] as const) {
    t.test(command, async t => {
      const redis = await redisFor(t, { config: { 'rename-command': [command, ''] } })
      await refuses(t, redis.url, says)
    })
  }
})

t.test('a user who may not do what is needed', async t => {
  const redis = await redisFor(t, { acl: ['user app on >secret ~* &* +@all -zrangebyscore'] })
  const url = redis.url.replace('//', '//app:secret@')
  const server = await refuses(t, url, /does not let its user run the script \w+\.lua/)
  await redis.command('ACL', 'SETUSER', 'app', '+zrangebyscore')
  await ready(server)
})

t.test('a user who may do less while it runs: the log, /readyz and answers say the same', async t => {
  for (const [right, says] of [
    ['evalsha', 'does not let its user run EVALSHA'],
    ['zrangebyscore', 'does not let its user run the script append.lua'],
    ['subscribe', 'does not let its user run SUBSCRIBE']
  ] as const) {
    t.test(right, async t => {
      const redis = await redisFor(t, { acl: ['user app on >secret ~* &* +@all'] })
      const url = redis.url.replace('//', '//app:secret@')
      const server = await instance(t, url)
      const { log, lines } = brokerOn(t, url)
      await eventually(
        () => log.up,
        up => up,
        'another broker'
      )
      await redis.command('ACL', 'SETUSER', 'app', `-${right}`)
      const isRead = right === 'subscribe'
      const accept = { accept: 'application/json' }
      const answer = isRead ? ask(server, '/events/x', { headers: accept }) : post(server, '/events/x', '1')
      isProblem(t, await answer, 503, /./)
      const event = { topic: 'x', type: 'message', data: '1' }
      await t.rejects(async () => void (await (isRead ? log.subscribe('x') : log.append([event]))))
      await notReady(t, server, new RegExp(`Redis ${says}`))
      if (!isRead) isProblem(t, await post(server, '/events/x', '1'), 503, new RegExp(`^Redis ${says};`))
      await eventually(
        () => lines.at(-1) ?? '',
        line => line.startsWith(`store: ${says} (`),
        'a line of the log'
      )
      await redis.command('ACL', 'SETUSER', 'app', `+${right}`)
      await ready(server)
      await publish(server, 'x', '2')
    })
  }
})

t.test(
  'a password that is another one now: the log says so, although the connection was lost first',
  async t => {
    const redis = await redisFor(t, { acl: ['user app on >secret ~* &* +@all'] })
    const { lines } = brokerOn(t, redis.url.replace('//', '//app:secret@'))
    await eventually(
      () => redis.command('CLIENT', 'LIST', 'TYPE', 'pubsub'),
      list => String(list).includes('user=app'),
      'a broker that listens'
    )
    await redis.command('ACL', 'SETUSER', 'app', 'resetpass', '>other')
    await redis.command('CLIENT', 'KILL', 'USER', 'app')
    const told = (text: string) =>
      eventually(
        () => lines.filter(line => line.includes(text)).length,
        count => count > 0,
        text
      )
    t.equal(await told('WRONGPASS'), 1)
    t.match(lines[0], /connection closed/)
  }
)

t.test('what can not be asked now is told in the words of Redis', async t => {
  t.test('a database that there is not: no other one is taken', async t => {
    const redis = await redisFor(t)
    const { lines } = brokerOn(t, `${redis.url}/99`)
    const server = await build(t, { REDIS_URL: `${redis.url}/99` })
    await notReady(t, server, /Redis refused it/)
    isProblem(t, await post(server, '/events/x', '1'), 503, /./)
    t.match(lines, [/DB index is out of range/])
    t.strictSame(await redis.command('KEYS', '*ring:*'), [])
  })

  t.test('a replica', async t => {
    const redis = await redisFor(t, { config: { replicaof: '127.0.0.1 1' } })
    const { lines } = brokerOn(t, redis.url)
    const server = await build(t, { REDIS_URL: redis.url })
    await notReady(t, server, /Redis refused it/)
    t.match(lines, [/READONLY/])
    await redis.command('REPLICAOF', 'NO', 'ONE')
    await ready(server)
  })
})

t.test('what scripts publish does not come in', async t => {
  const redis = await redisFor(t)
  const proxy = await startRedisProxy(t, redis.port)
  proxy.rewrite([':i:', ':?:'])
  const server = await build(t, { REDIS_URL: proxy.url })
  await notReady(t, server, /passes on nothing that a script publishes/)
  proxy.rewrite(null)
  await ready(server)
})

t.test('nothing can be stored: readers are served, and all say so', async t => {
  const redis = await redisFor(t, { acl: ['user app on >secret ~* &* +@all -xadd'], maxmemory: '1gb' })
  const url = redis.url.replace('//', '//app:secret@')
  const { lines } = brokerOn(t, url)
  const server = await instance(t, url)
  const says = (state: object) =>
    eventually(
      () => ask(server, '/readyz'),
      ({ text }) => text === JSON.stringify({ status: 'ok', ...state }),
      JSON.stringify(state)
    )
  await says({ write: false, reason: 'Redis refused it' })
  t.equal((await post(server, '/events/x', '1')).status, 503)
  t.equal((await metricsOf(server)).get('ringside_broker_up'), 1)
  await eventually(
    () => lines.length,
    count => count > 0,
    'a line of the log'
  )
  t.match(lines, [/^append: refused it \(XADD: .*can't run/])

  await redis.command('ACL', 'SETUSER', 'app', '+xadd')
  await says({ write: true })
  await publish(server, 'x', '1')

  await redis.command('CONFIG', 'SET', 'maxmemory', '1')
  await says({ write: false, reason: 'Redis is full' })
  await eventually(
    () => lines.length,
    count => count > 1,
    'another line'
  )
  t.match(lines[1], /^memory: is full/)
  t.equal((await ask(server, '/events/x?rewind=1', { headers: { accept: 'application/json' } })).status, 200)
  await redis.command('CONFIG', 'SET', 'maxmemory', '0')
  await says({ write: true })
})

t.test('one that may evict keys is refused', async t => {
  const redis = await redisFor(t, { maxmemory: '100mb', config: { 'maxmemory-policy': 'volatile-ttl' } })
  const server = await refuses(t, redis.url, /may evict.*volatile-ttl/)
  const words = /^Redis may evict.*volatile-ttl/
  isProblem(t, await post(server, '/events/x', '1'), 503, words)
  await redis.command('CONFIG', 'SET', 'maxmemory', '0')
  await ready(server)
  await publishSurely(server, 'x', '1', 'key')
})

for (const policy of ['allkeys-lru', 'allkeys-lfu', 'allkeys-random', 'volatile-lru', 'volatile-ttl']) {
  t.test(`${policy} while it runs: whoever resumes gets his events or a gap`, async t => {
    const redis = await redisFor(t, { maxmemory: '1gb' })
    const server = await instance(t, redis.url)
    const topics = Array.from({ length: 20 }, (_, index) => `quiet/${index}/x`)
    const cursors: string[] = []
    for (const topic of topics) {
      cursors.push(await publish(server, topic, '1'))
      await publish(server, topic, '2')
    }
    await redis.command('CONFIG', 'SET', 'maxmemory-policy', policy)
    await evict(redis)
    await notReady(t, server, new RegExp(`may evict.*${policy}`))
    isProblem(t, await post(server, '/events/x', '1'), 503, /Redis may evict/)
    await redis.command('CONFIG', 'SET', 'maxmemory-policy', 'noeviction', 'maxmemory', '1gb')
    await ready(server)
    const silent: unknown[] = []
    for (const [index, topic] of topics.entries()) {
      await publish(server, topic, '3')
      const reader = await subscribe(t, server, `/events/${topic}?after=${cursors[index]}`)
      const isTold = () => told(reader).some(each => each === '3' || each.startsWith('<'))
      await reader.frames.until(isTold, 'a gap or what came last')
      if (!told(reader)[0]!.startsWith('<') && told(reader).join() !== '2,3')
        silent.push([topic, told(reader)])
      reader.close()
    }
    t.strictSame(silent, [])
  })
}

/** Has it evict keys, ours among them. */
async function evict(redis: RedisServer): Promise<void> {
  const { used_memory: used } = await redis.info('memory')
  await redis.command('CONFIG', 'SET', 'maxmemory', Number(used) - 100_000)
  await eventually(
    () => redis.info('stats'),
    ({ evicted_keys: evicted }) => Number(evicted) >= 5,
    'keys to be evicted'
  )
}
