import { X509Certificate } from 'node:crypto'
import { once, type EventEmitter } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { constants, createSecureServer, type ClientHttp2Session } from 'node:http2'
import { request as httpsRequest } from 'node:https'
import { connect as connectTcp, type AddressInfo, type Socket } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import t, { type Test } from 'tap'
import { Tls } from '../../src/net/tls.ts'
import { build, post } from '../support/app.ts'
import { launchChromium } from '../support/browser.ts'
import { makeCertificate } from '../support/certificate.ts'
import { openSession, openStream } from '../support/http2.ts'
import { eventually, inTime } from '../support/inbox.ts'
import { exitOf, serve, type Run } from '../support/process.ts'

// processes, certificates, and a browser
t.setTimeout(400_000)

const folder = t.testdir({ first: {}, second: {} })
const first = makeCertificate(join(folder, 'first'))
const second = makeCertificate(join(folder, 'second'))
const { ca } = first
const files = { TLS_CERT: first.TLS_CERT, TLS_KEY: first.TLS_KEY }

// --- the certificate ---

t.test('it says until when the certificate is valid that it shows', async t => {
  const tls = new Tls({ ...files, SEND_BUFFER: 65_536 }, { request: 1000 })
  t.ok(tls.options)
  t.equal(tls.expires, Date.parse(new X509Certificate(readFileSync(files.TLS_CERT)).validTo))
})

t.test('SIGHUP reads the certificate again', async t => {
  const live = t.testdir({})
  const { ca: oldCa, ...paths } = makeCertificate(live)
  const server = await serve(t, { ...paths, LOG_LEVEL: 'info' })
  const old = await openSession(t, server.url, oldCa)
  const stream = await openStream(old, '/events/a')
  await stream.frames.next()
  const before = await fingerprintOf(t, server.port)

  const renewed = makeCertificate(live)
  t.test('for new connections', async t => {
    server.child.kill('SIGHUP')
    const after = await eventually(
      () => fingerprintOf(t, server.port),
      fingerprint => fingerprint !== before,
      'another certificate'
    )
    const session = await openSession(t, server.url, renewed.ca)
    const posted = await openStream(session, '/events/a', { ':method': 'POST' }, 'after')
    t.equal(posted.headers[':status'], 201, 'that is trusted')
    t.equal(await fingerprintOf(t, server.port), after)
    t.match(server.stdout(), /read again; it is valid until/)
  })

  t.test('and an open stream lives on', async t => {
    t.match(await stream.frames.next(), { data: 'after' })
    t.equal((await openStream(old, '/livez')).headers[':status'], 200, 'as does its connection')
  })

  for (const [name, cert, key] of [
    ['no PEM', 'nonsense', null],
    ['of another key', second.ca, null],
    ['whose key is no PEM', null, 'nonsense']
  ] as const) {
    t.test(`but not one ${name}: that is logged, and the old one stays`, async t => {
      const fingerprint = await fingerprintOf(t, server.port)
      const complaints = () => server.stdout().split('the certificate stays as it was: TLS_').length
      const count = complaints()
      if (cert !== null) writeFileSync(paths.TLS_CERT, cert)
      if (key !== null) writeFileSync(paths.TLS_KEY, key)
      server.child.kill('SIGHUP')
      await eventually(complaints, now => now === count + 1, 'a line in the log')
      t.equal(await fingerprintOf(t, server.port), fingerprint)
      t.equal((await openStream(old, '/livez')).headers[':status'], 200)
    })
  }

  t.test('and a good one again', async t => {
    const fingerprint = await fingerprintOf(t, server.port)
    makeCertificate(live)
    server.child.kill('SIGHUP')
    await eventually(
      () => fingerprintOf(t, server.port),
      now => now !== fingerprint,
      'another certificate'
    )
    t.equal(server.stderr(), '')
  })
})

