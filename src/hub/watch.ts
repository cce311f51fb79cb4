import { comparePositions, END, furthest, isEphemeral, isWildcard, later } from '../event.ts'
import type { Cursor, Gap, Position, StoredEvent } from '../event.ts'
import { Ring } from '../ring.ts'
import type { Page, Subscribed } from '../broker/event-log.ts'
import type { Timer } from '../clock.ts'

/** Who listens to a filter. */
export interface WatchListener {
  /** How many streams and subscriptions it stands for. */
  readonly subscribers: number
  /** Takes an event in; `cursor` is the hub's position with it, `before` without it. True when `flush` has work to do. */
  queue(event: StoredEvent, cursor: Cursor, before: Cursor): boolean
  /** Hands on what was queued. */
  flush(): void
  /** Tells of events that can't be had any more. */
  announce(gap: Gap): void
}

/** A filter that somebody here listens to, or did a moment ago: its rings and its listeners. */
export class Watch {
  readonly filter: string
  readonly listeners = new Set<WatchListener>()
  /** Resolves once every event of the filter after `base` is handed over. */
  readonly ready: Promise<void>
  /** Runs while nobody listens; at its end the filter is given up. */
  linger: Timer | undefined
  /** Whether somebody listened for longer than one answer, and so may come back. */
  isWarm = false
  /** How often it began anew. */
  era = 0
  /** The newest event of the filter's topic that is known, and whether it has ended that; of a wildcard none. */
  #newest: Position | null = null
  #hasEnded = false
  #capacity: number
  readonly #shardOf: (topic: string) => number
  readonly #count: (bytes: number) => void
  #bytes = 0
  #rings: Ring[] = []
  /** Where announcements begin: all after it are told. */
  #start: Cursor = []
  /** The last event of each topic that is gone, where the rings reach further back than it lay. */
  readonly #gaps = new Map<string, Position>()

  /** `count` is told by how many bytes more or fewer the rings hold than before. */
  constructor(
    filter: string,
    capacity: number,
    shardOf: (topic: string) => number,
    begun: Promise<Subscribed>,
    count: (bytes: number) => void = () => {}
  ) {
    this.filter = filter
    this.#capacity = capacity
    this.#shardOf = shardOf
    this.#count = count
    this.ready = begun.then(({ position, end }) => {
      this.#begin(position)
      if (end) this.#note(end, true)
    })
  }

  /**
   * The position after which announcements told everything, and the rings have kept it. What they took in from the
   * broker lies before it: nobody may join an audience that has not come so far. Empty until `ready`.
   */
  get base(): Cursor {
    return this.#rings.map((ring, shard) => later(ring.base, this.#start[shard]!))
  }

  /** How many streams and subscriptions listen. */
  get subscribers(): number {
    let sum = 0
    for (const { subscribers } of this.listeners) sum += subscribers
    return sum
  }

  /** Begins anew at a position: what the rings hold no longer leads up to what comes. */
  reset(position: Cursor): void {
    // never back: what came before its base, no ring has kept
    if (this.#rings.length > 0) this.#begin(furthest(position, this.base))
  }

  #begin(start: Cursor): void {
    this.#start = start
    this.#rings = start.map(position => new Ring(this.#capacity, position))
    this.#gaps.clear()
    this.era++
    this.#recount()
  }

  /** Nobody will listen any more: it keeps nothing. */
  end(): void {
    this.#begin([])
  }

  // --- what it holds ---

