/** Section 3 of the contract, **Compression**: the same events, in fewer bytes, each as soon as it has come. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createGunzip, gunzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { fetch } from 'undici'
import { ask, build, metricsOf, post, publish, publishAll, type TestServer } from '../support/app.ts'
import { makeCertificate } from '../support/certificate.ts'
import { curl, undiciClient } from '../support/clients.ts'
import { bodyOf } from '../support/gunzip.ts'
import { openSession, openStream } from '../support/http2.ts'
import { eventually } from '../support/inbox.ts'
import { rawConnection } from '../support/raw.ts'
import { listen, subscribe, type Reader } from '../support/reader.ts'
import { StrictParser, type Frame } from '../support/sse-parser.ts'

const SSE = { accept: 'text/event-stream' }
const GZIP = { ...SSE, 'accept-encoding': 'gzip' }

t.setTimeout(400_000)

t.test('who has it: who accepts gzip, unless the server or the address says no', async t => {
  const server = await build(t, { CORS_ORIGIN: 'https://page.example' })
  const headOf = async (path: string, headers: Record<string, string>, to = server) => {
    const reader = await subscribe(t, to, path, headers)
    reader.close()
    return reader.response.headers
  }
  for (const accepts of [
    'gzip',
    'gzip, deflate, br, zstd',
    'GZIP',
    '*',
    'br;q=1.0, gzip;q=0.8, *;q=0.1',
    'x-gzip, gzip'
  ]) {
    const headers = await headOf('/events/a', {
      ...SSE,
      'accept-encoding': accepts,
      origin: 'https://page.example'
    })
    t.equal(headers['content-encoding'], 'gzip', accepts)
    t.equal(headers['cache-control'], 'no-cache, no-transform')
    t.match(headers['vary'], /\bOrigin\b.*\bAccept, Accept-Encoding$/)
    t.equal(headers['content-length'], undefined)
  }
  for (const accepts of [
    '',
    'identity',
    'gzip;q=0',
    'br',
    'deflate, br',
    '*;q=0, identity',
    'identity, gzip;q=0.5'
  ]) {
    const headers = await headOf('/events/a', { ...SSE, 'accept-encoding': accepts })
    t.equal(headers['content-encoding'], undefined, accepts)
    t.match(headers['vary'], /Accept-Encoding/, 'it depends on it all the same')
  }
  t.equal((await headOf('/events/a', SSE))['content-encoding'], undefined, 'who says nothing')
  t.equal((await headOf('/events/a?compress=false', GZIP))['content-encoding'], undefined)
  t.equal((await headOf('/events/a?compress=true', GZIP))['content-encoding'], 'gzip')
  t.equal((await ask(server, '/events/a?compress=maybe', { headers: GZIP })).status, 400)
  for (const [path, accept] of [
    ['/events/a', 'application/x-ndjson'],
    ['/tickers?symbols=*', 'text/event-stream'],
    ['/notifications?user=alice', 'text/event-stream']
  ] as const)
    t.equal((await headOf(path, { ...GZIP, accept }))['content-encoding'], 'gzip', path)
  const head = await ask(server, '/events/a', { method: 'HEAD', headers: GZIP })
  t.match(head.headers, { 'content-encoding': 'gzip', vary: /Accept-Encoding/ })
  const page = await ask(server, '/events/a', { headers: { ...GZIP, accept: 'application/json' } })
  t.equal(page.headers['content-encoding'], undefined)
  t.same(page.json()['events'], [])
  const off = await build(t, { COMPRESS: 'false' })
  const headers = await headOf('/events/a', GZIP, off)
  t.equal(headers['content-encoding'], undefined)
  t.notMatch(headers['vary'], /Accept-Encoding/)
})

/** What was published, as it came. */
const published = ({ messages }: Reader) => messages.map(({ event, data, id }) => `${event} ${data} ${id}`)

t.test('each event can be read as soon as it has come, and all is as without compression', async t => {
  const server = await build(t, { HEARTBEAT: '200ms' })
  const bare = await listen(t, server, '/events/told', SSE)
  const readers = [
    await listen(t, server, '/events/told', GZIP),
    await listen(t, server, '/events/told', GZIP)
  ]
  for (let n = 1; n <= 150; n++) {
    if (n % 40 === 0) readers.push(await listen(t, server, `/events/told?after=${bare.cursor}`, GZIP))
    await publish(server, 'told', `${n} ${'large '.repeat(n % 9 === 8 ? n * 50 : 1)}`)
    for (const reader of [bare, ...readers]) await reader.until(n)
  }
  for (const reader of readers) t.strictSame(published(reader), published(bare))
  await readers[0]!.frames.until(
    () => readers[0]!.frames.all.filter(({ event }) => event === 'cursor').length > 2,
    'keep-alives'
  )
})

