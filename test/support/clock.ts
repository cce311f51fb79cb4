import type { Clock, Timer } from '../../src/clock.ts'

/** Resolves when every promise that could settle by itself has. */
export function settled(): Promise<void> {
  return new Promise(resolve => void setImmediate(resolve))
}

/** A clock that stands still until the test moves it. */
export class HeldClock implements Clock {
  readonly #timers = new Set<HeldTimer>()
  #soon: (() => void)[] = []
  /** Counts up whatever happens to the time of day: timers hang on it. */
  #elapsed = 0
  #now: number

  constructor(now = 1_700_000_000_000) {
    this.#now = now
  }

  now(): number {
    return this.#now
  }

  after(ms: number, callback: () => void): Timer {
    const timer: HeldTimer = {
      due: this.#elapsed + ms,
      callback,
      refresh: () => {
        if (!cancelled) this.#arm(timer, ms)
      },
      cancel: () => {
        cancelled = true
        this.#timers.delete(timer)
      }
    }
    let cancelled = false
    this.#arm(timer, ms)
    return timer
  }

  soon(callback: () => void): void {
    this.#soon.push(callback)
  }

  /** Lets time pass, and runs the timers that come due in it, in their order. What is due `soon` still waits. */
  async advance(ms: number): Promise<void> {
    const end = this.#elapsed + ms
    for (let timer = this.#next(end); timer; timer = this.#next(end)) {
      this.#pass(Math.max(0, timer.due - this.#elapsed))
      this.#timers.delete(timer)
      timer.callback()
      await settled()
    }
    this.#pass(end - this.#elapsed)
    await settled()
  }

  /** Ends a turn of the event loop: what is due `soon` runs, but not what that makes due. */
  async turn(): Promise<void> {
    const callbacks = this.#soon
    this.#soon = []
    for (const callback of callbacks) {
      callback()
      await settled()
    }
    await settled()
  }

  /** Ends turns until nothing is due `soon` any more. */
  async turns(): Promise<void> {
    await settled()
    while (this.#soon.length > 0) await this.turn()
  }

  /** Lets time pass in steps of a second, with as many turns of the event loop as each brings. */
  async live(ms: number): Promise<void> {
    await this.turns()
    for (let left = ms; left > 0; left -= 1000) {
      await this.advance(Math.min(left, 1000))
      await this.turns()
    }
  }

  /** Sets the time of day back, as an administrator would. Timers don't notice. */
  stepBack(ms: number): void {
    this.#now -= ms
  }

  /** How many timers are set. */
  get timers(): number {
    return this.#timers.size
  }

  #arm(timer: HeldTimer, ms: number): void {
    // the one armed last runs last among those of the same time
    this.#timers.delete(timer)
    timer.due = this.#elapsed + ms
    this.#timers.add(timer)
  }

  #next(end: number): HeldTimer | undefined {
    let first: HeldTimer | undefined
    for (const timer of this.#timers) if (timer.due <= end && (!first || timer.due < first.due)) first = timer
    return first
  }

  #pass(ms: number): void {
    this.#elapsed += ms
    this.#now += ms
  }
}

interface HeldTimer extends Timer {
  due: number
  readonly callback: () => void
}
