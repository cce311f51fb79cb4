/** Whoever asks for something that may take a while. */
export interface Asker {
  /** Whether it has gone, so that nobody wants the answer any more. It never comes back. */
  readonly isGone: boolean
}

/** A question was given up because whoever asked has gone: nobody waits for this. */
export class Unwanted extends Error {
  override name = 'Unwanted'
}

/** Throws `Unwanted` where whoever asked has gone. Long work calls it whenever it goes on. */
export function stopIfGone(asker: Asker | undefined): void {
  if (asker?.isGone) throw new Unwanted('whoever asked has gone')
}
