import type { Page } from '../broker/event-log.ts'
import { covers, formatCursor, type Cursor, type Gap, type GapReason } from '../event.ts'
import type { Format } from '../wire/format.ts'
import type { Session } from './session.ts'
import type { Cleared } from './cleared.ts'
import { horizonOf, type StartHub } from './start.ts'

/** The most topics that a gap names one by one; past it, it names the filters. */
const NAMED_TOPICS = 100

/** What finding gaps needs of the hub. */
export interface GapsHub extends StartHub {
  /** Which topics an operator has cleared. */
  readonly cleared: Cleared
  /** A gap is told to so many sessions; to one, where this is not said. */
  noteGap(gap: Gap, transport: Format['transport'], count?: number): void
}

/** Whether something breaks the way from the session's cursor: the store began anew, or has forgotten events. */
export function isBroken({ log }: GapsHub, { progress }: Session): boolean {
  return isOfAnotherLife(log.birth, progress) || !progress.knowsLoss(log.lost)
}

/** What breaks the way from the session's cursor; it stands behind that from then on. */
export function takeBreaks(hub: GapsHub, session: Session): Gap[] {
  const { birth, lost } = hub.log
  const { progress } = session
  const { filters } = session.audience.kind
  const gaps: Gap[] = []
  if (isOfAnotherLife(birth, progress)) gaps.push(note(hub, session, 'unknown', filters))
  if (!covers(progress.cursor, birth)) progress.skipTo(birth)
  // whether any of the forgotten ones came after the session's cursor, nobody can tell
  if (!progress.knowsLoss(lost)) {
    gaps.push(note(hub, session, 'lost', filters))
    progress.lossAnnounced(lost)
  }
  return gaps
}

/** A cursor that is too old was answered with a gap before: whatever its life was, that covers it. */
function isOfAnotherLife(
  birth: Cursor,
  { cursor, isTooOld }: { cursor: Cursor; isTooOld: boolean }
): boolean {
  return !isTooOld && !covers(cursor, birth)
}

/** What of these pages is gone that the session is to hear of; its topics go on after that. */
export function takeLosses(hub: GapsHub, session: Session, pages: readonly Page[]): Gap | null {
  const { progress } = session
  const { filters } = session.audience.kind
  // who has waited that long may have missed what left no trace
  const tooOld = !progress.isTooOld && progress.reached.some(({ ms }) => ms < horizonOf(hub, filters))
  const lost: string[] = []
  let isCleared = false
  for (const { gaps } of pages) {
    for (const [topic, last] of gaps) {
      if (!progress.raiseFloor(topic, last)) continue
      lost.push(topic)
      isCleared ||= hub.cleared.covers(topic, last)
    }
  }
  // a cursor older than any ring was answered with a gap for all topics before
  const isAnswered = progress.isTooOld || session.audience.outlivesLosses
  progress.firstPageRead()
  if (isAnswered || (lost.length === 0 && !tooOld)) return null
  return note(hub, session, isCleared ? 'lost' : 'expired', tooOld ? filters : lost)
}

function note(hub: GapsHub, session: Session, reason: GapReason, topics: readonly string[]): Gap {
  const named = topics.length > NAMED_TOPICS ? session.audience.kind.filters : topics
  const gap: Gap = { reason, topics: named, after: formatCursor(session.cursor) }
  session.missed()
  hub.noteGap(gap, session.transport)
  return gap
}
