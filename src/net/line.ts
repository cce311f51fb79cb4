/** A place in a line. */
export interface Place<Item> {
  readonly item: Item
  before: Place<Item> | null
  behind: Place<Item> | null
}

/**
 * Items in the order in which they came, of which each may go at any time. A Set would do the same; but one of which things
 * come and go with each request is made anew again and again, and each old one leads to the next. Once one of them is old to
 * V8's collector, all that were in the later ones, with their requests, are kept until it collects what is old: a server
 * then takes a fifth more time for a publish.
 */
export class Line<Item> implements Iterable<Item> {
  size = 0
  #first: Place<Item> | null = null
  #last: Place<Item> | null = null

  /** Puts an item at the end. */
  join(item: Item): Place<Item> {
    const place: Place<Item> = { item, before: this.#last, behind: null }
    if (this.#last) this.#last.behind = place
    else this.#first = place
    this.#last = place
    this.size++
    return place
  }

  /** Takes an item out of this line, in which it has the place. It may be taken out while the line is gone through. */
  leave(place: Place<Item>): void {
    const { before, behind } = place
    if (before) before.behind = behind
    else this.#first = behind
    if (behind) behind.before = before
    else this.#last = before
    // a place that is left leads nowhere
    place.before = null
    place.behind = null
    this.size--
  }

  *[Symbol.iterator](): Iterator<Item> {
    for (let place = this.#first; place;) {
      const { item, behind } = place
      place = behind
      yield item
    }
  }
}
