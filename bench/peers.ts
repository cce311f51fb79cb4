import { execFileSync } from 'node:child_process'
import { createHmac } from 'node:crypto'
import { existsSync, readFileSync, statfsSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { hasProgram, script } from './machine.ts'
import type { Peer } from './peer.ts'
import { isInstalled } from './rivals/peer-package.ts'

/** The topic of everything that names none. */
export const TOPIC = 'bench'
const HOST = 'host: 127.0.0.1\r\n'

function get(path: string, headers = ''): string {
  return `GET ${path} HTTP/1.1\r\n${HOST}${headers}\r\n`
}

function post(path: string, type: string, body: string, headers = ''): string {
  return `POST ${path} HTTP/1.1\r\n${HOST}content-type: ${type}\r\n${headers}content-length: ${body.length}\r\n\r\n${body}`
}

const EVENT_STREAM = 'accept: text/event-stream\r\n'
const GZIP = 'accept-encoding: gzip\r\n'
const WEBSOCKET =
  'connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n'
const JSON_TYPE = 'application/json'

const MANY = { publishers: 16, window: 256 }
/** Those that would only queue more. */
const FEW = { publishers: 4, window: 32 }

const PACKAGES_HINT = 'npm ci --prefix bench'

/** A server of bench/rivals/. */
function rival(
  name: string,
  label: string,
  options: Partial<Peer> & { file?: string; packages?: string[] } = {}
): Peer {
  const { file = name, packages = [], ...rest } = options
  const [program, ...args] = file.split(' ')
  return {
    name,
    label,
    missing: () => (packages.every(isInstalled) ? null : PACKAGES_HINT),
    command: () => () => ({
      file: process.execPath,
      args: [script(`rivals/${program}`), ...args]
    }),
    transport: 'plain',
    page: get('/'),
    subscribe: ({ compressed }) => get('/events', EVENT_STREAM + (compressed ? GZIP : '')),
    begins: '\r\n\r\n',
    publish: data => post('/events', JSON_TYPE, data),
    pressure: FEW,
    ...rest
  }
}

/** A text frame from a client: it has a mask, which may be zeros. */
function clientFrame(text: string): Buffer {
  const { length } = text
  const head = length < 126 ? [0x80 | length] : [0x80 | 126, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from([0x81, ...head, 0, 0, 0, 0]), Buffer.from(text)])
}

/** What `npm start` runs. */
const { start } = (JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: { start: string } }).scripts

const ringside: Peer = {
  name: 'ringside',
  label: '**Ringside**',
  missing: () => (existsSync('dist/cli/ringside.js') ? null : 'npm run build'),
  command: settings => () => {
    const { NODE_ARGS = '', ...env } = settings
    return {
      file: process.execPath,
      args: [...NODE_ARGS.split(' ').filter(Boolean), ...start.split(' ').slice(1)],
      env: { PORT: '0', DEMO: 'false', LOG_LEVEL: 'warn', DRAIN: '0', ...env }
    }
  },
  transport: 'plain',
  page: get('/'),
  subscribe: ({ topics = [TOPIC], after, rate, rewind, compressed }) => {
    const query = topics.map(topic => `topic=${encodeURIComponent(topic)}`)
    if (rate !== undefined) query.push(`rate=${rate}`)
    if (rewind !== undefined) query.push(`rewind=${rewind}`)
    const cursor = after === undefined ? '' : `last-event-id: ${after}\r\n`
    return get(`/events?${query.join('&')}`, EVENT_STREAM + cursor + (compressed ? GZIP : ''))
  },
  begins: 'event: cursor',
  publish: (data, topic = TOPIC) => post(`/events/${topic}`, JSON_TYPE, data),
  publishBatch: (events, format) => {
    const items = events.map(({ topic, data }) => `{"topic":"${topic}","data":${data}}`)
    return format === 'json'
      ? post('/events', JSON_TYPE, `[${items.join(',')}]`)
      : post('/events', 'application/x-ndjson', items.join('\n'))
  },
  batchFormats: ['json', 'ndjson'],
  pressure: MANY
}

/** Another checkout that is built: measured by turns with this one, it shows what a change costs. */
const BEFORE = process.env['BEFORE']

