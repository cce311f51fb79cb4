/** Many at once: reconnects, publishers with one key, writers of one state; and what is left when all are gone. */
import { connect } from 'node:net'
import t, { type Test } from 'tap'
import type { Append } from '../../src/broker/event-log.ts'
import { formatCursor } from '../../src/event.ts'
import { metricsOf, post, publish, publishAll, type Address } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { serve } from '../support/process.ts'
import { listen } from '../support/reader.ts'
import { instance, instances, ready, redisFor, told, toldUntil } from '../support/redis-system.ts'

/** Each is a descriptor of this process, and one of the server's: `ulimit -Hn` must allow some more. */
const CLIENTS = 5000
const EVENTS = 300

t.setTimeout(400_000)

t.test(
  `${CLIENTS} clients with the same old cursor come back at once, and Redis is asked a handful of times`,
  async t => {
    const redis = await redisFor(t)
    const source = await instance(t, redis.url)
    const [before] = await publishAll(source, [{ topic: 'x', data: 'before' }])
    await publishAll(
      source,
      Array.from({ length: EVENTS }, (_, index) => ({ topic: 'x', data: index }))
    )

    // a process of its own, that knows nothing of the topic
    const cold = await serve(t, { REDIS_URL: redis.url, MAX_CONNECTIONS: '0' })
    await ready(cold)
    await redis.command('CONFIG', 'RESETSTAT')
    const started = performance.now()
    await Promise.all(Array.from({ length: CLIENTS }, () => replay(t, cold, before!)))
    t.comment(`all have everything after ${Math.round(performance.now() - started)} ms`)
    const calls = await callsOf(redis.info('commandstats'))
    t.ok(calls['xrange']! <= 20, `${calls['xrange']} reads of ${EVENTS} events for ${CLIENTS} clients`)
    t.equal((await metricsOf(cold)).get('ringside_connections{transport="sse"}'), CLIENTS)
  }
)

/** Reads a stream after a cursor, and resolves once every event has come, each once and in order. */
function replay(t: Test, address: Address, after: string): Promise<void> {
  const { port } = address
  const socket = connect({ host: '127.0.0.1', port })
  t.teardown(() => socket.destroy())
  socket.setEncoding('latin1')
  socket.write(
    `GET /events/x HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nLast-Event-ID: ${after}\r\n\r\n`
  )
  return new Promise((resolve, reject) => {
    let rest = ''
    let next = 0
    socket.on('data', (chunk: string) => {
      const text = rest + chunk
      const end = text.lastIndexOf('\n') + 1
      rest = text.slice(end)
      for (const [, data] of text.slice(0, end).matchAll(/^data: (\d+)$/gm)) {
        if (Number(data) !== next++) reject(new Error(`${data} where ${next - 1} should be`))
      }
      if (next === EVENTS) resolve()
    })
    socket.on('error', (error: NodeJS.ErrnoException) => {
      // so many wait to be taken that the system turns some away: they come back, as an EventSource does
      const turnedAway = error.code === 'ECONNRESET' && socket.bytesRead === 0
      if (turnedAway) resolve(replay(t, address, after))
      else reject(error)
    })
    socket.on('close', () => reject(new Error(`it has ended after ${next} events`)))
  })
}

t.test('one key at two instances at once stores one event', async t => {
  const redis = await redisFor(t)
  const servers = await instances(t, redis.url, 2)
  const reader = await listen(t, servers[0]!, '/events/x')
  for (let round = 0; round < 20; round++) {
    const answers = await Promise.all(
      [0, 1, 0, 1].map(index =>
        post(servers[index]!, '/events/x', String(round), { 'idempotency-key': `key-${round}` })
      )
    )
    t.strictSame(new Set(answers.map(({ status }) => status)), new Set([201]))
    t.equal(new Set(answers.map(answer => answer.json()['id'])).size, 1, 'all get the one id')
    t.equal(answers.filter(({ headers }) => headers['idempotent-replayed'] === 'true').length, 3)
  }
  const other = await post(servers[1]!, '/events/x', 'something else', { 'idempotency-key': 'key-0' })
  t.equal(other.status, 422, 'the key of another event')
  await publish(servers[1]!, 'x', 'end')
  t.strictSame(await toldUntil(reader, 'end'), [
    ...Array.from({ length: 20 }, (_, index) => String(index)),
    'end'
  ])

  const batch = JSON.stringify(['a', 'b', 'c'].map(data => ({ topic: 'y', data })))
  const answers = await Promise.all(
    servers.map(server =>
      post(server, '/events', batch, { 'content-type': 'application/json', 'idempotency-key': 'batch' })
    )
  )
  t.strictSame(answers[0]!.json(), answers[1]!.json())
  t.equal(await redis.command('XLEN', 'ringside:{0}:ring:y'), 3)
})

