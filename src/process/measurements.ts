import { countsOf, sum, together, type Measured } from '../metrics.ts'

/** A place for a worker, and for the one that follows when it dies. */
interface Slot {
  /** The counts that each living worker told last, by the worker's number; as a rule of one worker. */
  readonly counts: Map<number, Measured>
  /** The counts of all its workers that are gone. */
  gone: Promise<Measured>
}

/**
 * What the workers have measured, for one scrape of them all. A counter must never go down, or Prometheus takes it for one
 * that began anew and sees events that never were. So the counts that a worker told last are kept: they stand in for a
 * worker that doesn't answer, and when it is gone they are added, for good, to those of all that are gone.
 *
 * Seconds are fractions, and a sum of fractions depends on the order in which they are added: a last digit less would do.
 * So the sum is one over the slots, always in the same order, in each of which nothing but the newest worker's part grows.
 */
export class Measurements {
  readonly #slots: readonly Slot[]

  /** `slots`: how many workers there are at a time. */
  constructor(slots: number) {
    this.#slots = Array.from({ length: slots }, () => ({ counts: new Map(), gone: Promise.resolve([]) }))
  }

  /** A worker in a slot has told what it has measured or counted so far. */
  keep(slot: number, worker: number, measured: Measured): void {
    this.#slots[slot]!.counts.set(worker, countsOf(measured))
  }

  /** A worker is gone, and will tell nothing more. */
  bury(slot: number, worker: number): void {
    const place = this.#slots[slot]!
    const counts = place.counts.get(worker)
    if (!counts) return
    place.counts.delete(worker)
    place.gone = place.gone.then(gone => sum([gone, counts]))
  }

  /**
   * Everything in the text exposition format. `answers`: what the workers that have answered this scrape have measured.
   * Those that have told something before must all be known by `keep`: an answer of a worker that is gone by now is
   * passed over, because its counts are in the sum already.
   */
  async text(answers: ReadonlyMap<number, Measured>): Promise<string> {
    const bySlot = this.#slots.map(async ({ counts, gone }) => {
      const living = [...counts].map(([worker, told]) => answers.get(worker) ?? told)
      return sum([await gone, ...living])
    })
    return together(await Promise.all(bySlot))
  }
}
