import { comparePositions, type Cursor, type StoredEvent } from '../event.ts'

/** An event, and the cursor of whoever has received it. */
export interface Delivery {
  readonly event: StoredEvent
  readonly cursor: Cursor
}

/** Events in the order of their ids. */
export function inOrder(events: Iterable<StoredEvent>): StoredEvent[] {
  return [...events].sort((a, b) => comparePositions(a.id, b.id))
}

/** Events in the order in which they are given; each one's cursor says how far its reader has come from `start`. */
export function follow(start: Cursor, events: readonly StoredEvent[]): Delivery[] {
  let cursor = start
  return events.map(event => ({ event, cursor: (cursor = cursor.with(event.shard, event.id)) }))
}
