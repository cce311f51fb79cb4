/** The longest that a timer of the runtime waits, in milliseconds: with more it would fire at once. */
const MOST_MS = 2 ** 31 - 1

/** A timer for any time, also for one that never ends (`Infinity`). It runs for one thing at a time. */
export class Timer {
  #timeout: ReturnType<typeof setTimeout> | undefined

  /** Calls back in `ms` milliseconds, in place of what was to be called back before. */
  start(ms: number, callback: () => void): void {
    this.stop()
    const rest = ms - MOST_MS
    this.#timeout = setTimeout(
      () => (rest > 0 ? this.start(rest, callback) : callback()),
      Math.min(ms, MOST_MS)
    )
  }

  stop(): void {
    clearTimeout(this.#timeout)
  }
}

/** Throws a `TypeError` for an option that is a number and less than `least`, or none at all. */
export function checkTime(name: string, value: number | undefined, least: number): void {
  if (value !== undefined && !(value >= least)) {
    throw new TypeError(`${name}: ${value} is no number from ${least} on`)
  }
}
