/** Redis is killed, and comes back with all of its data, with none, or with what it had a while ago. */
import t, { type Test } from 'tap'
import { ask, build, isProblem, metricsOf, post, publish, type TestServer } from '../support/app.ts'
import { npmClient } from '../support/clients.ts'
import { eventually } from '../support/inbox.ts'
import { listen, subscribe, type Reader } from '../support/reader.ts'
import type { RedisServer } from '../support/redis-server.ts'
import {
  cursorOf,
  instance,
  instances,
  isOpen,
  ready,
  redisFor,
  resume,
  Stream,
  toldUntil,
  unready
} from '../support/redis-system.ts'

t.test('killed again and again with all data on disk: streams go on exactly, over any instance', async t => {
  const redis = await redisFor(t, { persistent: true })
  const servers = await instances(t, redis.url, 2)
  const readers = await Promise.all(servers.map(server => listen(t, server, '/events?topic=a&topic=b/*')))
  const browser = npmClient(t, `${servers[0]!.url}/events?topic=a&topic=b/*`)
  await browser.received.until(() => browser.received.all.length > 0, 'its cursor')
  const { hub } = servers[0]!.app.ringside
  const say = hub.onBroker
  const said: boolean[] = []
  hub.onBroker = isUp => {
    said.push(isUp)
    say(isUp)
  }
  const stream = new Stream(servers, ['a', 'b/1', 'b/2'])
  for (let round = 0; round < 3; round++) {
    await stream.more(10)
    await redis.kill()
    await redis.restart()
    await Promise.all(servers.map(ready))
  }
  await stream.more(10)
  await stream.stop()
  t.ok(stream.refused > 0, 'some publishes were answered 503')

  const expected = stream.stored.map(({ data }) => data)
  const last = expected.at(-1)!
  for (const reader of readers) {
    t.strictSame(await toldUntil(reader, last), expected)
    t.ok(await isOpen(reader))
  }
  const crossed = await listen(t, servers[1]!, `/events?topic=a&topic=b/*&after=${readers[0]!.cursor}`)
  t.strictSame(await toldUntil(crossed, last), expected, 'read from the start over the other instance')
  const heard = () => browser.received.all.filter(({ type }) => type === 'message').map(({ data }) => data)
  await browser.received.until(() => heard().includes(last), last)
  t.strictSame(heard(), expected)
  t.equal(browser.errors(), 0, 'no EventSource was sent away')
  t.ok((await metricsOf(servers[0]!)).get('ringside_broker_recoveries_total')! >= 3)
  t.ok(
    said.length >= 6 && said.every((isUp, index) => isUp === (index % 2 === 1)),
    'the log is told of each, once'
  )
})

t.test('back without any data: `unknown`, then live', async t => {
  const { redis, servers, readers } = await begin(t)
  await redis.restart()
  await Promise.all(servers.map(ready))
  await publish(servers[0]!, 'x', 'after')
  for (const reader of readers) {
    t.strictSame(await toldUntil(reader, 'after'), ['before', '<unknown>', 'after'])
    t.ok(await isOpen(reader))
  }
  const late = await listenFrom(t, servers[1]!, cursorBefore(readers[0]!))
  t.match(await late.next(), { event: 'gap', data: /"unknown"/ })
  t.match(await late.next(), { event: 'cursor' })
  await publish(servers[0]!, 'x', 'later')
  t.strictSame(await toldUntil(late, 'later'), ['<unknown>', 'later'], 'what follows the gap is live')
})

t.test(
  'emptied while it runs: nobody who is live misses anything, and older cursors are `unknown`',
  async t => {
    const { redis, servers, readers } = await begin(t)
    await redis.flush()
    await publish(servers[0]!, 'x', 'after')
    for (const reader of readers) {
      const all = await toldUntil(reader, 'after')
      t.strictSame(
        all.filter(each => each !== '<unknown>'),
        ['before', 'after']
      )
    }
    const cold = await instance(t, redis.url)
    const late = await listenFrom(t, cold, cursorBefore(readers[0]!))
    t.match(await late.next(), { event: 'gap', data: /"unknown"/ })
  }
)

t.test('back with an older copy of its data: `lost` for whoever has not got what is gone', async t => {
  const { redis, servers, readers } = await begin(t, { persistent: true })
  const older = cursorBefore(readers[0]!)
  const putBack = redis.copyData()
  await publish(servers[0]!, 'x', 'gone')
  for (const reader of readers) await toldUntil(reader, 'gone')
  await redis.kill()
  putBack()
  await redis.restart()
  await Promise.all(servers.map(ready))
  const id = await publish(servers[0]!, 'x', 'after')
  const hadIt = readers[0]!.messages.find(({ data }) => data === 'gone')!.id!
  t.ok(comparable(id) > comparable(hadIt), 'ids go on growing')
  for (const reader of readers) {
    const all = await toldUntil(reader, 'after')
    t.strictSame(all, ['before', 'gone', 'after'], 'who has got all of it has lost nothing')
    t.ok(await isOpen(reader))
  }
  for (const server of servers) {
    const late = await listenFrom(t, server, older)
    t.strictSame(await toldUntil(late, 'after'), ['<lost>', 'before', 'after'])
    const current = await listenFrom(t, server, hadIt)
    t.strictSame(await toldUntil(current, 'after'), ['after'], 'a cursor past what is gone has lost nothing')
  }
})

