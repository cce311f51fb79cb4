import type { Clock, Timer } from '../clock.ts'
import type { Cursor, Gap, Position, StoredEvent } from '../event.ts'
import type { Format, GoodbyeReason } from '../wire/format.ts'
import type { Audience } from './audience.ts'
import type { Watch } from './watch.ts'

/**
 * Where a session's bytes go. The transport's side of a session: all that the hub knows of a connection.
 * An implementation MUST NOT throw, MUST take whole what it is given, and MUST call `Session.drained` once `pending`
 * has fallen to zero after it was above the hub's limit.
 */
export interface Sink {
  /** Bytes that were written and that the connection has not taken yet. */
  readonly pending: number
  write(bytes: Buffer): void
  /** No more will be written. */
  end(): void
}

/**
 * Where a session stands:
 * - `opened`: its cursor is known, nothing was written yet;
 * - `catching up`: it reads the rings, or the broker, at its own cursor, or waits for this process to reach its cursor;
 * - `live`: a member of its audience, whose cursor is its own;
 * - `lagging`: too many bytes wait in its connection; once they have drained it catches up;
 * - `closed`.
 */
export type SessionState = 'opened' | 'catching up' | 'live' | 'lagging' | 'closed'

/**
 * Why a session or its connection ended: `client` it went away, `stalled` it drained nothing for too long, `answered` it
 * had what it polled for, else what it was told. Of a WebSocket also: `unresponsive` it missed a ping, `protocol` it broke
 * the rules of RFC 6455, `too large` it sent more than is taken, `policy` it sent too many bad messages, or too many.
 */
export type CloseReason =
  'client' | 'stalled' | 'answered' | 'unresponsive' | 'protocol' | 'too large' | 'policy' | GoodbyeReason

/** A place under the limits, which a connection has for as long as it is open. */
export interface Place {
  /** Gives it back, once. */
  release(): void
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
  /** Says why and when to come back (milliseconds), and ends it. */
  goodbye(reason: GoodbyeReason, retry: number): void
}

/** One subscription: a cursor and a sink. It owns no queue: the ring is its queue. */
export class Session implements Connection {
  state: SessionState = 'opened'
  sink!: Sink
  /** The connection that it is a part of; itself where it has one of its own. */
  readonly connection: Connection
  readonly watches: readonly Watch[]
  readonly audience: Audience
  /** A gap that is announced before the session's own cursor is. */
  readonly gap: Gap | null
  /** True until the first page has been read of a session whose cursor is older than any ring. */
  stale: boolean
  /** What need not be delivered or announced of a topic: all up to here. Empty but for `rewind` and after a gap. */
  floors: Map<string, Position> | null
  /** Conflated sessions: the newest event of each topic that was read but not written yet, and how far it was read. */
  newest: Map<string, StoredEvent> | null = null
  reached: Cursor | null = null
  /** Up to where it was told that the store has forgotten events. */
  told: Cursor | null = null
  /** What a resumed session began with; null once it was counted, and of a fresh one. */
  outcome: 'live' | 'replayed' | 'gap' | null
  /** Whether a snapshot is due: its topic's state answers what a gap would have told. */
  needsSnapshot: boolean
  /** Whether it was told where it starts. */
  isOpen = false
  /** Conflated sessions: until when the rate allows no further write, in milliseconds since the epoch. */
  pacedUntil = 0
  /** Runs while it waits for that. */
  pacing: Timer | null = null
  /** When it was opened, in milliseconds since the epoch. */
  readonly since: number
  /** When it has to end, in milliseconds since the epoch; Infinity for never. */
  readonly expires: number
  readonly place: Place | undefined
  readonly #hub: SessionHub
  #cursor: Cursor

  constructor(hub: SessionHub, start: SessionStart) {
    this.#hub = hub
    this.connection = start.connection ?? this
    this.audience = start.audience
    this.watches = start.audience.watches
    this.#cursor = start.cursor
    const { snapshot = false } = start.audience.kind
    this.needsSnapshot = snapshot && (start.gap !== null || !start.resumes)
    this.gap = snapshot ? null : start.gap
    this.stale = start.stale && !snapshot
    this.floors = start.floors
    this.outcome = start.resumes ? (start.gap ? 'gap' : 'live') : null
    this.since = hub.clock.now()
    this.expires = start.expires ?? Infinity
    this.place = start.place
  }

  /** Everything up to here has been given to the sink. */
  get cursor(): Cursor {
    return this.state === 'live' ? this.audience.cursor : this.#cursor
  }

  set cursor(cursor: Cursor) {
    this.#cursor = cursor
  }

  get format(): Format {
    return this.audience.format
  }

  get transport(): Format['transport'] {
    return this.format.transport
  }

  /**
   * Begins to write: where it starts, then these frames. `opening` is how it is told where it starts, instead of the
   * format's way.
   */
  start(sink: Sink, preface: readonly Buffer[] = [], opening?: Buffer): void {
    this.sink = sink
    this.#hub.start(this, preface, opening)
  }

  /** A session of another audience that stands where this one stands. */
  successor(audience: Audience): Session {
    const { connection, cursor, stale, floors } = this
    const next = new Session(this.#hub, {
      gap: null,
      resumes: false,
      ...{ audience, connection, cursor, stale, floors }
    })
    // what it has read and not given yet is read again
    const { sink, told, outcome, isOpen, pacedUntil } = this
    return Object.assign(next, { sink, told, outcome, isOpen, pacedUntil })
  }

  /** The sink has taken all that waited in it. */
  drained(): void {
    if (this.state === 'lagging') this.#hub.resume(this)
  }

  /** Ends the session. Nothing is written any more; the sink is left as it is. */
  close(reason: CloseReason): void {
    if (this.state !== 'closed') this.#hub.leave(this, reason)
  }

  /** Says why and when to come back (milliseconds), and ends the sink and the session. */
  goodbye(reason: GoodbyeReason, retry: number): void {
    if (this.state === 'closed') return
    if (this.state === 'opened') return this.close(reason)
    this.sink.write(this.audience.pack([this.format.goodbye(reason, retry)]))
    this.sink.end()
    this.close(reason)
  }
}

/** What a session begins with. */
export interface SessionStart {
  readonly audience: Audience
  readonly connection?: Connection | undefined
  /** When it has to end, in milliseconds since the epoch; never where there is none. */
  readonly expires?: number | undefined
  readonly place?: Place | undefined
  readonly cursor: Cursor
  readonly gap: Gap | null
  readonly stale: boolean
  /** Whether it came with a cursor. */
  readonly resumes: boolean
  readonly floors: Map<string, Position> | null
}

/** What a session asks of its hub. */
export interface SessionHub {
  readonly clock: Clock
  start(session: Session, preface: readonly Buffer[], opening?: Buffer): void
  resume(session: Session): void
  leave(session: Session, reason: CloseReason): void
}
