import type { Gap, StoredEvent } from '../event.ts'
import { envelope, type Format } from './format.ts'

const NOTHING = Buffer.alloc(0)
const SOMETHING = Buffer.from('.')

/** Wakes a client that polls: what has come it reads from the rings. */
export const wakeUp: Format = {
  key: 'poll',
  transport: 'poll',
  delivers: false,
  open: () => NOTHING,
  event: () => SOMETHING,
  snapshot: () => SOMETHING,
  gap: () => SOMETHING,
  note: () => SOMETHING,
  keepAlive: () => NOTHING,
  heartbeat: () => NOTHING,
  stale: () => NOTHING,
  fresh: () => NOTHING,
  goodbye: () => SOMETHING
}

/** What a page says besides its events. */
export interface PageRest {
  readonly cursor: string
  readonly gap: Gap | null
  readonly more: boolean
  /** Said only where it is so. */
  readonly ended: boolean
}

/**
 * A page as JSON text: `{"events":[…],"cursor","gap","more"}`, events as in the envelope, oldest first. Put together in one
 * step: a page may be large, and each text on the way to it would be as large.
 */
export function page(
  events: readonly { event: StoredEvent; id: string }[],
  { cursor, gap, more, ended }: PageRest
): string {
  const rest = JSON.stringify({ cursor, gap, more, ...(ended && { ended }) }).slice(1)
  const parts = ['{"events":[']
  for (const { event, id } of events) {
    if (parts.length > 1) parts.push(',')
    parts.push(envelope(event, id))
  }
  parts.push('],', rest)
  return parts.join('')
}
