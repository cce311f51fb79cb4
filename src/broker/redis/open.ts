import { once } from 'node:events'
import calculateSlot from 'cluster-key-slot'
import { Cluster, Redis, type ClusterOptions } from 'ioredis'
import { clusterOf, type RedisTarget } from './url.ts'
import { COMMAND_TIMEOUT_MS } from './wire.ts'

/** Takes what went wrong, and where. */
export type Report = (stage: string, error: Error) => void

/** Scripts by the names of the commands that they become. */
export type Scripts = NonNullable<ClusterOptions['scripts']>

type Client = Redis | Cluster

/** How long a connection may take until it is ready: a node of a Cluster is connected to after one of the given ones. */
const READY_MS = 2 * COMMAND_TIMEOUT_MS

export interface ClientsOptions {
  readonly target: RedisTarget
  readonly scripts: Scripts
  /** Whether appends have a connection of their own. */
  readonly appendsApart: boolean
  /** Is told why there is no connection. */
  readonly report: Report
}

/**
 * The connections that are open: to one server, to the primary that Sentinels name, or to a Cluster. A single server that
 * turns out to be a node of a Cluster is left for that Cluster.
 */
export class Clients {
  readonly #options: ClientsOptions
  #target: RedisTarget
  #open: { readonly commands: Client; readonly reads: Client; readonly appends: Client }
  /** The look at the server that is under way. */
  #look: Promise<void> | null = null
  /** Why a node could not be reached last. */
  #reason: Error | null = null
  #isClosed = false

  constructor(options: ClientsOptions) {
    this.#options = options
    this.#target = options.target
    this.#open = this.#openAll()
  }

  get commands(): Client {
    return this.#open.commands
  }

  get reads(): Client {
    return this.#open.reads
  }

  get appends(): Client {
    return this.#open.appends
  }

  get isCluster(): boolean {
    return this.#target.kind === 'cluster'
  }

  /** The number of the database. */
  get database(): number {
    return this.#target.options.db ?? 0
  }

