import type { Clock, Timer } from '../clock.ts'
import type { Cursor } from '../event.ts'
import type { Metrics } from '../metrics.ts'
import type { Format, GoodbyeReason } from '../wire/format.ts'

/** How often a drain looks whom to say goodbye to, in milliseconds. */
const DRAIN_STEP_MS = 50

/** How often it is looked whose time has run out, at least, in milliseconds: the time of day may be set. */
const EXPIRY_MS = 60_000

/**
 * Why a session or its connection ended: `client` it went away, `stalled` it drained nothing for too long, `answered` it
 * had what it polled for, `ended` its topics had, else what it was told. Of a WebSocket also: `unresponsive` it missed a ping, `protocol` it broke
 * the rules of RFC 6455, `too large` it sent more than is taken, `policy` it sent too many bad messages, or too many.
 */
export type CloseReason =
  | 'client'
  | 'stalled'
  | 'answered'
  | 'ended'
  | 'unresponsive'
  | 'protocol'
  | 'too large'
  | 'policy'
  | GoodbyeReason

/** A place under the limits, which a connection has for as long as it is open. */
export interface Place {
  /** Gives it back, once. */
  release(): void
}

/** Who is at the other end of a connection. */
export interface Client {
  /** The user that its token names; null for nobody known. */
  readonly user: string | null
  /** The address that it comes from; null where none is known. */
  readonly address: string | null
  /** What it says that it is (`User-Agent`), where it says so. */
  readonly agent?: string | null | undefined
}

/** Something that a connection reads, as it stands now. */
export interface Reading {
  /** Whether its connection is too full for it to be fed live. */
  readonly isLagging: boolean
  /** Bytes that wait in its connection. */
  readonly pending: number
  /** Everything up to here has been given to it. */
  readonly cursor: Cursor
  /** Conflated: at most so many events a second for each topic. */
  readonly rate: number | undefined
}

/** A connection of a subscriber: a stream, a poll, or a WebSocket with any number of subscriptions. Counted once. */
export interface Connection {
  readonly transport: Format['transport']
  /** When it was opened, in milliseconds since the epoch. */
  readonly since: number
  /** When it has to end, in milliseconds since the epoch; Infinity for never. */
  readonly expires: number
  /** Released when it has ended. */
  readonly place: Place | undefined
  /** Who is at its other end, where that was told. */
  readonly client: Client | undefined
  /** What it reads now. */
  readonly filters: readonly string[]
  /** How it stands: once for each subscription. */
  readonly readings: readonly Reading[]
  /** Says why and when to come back (milliseconds), and ends it. */
  goodbye(reason: GoodbyeReason, retry: number): void
}

/** What whoever operates the hub may know of a connection. */
export interface ConnectionDescription extends Pick<Client, 'user' | 'address'> {
  readonly transport: Format['transport']
  /** When it was opened, in milliseconds since the epoch. */
  readonly since: number
  /** What it reads: topics and wildcards. */
  readonly filters: readonly string[]
}

/** The connections of this process: counted in and out, ended when their time has run out, or all together. */
export class Connections implements Iterable<Connection> {
  readonly #clock: Clock
  readonly #metrics: Metrics
  readonly #retry: number
  readonly #open = new Set<Connection>()
  /** How many are being opened: it is not known yet where they start. */
  #opening = 0
  /** The connections that are too full to be fed live, with how many of their sessions wait for that. */
  readonly #lagging = new Map<Connection, number>()
  /** When it is looked next whose time has run out, in milliseconds since the epoch. */
  #expiry = Infinity
  #expiring: Timer | undefined

  /** `retry`: how long a client that is sent away waits at least, in milliseconds. */
  constructor(clock: Clock, metrics: Metrics, retry: number) {
    this.#clock = clock
    this.#metrics = metrics
    this.#retry = retry
  }

  [Symbol.iterator](): IterableIterator<Connection> {
    return this.#open.values()
  }

  /** How many are open. */
  get size(): number {
    return this.#open.size
  }

  /** How many are too full to be fed live. */
  get lagging(): number {
    return this.#lagging.size
  }

