import type { Price } from './prices.ts'

/** In how many steps it is done, one a second. */
const STEPS = 60

/** How far a job is. */
export interface Progress {
  readonly title: string
  /** Days that it has looked at, of so many. */
  readonly done: number
  readonly of: number
  /** The day that it has come to. */
  readonly date: string
  readonly highest: Pick<Price, 'date' | 'price'>
}

/** A job that takes its time: it looks through recorded days for the highest price. Begins anew when it is done. */
export class Job {
  readonly #days: readonly Price[]
  #done = 0
  #highest: Price

  /** `days`: at least one, oldest first. */
  constructor(days: readonly Price[]) {
    this.#days = days
    this.#highest = days[0]!
  }

  /** Looks at the next days; answers how far it is then. */
  next(): Progress {
    const days = this.#days
    if (this.#done === days.length) {
      this.#done = 0
      this.#highest = days[0]!
    }
    const end = Math.min(days.length, this.#done + Math.ceil(days.length / STEPS))
    for (const day of days.slice(this.#done, end)) if (day.price > this.#highest.price) this.#highest = day
    this.#done = end
    const { date, price } = this.#highest
    return {
      title: 'The highest close of the S&P 500, 2000 to 2020',
      ...{ done: end, of: days.length, date: days[end - 1]!.date },
      highest: { date, price }
    }
  }
}
