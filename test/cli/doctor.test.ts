/**
 * `ringside doctor` before real proxies: with their files of deploy/, and with those files broken in one way and another.
 * All of them stand before one Ringside, and each is examined by a user of its own.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { adviceFor, ADVICE_IDS, type AdviceId } from '../../src/cli/doctor/advice.ts'
import type { Finding } from '../../src/cli/doctor/check.ts'
import { diagnose, type DiagnosisOptions } from '../../src/cli/doctor/diagnosis.ts'
import { judge } from '../../src/cli/doctor/timing.ts'
import type { WayOptions } from '../../src/cli/doctor/way.ts'
import { run } from '../../src/cli/program.ts'
import { isInstalled, KINDS, startReverseProxy, type Kind, type ReverseProxy } from '../deploy/proxies.ts'
import { ask, type Address } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { nobody, serve } from '../support/process.ts'
import { SECRET, secondsFromNow, tokenOf } from '../support/tokens.ts'

t.setTimeout(180_000)
t.jobs = 5

/** For how long streams are held: longer than the shortest time-outs here. */
const HOLD_MS = 4000

const server = await serve(t, {
  JWT_SECRET: SECRET,
  TRUST_PROXY: '127.0.0.1',
  CORS_ORIGIN: 'https://app.example'
})

let users = 0

/** A token for the doctor's topics, of another user each time: each has limits of its own. */
function tokenForDoctor(rights: readonly string[] = ['subscribe', 'publish'], more = {}): Promise<string> {
  const ringside = Object.fromEntries(rights.map(right => [right, ['doctor/*']]))
  return tokenOf({ sub: `doctor-${users++}`, ringside, ...more })
}

/** What it finds, by the names of its checks. */
async function examine(
  where: Partial<WayOptions> & Pick<WayOptions, 'url'>,
  options: Partial<DiagnosisOptions> = {}
): Promise<Map<string, Finding>> {
  const token = 'token' in where ? where.token : await tokenForDoctor()
  const found = new Map<string, Finding>()
  const all = diagnose({ topic: `doctor/test-${users++}`, ...where, token }, { holdMs: HOLD_MS, ...options })
  for await (const finding of all) found.set(finding.check, finding)
  return found
}

/** What the command says, in this process. */
async function call(args: readonly string[]) {
  const written = { stdout: '', stderr: '' }
  const code = await run(
    ['doctor', ...args],
    {},
    {
      out: text => (written.stdout += text),
      err: text => (written.stderr += text)
    }
  )
  return { code, ...written }
}

/** What mends what the files of deploy/ never break. */
const OTHER_LINES: Readonly<Record<string, readonly string[]>> = {
  nginx: ['proxy_buffering off;'],
  Apache: ['LimitRequestBody 0', 'SetEnv no-gzip 1', 'flushpackets=on']
}

/** Exactly these checks have found a fault, each with its advice. */
function hasFaults(t: Test, found: Map<string, Finding>, faults: Readonly<Record<string, AdviceId | null>>) {
  const wrong = [...found.values()].filter(({ outcome }) => outcome === 'wrong')
  t.strictSame(
    Object.fromEntries(wrong.map(({ check, advice = null }) => [check, advice])),
    faults,
    JSON.stringify(wrong.map(({ detail }) => detail))
  )
}

type Change = readonly [from: string | RegExp, to: string]

/** A proxy with its file of deploy/, in which something is changed. */
function broken(kind: Kind, file: string, ...changes: readonly Change[]): Kind {
  return {
    ...kind,
    prepare(stage) {
      const launch = kind.prepare(stage)
      const path = join(stage.folder, file)
      let text = readFileSync(path, 'utf8')
      for (const [from, to] of changes) {
        if (!(typeof from === 'string' ? text.includes(from) : from.test(text)))
          throw new Error(`deploy/${file} has no ${from}`)
        text = text.replace(from, to)
      }
      writeFileSync(path, text)
      return launch
    }
  }
}

