/** Keys that change under Ringside's feet: evicted, or a clock that was set back. */
import t from 'tap'
import { publish } from '../support/app.ts'
import { listen, subscribe } from '../support/reader.ts'
import { instance, instances, redisFor, toldUntil } from '../support/redis-system.ts'

t.test('a clock that was ahead and steps back: ids go on growing, in order', async t => {
  const redis = await redisFor(t)
  const servers = await instances(t, redis.url, 2)
  const readers = await Promise.all(servers.map(server => listen(t, server, '/events/x')))
  await publish(servers[0]!, 'x', '0')
  const ahead = Date.now() + 3_600_000
  await redis.command('HSET', 'ringside:{0}:clock', 'ms', ahead)
  const ids: string[] = []
  for (let index = 1; index <= 20; index++) ids.push(await publish(servers[index % 2]!, 'x', String(index)))
  t.strictSame(
    ids.map(id => id.split('-')[0]),
    Array.from({ length: 20 }, () => String(ahead))
  )
  t.strictSame(
    [...ids].sort((a, b) => Number(a.split('-')[1]) - Number(b.split('-')[1])),
    ids
  )
  const expected = Array.from({ length: 21 }, (_, index) => String(index))
  for (const reader of readers) t.strictSame(await toldUntil(reader, '20'), expected)
  const late = await listen(t, await instance(t, redis.url), `/events?topic=x&after=${readers[0]!.cursor}`)
  t.strictSame(await toldUntil(late, '20'), expected)
})

t.test('a ring that Redis has evicted is missed: `expired`, and never silently', async t => {
  const redis = await redisFor(t)
  const server = await instance(t, redis.url)
  const { cursor } = await listen(t, server, '/events/x')
  for (const topic of ['x', 'y/1', 'y/2']) await publish(server, topic, 'evicted')
  await redis.command('DEL', 'ringside:{0}:ring:x', 'ringside:{0}:ring:y/1')
  const cold = await instance(t, redis.url)
  for (const [query, kept] of [
    ['topic=x', []],
    ['topic=y/*', ['evicted']],
    ['topic=y/1&topic=x', []]
  ] as const) {
    const reader = await listen(t, cold, `/events?${query}&after=${cursor}`)
    await publish(server, 'x', 'next')
    await publish(server, 'y/1', 'next')
    t.strictSame((await toldUntil(reader, 'next')).slice(0, kept.length + 2), ['<expired>', ...kept, 'next'])
    await redis.command('DEL', 'ringside:{0}:ring:x', 'ringside:{0}:ring:y/1')
  }
})

t.test('a clock that Redis has evicted is a new life: `unknown` for older cursors, live goes on', async t => {
  const redis = await redisFor(t)
  const servers = await instances(t, redis.url, 2)
  const readers = await Promise.all(servers.map(server => listen(t, server, '/events/x')))
  await publish(servers[0]!, 'x', '1')
  for (const reader of readers) await toldUntil(reader, '1')
  await redis.command('DEL', 'ringside:{0}:clock')
  await publish(servers[1]!, 'x', '2')
  for (const reader of readers)
    t.strictSame(
      (await toldUntil(reader, '2')).filter(each => each !== '<unknown>'),
      ['1', '2']
    )
  const cold = await instance(t, redis.url)
  const late = await subscribe(t, cold, `/events?topic=x&after=${readers[0]!.cursor}`)
  await publish(servers[0]!, 'x', '3')
  t.strictSame(await toldUntil(late, '3'), ['<unknown>', '3'])
})
