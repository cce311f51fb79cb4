import { Turn } from './turn.ts'

/**
 * What comes in one turn of the event loop, done at its end, all of it together and in order. A request that is dealt with
 * from its head to its answer before the next one is looked at runs through more code than the processor has at hand at a
 * time. In rounds all of them run through one part of it after the other: that takes half as long, and the answers leave
 * one right after the other.
 */
export class Round {
  readonly #waiting: (() => void)[] = []

  /** Does something at the end of the turn; of more than a turn may hold, the rest at the end of the next ones. */
  add(act: () => void): void {
    if (this.#waiting.push(act) === 1) setImmediate(this.#run)
  }

  /** Resolves at the end of the turn, or of a later one, as `add` says. */
  end(): Promise<void> {
    return new Promise(resolve => this.add(resolve))
  }

  readonly #run = (): void => {
    const turn = new Turn()
    let count = 0
    try {
      while (count < this.#waiting.length && !turn.isOver) this.#waiting[count++]!()
    } finally {
      this.#waiting.splice(0, count)
      if (this.#waiting.length > 0) setImmediate(this.#run)
    }
  }
}