t.test('ndjson, and what it is told besides', async t => {
  const server = await build(t)
  const lines = { accept: 'application/x-ndjson' }
  const [bare, compressed] = [
    textOf(t, server, '/events/lines?rewind=5', lines),
    textOf(t, server, '/events/lines?rewind=5', { ...lines, 'accept-encoding': 'gzip' })
  ]
  for (let n = 0; n < 40; n++) {
    await publish(server, 'lines', `${n}`)
    await eventually(compressed.text, text => text.includes(`"data":${n}}`), `line ${n}`)
  }
  server.app.ringside.hub.gap('lost', ['lines'])
  await eventually(compressed.text, text => text.endsWith('}\n') && text.includes('"type":"gap"'), 'a gap')
  await eventually(bare.text, text => text === compressed.text(), 'the same')
  await server.app.ringside.drain()
  await compressed.ended
  t.match(compressed.text(), /"type":"goodbye".*\n$/)
})

t.test('clients as they are: each has every event at once', async t => {
  const server = await build(t)
  const page = await fetch(`${server.url}/events/clients`, { headers: SSE })
  t.equal(page.headers.get('content-encoding'), 'gzip', 'undici asks for it by itself')
  const parser = new StrictParser()
  const frames: Frame[] = []
  const reading = (async () => {
    for await (const chunk of page.body!) frames.push(...parser.push(Buffer.from(chunk as Uint8Array)))
  })()
  const command = curl(t, `${server.url}/events/clients`, ['--compressed'])
  const source = undiciClient(t, `${server.url}/events/clients`)
  await command.frames.next()
  await source.received.next()
  for (let n = 0; n < 60; n++) {
    const id = await publish(server, 'clients', `${n}`)
    await eventually(
      () => frames.at(-1)?.id,
      last => last === id,
      `event ${n}, by a fetch`
    )
    t.match(await command.frames.next(), { data: `${n}`, id })
    t.match(await source.received.next(), { data: `${n}`, lastEventId: id })
  }
  await server.app.ringside.drain()
  await reading
  t.equal(frames.at(-1)?.event, 'goodbye')
  t.equal(await command.exited, 0, 'curl has seen a whole trailer')
})

t.test('over HTTP/2, and to HTTP/1.0', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'ringside-gzip-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const { ca, ...files } = makeCertificate(folder)
  const server = await build(t, files)
  const session = await openSession(t, server.url.replace('http:', 'https:'), ca)
  const { stream, headers } = await openStream(session, '/events/two', {
    ...GZIP,
    accept: 'application/x-ndjson'
  })
  t.equal(headers['content-encoding'], 'gzip')
  let text = ''
  const gunzip = stream.pipe(createGunzip())
  gunzip.on('data', (chunk: Buffer) => void (text += chunk.toString()))
  const ended = new Promise((resolve, reject) => gunzip.on('end', resolve).on('error', reject))
  const publishOver = (data: string) => openStream(session, '/events/two', { ':method': 'POST' }, data)
  for (let n = 0; n < 50; n++) {
    await publishOver(`${n}`)
    await eventually(
      () => text,
      read => read.includes(`"data":${n}}`),
      `event ${n}`
    )
  }
  await server.app.ringside.drain()
  await ended

  const old = await build(t)
  const connection = rawConnection(t, old)
  connection.send('GET /events/old HTTP/1.0\r\nAccept-Encoding: gzip\r\nAccept: text/event-stream\r\n\r\n')
  await connection.until('\r\n\r\n\x1f\x8b')
  for (let n = 0; n < 3; n++) await publish(old, 'old', 'of an older time')
  await old.app.ringside.drain()
  const all = await connection.closed
  const body = gunzipSync(Buffer.from(all.slice(all.indexOf('\r\n\r\n') + 4), 'latin1')).toString()
  t.match(body, /(data: of an older time\n[^]*){3}event: goodbye/)
})

t.test('a reader that lags, and one that comes back, miss nothing', async t => {
  const server = await build(t, { SEND_BUFFER: '16 KiB', STALL_TIMEOUT: '60s', RING_SIZE: '5000' })
  const stream = await listen(t, server, '/events/lag', GZIP)
  const live = await listen(t, server, '/events/lag', GZIP)
  stream.pause()
  const count = 1500
  for (let n = 0; n < count; n += 50) {
    // nothing that could be compressed
    const data = () =>
      Buffer.from(Array.from({ length: 6000 }, () => 33 + Math.floor(Math.random() * 90))).toString()
    await publishAll(
      server,
      Array.from({ length: 50 }, () => ({ topic: 'lag', data: data() }))
    )
  }
  await eventually(
    () => metricsOf(server),
    metrics => metrics.get('ringside_lagging_connections') === 1,
    'a lag'
  )
  const later = await listen(t, server, `/events/lag?after=${stream.cursor}`, GZIP)
  stream.resume()
  await live.until(count)
  await stream.until(count)
  await later.until(count)
  t.strictSame(published(stream), published(live))
  t.strictSame(published(later), published(live))
  await server.app.ringside.drain()
  for (const reader of [stream, live, later]) t.equal((await reader.whole()).at(-1)?.event, 'goodbye')
})

