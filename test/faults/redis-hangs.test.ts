/** Redis, or the way to it, hangs: connections stay open and nothing comes. */
import t from 'tap'
import { isProblem, post, publish } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { listen } from '../support/reader.ts'
import { startRedisProxy } from '../support/redis-proxy.ts'
import {
  instance,
  instances,
  isOpen,
  ready,
  redisFor,
  told,
  toldUntil,
  unready
} from '../support/redis-system.ts'

t.test('frozen for longer than its time-out, and thawed', async t => {
  const redis = await redisFor(t)
  const servers = await instances(t, redis.url, 2)
  const [server] = servers
  const readers = await Promise.all(servers.map(each => listen(t, each, '/events?topic=x&topic=y/*')))
  await publish(server!, 'x', '1')
  for (const reader of readers) await toldUntil(reader, '1')

  redis.freeze()
  // some go out at once, some once the broker counts as down
  const paths = ['/events/x', '/events/y/1', '/events/y/2']
  const refused = paths.map(path => post(server!, path, 'refused'))
  t.ok(Math.max(...(await Promise.all(servers.map(unready)))) < 5000, 'they say so within 5 s')
  refused.push(...paths.map(path => post(server!, path, 'refused')))
  for (const answer of await Promise.all(refused)) {
    isProblem(t, answer, 503, /./)
    t.ok(Number(answer.headers['retry-after']) >= 1)
  }

  redis.thaw()
  t.ok(Math.max(...(await Promise.all(servers.map(ready)))) < 5000, 'they are back within 5 s')
  await publish(server!, 'y/1', '2')
  await publish(servers[1]!, 'x', '3')
  for (const reader of readers) {
    t.strictSame(await toldUntil(reader, '3'), ['1', '2', '3'])
    t.ok(await isOpen(reader))
  }
  t.strictSame(
    await Promise.all(['x', 'y/1', 'y/2'].map(topic => redis.command('XLEN', `ringside:{0}:ring:${topic}`))),
    [2, 1, 0]
  )
})

t.test('thawed just when a publish gives up: what was answered 503 is not stored', async t => {
  const redis = await redisFor(t)
  const server = await instance(t, redis.url)
  redis.freeze()
  const started = performance.now()
  const sent: Promise<{ topic: string; status: number }>[] = []
  for (let index = 0; index < 100; index++) {
    const topic = `x/${index}`
    sent.push(post(server, `/events/${topic}`, '1').then(({ status }) => ({ topic, status })))
    await new Promise(resolve => setTimeout(resolve, 15))
  }
  // the first of them has waited for all the time that a command may take
  await sent[0]!
  t.comment(`thawed after ${Math.round(performance.now() - started)} ms`)
  redis.thaw()
  // what comes in now waits, and the time of those that wait for it runs out
  const busy = performance.now() + 60
  while (performance.now() < busy);
  const answers = await Promise.all(sent)
  await ready(server)
  t.ok(answers.some(({ status }) => status === 201) && answers.some(({ status }) => status === 503))
  const stored = await Promise.all(
    answers.map(({ topic }) => redis.command('XLEN', `ringside:{0}:ring:${topic}`))
  )
  t.strictSame(
    stored,
    answers.map(({ status }) => (status === 201 ? 1 : 0))
  )
})

for (const [what, heals] of Object.entries({ 'at once': true, 'after a while': false })) {
  t.test(`a network that loses everything without a word, and heals for new connections ${what}`, async t => {
    const redis = await redisFor(t)
    const proxy = await startRedisProxy(t, redis.port)
    const server = await instance(t, proxy.url)
    const other = await instance(t, redis.url)
    const reader = await listen(t, server, '/events/x')
    await publish(server, 'x', '1')
    proxy.blackHole()
    if (heals) proxy.heal()
    await publish(other, 'x', '2')
    t.ok((await unready(server)) < 5000, 'it says so within 5 s')
    const opened = proxy.opened()
    if (!heals) await eventually(proxy.opened, count => count > opened, 'another try, which is lost too')
    proxy.heal()
    t.ok((await ready(server)) < 5000, 'it is back within 5 s')
    await publish(server, 'x', '3')
    t.strictSame(await toldUntil(reader, '3'), ['1', '2', '3'])
    t.ok(await isOpen(reader))
  })
}

t.test('only the announcements hang', async t => {
  const redis = await redisFor(t)
  const proxy = await startRedisProxy(t, redis.port)
  const server = await instance(t, proxy.url)
  const reader = await listen(t, server, '/events/x')
  proxy.holdAnnouncements()
  const id = await publish(server, 'x', '1')
  t.ok(id, 'what is published meanwhile is stored')
  await unready(server)
  t.strictSame(told(reader), [])
  proxy.releaseAnnouncements()
  await ready(server)
  t.strictSame(await toldUntil(reader, '1'), ['1'])
  t.ok(await isOpen(reader))
})
