/**
 * The proxies of deploy/, each with its own file as it stands there: only names, addresses, ports, certificates and folders
 * are changed, and a line that isn't found any more is an error.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync
} from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import type { Address } from '../support/app.ts'
import { makeCertificate } from '../support/certificate.ts'
import { eventually } from '../support/inbox.ts'
import { freePort } from '../support/redis-server.ts'

const DEPLOY = fileURLToPath(new URL('../../deploy/', import.meta.url))

/** What a proxy is started with. */
interface Stage {
  /** A folder of its own, which every user may read. */
  readonly folder: string
  readonly clear: number
  readonly tls: number
  /** For whatever it is administered by. */
  readonly admin: number
  readonly instances: readonly Address[]
}

/** How a proxy is run. */
interface Launch {
  readonly args: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** The signal that makes it read its file again, or the command that does. */
  readonly reload: NodeJS.Signals | readonly [string, ...string[]]
}

/** What is known of a proxy. */
export interface Kind {
  readonly command: string
  /** Writes its files. */
  readonly prepare: (stage: Stage) => Launch
  /** How many requests there may be on one connection of HTTP/2. None: it has no TLS. */
  readonly streams: number
  /** It can't say when to come back to those who are no EventSource. */
  readonly noRetryAfter?: boolean
  /** It notices at a heartbeat that a client has gone. */
  readonly noticesLate?: boolean
}

export const KINDS = {
  nginx: { command: 'nginx', prepare: prepareNginx, streams: 20 },
  haproxy: { command: 'haproxy', prepare: prepareHaproxy, streams: 20 },
  caddy: { command: 'caddy', prepare: prepareCaddy, streams: 20 },
  // of five on one connection, one or two were not served any more after others had been cut
  apache: { command: 'apache2', prepare: prepareApache, streams: 2, noRetryAfter: true, noticesLate: true },
  varnish: { command: 'varnishd', prepare: prepareVarnish, streams: 0 }
} as const satisfies Record<string, Kind>

/** What stands for Ringside while nobody is there, behind proxies that have no answers of their own. */
export const AWAY: Kind = { command: 'nginx', prepare: prepareAway, streams: 0 }

/** A proxy that runs before some instances. */
export interface ReverseProxy {
  readonly kind: Kind
  /** Where it listens in clear. */
  readonly clear: Address
  /** Where it listens with TLS, and with HTTP/2. */
  readonly secure: Address
  /** Whom to trust for it. */
  readonly ca: Buffer
  /** Has it read its file again. */
  reload(): void
}

export function isInstalled({ command }: Kind): boolean {
  return spawnSync('sh', ['-c', `command -v ${command}`]).status === 0
}

/** Starts one, which ends with the test; resolves as soon as it takes connections. */
export async function startReverseProxy(
  t: Test,
  kind: Kind,
  instances: readonly Address[]
): Promise<ReverseProxy> {
  const folder = mkdtempSync(join(tmpdir(), `ringside-${kind.command}-`))
  chmodSync(folder, 0o755)
  const { ca } = makeCertificate(folder)
  // HAProxy wants both in one file
  writeFileSync(join(folder, 'both.pem'), ['cert.pem', 'key.pem'].map(name => read(folder, name)).join(''))
  const [clear, tls, admin] = [await freePort(), await freePort(), await freePort()]
  const { args, env, reload } = kind.prepare({ folder, clear, tls, admin, instances })
  const log = join(folder, 'log')
  // it ends with this process, also when that is killed
  const child = spawn('setpriv', ['--pdeathsig', 'TERM', kind.command, ...args], {
    env: { PATH: process.env['PATH'], HOME: folder, ...env },
    stdio: ['ignore', openSync(log, 'a'), openSync(log, 'a')]
  })
  t.teardown(async () => {
    await stop(child)
    rmSync(folder, { recursive: true, force: true })
  })
  for (const port of kind.streams > 0 ? [clear, tls] : [clear])
    await eventually(
      async () => (await isListening(port)) || child.exitCode !== null,
      answer => answer,
      `${kind.command} to listen`
    )
  if (child.exitCode !== null) throw new Error(`${kind.command} has ended: ${readFileSync(log, 'utf8')}`)
  return {
    kind,
    clear: { url: `http://127.0.0.1:${clear}`, port: clear },
    secure: { url: `https://127.0.0.1:${tls}`, port: tls },
    ca,
    reload() {
      if (typeof reload === 'string') return void child.kill(reload)
      const [command, ...rest] = reload
      const { status, stderr } = spawnSync(command, rest, {
        env: { PATH: process.env['PATH'], HOME: folder }
      })
      if (status !== 0) throw new Error(`${command}: ${stderr.toString()}`)
    }
  }
}

// --- each of them ---

function prepareNginx(stage: Stage): Launch {
  const { folder, clear, tls } = stage
  const file = configure('nginx.conf', stage, [
    ['listen 80;', `listen 127.0.0.1:${clear};`],
    ['listen 443 ', `listen 127.0.0.1:${tls} `],
    ['/run/nginx.pid', join(folder, 'nginx.pid')],
    ['/var/log/nginx', folder],
    ['/etc/ssl/ringside', folder]
  ])
  return { args: ['-c', file, '-e', join(folder, 'log'), '-g', 'daemon off;'], reload: 'SIGHUP' }
}

