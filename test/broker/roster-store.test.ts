/** What the scripts of the roster do, on a real Redis: leases of a few milliseconds expire without anybody waiting long. */
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { RedisConnections } from '../../src/broker/redis/connections.ts'
import { ShardKeys } from '../../src/broker/redis/keys.ts'
import { readRedisUrl } from '../../src/broker/redis/url.ts'
import { RedisRosterStore } from '../../src/broker/redis/roster-store.ts'
import type { Renewal } from '../../src/broker/redis/roster-store.ts'
import { readChange, readSignal } from '../../src/broker/redis/wire.ts'
import { BrokerUnavailable } from '../../src/broker/unavailable.ts'
import { comparePositions, parsePosition } from '../../src/event.ts'
import { eventually, Inbox } from '../support/inbox.ts'
import { startRedis } from '../support/redis-server.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())

const ALIVE: Renewal = { leaseMs: 60_000, removals: 100, rejoinMs: 0 }
/** The lease of an instance that dies at once. */
const DYING: Renewal = { leaseMs: 1, removals: 0, rejoinMs: 0 }

let stages = 0

/** A store that has a life, the instances on it, and all that is announced of the topic `s/1`. */
async function stage(t: Test) {
  const keyNames = new ShardKeys(`${++stages}:`, '0')
  const { prefix } = keyNames
  const births: string[] = []
  const begin = async () => {
    await redis.command('HSET', `${prefix}clock`, 'ms', 5, 'seq', 7, 'birth', '5-0')
  }
  await begin()
  const report = (_stage: string, error: Error) => t.comment(error.message)
  const connections = new RedisConnections(readRedisUrl(redis.url), 0, report, report)
  t.teardown(() => connections.close())
  await eventually(
    () => connections.commands.ping().catch(() => null),
    answer => answer !== null,
    'a connection'
  )
  const instance = (name: string, reborn = begin) =>
    new RedisRosterStore({
      ...{ keys: keyNames, commands: connections.commands, instance: name, reborn },
      publishCommand: () => 'PUBLISH',
      onBirth: birth => births.push(birth)
    })
  const announced = new Inbox<Buffer>()
  const subscriber = new Redis(redis.clientOptions())
  t.teardown(() => subscriber.disconnect())
  await subscriber.connect()
  await subscriber.subscribe(`${prefix}m:s/1`)
  subscriber.on('messageBuffer', (_, message: Buffer) => announced.push(message))
  const keys = async () =>
    ((await redis.command('KEYS', `${prefix}*`)) as string[]).map(key => key.slice(prefix.length)).sort()
  return { prefix, births, connections, instance, announced, keys }
}

const update = (id: string, text: string | null = '[null,null]', topic = 's/1') => ({ topic, id, text })

const changesIn = ({ all }: Inbox<Buffer>) =>
  all.map(message => readChange(message)!).map(({ id, text }) => `${text === null ? '-' : '+'}${id}`)

t.test('members are stored and read with the id up to which that is so', async t => {
  const { announced, births, instance } = await stage(t)
  const [a, b] = [instance('a'), instance('b')]
  const { at } = await a.update([update('x', '["ü",null]'), update('y', '1', 's/ü 2')], ALIVE)
  await b.update([update('z'), update('x2'), update('x2', null)], ALIVE)
  const { at: readAt, topics } = await b.members(['s/1', 's/ü 2', 's/none'])
  t.strictSame(
    [...topics].map(([topic, members]) => [topic, Object.fromEntries(members)]),
    [
      ['s/1', { x: '["ü",null]', z: '[null,null]' }],
      ['s/ü 2', { y: '1' }],
      ['s/none', {}]
    ]
  )
  await announced.until(() => announced.all.length === 4, 'four changes')
  t.strictSame(changesIn(announced), ['+x', '+z', '+x2', '-x2'])
  const ids = announced.all.map(message => readChange(message)!.at)
  for (const [index, id] of ids.entries())
    t.ok(comparePositions(index === 0 ? parsePosition('5-7')! : ids[index - 1]!, id) < 0, 'ids grow')
  t.ok(comparePositions(ids[0]!, at) <= 0 && comparePositions(at, ids[1]!) < 0, 'an answer lies between')
  t.strictSame(readAt, ids.at(-1))
  t.strictSame((await b.topics('s/*')).sort(), ['s/1', 's/ü 2'])
  t.strictSame(
    (await a.own()).sort((one, other) => (one.id < other.id ? -1 : 1)),
    [
      { topic: 's/1', id: 'x' },
      { topic: 's/ü 2', id: 'y' }
    ]
  )
  t.strictSame(await b.own(), [{ topic: 's/1', id: 'z' }])
  t.strictSame(new Set(births), new Set(['5-0']))
})

