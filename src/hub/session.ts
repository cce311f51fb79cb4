import type { Asker } from '../asker.ts'
import type { Clock } from '../clock.ts'
import { formatCursor, type Cursor, type Gap } from '../event.ts'
import type { Metrics } from '../metrics.ts'
import type { Format, GoodbyeReason } from '../wire/format.ts'
import type { Piece } from '../wire/packing.ts'
import { Sum } from '../wire/sum.ts'
import type { Audience, LiveSession } from './audience.ts'
import type { Client, CloseReason, Connection, Connections, Place, Reading } from './connections.ts'
import { Progress } from './progress.ts'
import type { Sink } from './sink.ts'
import type { Staleness } from './staleness.ts'
import type { Start } from './start.ts'
import type { Watch } from './watch.ts'

/**
 * Where a session stands:
 * - `opened`: its cursor is known, nothing was written yet;
 * - `catching up`: it reads the rings, or the broker, at its own cursor, or waits for this process to reach its cursor;
 * - `live`: a member of its audience, whose cursor is its own;
 * - `lagging`: too many bytes wait in its connection; once they have drained it catches up;
 * - `closed`.
 */
export type SessionState = 'opened' | 'catching up' | 'live' | 'lagging' | 'closed'

/** Every change of a session's state: from where it may come, and where it leads. Each has a method of its name. */
const CHANGES = {
  listen: { from: ['opened'], to: 'catching up' },
  goLive: { from: ['catching up'], to: 'live' },
  lag: { from: ['live'], to: 'lagging' },
  fallBehind: { from: ['catching up'], to: 'lagging' },
  release: { from: ['live'], to: 'catching up' },
  drained: { from: ['lagging'], to: 'catching up' },
  /** Only a session that polls goes back. */
  putBack: { from: ['catching up', 'live', 'lagging'], to: 'opened' },
  close: { from: ['opened', 'catching up', 'live', 'lagging'], to: 'closed' }
} as const satisfies Record<string, { from: readonly SessionState[]; to: SessionState }>

/** What a session asks of its hub. */
export interface SessionHub {
  readonly clock: Clock
  readonly metrics: Metrics
  readonly connections: Connections
  readonly staleness: Staleness
  /** A session begins to write: where it starts, and these frames. */
  begin(session: Session, preface: readonly Buffer[], opening?: Buffer): void
  /** A session reads on. */
  serve(session: Session): void
  /** A session has ended. */
  leave(session: Session): void
}

/** What a session is given besides where it starts. */
export interface SessionOwner {
  /** The connection that it is a part of; without it the session is a connection of its own. */
  readonly connection?: Connection | undefined
  /** When it has to end, in milliseconds since the epoch; never where there is none. */
  readonly expires?: number | undefined
  /** What a connection of its own was given: released when the session has ended. */
  readonly place?: Place | undefined
  /** Who is at the other end of a connection of its own. */
  readonly client?: Client | undefined
}

/**
 * One subscription: a state, a cursor and a sink. It owns no queue: the ring is its queue. It alone changes its state;
 * audiences and catching up ask it to, by a method for each change.
 */
export class Session implements Asker, Connection, LiveSession, Reading {
  /** The connection that it is a part of; itself where it has one of its own. */
  readonly connection: Connection
  readonly audience: Audience
  /** A gap that is announced before the session's own cursor is. */
  readonly gap: Gap | null
  /** When it was opened, in milliseconds since the epoch. */
  readonly since: number
  /** When it has to end, in milliseconds since the epoch; Infinity for never. */
  readonly expires: number
  readonly place: Place | undefined
  readonly client: Client | undefined
  /** Of all the text that it was given; null where that isn't compressed. */
  readonly sum: Sum | null
  readonly #hub: SessionHub
  #state: SessionState = 'opened'
  #sink: Sink | null = null
  /** Null while it is live. */
  #progress: Progress | null
  /** Up to where it had been told, when it went live, that the store has lost events: it must not be told twice. */
  #announcedLoss: Cursor | null = null
  /** What a resumed session began with; null once it was counted, and of a fresh one. */
  #outcome: 'live' | 'replayed' | 'gap' | null
  #isBegun = false

