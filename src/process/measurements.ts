import { countsOf, sum, together, type Measured } from '../metrics.ts'

/**
 * What the workers have measured, for one scrape of them all. A counter must never go down, or Prometheus takes it for one
 * that began anew and sees events that never were. So the counts that a worker told last are kept: they stand in for a
 * worker that doesn't answer, and when it is gone they are added, for good, to one sum of all that are gone.
 */
export class Measurements {
  /** The counts that each living worker told last, by the worker's number. */
  readonly #counts = new Map<number, Measured>()
  /** The counts of all workers that are gone. */
  #gone: Promise<Measured> = Promise.resolve([])

  /** A worker has told what it has measured or counted so far. */
  keep(worker: number, measured: Measured): void {
    this.#counts.set(worker, countsOf(measured))
  }

  /** A worker is gone, and will tell nothing more. */
  bury(worker: number): void {
    const counts = this.#counts.get(worker)
    if (!counts) return
    this.#counts.delete(worker)
    this.#gone = this.#gone.then(gone => sum([gone, counts]))
  }

  /**
   * Everything in the text exposition format. `answers`: what the workers that have answered this scrape have measured.
   * Those that have told something before must all be known by `keep`: an answer of a worker that is gone by now is
   * passed over, because its counts are in the sum already.
   */
  async text(answers: ReadonlyMap<number, Measured>): Promise<string> {
    const living = [...this.#counts].map(([worker, counts]) => answers.get(worker) ?? counts)
    return together([...living, await this.#gone])
  }
}
