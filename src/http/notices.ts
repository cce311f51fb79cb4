import type { Clock } from '../clock.ts'

/** How often the same is said, in milliseconds. */
const EVERY_MS = 60_000

/** How many different things are told apart: clients may choose what they are. */
const MOST = 100

/** Says one thing; `count`: how often it has happened since it was said last. */
type Say = (count: number) => void

/**
 * Says what happens often: at once when it happens for the first time, then once a minute for as long as it goes on, with
 * how often it did.
 */
export class Notices {
  readonly #clock: Clock
  readonly #noted = new Map<string, { count: number; say: Say }>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** It has happened. Where more than a hundred things happen, others are not said until some of these have stopped. */
  note(what: string, say: Say): void {
    const noted = this.#noted.get(what)
    if (noted) {
      noted.count++
      noted.say = say
    } else if (this.#noted.size < MOST) {
      this.#noted.set(what, { count: 0, say })
      say(1)
      this.#watch(what)
    }
  }

  #watch(what: string): void {
    const timer = this.#clock.after(EVERY_MS, () => {
      const noted = this.#noted.get(what)!
      if (noted.count === 0) return void this.#noted.delete(what)
      const { count, say } = noted
      noted.count = 0
      say(count)
      timer.refresh()
    })
  }
}