const before: Peer = {
  ...ringside,
  name: 'before',
  label: 'Ringside, before',
  missing: () =>
    existsSync(join(BEFORE!, 'dist/cli/ringside.js')) ? null : `npm run build, in BEFORE=${BEFORE}`,
  command: settings => place => {
    const command = ringside.command(settings)(place)
    const args = command.args.map(arg => (arg.startsWith('dist/') ? join(BEFORE!, arg) : arg))
    return { ...command, args }
  }
}

/** Ringside with a certificate, made for this run: the same audiences, over TLS. */
function ringsideOver(transport: 'tls' | 'http2', label: string): Peer {
  return {
    ...ringside,
    name: `ringside-${transport}`,
    label,
    missing: () =>
      ringside.missing() ?? (hasProgram('openssl') ? null : 'openssl, which makes a certificate'),
    command: settings => place => {
      const [TLS_CERT, TLS_KEY] = [join(place.directory, 'cert.pem'), join(place.directory, 'key.pem')]
      const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']
      execFileSync(
        'openssl',
        ['req', '-x509', ...curve, '-subj', '/CN=127.0.0.1', '-keyout', TLS_KEY, '-out', TLS_CERT],
        { stdio: 'pipe' }
      )
      return ringside.command({ ...settings, TLS_CERT, TLS_KEY })(place)
    },
    transport
  }
}

/** The same events over Ringside's WebSocket. */
const ringsideOverWebSocket: Peer = {
  ...ringside,
  name: 'ringside-ws',
  label: 'Ringside, WebSocket',
  subscribe: () => get('/ws', WEBSOCKET),
  greeting: {
    after: '\r\n\r\n',
    say: clientFrame(JSON.stringify({ op: 'subscribe', ref: 1, topics: [TOPIC] }))
  },
  begins: '"op":"ok"'
}

/** Whether temporary files lie in memory: nothing is flushed there. */
function isInMemory(): boolean {
  return statfsSync(tmpdir()).type === TMPFS
}

const TMPFS = 0x01021994
const DISK_HINT = 'a disk for temporary files: TMPDIR names a folder on one'

/** Ringside with its store on disk. */
const ringsideOnDisk: Peer = {
  ...ringside,
  name: 'ringside-disk',
  label: '**Ringside, on disk**',
  missing: () => ringside.missing() ?? (isInMemory() ? DISK_HINT : null),
  command: settings => place =>
    ringside.command({ DATA_DIR: join(place.directory, 'store'), ...settings })(place)
}

/** The same over WebSockets: a publish is a message, and its answer another one. */
const ringsideOnDiskOverWebSocket: Peer = {
  ...ringsideOnDisk,
  name: 'ringside-disk-ws',
  label: 'Ringside, on disk, over WebSockets',
  command: settings => ringsideOnDisk.command({ WS_MESSAGE_RATE: '0', ...settings }),
  dialog: {
    opens: get('/ws', WEBSOCKET),
    opened: '\r\n\r\n',
    answer: '{"op":"',
    stored: 'ok'
  },
  publish: (data, topic = TOPIC) =>
    clientFrame(`{"op":"publish","ref":1,"topic":"${topic}","data":${data}}`).toString('latin1')
}

/** The floor of what is stored on disk: it can't be asked anything. */
const plainLog = rival('plain-log', 'a plain log behind node:http', {
  missing: () => (isInMemory() ? DISK_HINT : null),
  command:
    () =>
    ({ directory }) => ({ file: process.execPath, args: [script('rivals/plain-log'), directory] })
})

/** What Mercure does with Bolt, for where Mercure itself can't be had. */
const BBOLT_PROGRAM = 'bench/rivals/bbolt/bbolt'

const bbolt = rival('bbolt', 'bbolt, a commit an update (Go)', {
  missing: () => {
    if (!existsSync(BBOLT_PROGRAM)) return 'go build -C bench/rivals/bbolt'
    return isInMemory() ? DISK_HINT : null
  },
  command:
    () =>
    ({ port, directory }) => ({
      file: BBOLT_PROGRAM,
      args: [`127.0.0.1:${port}`, join(directory, 'bolt.db')]
    })
})

