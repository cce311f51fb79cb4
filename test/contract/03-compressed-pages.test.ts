/** Section 3 of the contract, **Compression**: pages and documents too, by their size. */
import { createHash } from 'node:crypto'
import { request, type IncomingHttpHeaders } from 'node:http'
import { gunzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { fetch } from 'undici'
import { ask, build, isProblem, metricsOf, post, publishAll, type TestServer } from '../support/app.ts'
import { rawConnection } from '../support/raw.ts'
import { bearer, SECRET, tokenOf } from '../support/tokens.ts'

const JSON_PAGE = { accept: 'application/json' }
const GZIP = { ...JSON_PAGE, 'accept-encoding': 'gzip' }

/** What came over the wire. */
interface Came {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

function get(
  { port }: TestServer,
  path: string,
  headers: Record<string, string> = GZIP,
  method = 'GET'
): Promise<Came> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, path, method, headers, agent: false }, response => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('error', reject)
      response.on('end', () =>
        resolve({ status: response.statusCode!, headers: response.headers, body: Buffer.concat(chunks) })
      )
    })
    sent.on('error', reject).end()
  })
}

/** Text that is compressed to three quarters at best, the same each time, and not ASCII alone. */
function noise(bytes: number, seed: string): string {
  let text = 'é😀'
  for (let n = 0; text.length < bytes; n++)
    text += createHash('sha512').update(`${seed}${n}`).digest('base64')
  return text.slice(0, bytes)
}

/** Puts a dashboard of so many bytes, about. */
const putDashboard = (server: TestServer, id: string, bytes: number) =>
  putText(server, id, 'a value '.repeat(bytes / 8))

async function putText(server: TestServer, id: string, text: string): Promise<void> {
  const headers = { 'content-type': 'application/json' }
  const body = JSON.stringify({ text })
  const { status } = await ask(server, `/dashboards/${id}`, { method: 'PUT', headers, body })
  if (status !== 201) throw new Error(`not put: ${status}`)
}

/** Asks for a dashboard so often in one turn of the server; gives back all that has come. */
function askOften(t: Test, server: TestServer, path: string, count: number): Promise<string> {
  const connection = rawConnection(t, server)
  const head = 'Host: localhost\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\n'
  connection.send(`GET ${path} HTTP/1.1\r\n${head}\r\n`.repeat(count - 1))
  connection.send(`GET ${path} HTTP/1.1\r\n${head}Connection: close\r\n\r\n`)
  return connection.closed
}

t.test('whatever is read and is larger than 1 KiB, for who accepts gzip', async t => {
  const server = await build(t, { JWT_SECRET: SECRET, CORS_ORIGIN: 'https://page.example' })
  const admin = bearer(await tokenOf({ ringside: { subscribe: ['**'], publish: ['**'], admin: true } }))
  const publishing = { ...admin, 'content-type': 'application/json' }
  const events = Array.from({ length: 400 }, (_, n) => ({ topic: 'a', data: { n } }))
  t.equal((await post(server, '/events', JSON.stringify(events), publishing)).status, 201)
  const quotes = Array.from({ length: 60 }, (_, n) => ({ symbol: `S${n}`, price: n }))
  await post(server, '/tickers', JSON.stringify(quotes), publishing)
  for (let n = 0; n < 30; n++) {
    await post(server, '/notifications', JSON.stringify({ to: 'alice', title: `${n}` }), publishing)
    await ask(server, `/dashboards/d${n}`, {
      method: 'PUT',
      headers: publishing,
      body: JSON.stringify({ text: 'a value '.repeat(300) })
    })
  }
  for (const path of [
    '/events/a?rewind=20', // at once, and in another thread
    '/events/a?rewind=400&limit=400',
    '/tickers?symbols=*',
    '/notifications',
    '/dashboards',
    '/dashboards/d1',
    '/metrics',
    '/openapi.json'
  ]) {
    const headers = { ...admin, ...JSON_PAGE, origin: 'https://page.example' }
    const plain = await get(server, path, headers)
    const { status, headers: said, body } = await get(server, path, { ...headers, 'accept-encoding': 'gzip' })
    t.equal(status, 200, path)
    t.equal(said['content-encoding'], 'gzip', path)
    t.equal(said['content-length'], String(body.length), path)
    for (const head of [said, plain.headers]) t.match(head['vary'], /\bOrigin\b.*\bAccept-Encoding\b/i, path)
    t.equal(said['content-type'], plain.headers['content-type'])
    t.equal(
      said['etag'],
      plain.headers['etag'],
      'the version of a dashboard is a cursor, whatever its coding'
    )
    t.equal(plain.headers['content-encoding'], undefined)
    const textOf = (bytes: Buffer) => bytes.toString().replace(/"cursor":"[^"]+"/, '')
    // it tells of the moment
    if (path !== '/metrics') t.equal(textOf(gunzipSync(body)), textOf(plain.body), path)
    t.ok(body.length < plain.body.length / 2, `${path}: ${plain.body.length} to ${body.length} bytes`)
  }
})

