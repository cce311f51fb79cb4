import { comparePositions, type Position } from '../../event.ts'
import { Order } from './order.ts'

/**
 * What goes when it has become too old, such as topics by their oldest events. Not all of it may become equally old: what
 * has the same time to live is in one order, and there are few of these. All that is said of `Order` goes for this as well.
 */
export class Ages<Item> {
  readonly #positionOf: (item: Item) => Position
  /** By the time to live, in milliseconds. One that has become empty stays: most often it is filled again at once. */
  readonly #orders = new Map<number, Order<Item>>()

  constructor(positionOf: (item: Item) => Position) {
    this.#positionOf = positionOf
  }

  /** The oldest of all. */
  get first(): Item | undefined {
    let first: Item | undefined
    for (const order of this.#orders.values()) {
      const item = order.first
      if (!item) continue
      if (!first || comparePositions(this.#positionOf(item), this.#positionOf(first)) < 0) first = item
    }
    return first
  }

  add(item: Item, ttl: number): void {
    let order = this.#orders.get(ttl)
    if (!order) this.#orders.set(ttl, (order = new Order(this.#positionOf)))
    order.add(item)
  }

  /** Takes out what was added with this time to live. */
  delete(item: Item, ttl: number): void {
    this.#orders.get(ttl)?.delete(item)
  }

  /** One that is too old at a time, in milliseconds since the epoch: the oldest with its time to live. */
  tooOld(now: number): { item: Item; ttl: number } | undefined {
    for (const [ttl, order] of this.#orders) {
      const item = order.first
      if (item && this.#positionOf(item).ms < now - ttl) return { item, ttl }
    }
    return undefined
  }

  /** The oldest of all, or of those with one time to live; at most so many, in their order. */
  oldest(limit: number, ttl?: number): Item[] {
    const orders = ttl === undefined ? [...this.#orders.values()] : [this.#orders.get(ttl)]
    const found = orders.flatMap(order => order?.after(BEFORE_ALL, limit) ?? [])
    if (orders.length === 1) return found
    return found.sort((a, b) => comparePositions(this.#positionOf(a), this.#positionOf(b))).slice(0, limit)
  }
}

const BEFORE_ALL: Position = { ms: 0, seq: 0 }
