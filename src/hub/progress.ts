import { comparePositions, covers, furthest, later } from '../event.ts'
import type { Cursor, Position, StoredEvent } from '../event.ts'
import { inOrder } from './delivery.ts'

/** What may be known of a session where it begins to read. */
export interface ProgressStart {
  readonly isTooOld?: boolean
  readonly floors?: Map<string, Position> | null
  readonly needsSnapshot?: boolean
  readonly pacedUntil?: number
  /** Up to where it was told that the store has lost events. */
  readonly announcedLoss?: Cursor | null
}

/**
 * How far a session has come while it reads on its own. It also keeps what the session need not be given, or be told of,
 * any more. A live session has none: it stands where its audience stands.
 */
export class Progress {
  #cursor: Cursor
  /** Conflated sessions: how far was read of what is not given yet, and the newest event of each topic in it. */
  #reached: Cursor | null = null
  #conflated: Map<string, StoredEvent> | null = null
  /** What need not be given or announced of a topic: all up to here. Empty but for `rewind` and after a gap. */
  #floors: Map<string, Position> | null
  #isTooOld: boolean
  /** Up to where it was told that the store has forgotten events. */
  #announcedLoss: Cursor | null
  #needsSnapshot: boolean
  #pacedUntil: number

  constructor(
    cursor: Cursor,
    {
      isTooOld = false,
      floors = null,
      needsSnapshot = false,
      pacedUntil = 0,
      announcedLoss = null
    }: ProgressStart = {}
  ) {
    this.#cursor = cursor
    this.#isTooOld = isTooOld
    this.#floors = floors
    this.#needsSnapshot = needsSnapshot
    this.#pacedUntil = pacedUntil
    this.#announcedLoss = announcedLoss
  }

  /** The same once more, without what was read and is not given yet: that is read again. */
  copy(): Progress {
    return new Progress(this.#cursor, {
      isTooOld: this.#isTooOld,
      floors: this.#floors && new Map(this.#floors),
      needsSnapshot: this.#needsSnapshot,
      pacedUntil: this.#pacedUntil,
      announcedLoss: this.#announcedLoss
    })
  }

  // --- how far it has come ---

  /** Everything up to here has been given to the sink. */
  get cursor(): Cursor {
    return this.#cursor
  }

  /** Everything up to here has been read: the cursor, unless something that was read is kept. */
  get reached(): Cursor {
    return this.#reached ?? this.#cursor
  }

  /** All up to here has been given. */
  moveTo(cursor: Cursor): void {
    this.#cursor = cursor
  }

  /** What was read and is not given yet will be read again. */
  readAgain(): void {
    this.#reached = null
    this.#conflated = null
  }

  /** Goes on from where this life of the store began, where it has not come so far; and reads again. */
  skipTo(birth: Cursor): void {
    this.#cursor = furthest(this.#cursor, birth)
    this.readAgain()
  }

  /** Keeps the newest event of each topic: the events were read, and are given later. All up to `bound` was read. */
  keep(events: readonly StoredEvent[], bound: Cursor): void {
    this.#conflated ??= new Map()
    for (const event of events) this.#conflated.set(event.topic, event)
    this.#reached = bound
  }

  /** What was kept, to be given now. */
  takeKept(): StoredEvent[] {
    const kept = this.#conflated?.values() ?? []
    this.readAgain()
    return inOrder(kept)
  }

  // --- what it need not get or be told ---

  /** True until the first page has been read of a session whose cursor is older than any ring. */
  get isTooOld(): boolean {
    return this.#isTooOld
  }

  /** The first page has been read. */
  firstPageRead(): void {
    this.#isTooOld = false
  }

  /** The position after which events of a topic are to be given, of those that are read from `reached` on. */
  floorOf(topic: string, shard: number): Position {
    const reached = this.reached[shard]!
    return later(this.#floors?.get(topic) ?? reached, reached)
  }

  /**
   * Notes that the events of a topic up to a position are gone. False when that is nothing new: the topic starts later,
   * or its loss was announced.
   */
  raiseFloor(topic: string, last: Position): boolean {
    const floor = this.#floors?.get(topic)
    if (floor && comparePositions(last, floor) <= 0) return false
    this.#floors = (this.#floors ?? new Map<string, Position>()).set(topic, last)
    return true
  }

  /** Whether it knows that the store has forgotten events up to here, or came after them. */
  knowsLoss(lost: Cursor): boolean {
    return covers(this.#announcedLoss ? furthest(this.#cursor, this.#announcedLoss) : this.#cursor, lost)
  }

  get announcedLoss(): Cursor | null {
    return this.#announcedLoss
  }

  /** It was told that the store has forgotten events up to here. */
  lossAnnounced(lost: Cursor): void {
    this.#announcedLoss = lost
  }

  // --- snapshots ---

  /** Whether a snapshot is due: its topic's state answers what a gap would have told. */
  get needsSnapshot(): boolean {
    return this.#needsSnapshot
  }

  requireSnapshot(): void {
    this.#needsSnapshot = true
  }

  /** It is given its topic's state, in which nothing is missing up to here; what was read before counts no more. */
  takeSnapshot(cursor: Cursor): void {
    this.#cursor = cursor
    this.readAgain()
    this.#floors = null
    this.#needsSnapshot = false
  }

  // --- rate ---

  /** Conflated sessions: until when the rate allows no further write, in milliseconds since the epoch. */
  get pacedUntil(): number {
    return this.#pacedUntil
  }

  paceUntil(time: number): void {
    this.#pacedUntil = time
  }
}