/** Starts a proxy before this server, or others; resolves when it sends to them. None: it is not installed. */
async function start(
  kind: Kind,
  before: readonly Address[] = [server, server],
  isThere = true
): Promise<ReverseProxy | undefined> {
  if (!isInstalled(kind)) return void t.comment(`${kind.command} is not installed`)
  const proxy = await startReverseProxy(t, kind, before)
  if (isThere) {
    const ready = async () => (await ask(proxy.clear, '/readyz')).status
    await eventually(ready, status => status === 200, `${kind.command} to know that it is ready`)
  }
  return proxy
}

/** Where a proxy listens, in clear or by TLS. */
function at({ clear, secure, ca }: ReverseProxy, scheme: 'http' | 'https') {
  return { url: (scheme === 'http' ? clear : secure).url, ca }
}

/** What a server is that doesn't compress, and doesn't say that nobody else shall: HAProxy heeds no-transform. */
async function startOldServer(): Promise<Address> {
  const old = createServer((asked, answer) => {
    const { url: path, method, headers } = asked
    const sent = request({ port: server.port, path, method, headers }, response => {
      delete response.headers['cache-control']
      answer.writeHead(response.statusCode!, response.headers)
      response.pipe(answer)
    })
    answer.on('close', () => sent.destroy())
    sent.on('error', () => answer.destroy())
    asked.pipe(sent)
  })
  await new Promise<void>(resolve => old.listen(0, '127.0.0.1', resolve))
  t.teardown(() => old.close().closeAllConnections())
  const { port } = old.address() as AddressInfo
  return { port, url: `http://127.0.0.1:${port}` }
}

const dead: Address = { url: await nobody(), port: 0 }
const DEAD = [dead, dead].map(({ url }) => ({ url, port: Number(new URL(url).port) }))

const old = await startOldServer()

/** lighttpd as it comes, and these lines besides. */
function lighttpd(...more: readonly string[]): Kind {
  return {
    command: 'lighttpd',
    streams: 0,
    prepare({ folder, clear, instances }) {
      const file = join(folder, 'lighttpd.conf')
      const lines = [
        'server.modules = ( "mod_access", "mod_proxy" )',
        // others are counted meanwhile
        '$HTTP["url"] == "/metrics" { url.access-deny = ( "" ) }',
        `server.document-root = "${folder}"`,
        'server.bind = "127.0.0.1"',
        `server.port = ${clear}`,
        `proxy.server = ( "" => ( ( "host" => "127.0.0.1", "port" => ${instances[0]!.port} ) ) )`,
        ...more
      ]
      writeFileSync(file, lines.join('\n'))
      return { args: ['-D', '-f', file], reload: 'SIGUSR1' }
    }
  }
}

/** All are there before anything is measured. */
const [cramped, hidden, waiting, compressing, timed, awayGood, awayBad, forgetful, plain, mended] =
  await Promise.all([
    start(
      broken(
        KINDS.nginx,
        'nginx.conf',
        [' ssl http2;', ' ssl;'],
        ['large_client_header_buffers 4 24k;', ''],
        ['client_max_body_size 0;', ''],
        ['proxy_set_header Upgrade $http_upgrade;', 'proxy_set_header Last-Event-ID "";'],
        ['proxy_set_header Connection $connection_upgrade;', 'add_header Access-Control-Allow-Origin *;'],
        ['proxy_read_timeout 60s;', 'proxy_read_timeout 2s;']
      )
    ),
    start(
      broken(
        KINDS.nginx,
        'nginx.conf',
        ['proxy_http_version 1.1;', 'proxy_http_version 1.1; proxy_ignore_headers X-Accel-Buffering;'],
        ['proxy_set_header X-Forwarded-Host $http_host;', ''],
        ['proxy_set_header Host $http_host;', ''],
        ['http2_max_concurrent_streams 512;', 'http2_max_concurrent_streams 4;']
      )
    ),
    start(
      broken(
        KINDS.haproxy,
        'haproxy.cfg',
        ['option http-no-delay', ''],
        [
          'frontend web',
          'frontend web\n    http-request deny if METH_OPTIONS\n    http-after-response set-header Date "Mon, 30 Nov 2020 00:00:00 GMT"'
        ]
      )
    ),
    start(
      broken(KINDS.haproxy, 'haproxy.cfg', [
        'frontend web',
        'frontend web\n    compression offload\n    compression algo gzip\n    compression type text/event-stream'
      ]),
      [old, old]
    ),
    start({
      ...KINDS.varnish,
      prepare(stage) {
        const launch = broken(KINDS.varnish, 'varnish.vcl', [
          ' || req.http.Accept ~ "text/event-stream"',
          ''
        ]).prepare(stage)
        return { ...launch, args: [...launch.args, '-p', 'send_timeout=2'] }
      }
    }),
    start(KINDS.nginx, DEAD, false),
    start(broken(KINDS.nginx, 'nginx.conf', ['error_page 502 504 = @away;', '']), DEAD, false),
    start(
      broken(
        KINDS.haproxy,
        'haproxy.cfg',
        ['option abortonclose', ''],
        ['http-request return status 404 if { path /metrics }', '']
      )
    ),
    start(lighttpd()),
    start(lighttpd(...adviceLines('lighttpd', ['buffering', 'websocket', 'headers'])))
  ])