  /** Resolves once all can ask: before that the store doesn't count as there. Rejects after a while. */
  async ready(): Promise<void> {
    await this.#connected()
    await this.#requireDatabase()
    if (this.#target.kind !== 'single') return
    this.#look ??= this.#followCluster().finally(() => (this.#look = null))
    await this.#look
    await this.#connected()
  }

  /** A connection to subscribe on, to the node that a key belongs to. It is connected, and doesn't reconnect. */
  async subscriber(key: string): Promise<Redis> {
    const { commands } = this
    const node = commands instanceof Cluster ? await primaryOf(commands, key) : {}
    const redis = new Redis({
      ...this.#target.options,
      ...node,
      ...ONCE,
      lazyConnect: true
    })
    let reason: Error | undefined
    redis.on('error', (error: Error) => (reason ??= error)) // 'close' follows
    try {
      await redis.connect()
    } catch (error) {
      const first = reason ?? (error as Error)
      throw this.isCluster ? nodeError(nameOf(redis), first) : worded(first)
    }
    return redis
  }

  /** Gives up the connections, and opens others. */
  replace(): void {
    for (const client of this.#all()) client.disconnect(true)
  }

  close(): void {
    this.#isClosed = true
    for (const client of this.#all()) client.disconnect()
  }

  #all(): Set<Client> {
    return new Set(Object.values(this.#open))
  }

  #openAll() {
    const commands = this.#openOne()
    const reads = this.#openOne()
    return { commands, reads, appends: this.#options.appendsApart ? this.#openOne() : commands }
  }

  #openOne(): Client {
    const { report, scripts } = this.#options
    if (this.#target.kind !== 'cluster') {
      const client = new Redis({ ...this.#target.options, ...KEPT, scripts, ...QUEUELESS })
      return client.on('error', error => report('commands', worded(error)))
    }
    const client = openCluster(this.#target, scripts, (node, error) => this.#note(node, error))
    const lost = () => {
      if (this.#reason) report('commands', this.#reason)
    }
    client.on('refresh', () => (this.#reason = null))
    // with a word of ioredis: the nodes have said why
    client.on('error', lost)
    client.on('close', lost)
    return client
  }

  /** Keeps why a node can't be used: what only follows from that comes after it. */
  #note(node: string, error: Error): void {
    const isConsequence = error.message.startsWith('NOAUTH') || error.message === 'Connection is closed.'
    if (!isConsequence || !this.#reason) this.#reason = nodeError(node, error)
  }

  async #connected(): Promise<void> {
    const signal = AbortSignal.timeout(READY_MS)
    const waiting = [...this.#all()].filter(({ status }) => status !== 'ready')
    try {
      await Promise.all(waiting.map(client => once(client, 'ready', { signal })))
    } catch (error) {
      throw this.#reason ?? (signal.aborted ? new Error(`no connection in ${READY_MS} ms`) : error)
    }
  }

  /** ioredis goes on with database 0 where there is no other. */
  async #requireDatabase(): Promise<void> {
    if (this.database === 0) return
    const clients = [...this.#all()].filter(client => client instanceof Redis)
    await Promise.all(clients.map(client => client.select(this.database)))
  }

  /** Opens connections to the Cluster instead, where the single server is a node of one. */
  async #followCluster(): Promise<void> {
    const info = await this.commands.info('cluster').catch(error => {
      if (isDenied(error as Error)) return ''
      throw error
    })
    if (this.#isClosed || !/^cluster_enabled:1\r?$/m.test(info)) return
    this.#target = clusterOf(this.#target)
    const before = this.#all()
    this.#open = this.#openAll()
    for (const client of before) client.disconnect()
  }
}

const PATIENCE = {
  connectTimeout: COMMAND_TIMEOUT_MS,
  commandTimeout: COMMAND_TIMEOUT_MS,
  sentinelCommandTimeout: COMMAND_TIMEOUT_MS,
  maxRetriesPerRequest: 0
}

/** What is connected once, and ends when that connection does. */
const ONCE = {
  ...PATIENCE,
  enableOfflineQueue: false,
  // those for commands ask already, and an ACL that forbids to ask would make a line on standard error each time
  enableReadyCheck: false,
  autoResubscribe: false,
  retryStrategy: () => null,
  sentinelRetryStrategy: () => null
}

/** What is kept connected. */
const KEPT = {
  ...PATIENCE,
  autoResendUnfulfilledCommands: false,
  // a replica that was a primary when we connected: look for the primary again
  reconnectOnError: (error: Error) => error.message.includes('READONLY')
}

const QUEUELESS = { enableOfflineQueue: false, retryStrategy: backOff, sentinelRetryStrategy: backOff }

/** `failed` is told of each node that can't be used, and why. */
function openCluster(
  { nodes, options }: RedisTarget & { kind: 'cluster' },
  scripts: Scripts,
  failed: (node: string, error: Error) => void
): Cluster {
  const client = new Cluster(nodes, {
    redisOptions: { ...options, ...KEPT, scripts },
    scripts,
    enableOfflineQueue: false,
    slotsRefreshTimeout: COMMAND_TIMEOUT_MS,
    clusterRetryStrategy: backOff,
    // a certificate is for the name
    dnsLookup: (name, resolve) => resolve(null, name),
    // a node that doesn't know how the others are reached says ":port", and means the host that was asked
    natMap: key => (key.startsWith(':') ? { host: nodes[0]!.host, port: Number(key.slice(1)) } : null)
  })
  client.on('node error', (error: Error, node: string) => failed(node, error))
  client.on('+node', (node: Redis) => {
    // a slot on its way has some keys here and some there: no script must run on a part of them. Without ASKING the
    // other node refuses until it has all
    node.asking = () => Promise.resolve('OK')
    // ioredis asks for the slots on a copy of the connection, lets its errors go, and leaves out nodes without a host
    const duplicate = node.duplicate.bind(node)
    node.duplicate = override => {
      const copy = duplicate(override).on('error', error => failed(nameOf(node), error))
      const ask = copy.cluster.bind(copy)
      const slots = async () => withHosts(await ask('SLOTS'), node)
      return Object.assign(copy, {
        cluster: (_: 'SLOTS', done: (error: unknown, ranges?: SlotRange[]) => void) =>
          void slots().then(ranges => done(null, ranges), done)
      })
    }
  })
  return client
}

/** The slots from one to another, and the nodes that serve them: the primary first. */
type SlotRange = [from: number, to: number, ...nodes: [host: string, port: number, ...unknown[]][]]

/** What a node says of the slots. One that doesn't know how nodes are reached means: at the host that was asked. */
function withHosts(ranges: SlotRange[], { options }: Redis): SlotRange[] {
  return ranges.map(([from, to, ...nodes]) => [
    ...([from, to] as const),
    ...nodes.map(([host, ...rest]): SlotRange[2] => [host || options.host!, ...rest])
  ])
}

async function primaryOf(cluster: Cluster, key: string): Promise<{ host: string; port: number }> {
  const slot = calculateSlot(key)
  const nodes = cluster.nodes('master')
  const node = nodes[Math.floor(Math.random() * nodes.length)]
  const ranges = node ? withHosts(await node.cluster('SLOTS'), node) : []
  const [, , primary] = ranges.find(([from, to]) => from <= slot && slot <= to) ?? []
  if (!primary) throw new Error(`no node serves slot ${slot}`)
  const [host, port] = primary
  return { host, port }
}

function backOff(times: number): number {
  return Math.min(50 * 2 ** times, 1000)
}

/** An ACL may forbid to ask. */
function isDenied({ message }: Error): boolean {
  return message.startsWith('NOPERM')
}

function nameOf({ options }: Redis): string {
  return `${options.host}:${options.port}`
}

function nodeError(node: string, error: Error): Error {
  return new Error(`${node}: ${worded(error).message}`, { cause: error })
}

/** An error that has words: where a name has several addresses, Node's has a code and none. */
function worded(error: Error & { code?: string }): Error {
  const words = wordsFor(error.message) || (error.code ?? error.name)
  return words === error.message ? error : new Error(words, { cause: error })
}

/** Those of ioredis change at each attempt, or ask to report them to its makers. */
function wordsFor(message: string): string {
  if (message.startsWith('Unknown RESP type')) return "what it answers is not Redis' protocol"
  return message.replace(
    /^All sentinels are unreachable.*? after \d+ms\.(?: Last error)?/,
    'no Sentinel names a primary'
  )
}
