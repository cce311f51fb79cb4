import { isIP } from 'node:net'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import ipaddr from 'ipaddr.js'
import type { Tally } from '../broker/tally.ts'
import type { Clock, Timer } from '../clock.ts'
import type { Settings } from '../config.ts'
import type { Place } from '../hub/connections.ts'
import type { Metrics } from '../metrics.ts'
import { Problem } from '../problem.ts'
import { isWrite } from './access.ts'

/** Of how many addresses it is remembered whose they are. */
const MAX_NAMES = 1000

export interface LimitsOptions {
  /** Where instances tell each other how much each client writes. */
  readonly tally: Tally
  readonly settings: Pick<Settings, 'MAX_CONNECTIONS_PER_CLIENT' | 'CONNECT_RATE' | 'WRITE_RATE'>
  readonly clock: Clock
  readonly metrics: Metrics
  /** Whether everyone may do everything: then a client is its address, and loopback has no limits. */
  readonly development: boolean
}

/** Why a client may not open another connection now. */
export interface Excess {
  /** Which limit of its own it has reached: a label of a metric. */
  readonly limit: 'client_connections' | 'client_rate'
  /** What it is told. */
  readonly detail: string
  /** Over how many milliseconds those who are turned away should come back; without it as all others do. */
  readonly window?: number
}

/**
 * How much each client may do, in this process; what it writes, as soon as other instances have told, on all together.
 * What is counted goes away with a client's last connection, or when its rate has been idle: no flood of clients fills
 * the memory for longer than it lasts. Section 8 of the contract.
 */
export class Limits {
  readonly #options: LimitsOptions
  /** Those who have connections. */
  readonly #clients = new Map<string, Places>()
  readonly #connects: Rates
  readonly #writes: Rates
  /** By address, of those who asked lately: to read one takes longer than all else here. */
  readonly #names = new Map<string, string | null>()
  #hasWarned = false

  constructor(options: LimitsOptions) {
    const { settings, clock, tally } = options
    this.#options = options
    this.#connects = new Rates(settings.CONNECT_RATE, clock)
    this.#writes = new Rates(settings.WRITE_RATE, clock, tally)
  }

  /** How many clients something is kept of. */
  get size(): number {
    return this.#clients.size + this.#connects.size + this.#writes.size
  }

  /** Whom a request counts for: its user, else its address; null for who has no limits. */
  clientOf(request: FastifyRequest): string | null {
    const { development } = this.#options
    // in development mode a user is whatever the query says
    const sub = development ? null : request.grant.sub
    if (sub !== null) return `user ${sub}`
    const { ip, socket, headers, log } = request
    // a proxy may say what is no address, such as unknown; then it is the proxy that asks
    const text = this.#names.has(ip) || isIP(ip) ? ip : socket.remoteAddress
    // whoever comes by a socket of the system is as near as we are
    if (text === undefined) return null
    const name = this.#nameOf(text)
    if (!this.#hasWarned && name !== null && headers['x-forwarded-for'] && ip === socket.remoteAddress) {
      this.#hasWarned = true
      log.warn(
        `${ip} asks for others, which count as one client; if it is a proxy, TRUST_PROXY should have it`
      )
    }
    return name
  }

