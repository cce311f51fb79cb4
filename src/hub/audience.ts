import type { Clock, Timer } from '../clock.ts'
import { END, formatCursor, isEphemeral, type Cursor, type Gap, type StoredEvent } from '../event.ts'
import type { Metrics } from '../metrics.ts'
import type { Format } from '../wire/format.ts'
import type { Packing } from '../wire/packing.ts'
import type { Sum } from '../wire/sum.ts'
import { Compressor, type CompressedStream, type Histories } from './compressor.ts'
import { follow, inOrder, type Delivery } from './delivery.ts'
import { isOver, type EndsHub } from './ends.ts'
import type { Frames } from './frames.ts'
import type { Sink } from './sink.ts'
import type { Watch, WatchListener } from './watch.ts'

/** What makes sessions alike: all that share these get the same bytes. */
export interface AudienceKind {
  /** Sorted, without doubles. */
  readonly filters: readonly string[]
  readonly format: Format
  readonly packing: Packing
  /** Conflated: at most so many events a second for each topic. */
  readonly rate?: number | undefined
  /** A visible heartbeat so often, in milliseconds. */
  readonly heartbeat?: number | undefined
  /** Begins with the state of its one topic, as a `snapshot`; and where there would be a gap, another one answers it. */
  readonly snapshot?: boolean | undefined
}

/** What an audience needs of its hub. */
export interface AudienceHub extends EndsHub {
  readonly clock: Clock
  readonly metrics: Metrics
  readonly frames: Frames
  readonly histories: Histories
  /** Everything up to here has been handed over in this process. */
  readonly position: Cursor
  readonly staleness: { readonly isStale: boolean }
  readonly settings: { readonly HEARTBEAT: number; readonly SEND_BUFFER: number }
  /** A gap is told to so many sessions. */
  noteGap(gap: Gap, transport: Format['transport'], count: number): void
  /** A conflated audience has written: its cursor has moved on. */
  wrote(audience: Audience): void
}

/** A live session, as its audience knows it. */
export interface LiveSession extends CompressedStream {
  readonly sink: Sink
  /** Its connection is full: it was given everything up to this cursor, and its rate allows the next write then. */
  lag(cursor: Cursor, pacedUntil: number): void
  /** It is live no longer: it was given everything up to this cursor, and its rate allows the next write then. */
  release(cursor: Cursor, pacedUntil: number): void
  /** Released, it reads on by itself. */
  readOn(): void
  /** Released, it is due its topic's state. */
  renew(): void
  /** All its topics have ended, and its connection has taken everything. */
  finish(): void
}

/**
 * All sessions with the same topics, format and rate. An event is encoded once for each format, queued once for each
 * audience, and given to every live session as the same bytes, in one write for all events of a turn.
 */
export class Audience implements WatchListener {
  readonly key: string
  readonly kind: AudienceKind
  readonly watches: readonly Watch[]
  /** Its sessions, live or not. */
  size = 0
  readonly #hub: AudienceHub
  readonly #live = new Set<LiveSession>()
  /** Null where nothing is compressed. */
  readonly #compressor: Compressor | null
  /** What is to be written, in order; a conflated audience keeps the newest of each topic instead. */
  #queue: Delivery[] = []
  readonly #conflated = new Map<string, StoredEvent>()
  /** The cursor before the first event that is to be written; null when there is none. */
  #before: Cursor | null = null
  /** When the rate allows the next write, in milliseconds since the epoch. */
  #due = 0
  #pacing: Timer | undefined
  #keepAlive: Timer | undefined
  #heartbeat: Timer | undefined

  constructor(hub: AudienceHub, kind: AudienceKind, watches: readonly Watch[], key: string) {
    this.#hub = hub
    this.key = key
    this.kind = kind
    this.watches = watches
    this.#compressor = kind.packing.gzip && new Compressor(kind.packing, hub.histories)
  }

  /** The live sessions were given everything up to here; where it is conflated, what they were not given is superseded. */
  get cursor(): Cursor {
    return this.#before ?? this.#hub.position
  }

