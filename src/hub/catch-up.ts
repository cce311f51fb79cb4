import type { Page, State } from '../broker/event-log.ts'
import { covers, formatCursor, furthest, later } from '../event.ts'
import type { Cursor, Gap, StoredEvent } from '../event.ts'
import type { Metrics } from '../metrics.ts'
import type { Piece } from '../wire/packing.ts'
import { isOver } from './ends.ts'
import type { Frames } from './frames.ts'
import { isBroken, takeBreaks, type GapsHub } from './gaps.ts'
import { mayJoin, pace, pauseOf } from './pace.ts'
import { coldOf, heldPages, isCaughtUp, neededBy, readNewest, readPages, takePages } from './pages.ts'
import type { Session } from './session.ts'
import type { ReadsHub, SharedReads, Snapshot } from './shared-reads.ts'
import type { Waiting } from './waiting.ts'
import type { Watch } from './watch.ts'

/** What catching up needs of its hub. */
export interface CatchUpHub extends GapsHub, ReadsHub {
  readonly frames: Frames
  readonly metrics: Metrics
  readonly reads: SharedReads
  readonly settings: { readonly RETRY: number; readonly SEND_BUFFER: number }
}

type Source = 'memory' | 'broker'

/**
 * Brings streams from their own cursor to their audience's: from the rings, and from the broker what those no longer
 * hold.
 */
export class CatchUp {
  readonly #hub: CatchUpHub
  readonly #waiting: Waiting

  constructor(hub: CatchUpHub, waiting: Waiting) {
    this.#hub = hub
    this.#waiting = waiting
  }

