/** Who may reach which Redis, and how: two systems on one, passwords, ACL users, TLS, Unix sockets. */
import t, { type Test } from 'tap'
import { build, post, publish, type Address, type TestServer } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { listen } from '../support/reader.ts'
import { serve } from '../support/process.ts'
import { startCluster } from '../support/redis-server.ts'
import { instance, ready, redisFor, told, toldUntil, unready } from '../support/redis-system.ts'
import { connect } from '../support/websocket.ts'

/** All that Ringside asks of Redis: what its connections send, and what its scripts do. */
const COMMANDS = {
  connections: [
    'hello',
    'info',
    'subscribe',
    'unsubscribe',
    'evalsha',
    'eval',
    'hmget',
    'zrangebyscore',
    'smembers'
  ],
  scripts: [
    ...'time get set hget hset hdel del pexpire xadd xrange xlen xtrim zadd zcard zrem sadd srem publish'.split(
      ' '
    ),
    ...'hgetall hlen spop xrevrange zscore'.split(' ')
  ],
  withReplicas: ['wait', 'script|exists', 'script|load'],
  cluster: ['client|setname', 'cluster|slots', 'cluster|info', 'ssubscribe', 'sunsubscribe', 'spublish']
}

function userRule(...commands: readonly string[]): string {
  return `user app on >secret resetchannels ~ringside:* &ringside:* -@all ${commands.map(name => `+${name}`).join(' ')}`
}

t.test('two systems on one Redis, told apart by KEY_PREFIX, do not see each other', async t => {
  const redis = await redisFor(t)
  const one = await instance(t, redis.url, { KEY_PREFIX: 'one:' })
  const two = await instance(t, redis.url, { KEY_PREFIX: 'two:' })
  const readers = await Promise.all([one, two].map(server => listen(t, server, '/events?topic=x&topic=y/*')))
  await publish(one, 'x', 'one')
  await publish(two, 'y/1', 'two')
  await publish(one, 'y/1', 'one again')
  await publish(two, 'x', 'two again')
  t.strictSame(await toldUntil(readers[0]!, 'one again'), ['one', 'one again'])
  t.strictSame(await toldUntil(readers[1]!, 'two again'), ['two', 'two again'])
  const replayed = await listen(t, two, '/events?topic=x&topic=y/*&rewind=10')
  t.strictSame(await toldUntil(replayed, 'two again'), ['two', 'two again'])
  const answers = await Promise.all(
    [one, two].map(server => post(server, '/events/x', 'same', { 'idempotency-key': 'key' }))
  )
  for (const answer of answers) t.notOk(answer.headers['idempotent-replayed'])
  const keys = (await redis.command('KEYS', '*')) as string[]
  t.strictSame([...new Set(keys.map(key => key.split('{')[0]))].sort(), ['one:', 'two:'])
})

t.test('a database of its own', async t => {
  const redis = await redisFor(t)
  await works(t, await instance(t, `${redis.url}/3`))
  t.match(await redis.info('keyspace'), { db3: String })
  t.notOk((await redis.info('keyspace'))['db0'])
})

t.test('two systems on two databases with one prefix do not hear each other', async t => {
  const redis = await redisFor(t)
  const systems = [await instance(t, redis.url), await instance(t, `${redis.url}/3`)]
  const [one, two] = systems as [TestServer, TestServer]
  const readers = await Promise.all(systems.map(server => listen(t, server, '/events?topic=x/*&topic=y')))
  const peers = await Promise.all(systems.map(server => connect(t, server)))
  for (const peer of peers) await peer.do('subscribe', { topics: ['x/*'] })
  await peers[0]!.do('join', { topic: 'x/1' })
  await peers[0]!.do('signal', { topic: 'x/1', data: 1 })
  // its ids are ahead: what the others store would come too late for whoever heard it
  for (const data of ['1', '2', '3']) await publish(one, 'x/1', data)
  await publish(two, 'x/1', 'two')
  await publish(one, 'y', 'last')
  await publish(two, 'y', 'last')
  t.strictSame(await toldUntil(readers[0]!, 'last'), ['1', '2', '3', 'last'])
  t.strictSame(await toldUntil(readers[1]!, 'last'), ['two', 'last'])
  t.strictSame(
    [...((await redis.command('PUBSUB', 'CHANNELS')) as string[])].filter(name => /@3:/.test(name)).length >
      0,
    true
  )
  const foreign = peers[1]!.messages.all.filter(({ op }) => op === 'joined' || op === 'signal')
  t.strictSame(foreign, [])
  // what is told to all instances of one hub alone
  await redis.command('PUBLISH', 'ringside:{0}:lost', '9999999999999-0')
  await readers[0]!.first('gap')
  await publish(two, 'y', 'after')
  t.strictSame(await toldUntil(readers[1]!, 'after'), ['two', 'last', 'after'])
})

t.test('a password', async t => {
  const redis = await redisFor(t, { password: 'p@ss:w/rd?#%' })
  await works(t, await instance(t, redis.url))
  const refused = await build(t, { REDIS_URL: redis.url.replace('p%40ss', 'wrong') })
  await unready(refused)
  t.equal((await post(refused, '/events/x', '1')).status, 503)
})