t.test('a stream ends whole: with its topics, and a snapshot that many share', async t => {
  const server = await build(t)
  const streams = [await listen(t, server, '/events/job', GZIP), await listen(t, server, '/events/job', GZIP)]
  for (let n = 0; n < 40; n++) await publish(server, 'job', `${n} %`)
  await post(server, '/events/job?end=true', 'done')
  for (const stream of streams) t.equal((await stream.whole()).at(-1)?.event, 'end')

  const put = {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(large())
  }
  t.equal((await ask(server, '/dashboards/ops', put)).status, 201)
  const boards = await Promise.all([1, 2, 3].map(() => subscribe(t, server, '/dashboards/ops', GZIP)))
  const patch = { method: 'PATCH', headers: { 'content-type': 'application/merge-patch+json' } }
  for (const board of boards)
    t.match(await board.next(), { event: 'snapshot', data: JSON.stringify(large()) })
  for (let n = 0; n < 20; n++) await ask(server, '/dashboards/ops', { ...patch, body: `{"n":${n}}` })
  await server.app.ringside.drain()
  for (const board of boards) {
    const patches = (await board.whole()).filter(({ event }) => event === 'patch')
    t.strictSame(
      patches.map(({ data }) => data),
      Array.from({ length: 20 }, (_, n) => `{"n":${n}}`)
    )
  }
})

t.test('who is turned away is told so as it is', async t => {
  const server = await build(t, { MAX_CONNECTIONS: '1' })
  await listen(t, server, '/events/full', GZIP)
  const { response, ...reader } = await subscribe(t, server, '/events/full', GZIP)
  t.equal(response.headers['content-encoding'], undefined)
  t.match(await reader.frames.next(), { event: 'goodbye' })
})

t.test(
  'recorded quotes take less than a fourth of the bytes, and those are what the metrics count',
  async t => {
    const server = await build(t)
    const streams = await Promise.all(
      Array.from({ length: 5 }, () => listen(t, server, '/events/ticks', GZIP))
    )
    const bare = await listen(t, server, '/events/ticks', SSE)
    const sent = async () => (await metricsOf(server)).get('ringside_bytes_sent_total{transport="sse"}') ?? 0
    const read = ({ response }: Reader) => response.socket.bytesRead
    const quotes = recorded()
    let told = 0
    const tell = async (count: number) => {
      for (const quote of quotes.slice(told, told + count)) {
        await post(server, '/events/ticks?type=quote', quote, { 'content-type': 'application/json' })
        await Promise.all([...streams, bare].map(stream => stream.until(told + 1)))
        told++
      }
    }
    await tell(64)
    const before = { sent: await sent(), streams: streams.map(read), bare: read(bare) }
    await tell(400)
    const compressed = streams.map((stream, index) => read(stream) - before.streams[index]!)
    const uncompressed = read(bare) - before.bare
    t.equal(
      (await sent()) - before.sent,
      compressed.reduce((sum, bytes) => sum + bytes, uncompressed)
    )
    for (const bytes of compressed)
      t.ok(uncompressed / bytes > 4, `${(uncompressed / bytes).toFixed(2)} times`)
  }
)

/** The prices that the repository has, as quotes. */
function recorded(): string[] {
  const [, ...rows] = readFileSync(new URL('../../data/stocks.csv', import.meta.url), 'utf8')
    .trim()
    .split('\n')
  return rows.map(row => {
    const [symbol, date, price] = row.split(',')
    return JSON.stringify({ symbol, date, price: Number(price), currency: 'USD' })
  })
}

/** An object of some KiB. */
function large(): Record<string, string> {
  return Object.fromEntries(Array.from({ length: 200 }, (_, n) => [`value${n}`, `${n}`.repeat(20)]))
}

/** The text of a stream, whatever its type and its coding. */
function textOf(t: Test, { port }: TestServer, path: string, headers: Record<string, string>) {
  const chunks: Buffer[] = []
  const ended = new Promise<void>((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, path, headers, agent: false }, response => {
      const body = bodyOf(response)
      body
        .on('data', (chunk: Buffer) => chunks.push(chunk))
        .on('end', resolve)
        .on('error', reject)
    })
    t.teardown(() => sent.destroy())
    sent.end()
  })
  ended.catch(() => {}) // whoever awaits it hears of it
  return { ended, text: () => Buffer.concat(chunks).toString() }
}
