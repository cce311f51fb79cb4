import type { AdviceId } from './advice.ts'

/** A check can't be made after all. The message says why. */
export class LeftOut extends Error {
  override name = 'LeftOut'
}

/** A check has found a fault on its way to what it looks for. */
export class Fault extends Error {
  override name = 'Fault'
  readonly advice: AdviceId

  constructor(message: string, advice: AdviceId) {
    super(message)
    this.advice = advice
  }
}