t.test('as they are: what is small, and for who does not want it', async t => {
  const server = await build(t)
  await putDashboard(server, 'small', 800)
  await putDashboard(server, 'large', 3000)
  const codingOf = async (path: string, headers?: Record<string, string>, to = server) =>
    (await get(to, path, headers)).headers['content-encoding']
  t.equal(await codingOf('/dashboards/small'), undefined)
  t.equal(await codingOf('/dashboards/large'), 'gzip')
  for (const accepts of ['identity', 'br', 'gzip;q=0', ''])
    t.equal(await codingOf('/dashboards/large', { ...GZIP, 'accept-encoding': accepts }), undefined, accepts)
  t.equal(await codingOf('/dashboards/large', JSON_PAGE), undefined)
  t.equal(await codingOf('/dashboards/large?compress=false'), undefined)
  const off = await build(t, { COMPRESS: 'false' })
  await putDashboard(off, 'large', 3000)
  t.equal(await codingOf('/dashboards/large', GZIP, off), undefined)
})

t.test('HEAD says what GET does, and 304 nothing of it', async t => {
  const server = await build(t)
  await putDashboard(server, 'ops', 3000)
  const { headers } = await get(server, '/dashboards/ops')
  const head = await get(server, '/dashboards/ops', GZIP, 'HEAD')
  for (const name of ['content-encoding', 'content-length', 'vary', 'etag'])
    t.equal(head.headers[name], headers[name], name)
  t.equal(head.body.length, 0)
  const known = await get(server, '/dashboards/ops', { ...GZIP, 'if-none-match': headers.etag! })
  t.equal(known.status, 304)
  t.equal(known.headers['content-encoding'], undefined)
  t.match(known.headers['vary'], /Accept-Encoding/)
})

t.test('pages of a megabyte, many at once: each is right, and what is sent is what is counted', async t => {
  const server = await build(t)
  const texts = Array.from({ length: 60 }, (_, n) => noise(20_000, `${n}`))
  await publishAll(
    server,
    texts.map(data => ({ topic: 'large', data }))
  )
  const sent = async () => (await metricsOf(server)).get('ringside_bytes_sent_total{transport="poll"}') ?? 0
  const before = await sent()
  const all = await Promise.all(
    Array.from({ length: 40 }, (_, n) => get(server, `/events/large?rewind=${50 - n}`))
  )
  for (const [n, { body, headers }] of all.entries()) {
    const text = (headers['content-encoding'] ? gunzipSync(body) : body).toString()
    const { events } = JSON.parse(text) as { events: { data: string }[] }
    t.ok(
      events.every(({ data }, index) => data === texts[10 + n + index]),
      `page ${n}`
    )
    t.equal(events.length, 50 - n)
  }
  t.equal(
    (await sent()) - before,
    all.reduce((sum, { body }) => sum + body.length, 0)
  )
  t.equal(server.app.ringside.memory.held('answers'), 0)
})

t.test('equal ones at the same time are compressed once: all of them are', async t => {
  const server = await build(t)
  await putDashboard(server, 'ops', 60_000)
  // more than may wait to be compressed
  const count = 150
  const text = await askOften(t, server, '/dashboards/ops', count)
  t.equal(text.match(/^content-encoding: gzip\r$/gim)?.length, count)
})

t.test('where memory is short it goes out as it is; where there is none at all it is told so', async t => {
  const server = await build(t, { MEMORY: '4 MiB' })
  const { memory } = server.app.ringside
  await putDashboard(server, 'ops', 40_000)
  t.equal((await get(server, '/dashboards/ops')).headers['content-encoding'], 'gzip')
  const most = memory.limit / 8
  memory.add('answers', most - 100_000)
  const tight = await get(server, '/dashboards/ops')
  t.equal(tight.status, 200)
  t.equal(tight.headers['content-encoding'], undefined)
  memory.add('answers', 100_000)
  const none = await ask(server, '/dashboards/ops', { headers: GZIP })
  isProblem(t, none, 503, /MEMORY is full/)
})

t.test('where it was compressed and then there is no room for it, that is told in clear', async t => {
  const server = await build(t, { MEMORY: '16 MiB' })
  await putText(server, 'ops', noise(50_000, 'memory'))
  const text = await askOften(t, server, '/dashboards/ops', 150)
  const heads = text.match(/HTTP\/1\.1 \d{3} [^]*?\r\n\r\n/g)!
  const full = heads.filter(head => head.startsWith('HTTP/1.1 503'))
  t.ok(full.length > 0)
  t.ok(full.length < heads.length)
  for (const head of full) t.notMatch(head, /content-encoding/i)
})

t.test('undici reads them as they were', async t => {
  const server = await build(t)
  await putDashboard(server, 'ops', 3000)
  const answer = await fetch(`${server.url}/dashboards/ops`, { headers: JSON_PAGE })
  t.equal(answer.headers.get('content-encoding'), 'gzip')
  t.same(await answer.json(), { text: 'a value '.repeat(375) })
})