const NCHAN_MODULES = [
  process.env['NCHAN_MODULE'] ?? '',
  '/usr/lib/nginx/modules/ngx_nchan_module.so',
  '/usr/share/nginx/modules/ngx_nchan_module.so'
]
const nchanModule = NCHAN_MODULES.find(file => file !== '' && existsSync(file))

const nchan: Peer = {
  name: 'nchan',
  label: 'nginx with Nchan',
  missing: () =>
    hasProgram('nginx') && nchanModule
      ? null
      : 'nginx and its Nchan module (Debian: nginx, libnginx-mod-nchan)',
  command:
    () =>
    ({ port, directory }) => {
      const config = join(directory, 'nginx.conf')
      writeFileSync(
        config,
        `load_module ${nchanModule};
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid ${directory}/nginx.pid;
error_log stderr error;
${process.getuid?.() === 0 ? 'user root;' : ''}
events { worker_connections 19900; }
http {
  access_log off;
  keepalive_requests 100000000;
  nchan_shared_memory_size 256M;
  client_body_temp_path ${directory}/body;
  proxy_temp_path ${directory}/proxy;
  fastcgi_temp_path ${directory}/fastcgi;
  uwsgi_temp_path ${directory}/uwsgi;
  scgi_temp_path ${directory}/scgi;
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location = /events { nchan_subscriber eventsource; nchan_channel_id bench; nchan_subscriber_first_message newest; }
    location = /publish { nchan_publisher; nchan_channel_id bench; nchan_message_buffer_length 4096; }
    location = / { return 200 "a page\\n"; }
  }
}
`
      )
      return { file: 'nginx', args: ['-c', config, '-p', directory, '-e', 'stderr'] }
    },
  transport: 'plain',
  page: get('/'),
  subscribe: () => get('/events', EVENT_STREAM),
  begins: '\r\n\r\n',
  publish: data => post('/publish', JSON_TYPE, data),
  pressure: MANY
}

const MERCURE_KEY = 'a-key-for-the-bench-of-32-bytes-or-more'

