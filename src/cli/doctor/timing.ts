import type { AdviceId } from './advice.ts'
import { ok, wrong, type Outcome } from './check.ts'

/** An event: when it was there to be sent on, and when it came, in milliseconds of one clock; undefined for never. */
export interface Arrival {
  readonly storedAt: number
  readonly at: number | undefined
}

/**
 * What comes this much later than it was stored was kept back by somebody, in milliseconds. Whoever publishes hears of it by
 * the same way, so that the way itself doesn't count; HAProxy takes 200.
 */
const LATE_MS = 120

/** What comes within so many milliseconds has come together, where it was stored further apart than this. */
const TOGETHER_MS = 60
const APART_MS = 200

/**
 * Says whether events came one by one, as they were stored. These were stored apart, by much more than it takes them to
 * come; what holds up one or the other, such as a busy machine, is no fault.
 */
export function judge(arrivals: readonly Arrival[]): Outcome {
  const count = arrivals.length
  const came = arrivals.filter((each): each is Required<Arrival> & { at: number } => each.at !== undefined)
  if (came.length === 0) return fault(`none of ${count} events has come: they are held back`, 'buffering')
  const late = came.map(({ storedAt, at }) => at - storedAt)
  if (isOneBehind(arrivals)) return fault('each event comes when the next one is sent', 'compression')
  const lumps = lumpsOf(came)
  if (lumps < came.length)
    return fault(`${came.length} events came in ${lumps} ${lumps === 1 ? 'lump' : 'lumps'}`, 'buffering')
  if (came.length < count) return fault(`${came.length} of ${count} events came`, 'buffering')
  if (medianOf(late) > LATE_MS) return fault(`each event comes ${medianOf(late)} ms late`, 'delay')
  return ok(`${count} events came one by one, ${medianOf(late)} ms after they were stored`)
}

/** All but the last came after the next one was stored, and not long after; the last has not come at all. */
function isOneBehind(arrivals: readonly Arrival[]): boolean {
  return arrivals.every(({ storedAt, at }, index) => {
    const next = arrivals[index + 1]
    if (!next) return at === undefined
    return at !== undefined && at - storedAt > LATE_MS && Math.abs(at - next.storedAt) < LATE_MS
  })
}

function lumpsOf(came: readonly { readonly storedAt: number; readonly at: number }[]): number {
  return came.filter(({ storedAt, at }, index) => {
    const before = came[index - 1]
    // what a busy machine has stored together comes together as well
    return !before || storedAt - before.storedAt < APART_MS || Math.abs(at - before.at) > TOGETHER_MS
  }).length
}

function medianOf(numbers: readonly number[]): number {
  const inOrder = [...numbers].sort((a, b) => a - b)
  // who answers the publisher and who writes to the subscriber are not in step
  return Math.max(0, Math.round(inOrder[inOrder.length >> 1]!))
}

function fault(detail: string, advice: AdviceId): Outcome {
  return wrong(detail, advice)
}