/** What the doctor says of a proxy. */
function adviceLines(proxy: string, ids: readonly AdviceId[]): string[] {
  return ids.flatMap(id => adviceFor(id).lines[proxy] ?? []).filter(line => !line.startsWith('#'))
}

const good = await Promise.all(
  Object.entries<Kind>(KINDS).map(async ([name, kind]) => [name, await start(kind)] as const)
)

for (const [name, proxy] of good) {
  t.test(`nothing is wrong with deploy/ and ${name}`, async t => {
    if (!proxy) return
    const isClear = proxy.kind.streams === 0
    const where = at(proxy, isClear ? 'http' : 'https')
    const found = await examine({ ...where, pageOrigin: 'https://app.example' })
    // whatever is set, it runs 6 requests at a time
    hasFaults(t, found, name === 'apache' ? { 'streams at once': 'streams' } : {})
    if (name === 'apache') t.match(found.get('streams at once')!.detail, /^6 of 12 open.*announced: 100$/)
    const left = [...found.values()].filter(({ outcome }) => outcome === 'skipped').map(({ check }) => check)
    const noTls = ['HTTP version', 'events, HTTP/2', 'streams at once']
    t.strictSame(left, [...(isClear ? noTls : []), 'while away'])
  })
}

t.test('nginx with short room and time, without upgrades, HTTP/2 and headers', async t => {
  if (!cramped) return
  const found = await examine({ ...at(cramped, 'https'), pageOrigin: 'https://app.example' })
  hasFaults(t, found, {
    'HTTP version': 'http2',
    'Last-Event-ID': 'resuming',
    CORS: 'preflight',
    WebSocket: 'websocket',
    'a token of 9 kB': 'headers',
    'a batch of 6 MB': 'body',
    'a silent stream': 'idle'
  })
  t.match(found.get('a silent stream')!.detail, /^it was cut after [2-4]/)
  t.match(found.get('CORS')!.detail, /^two say/)
})

t.test('nginx that buffers, hides the host, and has few streams', async t => {
  if (!hidden) return
  const found = await examine({ ...at(hidden, 'https') })
  t.match(Object.fromEntries(found), {
    'events, HTTP/1.1': { outcome: 'wrong', advice: 'buffering' },
    'events, compressed': { outcome: 'wrong', advice: 'buffering' },
    WebSocket: { outcome: 'wrong', advice: 'origin' },
    'streams at once': { outcome: 'wrong', advice: 'streams', detail: /announced: 4$/ }
  })
})

t.test('HAProxy that waits, knows another time, and answers OPTIONS', async t => {
  if (!waiting) return
  const found = await examine({ ...at(waiting, 'http') })
  hasFaults(t, found, {
    'events, HTTP/1.1': 'delay',
    'events, compressed': 'delay',
    CORS: 'preflight',
    clocks: 'clocks'
  })
  t.match(found.get('events, HTTP/1.1')!.detail, /^each event comes (1[5-9]|2\d)\d ms late$/)
})

