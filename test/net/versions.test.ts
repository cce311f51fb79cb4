import { constants, type ClientHttp2Session } from 'node:http2'
import { request as httpsRequest } from 'node:https'
import { connect as connectTls } from 'node:tls'
import t from 'tap'
import { ask, build, metricsOf, publish, type TestServer } from '../support/app.ts'
import { makeCertificate } from '../support/certificate.ts'
import { curl } from '../support/clients.ts'
import { openSession, openStream } from '../support/http2.ts'
import { eventually, Inbox, inTime } from '../support/inbox.ts'
import { rawConnection } from '../support/raw.ts'
import { StrictParser, type Frame } from '../support/sse-parser.ts'

t.test('HTTP/1.0 is given a stream without chunks, that ends with its connection', async t => {
  const server = await build(t)
  const connection = rawConnection(t, server)
  connection.send('GET /events/old HTTP/1.0\r\n\r\n')
  const head = await connection.until('\n\n')
  t.match(head, /^HTTP\/1\.1 200 OK\r\n/)
  t.notMatch(head, /transfer-encoding/i)
  t.notMatch(head, /content-length/i)
  t.match(head, /\r\n\r\nretry: \d+\nevent: cursor\ndata: {"cursor":"(\d+-\d+)"}\nid: \1\n\n$/)
  const id = await publish(server, 'old', 'hello')
  t.ok((await connection.until(`data: hello\nid: ${id}\n\n`)).endsWith(`\n\ndata: hello\nid: ${id}\n\n`))
  await server.app.ringside.drain()
  t.match(await connection.closed, /event: goodbye\ndata: .*\nid: .*\n\n$/)
})

t.test('curl --http1.0 reads it', async t => {
  const server = await build(t)
  const client = curl(t, `${server.url}/events/old`, ['--http1.0'])
  t.match(await client.frames.next(), { event: 'cursor' })
  await publish(server, 'old', 'hello')
  t.match(await client.frames.next(), { data: 'hello' })
})

