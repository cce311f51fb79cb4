import type { AdviceId } from './advice.ts'
import type { Way } from './way.ts'

/** What has become of a check. */
export interface Outcome {
  /** `skipped`: it can't be made, which is no failure. */
  readonly outcome: 'ok' | 'wrong' | 'skipped'
  /** What was found, or why it was skipped, for whoever runs the doctor. */
  readonly detail: string
  /** What to change where something is wrong, as far as it is known. */
  readonly advice?: AdviceId
}

/** What a check can't do without. */
export type Need = 'read' | 'publish' | 'HTTP/2'

/** One thing that is looked at. */
export interface Check {
  readonly name: string
  readonly needs: readonly Need[]
  /** It measures times; or it would disturb those that do, and begins when they are done. */
  readonly kind?: 'timed' | 'heavy'
  /** How long it takes because it is meant to, in milliseconds; default: 0. */
  readonly lasts?: number
  /** What it rejects with is wrong as well; with `LeftOut`, it is skipped. */
  run(way: Way): Promise<Outcome>
}

/** A check and its outcome. */
export interface Finding extends Outcome {
  readonly check: string
}

export function ok(detail: string): Outcome {
  return { outcome: 'ok', detail }
}

export function wrong(detail: string, advice?: AdviceId): Outcome {
  return { outcome: 'wrong', detail, ...(advice && { advice }) }
}

export function skipped(detail: string): Outcome {
  return { outcome: 'skipped', detail }
}
