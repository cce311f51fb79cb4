/** Where Redis is and how it is reached: certificates of clients, Sentinels and Clusters with TLS, one address of a Cluster. */
import type { Cluster, Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { RedisBroker } from '../../src/broker/redis/broker.ts'
import { RedisConnections } from '../../src/broker/redis/connections.ts'
import { redisTarget } from '../../src/broker/redis/url.ts'
import { systemClock } from '../../src/clock.ts'
import { readSettings } from '../../src/config.ts'
import { publish } from '../support/app.ts'
import { makeCertificate } from '../support/certificate.ts'
import { eventually } from '../support/inbox.ts'
import { listen } from '../support/reader.ts'
import { startCluster, startSentinel } from '../support/redis-server.ts'
import { instance, instances, redisFor, toldUntil } from '../support/redis-system.ts'

/** A broker that begins to connect, and what it tells the log. */
function connecting(t: Test, env: Record<string, string>) {
  const settings = readSettings(env)
  const told: string[] = []
  const report = (_: string, { message }: Error) => void told.push(message)
  const broker = new RedisBroker(redisTarget(settings), settings, systemClock, report)
  t.teardown(() => broker.close())
  const ignore = () => {}
  void broker.log.start({ event: ignore, tick: ignore, jump: ignore, gap: ignore, up: ignore })
  return { log: broker.log, told }
}

/** Resolves with what a broker has told the log until it answered. */
async function toldUntilUp(t: Test, env: Record<string, string>): Promise<string[]> {
  const { log, told } = connecting(t, env)
  await eventually(
    () => log.up,
    up => up,
    'a broker that answers'
  )
  return told
}

/** Resolves with the first that a broker tells the log. */
async function firstTold(t: Test, env: Record<string, string>): Promise<string> {
  const { told } = connecting(t, env)
  return (await eventually(
    () => told[0],
    first => first !== undefined,
    'a broker that says why it has no connection'
  ))!
}

/** The connections to a Cluster of which one address is known, and the nodes that are added to them from now on. */
async function clusterOf(t: Test, env: Record<string, string>) {
  const ignore = () => {}
  const connections = new RedisConnections(redisTarget(readSettings(env)), 0, ignore, ignore)
  t.teardown(() => connections.close())
  const subscriber = await connections.subscriber('key', { message: ignore, closed: ignore })
  subscriber.disconnect()
  const cluster = connections.commands as Cluster
  const others: string[] = []
  cluster.on('+node', ({ options: { host, port } }: Redis) => others.push(`${host}:${port}`))
  return { cluster, others }
}

t.test('TLS with a certificate of the client', async t => {
  const { TLS_CERT, TLS_KEY } = makeCertificate(t.testdir())
  const redis = await redisFor(t, { tls: t.testdirName, config: { 'tls-auth-clients': 'yes' } })
  const env = { REDIS_URL: redis.url, REDIS_TLS_CA: TLS_CERT }
  t.strictSame(await toldUntilUp(t, { ...env, REDIS_TLS_CERT: TLS_CERT, REDIS_TLS_KEY: TLS_KEY }), [])
  t.match(await firstTold(t, env), /ECONNRESET|certificate required/, 'without one')
})

t.test('Sentinels with TLS and a password of their own', async t => {
  const { TLS_CERT } = makeCertificate(t.testdir())
  const setup = await startSentinel({ tls: t.testdirName }, 'watch')
  t.teardown(() => setup.stop())
  const env = { REDIS_URL: setup.url, REDIS_TLS_CA: TLS_CERT }
  t.strictSame(await toldUntilUp(t, { ...env, REDIS_SENTINEL_PASSWORD: 'watch' }), [])
  t.match(await firstTold(t, env), /NOAUTH/, 'without the password')
  const unknown = { ...env, REDIS_URL: setup.url.replace(/\w+$/, 'nobody'), REDIS_SENTINEL_PASSWORD: 'watch' }
  // whatever the attempt: what is tried again is not told again
  t.equal(await firstTold(t, unknown), 'no Sentinel names a primary: ERR No such master with that name')
})

t.test('a Cluster with TLS whose certificate names a host', async t => {
  const { TLS_CERT } = makeCertificate(t.testdir(), 'DNS:localhost')
  const setup = await startCluster({
    tls: t.testdirName,
    config: { 'cluster-announce-hostname': 'localhost', 'cluster-preferred-endpoint-type': 'hostname' }
  })
  t.teardown(() => setup.stop())
  const hosts = setup.url.replaceAll('127.0.0.1', 'localhost')
  t.strictSame(await toldUntilUp(t, { REDIS_URL: hosts, REDIS_TLS_CA: TLS_CERT, SHARDS: '3' }), [])
  const one = `rediss://localhost:${setup.nodes[0]!.port}`
  t.strictSame(
    await toldUntilUp(t, { REDIS_URL: one, REDIS_TLS_CA: TLS_CERT, SHARDS: '3' }),
    [],
    'one address'
  )
  t.match(
    await firstTold(t, { REDIS_URL: setup.url, REDIS_TLS_CA: TLS_CERT }),
    /^127\.0\.0\.1:\d+: .*certificate/,
    'an address that the certificate does not name'
  )

  t.test('of which no node knows how it is reached: at the host that was asked', async t => {
    const type = ['cluster-preferred-endpoint-type', 'unknown-endpoint'] as const
    await Promise.all(setup.nodes.map(node => node.command('CONFIG', 'SET', ...type)))
    const env = { REDIS_TLS_CA: TLS_CERT, SHARDS: '3', KEY_PREFIX: 'unknown:' }
    t.strictSame(await toldUntilUp(t, { ...env, REDIS_URL: one }), [])
    const servers = await instances(t, one, 2, env)
    const reader = await listen(t, servers[0]!, '/events?topic=x/*')
    const topics = Array.from({ length: 9 }, (_, index) => `x/${index}`)
    for (const topic of topics) await publish(servers[1]!, topic, topic)
    t.strictSame((await toldUntil(reader, 'x/8')).sort(), topics)
    const { cluster, others } = await clusterOf(t, { ...env, REDIS_URL: one })
    await setup.moveSlot('unknown:{0}:clock')
    await cluster.get('unknown:{0}:clock')
    t.strictSame(others, [], 'who is told MOVED goes to a node that is known')
    for (const topic of topics) await publish(servers[1]!, topic, `${topic} moved`)
    await toldUntil(reader, 'x/8 moved')
  })
})

t.test('a Cluster', async t => {
  const setup = await startCluster({ acl: ['user app on >secret ~* &* +@all'] })
  t.teardown(() => setup.stop())

  t.test('is followed from one address, whatever the node serves, and nothing is told', async t => {
    for (const [index, { url }] of setup.nodes.entries()) {
      const REDIS_URL = url.replace('//', '//app:secret@')
      const env = { REDIS_URL, SHARDS: '3', KEY_PREFIX: `one-${index}:` }
      t.strictSame(await toldUntilUp(t, env), [], url)
    }
    const servers = [
      await instance(t, setup.nodes[0]!.url, { WAIT_REPLICAS: '1' }),
      await instance(t, setup.nodes[1]!.url, { WAIT_REPLICAS: '1' }),
      await instance(t, setup.url, { WAIT_REPLICAS: '1' })
    ] as const
    const reader = await listen(t, servers[0], '/events?topic=x/*')
    for (const [index, server] of servers.entries()) await publish(server, `x/${index}`, `${index}`)
    t.strictSame(await toldUntil(reader, '2'), ['0', '1', '2'])
  })

  t.test('is silent where all is well', async t => {
    t.strictSame(await toldUntilUp(t, { REDIS_URL: setup.url, SHARDS: '3' }), [])
  })

  t.test('of which no node is there: the log names one, and why', async t => {
    const ports = [1, 2].map(port => `localhost:${port}`).join()
    t.match(await firstTold(t, { REDIS_URL: `redis://${ports}` }), /^localhost:[12]: .*ECONNREFUSED/)
  })

  t.test('that does not let the user in: the log names a node, and why', async t => {
    const wrong = setup.url.replace('//', '//app:wrong@')
    t.match(await firstTold(t, { REDIS_URL: wrong }), /^127\.0\.0\.1:\d+: WRONGPASS/)
    await Promise.all(setup.nodes.map(node => node.command('ACL', 'SETUSER', 'app', 'resetpass', '>other')))
  })

  t.test('that has a database number: it has none', async t => {
    t.match(await firstTold(t, { REDIS_URL: `${setup.nodes[0]!.url}/3` }), /database|SELECT/)
  })
})

t.test('a Cluster whose node announces where it is not: the log names that, and why', async t => {
  // one node: among several the word that one has moved goes around in its own time
  const config = { 'cluster-enabled': 'yes', 'cluster-announce-ip': '127.9.9.9' }
  const redis = await redisFor(t, { config })
  await redis.command('CLUSTER', 'ADDSLOTSRANGE', '0', '16383')
  const url = `redis://127.0.0.1:${redis.port},127.0.0.1:${redis.port}`
  t.match(await firstTold(t, { REDIS_URL: url }), /^127\.9\.9\.9:\d+: .*ECONNREFUSED/)
})

t.test('a Cluster that asks for a password: the log names a node, and why', async t => {
  const redis = await redisFor(t, { password: 'secret', config: { 'cluster-enabled': 'yes' } })
  const nobody = `redis://127.0.0.1:${redis.port}`
  t.match(await firstTold(t, { REDIS_URL: `${nobody},127.0.0.1:${redis.port}` }), /^127\.0\.0\.1:\d+: NOAUTH/)
})
