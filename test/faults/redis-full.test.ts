/** A Redis without room (`noeviction`), filled by somebody else: only what needs room is refused. */
import t from 'tap'
import { ask, isProblem, metricsOf, post, publish, type TestServer } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { as, changes, join } from '../support/presence.ts'
import { listen } from '../support/reader.ts'
import type { RedisServer } from '../support/redis-server.ts'
import {
  cursorOf,
  instances,
  isOpen,
  publishSurely,
  redisFor,
  told,
  toldUntil
} from '../support/redis-system.ts'

t.setTimeout(60_000)

t.test('a full Redis serves readers, and keeps who is present', async t => {
  const redis = await redisFor(t, { maxmemory: '10mb' })
  const [a, b] = (await instances(t, redis.url, 2)) as [TestServer, TestServer]
  const first = await publish(a, 'x/1', '1')
  const reader = await listen(t, b, '/events/x/1?heartbeat=1')
  const [alice, bob] = [await as(t, a, 'alice'), await as(t, b, 'bob')]
  await join(alice, 'room')
  await join(bob, 'room')
  await post(a, '/events/x/1', '2', { 'idempotency-key': 'second' })
  await toldUntil(reader, '2')

  await fill(redis)
  for (const server of [a, b]) {
    const answer = await post(server, '/events/x/1', 'refused')
    const problem = isProblem(t, answer, 503, /./)
    t.match(problem['detail'], 'Redis is full')
    t.ok(Number(answer.headers['retry-after']) >= 1)
  }
  const replayed = await post(a, '/events/x/1', '2', { 'idempotency-key': 'second' })
  t.equal(replayed.status, 201, 'what was stored before needs no room')
  t.equal((await post(a, '/tickers', '{"symbol":"A","price":1}', JSON_TYPE)).status, 503)
  t.match(await (await as(t, a, 'carol')).ask('join', { topic: 'room' }), { code: 'unavailable' })

  await t.test('ticks go on: cursors move, and nobody is told `stale`', async t => {
    const before = cursorOf(reader)
    await reader.frames.until(() => cursorOf(reader) > before, 'a later cursor')
    for (const server of [a, b]) t.equal((await ask(server, '/readyz')).status, 200)
    t.notOk(reader.frames.all.some(({ event }) => event === 'stale'))
  })

  await t.test('reads are answered', async t => {
    for (const query of [`topic=x/1&after=${first}`, `topic=x/*&after=${first}`, 'topic=x/*&rewind=1']) {
      const answer = await ask(b, `/events?${query}`, { headers: { accept: 'application/json' } })
      t.strictSame(
        (answer.json()['events'] as { data: unknown }[]).map(({ data }) => data),
        [2],
        query
      )
    }
    t.equal((await ask(b, '/tickers?symbols=*', { headers: { accept: 'application/json' } })).status, 200)
  })

  await t.test('leases are renewed, and members may leave', async t => {
    const scores = async () => {
      const leases = (await redis.command('ZRANGE', INSTANCES, 0, -1, 'WITHSCORES')) as string[]
      return leases.flat().map(Number).filter(Number.isFinite)
    }
    const before = Math.max(...(await scores()))
    await eventually(
      scores,
      now => now.length === 2 && now.every(score => score > before),
      'both leases to be renewed'
    )
    t.strictSame(changes(alice), ['+bob'])
    await bob.do('leave', { topic: 'room' })
    await alice.messages.until(() => changes(alice).includes('-bob'), '-bob')
  })

  const metrics = await metricsOf(a)
  t.ok(metrics.get('ringside_broker_refusals_total{op="append",kind="full"}')! >= 2)
  t.notOk(metrics.get('ringside_broker_refusals_total{op="tick",kind="full"}'))
  t.notOk(metrics.get('ringside_broker_refusals_total{op="read",kind="full"}'))

  await redis.command('DEL', 'filling')
  await publishSurely(a, 'x/1', '3', 'third')
  t.strictSame(await toldUntil(reader, '3'), ['1', '2', '3'].slice(-told(reader).length))
  t.ok(await isOpen(reader))
  await eventually(
    () => join(bob, 'room').catch((): string[] => []),
    members => members.includes('alice'),
    'bob to be back'
  )
})

const JSON_TYPE = { 'content-type': 'application/json' }
const INSTANCES = 'ringside:{0}:instances'

/** Stores until nothing more is taken, and leaves no room that buffers could give back. */
async function fill(redis: RedisServer): Promise<void> {
  for (;;) {
    try {
      await redis.command('RPUSH', 'filling', 'x'.repeat(100_000))
    } catch (error) {
      if (!(error as Error).message.startsWith('OOM')) throw error
      await redis.command('CONFIG', 'SET', 'maxmemory', '9mb')
      return
    }
  }
}