  /** Who has an address; null for who has no limits. */
  #nameOf(text: string): string | null {
    const known = this.#names.get(text)
    if (known !== undefined) return known
    // a zone may be more than is read as one, and what is IPv4 in IPv6 is IPv4
    const address = ipaddr.process(text.replace(/%.*$/, ''))
    // of IPv6 what a single site is given at least (RFC 6177)
    const site = address instanceof ipaddr.IPv4 ? address.toString() : address.parts.slice(0, 4).join(':')
    const name = this.#options.development && address.range() === 'loopback' ? null : site
    if (this.#names.size >= MAX_NAMES) this.#names.clear()
    this.#names.set(text, name)
    return name
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

  /** Counts a write. Throws a `Problem` past the rate. */
  write(client: string | null): void {
    if (client === null || this.#writes.take(client) === null) return
    const { metrics, settings } = this.#options
    metrics.writesRejected.inc()
    // by then there is one more, whatever the rate
    throw new Problem('too many', tooManyWrites(settings.WRITE_RATE), [], 1)
  }

  /** Refuses the writes to an app that are past the rate of their client, before their bodies are read. */
  limitWrites(app: FastifyInstance): void {
    app.addHook('onRequest', (request, _reply, done) => {
      if (!request.is404 && isWrite(request)) this.write(this.clientOf(request))
      done()
    })
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

// --- rates ---

/** For how long those who were refused are asked to spread themselves, at most, in milliseconds. */
const MOST_BACKLOG_MS = 60_000

/** After how long an allowance of a rate, and so many at once, is whole again, in milliseconds. */
const WHOLE_MS = 1000

/** How long one of which only a part may be used is kept idle, at most, in milliseconds. */
const MOST_IDLE_MS = 60_000

/** A token bucket: so many a second, and so many at once. */
export class Allowance {
  readonly #rate: number
  readonly #most: number
  readonly #clock: Clock
  #left: number
  #refused = 0
  #at: number
  /** How often it was asked for since that was taken. */
  #asked = 0
  #share = 1

  constructor(rate: number, most: number, clock: Clock) {
    this.#rate = rate
    this.#most = this.#left = most
    this.#clock = clock
    this.#at = clock.now()
  }

  /** Which part of it may be used, from above 0 to 1. */
  set share(share: number) {
    this.#share = share
  }

  /** Whether it was idle for so long that all of it is there again, a minute being enough. */
  get isWhole(): boolean {
    return this.#clock.now() - this.#at >= Math.min(WHOLE_MS / this.#share, MOST_IDLE_MS)
  }

  /** How often it was asked for since the last call. */
  takeAsked(): number {
    const asked = this.#asked
    this.#asked = 0
    return asked
  }

  /** How long it takes until all who were refused could have had one, in milliseconds; a minute at most. */
  get backlog(): number {
    return (this.#refused / this.#rate) * 1000
  }

  /** False when there is none left. */
  take(): boolean {
    const now = this.#clock.now()
    const gained = (Math.max(0, now - this.#at) / 1000) * this.#rate * this.#share
    this.#asked++
    this.#at = now
    // less than one would never be one
    this.#left = Math.min(Math.max(1, this.#most * this.#share), this.#left + gained)
    this.#refused = Math.max(0, this.#refused - gained)
    if (this.#left < 1) {
      // a client that never stops would make all others at its address wait for hours
      this.#refused = Math.min(this.#refused + 1, (this.#rate * MOST_BACKLOG_MS) / 1000)
      return false
    }
    this.#left--
    return true
  }
}

/**
 * From which part of its rate on a client is told of to the other instances: a quiet one costs them nothing. On more
 * than fifty instances one that stays below it on each may write more than its rate.
 */
const TELL_FROM = 0.02

/** Of how many clients at a time, at most: those who ask for most. */
const MOST_TOLD = 256

/** An allowance for each client, for as long as it isn't whole. */
class Rates {
  readonly #rate: number
  readonly #clock: Clock
  readonly #tally: Tally | undefined
  /** Those that were used since it was last looked, and those that were used before. */
  #used = new Map<string, Allowance>()
  #idle = new Map<string, Allowance>()
  #timer: Timer | null = null

  /** `rate`: so many a second; 0 for no limit. With a tally it is that of all instances together. */
  constructor(rate: number, clock: Clock, tally?: Tally) {
    this.#rate = rate
    this.#clock = clock
    this.#tally = tally
  }

  get size(): number {
    return this.#used.size + this.#idle.size
  }

  /** Null for what is within the rate; else how long it takes until all who were refused could have one, in milliseconds. */
  take(client: string): number | null {
    if (this.#rate === 0) return null
    let allowance = this.#used.get(client)
    if (!allowance) {
      allowance = this.#idle.get(client) ?? new Allowance(this.#rate, this.#rate, this.#clock)
      this.#idle.delete(client)
      this.#used.set(client, allowance)
      this.#timer ??= this.#clock.after(WHOLE_MS, () => this.#forget())
    }
    return allowance.take() ? null : allowance.backlog
  }

  /** What was idle all the time since the last look is whole, but for that of which only a part may be used. */
  #forget(): void {
    const kept = [...this.#idle].filter(([, allowance]) => !allowance.isWhole)
    this.#idle = this.#used
    this.#used = new Map()
    if (this.#tally) void this.#settle(this.#idle, this.#tally)
    for (const [client, allowance] of kept) this.#idle.set(client, allowance)
    if (this.#idle.size > 0) this.#timer!.refresh()
    else this.#timer = null
  }

  /**
   * Where a client asks for more than its rate on all instances together, each gives it the part of its rate that is
   * the instance's part of what it asks for. So the sum is its rate, and nobody waits for another instance to be let in.
   */
  async #settle(used: ReadonlyMap<string, Allowance>, tally: Tally): Promise<void> {
    const busy: { client: string; asked: number; allowance: Allowance }[] = []
    for (const [client, allowance] of used) {
      const asked = allowance.takeAsked()
      if (asked >= this.#rate * TELL_FROM) busy.push({ client, asked, allowance })
      else allowance.share = 1
    }
    if (busy.length === 0) return
    if (busy.length > MOST_TOLD) busy.sort((one, other) => other.asked - one.asked)
    const told = busy.slice(0, MOST_TOLD)
    for (const { allowance } of busy.slice(MOST_TOLD)) allowance.share = 1
    const others = await tally.count(new Map(told.map(({ client, asked }) => [client, asked])))
    for (const { client, asked, allowance } of told) {
      const all = asked + (others.get(client) ?? 0)
      allowance.share = all > this.#rate ? asked / all : 1
    }
  }
}

// --- what clients are told ---

export function tooManyConnections(most: number): string {
  return `too many connections: a client may have ${most} at a time`
}

export function tooManyStreams(rate: number): string {
  return `too many new streams: a client may open ${rate} a second`
}

export function tooManyWrites(rate: number): string {
  return `too many writes: a client may send ${rate} a second`
}
