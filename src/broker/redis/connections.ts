import { readFileSync } from 'node:fs'
import calculateSlot from 'cluster-key-slot'
import { Cluster, Redis, type RedisOptions, type Result } from 'ioredis'

/** How long a command may take before it counts as unanswered, in milliseconds. */
export const COMMAND_TIMEOUT_MS = 2000

/** A `REDIS_URL` that can't be understood. */
export class RedisUrlError extends Error {
  override name = 'RedisUrlError'
}

type Options = Omit<RedisOptions, 'replyMapping'>

/** Where Redis is, as `REDIS_URL` says it. */
export type RedisTarget =
  | { readonly kind: 'single' | 'sentinel'; readonly options: Options }
  | { readonly kind: 'cluster'; readonly nodes: { host: string; port: number }[]; readonly options: Options }

/**
 * Reads `redis://[user:password@]host[:port][/db]` (`rediss://` for TLS), the same with several hosts for a Cluster,
 * `redis+sentinel://…host:port,host:port/name[/db]` (`rediss+sentinel://`), or `unix:///path/to/socket[?db=n]`.
 * Throws a `RedisUrlError`.
 */
export function readRedisUrl(text: string): RedisTarget {
  // the part between // and the path may name several hosts, which no URL parser takes
  const match =
    /^(redis|rediss|redis\+sentinel|rediss\+sentinel|unix):\/\/(?:([^@/]*)@)?([^/?]*)(\/[^?]*)?(?:\?(.*))?$/.exec(
      text
    )
  if (!match) throw new RedisUrlError('is not redis://, rediss://, redis+sentinel:// or unix://')
  const [, scheme, login = '', hosts = '', path = '', query = ''] = match
  const [username = '', password = ''] = login.includes(':') ? splitOnce(login, ':') : ['', login]
  const options: Options = {
    ...(username && { username: decodeURIComponent(username) }),
    ...(password && { password: decodeURIComponent(password) }),
    ...(scheme!.startsWith('rediss') && { tls: {} })
  }
  if (scheme === 'unix') {
    return {
      kind: 'single',
      options: { ...options, path, db: database(new URLSearchParams(query).get('db') ?? '0') }
    }
  }
  if (hosts === '') throw new RedisUrlError('names no host')
  const segments = path.split('/').filter(Boolean)
  if (scheme!.endsWith('+sentinel')) {
    const [name, db = '0'] = segments
    if (!name) throw new RedisUrlError('names no master: redis+sentinel://host:26379/name')
    const sentinels = hosts.split(',').map(host => address(host, 26379))
    return { kind: 'sentinel', options: { ...options, sentinels, name, db: database(db) } }
  }
  const nodes = hosts.split(',').map(host => address(host, 6379))
  if (nodes.length > 1) return { kind: 'cluster', nodes, options }
  return { kind: 'single', options: { ...options, ...nodes[0]!, db: database(segments[0] ?? '0') } }
}

function address(text: string, port: number): { host: string; port: number } {
  const match = /^(\[[^\]]+\]|[^:]+)(?::(\d{1,5}))?$/.exec(text)
  if (!match) throw new RedisUrlError(`has no host and port in ${JSON.stringify(text)}`)
  return { host: match[1]!.replace(/^\[|\]$/g, ''), port: match[2] === undefined ? port : Number(match[2]) }
}

function database(text: string): number {
  if (!/^\d{1,5}$/.test(text))
    throw new RedisUrlError(`has no number of a database in ${JSON.stringify(text)}`)
  return Number(text)
}

function splitOnce(text: string, separator: string): [string, string] {
  const index = text.indexOf(separator)
  return [text.slice(0, index), text.slice(index + 1)]
}

/** The hash tag of a shard, such that on a Cluster each shard lands in its own part of the slots, so on its own node. */
export function hashTag(shard: number, shards: number): string {
  const slots = 16_384
  for (let salt = 0; ; salt++) {
    const tag = salt === 0 ? `${shard}` : `${shard}.${salt}`
    if (Math.floor((calculateSlot(tag) * shards) / slots) === shard || shards === 1) return tag
  }
}

declare module 'ioredis' {
  interface RedisCommander<Context> {
    ringsideAppend(keys: number, ...args: (string | Buffer)[]): Result<[string, ...string[]], Context>
    ringsideTick(
      keys: number,
      ...args: string[]
    ): Result<[id: string, birth: string, lost: string, now: string], Context>
    ringsideRangeBuffer(keys: number, ...args: string[]): Result<Buffer[], Context>
    ringsideRoster(clock: string, ...args: string[]): Result<string[], Context>
    ringsideMembers(keys: number, ...args: string[]): Result<(string | string[])[], Context>
    ringsideTally(tally: string, ...args: string[]): Result<number, Context>
  }
}

const script = (name: string) => readFileSync(new URL(`lua/${name}.lua`, import.meta.url), 'utf8')