function mercureToken(): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ mercure: { publish: ['*'] } })}`
  return `${signed}.${createHmac('sha256', MERCURE_KEY).update(signed).digest('base64url')}`
}

const mercure: Peer = {
  name: 'mercure',
  label: 'Mercure',
  missing: () => (hasProgram('mercure') ? null : 'the program mercure (https://mercure.rocks)'),
  command:
    () =>
    ({ port, directory }) => {
      const config = join(directory, 'Caddyfile')
      writeFileSync(
        config,
        `{
  auto_https off
  admin off
  persist_config off
}
http://127.0.0.1:${port} {
  respond / "a page"
  mercure {
    transport bolt {
      path ${directory}/mercure.db
    }
    publisher_jwt ${MERCURE_KEY}
    anonymous
  }
}
`
      )
      return { file: 'mercure', args: ['run', '--config', config, '--adapter', 'caddyfile'] }
    },
  transport: 'plain',
  page: get('/'),
  subscribe: () => get(`/.well-known/mercure?topic=${TOPIC}`, EVENT_STREAM),
  begins: '\r\n\r\n',
  publish: data =>
    post(
      '/.well-known/mercure',
      'application/x-www-form-urlencoded',
      `topic=${TOPIC}&data=${encodeURIComponent(data)}`,
      `authorization: Bearer ${mercureToken()}\r\n`
    ),
  pressure: MANY
}

const centrifugo: Peer = {
  name: 'centrifugo',
  label: 'Centrifugo, SSE',
  missing: () => (hasProgram('centrifugo') ? null : 'the program centrifugo 6 (https://centrifugal.dev)'),
  command:
    () =>
    ({ port, directory }) => {
      const config = join(directory, 'config.json')
      writeFileSync(
        config,
        JSON.stringify({
          http_server: { address: '127.0.0.1', port: String(port) },
          http_api: { key: TOPIC },
          client: { insecure: true },
          uni_sse: { enabled: true },
          channel: { without_namespace: { allow_subscribe_for_client: true } },
          log: { level: 'error' }
        })
      )
      return { file: 'centrifugo', args: ['--config', config] }
    },
  transport: 'plain',
  page: get('/health'),
  subscribe: () =>
    get(
      `/connection/uni_sse?cf_connect=${encodeURIComponent(JSON.stringify({ subs: { [TOPIC]: {} } }))}`,
      EVENT_STREAM
    ),
  begins: '"connect"',
  publish: data =>
    post('/api/publish', JSON_TYPE, `{"channel":"${TOPIC}","data":${data}}`, `x-api-key: ${TOPIC}\r\n`),
  pressure: MANY
}

/** The engine of Centrifugo under a small server of ours, for where Centrifugo itself can't be had. */
const CENTRIFUGE_PROGRAM = 'bench/rivals/centrifuge/centrifuge'

const centrifuge: Peer = {
  ...centrifugo,
  name: 'centrifuge',
  label: 'Centrifuge (Go), SSE',
  missing: () => (existsSync(CENTRIFUGE_PROGRAM) ? null : 'go build -C bench/rivals/centrifuge'),
  command:
    () =>
    ({ port }) => ({ file: CENTRIFUGE_PROGRAM, args: [`127.0.0.1:${port}`] }),
  page: get('/'),
  subscribe: () => get(`/events?cf_connect=${encodeURIComponent('{"id":1,"connect":{}}')}`, EVENT_STREAM),
  publish: data => post('/events', JSON_TYPE, data)
}

/** The bare floor behind a proxy that compresses. Their figures are of both. */
function gzipProxy(program: string, label: string): Peer {
  return rival(`${program}-gzip`, label, {
    missing: () => (hasProgram(program) ? null : program),
    command:
      () =>
      ({ directory }) => ({
        file: process.execPath,
        args: [script('rivals/gzip-proxy'), program, directory]
      })
  })
}

/** In the order of the tables: the floors, Ringside, then the others. */
export const peers: readonly Peer[] = [
  rival('net', 'bare net.Socket, a write an event', { pressure: MANY }),
  rival('net-tick', 'bare net.Socket, a write a tick', { file: 'net tick', pressure: MANY }),
  rival('http', 'bare node:http', {
    publishBatch: events => post('/events', JSON_TYPE, `[${events.map(({ data }) => data).join(',')}]`),
    batchFormats: ['json']
  }),
  ringside,
  ...(BEFORE === undefined ? [] : [before]),
  ringsideOnDisk,
  ringsideOnDiskOverWebSocket,
  ringsideOver('tls', 'Ringside, TLS'),
  ringsideOver('http2', 'Ringside, HTTP/2 over TLS'),
  ringsideOverWebSocket,
  rival('ws', 'ws', { packages: ['ws'], subscribe: () => get('/events', WEBSOCKET) }),
  rival('socket.io', 'Socket.IO', {
    file: 'socket-io',
    packages: ['socket.io'],
    subscribe: () => get('/socket.io/?EIO=4&transport=websocket', WEBSOCKET),
    greeting: { after: '0{"sid"', say: clientFrame('40') },
    begins: '40{"sid"'
  }),
  rival('fastify-sse', '@fastify/sse', { packages: ['@fastify/sse', 'fastify'] }),
  rival('better-sse', 'better-sse', { packages: ['better-sse'] }),
  nchan,
  mercure,
  centrifugo,
  centrifuge,
  plainLog,
  bbolt,
  gzipProxy('nginx', 'nginx, `gzip on`, before bare node:http'),
  gzipProxy('caddy', 'Caddy, `encode gzip`, before bare node:http'),
  rival('fastify-compress', '@fastify/compress, told to flush', {
    packages: ['@fastify/compress', '@fastify/sse', 'fastify']
  }),
  rival('fastify-compress-sse', '@fastify/compress before @fastify/sse', {
    file: 'fastify-compress sse',
    packages: ['@fastify/compress', '@fastify/sse', 'fastify']
  })
]

export const FLOORS = ['net', 'net-tick', 'http'] as const

/** Those who compress streams; they take part in nothing else. */
export const COMPRESSING = ['nginx-gzip', 'caddy-gzip', 'fastify-compress', 'fastify-compress-sse'] as const

/** Those to whom it is only published: nobody can subscribe to them, or is to. */
export const STORES = ['ringside-disk-ws', 'plain-log', 'bbolt'] as const
