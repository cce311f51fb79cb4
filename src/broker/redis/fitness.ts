import type { AppendStore } from './appends.ts'
import { refusalKind } from './refusals.ts'
import type { Requirements } from './requirements.ts'
import { Unfit } from './unavailable.ts'

/** How often the store is asked whether it still is what we need, in milliseconds. */
const CHECK_MS = 2000

/** How soon it is asked again where something shows that it may have changed, in milliseconds. */
const SOON_MS = 200

export interface FitnessOptions {
  readonly requirements: Pick<Requirements, 'check' | 'tryAll'>
  /** Milliseconds of a clock that never steps. */
  elapsed(): number
  /** Is told what the store says instead of taking a write. */
  refused(error: Error): void
  /** Is told that a store can't be used any more. */
  unfit(unfit: Unfit): void
}

/** Whether a shard's store can be used, and written to. It is asked on each new connection, and again and again. */
export class Fitness {
  readonly #options: FitnessOptions
  #unfit: Unfit | null = null
  #refusal: Error | null = null
  #checkedAt = -Infinity
  #isChecking = false
  /** Whether more may be missing than a check finds out. */
  #isDoubted = false

  constructor(options: FitnessOptions) {
    this.#options = options
  }

  /** What the store says instead of taking a write; null where it takes it. */
  get refusal(): Error | null {
    return this.#refusal
  }

  /** There is a new connection. Rejects with `Unfit` where the store can't be used, or when it is lost. */
  async connected(): Promise<void> {
    try {
      await this.#take(this.#options.requirements.tryAll())
    } catch (error) {
      // what it can't answer now (a slot on its way) is for the first tick to find out; of a replica it finds no connection
      const isReplica = (error as Error).message.includes('READONLY')
      if (error instanceof Unfit || !refusalKind(error as Error) || isReplica) throw error
    }
  }

  /** To be called often: it asks when it is time. */
  checkInTime(): void {
    this.#checkAfter(this.#isDoubted ? SOON_MS : CHECK_MS)
  }

  /** The store does not let its user do something: all that we need is tried again. */
  doubt(): void {
    if (this.#refusal) return // which says why
    this.#isDoubted = true
    this.#checkAfter(SOON_MS)
  }

  /** A store that takes nothing while it can't be used, and that is asked whether it can be written to when it refuses. */
  guard(store: AppendStore): AppendStore {
    return {
      lack: () => this.#unfit,
      append: async (keys, args) => {
        if (this.#unfit) throw this.#unfit
        try {
          const answer = await store.append(keys, args)
          if (this.#refusal) this.#checkAfter(SOON_MS)
          return answer
        } catch (error) {
          if (refusalKind(error as Error)) this.#checkAfter(SOON_MS)
          throw error
        }
      },
      refused: error => {
        store.refused(error)
        this.#checkAfter(SOON_MS)
      }
    }
  }

  #checkAfter(ms: number): void {
    const { elapsed, requirements, unfit } = this.#options
    if (this.#isChecking || elapsed() - this.#checkedAt < ms) return
    this.#isChecking = true
    const answer = this.#isDoubted ? requirements.tryAll() : requirements.check()
    this.#isDoubted = false
    this.#take(answer)
      .catch(error => {
        // the next tick finds out what else it is
        if (error instanceof Unfit) unfit(error)
      })
      .finally(() => (this.#isChecking = false))
  }

  async #take(answer: Promise<Error | null>): Promise<void> {
    try {
      this.#refusal = await answer
      this.#unfit = null
      if (this.#refusal) this.#options.refused(this.#refusal)
    } catch (error) {
      if (error instanceof Unfit) this.#unfit = error
      throw error
    } finally {
      this.#checkedAt = this.#options.elapsed()
    }
  }
}