  /** How many places are taken: by those that are open, and by those that are being opened. */
  get taken(): number {
    return this.#open.size + this.#opening
  }

  /** What is open, in the order in which it was opened. */
  describe(): ConnectionDescription[] {
    return Array.from(this.#open, ({ transport, since, client, filters }) => {
      const { user, address } = client ?? { user: null, address: null }
      return { transport, since, user, address, filters }
    })
  }

  // --- they come and go ---

  /** One is being opened, until `opened`. */
  opening(): void {
    this.#opening++
  }

  /** It has entered, or could not be opened. */
  opened(): void {
    this.#opening--
  }

  /** Counts a connection in. */
  enter(connection: Connection): void {
    const { transport } = connection
    this.#open.add(connection)
    this.#metrics.connections.inc({ transport })
    this.#metrics.connectionsOpened.inc({ transport })
    this.#expireAt(connection.expires)
  }

  /** Counts a connection out that has entered, and releases its place. */
  exit(connection: Connection, reason: CloseReason): void {
    const { transport, since, place } = connection
    if (!this.#open.delete(connection)) return
    place?.release()
    this.#metrics.connections.dec({ transport })
    this.#metrics.connectionsClosed.inc({ transport, reason })
    this.#metrics.connectionDuration.observe({ transport }, (this.#clock.now() - since) / 1000)
  }

  /** A session of this connection waits until it has drained. */
  fallsBehind(connection: Connection): void {
    const count = this.#lagging.get(connection) ?? 0
    this.#lagging.set(connection, count + 1)
    if (count === 0) this.#metrics.lagging.inc()
  }

  /** A session of this connection waits for that no longer. */
  readsOn(connection: Connection): void {
    const count = this.#lagging.get(connection)!
    if (count > 1) return void this.#lagging.set(connection, count - 1)
    this.#lagging.delete(connection)
    this.#metrics.lagging.dec()
  }

  // --- they are ended ---

  /** One timer for all connections, at most once a second: it is for the first whose time runs out. */
  #expireAt(expires: number): void {
    const due = Math.ceil(expires / 1000) * 1000
    if (!(due < this.#expiry)) return
    this.#expiry = due
    this.#expiring?.cancel()
    const ms = Math.max(0, due - this.#clock.now())
    this.#expiring = this.#clock.after(Math.min(ms, EXPIRY_MS), () => this.#expire())
  }

  #expire(): void {
    const now = this.#clock.now()
    let next = Infinity
    for (const connection of this.#open) {
      if (connection.expires <= now) connection.goodbye('expired', this.spread())
      else if (connection.expires < next) next = connection.expires
    }
    this.#expiry = Infinity
    this.#expireAt(next)
  }

  /**
   * How long a client that is sent away shall wait, in milliseconds: at random, so that all of them come back over
   * `window` milliseconds; without it about a thousand a second do.
   */
  spread(window = this.#open.size): number {
    return Math.round(this.#retry + Math.random() * Math.max(this.#retry, window))
  }

  /** Says goodbye to every connection, in any order, spread over `ms` milliseconds; resolves when all are gone. */
  drain(ms: number): Promise<void> {
    const connections = shuffled(this.#open)
    const started = this.#clock.now()
    const total = connections.length
    return new Promise(resolve => {
      const step = () => {
        const due = ms > 0 ? Math.ceil((total * (this.#clock.now() - started)) / ms) : total
        while (connections.length > 0 && total - connections.length <= due) {
          connections.pop()!.goodbye('shutdown', this.spread())
        }
        if (connections.length === 0) resolve()
        else this.#clock.after(Math.min(DRAIN_STEP_MS, ms / total), step)
      }
      step()
    })
  }
}

/** The same in any order, each as likely as any other: the shuffle of Fisher and Yates. */
function shuffled<T>(items: Iterable<T>): T[] {
  const list = [...items]
  for (let last = list.length - 1; last > 0; last--) {
    const other = Math.floor(Math.random() * (last + 1))
    const moved = list[last]!
    list[last] = list[other]!
    list[other] = moved
  }
  return list
}