function prepareHaproxy(stage: Stage): Launch {
  const { folder, clear, tls } = stage
  copyFileSync(join(DEPLOY, 'haproxy-away.http'), join(folder, 'haproxy-away.http'))
  const file = configure('haproxy.cfg', stage, [
    ['bind :80', `bind 127.0.0.1:${clear}`],
    ['bind :443', `bind 127.0.0.1:${tls}`],
    ['/etc/haproxy', folder],
    ['/etc/ssl/ringside', folder]
  ])
  return { args: ['-W', '-f', file], reload: 'SIGUSR2' }
}

function prepareCaddy(stage: Stage): Launch {
  const { folder, clear, tls, admin } = stage
  const file = configure('Caddyfile', stage, [
    ['localhost:2019', `127.0.0.1:${admin}`],
    ['http://:80', `http://127.0.0.1:${clear}`],
    ['https://:443', `https://127.0.0.1:${tls}`],
    ['/etc/ssl/ringside', folder]
  ])
  const config = ['--config', file, '--adapter', 'caddyfile']
  return {
    args: ['run', ...config],
    reload: ['caddy', 'reload', ...config, '--address', `127.0.0.1:${admin}`, '--force']
  }
}

/** As Debian's a2enmod and a2ensite would have it, with what the file itself says of modules. */
function prepareApache(stage: Stage): Launch {
  const { folder, clear, tls } = stage
  copyFileSync(join(DEPLOY, 'apache-away.asis'), join(folder, 'apache-away.asis'))
  const site = configure('apache.conf', stage, [
    ['<VirtualHost *:80>', `<VirtualHost 127.0.0.1:${clear}>`],
    ['<VirtualHost *:443>', `<VirtualHost 127.0.0.1:${tls}>`],
    ['/var/log/apache2', folder],
    ['/etc/apache2/ringside', folder],
    ['/etc/ssl/ringside', folder]
  ])
  const [, modules] = /^# +a2enmod (.+)$/m.exec(readFileSync(site, 'utf8'))!
  const all = [...'authz_core authz_host mime'.split(' '), ...modules!.split(' ')].sort()
  const [loads, settings] = ['load', 'conf'].map(end =>
    all.map(name => `/etc/apache2/mods-available/${name}.${end}`)
  ) as [string[], string[]]
  const main = [
    'ServerName 127.0.0.1',
    `PidFile ${join(folder, 'apache.pid')}`,
    `DefaultRuntimeDir ${folder}`,
    `ErrorLog ${join(folder, 'log')}`,
    `User \${APACHE_RUN_USER}`,
    `Group \${APACHE_RUN_GROUP}`,
    ...[...loads, ...settings.filter(existsSync), site].map(path => `Include ${path}`),
    `Listen 127.0.0.1:${clear}`,
    `Listen 127.0.0.1:${tls}`
  ]
  const file = join(folder, 'main.conf')
  writeFileSync(file, main.join('\n'))
  const env = {
    APACHE_RUN_DIR: folder,
    APACHE_LOG_DIR: folder,
    APACHE_RUN_USER: 'www-data',
    APACHE_RUN_GROUP: 'www-data'
  }
  return { args: ['-f', file, '-D', 'FOREGROUND'], env, reload: 'SIGUSR1' }
}

function prepareVarnish(stage: Stage): Launch {
  const { folder, clear, instances } = stage
  const file = configure('varnish.vcl', stage, [
    ...instances.flatMap(({ port }, index): Change[] => [
      [
        `.host = "ringside-${index + 1}";\n    .port = "3000";`,
        `.host = "127.0.0.1";\n    .port = "${port}";`
      ]
    ])
  ])
  const [, options] = /^# varnishd -a :80 -f \S+ (.+)$/m.exec(readFileSync(file, 'utf8'))!
  const args = [
    '-F',
    '-n',
    join(folder, 'work'),
    '-a',
    `127.0.0.1:${clear}`,
    '-f',
    file,
    ...options!.split(' ')
  ]
  return { args, reload: ['true'] }
}

function prepareAway(stage: Stage): Launch {
  const { folder, clear } = stage
  const server = configure('away.conf', stage, [['listen 8080;', `listen 127.0.0.1:${clear};`]])
  const file = join(folder, 'nginx.conf')
  writeFileSync(file, `pid ${join(folder, 'nginx.pid')}; events {} http { include ${server}; }`)
  return { args: ['-c', file, '-e', join(folder, 'log'), '-g', 'daemon off;'], reload: 'SIGHUP' }
}

// --- files and processes ---

type Change = readonly [from: string, to: string]

/** Writes a file of deploy/ to the folder, changed; the answer is its path. */
function configure(name: string, { folder, instances }: Stage, changes: readonly Change[]): string {
  const names = instances.map(({ port }, index): Change => [
    `ringside-${index + 1}:3000`,
    `127.0.0.1:${port}`
  ])
  let text = readFileSync(join(DEPLOY, name), 'utf8')
  for (const [from, to] of [...(name.endsWith('.vcl') ? [] : names), ...changes]) {
    if (!text.includes(from)) throw new Error(`deploy/${name} has no ${from}`)
    text = text.replaceAll(from, to)
  }
  const path = join(folder, name)
  writeFileSync(path, text)
  return path
}

function read(folder: string, name: string): string {
  return readFileSync(join(folder, name), 'utf8')
}

function isListening(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ host: '127.0.0.1', port })
    socket.on('connect', () => resolve(true))
    socket.on('error', () => resolve(false))
    socket.on('connect', () => socket.destroy())
  })
}

/** Ends it, with all that it has started. */
async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = new Promise(resolve => child.on('exit', resolve))
  child.kill('SIGTERM')
  const late = setTimeout(() => child.kill('SIGKILL'), 5000)
  await ended
  clearTimeout(late)
}
