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

/** A page as JSON text: `{"events":[…],"cursor","gap","more"}`, events as in the envelope, oldest first. */
export function page(
  events: readonly { event: StoredEvent; id: string }[],
  { cursor, gap, more, ended }: PageRest
): string {
  const list = events.map(({ event, id }) => envelope(event, id)).join(',')
  return `{"events":[${list}],${JSON.stringify({ cursor, gap, more, ...(ended && { ended }) }).slice(1)}`
}
