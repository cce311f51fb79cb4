import { connect } from 'node:net'
import t, { type Test } from 'tap'
import { ask, build, isProblem, post, type TestServer } from '../support/app.ts'
import { rawConnection } from '../support/raw.ts'
import { bearer, SECRET, tokenFor } from '../support/tokens.ts'

const OWN = [
  'localhost',
  'LOCALHOST:3000',
  '127.0.0.1',
  '127.9.9.9:80',
  '[::1]',
  '[::1]:3000',
  '[::ffff:127.0.0.1]'
]
const FOREIGN = [
  'evil.example',
  'localhost.evil.example',
  'localhost.',
  '192.168.1.5:3000',
  '[::2]',
  '0.0.0.0',
  '"'
]

t.test('without a key the server answers on loopback the hosts of loopback alone', async t => {
  const server = await build(t)
  for (const path of ['/livez', '/events/a?rewind=1', '/', '/metrics', '/nowhere']) {
    for (const host of FOREIGN) {
      const answer = await ask(server, path, { headers: { host } })
      isProblem(t, answer, 421, /^Host: .* localhost, 127\.0\.0\.1 and \[::1\]/)
    }
  }
  for (const host of OWN) t.equal((await ask(server, '/livez', { headers: { host } })).status, 200, host)
  isProblem(t, await post(server, '/events/a', 'x', { host: 'evil.example' }), 421, /evil\.example/)
  t.equal((await post(server, '/events/a', 'x', { 'x-forwarded-host': 'evil.example' })).status, 201)
  t.match(await upgrade(t, server, 'evil.example'), /^HTTP\/1\.1 421 /)
  t.match(await upgrade(t, server, 'localhost'), /^HTTP\/1\.1 101 /)
})

t.test('a proxy that is trusted cannot vouch for another host', async t => {
  const server = await build(t, { TRUST_PROXY: 'true' })
  const headers = { host: 'evil.example', 'x-forwarded-host': 'localhost' }
  isProblem(t, await ask(server, '/livez', { headers }), 421, /evil\.example/)
})

t.test('with a key, or where everyone was let in on purpose, any host is answered', async t => {
  for (const env of [{ JWT_SECRET: SECRET }, { INSECURE: 'true' }]) {
    const server = await build(t, env)
    t.equal((await ask(server, '/livez', { headers: { host: 'live.example' } })).status, 200)
  }
})

t.test('without a key no foreign page writes', async t => {
  const server = await build(t, { CORS_ORIGIN: 'https://listed.example' })
  const own = { host: 'localhost:3000' }
  const writes = [
    ['POST', '/events/a', 'x', {}],
    ['POST', '/tickers', '{"symbol":"A","price":1}', { 'content-type': 'application/json' }],
    ['PUT', '/dashboards/a', '{}', { 'content-type': 'application/json' }],
    ['DELETE', '/dashboards/a', '', {}]
  ] as const
  for (const [method, path, body, headers] of writes) {
    const from = (origin: string) =>
      ask(server, path, { method, body, headers: { ...headers, ...own, origin } })
    for (const origin of [
      'https://evil.example',
      'null',
      'http://localhost:5173',
      'https://localhost:3000'
    ]) {
      isProblem(t, await from(origin), 403, /^Origin: /)
    }
    for (const origin of ['http://localhost:3000', 'https://listed.example']) {
      t.match((await from(origin)).status, /^20/, `${method} ${path} from ${origin}`)
      if (method === 'DELETE') await ask(server, path, { method: 'PUT', body: '{}', headers: writes[2][3] })
    }
  }
})

t.test('one host a request', async t => {
  const server = await build(t, { JWT_SECRET: SECRET })
  const connection = rawConnection(t, server)
  connection.send('GET /livez HTTP/1.1\r\nHost: a\r\nX: y\r\nHOST: b\r\nConnection: close\r\n\r\n')
  t.match(await connection.closed, /^HTTP\/1\.1 400 [^]*"detail":"Host: it is given more than once"/)
})

t.test('every answer says what a browser shall not do with it', async t => {
  const server = await build(t, { JWT_SECRET: SECRET, ANONYMOUS_SUBSCRIBE: 'public' })
  const token = bearer(await tokenFor({ subscribe: ['**'], publish: ['**'] }))
  const answers = [
    await ask(server, '/events/public', { headers: { accept: 'application/json' } }),
    await ask(server, '/events/private'),
    await ask(server, '/nowhere'),
    await ask(server, '/livez'),
    await ask(server, '/events/public', { method: 'HEAD' }),
    await post(server, '/events/a', 'x', token),
    await post(server, '/events/a', 'x', { ...token, 'idempotency-key': '' })
  ]
  for (const { headers } of answers) {
    t.match(headers, { 'x-content-type-options': 'nosniff', 'referrer-policy': 'no-referrer' })
  }
  const unreadable = rawConnection(t, server)
  unreadable.send('nonsense\r\n\r\n')
  t.match(await unreadable.closed, /^HTTP\/1\.1 400 [^]*X-Content-Type-Options: nosniff/)
  const stream = rawConnection(t, server)
  stream.send('GET /events/public HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n')
  t.match(await stream.until('event: cursor'), /x-content-type-options: nosniff/i)
})

/** The first bytes of the answer to a WebSocket handshake. */
function upgrade(t: Test, { port }: TestServer, host: string): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port })
  t.teardown(() => socket.destroy())
  socket.write(
    `GET /ws HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
      'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'
  )
  return new Promise((resolve, reject) => {
    socket.once('data', data => resolve(data.toString('latin1')))
    socket.once('error', reject)
  })
}