  /** How many events. */
  get held(): number {
    let sum = 0
    for (const { length } of this.#rings) sum += length
    return sum
  }

  /** About how many bytes of memory they take. */
  get bytes(): number {
    return this.#bytes
  }

  /** When the oldest of them was stored, in milliseconds since the epoch; Infinity where there is none. */
  get oldest(): number {
    let oldest = Infinity
    for (const { first } of this.#rings) if (first && first.id.ms < oldest) oldest = first.id.ms
    return oldest
  }

  /** The newest of them; undefined where there is none. */
  get last(): StoredEvent | undefined {
    let last: StoredEvent | undefined
    for (const ring of this.#rings) {
      if (ring.last && (!last || comparePositions(ring.last.id, last.id) > 0)) last = ring.last
    }
    return last
  }

  /** How many of them were stored since a time, in milliseconds since the epoch. */
  heldSince(ms: number): number {
    let count = 0
    for (const ring of this.#rings) count += ring.countAfter({ ms: ms - 1, seq: Number.MAX_SAFE_INTEGER })
    return count
  }

  /** Whether the ring of its topic has no room: with the next event its oldest goes. A wildcard's is that of no topic. */
  get isFull(): boolean {
    return !isWildcard(this.filter) && this.held >= this.#capacity
  }

  // --- whether its topic has ended ---

  /** The shard of its topic. */
  get shard(): number {
    return this.#shardOf(this.filter)
  }

  /** The id of the event that has ended its topic; null where that has not ended, as far as is known here, or of a wildcard. */
  get topicEnd(): Position | null {
    return this.#hasEnded ? this.#newest : null
  }

  /** Takes note of what was read of it from the broker, oldest first. */
  learn(events: readonly StoredEvent[]): void {
    const newest = events.at(-1)
    if (newest) this.#note(newest.id, newest.type === END)
  }

  #note(id: Position, isEnd: boolean): void {
    if (isWildcard(this.filter) || (this.#newest && comparePositions(id, this.#newest) <= 0)) return
    this.#newest = id
    this.#hasEnded = isEnd
  }

  // --- its rings ---

  push(event: StoredEvent): void {
    this.#note(event.id, event.type === END)
    if (isEphemeral(event)) return
    const ring = this.#rings[event.shard]
    // what lies before the base is read from the broker by whoever wants it
    if (!ring || comparePositions(event.id, this.#start[event.shard]!) <= 0) return
    ring.push(event)
    this.#recount()
  }

  /**
   * Takes what was read from the broker after a cursor into the rings where it leads up to what they hold: whoever
   * comes next with that cursor, or a later one, is served from memory.
   */
  extend(after: Cursor, { events, end, gaps }: Page): void {
    for (const [shard, ring] of this.#rings.entries()) {
      const [from, upTo] = [after[shard]!, ring.base]
      if (comparePositions(from, upTo) >= 0 || comparePositions(end[shard]!, upTo) < 0) continue
      const lost = [...gaps].filter(([topic]) => this.#shardOf(topic) === shard)
      // of what the ring still holds nothing is gone
      if (lost.some(([, last]) => comparePositions(last, upTo) > 0)) continue
      const older = events.filter(event => event.shard === shard && comparePositions(event.id, upTo) <= 0)
      ring.prepend(older, from)
      for (const [topic, last] of lost) this.#gaps.set(topic, later(last, this.#gaps.get(topic) ?? last))
    }
    for (const [topic, last] of this.#gaps) {
      if (comparePositions(last, this.#rings[this.#shardOf(topic)]!.base) <= 0) this.#gaps.delete(topic)
    }
    this.#recount()
  }

  /** Whether the rings hold every event after a cursor that is not gone. */
  holdsAfter(cursor: Cursor): boolean {
    return this.#rings.every((ring, shard) => comparePositions(ring.base, cursor[shard]!) <= 0)
  }

  /** From now on each ring holds so many events. */
  resize(capacity: number): void {
    this.#capacity = capacity
    for (const ring of this.#rings) ring.resize(capacity)
    this.#recount()
  }

  /** Lets go of events older than a time, in milliseconds since the epoch. */
  dropBefore(ms: number): void {
    if (this.#newest && this.#newest.ms < ms) this.#hasEnded = false
    for (const ring of this.#rings) ring.dropBefore(ms)
    this.#recount()
  }

  /** Lets go of events up to a position. */
  dropTo(position: Cursor): void {
    if (this.#newest && comparePositions(this.#newest, position[this.shard]!) <= 0) this.#hasEnded = false
    for (const [shard, ring] of this.#rings.entries()) ring.dropTo(position[shard]!)
    this.#recount()
  }

  /** Lets go of the older half of its events. */
  halve(): void {
    for (const ring of this.#rings) ring.drop(Math.ceil(ring.length / 2))
    this.#recount()
  }

  #recount(): void {
    let bytes = 0
    for (const ring of this.#rings) bytes += ring.bytes
    if (bytes === this.#bytes) return
    this.#count(bytes - this.#bytes)
    this.#bytes = bytes
  }

  /** The events after a cursor that `holdsAfter` is true of, at most `limit` of each shard; complete up to `position`. */
  after(cursor: Cursor, limit: number, position: Cursor): Page {
    const found = this.#rings.map((ring, shard) => ring.after(cursor[shard]!, limit))
    const end = found.map((events, shard) => (events.length < limit ? position[shard]! : events.at(-1)!.id))
    return { events: found.length === 1 ? found[0]! : found.flat(), end, gaps: this.#gapsAfter(cursor) }
  }

  #gapsAfter(cursor: Cursor): Page['gaps'] {
    if (this.#gaps.size === 0) return this.#gaps
    return new Map(
      [...this.#gaps].filter(([topic, last]) => comparePositions(last, cursor[this.#shardOf(topic)]!) > 0)
    )
  }
}
