/** A timer that can be started over without a new one being made. */
export interface Timer {
  refresh(): void
  cancel(): void
}

/** Where time comes from: handed in, so that a test can hold it. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number
  /** Runs `callback` once, `ms` milliseconds from now. Never keeps the process alive. */
  after(ms: number, callback: () => void): Timer
  /** Runs `callback` when what goes on now is done, and before anything else comes in. */
  soon(callback: () => void): void
}

/** The machine's own clock. */
export const systemClock: Clock = {
  now: () => Date.now(),
  after(ms, callback) {
    const timeout = setTimeout(callback, ms).unref()
    return { refresh: () => timeout.refresh(), cancel: () => clearTimeout(timeout) }
  },
  soon: callback => queueMicrotask(callback)
}

/** A clock, and what makes its timers run out in silence: else what starts itself over would outlive the app. */
export function stoppable(clock: Clock): { clock: Clock; stop: () => void } {
  let stopped = false
  return {
    clock: {
      now: () => clock.now(),
      after: (ms, callback) => clock.after(ms, () => !stopped && callback()),
      soon: callback => clock.soon(callback)
    },
    stop: () => (stopped = true)
  }
}