t.test('HAProxy that compresses is one event behind', async t => {
  if (!compressing) return
  const found = await examine({ ...at(compressing, 'http') })
  t.match(found.get('events, HTTP/1.1'), { outcome: 'ok' })
  t.match(found.get('events, compressed'), { outcome: 'wrong', advice: 'compression' })
})

t.test('lighttpd as it comes, and with the lines that the doctor gives', async t => {
  if (!plain || !mended) return
  const [before, after] = await Promise.all([plain, mended].map(proxy => examine(at(proxy, 'http'))))
  t.match(Object.fromEntries(before!), {
    'events, HTTP/1.1': { outcome: 'wrong', advice: 'buffering' },
    'events, compressed': { outcome: 'wrong', advice: 'buffering' },
    WebSocket: { outcome: 'wrong', advice: 'websocket' },
    'a token of 9 kB': { outcome: 'wrong', advice: 'headers' }
  })
  hasFaults(t, after!, {})
})

t.test('Varnish that passes streams on ends each after a time', async t => {
  if (!timed) return
  const found = await examine({ ...at(timed, 'http') })
  t.match(found.get('a living stream'), { outcome: 'wrong', advice: 'lifetime' })
})

t.test('while nobody is there', async t => {
  const direct = await examine({ url: dead.url })
  t.match([...direct.values()], [{ check: 'server', outcome: 'wrong', detail: /ECONNREFUSED/ }])
  if (!awayGood || !awayBad) return
  const strange = await examine({ url: awayGood.secure.url })
  t.match(
    [...strange.values()],
    [{ check: 'server', outcome: 'wrong', detail: /certificate is not trusted/ }]
  )
  const found = await examine(at(awayGood, 'https'))
  t.strictSame([...found.keys()], ['server', 'while away'])
  t.match(found.get('server'), { outcome: 'wrong', detail: /^nobody is there: .* 503/ })
  t.match(found.get('while away'), { outcome: 'ok', detail: /come back in 3 s/ })
  const bad = await examine(at(awayBad, 'https'))
  t.match(bad.get('while away'), { outcome: 'wrong', advice: 'away', detail: /answered 502/ })
})

t.test('a client that goes, by the gauge of streams', async t => {
  const direct = await examine({ url: server.url }, { holdMs: 100 })
  hasFaults(t, direct, {})
  const atOnce = { outcome: 'ok', detail: 'a stream that is left is noticed at once' }
  t.match(direct.get('a client that goes'), atOnce)
  if (!forgetful) return
  const found = await examine(at(forgetful, 'http'), { holdMs: 100 })
  t.match(found.get('a client that goes'), {
    outcome: 'wrong',
    advice: 'leaving',
    detail: /sign of life/
  })
})

