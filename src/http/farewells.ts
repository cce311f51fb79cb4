import type { Clock } from '../clock.ts'

/** How long a stream that was turned away stays open, in milliseconds. */
const WAIT_MS = 1000

/**
 * Streams that were turned away and told so. Each ends a second later: some clients don't heed `retry:` and come back as
 * soon as it has ended.
 */
export class Farewells {
  readonly #clock: Clock
  readonly #most: number
  readonly #waiting = new Set<() => void>()
  #isClosed = false

  /** `most`: how many may wait; past it they end at once. */
  constructor(clock: Clock, most: number) {
    this.#clock = clock
    this.#most = most
  }

  /** Ends a stream in a second, or at once. */
  add(end: () => void): void {
    if (this.#isClosed || this.#waiting.size >= this.#most) return end()
    this.#waiting.add(end)
    this.#clock.after(WAIT_MS, () => {
      if (this.#waiting.delete(end)) end()
    })
  }

  /** Ends all that wait, and from now on each at once: the server would wait for them. */
  close(): void {
    this.#isClosed = true
    for (const end of this.#waiting) end()
    this.#waiting.clear()
  }
}