  /** Tries again what the broker gave no answer to. */
  retry(): void {
    for (const session of this.#waiting.takeStranded()) this.serve(session)
  }

  /**
   * Brings a session to its audience's cursor and hands it over, or leaves it where it must wait: for its connection,
   * for this process, for its rate, or for the broker. The hand-over is one synchronous step: nothing is awaited between
   * "its cursor is the audience's" and "it is in the audience".
   */
  serve(session: Session): void {
    while (session.state === 'catching up') {
      const { audience, progress, sink, watches } = session
      if (sink.pending > this.#hub.settings.SEND_BUFFER) return session.fallBehind()
      if (this.#hasEnded(session)) return sink.pending > 0 ? session.fallBehind() : session.finish()
      const pause = pauseOf(this.#hub.clock, session)
      if (pause > 0 && !this.#isReady(session)) return this.#waitForRate(session, pause)
      for (const gap of takeBreaks(this.#hub, session)) this.#tell(session, gap)
      if (session.state !== 'catching up') return
      if (progress.needsSnapshot) return void this.#giveSnapshot(session)
      const needs = neededBy(session)
      if (!covers(audience.cursor, needs))
        return this.#waiting.forCursor(session, needs, () => this.serve(session))
      const cold = coldOf(this.#hub, session)
      if (cold.length > 0) return void this.#readThenServe(session, cold)
      this.#deliver(session, heldPages(this.#hub, watches, progress.reached), 'memory')
      if (session.state === 'catching up' && this.#isReady(session)) this.#handOver(session)
    }
  }

  /** Whether it has got everything that will ever come on its topics, and may end with them: a WebSocket goes on. */
  #hasEnded(session: Session): boolean {
    const { connection, cursor, watches } = session
    return connection === session && isOver(this.#hub, watches, cursor) && !isBroken(this.#hub, session)
  }

  #isReady(session: Session): boolean {
    return isCaughtUp(session) && mayJoin(this.#hub.clock, session) && !this.#hasEnded(session)
  }

  #handOver(session: Session): void {
    const { audience, progress } = session
    // nobody has paced it for this one
    if (!audience.isLive && pauseOf(this.#hub.clock, session) > 0) audience.holdUntil(progress.pacedUntil)
    session.goLive()
  }

  /** Waits for the rate, and for the audience if that is about to write: just after a write, a session can join. */
  #waitForRate(session: Session, pause: number): void {
    const { audience } = session
    this.#waiting.forWrite(session, pause, () => {
      // one that has ended meanwhile must not wait again
      if (session.state !== 'catching up' || !audience.willWrite) return this.serve(session)
      this.#waiting.forWrite(session, 1000 / audience.kind.rate!, () => this.serve(session))
    })
  }

  async #readThenServe(session: Session, cold: readonly Watch[]): Promise<void> {
    const read = session.audience.outlivesLosses
      ? readNewest(this.#hub.reads, session)
      : readPages(this.#hub, this.#hub.reads, session, cold)
    const pages = await this.#waiting.forAnswer(session, read)
    if (!pages) return
    // what the store has forgotten meanwhile is told before what it still has
    if (!isBroken(this.#hub, session)) this.#deliver(session, pages, 'broker')
    this.serve(session)
  }

  // --- what it is given ---

  /** Gives a session what these pages hold, up to where all of them are complete and its audience has come. */
  #deliver(session: Session, pages: readonly Page[], source: Source): void {
    const { progress } = session
    const { events, bound, gap } = takePages(this.#hub, session, pages)
    if (gap) this.#tell(session, gap)
    if (progress.needsSnapshot || session.state !== 'catching up') return
    const { rate, snapshot } = session.audience.kind
    if (rate === undefined) return this.#give(session, events, bound, source)
    // patches can't be left out: the state has all of them in it
    if (snapshot && events.length > 0) return progress.requireSnapshot()
    progress.keep(events, bound)
    if (!isCaughtUp(session)) return
    const newest = progress.takeKept()
    this.#give(session, newest, bound, source)
    if (newest.length > 0 && session.state === 'catching up') pace(this.#hub.clock, session)
  }

  /** Writes events in pieces of about `SEND_BUFFER`; what the connection doesn't take now is read again later. */
  #give(session: Session, events: readonly StoredEvent[], bound: Cursor, source: Source): void {
    const { format, progress, sink } = session
    const { SEND_BUFFER } = this.#hub.settings
    let { cursor } = progress
    let frames: Buffer[] = []
    let size = 0
    for (const event of events) {
      if (size > 0 && sink.pending + size > SEND_BUFFER) {
        this.#giveFrames(session, frames, cursor, source)
        frames = []
        size = 0
        if (sink.pending > SEND_BUFFER || session.state !== 'catching up') return
      }
      cursor = cursor.with(event.shard, event.id)
      const frame = this.#hub.frames.of(format, event, cursor)
      frames.push(frame)
      size += frame.length
    }
    if (frames.length > 0) this.#giveFrames(session, frames, bound, source)
    else progress.moveTo(bound)
  }

  #giveFrames(session: Session, frames: readonly Buffer[], cursor: Cursor, source: Source): void {
    const { delivers, transport } = session.format
    session.progress.moveTo(cursor)
    this.#write(session, frames)
    if (!delivers) return
    session.replayed()
    this.#hub.metrics.replayedEvents.inc({ source }, frames.length)
    this.#hub.metrics.eventsDelivered.inc({ transport }, frames.length)
  }

  #tell(session: Session, gap: Gap): void {
    if (session.audience.kind.snapshot) session.progress.requireSnapshot()
    else this.#write(session, [session.format.gap(gap, gap.after)])
  }

  #write(session: Session, frames: readonly Buffer[]): void {
    this.#writePiece(session, session.audience.kind.packing.pack(frames))
  }

  #writePiece(session: Session, piece: Piece): void {
    const { delivers, transport } = session.format
    if (delivers) this.#hub.metrics.bytesSent.inc({ transport }, piece.bytes.length)
    session.writePiece(piece)
  }

  // --- snapshots ---

  /** The state of the session's topic, and from where the session goes on. */
  async #giveSnapshot(session: Session): Promise<void> {
    const { progress, watches } = session
    const topic = watches[0]!.filter
    const read = this.#hub.reads.snapshot(topic, progress.cursor, session)
    const snapshot = await this.#waiting.forAnswer(session, read)
    if (!snapshot) return
    const shard = this.#hub.log.shardOf(topic)
    progress.takeSnapshot(cursorAfter(progress.cursor, snapshot, shard))
    const piece = this.#pieceOf(snapshot, session, topic, shard)
    session.begun()
    this.#writePiece(session, piece)
    if (session.state === 'catching up') pace(this.#hub.clock, session)
    this.serve(session)
  }

  /** What a snapshot is written as: once for all who get the same, and go on from the same cursor. */
  #pieceOf(snapshot: Snapshot, session: Session, topic: string, shard: number): Piece {
    const { audience, cursor, filters, format, isBegun } = session
    const { packing } = audience.kind
    const at = formatCursor(cursor)
    const key = `${format.key} ${packing.key} ${isBegun} ${at}`
    let piece = snapshot.pieces.get(key)
    if (!piece) {
      const { state } = snapshot
      piece = packing.pack([
        state ? format.snapshot(asEvent(state, topic, shard), at) : format.note('deleted', '{}', at),
        isBegun ? format.keepAlive(at, filters) : format.open(at, this.#hub.settings.RETRY)
      ])
      snapshot.pieces.set(key, piece)
    }
    return piece
  }
}

/** Where a session stands once it has a snapshot. */
function cursorAfter(cursor: Cursor, { position, state }: Snapshot, shard: number): Cursor {
  const read = furthest(cursor, position)
  return state ? read.with(shard, later(read[shard]!, state.version)) : read
}

/** A state as the event that made it, whatever that one's type was. */
function asEvent({ value, version }: State, topic: string, shard: number): StoredEvent {
  return { id: version, shard, topic, type: 'snapshot', data: value, prev: null }
}