t.test('with the right to read alone it looks at heartbeats', async t => {
  const [, nginx] = good.find(([name]) => name === 'nginx')!
  if (!nginx || !hidden || !compressing) return
  const places = [at(nginx, 'https'), at(hidden, 'https'), at(compressing, 'http')]
  const [fine, held, behind] = await Promise.all(
    places.map(async where =>
      examine({ ...where, token: await tokenForDoctor(['subscribe']) }, { holdMs: 100 })
    )
  )
  hasFaults(t, fine!, {})
  t.match(fine!.get('events, HTTP/1.1'), { outcome: 'ok', detail: /^5 heartbeats came one by one/ })
  t.match(fine!.get('a batch of 6 MB'), { outcome: 'skipped', detail: /ringside\.publish covers doctor\// })
  t.match(held!.get('events, HTTP/1.1'), { outcome: 'wrong', advice: 'buffering' })
  t.match(behind!.get('events, compressed'), { outcome: 'wrong', advice: 'compression' })
})

t.test('without a right it says which claim it takes, and looks at the rest', async t => {
  const found = await examine({ url: server.url, token: undefined }, { holdMs: 100 })
  hasFaults(t, found, {})
  for (const check of ['events, HTTP/1.1', 'Last-Event-ID', 'a silent stream'])
    t.match(found.get(check), { outcome: 'skipped', detail: /ringside\.subscribe covers/ }, check)
  t.match(found.get('WebSocket'), { outcome: 'skipped', detail: /token/ })
  t.match(found.get('a token of 9 kB'), { outcome: 'ok' })
})

t.test('a token that is no good, another time, and a page that CORS_ORIGIN does not have', async t => {
  const old = await tokenForDoctor(undefined, { exp: secondsFromNow(-600) })
  t.match((await examine({ url: server.url, token: old }, { holdMs: 100 })).get('token'), {
    outcome: 'wrong',
    detail: /ran out 10 min ago/
  })
  const early = await tokenForDoctor(undefined, { nbf: secondsFromNow(600) })
  t.match((await examine({ url: server.url, token: early }, { holdMs: 100 })).get('token'), {
    outcome: 'wrong',
    detail: /it is good in 10 min/
  })
  const [, caddy] = good.find(([name]) => name === 'caddy')!
  if (!caddy) return
  const found = await examine(
    { ...at(caddy, 'https'), pageOrigin: 'https://other.example' },
    { holdMs: 100, now: () => Date.now() + 60_000 }
  )
  hasFaults(t, found, { clocks: 'clocks', CORS: 'origins', WebSocket: 'origins' })
  t.match(found.get('clocks')!.detail, /(59|60|61) s behind/)
})

t.test(
  'prints a line for each check, then the lines to change, and exits with 1 where something is wrong',
  async t => {
    const good = await call([server.url, '--token', await tokenForDoctor(), '--minutes', '0.01', '--json'])
    t.match(good, { code: 0, stderr: '' })
    const findings = good.stdout
      .trimEnd()
      .split('\n')
      .map(line => JSON.parse(line) as Finding)
    t.match(findings[0], { check: 'server', outcome: 'ok', detail: /^Ringside answers at / })
    t.match(new Set(findings.map(({ outcome }) => outcome)), new Set(['ok', 'skipped']))
    if (!awayBad) return
    const bad = await call([awayBad.clear.url])
    t.match(bad, { code: 1, stderr: /^ringside: http:.*: 2 of 2 checks found a fault\n$/ })
    t.match(
      bad.stdout,
      /^wrong {4}server {14}nobody is there.*\nwrong {4}while away {10}an EventSource.*\n\nwhile away: /
    )
    t.match(bad.stdout, /^ {2}nginx {10}error_page 502 504 = @away;\n {17}location @away \{\n/m)
    const whole = await call([awayBad.clear.url, '--json'])
    t.match(JSON.parse(whole.stdout.split('\n')[1]!), { advice: { lines: { Apache: Array } } })
  }
)

t.test('the lines to change are those of deploy/, where it has them', t => {
  const files = { nginx: 'nginx.conf', HAProxy: 'haproxy.cfg', Caddy: 'Caddyfile', Apache: 'apache.conf' }
  for (const [proxy, file] of Object.entries(files)) {
    const text = readFileSync(new URL(`../../deploy/${file}`, import.meta.url), 'utf8')
    const lines = ADVICE_IDS.flatMap(id => adviceFor(id).lines[proxy] ?? [])
    const others = lines.filter(line => !line.startsWith('#') && !text.includes(line.trim()))
    t.strictSame(others.sort(), OTHER_LINES[proxy] ?? [], file)
  }
  t.end()
})

t.test('how events came', async t => {
  const verdict = (...at: (number | undefined)[]) =>
    judge(at.map((at, index) => ({ storedAt: index * 400, at })))
  t.match(verdict(3, 404, 806, 1203, 1601), { outcome: 'ok' })
  t.match(verdict(204, 603, 1004, 1402, 1803), { advice: 'delay' })
  t.match(verdict(402, 801, 1203, 1604, undefined), { advice: 'compression' })
  t.match(verdict(undefined, undefined, undefined), { advice: 'buffering', detail: /^none/ })
  t.match(verdict(1700, 1701, 1701, 1702, 1702), { advice: 'buffering', detail: /5 events came in 1 lump/ })
  t.match(verdict(3, 404, undefined, 1203, undefined), { advice: 'buffering', detail: /^3 of 5/ })
  t.match(verdict(300, 404, 806, 1203, 1601), { outcome: 'ok' }, 'a busy machine')
})