  constructor(hub: SessionHub, audience: Audience, start: Start, owner: SessionOwner) {
    const { snapshot = false } = audience.kind
    const { cursor, floors, gap, resumes } = start
    this.#hub = hub
    this.audience = audience
    this.connection = owner.connection ?? this
    this.gap = snapshot ? null : gap
    this.#progress = new Progress(cursor, {
      floors,
      isTooOld: start.isTooOld && !snapshot,
      needsSnapshot: snapshot && (gap !== null || !resumes)
    })
    this.#outcome = resumes ? (gap ? 'gap' : 'live') : null
    this.since = hub.clock.now()
    this.expires = owner.expires ?? Infinity
    this.place = owner.place
    this.client = owner.client
    this.sum = audience.kind.packing.gzip && new Sum()
  }

  get state(): SessionState {
    return this.#state
  }

  /** Whether it has ended: what is read for it is not wanted any more. */
  get isGone(): boolean {
    return this.#state === 'closed'
  }

  /** Where its bytes go, once it has started. */
  get sink(): Sink {
    return this.#sink!
  }

  /** How far it has read. There is none while it is live. */
  get progress(): Progress {
    return this.#progress!
  }

  /** Everything up to here has been given to the sink. */
  get cursor(): Cursor {
    return this.#progress ? this.#progress.cursor : this.audience.cursor
  }

  /** Whether it was told where it starts. */
  get isBegun(): boolean {
    return this.#isBegun
  }

  get watches(): readonly Watch[] {
    return this.audience.watches
  }

  get filters(): readonly string[] {
    return this.audience.kind.filters
  }

  get format(): Format {
    return this.audience.format
  }

  get transport(): Format['transport'] {
    return this.format.transport
  }

  get readings(): readonly Reading[] {
    return [this]
  }

  get isLagging(): boolean {
    return this.#state === 'lagging'
  }

  get pending(): number {
    return this.#sink?.pending ?? 0
  }

  get rate(): number | undefined {
    return this.audience.kind.rate
  }

  // --- what it is given ---

  /** Gives it frames of its own. */
  write(frames: readonly Buffer[]): void {
    this.writePiece(this.audience.kind.packing.pack(frames))
  }

  /** Gives it what was packed for it, and maybe for others. */
  writePiece({ bytes, sum }: Piece): void {
    if (sum) this.audience.gaveOwn(this, sum)
    this.sink.write(bytes)
  }

  // --- its states ---

  /**
   * Begins to write: where it starts, then these frames. `opening` is how it is told where it starts, instead of the
   * format's way.
   */
  start(sink: Sink, preface: readonly Buffer[] = [], opening?: Buffer): void {
    this.listen(sink)
    const { gzip } = this.audience.kind.packing
    if (gzip) sink.write(gzip.header)
    this.#hub.begin(this, preface, opening)
  }

  /** Goes on to catch up, and writes nothing yet: it was not told where it starts. */
  listen(sink: Sink): void {
    this.#change('listen')
    this.#sink = sink
  }

  /** It was told where it starts. */
  begun(): void {
    this.#isBegun = true
  }

  /** Catching up has brought it to its audience's cursor: it joins. */
  goLive(): void {
    this.#change('goLive')
    this.#countOutcome()
    this.#announcedLoss = this.progress.announcedLoss
    this.#progress = null
    this.audience.add(this)
    this.#hub.staleness.note(this)
  }

  /** Live, its connection is full: it was given everything up to this cursor. */
  lag(cursor: Cursor, pacedUntil: number): void {
    this.#change('lag')
    this.#readFrom(cursor, pacedUntil)
    this.#hub.connections.fallsBehind(this.connection)
  }

  /** Catching up, its connection is full: what was read and not given is read again. */
  fallBehind(): void {
    this.#change('fallBehind')
    this.progress.readAgain()
    this.#hub.connections.fallsBehind(this.connection)
  }

  /** Its audience lets it go: from this cursor on it catches up by itself, once it is asked to `readOn`. */
  release(cursor: Cursor, pacedUntil: number): void {
    this.#change('release')
    this.#readFrom(cursor, pacedUntil)
  }

  #readFrom(cursor: Cursor, pacedUntil: number): void {
    this.#progress = new Progress(cursor, { pacedUntil, announcedLoss: this.#announcedLoss })
  }

  readOn(): void {
    this.#hub.serve(this)
  }

  /** Released, it is due its topic's state. */
  renew(): void {
    this.progress.requireSnapshot()
    this.#hub.serve(this)
  }

  /** The sink has taken all that waited in it. */
  drained(): void {
    if (this.#state !== 'lagging') return
    this.#change('drained')
    this.#hub.connections.readsOn(this.connection)
    this.#hub.serve(this)
  }

  /** One that polls was woken: it stands again where it stood when it began to `listen`. */
  putBack(progress: Progress): void {
    const wasLagging = this.#state === 'lagging'
    this.#change('putBack')
    this.audience.delete(this)
    if (wasLagging) this.#hub.connections.readsOn(this.connection)
    this.#progress = progress
    this.#sink = null
  }

  /** All its topics have ended, and its connection has taken everything: the stream ends. */
  finish(): void {
    if (this.#state === 'closed') return
    this.#endSink()
    this.close('ended')
  }

  /** Ends the session. Nothing is written any more; the sink is left as it is. */
  close(reason: CloseReason): void {
    if (this.#state === 'closed') return
    this.#end()
    if (this.connection === this) this.#hub.connections.exit(this, reason)
  }

  /** Says why and when to come back (milliseconds), and ends the sink and the session. */
  goodbye(reason: GoodbyeReason, retry: number): void {
    if (this.#state === 'closed') return
    // one that was told nothing yet must begin anew
    const cursor = this.#isBegun ? formatCursor(this.cursor) : undefined
    if (this.#sink) this.write([this.format.goodbye(reason, retry, cursor)])
    this.#endSink()
    this.close(reason)
  }

  #endSink(): void {
    const { gzip } = this.audience.kind.packing
    if (gzip && this.#sink) {
      // its sum is its own from here on
      this.audience.delete(this)
      this.#sink.write(gzip.trailer(this.sum!))
    }
    this.#sink?.end()
  }

  /** Hands over to a session of another audience, which stands exactly where this one stood; and ends this one. */
  succeed(audience: Audience): Session {
    if (this.#state === 'live') this.audience.release(this)
    const { connection, cursor, progress } = this
    const start: Start = { cursor, gap: null, resumes: false, isTooOld: false, floors: null }
    const next = new Session(this.#hub, audience, start, { connection })
    next.#progress = progress.copy()
    next.#sink = this.#sink
    next.#isBegun = this.#isBegun
    next.#state = this.#state
    next.#outcome = this.#outcome
    this.#outcome = null
    if (next.#state === 'lagging') this.#hub.connections.fallsBehind(connection)
    this.#end()
    return next
  }

  #end(): void {
    this.#countOutcome()
    this.audience.delete(this)
    if (this.#state === 'lagging') this.#hub.connections.readsOn(this.connection)
    this.#change('close')
    this.#hub.leave(this)
  }

  #change(name: keyof typeof CHANGES): void {
    const { from, to }: { from: readonly SessionState[]; to: SessionState } = CHANGES[name]
    if (!from.includes(this.#state)) throw new Error(`a session that is ${this.#state} can't ${name}`)
    this.#state = to
  }

  // --- how it resumed ---

  /** It was given something that it had missed. */
  replayed(): void {
    if (this.#outcome === 'live') this.#outcome = 'replayed'
  }

  /** It was told of a gap. */
  missed(): void {
    if (this.#outcome) this.#outcome = 'gap'
  }

  #countOutcome(): void {
    if (this.#outcome) this.#hub.metrics.resumes.inc({ outcome: this.#outcome })
    this.#outcome = null
  }
}
