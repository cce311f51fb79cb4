import { writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { ConfigError, readSettings } from '../../src/config.ts'
import { boundsOf } from '../../src/net/sockets.ts'
import { greeting, warnings } from '../../src/process/greeting.ts'
import { createServer as build } from '../../src/process/server.ts'
import { ask, publish } from '../support/app.ts'
import { makeCertificate } from '../support/certificate.ts'
import { listen } from '../support/reader.ts'
import { exitOf, run, serve } from '../support/process.ts'
import { makeKeys, SECRET } from '../support/tokens.ts'

// each process takes a while to begin: two at a time
t.setTimeout(400_000)
t.jobs = 2

type Env = Readonly<Record<string, string>>

const QUIET = { PORT: '0', DEMO: 'false', LOG_LEVEL: 'silent' }

t.test('the process is configured by its environment, and says where it listens', async t => {
  const server = await serve(t, {
    RETRY: '1234ms',
    MAX_TOPICS: '2',
    MAX_EVENT_BYTES: '4096',
    CORS_ORIGIN: 'https://page.example',
    DEMO: ''
  })
  t.test('whatever it sets', async t => {
    const stream = await listen(t, server, '/events/a', { origin: 'https://page.example', accept: '*/*' })
    t.equal(stream.frames.all[0]!.retry, 1234)
    t.equal(stream.response.headers['access-control-allow-origin'], 'https://page.example')
    t.equal((await ask(server, '/events/a?topic=b&topic=c')).status, 400)
    const most = 'x'.repeat(4096)
    await publish(server, 'a', most)
    t.match(await stream.next(), { data: most })
    await t.rejects(publish(server, 'a', `${most}x`), /413/)
  })
  t.test('in development mode loudly', async t => {
    t.match(server.stdout(), /DEVELOPMENT MODE/)
    for (const line of server.stdout().trim().split('\n')) JSON.parse(line)
    t.match(server.stdout(), `http://127.0.0.1:${server.port}`)
    t.equal(server.stderr(), '')
  })
  t.test('where it feeds live topics by default (DEMO)', async t => {
    const stream = await listen(t, server, '/events?topic=tickers/*&topic=metrics/*&envelope=true')
    const topics = () => stream.messages.map(({ data }) => (JSON.parse(data!) as { topic: string }).topic)
    await stream.frames.until(() => topics().some(topic => topic.startsWith('tickers/')), 'a quote')
    t.ok(topics().some(topic => topic.startsWith('metrics/')))
  })
})

t.test(
  'what ends the start: status 1, and one line with its name, its value and what is allowed',
  async t => {
    const taken = await takenPort(t)
    const folder = t.testdir({ 'topics.json': '[{"match":"a"},\n{"match":"b","ring":0}]' })
    const { TLS_CERT, TLS_KEY } = makeCertificate(folder)
    const TOPICS = join(folder, 'topics.json')
    await Promise.all([
      // as it is read, as it is used, as it is asked of the system
      endsTheStart(t, { HEARTBEAT: 'often' }, 'HEARTBEAT=often', /duration/),
      endsTheStart(t, { TLS_CERT: '/no/such/cert.pem', TLS_KEY }, 'TLS_CERT=/no/such/cert.pem', /read/),
      endsTheStart(t, { TOPICS }, `TOPICS=${TOPICS}`, /line 2: ring: 0 .* from 1/),
      endsTheStart(t, { PORT: taken, TLS_CERT, TLS_KEY }, taken, /in use/)
    ])
  }
)

t.test('a wrong setting: its name, its value and what is allowed', async t => {
  await refuses(t, { PORT: 'http' }, 'PORT=http', /0 to 65535/)
  await refuses(t, { HEARTBEAT: 'often' }, 'HEARTBEAT=often', /duration/)
  await refuses(t, { LOG_LEVEL: 'loud' }, 'LOG_LEVEL=loud', /info/)
})

t.test('a setting that turns out wrong when it is used', async t => {
  const { TLS_CERT, TLS_KEY } = makeCertificate(t.testdir())
  const noPem = join(TLS_CERT, '..', 'no.pem')
  writeFileSync(noPem, 'no PEM')
  await refuses(t, { TLS_CERT: '/no/such/cert.pem', TLS_KEY }, 'TLS_CERT=/no/such/cert.pem', /read/)
  await refuses(t, { TLS_CERT, TLS_KEY: noPem }, `TLS_KEY=${noPem}`, /PEM/)
  await refuses(t, { TLS_CERT: noPem, TLS_KEY }, `TLS_CERT=${noPem}`, /PEM/)
  await refuses(t, { REDIS_URL: 'localhost:6379' }, 'REDIS_URL', /redis:\/\//)
  await refuses(t, { REDIS_URL: 'redis://:p@ss:w@h' }, 'REDIS_URL', /percent-encoded/, 'ss:w')
  await refuses(t, { REDIS_URL: 'rediss://h', REDIS_TLS_CA: noPem }, `REDIS_TLS_CA=${noPem}`, /PEM/)
  await refuses(t, { TRUST_PROXY: 'my-proxy' }, 'TRUST_PROXY=my-proxy', /address/)
  await refuses(t, { TRUST_PROXY: '1' }, 'TRUST_PROXY=1', /invalid IP address: 1$/)
  await refuses(t, { TRUST_PROXY: '::1, 10.0/8' }, 'TRUST_PROXY=::1, 10.0/8', /invalid IP address: 10\.0\/8$/)
  await refuses(t, { HOST: '203.0.113.1', INSECURE: 'true' }, '203.0.113.1', /EADDRNOTAVAIL|address/)
  await refuses(t, { PORT: await takenPort(t) }, 'EADDRINUSE', /in use/)
})

t.test('HOST beyond loopback is refused without a key, unless INSECURE=true', async t => {
  for (const HOST of ['0.0.0.0', '::', '203.0.113.1', 'example.org']) {
    await refuses(t, { HOST }, `HOST=${HOST}`, /loopback.*INSECURE=true/)
  }
  const insecure = await started(t, { HOST: '0.0.0.0', INSECURE: 'true' })
  t.match(insecure.greeting, /DEVELOPMENT MODE[^]*INSECURE is set/)
  t.equal((await ask(insecure, '/livez')).status, 200)
})

t.test('a key that is none ends the start, and no secret is shown', async t => {
  const secret = 'a secret that is short'
  await refuses(t, { JWT_SECRET: secret }, 'JWT_SECRET', /32 bytes/, secret)
  await refuses(t, { JWT_PUBLIC_KEY: '/no/such.pem' }, 'JWT_PUBLIC_KEY=/no/such.pem', /read/)
})

t.test('the start warns of keys that come over http, and of tokens that may be for anybody', async t => {
  const warned = (env: Record<string, string>) => {
    const settings = readSettings(env)
    return warnings(settings, boundsOf(settings, 20_000, Infinity))
  }
  const JWKS_URL = 'https://keys.example/jwks'
  t.strictSame(warned({}), [])
  t.strictSame(warned({ JWKS_URL, JWT_AUDIENCE: 'ringside' }), [])
  t.strictSame(warned({ JWKS_URL, JWT_ISSUER: 'https://keys.example' }), [])
  t.match(warned({ JWKS_URL }), [/^JWT_AUDIENCE and JWT_ISSUER: none is set/])
  t.match(warned({ JWKS_URL: 'http://keys.example/jwks', JWT_ISSUER: 'x' }), [/^JWKS_URL=http:.* use https$/])
})

t.test('with a key any HOST is fine, there is no demo, and the greeting says what is checked', async t => {
  const server = await serve(t, {
    HOST: '0.0.0.0',
    DEMO: '',
    JWT_SECRET: SECRET,
    ANONYMOUS_SUBSCRIBE: 'a/*,b'
  })
  t.notMatch(server.stdout(), /DEVELOPMENT/)
  t.match(server.stdout(), /checked with JWT_SECRET\./)
  t.match(server.stdout(), /Without a token a\/\*, b may be read/)
  t.notMatch(server.stdout(), SECRET)
  t.equal((await ask(server, '/events/c')).status, 401)
  const none = await started(t, {
    HOST: '0.0.0.0',
    JWT_PUBLIC_KEY: makeKeys('ES256').pem,
    JWKS_URL: 'http://127.0.0.1:9/keys'
  })
  t.match(none.greeting, /checked with JWT_PUBLIC_KEY, JWKS_URL\./)
  t.match(none.greeting, /Without a token nothing may be read/)
  t.equal((await ask(none, '/events/c')).status, 401)
})

t.test('usage', async t => {
  const help = run(t, ['--help'])
  t.strictSame(await exitOf(help), { code: 0, signal: null })
  t.match(help.stdout(), /serve/)
  const wrong = run(t, ['--nonsense'])
  t.strictSame(await exitOf(wrong), { code: 2, signal: null })
  t.match(wrong.stderr(), /--nonsense/)
})

/** A port that somebody else listens on. */
async function takenPort(t: Test): Promise<string> {
  const other = createServer()
  await new Promise<void>(resolve => other.listen(0, '127.0.0.1', resolve))
  t.teardown(() => other.close())
  return String((other.address() as AddressInfo).port)
}

/** The process ends with 1 and this line alone. */
async function endsTheStart(t: Test, env: Env, names: string, allowed: RegExp): Promise<void> {
  const process = run(t, ['serve'], { ...QUIET, ...env })
  t.strictSame(await exitOf(process), { code: 1, signal: null }, names)
  const lines = process.stderr().trim().split('\n')
  t.equal(lines.length, 1, process.stderr())
  t.ok(lines[0]!.startsWith('ringside: '), lines[0]!)
  t.ok(lines[0]!.includes(names), lines[0]!)
  t.match(lines[0], allowed)
  t.equal(process.stdout(), '')
}

/** The same, without the process around it, which takes a second to begin: no server comes of it, and why is one line. */
async function refuses(t: Test, env: Env, names: string, allowed: RegExp, hidden?: string): Promise<void> {
  const said = await failureOf(started(t, env))
  t.notMatch(said, '\n')
  if (hidden !== undefined) t.notOk(said.includes(hidden))
  t.ok(said.includes(names), said)
  t.match(said, allowed)
}

/** A server in this process, and what a process says when it has such a one. */
async function started(t: Test, env: Env): Promise<{ port: number; greeting: string }> {
  const settings = readSettings({ ...QUIET, ...env })
  const app = await build(settings)
  t.teardown(() => app.close())
  const address = await app.listen({ host: settings.HOST, port: settings.PORT })
  return {
    port: (app.server.address() as AddressInfo).port,
    greeting: greeting(address, settings, boundsOf(settings, 20_000, Infinity))
  }
}

/** The line that a start ends with: a wrong setting has it, and so has what the system refuses. */
async function failureOf(start: Promise<unknown>): Promise<string> {
  try {
    await start
  } catch (error) {
    if (error instanceof ConfigError || (error as NodeJS.ErrnoException).syscall)
      return (error as Error).message
    throw error
  }
  throw new Error('it has started')
}
