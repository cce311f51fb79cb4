import { comparePositions, justBefore, type Position, type StoredEvent } from './event.ts'

/**
 * The newest events of a topic, or of all topics that a filter covers, in the id order of one shard. It holds every event
 * after `base`. When it is full, a new event takes the place of the oldest one.
 */
export class Ring {
  /** The id of the last event that the ring has dropped; before it has dropped any, the position at which it begins. */
  base: Position
  readonly #capacity: number
  /** The events that are held, after some that were dropped. */
  readonly #events: StoredEvent[] = []
  /** Where the events that are held begin in the array. */
  #head = 0

  constructor(capacity: number, base: Position) {
    this.#capacity = capacity
    this.base = base
  }

  get length(): number {
    return this.#events.length - this.#head
  }

  /** The newest event. */
  get last(): StoredEvent | undefined {
    return this.length > 0 ? this.#events.at(-1) : undefined
  }

  /** Adds an event, which must come after all that are held. */
  push(event: StoredEvent): void {
    this.#events.push(event)
    if (this.length > this.#capacity) this.#shift()
  }

  /**
   * Adds events from before those that are held: all of them after the position `base` and up to the one of before, the
   * oldest first. Where they are too many, the newest of them are taken.
   */
  prepend(events: readonly StoredEvent[], base: Position): void {
    const left = Math.max(0, events.length - (this.#capacity - this.length))
    this.base = left > 0 ? events[left - 1]!.id : base
    this.#events.splice(0, this.#head, ...events.slice(left))
    this.#head = 0
  }

  /** Drops the events older than a time, in milliseconds since the epoch. */
  dropBefore(ms: number): void {
    while (this.length > 0 && this.#events[this.#head]!.id.ms < ms) this.#shift()
  }

  /** At most `limit` events after a position, oldest first. */
  after(position: Position, limit: number): StoredEvent[] {
    const from = this.#indexAfter(position)
    return this.#events.slice(from, from + limit)
  }

  /** The position just before the `count`th event from the end; undefined when none is held. */
  before(count: number): Position | undefined {
    if (this.length === 0) return undefined
    return justBefore(this.#events[this.#events.length - Math.min(count, this.length)]!)
  }

  #shift(): void {
    this.base = this.#events[this.#head]!.id
    this.#head++
    // The array is moved to its front once more than `capacity` dropped events stand before those that are held: so a
    // push costs the same however large the ring is. An empty ring has nothing to move, and keeps no dropped event alive.
    if (this.#head > this.#capacity || this.length === 0) {
      this.#events.splice(0, this.#head)
      this.#head = 0
    }
  }

  #indexAfter(position: Position): number {
    let low = this.#head
    let high = this.#events.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (comparePositions(this.#events[middle]!.id, position) <= 0) low = middle + 1
      else high = middle
    }
    return low
  }
}
