import { setImmediate } from 'node:timers/promises'
import { stopIfGone, type Asker } from './asker.ts'

/** How long a piece of work may hold up the others, in milliseconds. */
const MOST_MS = 10

/** How many of many things are done before it is asked whether the turn is over. */
const STEP = 500

/** The turn of the event loop that long work has: when it is over, the work lets all others go first. */
export class Turn {
  readonly #asker: Asker | undefined
  #began = performance.now()

  /** `asker`: whom the work is for, where it is not wanted any more once that one has gone. */
  constructor(asker?: Asker) {
    this.#asker = asker
  }

  get isOver(): boolean {
    return performance.now() - this.#began > MOST_MS
  }

  /** Gives the turn back. Resolves with the next one; rejects with `Unwanted` once who asked has gone. */
  async next(): Promise<void> {
    await setImmediate()
    this.#began = performance.now()
    stopIfGone(this.#asker)
  }

  /** Makes something of each of many things, in order. Rejects as `next` does. */
  async map<T, U>(all: Iterable<T>, make: (one: T) => U): Promise<U[]> {
    const made: U[] = []
    for (const one of all) if (made.push(make(one)) % STEP === 0 && this.isOver) await this.next()
    return made
  }

  /** Many things in the order that `compare` says, as `Array.sort` has it. Rejects as `next` does. */
  async sort<T>(all: readonly T[], compare: (a: T, b: T) => number): Promise<T[]> {
    const starts = Array.from({ length: Math.ceil(all.length / STEP) }, (_, run) => run * STEP)
    let runs = await this.#mapEach(starts, async start => all.slice(start, start + STEP).sort(compare))
    while (runs.length > 1) {
      const pairs = Array.from({ length: Math.ceil(runs.length / 2) }, (_, pair) => 2 * pair)
      const sorted = runs
      runs = await this.#mapEach(pairs, first =>
        this.#merge(sorted[first]!, sorted[first + 1] ?? [], compare)
      )
    }
    return runs[0] ?? []
  }

  /** One after the other: each of these is a piece of work. */
  async #mapEach<T, U>(all: readonly T[], make: (one: T) => Promise<U>): Promise<U[]> {
    const made: U[] = []
    for (const one of all) {
      made.push(await make(one))
      if (this.isOver) await this.next()
    }
    return made
  }

  async #merge<T>(one: readonly T[], other: readonly T[], compare: (a: T, b: T) => number): Promise<T[]> {
    const merged: T[] = []
    let [at, from] = [0, 0]
    while (at < one.length || from < other.length) {
      const isFirst = from === other.length || (at < one.length && compare(one[at]!, other[from]!) <= 0)
      if (merged.push(isFirst ? one[at++]! : other[from++]!) % STEP === 0 && this.isOver) await this.next()
    }
    return merged
  }
}
