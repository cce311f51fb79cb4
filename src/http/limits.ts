import { isIP } from 'node:net'
import type { FastifyRequest } from 'fastify'
import type { Tally } from '../broker/tally.ts'
import type { Clock } from '../clock.ts'
import type { Settings } from '../config.ts'
import type { Place } from '../hub/connections.ts'
import type { Metrics } from '../metrics.ts'
import { siteOf } from '../net/address.ts'
import { Problem } from '../problem.ts'
import { Rates } from './rates.ts'

export interface LimitsOptions {
  /** Where instances tell each other how much each client writes. */
  readonly tally: Tally
  readonly settings: Pick<
    Settings,
    'MAX_CONNECTIONS_PER_CLIENT' | 'CONNECT_RATE' | 'READ_RATE' | 'WRITE_RATE' | 'WRITE_BYTES'
  >
  readonly clock: Clock
  readonly metrics: Metrics
  /** Whether everyone may do everything: then a client is its address, and loopback has no limits. */
  readonly development: boolean
}

/** Why a client may not open another connection now. */
export interface Excess {
  /** Which limit is reached, one of its own or that of what it asks for: a label of a metric. */
  readonly limit: 'client_connections' | 'client_rate' | 'topic_subscribers'
  /** What it is told. */
  readonly detail: string
  /** Over how many milliseconds those who are turned away should come back; without it as all others do. */
  readonly window?: number
}

/**
 * How much each client may do: how many connections it may have in this process, how many it may open and how much it
 * may read here a second, and how much it may write a second on all instances together. What is counted of a client is forgotten when its last
 * connection ends or its rate has been idle, so that a flood of clients fills the memory no longer than it lasts. Section
 * 8 of the contract.
 */
export class Limits {
  readonly #options: LimitsOptions
  /** Those who have connections. */
  readonly #clients = new Map<string, Places>()
  readonly #connects: Rates
  readonly #reads: Rates
  readonly #writes: Rates
  readonly #writtenBytes: Rates
  #hasWarned = false

  constructor(options: LimitsOptions) {
    const { settings, clock, tally } = options
    this.#options = options
    this.#connects = new Rates(settings.CONNECT_RATE, clock)
    this.#reads = new Rates(settings.READ_RATE, clock)
    this.#writes = new Rates(settings.WRITE_RATE, clock, tally)
    this.#writtenBytes = new Rates(settings.WRITE_BYTES, clock)
  }

  /** How many clients something is kept of. */
  get size(): number {
    const rates = [this.#connects, this.#reads, this.#writes, this.#writtenBytes]
    return rates.reduce((sum, { size }) => sum + size, this.#clients.size)
  }

  /** Whom a request counts for: its user, else its address; null for who has no limits. */
  clientOf(request: FastifyRequest): string | null {
    const { development } = this.#options
    // in development mode a user is whatever the query says
    const sub = development ? null : request.grant.sub
    if (sub !== null) return `user ${sub}`
    const { ip, socket, headers, log } = request
    const { remoteAddress } = socket
    // a proxy may say what is no address, such as unknown; then it is the proxy that asks
    const text = ip === remoteAddress || isIP(ip) ? ip : remoteAddress
    // whoever comes by a socket of the system is as near as we are
    if (text === undefined) return null
    const name = this.#nameOf(text)
    if (!this.#hasWarned && name !== null && headers['x-forwarded-for'] && ip === remoteAddress) {
      this.#hasWarned = true
      log.warn(
        `${ip} asks for others, which count as one client; if it is a proxy, TRUST_PROXY should have it`
      )
    }
    return name
  }

  /** Who has an address; null for who has no limits. */
  #nameOf(text: string): string | null {
    const { name, isLoopback } = siteOf(text)
    return this.#options.development && isLoopback ? null : name
  }

  /** Counts a connection in, until its place is released; a stream also against the rate of new ones. */
  connect(client: string | null, isStream: boolean): Place | Excess {
    if (client === null) return NO_PLACE
    const { MAX_CONNECTIONS_PER_CLIENT: most, CONNECT_RATE: rate } = this.#options.settings
    const connections = this.#clients.get(client)
    if (most > 0 && connections && connections.count >= most)
      return { limit: 'client_connections', detail: tooManyConnections(most) }
    const window = isStream ? this.#connects.take(client) : null
    if (window !== null) return { limit: 'client_rate', detail: tooManyStreams(rate), window }
    return (connections ?? new Places(client, this.#clients)).take()
  }

  /** Counts a read that is no stream: a page, a document, a subscription on a WebSocket. Throws a `Problem` past the rate. */
  read(client: string | null): void {
    if (client === null || this.#reads.take(client) === null) return
    const { metrics, settings } = this.#options
    metrics.readsRejected.inc()
    throw new Problem('too many', tooManyReads(settings.READ_RATE), [], 1)
  }

  /**
   * Counts a write, or one that counts as so many: it is let in where there is one left, and the rest is owed. Throws a
   * `Problem` past the rate.
   */
  write(client: string | null, count = 1): void {
    if (client === null || this.#writes.take(client, count, 1) === null) return
    const { metrics, settings } = this.#options
    metrics.writesRejected.inc()
    const retryAfter = this.#writes.retryAfter(client, 1)
    throw new Problem('too many', tooManyWrites(settings.WRITE_RATE), [], retryAfter)
  }

  /** Counts bytes of what a client writes. Throws a `Problem` past the rate. */
  writeBytes(client: string | null, bytes: number): void {
    if (client === null || this.#writtenBytes.take(client, bytes) === null) return
    const { metrics, settings } = this.#options
    metrics.writesRejected.inc()
    const retryAfter = this.#writtenBytes.retryAfter(client, bytes)
    throw new Problem('too many', tooManyBytes(settings.WRITE_BYTES), [], retryAfter)
  }

  /** Counts a write that was refused for another reason, or came to nothing: so that there are not too many of these. */
  countWrite(client: string | null): void {
    if (client !== null) this.#writes.take(client)
  }
}

/** Who has no limits has nothing to give back. */
const NO_PLACE: Place = { release() {} }

/** The places of a client, one for each of its connections. */
class Places implements Place {
  count = 0
  readonly #client: string
  readonly #clients: Map<string, Places>

  constructor(client: string, clients: Map<string, Places>) {
    this.#client = client
    this.#clients = clients
  }

  take(): this {
    if (this.count++ === 0) this.#clients.set(this.#client, this)
    return this
  }

  release(): void {
    if (--this.count === 0) this.#clients.delete(this.#client)
  }
}

// --- what clients are told ---

export function tooManyConnections(most: number): string {
  return `too many connections: a client may have ${most} at a time`
}

export function tooManyStreams(rate: number): string {
  return `too many new streams: a client may open ${rate} a second`
}

export function tooManyReads(rate: number): string {
  return `too many reads: a client may ask for ${rate} a second`
}

export function tooManyWrites(rate: number): string {
  return `too many writes: a client may send ${rate} a second`
}

export function tooManyBytes(rate: number): string {
  return `too many bytes: a client may write ${rate} a second (WRITE_BYTES)`
}
