import type { Clock } from '../clock.ts'
import type { Session } from './session.ts'

/** How long the rate keeps a conflated session waiting, in milliseconds; never longer, also when the clock was set back. */
export function pauseOf(clock: Clock, { audience, progress }: Session): number {
  const { rate } = audience.kind
  const left = progress.pacedUntil - clock.now()
  return rate !== undefined && left > 0 && left <= 1000 / rate ? left : 0
}

/** Whether the next write of the session's audience comes no sooner than the session's own rate allows. */
export function mayJoin(clock: Clock, session: Session): boolean {
  const { audience, progress } = session
  return !audience.isLive || pauseOf(clock, session) === 0 || audience.nextWrite >= progress.pacedUntil
}

/** A conflated session was written to: the next time comes as its rate says, also for its audience if nobody is live. */
export function pace(clock: Clock, { audience, progress }: Session): void {
  const { rate } = audience.kind
  if (rate === undefined) return
  progress.paceUntil(clock.now() + 1000 / rate)
  if (!audience.isLive) audience.pace(rate)
}
