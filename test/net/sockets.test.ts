import { connect, type AddressInfo } from 'node:net'
import { connect as connectTls } from 'node:tls'
import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import { readSettings } from '../../src/config.ts'
import { MOST_IDLE } from '../../src/net/idle-sockets.ts'
import { boundsOf, type Bounds } from '../../src/net/sockets.ts'
import { listenOn } from '../../src/process/listening.ts'
import { createServer } from '../../src/process/server.ts'
import { ask, isProblem, metricsOf, publish, type TestServer } from '../support/app.ts'
import { makeCertificate } from '../support/certificate.ts'
import { openSession, openStream } from '../support/http2.ts'
import { eventually } from '../support/inbox.ts'
import { rawConnection } from '../support/raw.ts'
import { listen } from '../support/reader.ts'
import { SECRET } from '../support/tokens.ts'

const QUICK = { headersTimeout: 300, requestTimeout: 900, connectionsCheckingInterval: 50 }

async function build(
  t: Test,
  bounds: Partial<Bounds>,
  env: Record<string, string> = {},
  addresses = ['127.0.0.1']
): Promise<TestServer> {
  const settings = readSettings({ PORT: '0', DEMO: 'false', LOG_LEVEL: 'silent', ...env })
  const app = await createServer(settings, { ...boundsOf(settings, 20_000, Infinity), ...bounds })
  t.teardown(() => app.close())
  t.teardown(() => app.server.closeAllConnections?.())
  const url = await listenOn(app, addresses, 0)
  return { app, url, port: (app.server.address() as AddressInfo).port }
}

t.test('what there is room for', async t => {
  const room = (descriptors: number, env = {}, memory = Infinity) => {
    const { maxConnections, maxSockets } = boundsOf(readSettings(env), descriptors, memory)
    return [maxConnections, maxSockets]
  }
  t.strictSame(
    room(20_000),
    [19_000, 19_936],
    'a reserve for what is no stream, and for what is no connection'
  )
  t.strictSame(room(1024), [512, 960])
  t.strictSame(room(64), [32, 32])
  t.strictSame(room(1_000_000, {}, 200 * 2 ** 20), [25_600, 999_936], 'and no more than there is memory for')
  t.strictSame(room(1024, { MAX_CONNECTIONS: '600' }, 1e6), [600, 960])
  t.strictSame(room(Infinity), [Infinity, Infinity])
  t.strictSame(room(1024, { MAX_CONNECTIONS: '5000' }), [5000, 960])
  t.strictSame(room(1024, { MAX_CONNECTIONS: '0' }), [Infinity, 960])
  const two = { WORKERS: '2', REDIS_URL: 'redis://127.0.0.1' }
  t.strictSame(room(1024, { ...two, MAX_CONNECTIONS: '5' }), [3, 960], 'each worker has its part')
})

t.test('a request that does not come in time is answered with 408', async t => {
  const server = await build(t, QUICK)
  const requests: Record<string, [begin: string, drip: string]> = {
    'none at all': ['', ''],
    'no end of the headers': ['GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ', ''],
    'one byte after the other': ['GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ', 'x'],
    'no body': ['POST /events/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n', ''],
    'a body byte by byte': ['POST /events/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n', 'x'],
    'chunks without end': [
      'POST /events/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n',
      '1\r\nx\r\n'
    ],
    'a second request that comes slowly': ['GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET /live', 'x']
  }
  for (const [name, [begin, drip]] of Object.entries(requests)) {
    t.test(name, async t => {
      const connection = rawConnection(t, server)
      connection.send(begin)
      const timer = setInterval(() => connection.send(drip), 20)
      t.teardown(() => clearInterval(timer))
      const text = await connection.closed
      const answer = text.slice(text.lastIndexOf('HTTP/1.1'))
      t.match(answer, /^HTTP\/1\.1 408 Request Timeout\r\n[^]*problem\+json[^]*"status":408/)
    })
  }
  t.test('and nothing is left of them', async t => {
    await eventually(
      () => connectionsOf(server),
      count => count === 0,
      'no connection'
    )
    t.equal(server.app.ringside.hub.connections.size, 0)
  })
})

