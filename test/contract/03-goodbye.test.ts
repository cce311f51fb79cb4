import { once } from 'node:events'
import { connect } from 'node:net'
import t, { type Test } from 'tap'
import { ask, build, isProblem, metricsOf, publish, type TestServer } from '../support/app.ts'
import { curl, npmClient, undiciClient } from '../support/clients.ts'
import { eventually } from '../support/inbox.ts'
import { rawConnection } from '../support/raw.ts'
import { listen, subscribe, type Reader } from '../support/reader.ts'
import type { Frame } from '../support/sse-parser.ts'

const SSE = { accept: 'text/event-stream' }

t.test('a full server', async t => {
  const server = await build(t, { MAX_CONNECTIONS: '2', RETRY: '1s' })
  const first = await listen(t, server, '/events/a')
  await listen(t, server, '/events/b')

  t.test(
    'answers who accepts text/event-stream by name with 200, its cursor, goodbye, and the end',
    async t => {
      const cursor = first.cursor
      const stream = await subscribe(t, server, '/events/a', {
        accept: 'text/html, text/event-stream',
        'last-event-id': cursor
      })
      t.equal(stream.status, 200)
      t.equal(stream.response.headers['content-type'], 'text/event-stream; charset=utf-8')
      t.equal(stream.response.headers['cache-control'], 'no-cache, no-transform')
      const [opened, goodbye, ...rest] = await stream.whole()
      t.match(opened, { id: cursor, event: 'cursor', retry: Number })
      t.strictSame(JSON.parse(opened!.data!), { cursor })
      isGoodbye(t, goodbye, 'full', cursor)
      t.strictSame(rest, [])
    }
  )

  t.test('leaves the cursor event out for who sent none', async t => {
    const frames = await (await subscribe(t, server, '/events/a', SSE)).whole()
    t.equal(frames.length, 1)
    isGoodbye(t, frames[0], 'full')
  })

  t.test('repeats no cursor that is none', async t => {
    const headers = { ...SSE, 'last-event-id': 'x: y\u00e9 "' }
    const frames = await (await subscribe(t, server, '/events/a', headers)).whole()
    t.equal(frames.length, 1)
    isGoodbye(t, frames[0], 'full')
  })

  t.test('answers every other client with 503 and Retry-After', async t => {
    for (const headers of [{}, { accept: '*/*' }, { accept: 'text/*' }]) {
      const answer = await ask(server, '/events/a', { headers })
      isProblem(t, answer, 503, /connections/)
      t.match(answer.headers['retry-after'], /^[1-9]\d*$/)
    }
    const client = curl(t, `${server.url}/events/a`, ['-f'])
    t.equal(await client.exited, 22, 'curl -f fails')
  })

  t.test('says no more to HEAD than its head', async t => {
    const connection = rawConnection(t, server)
    const head = 'HEAD /events/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n'
    connection.send(`${head}GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)
    const text = await connection.closed
    t.notMatch(text, /goodbye/)
    t.match(
      text,
      /^HTTP\/1\.1 \d+ [^]*?\r\n\r\nHTTP\/1\.1 200 OK\r\n[^]*"ok"/,
      'the next answer follows at once'
    )
  })

  t.test('still takes what is final: 400 and 406 come before it', async t => {
    t.equal((await ask(server, '/events?topic=', { headers: SSE })).status, 400)
    t.equal((await ask(server, '/events/a', { headers: { accept: 'text/html' } })).status, 406)
  })

  t.test('still takes publishes, and is ready', async t => {
    await publish(server, 'a', 'x')
    await first.until(1)
    t.equal((await ask(server, '/readyz')).status, 200)
  })

  t.test('serves the next one as soon as another has gone', async t => {
    first.close()
    await eventually(
      () => openStreams(server),
      count => count === 1,
      'the end of a stream'
    )
    const stream = await listen(t, server, '/events/a', { 'last-event-id': first.cursor })
    t.match(await stream.next(), { data: 'x' })
  })
})

t.test('MAX_CONNECTIONS=0 is no limit', async t => {
  const server = await build(t, { MAX_CONNECTIONS: '0' })
  await listen(t, server, '/events/a')
})

for (const [name, open] of Object.entries({
  'eventsource 4': npmClient,
  "undici's EventSource": undiciClient
})) {
  t.test(`${name} comes back by itself to a server that was full, with its cursor`, async t => {
    const server = await build(t, { MAX_CONNECTIONS: '1', RETRY: '20ms' })
    const client = open(t, `${server.url}/events/a`)
    await client.received.until(() => client.received.all.length === 1, 'the cursor event')
    const { lastEventId } = client.received.all[0]!
    const [session] = server.app.ringside.hub.sessions
    session!.goodbye('shutdown', 20)
    const blocker = await listen(t, server, '/events/b')
    const goodbyes = () =>
      client.received.all.filter(({ type, data }) => type === 'goodbye' && /full/.test(data))
    await client.received.until(() => goodbyes().length >= 2, 'goodbyes because it is full')
    const id = await publish(server, 'a', 'missed')
    blocker.close()
    await client.received.until(
      () => client.received.all.some(({ type }) => type === 'message'),
      'what it missed'
    )
    t.match(client.received.all.at(-1), { type: 'message', data: 'missed', lastEventId: id })
    const cursors = client.received.all.filter(({ type }) => type === 'cursor')
    t.strictSame([...new Set(cursors.map(event => event.lastEventId))], [lastEventId], 'never another cursor')
  })
}

t.test('a server that drains', async t => {
  const server = await build(t, { DRAIN: '600ms', RETRY: '100ms' })
  const streams: Reader[] = []
  for (let index = 0; index < 12; index++) streams.push(await listen(t, server, '/events/a'))
  const id = await publish(server, 'a', 'last')
  await Promise.all(streams.map(stream => stream.until(1)))

  const started = Date.now()
  const ends: number[] = []
  for (const stream of streams) void stream.ended.then(() => ends.push(Date.now() - started))
  const drained = server.app.ringside.drain()

  t.test('is not ready at once, and lives', async t => {
    isProblem(t, await ask(server, '/readyz'), 503, /stop/)
    t.equal((await ask(server, '/livez')).status, 200)
  })

  t.test('takes no new streams: an EventSource is told to come back with its own cursor', async t => {
    const stream = await subscribe(t, server, '/events/a', { ...SSE, 'last-event-id': id })
    t.equal(stream.status, 200)
    const [opened, goodbye, ...rest] = await stream.whole()
    t.match(opened, { id, event: 'cursor' })
    isGoodbye(t, goodbye, 'shutdown')
    t.strictSame(rest, [])
    const answer = await ask(server, '/events/a', { headers: { accept: '*/*' } })
    isProblem(t, answer, 503, /stop/)
    t.match(answer.headers['retry-after'], /^[1-9]\d*$/)
  })

  t.test('says goodbye to the open ones, spread over DRAIN, each with a retry of its own', async t => {
    await drained
    const goodbyes = await Promise.all(
      streams.map(async stream => {
        const frames = await stream.whole()
        isGoodbye(t, frames.at(-1), 'shutdown')
        return frames.at(-1)!.retry!
      })
    )
    t.ok(new Set(goodbyes).size > 1, `${goodbyes}`)
    t.ok(
      goodbyes.every(retry => retry >= 100),
      'none comes back sooner than RETRY'
    )
    const spread = Math.max(...ends) - Math.min(...ends)
    t.ok(spread > 300, `from the first to the last ${spread} ms`)
    t.equal(openStreams(server), 0)
  })

  t.test('counts who was turned away and why streams ended', async t => {
    const metrics = await metricsOf(server)
    t.equal(metrics.get('ringside_connections_closed_total{transport="sse",reason="shutdown"}'), 12)
    t.equal(metrics.get('ringside_connections_rejected_total{reason="shutdown"}'), 2)
    t.equal(metrics.get('ringside_connections{transport="sse"}'), 0)
  })
})

t.test('who is turned away, or refused, leaves no connection behind', async t => {
  const server = await build(t, { MAX_CONNECTIONS: '1' })
  await listen(t, server, '/events/a')
  const requests: Record<string, string> = {
    'by a goodbye': 'GET /events/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n',
    'with a 503': 'GET /events/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n',
    'with a 400': 'GET /events?topic= HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n',
    'with a 404':
      'GET /x/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n',
    'with a 406':
      'GET /events/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\nConnection: close\r\n\r\n'
  }
  for (const [how, request] of Object.entries(requests)) {
    t.test(how, async t => {
      for (let count = 0; count < 5; count++) {
        const connection = rawConnection(t, server)
        connection.send(request)
        await connection.until(/\r\n0\r\n\r\n$|"detail":"[^]*\}$/)
        connection.destroy()
      }
      await eventually(
        () => connectionsOf(server),
        count => count === 1,
        'the one stream alone'
      )
    })
  }

  t.test('also when it never closes its own side, whether it is silent or goes on sending', async t => {
    const answered: Promise<unknown>[] = []
    for (const request of [...Object.values(requests), 'nonsense\r\n\r\n']) {
      for (const sends of ['', 'x']) {
        const socket = connect({ port: server.port, host: '127.0.0.1', allowHalfOpen: true })
        const timer = setInterval(() => socket.write(sends), 50)
        t.teardown(() => {
          clearInterval(timer)
          socket.destroy()
        })
        socket.on('error', () => {})
        answered.push(once(socket, 'data'))
        socket.write(request)
      }
    }
    await Promise.all(answered)
    await eventually(
      () => connectionsOf(server),
      count => count === 1,
      'the one stream alone'
    )
  })
})

t.test('a stream that has ended leaves no connection behind', async t => {
  const server = await build(t, { DRAIN: '0' })
  const connection = rawConnection(t, server)
  connection.send('GET /events/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
  await connection.until('event: cursor')
  await server.app.ringside.drain()
  t.match(await connection.closed, /goodbye[^]*\r\n0\r\n\r\n$/)
  await eventually(
    () => connectionsOf(server),
    count => count === 0,
    'no connection'
  )
})

/** A goodbye says why and when to come back, the same to the page and to the EventSource, and its cursor if it has one. */
function isGoodbye(t: Test, frame: Frame | undefined, reason: string, cursor?: string): void {
  t.equal(frame!.event, 'goodbye')
  if (cursor !== undefined) t.equal(frame!.id, cursor)
  t.strictSame(JSON.parse(frame!.data!), { reason, retry: frame!.retry })
}

/** How many connections of clients are open, whatever for. */
function connectionsOf({ app }: TestServer): Promise<number> {
  return new Promise((resolve, reject) => {
    app.server.getConnections((error, count) => (error ? reject(error) : resolve(count)))
  })
}

function openStreams({ app }: TestServer): number {
  return app.ringside.hub.sessions.size
}