t.test(
  'an answer in chunks is whole, and the connection either ends as it said or serves the next request',
  async t => {
    const server = await build(t, { DRAIN: '0' })
    const connection = rawConnection(t, server)
    connection.send('GET /events/a HTTP/1.1\r\nHost: localhost\r\n\r\n')
    const head = await connection.until('event: cursor')
    await server.app.ringside.drain()
    await connection.until('\r\n0\r\n\r\n')
    if (/\r\nconnection: close\r\n/i.test(head)) {
      t.match(await connection.closed, /goodbye[^]*\r\n0\r\n\r\n$/)
    } else {
      connection.send('GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
      t.match(await connection.closed, /goodbye[^]*\r\n0\r\n\r\nHTTP\/1\.1 200 OK\r\n[^]*"ok"/)
    }
  }
)

t.test('a pipelined stream waits for the answer before it, and misses nothing', async t => {
  const server = await build(t)
  const id = await publish(server, 'piped', 'before')
  const connection = rawConnection(t, server)
  connection.send(get('/metrics') + get('/livez') + get(`/events/piped?rewind=1`))
  const text = await connection.until(`before\nid: ${id}\n\n`)
  t.match(
    text,
    /^HTTP\/1\.1 200[^]*ringside_connections[^]*HTTP\/1\.1 200[^]*"ok"[^]*HTTP\/1\.1 200[^]*event: cursor/
  )
  t.match(text, `data: before\nid: ${id}\n\n`)
  await publish(server, 'piped', 'after')
  await connection.until('data: after\nid: ')
})

t.test('a request that is pipelined behind a stream is not answered before that has ended', async t => {
  const server = await build(t, { DRAIN: '0' })
  const connection = rawConnection(t, server)
  connection.send(
    'GET /events/a HTTP/1.1\r\nHost: localhost\r\n\r\nGET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'
  )
  const head = await connection.until('event: cursor')
  await server.app.ringside.drain()
  const text = await connection.closed
  t.match(text, /^HTTP\/1\.1 200 [^]*goodbye[^]*?\r\n0\r\n\r\n/)
  const [, , next] = text.split('HTTP/1.1 ')
  if (/\r\nconnection: close\r\n/i.test(head)) t.equal(next, undefined, 'nor after it, as it said')
  else t.match(next, /^200 OK[^]*"ok"/)
})

t.test('streams that are pipelined behind a stream end with their connection', async t => {
  const server = await build(t)
  const connection = rawConnection(t, server)
  // behind an answer that is on its way, so that Node has to keep them in line
  connection.send(get('/metrics') + get('/events/a').repeat(4))
  await connection.until('event: cursor')
  await eventually(
    () => server.app.ringside.hub.sessions.size,
    size => size === 4,
    'four streams'
  )
  connection.destroy()
  await eventually(
    () => server.app.ringside.hub.sessions.size,
    size => size === 0,
    'the end of all'
  )
  const gauge = await eventually(
    () => connectionsOf(server),
    open => open === 0,
    'no connection'
  )
  t.equal(gauge, 0)
})

t.test('a pipelined stream that nobody reads yet owns no queue that grows', async t => {
  const warnings: string[] = []
  const note = (warning: Error) => warnings.push(warning.message)
  process.on('warning', note)
  t.teardown(() => process.off('warning', note))
  const server = await build(t, { SEND_BUFFER: '64 KiB' })
  const connection = rawConnection(t, server)
  connection.send(get('/metrics') + get('/events/first') + get('/events/second'))
  await eventually(
    () => server.app.ringside.hub.sessions.size,
    size => size === 2,
    'both streams'
  )
  for (let index = 0; index < 300; index++) await publish(server, 'second', `${index} ${'x'.repeat(1000)}`)
  const sessions = [...server.app.ringside.hub.sessions]
  for (const { sink } of sessions) t.ok(sink.pending < 64 * 1024 + 2000, `${sink.pending} bytes wait`)
  t.strictSame(warnings, [])
  const first = sessions.find(({ watches }) => watches.some(({ filter }) => filter === 'first'))!
  first.goodbye('shutdown', 1)
  const text = await connection.until('299 xxx')
  const numbers = [...text.matchAll(/data: (\d+) x/g)].map(([, number]) => Number(number))
  t.strictSame(numbers, [...numbers.keys()], 'it gets everything in order, once it is its turn')
  t.equal(numbers.length, 300)
})

t.test('a client that goes while its stream is being opened leaves nothing behind', async t => {
  const server = await build(t)
  for (let index = 0; index < 20; index++) {
    const connection = rawConnection(t, server)
    connection.send('GET /events/a HTTP/1.1\r\nHost: localhost\r\n\r\n')
    connection.destroy()
  }
  await ask(server, '/livez')
  await eventually(
    () => server.app.ringside.hub.sessions.size,
    size => size === 0,
    'no session'
  )
  t.equal(await connectionsOf(server), 0)
})

t.test('with TLS_CERT and TLS_KEY', async t => {
  const { ca, ...files } = makeCertificate(t.testdir())
  const server = await build(t, { ...files, RETRY: '700ms', DRAIN: '0' })
  const url = server.url
  t.match(url, /^https:/)

  const session = await openSession(t, url, ca)

  t.test('HTTP/2 has many streams on one connection', async t => {
    t.equal(session.alpnProtocol, 'h2')
    const streams = await Promise.all(
      Array.from({ length: 50 }, (_, index) => openStream(session, `/events/h2-${index % 2}`))
    )
    for (const { headers, frames } of streams) {
      t.equal(headers[':status'], 200)
      t.equal(headers['content-type'], 'text/event-stream; charset=utf-8')
      t.equal(headers['content-length'], undefined)
      t.equal(headers['connection'], undefined)
      t.equal(headers['transfer-encoding'], undefined)
      const opened = await frames.next()
      t.match(opened, { retry: 700, event: 'cursor', id: String(headers['ringside-cursor']) })
    }
    const body = JSON.stringify([
      { topic: 'h2-0', data: 0 },
      { topic: 'h2-1', data: 1, type: 'odd' }
    ])
    const posted = await openStream(
      session,
      '/events',
      { ':method': 'POST', 'content-type': 'application/json' },
      body
    )
    t.equal(posted.headers[':status'], 201)
    for (const [index, { frames }] of streams.entries()) {
      const { data, event } = await frames.next()
      t.strictSame([data, event], index % 2 === 0 ? ['0', undefined] : ['1', 'odd'])
    }
    for (const { stream } of streams) stream.close(constants.NGHTTP2_CANCEL)
    await eventually(
      () => server.app.ringside.hub.sessions.size,
      size => size === 0,
      'the end of the streams'
    )
  })

  t.test('a publish over HTTP/2 may leave out its Content-Type and its length', async t => {
    const { frames } = await openStream(session, '/events/h2-bare')
    await frames.next()
    const bare = session.request({ ':path': '/events/h2-bare', ':method': 'POST' })
    bare.end('what curl -d would send')
    t.match(await frames.next(), { data: 'what curl -d would send' })
  })

  t.test('HTTP/2 resumes with Last-Event-ID, and knows HEAD and problems', async t => {
    const first = await openStream(session, '/events/h2')
    const { id } = await first.frames.next()
    const posted = await openStream(session, '/events/h2', { ':method': 'POST' }, 'missed')
    t.equal(posted.headers[':status'], 201)
    const resumed = await openStream(session, '/events/h2', { 'last-event-id': id! })
    t.match(await resumed.frames.next(), { id })
    t.match(await resumed.frames.next(), { data: 'missed' })
    const head = await openStream(session, '/events/h2', { ':method': 'HEAD' })
    t.equal(head.headers[':status'], 200)
    t.match(head.headers['ringside-cursor'], /^\d+-\d+$/)
    const wrong = await openStream(session, '/events?topic=', {})
    t.equal(wrong.headers[':status'], 400)
    t.match(wrong.headers['content-type'], /problem\+json/)
  })

  t.test('a reset of one stream, with an error, ends that one alone', async t => {
    const kept = await openStream(session, '/events/h2-kept')
    const size = () => server.app.ringside.hub.sessions.size
    const before = size()
    for (const code of [
      constants.NGHTTP2_INTERNAL_ERROR,
      constants.NGHTTP2_PROTOCOL_ERROR,
      constants.NGHTTP2_CANCEL,
      constants.NGHTTP2_NO_ERROR
    ]) {
      const { stream, frames } = await openStream(session, '/events/h2-reset')
      await frames.next()
      stream.on('error', () => {})
      stream.close(code)
      await eventually(size, now => now === before, 'the end of the stream')
    }
    await openStream(session, '/events/h2-kept', { ':method': 'POST' }, 'still here')
    await kept.frames.next()
    t.match(await kept.frames.next(), { data: 'still here' })
  })

  t.test('a connection that breaks ends its streams', async t => {
    const broken = await openSession(t, url, ca)
    for (let index = 0; index < 5; index++) await openStream(broken, '/events/h2-broken')
    const before = server.app.ringside.hub.sessions.size
    broken.destroy()
    await eventually(
      () => server.app.ringside.hub.sessions.size,
      size => size === before - 5,
      'the end of five streams'
    )
    t.equal(await statusOf(session, '/livez'), 200)
  })

  t.test('one stream that is not read does not hold up another on the same connection', async t => {
    const paused = await openStream(session, '/events/h2-paused')
    await paused.frames.next()
    paused.stream.pause()
    const other = await openStream(session, '/events/h2-other')
    await other.frames.next()
    const large = 'x'.repeat(50_000)
    for (let index = 0; index < 20; index++) {
      const { headers } = await openStream(
        session,
        '/events/h2-paused',
        { ':method': 'POST' },
        `${index} ${large}`
      )
      t.equal(headers[':status'], 201)
    }
    await openStream(session, '/events/h2-other', { ':method': 'POST' }, 'undisturbed')
    t.match(await other.frames.next(), { data: 'undisturbed' })
    paused.stream.resume()
    await paused.frames.until(() => paused.frames.all.length === 21, 'all events')
    t.strictSame(
      paused.frames.all.slice(1).map(({ data }) => Number(data!.split(' ')[0])),
      Array.from({ length: 20 }, (_, index) => index)
    )
  })

  t.test('HTTP/1.1 is served too', async t => {
    const frames = new Inbox<Frame>()
    const request = httpsRequest(`${url}/events/h1?topic=h2`, { ca, agent: false })
    t.teardown(() => request.destroy())
    request.on('error', () => {})
    const parser = new StrictParser()
    request.on('response', response => {
      t.equal(response.httpVersion, '1.1')
      t.equal(response.headers['transfer-encoding'], 'chunked')
      response.on('error', () => {})
      response.on('data', (chunk: Buffer) => parser.push(chunk).forEach(frame => frames.push(frame)))
    })
    request.end()
    t.match(await frames.next(), { event: 'cursor' })
    await openStream(session, '/events/h1', { ':method': 'POST' }, 'over both')
    t.match(await frames.next(), { data: 'over both' })
  })

  t.test('curl reads it, over HTTP/2', async t => {
    const client = curl(t, `${url}/events/h2-curl`, ['--http2', '--cacert', files.TLS_CERT])
    t.match(await client.frames.next(), { event: 'cursor' })
    await openStream(session, '/events/h2-curl', { ':method': 'POST' }, 'curled')
    t.match(await client.frames.next(), { data: 'curled' })
  })

  t.test('what is no TLS, or breaks off in the middle, ends nothing', async t => {
    const plain = rawConnection(t, server)
    plain.send('GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n')
    t.notMatch(await plain.closed, /"ok"/)
    const half = connectTls({ port: server.port, host: '127.0.0.1', ca, ALPNProtocols: ['h2'] })
    half.on('error', () => {}).resume()
    await new Promise(resolve => half.once('secureConnect', resolve))
    half.write('PRI * HTTP/2.0\r\n\r\nXX\r\n\r\nnonsense that is no frame')
    await inTime(new Promise(resolve => half.once('close', resolve)), 'the end of the connection')
    t.equal(await statusOf(session, '/livez'), 200)
  })

  t.test('a drain says goodbye to streams of HTTP/2, and ends them alone', async t => {
    const { frames, stream } = await openStream(session, '/events/h2-drain')
    await frames.next()
    await server.app.ringside.drain()
    t.match(await frames.next(), { event: 'goodbye', retry: Number })
    await inTime(
      new Promise<void>(resolve => (stream.closed ? resolve() : stream.once('close', () => resolve()))),
      'the end'
    )
    const turnedAway = await openStream(session, '/events/h2-drain', { accept: 'text/event-stream' })
    t.equal(turnedAway.headers[':status'], 200)
    t.match(await turnedAway.frames.next(), { event: 'goodbye', data: /shutdown/ })
    t.equal(await statusOf(session, '/readyz'), 503)
  })
})

function get(path: string): string {
  return `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`
}

async function statusOf(session: ClientHttp2Session, path: string): Promise<number | undefined> {
  return (await openStream(session, path)).headers[':status']
}

async function connectionsOf(server: TestServer): Promise<number | undefined> {
  return (await metricsOf(server)).get('ringside_connections{transport="sse"}') ?? 0
}
