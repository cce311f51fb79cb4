import { comparePositions } from '../../event.ts'
import type { Position } from '../../event.ts'
import type { Life } from './life.ts'

/**
 * An event that is known to have been stored. Where it is missing later, another primary leads than the one that took
 * it: the history of the shard has forked, and events that this instance knows of are lost.
 */
export interface Checkpoint {
  readonly topic: string
  readonly id: Position
}

/** What one call verifies. */
export interface Verification {
  /** The checkpoints that the call stands for. */
  readonly checkpoints: readonly Checkpoint[]
  /** Those of them that the call looks for in the store: their rings can't have run out. */
  readonly asked: readonly Checkpoint[]
}

/**
 * What this instance has stored, as far as it takes to find a fork. Each call that stores events makes a checkpoint of
 * its last one. It stays until a later call has verified it; and the latest one that was verified stays for good, since
 * a primary that has it has all that was stored before it.
 */
export class Checkpoints {
  readonly #life: Pick<Life, 'includes' | 'isYoung'>
  #all: readonly Checkpoint[] = []
  /** The latest one that a call stood for. */
  #verified: Checkpoint | null = null
  #isVerifying = false

  constructor(life: Pick<Life, 'includes' | 'isYoung'>) {
    this.#life = life
  }

  /** Those of this life of the store: what came before it is not to be found in it. */
  current(): readonly Checkpoint[] {
    return this.#all.filter(({ id }) => this.#life.includes(id))
  }

  /** Whether there are some that no call has verified yet. */
  get isVerificationDue(): boolean {
    return this.#all.some(
      checkpoint =>
        checkpoint !== this.#verified &&
        this.#life.includes(checkpoint.id) &&
        this.#life.isYoung(checkpoint.id)
    )
  }

  /**
   * What a call is to verify. It is nothing while another call verifies: however many calls wait for their answers, one
   * at a time does. `end` must follow.
   */
  begin(): Verification {
    const checkpoints = this.#isVerifying ? [] : this.current()
    const asked = checkpoints.filter(({ id }) => this.#life.isYoung(id))
    if (asked.length > 0) this.#isVerifying = true
    return { checkpoints, asked }
  }

  /** The call was answered, whether it has found a fork or not; `made` is the checkpoint that it made, if any. */
  verified({ checkpoints }: Pick<Verification, 'checkpoints'>, made: Checkpoint | null): void {
    const others = this.current().filter(checkpoint => !checkpoints.includes(checkpoint))
    const candidates = made ? [...checkpoints, made] : checkpoints
    const latest = [...candidates].sort((a, b) => comparePositions(a.id, b.id)).at(-1)
    if (latest && latest !== made) this.#verified = latest
    this.#all = latest ? [...others, latest] : others
  }

  /** The call has ended, with an answer or without one. */
  end({ asked }: Verification): void {
    if (asked.length > 0) this.#isVerifying = false
  }
}