t.test('a user who may do no more than is needed', async t => {
  t.test('on one Redis', async t => {
    const redis = await redisFor(t, { acl: [userRule(...COMMANDS.connections, ...COMMANDS.scripts)] })
    const server = await instance(t, redis.url.replace('//', '//app:secret@'))
    await works(t, server)
    const { log, roster } = server.app.ringside.broker
    const event = { topic: 'd/1', type: 'message', data: '{}' }
    const [set] = await log.append([{ ...event, state: { value: '{}', version: null } }])
    const state = await log.state('d/1')
    t.match(set, { outcome: 'stored' })
    t.strictSame(await log.topics('d/*'), ['d/1'])
    t.match(await log.append([{ ...event, state: { value: null, version: state!.version } }]), [
      { outcome: 'stored' }
    ])
    log.unsubscribe('w/1')
    // an instance that is gone, with a member
    await redis.command('SADD', 'ringside:{0}:joined:gone', 'x m/1')
    await redis.command('HSET', 'ringside:{0}:members:m/1', 'x', 'gone [null,null]')
    await redis.command('ZADD', 'ringside:{0}:instances', 1, 'gone')
    await roster.follow('m/1')
    await eventually(
      () => roster.members('m/1'),
      members => members.length === 0,
      'it to be let go'
    )
    roster.unfollow('m/1')
    // a topic of the same family that is older than any cursor may be is forgotten
    await redis.command('ZADD', 'ringside:{0}:index:d/*', 1, 'd/1')
    await publish(server, 'd/2', 'x')
    t.equal(await redis.command('HEXISTS', 'ringside:{0}:last:d/*', 'd/1'), 0)
    t.strictSame(await redis.command('ACL', 'LOG'), [], 'nothing was refused')
    const used = Object.keys(await redis.info('commandstats')).map(name => name.replace('cmdstat_', ''))
    const granted = [...COMMANDS.connections, ...COMMANDS.scripts]
    t.strictSame(
      granted.filter(name => !used.includes(name)),
      [],
      'nothing is granted that is not used'
    )
  })

  t.test('with WAIT_REPLICAS', async t => {
    const acl = [userRule(...COMMANDS.connections, ...COMMANDS.scripts, ...COMMANDS.withReplicas)]
    const redis = await redisFor(t, { acl })
    await redisFor(t, { config: { replicaof: `127.0.0.1 ${redis.port}` } })
    await redis.command('WAIT', 1, 10_000)
    await works(t, await instance(t, redis.url.replace('//', '//app:secret@'), { WAIT_REPLICAS: '1' }))
    t.strictSame(await redis.command('ACL', 'LOG'), [], 'nothing was refused')
  })

  t.test('on a Cluster', async t => {
    const acl = [userRule(...COMMANDS.connections, ...COMMANDS.scripts, ...COMMANDS.cluster)]
    const cluster = await startCluster({ acl })
    t.teardown(() => cluster.stop())
    await works(t, await instance(t, cluster.url.replace('//', '//app:secret@'), { SHARDS: '3' }))
    for (const node of cluster.nodes)
      t.strictSame(await node.command('ACL', 'LOG'), [], 'nothing was refused')
  })
})

t.test('a Unix socket', async t => {
  const redis = await redisFor(t, { socket: true, config: { databases: '4' } })
  await works(t, await instance(t, redis.url))
  await works(t, await instance(t, `${redis.url}?db=2`))
  t.match(await redis.info('keyspace'), { db0: String, db2: String })
})

t.test('a Unix socket with a password', async t => {
  const redis = await redisFor(t, { socket: true, password: 'secret' })
  await works(t, await instance(t, redis.url))
})

t.test('TLS', async t => {
  const redis = await redisFor(t, { tls: true, password: 'secret' })
  const trusting = await serve(t, { REDIS_URL: redis.url, NODE_EXTRA_CA_CERTS: redis.ca })
  await ready(trusting)
  await works(t, trusting)
  const doubting = await serve(t, { REDIS_URL: redis.url })
  await unready(doubting)
  t.equal((await post(doubting, '/events/x', '1')).status, 503, 'a certificate that nobody vouches for')
})

/** Uses everything that needs the broker: live, replayed, rewound, wildcards, keys, members and signals. */
async function works(t: Test, server: Address): Promise<void> {
  const reader = await listen(t, server, '/events?topic=w/1&topic=v/*')
  await publish(server, 'w/1', '1')
  for (const again of [undefined, 'true']) {
    const answer = await post(server, '/events/v/1', '2', { 'idempotency-key': 'once' })
    t.equal(answer.headers['idempotent-replayed'], again)
  }
  t.strictSame(await toldUntil(reader, '2'), ['1', '2'])
  const rewound = await listen(t, server, '/events?topic=w/1&topic=v/*&rewind=5')
  t.strictSame(await toldUntil(rewound, '2'), ['1', '2'])
  for (const data of ['3', '4']) await publish(server, 'u/1', data)
  const last = await listen(t, server, '/events?topic=u/*&rewind=1')
  t.strictSame(await toldUntil(last, '4'), ['4'])
  const replayed = await listen(t, server, `/events?topic=w/*&topic=v/1&after=${reader.cursor}`)
  t.strictSame(await toldUntil(replayed, '2'), ['1', '2'])
  t.notOk(told(replayed).some(each => each.startsWith('<')))
  const peers = [await connect(t, server), await connect(t, server)]
  for (const peer of peers) await peer.do('subscribe', { topics: ['w/*'] })
  for (const peer of peers) await peer.do('join', { topic: 'w/1' })
  await peers[0]!.do('signal', { topic: 'w/1', data: 1 })
  await peers[1]!.first('signal')
  await peers[0]!.do('leave', { topic: 'w/1' })
  await peers[1]!.first('left')
}
