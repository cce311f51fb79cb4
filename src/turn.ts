import { setImmediate } from 'node:timers/promises'

/** How long a piece of work may hold up the others, in milliseconds. */
const MOST_MS = 10

/** The turn of the event loop that long work has: when it is over, the work lets all others go first. */
export class Turn {
  #began = performance.now()

  get isOver(): boolean {
    return performance.now() - this.#began > MOST_MS
  }

  /** Gives the turn back. Resolves with the next one. */
  async next(): Promise<void> {
    await setImmediate()
    this.#began = performance.now()
  }
}
