import { comparePositions, type Position } from '../../event.ts'

/** The most items of a block: what adding and taking out may have to move. */
const BLOCK = 256

/**
 * Items in the order of their positions, in blocks. What comes after a position is found by bisection, and an item that
 * is taken out leaves nothing behind: so to look at some items costs as much as there are of them, however many others
 * there are, or were. An item's position must not change while it is in here.
 */
export class Order<Item> {
  readonly #positionOf: (item: Item) => Position
  /** None is empty. */
  readonly #blocks: Item[][] = []

  constructor(positionOf: (item: Item) => Position) {
    this.#positionOf = positionOf
  }

  /** The item with the least position. */
  get first(): Item | undefined {
    return this.#blocks[0]?.[0]
  }

  /** The item with the greatest position. */
  get last(): Item | undefined {
    return this.#blocks.at(-1)?.at(-1)
  }

  add(item: Item): void {
    const position = this.#positionOf(item)
    const { last } = this
    // what is taken out to be put in again, because it is younger now, mostly is the youngest
    if (last === undefined || comparePositions(this.#positionOf(last), position) < 0) return this.append(item)
    const at = this.#blockFor(position)
    this.#insert(this.#blocks[at]!, at, item)
  }

  /** Adds an item that comes after all others. */
  append(item: Item): void {
    const last = this.#blocks.at(-1)
    if (last && last.length < BLOCK) last.push(item)
    else this.#blocks.push([item])
  }

  /** Takes an item out; nothing happens where it is not in here. */
  delete(item: Item): void {
    if (item === this.first) return this.#shift()
    const position = this.#positionOf(item)
    const at = this.#blockFor(position)
    const block = this.#blocks[at]
    if (!block) return
    const index = this.#indexIn(block, position)
    if (block[index] !== item) return
    block.splice(index, 1)
    this.#join(block, at)
  }

  /** At most `limit` items after a position. */
  after(position: Position, limit: number): Item[] {
    const found: Item[] = []
    let at = this.#blockFor(position)
    for (let block = this.#blocks[at]; block && found.length < limit; block = this.#blocks[++at]) {
      let index = found.length > 0 ? 0 : this.#indexIn(block, position)
      const item = block[index]
      if (item !== undefined && comparePositions(this.#positionOf(item), position) === 0) index++
      found.push(...block.slice(index, index + limit - found.length))
    }
    return found
  }

  /** Most of what goes is the oldest, which needn't be looked for. */
  #shift(): void {
    const block = this.#blocks[0]!
    block.shift()
    this.#join(block, 0)
  }

  #insert(block: Item[], at: number, item: Item): void {
    block.splice(this.#indexIn(block, this.#positionOf(item)), 0, item)
    if (block.length > BLOCK) this.#blocks.splice(at + 1, 0, block.splice(BLOCK / 2))
  }

  /** Blocks that have become small are joined: few of them must be looked through. */
  #join(block: Item[], at: number): void {
    if (block.length === 0) return void this.#blocks.splice(at, 1)
    const next = this.#blocks[at + 1]
    if (!next || block.length + next.length > BLOCK / 2) return
    block.push(...next)
    this.#blocks.splice(at + 1, 1)
  }

  /** The first block that doesn't end before a position. */
  #blockFor(position: Position): number {
    let low = 0
    let high = this.#blocks.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (comparePositions(this.#positionOf(this.#blocks[middle]!.at(-1)!), position) < 0) low = middle + 1
      else high = middle
    }
    return low
  }

  /** The first item of a block that doesn't lie before a position. */
  #indexIn(block: readonly Item[], position: Position): number {
    let low = 0
    let high = block.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (comparePositions(this.#positionOf(block[middle]!), position) < 0) low = middle + 1
      else high = middle
    }
    return low
  }
}