t.test('what is served is not held to that time', async t => {
  const server = await build(t, QUICK)
  const stream = await listen(t, server, '/events/a')
  const old = rawConnection(t, server)
  old.send('GET /events/a HTTP/1.0\r\n\r\n')
  await old.until('event: cursor')
  const kept = rawConnection(t, server)
  kept.send('GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n')
  await kept.until('"ok"')
  const poll = ask(server, '/events/a?wait=60', { headers: { accept: 'application/json' } })
  const slow = rawConnection(t, server)
  slow.send('GET /livez HTTP/1.1\r\n')
  await slow.closed
  const later = rawConnection(t, server)
  later.send('POST /events/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n')
  await later.closed
  await publish(server, 'a', 'x')
  t.match(await stream.next(), { data: 'x' })
  await old.until('data: x\nid: ')
  t.equal((await poll).status, 200)
  kept.send('GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
  t.match(await kept.closed, /"ok"[^]*HTTP\/1\.1 200 OK[^]*"ok"/)
})

t.test('over TLS, too, a request has to come in time', async t => {
  const { ca, ...files } = makeCertificate(t.testdir())
  const server = await build(t, QUICK, files)
  for (const begin of [
    'GET /livez HTTP/1.1\r\nHost: localhost\r\n',
    'POST /events/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n'
  ]) {
    const socket = connectTls({ host: '127.0.0.1', port: server.port, ca })
    t.teardown(() => socket.destroy())
    let text = ''
    socket.on('error', () => {}).on('data', (chunk: Buffer) => (text += chunk.toString()))
    socket.write(begin)
    await eventually(
      () => text,
      all => all.includes(' 408 '),
      '408'
    )
    await eventually(
      () => connectionsOf(server),
      count => count === 0,
      'its end'
    )
  }
})

t.test('a flood of connections that ask for nothing', async t => {
  const server = await build(t, { maxSockets: 40 })
  const stream = await listen(t, server, '/events/a')
  const kept = rawConnection(t, server)
  kept.send('GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n')
  await kept.until('"ok"')
  const silent = Array.from({ length: 100 }, () => rawConnection(t, server))
  for (const connection of silent.slice(0, 20))
    connection.send('GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ')

  t.test('is cut off, and counted', async t => {
    await eventually(
      async () => server.app.ringside.metrics.connectionsRejected.get(),
      ({ values }) => values.some(({ labels, value }) => labels.reason === 'sockets' && value >= 60),
      'refusals'
    )
    t.ok((await connectionsOf(server)) <= 40)
  })

  t.test('ends no stream', async t => {
    await server.app.ringside.publish('a', { data: 'x' })
    t.match(await stream.next(), { data: 'x' })
  })

  t.test('keeps out nobody for long who asks for something', async t => {
    const answer = await eventually(
      () => ask(server, '/livez').catch(() => null),
      given => given !== null,
      'an answer'
    )
    t.equal(answer!.status, 200)
    await eventually(
      () => connectionsOf(server),
      count => count < 30,
      'room'
    )
    const other = await listen(t, server, '/events/a')
    await publish(server, 'a', 'y')
    // whatever heartbeats have come meanwhile
    t.match(await other.until(1), [{ data: 'y' }])
    t.match(await stream.until(2), [{ data: 'x' }, { data: 'y' }])
    t.ok((await metricsOf(server)).get('ringside_connections_rejected_total{reason="sockets"}')! >= 60)
  })
})

t.test('of two addresses, as localhost may have, together no more than of one', async t => {
  const server = await build(t, { maxSockets: 40 }, {}, ['127.0.0.1', '::1', '192.0.2.1'])
  const other = `http://[::1]:${server.port}`
  const stream = await fetch(`${other}/events/a`, { headers: { accept: 'text/event-stream' } })
  t.equal(stream.status, 200, 'a stream on the second one')
  t.match(await wsOpened(t, `ws://[::1]:${server.port}/ws`), 'open', 'and a WebSocket')
  // half of them on each
  const silent = [...Array(60).keys()].map(number => connect(server.port, number % 2 ? '127.0.0.1' : '::1'))
  let cut = 0
  for (const socket of silent) {
    t.teardown(() => socket.destroy())
    socket.on('error', () => {})
    socket.on('close', () => cut++)
  }
  await eventually(
    async () => {
      const { values } = await server.app.ringside.metrics.connectionsRejected.get()
      return values.find(({ labels }) => labels.reason === 'sockets')?.value ?? 0
    },
    count => count >= 20,
    'refusals'
  )
  t.ok(silent.length - cut <= 40)
  await server.app.ringside.publish('a', { data: 'x' })
  const reader = stream.body!.pipeThrough(new TextDecoderStream()).getReader()
  for (let text = ''; !text.includes('data: x');) text += (await reader.read()).value
  await reader.cancel()
  for (const socket of silent) socket.destroy()
  const closed = server.app.close()
  await eventually(
    () =>
      fetch(`${other}/livez`).then(
        ({ status }) => status,
        () => null
      ),
    status => status === null,
    'an end of it there'
  )
  server.app.server.closeAllConnections()
  await closed
})

t.test('as long as there is room a silent connection may stay', async t => {
  const server = await build(t, { maxSockets: 40 })
  const silent = Array.from({ length: 30 }, () => rawConnection(t, server))
  await eventually(
    () => connectionsOf(server),
    count => count === 30,
    'all of them'
  )
  for (let count = 0; count < 30; count++) t.equal((await ask(server, '/livez')).status, 200)
  t.equal(await connectionsOf(server), 30)
  silent[0]!.send('GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
  t.match(await silent[0]!.closed, /"ok"/)
})

t.test('many that ask at once are served, however slow that is', async t => {
  const server = await build(t, { maxSockets: 300 })
  const answers = await Promise.all(Array.from({ length: 290 }, () => ask(server, '/livez')))
  t.ok(answers.every(({ status }) => status === 200))
  isProblem(t, await ask(server, '/nothing'), 404, /./)
})

t.test('idle sockets of one address', async t => {
  const KEYS = { JWT_SECRET: SECRET, ANONYMOUS_SUBSCRIBE: '**' }
  const refusals = async ({ app }: TestServer) =>
    (await app.ringside.metrics.connectionsRejected.get()).values.find(
      ({ labels }) => labels.reason === 'idle_sockets'
    )?.value ?? 0
  const silent = (t: Test, server: TestServer, count: number) =>
    Array.from({ length: count }, () => {
      const connection = rawConnection(t, server)
      connection.send('GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ')
      return connection
    })
  const settled = (server: TestServer, count: number) =>
    eventually(
      () => connectionsOf(server),
      all => all === count,
      `${count} of them`
    )

  t.test('are bounded: those that come at once beyond it are closed', async t => {
    const server = await build(t, { maxSockets: 20_000 }, KEYS)
    const stream = await listen(t, server, '/events/a')
    silent(t, server, MOST_IDLE + 100)
    await eventually(
      () => refusals(server),
      count => count >= 100,
      'refusals'
    )
    await settled(server, MOST_IDLE + 1)
    await server.app.ringside.publish('a', { data: 'x' })
    t.match(await stream.next(), { data: 'x' }, 'a stream is not idle')

    t.test('and after a second they go for whoever comes', async t => {
      const answer = await eventually(
        () => ask(server, '/livez').catch(() => null),
        given => given !== null,
        'an answer'
      )
      t.equal(answer!.status, 200)
      t.ok((await connectionsOf(server)) <= MOST_IDLE + 1)
    })
  })

  t.test('those that were asked on go first, and at once', async t => {
    const server = await build(t, { maxSockets: 20_000 }, KEYS)
    const kept = rawConnection(t, server)
    kept.send('GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n')
    await kept.until('"ok"')
    const waiting = rawConnection(t, server)
    waiting.send('GET /events/a?wait=60 HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n')
    await eventually(
      () => server.app.ringside.hub.connections.size,
      size => size === 1,
      'a poll'
    )
    silent(t, server, MOST_IDLE)
    await kept.closed
    await settled(server, MOST_IDLE + 1)
    t.equal(await refusals(server), 0)
    await server.app.ringside.publish('a', { data: 'x' })
    await waiting.until('"data":"x"')
  })

  for (const [name, env] of [
    ['a proxy that is believed', { ...KEYS, TRUST_PROXY: '127.0.0.1' }],
    ['loopback in development mode', {}]
  ] as const) {
    t.test(`${name} may have any number`, async t => {
      const server = await build(t, { maxSockets: 20_000 }, env)
      silent(t, server, MOST_IDLE + 50)
      await settled(server, MOST_IDLE + 50)
      t.equal((await ask(server, '/livez')).status, 200)
      t.equal(await refusals(server), 0)
    })
  }

  t.test('over TLS, with HTTP/1.1 and HTTP/2', async t => {
    const { ca, ...files } = makeCertificate(t.testdir())
    const server = await build(t, { maxSockets: 20_000 }, { ...KEYS, ...files })
    const session = await openSession(t, server.url, ca)
    const { frames } = await openStream(session, '/events/a')
    await frames.next()
    Array.from({ length: MOST_IDLE + 50 }, () => rawConnection(t, server)) // no handshake
    await eventually(
      () => refusals(server),
      count => count >= 50,
      'refusals'
    )
    await server.app.ringside.publish('a', { data: 'x' })
    t.match(await frames.next(), { data: 'x' })
  })
})

function connectionsOf({ app }: TestServer): Promise<number> {
  return new Promise((resolve, reject) => {
    app.server.getConnections((error, count) => (error ? reject(error) : resolve(count)))
  })
}

function wsOpened(t: Test, url: string): Promise<string> {
  const ws = new WebSocket(url)
  t.teardown(() => ws.terminate())
  return new Promise(resolve => {
    ws.on('open', () => resolve('open'))
    ws.on('error', error => resolve(String(error)))
  })
}
