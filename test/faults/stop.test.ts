import { once } from 'node:events'
import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2'
import { connect } from 'node:net'
import { connect as connectTls } from 'node:tls'
import t, { type Test } from 'tap'
import { ask, publish, type Address } from '../support/app.ts'
import { makeCertificate } from '../support/certificate.ts'
import { npmClient } from '../support/clients.ts'
import { exitOf, serve } from '../support/process.ts'
import { rawConnection } from '../support/raw.ts'
import { listen, subscribe } from '../support/reader.ts'

// each of them is a process of its own
t.setTimeout(400_000)

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  t.test(`${signal} ends the streams over DRAIN with goodbyes, then the process with 0`, async t => {
    const server = await serve(t, { DRAIN: '1s', RETRY: '300ms' })
    const streams = await Promise.all(Array.from({ length: 20 }, () => listen(t, server, '/events/a')))
    const id = await publish(server, 'a', 'last')
    await Promise.all(streams.map(stream => stream.until(1)))
    const started = Date.now()
    const ends: number[] = []
    for (const stream of streams) void stream.ended.then(() => ends.push(Date.now() - started))
    server.child.kill(signal)
    await Promise.race(streams.map(stream => stream.first('goodbye')))

    t.equal((await ask(server, '/readyz')).status, 503, 'not ready at once')
    const late = await subscribe(t, server, '/events/a', { accept: 'text/event-stream', 'last-event-id': id })
    const [cursor, goodbye] = await late.whole()
    t.match(cursor, { id, event: 'cursor' })
    t.match(goodbye, { event: 'goodbye', data: /shutdown/ })

    for (const stream of streams) {
      const frames = await stream.whole()
      t.match(frames.at(-1), { event: 'goodbye', retry: Number, data: /shutdown/ })
    }
    t.strictSame(await exitOf(server), { code: 0, signal: null })
    t.ok(
      Math.max(...ends) - Math.min(...ends) > 500,
      `spread from ${Math.min(...ends)} to ${Math.max(...ends)} ms`
    )
    t.ok(Date.now() - started < 5000, 'and without a wait for anything else')
    t.equal(server.stderr(), '')
  })
}

const CONNECTIONS: Record<string, readonly [sent: string, until: string]> = {
  'that has sent nothing yet': ['', ''],
  'that has sent half a head': ['GET /livez HT', ''],
  'that has sent half a body': [
    'POST /events/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf',
    ''
  ],
  'that is kept alive after an answer': ['GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n', '"ok"}'],
  'that is kept alive after a refusal': [
    'GET /events?topic= HTTP/1.1\r\nHost: localhost\r\n\r\n',
    '"detail"'
  ],
  'that is a WebSocket and never says goodbye itself': [
    'GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n' +
      'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    '101 Switching'
  ],
  'whose stream ends': ['GET /events/a HTTP/1.1\r\nHost: localhost\r\n\r\n', 'event: cursor']
}

for (const [name, [sent, until]] of Object.entries(CONNECTIONS)) {
  t.test(`a connection ${name} does not keep the process from its end, with 0`, async t => {
    const server = await serve(t, { DRAIN: '0' })
    const connection = rawConnection(t, server)
    connection.send(sent)
    await connection.until(until)
    t.equal((await ask(server, '/livez')).status, 200, 'it has come as far')
    server.child.kill('SIGTERM')
    t.strictSame(await exitOf(server), { code: 0, signal: null })
    t.equal(server.stderr(), '')
  })
}

/** What a client over TLS has done when the server stops. */
const OVER_TLS: Record<string, (t: Test, server: Address, ca: Buffer) => Promise<unknown>> = {
  'connection that has not begun with TLS': async (t, { port }) => {
    const socket = connect(port, '127.0.0.1').on('error', () => {})
    t.teardown(() => socket.destroy())
    await once(socket, 'connect')
  },
  'connection that is kept alive after an answer': async (t, { port }, ca) => {
    const socket = connectTls({ port, host: '127.0.0.1', ca }).on('error', () => {})
    t.teardown(() => socket.destroy())
    socket.write('GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n')
    await once(socket, 'data')
  },
  'connection of HTTP/2 with no stream': async (t, server, ca) => {
    await once(http2(t, server, ca), 'remoteSettings')
  },
  'connection of HTTP/2 whose stream ends': async (t, server, ca) => {
    const stream = http2(t, server, ca).request({ ':path': '/events/a', accept: 'text/event-stream' })
    await once(stream, 'data')
  }
}

function http2(t: Test, { url }: Address, ca: Buffer): ClientHttp2Session {
  const session = connectHttp2(url, { ca }).on('error', () => {})
  t.teardown(() => session.destroy())
  return session
}

for (const [name, open] of Object.entries(OVER_TLS)) {
  t.test(`over TLS, a ${name} does not keep the process from its end, with 0`, async t => {
    const { ca, ...files } = makeCertificate(t.testdir())
    const server = await serve(t, { DRAIN: '0', ...files })
    await open(t, server, ca)
    server.child.kill('SIGTERM')
    t.strictSame(await exitOf(server), { code: 0, signal: null })
    t.equal(server.stderr(), '')
  })
}

t.test('with nobody there it ends at once, whatever DRAIN is', async t => {
  const server = await serve(t, { DRAIN: '60s' })
  server.child.kill('SIGTERM')
  t.strictSame(await exitOf(server), { code: 0, signal: null })
})

t.test('a second signal ends it at once', async t => {
  const server = await serve(t, { DRAIN: '60s' })
  const streams = await Promise.all(Array.from({ length: 10 }, () => listen(t, server, '/events/a')))
  server.child.kill('SIGTERM')
  await Promise.race(streams.map(stream => stream.first('goodbye')))
  server.child.kill('SIGTERM')
  const { code, signal } = await exitOf(server)
  t.ok(code !== 0 || signal !== null, 'this was no clean stop')
  t.ok(streams.filter(({ frames }) => !frames.all.some(({ event }) => event === 'goodbye')).length > 5)
})

t.test(
  'after a restart an EventSource comes back by itself, and is told of what was lost with the memory',
  async t => {
    const server = await serve(t, { DRAIN: '0', RETRY: '100ms' })
    const client = npmClient(t, `${server.url}/events/a`)
    await client.received.until(() => client.received.all.length > 0, 'the cursor event')
    await publish(server, 'a', 'before')
    await client.received.until(() => client.received.all.at(-1)?.data === 'before', 'the event')
    server.child.kill('SIGTERM')
    t.strictSame(await exitOf(server), { code: 0, signal: null })
    const before = client.received.all.length

    const again = await serve(t, { PORT: String(server.port), RETRY: '100ms' })
    await client.received.until(() => client.received.all.length >= before + 2, 'a gap and a cursor')
    await publish(again, 'a', 'after')
    await client.received.until(() => client.received.all.at(-1)?.data === 'after', 'the event')
    const since = client.received.all.slice(before)
    t.strictSame(
      since.map(({ type }) => type),
      ['gap', 'cursor', 'message']
    )
    t.match(JSON.parse(since[0]!.data), { reason: 'unknown', topics: ['a'] })
  }
)
