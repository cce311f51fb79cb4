/**
 * Real Redis servers for tests and programs: alone, watched by Sentinels, or as a Cluster; on free ports, in a
 * directory of their own. Each dies with the process that started it, also when that is killed.
 * RINGSIDE_REDIS_SERVER names another program than `redis-server`, one that takes the same arguments.
 */
import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { Redis, type RedisOptions } from 'ioredis'

const run = promisify(execFile)

/** How long anything here may take to become ready, in milliseconds. */
const READY_MS = 30_000

export interface RedisServerOptions {
  /** Keeps what it stores: every write is on disk before it is answered. */
  persistent?: boolean
  password?: string
  /** The lines of an ACL file, such as `user ringside on >secret ~* &* +@all`. The default user stays as it is. */
  acl?: readonly string[]
  /** Listens on a Unix socket too, and `url` names that. */
  socket?: boolean
  /** Speaks TLS alone, with a certificate of its own for 127.0.0.1, or that in a folder; `ca` is the file to trust. */
  tls?: boolean | string
  /** Such as `10mb`; what would go past it is refused. */
  maxmemory?: string
  /** Any other settings, as in redis.conf. */
  config?: Readonly<Record<string, string | readonly string[]>>
}

/** A server of its own: asks until it answers. */
export async function startRedis(options: RedisServerOptions = {}): Promise<RedisServer> {
  const dir = mkdtempSync(join(tmpdir(), 'ringside-redis-'))
  if (options.acl)
    writeFileSync(
      join(dir, 'users.acl'),
      `${['user default on nopass ~* &* +@all', ...options.acl].join('\n')}\n`
    )
  if (options.tls === true) await makeCertificate(dir)
  for (let attempt = 1; ; attempt++) {
    const server = new RedisServer(dir, await freePort(), options)
    try {
      await server.start()
      return server
    } catch (error) {
      // somebody else took the port meanwhile
      if (attempt === 5 || !readLog(dir).includes('Could not create server TCP listening socket')) {
        rmSync(dir, { recursive: true, force: true })
        throw error
      }
    }
  }
}

/** One `redis-server` process. */
export class RedisServer {
  readonly dir: string
  readonly port: number
  readonly #options: RedisServerOptions
  readonly #sentinel: string | null
  #process: RedisProcess | null = null

  /** `sentinel`: the text of a configuration that makes it a Sentinel. */
  constructor(dir: string, port: number, options: RedisServerOptions, sentinel: string | null = null) {
    this.dir = dir
    this.port = port
    this.#options = options
    this.#sentinel = sentinel
  }

  get url(): string {
    const { password, socket, tls } = this.#options
    const login = password === undefined ? '' : `:${encodeURIComponent(password)}@`
    if (socket) return `unix://${login}${this.socket}`
    return `${tls ? 'rediss' : 'redis'}://${login}127.0.0.1:${this.port}`
  }

  get socket(): string {
    return join(this.dir, 'redis.sock')
  }

  /** The certificate to trust. */
  get ca(): string {
    return join(this.#certificates, 'cert.pem')
  }

  get #certificates(): string {
    const { tls } = this.#options
    return typeof tls === 'string' ? tls : this.dir
  }

  get pid(): number {
    return this.#running().pid
  }

  /** Resolves once it answers. */
  async start(): Promise<void> {
    this.#process = await launch(this.dir, this.#arguments())
    await this.ready()
  }

  /** Resolves once it answers; rejects when it has ended. */
  async ready(): Promise<void> {
    const { ended } = this.#running()
    await until(async () => {
      if (ended()) throw new Error(`redis-server has ended:\n${readLog(this.dir)}`)
      return (await this.command('PING')) === 'PONG'
    }, `redis-server on port ${this.port} to answer`)
  }

  /** Asks it something, on a connection of its own. */
  async command(...args: (string | number)[]): Promise<unknown> {
    const client = new Redis(this.clientOptions())
    client.on('error', () => {}) // the command fails with it
    try {
      await client.connect()
      const [name, ...rest] = args
      return await client.call(String(name), ...rest.map(String))
    } finally {
      client.disconnect()
    }
  }