t.test('SIGHUP does nothing to a server without TLS, but to the rules for topics', async t => {
  const TOPICS = join(t.testdir({}), 'topics.json')
  writeFileSync(TOPICS, '[]')
  const server = await serve(t, { LOG_LEVEL: 'info', TOPICS })
  const hangUp = async (rules: string, says: string) => {
    writeFileSync(TOPICS, rules)
    server.child.kill('SIGHUP')
    await eventually(
      () => server.stdout(),
      log => log.includes(says),
      'a line in the log'
    )
  }
  await hangUp('[{"match":"a","maxEventBytes":3}]', 'the rules for topics were read again; there are 1')
  await hangUp('[{"match":"a"},\n{}]', `stay as they were: TOPICS=${TOPICS}: line 2: match: it is missing`)
  t.match(server.stdout(), 'no certificate to read again')
  t.equal((await post(server, '/events/a', '1234')).status, 413, 'those of before go on')
  server.child.kill('SIGTERM')
  t.strictSame(await exitOf(server), { code: 0, signal: null })
})

t.test('TLS 1.2 and 1.3 are spoken, and nothing older', async t => {
  const server = await build(t, files)
  const versionOf = (version: 'TLSv1.1' | 'TLSv1.2' | 'TLSv1.3') =>
    new Promise<string | null>((resolve, reject) => {
      const ends = { minVersion: version, maxVersion: version } as const
      const socket = connectTls({ ...to(server), ...ends, ciphers: 'DEFAULT@SECLEVEL=0' })
      t.teardown(() => socket.destroy())
      socket.on('error', reject)
      socket.once('secureConnect', () => resolve(socket.getProtocol()))
    })
  t.equal(await versionOf('TLSv1.3'), 'TLSv1.3')
  t.equal(await versionOf('TLSv1.2'), 'TLSv1.2')
  await t.rejects(versionOf('TLSv1.1'), { code: 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION' })
})

// --- a browser ---

t.test('Chromium has more EventSources on one connection than HTTP/1.1 has connections', async t => {
  const server = await build(t, { ...files, RETRY: '100ms' })
  const session = await openSession(t, server.url, ca)
  const browser = await launchChromium()
  t.teardown(() => browser.close())
  const page = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage()
  await page.goto(`${server.url}/livez`)
  t.equal(await page.evaluate<string>(`performance.getEntriesByType('navigation')[0].nextHopProtocol`), 'h2')
  const count = 120
  await page.evaluate(`
    globalThis.got = Array.from({ length: ${count} }, () => [])
    for (const [index, got] of globalThis.got.entries()) {
      const source = new EventSource('/events?topic=all&topic=own/' + index)
      source.onmessage = ({ data }) => got.push(data)
    }
  `)
  const { sessions } = server.app.ringside.hub
  const live = () => [...sessions].filter(({ state }) => state === 'live').length
  await eventually(live, open => open === count, `${count} streams`)
  const got = () => page.evaluate<string[][]>('globalThis.got')
  const publish = async (topic: string, data: string) => {
    const { headers } = await openStream(session, `/events/${topic}`, { ':method': 'POST' }, data)
    t.equal(headers[':status'], 201)
  }
  await publish('all', 'one')
  await publish('own/7', 'two')
  const upTo = (...data: string[]) =>
    eventually(
      got,
      lists => lists.every((list, index) => list.length === (index === 7 ? data.length + 1 : data.length)),
      'all events'
    )
  t.strictSame((await upTo('one'))[7], ['one', 'two'])

  t.test('and each comes back to where it was', async t => {
    for (const each of [...sessions]) each.goodbye('shutdown', 100)
    await publish('all', 'missed')
    await eventually(live, open => open === count, 'all streams again')
    await publish('all', 'three')
    const lists = await upTo('one', 'missed', 'three')
    t.strictSame(lists[7], ['one', 'two', 'missed', 'three'])
    t.ok(lists.every(list => list.at(-1) === 'three' && list.at(-2) === 'missed'))
  })
})

// --- what a connection may take its time for ---

t.test('a connection that nobody uses is ended', async t => {
  const patience = { handshake: 300, request: 300, idle: 300 }
  const tls = new Tls({ ...files, SEND_BUFFER: 1000 }, patience)
  const server = createSecureServer(tls.options, (request, response) => {
    if (request.url === '/stream') return void response.write('begun')
    request.resume().on('end', () => response.end('whole'))
  })
  tls.guard(server)
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  const at = { url: `https://127.0.0.1:${port}`, port }

  t.test('when it has never begun to speak TLS', async t => {
    const socket = connectTcp(port, '127.0.0.1')
    t.teardown(() => socket.destroy())
    await ended(socket)
  })

  t.test('when it was never asked for anything over HTTP/2, whatever else it says', async t => {
    const session = await openSession(t, at.url, ca)
    const pinging = setInterval(() => session.destroyed || session.ping(() => {}), 50)
    t.teardown(() => clearInterval(pinging))
    await ended(session)
  })

  t.test('when its last stream is over', async t => {
    const session = await openSession(t, at.url, ca)
    const { stream } = await openStream(session, '/')
    await ended(stream)
    await ended(session)
  })

  t.test('when its peer never closes its own side', async t => {
    const socket = await openRaw(t, at, { allowHalfOpen: true })
    socket.write(PREFACE)
    await eventually(
      () =>
        new Promise<number>((resolve, reject) =>
          server.getConnections((error, count) => (error ? reject(error) : resolve(count)))
        ),
      count => count === 0,
      'no connection'
    )
  })

  t.test('when its request never comes whole', async t => {
    const session = await openSession(t, at.url, ca)
    const stream = session.request({ ':path': '/', ':method': 'POST' }, { endStream: false })
    stream.write('half')
    stream.on('error', () => {})
    await ended(stream)
    t.equal(stream.rstCode, constants.NGHTTP2_CANCEL)
    await ended(session)
  })

  t.test('when it has its answer, over HTTP/1.1', async t => {
    const socket = await openRaw(t, at, { ALPNProtocols: ['http/1.1'] })
    socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
    const [head] = await Promise.all([once(socket, 'data'), ended(socket)])
    t.match(String(head), /^HTTP\/1\.1 200 /)
  })

  t.test('but not while a stream is open that says nothing', async t => {
    const session = await openSession(t, at.url, ca)
    const { stream } = await openStream(session, '/stream')
    // two that are idle come and go meanwhile, one after the other
    for (let round = 0; round < 2; round++) await ended(await openSession(t, at.url, ca))
    t.notOk(session.closed || stream.closed)
    await new Promise<void>((resolve, reject) => session.ping(error => (error ? reject(error) : resolve())))
  })
})

t.test('over HTTP/1.1, too, a request has a Host', async t => {
  const server = await build(t, files)
  const socket = await openRaw(t, server, { ALPNProtocols: ['http/1.1'] })
  socket.write('GET /livez HTTP/1.1\r\n\r\n')
  t.match(String(await once(socket, 'data')), /^HTTP\/1\.1 400 /)
})

// --- the stop ---

t.test('SIGTERM lets a connection of HTTP/2 end with the streams that it has', async t => {
  const server = await serve(t, { ...files, DRAIN: '2s', RETRY: '100ms' })
  const session = await openSession(t, server.url, ca)
  const streams = await Promise.all(Array.from({ length: 20 }, () => openStream(session, '/events/a')))
  await Promise.all(streams.map(({ frames }) => frames.next()))
  const goaway = new Promise<number>(resolve => session.once('goaway', resolve))
  server.child.kill('SIGTERM')
  t.equal(await inTime(goaway, 'GOAWAY'), constants.NGHTTP2_NO_ERROR, 'at once')
  t.ok(streams.filter(({ stream }) => !stream.closed).length > 10, 'the streams live on')

  const late = await openSession(t, server.url, ca)
  const posted = await openStream(late, '/events/a', { ':method': 'POST' }, 'late')
  t.equal(posted.headers[':status'], 201, 'who comes anew is still served')
  await ended(late)
  const turnedAway = await openSession(t, server.url, ca)
  const { frames } = await openStream(turnedAway, '/events/a', { accept: 'text/event-stream' })
  t.match(await frames.next(), { event: 'goodbye', data: /shutdown/ })
  await ended(turnedAway)

  const told = await Promise.all(
    streams.map(async ({ frames, stream }) => {
      await ended(stream)
      return frames.all
    })
  )
  for (const all of told) t.match(all.at(-1), { event: 'goodbye', data: /shutdown/ })
  t.ok(told.some(all => all.some(({ data }) => data === 'late')))
  t.strictSame(await exitOf(server), { code: 0, signal: null })
  t.equal(server.stderr(), '')
})

const CONNECTIONS: Record<
  string,
  (t: Test, server: Run & { url: string; port: number }) => Promise<unknown>
> = {
  'that has not begun to speak TLS': async (t, { port }) => {
    const socket = connectTcp(port, '127.0.0.1').on('error', () => {})
    t.teardown(() => socket.destroy())
    await once(socket, 'connect')
  },
  'of HTTP/2 that was never asked for anything': (t, { url }) => openSession(t, url, ca),
  'of HTTP/2 that has had its answer': async (t, { url }) =>
    openStream(await openSession(t, url, ca), '/livez'),
  'of HTTP/2 with half a request': async (t, { url }) => {
    const session = await openSession(t, url, ca)
    session.request({ ':path': '/events/a', ':method': 'POST' }, { endStream: false }).on('error', () => {})
    await statusOf(session)
  },
  'of HTTP/2 whose streams are not read': async (t, { url, port }) => {
    const socket = await openRaw(t, { port })
    socket.write(Buffer.concat([PREFACE, settings([[4, 0]]), get(1, '/events/a'), get(3, '/metrics')]))
    await statusOf(await openSession(t, url, ca))
  },
  'that never closes its own side': async (t, { url, port }) => {
    const socket = await openRaw(t, { port }, { allowHalfOpen: true })
    socket.write(Buffer.concat([PREFACE, get(1, '/events/a')]))
    await statusOf(await openSession(t, url, ca))
  },
  'of HTTP/1.1 that is kept alive': async (t, { port }) => {
    const socket = await openRaw(t, { port }, { ALPNProtocols: ['http/1.1'] })
    socket.write('GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n')
    await once(socket, 'data')
  },
  'of HTTP/1.1 whose stream ends': (t, { url }) =>
    new Promise((resolve, reject) => {
      const request = httpsRequest(`${url}/events/a`, { ca, agent: false }, response => {
        response.on('error', () => {}).once('data', resolve)
      })
      t.teardown(() => request.destroy())
      request.on('error', reject).end()
    })
}

for (const [name, hold] of Object.entries(CONNECTIONS)) {
  t.test(`a connection ${name} does not keep the process from its end, with 0`, async t => {
    const server = await serve(t, { ...files, DRAIN: '0' })
    await hold(t, server)
    server.child.kill('SIGTERM')
    t.strictSame(await exitOf(server), { code: 0, signal: null })
    t.equal(server.stderr(), '')
  })
}

// --- attacks on HTTP/2 ---

t.test('attacks on HTTP/2', async t => {
  const server = await build(t, { ...files, STALL_TIMEOUT: '500ms' })
  const witness = await openSession(t, server.url, ca)
  const stream = await openStream(witness, '/events/witness')
  await stream.frames.next()

  function attack(name: string, mount: (t: Test) => Promise<void>): void {
    t.test(name, async t => {
      await mount(t)
      const posted = await openStream(witness, '/events/witness', { ':method': 'POST' }, name)
      t.equal(posted.headers[':status'], 201)
      t.match(await stream.frames.next(), { data: name }, 'another connection has not noticed')
    })
  }

  // CVE-2023-44487: work that is asked for and cancelled at once costs its client nothing.
  attack('rapid reset', async t => {
    const { sessions } = server.app.ringside.hub
    const socket = await openRaw(t, server)
    const frames = framesOf(socket)
    socket.write(PREFACE)
    const count = 20_000
    for (let index = 0; index < count; index++) {
      const id = 2 * index + 1
      const cancel = frame(RST_STREAM, 0, id, Buffer.from([0, 0, 0, constants.NGHTTP2_CANCEL]))
      socket.write(Buffer.concat([get(id, '/events/a'), cancel]))
    }
    await eventually(
      () => frames.some(({ type }) => type === GOAWAY),
      told => told,
      'GOAWAY'
    )
    await eventually(
      () => sessions.size,
      size => size === 1,
      'the witness alone'
    )
    const { values } = await server.app.ringside.metrics.connectionsOpened.get()
    t.ok(values[0]!.value < count / 4, `${values[0]!.value} of ${count} were begun`)
  })

  // CVE-2024-27983 and its like: headers that never end are kept until they do.
  attack('headers without end', async t => {
    const socket = await openRaw(t, server)
    socket.write(Buffer.concat([PREFACE, frame(HEADERS, 0, 1, Buffer.from([0x82, 0x84, 0x87]))]))
    const more = frame(CONTINUATION, 0, 1, literal('x', 'y'.repeat(10_000)))
    await pour(
      socket,
      Array.from({ length: 1000 }, () => more)
    )
  })

  attack('more headers than HTTP/1.1 may have', async t => {
    const session = await openSession(t, server.url, ca)
    t.equal(await statusOf(session), 200)
    const fields = Array.from({ length: 20 }, (_, index) => [`x-${index}`, 'y'.repeat(1000)])
    await t.rejects(openStream(session, '/livez', Object.fromEntries(fields) as Record<string, string>))
    t.equal(await statusOf(session), 200, 'that ends the one stream')
  })

  // Each of them must be answered, and the answers must not be kept without end.
  for (const [name, question] of Object.entries({
    pings: frame(PING, 0, 0, Buffer.alloc(8)),
    settings: settings([[4, 1000]])
  })) {
    attack(`${name} whose answers are not read`, async t => {
      const socket = await openRaw(t, server)
      socket.write(PREFACE)
      socket.pause()
      const many = Buffer.concat(Array.from({ length: 1000 }, () => question))
      await pour(
        socket,
        Array.from({ length: 1000 }, () => many)
      )
    })
  }

  // The peer says how much it takes, so that it can make what is written wait.
  attack('answers that are not read', async t => {
    const socket = await openRaw(t, server)
    socket.write(Buffer.concat([PREFACE, settings([[4, 0]])]))
    const frames = framesOf(socket)
    socket.write(Buffer.concat([get(1, '/metrics'), get(3, '/openapi.json'), get(5, '/nothing')]))
    await eventually(
      () =>
        frames
          .filter(({ type }) => type === RST_STREAM)
          .map(({ id }) => id)
          .sort(),
      ids => ids.join() === '1,3,5',
      'the end of each'
    )
  })

  attack('a goodbye that is not read', async t => {
    const { sessions } = server.app.ringside.hub
    const socket = await openRaw(t, server)
    const frames = framesOf(socket)
    socket.write(Buffer.concat([PREFACE, settings([[4, 0]]), get(1, '/events/a')]))
    await eventually(
      () => sessions.size,
      size => size === 2,
      'the stream'
    )
    ;[...sessions].at(-1)!.goodbye('expired', 1000)
    await eventually(
      () => frames.some(({ type }) => type === RST_STREAM),
      reset => reset,
      'its end'
    )
  })

  attack('more streams than one connection may have', async t => {
    const most = witness.remoteSettings.maxConcurrentStreams!
    t.ok(most >= 100 && most <= 1000, `${most}`)
    const socket = await openRaw(t, server)
    const frames = framesOf(socket)
    socket.write(PREFACE)
    const ids = Array.from({ length: most + 10 }, (_, index) => 2 * index + 1)
    socket.write(Buffer.concat(ids.map(id => get(id, '/events/a'))))
    await eventually(
      () => frames.filter(({ type }) => type === RST_STREAM).length,
      count => count === 10,
      'ten that are refused'
    )
    await eventually(
      () => server.app.ringside.hub.sessions.size,
      size => size === most + 1,
      'all others, and no more'
    )
  })
})

// --- frames as they are (RFC 9113, section 4.1) ---

const HEADERS = 1
const RST_STREAM = 3
const SETTINGS = 4
const PING = 6
const GOAWAY = 7
const CONTINUATION = 9

const END_STREAM_AND_HEADERS = 5

function frame(type: number, flags: number, id: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head.writeUInt8(type, 3)
  head.writeUInt8(flags, 4)
  head.writeUInt32BE(id, 5)
  return Buffer.concat([head, payload])
}

function settings(pairs: readonly (readonly [id: number, value: number])[]): Buffer {
  const payload = Buffer.alloc(6 * pairs.length)
  for (const [index, [id, value]] of pairs.entries()) {
    payload.writeUInt16BE(id, 6 * index)
    payload.writeUInt32BE(value, 6 * index + 2)
  }
  return frame(SETTINGS, 0, 0, payload)
}

/** A header field that no table keeps (RFC 7541, section 6.2.2). */
function literal(name: string, value: string): Buffer {
  return Buffer.concat([Buffer.from([0]), hpackString(name), hpackString(value)])
}

function hpackString(text: string): Buffer {
  const prefix: number[] = []
  let length = text.length
  if (length < 127) prefix.push(length)
  else {
    prefix.push(127)
    for (length -= 127; length >= 128; length >>= 7) prefix.push((length & 127) | 128)
    prefix.push(length)
  }
  return Buffer.concat([Buffer.from(prefix), Buffer.from(text, 'latin1')])
}

/** GET over https: both are in the static table, as are the names of the authority (1) and the path (4). */
function get(id: number, path: string): Buffer {
  const fields = [[0x82, 0x87, 1], hpackString('localhost'), [4], hpackString(path)].map(part =>
    Buffer.from(part)
  )
  return frame(HEADERS, END_STREAM_AND_HEADERS, id, Buffer.concat(fields))
}

const PREFACE = Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), settings([])])

