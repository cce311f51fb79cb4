/** Answers that are no streams, over real connections: what they hold, and how they end that nobody takes. */
import { once } from 'node:events'
import type { ClientHttp2Session, ClientHttp2Stream } from 'node:http2'
import { connect as connectHttp2, constants } from 'node:http2'
import { connect, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { ask, build, isProblem, publish, type TestServer } from '../support/app.ts'
import { makeCertificate } from '../support/certificate.ts'
import { eventually } from '../support/inbox.ts'

const { ca, ...files } = makeCertificate(t.testdir())

const LARGE = 'x'.repeat(60_000)

const JSON_PAGE = { accept: 'application/json' }

/** A server with some 6 MB of events. */
async function filled(t: Test, env: Record<string, string> = {}): Promise<TestServer> {
  const server = await build(t, { HEARTBEAT: '60s', ...env })
  for (let index = 0; index < 100; index++) await server.app.ringside.publish('large', { data: LARGE })
  return server
}

/** How many bytes are held for answers. */
const held = ({ app }: TestServer) => app.ringside.memory.held('answers')

const until = (server: TestServer, isSo: (bytes: number) => boolean, what: string) =>
  eventually(() => held(server), isSo, what)

/** A connection that asks and reads nothing. */
function deaf(t: Test, { port }: TestServer, path: string, count = 1): Socket {
  const socket = connect({ port, host: '127.0.0.1' })
  t.teardown(() => socket.destroy())
  socket.on('error', () => {}).pause()
  socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n`.repeat(count))
  return socket
}

/** A connection of HTTP/2 on which the server may send nothing. */
async function shut(t: Test, { url }: TestServer): Promise<ClientHttp2Session> {
  const session = connectHttp2(url, { ca, settings: { initialWindowSize: 0 } })
  t.teardown(() => session.destroy())
  await once(
    session.on('error', () => {}),
    'connect'
  )
  return session
}

const get = (session: ClientHttp2Session, path: string) => {
  const stream = session.request({ ':path': path, ...JSON_PAGE })
  return stream.on('error', () => {})
}

/** The status of an answer; null where there is none. */
function statusOf(stream: ClientHttp2Stream): Promise<number | null> {
  return new Promise(resolve => {
    stream.on('response', head => resolve(head[':status'] ?? null))
    stream.on('close', () => resolve(null))
  })
}

t.test('an answer counts until its last byte has left, over HTTP/1.1', async t => {
  const server = await filled(t, { MAX_PAGE_BYTES: '1 GiB' })
  t.equal(held(server), 0)
  const sockets = [
    deaf(t, server, '/events/large?rewind=100', 4),
    deaf(t, server, '/events/large?rewind=100', 4)
  ]
  await until(server, bytes => bytes > 6e6, 'answers')
  for (const socket of sockets) socket.resume()
  await until(server, bytes => bytes === 0, 'nothing')
  deaf(t, server, '/events/large?rewind=100', 4).once('connect', function (this: Socket) {
    void until(server, bytes => bytes > 1e6, 'answers').then(() => this.destroy())
  })
  await until(server, bytes => bytes > 1e6, 'answers')
  await until(server, bytes => bytes === 0, 'nothing, when the connection has gone')
})

t.test('and over HTTP/2, where the place of its client is given back then', async t => {
  const server = await filled(t, {
    ...files,
    JWT_SECRET: 's'.repeat(32),
    ANONYMOUS_SUBSCRIBE: 'large',
    MAX_CONNECTIONS_PER_CLIENT: '5'
  })
  const session = await shut(t, server)
  const streams = Array.from({ length: 20 }, () => get(session, '/events/large?rewind=10'))
  const statuses = await Promise.all(streams.map(statusOf))
  t.strictSame(
    [200, 429].map(status => statuses.filter(given => given === status).length),
    [5, 15],
    'an answer that nobody takes keeps its place'
  )
  await until(server, bytes => bytes > 5 * 600_000, 'answers')
  session.destroy()
  await until(server, bytes => bytes === 0, 'nothing')
  const other = await shut(t, server)
  t.equal(await statusOf(get(other, '/events/large?rewind=10')), 200)
})

t.test('answers have a part of the memory, and who takes nothing keeps out nobody for long', async t => {
  const server = await filled(t, { ...files, MEMORY: '64 MiB' })
  const sessions = await Promise.all(Array.from({ length: 3 }, () => shut(t, server)))
  const statuses = await Promise.all(
    sessions.flatMap(session =>
      Array.from({ length: 50 }, () => statusOf(get(session, '/events/large?rewind=10')))
    )
  )
  t.ok(held(server) <= 16 * 1024 * 1024, `${held(server)} bytes`)
  t.ok(statuses.includes(200))
  t.ok(statuses.includes(503), 'there is no room for more')
  const reader = connectHttp2(server.url, { ca })
  t.teardown(() => reader.destroy())
  await eventually(
    () => statusOf(get(reader, '/events/large?rewind=10').resume()),
    status => status === 200,
    'room'
  )
})

t.test('what is small ends without an answer where there is no room at all', async t => {
  const server = await build(t, { ...files, MEMORY: '1 MiB' })
  const session = await shut(t, server)
  const statuses = await Promise.all(
    Array.from({ length: 60 }, () => statusOf(get(session, '/nothing/here')))
  )
  t.ok(statuses.includes(404))
  t.ok(statuses.includes(null))
  t.ok(held(server) <= 256 * 1024, `${held(server)} bytes`)
})

t.test('an answer that leaves slower than 1 KiB a second is ended after STALL_TIMEOUT', async t => {
  t.test('over HTTP/2', async t => {
    const server = await filled(t, { ...files, STALL_TIMEOUT: '2s' })
    const session = await shut(t, server)
    const slow = get(session, '/events/large?rewind=3')
    const small = get(session, '/events/none')
    t.equal(await statusOf(slow), 200)
    await until(server, bytes => bytes > 180_000, 'the answer')
    // some bytes now and then: an answer that something is taken of looks busy to Node
    let code: number | undefined
    let window = 0
    slow.on('close', () => (code = slow.rstCode))
    const timer = setInterval(
      () => session.destroyed || session.settings({ initialWindowSize: (window += 100) }),
      200
    )
    t.teardown(() => clearInterval(timer))
    await eventually(
      () => code,
      code => code === constants.NGHTTP2_CANCEL,
      'its end'
    )
    await until(server, bytes => bytes === 0, 'nothing')
    t.ok(small.closed)
  })

  t.test('one that is fast enough comes whole', async t => {
    const server = await filled(t, { STALL_TIMEOUT: '1s', MAX_PAGE_BYTES: '1 GiB' })
    const socket = deaf(t, server, '/events/large?rewind=100')
    let bytes = 0
    socket.on('data', (chunk: Buffer) => (bytes += chunk.length))
    for (let index = 0; index < 4; index++) {
      socket.resume()
      await eventually(
        () => bytes,
        count => count > index * 1e6,
        'some of it'
      )
      socket.pause()
      await new Promise(resolve => setTimeout(resolve, 500)) // shorter than what ends it, together longer
    }
    socket.resume()
    await eventually(
      () => bytes,
      count => count > 4.2e6,
      'all of it'
    )
  })
})

t.test('an answer comes as it was before, in pieces or not', async t => {
  const server = await build(t, { STALL_TIMEOUT: '1s' })
  for (const size of [1, 900, 5000, 60_000]) {
    await publish(server, `size/${size}`, 'é'.repeat(size / 2 + 1))
    const path = `/events/size/${size}?rewind=1`
    const answer = await ask(server, path, { headers: JSON_PAGE })
    t.equal(answer.status, 200)
    t.equal(Number(answer.headers['content-length']), Buffer.byteLength(answer.text))
    t.equal(answer.headers['content-type'], 'application/json; charset=utf-8')
    t.match(answer.json(), { events: [{ data: 'é'.repeat(size / 2 + 1) }] })
    const head = await ask(server, path, { method: 'HEAD', headers: JSON_PAGE })
    t.match(head, { status: 200, text: '' })
  }
  // a surrogate pair lies on each border of two parts
  const pairs = `${'a'.repeat(1023)}${'😀'.repeat(600)}`
  for (const shift of ['', 'b']) {
    const topic = `pairs/${shift}`.replace(/\/$/, '/a')
    await publish(server, topic, shift + pairs)
    const { events } = (await ask(server, `/events/${topic}?rewind=1`, { headers: JSON_PAGE })).json()
    t.match(events, [{ data: shift + pairs }])
  }
  isProblem(t, await ask(server, '/events/a//b', { headers: JSON_PAGE }), 400, /neither/)
  t.equal(held(server), 0)
})
