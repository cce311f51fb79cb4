import type { Clock, Timer } from '../clock.ts'
import { formatCursor, type Cursor } from '../event.ts'
import type { Format } from '../wire/format.ts'
import type { Connection } from './connections.ts'

/**
 * How long the broker is away before clients are told, in milliseconds: a connection to it that is lost is most often there
 * again at once. The contract's 5 s begin before: that a broker is gone without a word shows after 3 s at the latest.
 */
const PATIENCE_MS = 1000

/** A session, as far as this concerns it. */
interface ToldSession {
  readonly state: string
  /** Whether it was told where it starts. */
  readonly isBegun: boolean
  readonly connection: Connection
  readonly cursor: Cursor
  readonly filters: readonly string[]
  readonly format: Format
  write(frames: readonly Buffer[]): void
}

/**
 * Tells clients that the broker is away, so that nothing new can come: `stale`. Whoever was told gets a `cursor` once the
 * broker is back and he was given what he had missed.
 */
export class Staleness {
  readonly #clock: Clock
  readonly #sessions: ReadonlySet<ToldSession>
  /** When the broker was heard last, in milliseconds since the epoch. */
  #heard: number
  #timer: Timer | undefined
  #isStale = false
  /** Who was told, and was not told the end of it. */
  readonly #told = new Set<ToldSession>()

  /** `sessions`: all that there are. */
  constructor(clock: Clock, sessions: ReadonlySet<ToldSession>) {
    this.#clock = clock
    this.#sessions = sessions
    this.#heard = clock.now()
  }

  /** Whether clients are to know that nothing new can come. */
  get isStale(): boolean {
    return this.#isStale
  }

  /** Everything up to now has come. */
  heard(): void {
    this.#heard = this.#clock.now()
  }

  /** The broker is away. */
  begin(): void {
    this.#timer ??= this.#clock.after(PATIENCE_MS, () => {
      this.#isStale = true
      this.repeat()
    })
  }

  /** The broker is back, and whoever missed something reads it now. */
  end(): void {
    this.#timer?.cancel()
    this.#timer = undefined
    this.#isStale = false
    for (const session of this.#told) if (session.state === 'live') this.#tellEnd(session)
  }

  /** Tells all, once on each connection. It is also the sign of life for as long as it lasts: a cursor would end it. */
  repeat(): void {
    const connections = new Set<Connection>()
    for (const session of this.#sessions) this.#tell(session, connections)
  }

  /** A session has begun, or joins its audience: it is told what it does not know. */
  note(session: ToldSession): void {
    if (this.#isStale && !this.#told.has(session)) this.#tell(session, new Set())
    else if (!this.#isStale && this.#told.has(session)) this.#tellEnd(session)
  }

  /** A session hands over to another one. */
  succeed(session: ToldSession, next: ToldSession): void {
    if (this.#told.has(session)) this.#told.add(next)
  }

  /** A session has ended. */
  forget(session: ToldSession): void {
    this.#told.delete(session)
  }

  #tell(session: ToldSession, connections: Set<Connection>): void {
    const { connection, cursor, format, isBegun, state } = session
    if (!isBegun || !format.delivers) return
    // one whose connection is full is told once: it is no sign of life there
    if (state === 'lagging' && this.#told.has(session)) return
    this.#told.add(session)
    if (connections.has(connection)) return
    connections.add(connection)
    session.write([format.stale(this.#heard, formatCursor(cursor))])
  }

  #tellEnd(session: ToldSession): void {
    const { cursor, filters, format } = session
    this.#told.delete(session)
    session.write([format.fresh(formatCursor(cursor), filters)])
  }
}