t.test('while it is away, publishers and newcomers are told so, and open streams stay', async t => {
  const redis = await redisFor(t, { persistent: true })
  const server = await instance(t, redis.url, { RETRY: '3s' })
  const reader = await listen(t, server, '/events/x')
  await publish(server, 'x', '1')
  await toldUntil(reader, '1')
  await redis.kill()
  t.ok((await unready(server)) < 5000)
  isProblem(t, await ask(server, '/readyz'), 503, /^no connection to Redis$|^Redis did not answer/)
  t.equal((await ask(server, '/livez')).status, 200)

  const refused = await post(server, '/events/x', 'refused')
  isProblem(t, refused, 503, /./)
  t.ok(Number(refused.headers['retry-after']) >= 1)
  const batch = await post(server, '/events', '[{"topic":"x","data":1}]', {
    'content-type': 'application/json'
  })
  isProblem(t, batch, 503, /./)
  t.ok(Number(batch.headers['retry-after']) >= 1)

  const retries = new Set<number>()
  for (let count = 0; count < 5; count++) {
    const newcomer = await resume(t, server, '/events/x', reader)
    t.equal(newcomer.status, 200)
    const frames = await newcomer.whole()
    t.equal(frames[0]!.id, cursorOf(reader), 'its own cursor')
    t.strictSame(
      frames.map(({ event }) => event),
      ['cursor', 'goodbye']
    )
    const { reason, retry } = JSON.parse(frames[1]!.data!) as { reason: string; retry: number }
    t.equal(reason, 'unavailable')
    t.equal(frames[1]!.retry, retry)
    t.ok(retry >= 3000)
    retries.add(retry)
  }
  t.ok(retries.size > 1, 'they do not come back all at once')
  const fresh = await subscribe(t, server, '/events/x')
  t.strictSame(
    (await fresh.whole()).map(({ event }) => event),
    ['goodbye'],
    'no cursor for whoever brought none'
  )
  for (const headers of [{ accept: '*/*' }, {}]) {
    const answer = await ask(server, '/events/x', { headers })
    isProblem(t, answer, 503, /broker/)
    t.ok(Number(answer.headers['retry-after']) >= 1)
  }

  t.ok(await isOpen(reader))
  await redis.restart()
  t.ok((await ready(server)) < 5000)
  await publish(server, 'x', '2')
  t.strictSame(await toldUntil(reader, '2'), ['1', '2'])
})

t.test('an instance that starts while Redis is away comes up when Redis does', async t => {
  const redis = await redisFor(t)
  await redis.kill()
  const server = await build(t, { REDIS_URL: redis.url })
  await unready(server)
  isProblem(t, await post(server, '/events/x', '0'), 503, /./)
  await redis.restart()
  t.ok((await ready(server)) < 5000)
  const reader = await listen(t, server, '/events/x')
  await publish(server, 'x', '1')
  t.strictSame(await toldUntil(reader, '1'), ['1'])
})

t.test('while it reads its data from disk it counts as away', async t => {
  // a delay for each key makes it as slow as a big store is
  const config = { 'key-load-delay': '20000', 'loading-process-events-interval-bytes': '1024' }
  const redis = await redisFor(t, {
    persistent: true,
    config: { ...config, appendonly: 'no', save: '3600 1' }
  })
  const server = await instance(t, redis.url)
  const reader = await listen(t, server, '/events/x')
  await publish(server, 'x', '1')
  for (let index = 0; index < 25; index++) await publish(server, `filler/${index}`, 'x'.repeat(2000))
  await toldUntil(reader, '1')
  await redis.command('SAVE')
  await redis.launchAgain()
  await eventually(
    () => redis.command('PING').catch((error: Error) => error.message),
    text => /LOADING/.test(String(text)),
    'LOADING'
  )
  isProblem(t, await post(server, '/events/x', 'refused'), 503, /./)
  await redis.ready()
  t.ok((await ready(server)) < 5000)
  await publish(server, 'x', '2')
  t.strictSame(await toldUntil(reader, '2'), ['1', '2'])
})

/** Two instances, a subscriber on each, and one event that both have got. */
async function begin(
  t: Test,
  options = {}
): Promise<{ redis: RedisServer; servers: TestServer[]; readers: Reader[] }> {
  const redis = await redisFor(t, options)
  const servers = await instances(t, redis.url, 2)
  const readers = await Promise.all(servers.map(server => listen(t, server, '/events/x')))
  await publish(servers[0]!, 'x', 'before')
  for (const reader of readers) await toldUntil(reader, 'before')
  return { redis, servers, readers }
}

/** The position that a reader started from. */
function cursorBefore({ frames }: Reader): string {
  return frames.all[0]!.id!
}

/** Subscribes with a cursor of its own; what the stream begins with is left in it. */
function listenFrom(t: Test, server: TestServer, cursor: string): Promise<Reader> {
  return subscribe(t, server, '/events/x', { accept: 'text/event-stream', 'last-event-id': cursor })
}

function comparable(id: string): number {
  const [ms, seq] = id.split('-').map(Number)
  return ms! * 1000 + seq!
}
