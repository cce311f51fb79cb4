import { comparePositions, eventBytes, justBefore, type Position, type StoredEvent } from './event.ts'

/**
 * The newest events of a topic, or of all topics that a filter covers, in the id order of one shard. It holds every event
 * after `base`. When it is full, a new event takes the place of the oldest one.
 */
export class Ring {
  /** The id of the last event that the ring has dropped; before it has dropped any, the position at which it begins. */
  base: Position
  #capacity: number
  /** The events that are held, after the places of some that were dropped, which hold nothing. */
  readonly #places: (StoredEvent | undefined)[] = []
  /** Where the events that are held begin. */
  #head = 0
  #bytes = 0

  constructor(capacity: number, base: Position) {
    this.#capacity = capacity
    this.base = base
  }

  get length(): number {
    return this.#places.length - this.#head
  }

  /** About how many bytes of memory its events take. */
  get bytes(): number {
    return this.#bytes
  }

  /** The oldest event. */
  get first(): StoredEvent | undefined {
    return this.#places[this.#head]
  }

  /** The newest event. */
  get last(): StoredEvent | undefined {
    return this.length > 0 ? this.#places.at(-1) : undefined
  }

  /** From now on it holds so many. */
  resize(capacity: number): void {
    this.#capacity = capacity
    this.drop(this.length - capacity)
  }

  /** Adds an event, which must come after all that are held. */
  push(event: StoredEvent): void {
    this.#places.push(event)
    this.#bytes += eventBytes(event)
    if (this.length > this.#capacity) this.shift()
  }

  /**
   * Adds events from before those that are held: all of them after the position `base` and up to the one of before, the
   * oldest first. Where they are too many, the newest of them are taken.
   */
  prepend(events: readonly StoredEvent[], base: Position): void {
    const left = Math.max(0, events.length - (this.#capacity - this.length))
    this.base = left > 0 ? events[left - 1]!.id : base
    const taken = events.slice(left)
    this.#places.splice(0, this.#head, ...taken)
    this.#head = 0
    for (const event of taken) this.#bytes += eventBytes(event)
  }

  /** Drops the oldest event, which must be there. */
  shift(): void {
    const event = this.#places[this.#head]!
    this.base = event.id
    this.#bytes -= eventBytes(event)
    // the place must not keep the event alive
    this.#places[this.#head++] = undefined
    // The places are moved to the front once more of them are empty than not: so a push costs the same however large the
    // ring is.
    if (this.#head > this.length) {
      this.#places.splice(0, this.#head)
      this.#head = 0
    }
  }

  /** Drops the events older than a time, in milliseconds since the epoch. */
  dropBefore(ms: number): void {
    while (this.length > 0 && this.first!.id.ms < ms) this.shift()
  }

  /** Drops the events up to a position. */
  dropTo(position: Position): void {
    while (this.length > 0 && comparePositions(this.first!.id, position) <= 0) this.shift()
  }

  /** Drops so many of the oldest events. */
  drop(count: number): void {
    for (let left = Math.min(count, this.length); left > 0; left--) this.shift()
  }

  /** At most `limit` events after a position, oldest first. */
  after(position: Position, limit: number): StoredEvent[] {
    const from = this.#indexAfter(position)
    return this.#places.slice(from, from + limit) as StoredEvent[]
  }

  /** How many events come after a position. */
  countAfter(position: Position): number {
    return this.#places.length - this.#indexAfter(position)
  }

  /** The newest event after a position that has not run out by its own `ttl` at a time, in milliseconds since the epoch. */
  newest(position: Position, now: number): StoredEvent | undefined {
    for (let index = this.#places.length - 1; index >= this.#head; index--) {
      const event = this.#places[index]!
      if (comparePositions(event.id, position) <= 0) return undefined
      if (event.expires === undefined || event.expires > now) return event
    }
    return undefined
  }

  /**
   * The position just before the `count`th event from the end, of those that have not run out by their own `ttl` at a time,
   * in milliseconds since the epoch; before the first event where they are fewer. Undefined when none is held.
   */
  before(count: number, now: number): Position | undefined {
    if (this.length === 0) return undefined
    let index = this.#places.length
    for (let left = count; left > 0 && index > this.#head;) {
      if ((this.#places[--index]!.expires ?? Infinity) > now) left--
    }
    return justBefore(this.#places[index]!)
  }

  #indexAfter(position: Position): number {
    let low = this.#head
    let high = this.#places.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (comparePositions(this.#places[middle]!.id, position) <= 0) low = middle + 1
      else high = middle
    }
    return low
  }
}