  /** How to connect to it as the one who may do everything. It is not tried again. */
  clientOptions(): Omit<RedisOptions, 'replyMapping'> {
    const { password, tls } = this.#options
    return {
      host: '127.0.0.1',
      port: this.port,
      ...(password !== undefined && { password }),
      ...(tls && { tls: this.#clientTls() }),
      connectionName: 'test',
      lazyConnect: true,
      connectTimeout: 2000,
      commandTimeout: 10_000,
      enableReadyCheck: false,
      maxRetriesPerRequest: 0,
      retryStrategy: () => null
    }
  }

  #clientTls() {
    const [cert, key] = [this.ca, join(this.#certificates, 'key.pem')].map(file => readFileSync(file))
    return { ca: cert!, cert: cert!, key: key!, checkServerIdentity: () => undefined }
  }

  /** A section of INFO by its names; empty when it closed our connection, as a Sentinel has a new replica do. */
  async info(section: string): Promise<Record<string, string>> {
    const text = await this.command('INFO', section).then(String, (error: Error) => {
      if (error.message === 'Connection is closed.') return ''
      throw error
    })
    return Object.fromEntries(
      text
        .split('\r\n')
        .filter(line => line.includes(':'))
        .map(line => splitOnce(line, ':'))
    )
  }

  /** What it has written to its log. */
  log(): string {
    return readLog(this.dir)
  }

  async flush(): Promise<void> {
    await this.command('FLUSHALL')
  }

  /** Ends it as a power cut would. Resolves when it is gone. */
  async kill(): Promise<void> {
    await this.#process?.kill()
    this.#process = null
  }

  /** Starts it again on its port, with the data that it left on disk, if any. */
  async restart(): Promise<void> {
    await this.kill()
    await this.start()
  }

  /** Starts it again and resolves as soon as it runs, whether it answers or not. */
  async launchAgain(): Promise<void> {
    await this.kill()
    this.#process = await launch(this.dir, this.#arguments())
  }

  /** Stops it in its tracks: connections stay open, nothing is answered. */
  freeze(): void {
    process.kill(this.pid, 'SIGSTOP')
  }

  thaw(): void {
    process.kill(this.pid, 'SIGCONT')
  }

  /** Keeps a copy of what is on disk now; the answer puts it back (while the server is down). */
  copyData(): () => void {
    const copy = mkdtempSync(join(this.dir, 'copy-'))
    const parts = ['appendonlydir', 'dump.rdb']
    for (const part of parts) copyIfThere(join(this.dir, part), join(copy, part))
    return () => {
      for (const part of parts) {
        rmSync(join(this.dir, part), { recursive: true, force: true })
        copyIfThere(join(copy, part), join(this.dir, part))
      }
    }
  }

  /** Throws away what is on disk (while the server is down). */
  dropData(): void {
    for (const part of ['appendonlydir', 'dump.rdb'])
      rmSync(join(this.dir, part), { recursive: true, force: true })
  }

  /** Ends it for good and removes its directory. */
  async stop(): Promise<void> {
    await this.kill()
    rmSync(this.dir, { recursive: true, force: true })
  }

  #running(): RedisProcess {
    if (!this.#process) throw new Error('redis-server is not running')
    return this.#process
  }

  #arguments(): string[] {
    if (this.#sentinel !== null) {
      const file = join(this.dir, 'sentinel.conf')
      writeFileSync(file, this.#sentinel)
      return [file, '--sentinel']
    }
    const { persistent, password, acl, socket, tls, maxmemory, config } = this.#options
    const settings = {
      bind: '127.0.0.1',
      ...(tls
        ? { port: '0', 'tls-port': String(this.port), ...tlsSettings(this.#certificates) }
        : { port: String(this.port) }),
      dir: this.dir,
      save: '',
      appendonly: persistent ? 'yes' : 'no',
      ...(persistent && { appendfsync: 'always' }),
      'repl-diskless-sync-delay': '0',
      ...(password !== undefined && { requirepass: password }),
      ...(acl && { aclfile: join(this.dir, 'users.acl') }),
      ...(socket && { unixsocket: this.socket }),
      ...(maxmemory !== undefined && { maxmemory, 'maxmemory-policy': 'noeviction' }),
      ...config
    }
    return Object.entries(settings).flatMap(([name, value]) => [`--${name}`, ...[value].flat()])
  }
}

/** Also replicas, the nodes of a Cluster and Sentinels speak TLS with each other. */
function tlsSettings(folder: string): Record<string, string> {
  return {
    'tls-cert-file': join(folder, 'cert.pem'),
    'tls-key-file': join(folder, 'key.pem'),
    'tls-ca-cert-file': join(folder, 'cert.pem'),
    'tls-auth-clients': 'no',
    'tls-replication': 'yes',
    'tls-cluster': 'yes'
  }
}

// --- Sentinel ---

export interface SentinelSetup {
  /** `redis+sentinel://host:port,…/name` */
  readonly url: string
  readonly servers: readonly RedisServer[]
  readonly sentinels: readonly RedisServer[]
  /** The master, as the Sentinels say. */
  master(): Promise<RedisServer>
  /** Kills the master; resolves with it once another one has taken over. */
  killMaster(): Promise<RedisServer>
  stop(): Promise<void>
}

const MASTER_NAME = 'ringside'

/** A master with one replica, watched by three Sentinels, two of which decide; `password` is that of the Sentinels. */
export async function startSentinel(
  options: RedisServerOptions & { tls?: string } = {},
  password?: string
): Promise<SentinelSetup> {
  const servers: RedisServer[] = []
  const sentinels: RedisServer[] = []
  const stop = async () => {
    await Promise.all([...servers, ...sentinels].map(server => server.stop()))
  }
  try {
    servers.push(await startRedis(options))
    const [first] = servers
    servers.push(
      await startRedis({ ...options, config: { ...options.config, replicaof: `127.0.0.1 ${first!.port}` } })
    )
    await until(
      async () => (await servers[1]!.info('replication')).master_link_status === 'up',
      'the replica to follow'
    )
    for (let index = 0; index < 3; index++)
      sentinels.push(await startOneSentinel(first!.port, options.tls, password))
    await Promise.all(sentinels.map(waitUntilComplete))
  } catch (error) {
    await stop()
    throw error
  }
  const master = async () => {
    const ports = await Promise.all(
      sentinels.map(sentinel => sentinel.command('SENTINEL', 'get-master-addr-by-name', MASTER_NAME))
    )
    const [port] = ports.map(address => Number((address as string[])[1]))
    return servers.find(server => server.port === port)!
  }
  const killMaster = async () => {
    const killed = await master()
    await killed.kill()
    await until(async () => {
      const next = await master()
      return next !== killed && (await next.info('replication')).role === 'master'
    }, 'another master to take over')
    return killed
  }
  const url = `redis${options.tls ? 's' : ''}+sentinel://${sentinels.map(({ port }) => `127.0.0.1:${port}`).join(',')}/${MASTER_NAME}`
  return { url, servers, sentinels, master, killMaster, stop }
}

async function startOneSentinel(master: number, tls?: string, password?: string): Promise<RedisServer> {
  const dir = mkdtempSync(join(tmpdir(), 'ringside-sentinel-'))
  const port = await freePort()
  const config = `
    bind 127.0.0.1
    ${tls ? `port 0\n    tls-port ${port}` : `port ${port}`}
    ${Object.entries(tls ? tlsSettings(tls) : {})
      .map(each => each.join(' '))
      .join('\n')}
    ${password ? `requirepass ${password}\n    sentinel sentinel-pass ${password}` : ''}
    dir ${dir}
    sentinel monitor ${MASTER_NAME} 127.0.0.1 ${master} 2
    sentinel down-after-milliseconds ${MASTER_NAME} 500
    sentinel failover-timeout ${MASTER_NAME} 2000
    sentinel parallel-syncs ${MASTER_NAME} 1
  `
  const server = new RedisServer(
    dir,
    port,
    { ...(tls && { tls }), ...(password && { password }) },
    config.replace(/^ +/gm, '')
  )
  await server.start()
  // they find each other and the replica by these
  await server.command('SENTINEL', 'DEBUG', 'PUBLISH-PERIOD', 200, 'INFO-PERIOD', 500)
  return server
}

async function waitUntilComplete(sentinel: RedisServer): Promise<void> {
  await until(async () => {
    const answer = (await sentinel.command('SENTINEL', 'MASTER', MASTER_NAME)) as string[]
    const value = (name: string) => Number(answer[answer.indexOf(name) + 1])
    return value('num-other-sentinels') === 2 && value('num-slaves') === 1
  }, 'the Sentinels to find each other')
}

// --- Cluster ---

export interface ClusterSetup {
  /** `redis://host:port,host:port,…` */
  readonly url: string
  readonly nodes: readonly RedisServer[]
  /** The node that serves a key now, as the others say. */
  primaryOf(key: string): Promise<RedisServer>
  /** A living replica of a node. */
  replicaOf(primary: RedisServer): Promise<RedisServer | undefined>
  /** Kills the node that serves a key; resolves with it once its replica has taken over. */
  killPrimary(key: string): Promise<RedisServer>
  /**
   * Moves the slot of a key, with its keys, to another primary, and resolves with that; `halfway`: what happens when
   * this key is there and the others are not.
   */
  moveSlot(key: string, halfway?: (to: RedisServer) => Promise<void>): Promise<RedisServer>
  stop(): Promise<void>
}

/** Three primaries with a replica each. */
export async function startCluster(
  options: RedisServerOptions & { tls?: string } = {}
): Promise<ClusterSetup> {
  const config = {
    ...options.config,
    'cluster-enabled': 'yes',
    'cluster-node-timeout': '1000',
    'cluster-replica-validity-factor': '0'
  }
  const started = await Promise.allSettled(
    Array.from({ length: 6 }, () => startRedis({ ...options, config }))
  )
  const nodes = started.flatMap(result => (result.status === 'fulfilled' ? [result.value] : []))
  const stop = async () => {
    await Promise.all(nodes.map(node => node.stop()))
  }
  try {
    for (const result of started) if (result.status === 'rejected') throw result.reason
    const addresses = nodes.map(({ port }) => `127.0.0.1:${port}`)
    await run(
      'redis-cli',
      [
        ...tlsArguments(options.tls),
        '--cluster',
        'create',
        ...addresses,
        '--cluster-replicas',
        '1',
        '--cluster-yes'
      ],
      { timeout: READY_MS }
    )
    await Promise.all(nodes.map(waitUntilJoined))
  } catch (error) {
    await stop()
    throw error
  }

  const asked = async () => {
    for (const node of nodes) {
      const shards = await node.command('CLUSTER', 'SLOTS').catch(() => null)
      if (shards) return shards as [from: number, to: number, primary: [host: string, port: number]][]
    }
    throw new Error('no node of the cluster answers')
  }
  const slotOf = async (key: string) => {
    for (const node of nodes) {
      const slot = await node.command('CLUSTER', 'KEYSLOT', key).catch(() => null)
      if (slot !== null) return Number(slot)
    }
    throw new Error('no node of the cluster answers')
  }
  const primaryOf = async (key: string) => {
    const slot = await slotOf(key)
    const range = (await asked()).find(([from, to]) => from <= slot && slot <= to)
    return nodes.find(({ port }) => port === range?.[2][1])!
  }
  const replicaOf = async (primary: RedisServer) => {
    const infos = await Promise.all(nodes.map(node => node.info('replication').catch(() => null)))
    return nodes.find(
      (_, index) => infos[index]?.role === 'slave' && Number(infos[index].master_port) === primary.port
    )
  }
  const killPrimary = async (key: string) => {
    const killed = await primaryOf(key)
    await killed.kill()
    await until(async () => {
      const next = await primaryOf(key)
      return next !== killed && (await next.info('replication')).role === 'master' && (await isWhole(next))
    }, 'the replica to take over')
    return killed
  }
  const moveSlot: ClusterSetup['moveSlot'] = async (key, halfway) => {
    const slot = await slotOf(key)
    const from = await primaryOf(key)
    const to = nodes.find(({ port }) => port !== from.port && primaries.has(port))!
    const [fromId, toId] = (await Promise.all([
      from.command('CLUSTER', 'MYID'),
      to.command('CLUSTER', 'MYID')
    ])) as [string, string]
    await to.command('CLUSTER', 'SETSLOT', slot, 'IMPORTING', fromId)
    await from.command('CLUSTER', 'SETSLOT', slot, 'MIGRATING', toId)
    const migrate = (...keys: string[]) =>
      from.command('MIGRATE', '127.0.0.1', to.port, '', 0, 5000, 'KEYS', ...keys)
    if (halfway) {
      await migrate(key)
      await halfway(to)
    }
    for (;;) {
      const keys = (await from.command('CLUSTER', 'GETKEYSINSLOT', slot, 100)) as string[]
      if (keys.length === 0) break
      await migrate(...keys)
    }
    await to.command('CLUSTER', 'SETSLOT', slot, 'NODE', toId)
    await from.command('CLUSTER', 'SETSLOT', slot, 'NODE', toId)
    await until(async () => (await primaryOf(key)) === to, 'the slot to have moved')
    return to
  }
  const primaries = new Set((await asked()).map(([, , [, port]]) => port))
  const url = `redis${options.tls ? 's' : ''}://${nodes.map(({ port }) => `127.0.0.1:${port}`).join(',')}`
  return { url, nodes, primaryOf, replicaOf, killPrimary, moveSlot, stop }
}

function tlsArguments(folder?: string): string[] {
  return folder === undefined ? [] : ['--tls', '--cacert', join(folder, 'cert.pem')]
}

async function waitUntilJoined(node: RedisServer): Promise<void> {
  await until(async () => {
    const { role, master_link_status: link } = await node.info('replication')
    return (role === 'master' || link === 'up') && (await isWhole(node))
  }, `node ${node.port} to join`)
}

async function isWhole(node: RedisServer): Promise<boolean> {
  const info = String(await node.command('CLUSTER', 'INFO'))
  return info.includes('cluster_state:ok') && info.includes('cluster_known_nodes:6')
}

// --- processes ---

interface RedisProcess {
  readonly pid: number
  ended(): boolean
  kill(): Promise<void>
}

/**
 * Starts redis-server under a shell that waits for its own standard input to end, and then kills it: that happens
 * too when this process dies without a word. Tells the server's process id on standard output.
 */
const GUARD = `
  exec 3<&0
  log=$1; shift
  "\${RINGSIDE_REDIS_SERVER:-redis-server}" "$@" </dev/null >>"$log" 2>&1 &
  server=$!
  echo $server
  { read -r _ <&3; kill -KILL $server; } >/dev/null 2>&1 &
  guard=$!
  wait $server
  kill $guard
`

async function launch(dir: string, args: readonly string[]): Promise<RedisProcess> {
  const guard: ChildProcess = spawn('sh', ['-c', GUARD, 'guard', join(dir, 'redis.log'), ...args], {
    stdio: ['pipe', 'pipe', 'ignore']
  })
  const exited = once(guard, 'exit')
  const [first] = (await once(guard.stdout!, 'data')) as [Buffer]
  const pid = Number(first.toString())
  // none of it shall keep this process alive
  guard.unref()
  for (const stream of [guard.stdin, guard.stdout]) (stream as unknown as { unref(): void }).unref()
  return {
    pid,
    ended: () => guard.exitCode !== null || guard.signalCode !== null,
    async kill() {
      guard.ref()
      guard.stdin!.on('error', () => {}) // it has ended by itself
      guard.stdin!.end()
      await exited
    }
  }
}

/** Below the range that outgoing connections take theirs from, and so that the port of a Cluster's bus is too. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 11_000 + Math.floor(Math.random() * 10_000)
    if ((await isFree(port)) && (await isFree(port + 10_000))) return port
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const probe = createServer()
    probe.once('error', () => resolve(false))
    probe.listen({ port, host: '127.0.0.1' }, () => probe.close(() => resolve(true)))
  })
}

async function makeCertificate(dir: string): Promise<void> {
  const subject = ['-subj', '/CN=ringside-test', '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost']
  const files = ['-keyout', join(dir, 'key.pem'), '-out', join(dir, 'cert.pem')]
  await run('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', ...subject, ...files])
}

/** Asks again and again until the answer is yes; a question that fails counts as no, unless the server has ended. */
async function until(ask: () => Promise<boolean>, what: string): Promise<void> {
  const deadline = performance.now() + READY_MS
  let last: unknown
  while (performance.now() < deadline) {
    try {
      if (await ask()) return
    } catch (error) {
      last = error
      if ((error as Error).message.startsWith('redis-server has ended')) throw error
    }
    await delay(20)
  }
  throw new Error(`waited too long for ${what}`, { cause: last })
}

function copyIfThere(from: string, to: string): void {
  try {
    cpSync(from, to, { recursive: true })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
}

function readLog(dir: string): string {
  try {
    return readFileSync(join(dir, 'redis.log'), 'utf8')
  } catch {
    return ''
  }
}

function splitOnce(text: string, separator: string): [string, string] {
  const index = text.indexOf(separator)
  return [text.slice(0, index), text.slice(index + 1)]
}
