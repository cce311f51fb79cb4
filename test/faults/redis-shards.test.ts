/** Topics spread over several shards: one id is a full position, and each shard may fail for itself. */
import t, { type Test } from 'tap'
import { post, publish, publishAll, type TestServer } from '../support/app.ts'
import { listen, type Reader } from '../support/reader.ts'
import { startRedisProxy } from '../support/redis-proxy.ts'
import {
  instance,
  instances,
  isOpen,
  ready,
  redisFor,
  resume,
  Stream,
  told,
  toldUntil
} from '../support/redis-system.ts'

const SHARDS = '4'
const TOPICS = Array.from({ length: 16 }, (_, index) => `t/${index}`)
const PATHS = [`/events?topic=${TOPICS.join('&topic=')}`, '/events/t/*', '/events?topic=t/3&topic=t/*']

t.test('the topics do lie in different shards', async t => {
  const redis = await redisFor(t)
  const { broker } = (await instance(t, redis.url, { SHARDS })).app.ringside
  t.strictSame(new Set(TOPICS.map(topic => broker.log.shardOf(topic))), new Set([0, 1, 2, 3]))
})

t.test('an id is a cursor that needs no CORS preflight', async t => {
  const redis = await redisFor(t)
  const [a, b] = (await instances(t, redis.url, 2, { SHARDS: '8' })) as [TestServer, TestServer]
  const reader = await listen(t, a, PATHS[0]!)
  const ids = await publishAll(
    b,
    Array.from({ length: 1000 }, (_, index) => ({ topic: TOPICS[index % 16]!, data: index }))
  )
  await reader.until(1000)
  const all = [...ids, ...reader.frames.all.flatMap(({ id }) => id ?? [])]
  t.ok(all.length > 2000)
  t.strictSame(
    all.filter(id => !/^[A-Za-z0-9._~-]{1,128}$/.test(id)),
    []
  )
})

t.test('a key that is used again is answered as it was first, to the letter', async t => {
  const redis = await redisFor(t)
  const [a, b] = (await instances(t, redis.url, 2, { SHARDS: '3' })) as [TestServer, TestServer]
  const reader = await listen(t, a, '/events/t/*')
  const batch = JSON.stringify(TOPICS.map(topic => ({ topic, data: topic })))
  const headers = { 'content-type': 'application/json', 'idempotency-key': 'again' }
  const ask = async (server: TestServer) => [
    await post(server, '/events/t/3', '"one"', headers),
    await post(server, '/events', batch, headers)
  ]
  const first = await ask(a)
  await publishAll(
    b,
    TOPICS.map(topic => ({ topic, data: 'since' }))
  )
  await reader.until(2 * TOPICS.length + 1)
  for (const server of [a, b]) {
    const again = await ask(server)
    t.strictSame(
      again.map(({ status, text }) => [status, text]),
      first.map(({ text }) => [201, text])
    )
    for (const answer of again) t.equal(answer.headers['idempotent-replayed'], 'true')
  }
})

t.test('from any event of one instance a client goes on at the other', async t => {
  const redis = await redisFor(t)
  const [a, b] = (await instances(t, redis.url, 2, { SHARDS })) as [TestServer, TestServer]
  const readers = await Promise.all(PATHS.map(path => listen(t, a, path)))
  const stream = new Stream([a, b], TOPICS)
  await stream.more(60)
  await stream.stop()
  for (const reader of readers) await expectAll(t, reader, stream)
  for (const [index, reader] of readers.entries()) {
    const got = await reader.until(stream.stored.length)
    for (const at of [0, 1, Math.floor(got.length / 2), got.length - 2]) {
      const rest = await listen(t, b, PATHS[index]!, {
        accept: 'text/event-stream',
        'last-event-id': got[at]!.id!
      })
      const missing = got.slice(at + 1).map(({ data }) => data!)
      await rest.until(missing.length)
      t.strictSame(new Set(told(rest)), new Set(missing), 'what came after it, and nothing else')
      t.equal(told(rest).length, missing.length)
      perTopicInOrder(t, rest, stream)
    }
  }
})

t.test('the id that a publisher gets is a cursor too', async t => {
  const redis = await redisFor(t)
  const [a, b] = (await instances(t, redis.url, 2, { SHARDS })) as [TestServer, TestServer]
  const witness = await listen(t, b, '/events/t/*')
  for (const topic of TOPICS) {
    const id = await publish(a, topic, `first ${topic}`)
    await publish(b, topic, `second ${topic}`)
    const reader = await listen(t, b, `/events?topic=${topic}&after=${id}`)
    t.strictSame(await toldUntil(reader, `second ${topic}`), [`second ${topic}`])
  }
  await toldUntil(witness, 'second t/15')
  t.equal(told(witness).length, 32)
})

