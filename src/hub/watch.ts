import { comparePositions, furthest, matches, type Cursor, type StoredEvent } from '../event.ts'
import { Ring } from '../ring.ts'
import type { Page } from '../broker/broker.ts'
import type { Timer } from '../clock.ts'
import type { Audience } from './audience.ts'

/** A filter that somebody here listens to, or did a moment ago: its rings and its audiences. */
export class Watch {
  readonly filter: string
  readonly audiences = new Set<Audience>()
  /** Resolves once every event of the filter after `base` is handed over. */
  readonly ready: Promise<void>
  /** Runs while nobody listens; at its end the filter is given up. */
  linger: Timer | undefined
  readonly #capacity: number
  #rings: Ring[] = []

  constructor(filter: string, capacity: number, base: Promise<Cursor>) {
    this.filter = filter
    this.#capacity = capacity
    this.ready = base.then(position => this.#begin(position))
  }

  /** The position after which the rings hold everything. Empty until `ready`. */
  get base(): Cursor {
    return this.#rings.map(ring => ring.base)
  }

  /** Begins anew at a position: what the rings hold no longer leads up to what comes. */
  reset(position: Cursor): void {
    // never back: what came before its base, no ring has kept
    if (this.#rings.length > 0) this.#begin(furthest(position, this.base))
  }

  #begin(position: Cursor): void {
    this.#rings = position.map(base => new Ring(this.#capacity, base))
  }

  push(event: StoredEvent): void {
    const ring = this.#rings[event.shard]
    // what lies before the base is read from the broker by whoever wants it
    if (ring && comparePositions(event.id, ring.base) > 0) ring.push(event)
  }

  /** Whether the rings hold every event after a cursor. */
  holdsAfter(cursor: Cursor): boolean {
    return this.#rings.every((ring, shard) => comparePositions(ring.base, cursor[shard]!) <= 0)
  }

  /** Lets go of events older than a time, in milliseconds since the epoch. */
  dropBefore(ms: number): void {
    for (const ring of this.#rings) ring.dropBefore(ms)
  }

  /** The events after a cursor that `holdsAfter` is true of, at most `limit` of each shard; complete up to `position`. */
  after(cursor: Cursor, limit: number, position: Cursor): Page {
    const found = this.#rings.map((ring, shard) => ring.after(cursor[shard]!, limit))
    const end = found.map((events, shard) => (events.length < limit ? position[shard]! : events.at(-1)!.id))
    return { events: found.length === 1 ? found[0]! : found.flat(), end, gaps: NO_GAPS }
  }

  /** Whether a gap of this topic or filter concerns it. */
  concerns(topic: string): boolean {
    return matches(this.filter, topic)
  }
}

const NO_GAPS: Page['gaps'] = new Map()