t.test('what is so already is not announced', async t => {
  const { announced, instance } = await stage(t)
  const a = instance('a')
  for (const text of ['1', '1', '2', null, null]) await a.update([update('x', text)], ALIVE)
  await a.update([update('last')], ALIVE)
  await announced.until(() => changesIn(announced).includes('+last'), 'the last')
  t.strictSame(changesIn(announced), ['+x', '+x', '-x', '+last'])
})

t.test('members of dead instances are removed, so many a call, and then nothing is left of them', async t => {
  const { prefix, announced, instance, keys } = await stage(t)
  const [a, b] = [instance('a'), instance('b')]
  const ids = Array.from({ length: 5 }, (_, index) => `m${index}`)
  await a.update([...ids.map(id => update(id)), update('elsewhere', '1', 'other')], DYING)
  await b.update([update('y')], { leaseMs: 60_000, removals: 0, rejoinMs: 0 })
  await eventually(
    async () => (await a.update([], { leaseMs: 0, removals: 0, rejoinMs: 0 })).wasAlive,
    wasAlive => !wasAlive,
    'the lease to expire'
  )
  t.equal((await b.members(['s/1'])).topics.get('s/1')!.size, 6, 'nobody was to be removed')
  const more: boolean[] = []
  for (let call = 0; call < 4; call++)
    more.push((await b.update([], { leaseMs: 60_000, removals: 2, rejoinMs: 0 })).hasMore)
  t.strictSame(more, [true, true, true, false], 'six, two at a time: after a full call there may be more')
  t.strictSame([...(await b.members(['s/1'])).topics.get('s/1')!.keys()], ['y'])
  t.strictSame(await keys(), ['clock', 'instances', 'joined:b', 'members:s/1', 'present:s/*'])
  t.strictSame(await redis.command('ZRANGE', `${prefix}instances`, 0, -1), ['b'], 'the dead one is forgotten')
  await announced.until(() => announced.all.length === 11, 'all changes')
  t.strictSame(
    changesIn(announced).slice(6).sort(),
    ids.map(id => `-${id}`),
    'each once'
  )
})

t.test('after the store was away nobody is removed until all may be back', async t => {
  const { prefix, connections, instance } = await stage(t)
  const [a, b] = [instance('a'), instance('b')]
  const clock = `${prefix}clock`
  const setClock = (ms: number) => redis.command('HSET', clock, 'ms', ms)
  const ids = async () => [...(await b.members(['s/1'])).topics.get('s/1')!.keys()]
  const renew = () => b.update([], { leaseMs: 60_000, removals: 100, rejoinMs: 60_000 })
  await a.update([update('x')], DYING)
  await eventually(
    async () => (await a.update([], { leaseMs: 0, removals: 0, rejoinMs: 0 })).wasAlive,
    wasAlive => !wasAlive,
    'the lease to expire'
  )
  for (const first of ['renewal', 'tick']) {
    // no tick has moved it for a minute
    await setClock(Date.now() - 60_000)
    if (first === 'tick') await connections.tick(1, clock, 'PUBLISH', 'ticks', '1', '0', '0', '0', '0', '5-0')
    await renew()
    await setClock(Date.now())
    await renew()
    t.strictSame(await ids(), ['x'], `a ${first} came first`)
    const since = Date.now() - Number(await redis.command('HGET', clock, 'returned'))
    t.ok(since >= 0 && since < 30_000, 'it is known since when')
    await redis.command('HDEL', clock, 'returned')
  }
  await redis.command('HSET', clock, 'returned', Date.now() - 60_001)
  await renew()
  t.strictSame(await ids(), [], 'whose time is over')
})