  get format(): Format {
    return this.kind.format
  }

  /** Who polls takes a page, and goes again. */
  get subscribers(): number {
    return this.format.delivers ? this.size : 0
  }

  /**
   * Whether the newest value of each topic answers what has expired: see `rate` in section 3 of the contract. Not where
   * there is a snapshot: changes that are gone can't be left out of that.
   */
  get outlivesLosses(): boolean {
    return this.kind.rate !== undefined && !this.kind.snapshot
  }

  /** Takes a session in whose cursor is this audience's. Nothing may be awaited since that was found. */
  add(session: LiveSession): void {
    this.#live.add(session)
    this.#compressor?.add(session)
    if (this.#live.size > 1) return
    this.#keepAlive = this.#every(this.#hub.settings.HEARTBEAT, () => {
      this.#compressor?.rest(this.#live.size)
      // while nothing new can come the hub gives other signs of life
      if (this.#hub.staleness.isStale) return null
      return this.format.keepAlive(formatCursor(this.cursor), this.kind.filters)
    })
    if (this.kind.heartbeat !== undefined) {
      this.#heartbeat = this.#every(this.kind.heartbeat, () =>
        this.format.heartbeat(this.#hub.clock.now(), formatCursor(this.cursor))
      )
    }
  }

  /** A session, live or not, was given something of its own, of which this is the sum. */
  gaveOwn(session: LiveSession, sum: Sum): void {
    this.#compressor!.gaveOwn(session, sum)
  }

  /** Whether anybody is live. */
  get isLive(): boolean {
    return this.#live.size > 0
  }

  /** Conflated: the next write comes no sooner than the rate allows from now. */
  pace(rate: number): void {
    this.#due = this.#hub.clock.now() + 1000 / rate
  }

  /** Conflated: the next write comes no sooner than then, in milliseconds since the epoch. */
  holdUntil(time: number): void {
    this.#due = Math.max(this.#due, time)
  }