t.test('two instances that change one state at once lose no change', async t => {
  const redis = await redisFor(t)
  const logs = (await instances(t, redis.url, 2)).map(({ app }) => app.ringside.broker.log)
  let conflicts = 0
  const increment = async (index: number) => {
    const log = logs[index]!
    for (;;) {
      const state = await log.state('counter')
      const value = String(Number(state?.value ?? 0) + 1)
      const event: Append = {
        topic: 'counter',
        type: 'patch',
        data: value,
        state: { value, version: state?.version ?? null }
      }
      const [appended] = await log.append([event])
      if (appended!.outcome === 'stored') return formatCursor(appended!.id)
      t.equal(appended!.outcome, 'conflict')
      conflicts++
    }
  }
  const versions: string[] = []
  const work = async (index: number) => {
    for (let count = 0; count < 100; count++) versions.push(await increment(index))
  }
  await Promise.all([work(0), work(0), work(1), work(1)])
  t.equal((await logs[0]!.state('counter'))!.value, '400')
  t.equal(new Set(versions).size, 400)
  t.ok(conflicts > 0, 'they did get in each other’s way')
  const data = (
    (await redis.command('XRANGE', 'ringside:{0}:ring:counter', '-', '+')) as [string, string[]][]
  ).map(([, fields]) => fields[3])
  t.strictSame(
    data,
    Array.from({ length: 400 }, (_, index) => String(index + 1)),
    'what lost the race left no event'
  )
})

t.test('every key goes away by itself, but the clock and the states', async t => {
  const redis = await redisFor(t)
  const RING_TTL = 2000
  const server = await instance(t, redis.url, { RING_TTL: `${RING_TTL}ms` })
  await publishAll(
    server,
    Array.from({ length: 50 }, (_, index) => ({ topic: `t/${index % 10}`, data: index }))
  )
  await publish(server, 'alone', 'x')
  await post(server, '/events/keyed', 'x', { 'idempotency-key': 'key' })
  const { log } = server.app.ringside.broker
  await log.append([{ topic: 's/1', type: 'message', data: '1', state: { value: '1', version: null } }])
  const [gone] = await log.append([
    { topic: 's/2', type: 'message', data: '1', state: { value: '1', version: null } }
  ])
  t.equal(gone!.outcome, 'stored')
  const { version } = (await log.state('s/2'))!
  await log.append([{ topic: 's/2', type: 'message', data: '2', state: { value: null, version } }])

  const keys = (await redis.command('KEYS', '*')) as string[]
  const lives = await Promise.all(
    keys.map(async key => [key, Number(await redis.command('PTTL', key))] as const)
  )
  t.strictSame(
    lives
      .filter(([, life]) => life === -1)
      .map(([key]) => key)
      .sort(),
    ['ringside:{0}:clock', 'ringside:{0}:state:s/1', 'ringside:{0}:states:s/*']
  )
  const longest = (prefix: string) =>
    Math.max(...lives.filter(([key]) => key.includes(prefix)).map(([, life]) => life))
  // a cursor may be as old as RING_TTL, by a clock that is a minute off
  for (const kind of [':ring:', ':index:', ':last:'])
    t.ok(longest(kind) > 0 && longest(kind) <= RING_TTL + 60_000, kind)
  t.ok(longest(':key:') > 590_000 && longest(':key:') <= 600_000)
})

t.test('what is older than RING_TTL is not read, whatever Redis still holds', async t => {
  const redis = await redisFor(t)
  const server = await instance(t, redis.url, { RING_TTL: '1s' })
  const old = await publish(server, 'x', 'old')
  await eventually(
    async () => Number(((await redis.command('TIME')) as string[])[0]) * 1000,
    now => now > Number(old.split('-')[0]) + 2000,
    'the event to be too old'
  )
  await publish(server, 'x', 'new')
  for (const query of ['rewind=10', 'since=1h']) {
    const reader = await listen(t, server, `/events?topic=x&${query}`)
    await toldUntil(reader, 'new')
    t.strictSame(told(reader), ['new'], query)
  }
  const { port } = server
  const late = await listen(t, { port }, `/events?topic=x&after=${old}`)
  t.strictSame(await toldUntil(late, 'new'), ['<expired>', 'new'])
})

async function callsOf(stats: Promise<Record<string, string>>): Promise<Record<string, number>> {
  const entries = Object.entries(await stats)
  return Object.fromEntries(
    entries.map(([name, text]) => [name.replace('cmdstat_', ''), Number(/calls=(\d+)/.exec(text)![1])])
  )
}