t.test('however many instances have died, none stands in the way of the next', async t => {
  const { prefix, instance } = await stage(t)
  const survivor = instance('survivor')
  for (let round = 0; round < 3; round++) {
    for (let index = 0; index < 4; index++)
      await instance(`dead ${round} ${index}`).update([update(`m${round}-${index}`)], DYING)
    await eventually(
      async () => {
        await survivor.update([update('y')], { leaseMs: 60_000, removals: 3, rejoinMs: 0 })
        return (await survivor.members(['s/1'])).topics.get('s/1')!.size
      },
      size => size === 1,
      'all dead members to be gone'
    )
  }
  // those whose last member was removed by a full call are still there until the next
  await survivor.update([], ALIVE)
  t.strictSame(await redis.command('ZRANGE', `${prefix}instances`, 0, -1), ['survivor'])
})

t.test('an instance without members has no lease, and one whose lease has expired is told', async t => {
  const { prefix, instance } = await stage(t)
  const [a, b] = [instance('a'), instance('b')]
  t.strictSame((await a.update([], { leaseMs: 0, removals: 1, rejoinMs: 0 })).wasAlive, false)
  t.equal(await redis.command('EXISTS', `${prefix}instances`), 0)
  t.strictSame((await a.update([update('x')], ALIVE)).wasAlive, false)
  t.strictSame((await a.update([], ALIVE)).wasAlive, true)
  await b.update([update('y')], DYING)
  await eventually(
    async () => (await b.update([], DYING)).wasAlive,
    wasAlive => !wasAlive,
    'the lease to expire'
  )
  t.strictSame(
    (await a.update([], { leaseMs: 60_000, removals: 0, rejoinMs: 0 })).wasAlive,
    true,
    'each has its own'
  )
})

t.test('every key goes away when nobody writes to it', async t => {
  const { prefix, instance, keys } = await stage(t)
  await instance('a').update([update('x')], ALIVE)
  for (const key of await keys()) {
    const left = (await redis.command('PTTL', prefix + key)) as number
    if (key !== 'clock') t.ok(left > 3_000_000 && left <= 3_600_000, `${key}: ${left}`)
  }
})

t.test('a store that was emptied is asked again once it has a new life, and is told as it is', async t => {
  const { prefix, births, instance } = await stage(t)
  const a = instance('a')
  await a.update([update('x')], ALIVE)
  const empty = async () => void (await redis.command('DEL', `${prefix}clock`, `${prefix}members:s/1`))
  await empty()
  const reborn = async () => {
    await redis.command('HSET', `${prefix}clock`, 'ms', 9, 'seq', 0, 'birth', '9-0')
  }
  const { topics } = await instance('b', reborn).members(['s/1'])
  t.strictSame([...topics.get('s/1')!], [])
  t.strictSame(births, ['5-0', '9-0'])
  await empty()
  await t.rejects(instance('b', () => Promise.resolve()).update([update('y')], ALIVE), {
    name: BrokerUnavailable.name,
    message: 'Redis was emptied'
  })
  t.equal(await redis.command('EXISTS', `${prefix}members:s/1`), 0, 'and nothing was stored')
})

t.test('a signal comes on its topic and on its wildcard', async t => {
  const { announced, instance } = await stage(t)
  await instance('a').signal({ topic: 's/1', sender: 'x', from: 'ü', data: Buffer.from([0, 255]) })
  const { data, ...rest } = readSignal(await announced.next())
  t.strictSame(rest, { topic: 's/1', sender: 'x', from: 'ü' })
  t.strictSame([...Buffer.from(data)], [0, 255])
})

t.test('without Redis every call says that the broker is unavailable', async t => {
  const { connections, instance } = await stage(t)
  const a = instance('a')
  connections.close()
  const calls: (() => Promise<unknown>)[] = [
    () => a.update([], ALIVE),
    () => a.members(['s/1']),
    () => a.topics('s/*'),
    () => a.own(),
    () => a.signal({ topic: 's/1', sender: 'x', from: 'x', data: '' })
  ]
  for (const call of calls) await t.rejects(async () => void (await call()), BrokerUnavailable)
})