/** The frames that come, as they come. */
function framesOf(socket: Socket): { readonly type: number; readonly id: number }[] {
  const frames: { type: number; id: number }[] = []
  let rest = Buffer.alloc(0)
  socket.on('data', (chunk: Buffer) => {
    rest = Buffer.concat([rest, chunk])
    while (rest.length >= 9 && rest.length >= 9 + rest.readUIntBE(0, 3)) {
      frames.push({ type: rest[3]!, id: rest.readUInt32BE(5) })
      rest = rest.subarray(9 + rest.readUIntBE(0, 3))
    }
  })
  return frames
}

// --- connections ---

function to({ port }: { port: number }) {
  return { port, host: '127.0.0.1', ca, ALPNProtocols: ['h2', 'http/1.1'] }
}

/** A connection on which only TLS is spoken for us. */
async function openRaw(
  t: Test,
  at: { port: number },
  options: { allowHalfOpen?: boolean; ALPNProtocols?: string[] } = {}
): Promise<TLSSocket> {
  const socket = connectTls({ ...to(at), ...options })
  t.teardown(() => socket.destroy())
  socket.on('error', () => {}).resume() // 'close' follows
  await inTime(new Promise(resolve => socket.once('secureConnect', resolve)), 'a connection')
  return socket
}

async function fingerprintOf(t: Test, port: number): Promise<string> {
  const socket = connectTls({ ...to({ port }), rejectUnauthorized: false })
  t.teardown(() => socket.destroy())
  await inTime(
    new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject)),
    'a connection'
  )
  const { fingerprint256 } = socket.getPeerCertificate()
  socket.destroy()
  return fingerprint256
}

async function statusOf(session: ClientHttp2Session): Promise<number | undefined> {
  return (await openStream(session, '/livez')).headers[':status']
}

/** Sends as much of it as the other side takes before it ends the connection, which it must. */
async function pour(socket: Socket, chunks: readonly Buffer[]): Promise<void> {
  for (const chunk of chunks) {
    if (socket.destroyed) break
    if (socket.write(chunk)) continue
    await new Promise<void>(resolve => {
      const goOn = () => {
        socket.off('drain', goOn).off('close', goOn)
        resolve()
      }
      socket.on('drain', goOn).on('close', goOn)
    })
  }
  await ended(socket)
}

/** Resolves once it is closed, whoever closes it. */
function ended(closing: EventEmitter & { readonly destroyed: boolean }): Promise<unknown> {
  return inTime(closing.destroyed ? Promise.resolve() : once(closing, 'close').then(() => {}), 'the end')
}
