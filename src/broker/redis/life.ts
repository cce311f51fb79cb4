import { comparePositions, later, parsePosition } from '../../event.ts'
import type { Position } from '../../event.ts'

/** The position before every event. */
export const ZERO: Position = { ms: 0, seq: 0 }

export interface LifeOptions {
  /** For how long events can be read, in milliseconds. */
  readonly ringTtl: number
  /** Is told the birth whenever an answer names it, also when it is the one of before. */
  readonly onBirth: (birth: string) => void
  /** Milliseconds of a clock of ours that never steps. */
  readonly elapsed?: () => number
}

/**
 * What is known of the store of one shard, by its answers: where its life began, what it has lost since, and what its
 * clock says. A store that was emptied begins a new life, with a new birth.
 */
export class Life {
  readonly #options: LifeOptions
  #birth: Position = ZERO
  #lost: Position = ZERO
  /** The store's clock less ours, as of the last answer, in milliseconds. */
  #offset: number | null = null

  constructor(options: LifeOptions) {
    this.#options = options
  }

  /** Where this life began: an event before it belongs to another life. */
  get birth(): Position {
    return this.#birth
  }

  /** Up to where this life has lost events that it had stored. */
  get lost(): Position {
    return this.#lost
  }

  /** Takes the birth and the losses as an answer has them; '' where it has none. */
  note(birth: string, lost: string): void {
    this.#birth = parsePosition(birth) ?? this.#birth
    this.#lost = parsePosition(lost) ?? ZERO
    if (birth !== '') this.#options.onBirth(birth)
  }

  /** Takes a loss that was announced. */
  noteLoss(upTo: Position): void {
    this.#lost = later(this.#lost, upTo)
  }

  /** Takes what the store's clock said just now: milliseconds since the epoch, as a position. */
  noteClock(time: string): void {
    this.#offset = parsePosition(time)!.ms - this.elapsed()
  }

  /** Milliseconds of our own clock, which never steps. */
  elapsed(): number {
    return this.#options.elapsed ? this.#options.elapsed() : performance.now()
  }

  /** What the store's clock says when ours says `elapsed`, in milliseconds since the epoch; null before any answer. */
  storeTime(elapsed: number): number | null {
    return this.#offset === null ? null : elapsed + this.#offset
  }

  /** What the store's clock says now, in milliseconds since the epoch; null before any answer. */
  now(): number | null {
    return this.storeTime(this.elapsed())
  }

  /** Whether an event belongs to this life. What an earlier life has stored is not to be found in this one. */
  includes(id: Position): boolean {
    return comparePositions(id, this.#birth) > 0
  }

  /** Whether the ring of an event's topic must still be there: it may only have been trimmed. */
  isYoung({ ms }: Position): boolean {
    return ms > (this.now() ?? 0) - this.#options.ringTtl / 2
  }
}