t.test('connections killed again and again', async t => {
  const redis = await redisFor(t)
  const servers = await instances(t, redis.url, 2, { SHARDS })
  const readers = await Promise.all(servers.flatMap(server => PATHS.map(path => listen(t, server, path))))
  const stream = new Stream(servers, TOPICS)
  for (const type of ['pubsub', 'normal', 'pubsub', 'pubsub']) {
    await stream.more(30)
    await redis.command('CLIENT', 'KILL', 'TYPE', type)
    await stream.more(30)
    await Promise.all(servers.map(ready))
  }
  await stream.more(30)
  await stream.stop()
  for (const reader of readers) await expectAll(t, reader, stream)
})

t.test('an instance that is behind in every shard', async t => {
  const redis = await redisFor(t)
  const proxy = await startRedisProxy(t, redis.port)
  const a = await instance(t, redis.url, { SHARDS })
  const behind = await instance(t, proxy.url, { SHARDS })
  const witness = await listen(t, behind, '/events/t/*')
  const first = await listen(t, a, '/events/t/*')
  const stream = new Stream([a], TOPICS)
  await stream.more(20)
  proxy.holdAnnouncements()
  await stream.more(20)
  const { length } = told(first)
  const second = await resume(t, behind, '/events/t/*', first)
  const had = told(first).slice(0, length)
  await stream.more(20)
  proxy.releaseAnnouncements()
  await stream.stop()
  await expectAll(t, witness, stream)
  await expectAll(t, first, stream)
  const last = stream.stored.at(-1)!.data
  await toldUntil(second, last)
  const expected = stream.stored.map(({ data }) => data).filter(data => !had.includes(data))
  t.strictSame([...told(second)].sort(), expected.sort())
})

t.test('killed and restarted with its data, without it, and with an older copy', async t => {
  const redis = await redisFor(t, { persistent: true })
  const servers = await instances(t, redis.url, 2, { SHARDS })
  const readers = await Promise.all(servers.map(server => listen(t, server, '/events/t/*')))
  const stream = new Stream(servers, TOPICS)
  await stream.more(30)
  await redis.restart()
  await stream.more(30)
  await stream.stop()
  for (const reader of readers) await expectAll(t, reader, stream)

  const older = readers[0]!.messages.at(-1)!.id!
  const putBack = redis.copyData()
  for (const topic of TOPICS) await publish(servers[0]!, topic, `gone ${topic}`)
  for (const topic of TOPICS) await toldUntil(readers[0]!, `gone ${topic}`)
  await redis.kill()
  putBack()
  await redis.start()
  await Promise.all(servers.map(ready))
  for (const topic of TOPICS) await publish(servers[1]!, topic, `after ${topic}`)
  for (const server of servers) {
    const late = await listen(t, server, '/events/t/*', {
      accept: 'text/event-stream',
      'last-event-id': older
    })
    for (const topic of TOPICS) await toldUntil(late, `after ${topic}`)
    const all = told(late)
    t.ok(all.includes('<lost>'))
    t.ok(all.indexOf('<lost>') < all.findIndex(each => each.startsWith('after')), 'before any later event')
    t.equal(all.filter(each => each.startsWith('after')).length, TOPICS.length)
  }

  await redis.kill()
  redis.dropData()
  await redis.start()
  await Promise.all(servers.map(ready))
  for (const topic of TOPICS) await publish(servers[1]!, topic, `anew ${topic}`)
  for (const reader of readers) {
    for (const topic of TOPICS) await toldUntil(reader, `anew ${topic}`)
    const all = told(reader)
    t.ok(all.includes('<unknown>'))
    t.ok(all.indexOf('<unknown>') < all.findIndex(each => each.startsWith('anew')), 'before any later event')
    t.equal(all.filter(each => each.startsWith('anew')).length, TOPICS.length)
    t.ok(await isOpen(reader))
  }
})

/** All that was stored came, each once, those of one topic in the order of their publishing. */
async function expectAll(t: Test, reader: Reader, stream: Stream): Promise<void> {
  for (const { data } of stream.stored.slice(-TOPICS.length)) await toldUntil(reader, data)
  t.strictSame([...told(reader)].sort(), stream.stored.map(({ data }) => data).sort())
  perTopicInOrder(t, reader, stream)
  t.ok(await isOpen(reader))
}

function perTopicInOrder(t: Test, reader: Reader, { stored }: Stream): void {
  const topicOf = new Map(stored.map(({ topic, data }) => [data, topic]))
  const lists = TOPICS.map(topic => told(reader).filter(data => topicOf.get(data) === topic))
  for (const list of lists)
    t.strictSame(
      list,
      [...list].sort((a, b) => Number(a) - Number(b))
    )
}