  /** Conflated: when the next write may come, in milliseconds since the epoch. */
  get nextWrite(): number {
    return Math.max(this.#due, this.#hub.clock.now())
  }

  /** Conflated: whether something waits for that. */
  get willWrite(): boolean {
    return this.#conflated.size > 0
  }

  delete(session: LiveSession): void {
    if (!this.#live.delete(session)) return
    this.#compressor?.delete(session)
    if (this.#live.size > 0) return
    this.#compressor?.rest(0)
    this.#keepAlive?.cancel()
    this.#heartbeat?.cancel()
    this.#pacing?.cancel()
    this.#pacing = undefined
    this.#queue = []
    this.#conflated.clear()
    this.#before = null
  }

  /** Lets all live sessions go, or only one, to read on at their own cursor; answers with those. */
  release(only?: LiveSession): readonly LiveSession[] {
    const released = only ? [only] : [...this.#live]
    const { cursor } = this
    for (const session of released) {
      this.delete(session)
      session.release(cursor, this.#due)
    }
    return released
  }

  /** Its live sessions are due their topic's state. */
  renew(): void {
    if (this.kind.rate === undefined) this.flush()
    for (const session of this.release()) session.renew()
  }

  queue(event: StoredEvent, cursor: Cursor, before: Cursor): boolean {
    if (this.#live.size === 0) return false
    // who polls is woken to read from the rings, where it is not
    if (!this.format.delivers && isEphemeral(event)) return false
    this.#before ??= before
    if (this.kind.rate !== undefined) this.#conflated.set(event.topic, event)
    // an event that two filters of this audience cover comes twice in a row
    else if (this.#queue.at(-1)?.event !== event) this.#queue.push({ event, cursor })
    return true
  }

  /** Writes what was queued in this turn, or sees to it that it is written when the rate allows. */
  flush(): void {
    if (this.kind.rate === undefined) this.#give(this.#queue)
    else this.#flushAtRate(this.kind.rate)
  }

  /** Announces a gap to the live sessions, after what was queued before it; or answers it with their topic's state. */
  announce(gap: Gap): void {
    if (this.kind.snapshot) return this.renew()
    if (this.#live.size === 0 || (this.outlivesLosses && gap.reason === 'expired')) return
    if (this.kind.rate === undefined) this.flush()
    if (this.format.delivers) this.#hub.noteGap(gap, this.format.transport, this.#live.size)
    this.#write([this.format.gap(gap, formatCursor(this.cursor))], this.cursor)
  }

  #flushAtRate(rate: number): void {
    const now = this.#hub.clock.now()
    if (this.#pacing || this.#conflated.size === 0) return
    if (now >= this.#due) return this.#giveConflated(rate)
    // not longer than the rate says, also when the clock was set back
    this.#pacing = this.#hub.clock.after(Math.min(this.#due - now, 1000 / rate), () =>
      this.#giveConflated(rate)
    )
  }

  #giveConflated(rate: number): void {
    this.#pacing = undefined
    // patches can't be left out: the state has all of them in it
    if (this.kind.snapshot) {
      this.renew()
      this.pace(rate)
    } else {
      this.pace(rate)
      this.#give(follow(this.cursor, inOrder(this.#conflated.values())))
      this.#conflated.clear()
    }
    this.#hub.wrote(this)
  }

  /** Writes events in pieces of about `SEND_BUFFER`, so that a full connection is noticed between them. */
  #give(queue: readonly Delivery[]): void {
    const { clock, frames: made, metrics, settings } = this.#hub
    const now = clock.now()
    let before = this.cursor
    let frames: Buffer[] = []
    let size = 0
    for (const [index, { event, cursor }] of queue.entries()) {
      const frame = made.of(this.format, event, cursor)
      frames.push(frame)
      size += frame.length
      if (this.format.delivers) metrics.delivery.observe(Math.max(0, now - event.id.ms) / 1000)
      if (size < settings.SEND_BUFFER && index < queue.length - 1) continue
      const count = this.#write(frames, before)
      if (this.format.delivers)
        metrics.eventsDelivered.inc({ transport: this.format.transport }, count * frames.length)
      before = cursor
      frames = []
      size = 0
    }
    this.#queue = []
    this.#before = null
    this.#keepAlive?.refresh()
    if (queue.some(({ event }) => event.type === END)) this.#finish()
  }

  /** Ends the streams whose topics have all ended, once their connections have taken what they were given. */
  #finish(): void {
    // a WebSocket goes on
    if (this.format.transport === 'ws' || !isOver(this.#hub, this.watches, this.cursor)) return
    for (const session of [...this.#live]) {
      if (session.sink.pending > 0) this.#lag(session, this.cursor)
      else session.finish()
    }
  }

  /** The loop over everybody: no allocation, no encoding, no await. Answers how many were given the frames. */
  #write(frames: readonly Buffer[], before: Cursor): number {
    const limit = this.#hub.settings.SEND_BUFFER
    const { packing } = this.kind
    const compressor = this.#compressor
    const { bytes, sum } = compressor ? compressor.pack(frames, this.#live.size) : packing.pack(frames)
    const apart = compressor?.apart
    const own = apart && apart.size > 0 ? packing.pack(frames).bytes : null
    let count = 0
    let sent = 0
    for (const session of this.#live) {
      if (session.sink.pending > limit) this.#lag(session, before)
      else {
        const given = own && apart!.has(session) ? own : bytes
        session.sink.write(given)
        sent += given.length
        count++
      }
    }
    // whoever has fallen behind was not given it
    if (sum) compressor!.gave(sum)
    const { delivers, transport } = this.format
    if (delivers) this.#hub.metrics.bytesSent.inc({ transport }, sent)
    return count
  }

  #lag(session: LiveSession, cursor: Cursor): void {
    this.delete(session)
    session.lag(cursor, this.#due)
  }

  #every(ms: number, make: () => Buffer | null): Timer {
    const timer = this.#hub.clock.after(ms, () => {
      const frame = make()
      if (frame) this.#write([frame], this.cursor)
      timer.refresh()
    })
    return timer
  }
}