const scripts = {
  ringsideAppend: { lua: script('clock') + script('append') },
  ringsideTick: { lua: script('clock') + script('tick') },
  ringsideRange: { lua: script('range') },
  ringsideRoster: { lua: script('roster'), numberOfKeys: 1 },
  ringsideMembers: { lua: script('members') },
  ringsideTally: { lua: script('tally'), numberOfKeys: 1 }
}

/** Opens connections to Redis, a Sentinel's master or a Cluster. What is sent while there is none fails at once. */
export class RedisConnections {
  readonly commands: Redis | Cluster
  /** For what may be held up: waiting for replicas must not delay what is read. */
  readonly appends: Redis | Cluster
  readonly #target: RedisTarget
  readonly #onError: (error: Error) => void

  constructor(target: RedisTarget, waits: boolean, onError: (error: Error) => void) {
    this.#target = target
    this.#onError = onError
    this.commands = this.#open()
    this.appends = waits ? this.#open() : this.commands
  }

  #open(): Redis | Cluster {
    const target = this.#target
    const shared = {
      ...target.options,
      scripts,
      connectTimeout: COMMAND_TIMEOUT_MS,
      commandTimeout: COMMAND_TIMEOUT_MS,
      maxRetriesPerRequest: 0,
      autoResendUnfulfilledCommands: false,
      // a replica that was a master when we connected: look for the master again
      reconnectOnError: (error: Error) => error.message.startsWith('READONLY')
    }
    const client =
      target.kind === 'cluster'
        ? new Cluster(target.nodes, {
            redisOptions: shared,
            scripts,
            enableOfflineQueue: false,
            slotsRefreshTimeout: COMMAND_TIMEOUT_MS,
            clusterRetryStrategy: backOff
          })
        : new Redis({
            ...shared,
            enableOfflineQueue: false,
            retryStrategy: backOff,
            sentinelRetryStrategy: backOff
          })
    client.on('error', this.#onError)
    // a slot on its way has some keys here and some there: no script must run on a part of them. Without ASKING the
    // other node refuses until it has all
    if (client instanceof Cluster)
      client.on('+node', (node: Redis) => (node.asking = () => Promise.resolve('OK')))
    return client
  }

  /** Whether the server shards its pub/sub: then a channel lives on the node of its slot. */
  async shardsPubSub(): Promise<boolean> {
    if (this.#target.kind !== 'cluster') return false
    const info = await (this.commands as Cluster).info('server')
    return Number(/redis_version:(\d+)/.exec(info)?.[1]) >= 7
  }

  /** The policy by which Redis may evict keys before their time; null when it doesn't. */
  async evictionPolicy(): Promise<string | null> {
    const info = await this.commands.info('memory')
    const limited = !/^maxmemory:0\r?$/m.test(info)
    const policy = /^maxmemory_policy:(\S+)/m.exec(info)?.[1] ?? 'noeviction'
    return limited && policy !== 'noeviction' ? policy : null
  }

  /** A connected subscriber, on the node that a key belongs to. It doesn't reconnect: whoever uses it opens another. */
  async subscriber(key: string, onError: (error: Error) => void): Promise<Redis> {
    const node = this.#target.kind === 'cluster' ? await this.#masterOf(key) : {}
    const subscriber = new Redis({
      ...this.#target.options,
      ...node,
      lazyConnect: true,
      connectTimeout: COMMAND_TIMEOUT_MS,
      commandTimeout: COMMAND_TIMEOUT_MS,
      maxRetriesPerRequest: 0,
      enableOfflineQueue: false,
      autoResubscribe: false,
      retryStrategy: () => null,
      sentinelRetryStrategy: () => null
    })
    subscriber.on('error', onError)
    await subscriber.connect()
    return subscriber
  }

  /** Gives up the connections for commands, and opens others. */
  replace(): void {
    for (const client of new Set([this.commands, this.appends])) client.disconnect(true)
  }

  /** Looks up anew which node serves which slot: a pipeline that is told so doesn't. */
  refresh(): Promise<void> {
    const { appends } = this
    if (!(appends instanceof Cluster)) return Promise.resolve()
    return new Promise(resolve => appends.refreshSlotsCache(() => resolve()))
  }

  async close(): Promise<void> {
    for (const client of new Set([this.commands, this.appends])) client.disconnect()
  }

  async #masterOf(key: string): Promise<{ host: string; port: number }> {
    const slot = calculateSlot(key)
    const ranges = await (this.commands as Cluster).cluster('SLOTS')
    const range = ranges.find(([from, to]) => from <= slot && slot <= to)
    if (!range?.[2]) throw new Error(`no node serves slot ${slot}`)
    const [host, port] = range[2]
    return { host, port }
  }
}

function backOff(times: number): number {
  return Math.min(50 * 2 ** times, 1000)
}
