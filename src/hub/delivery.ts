import { comparePositions, formatCursor, type Cursor, type StoredEvent } from '../event.ts'
import type { Format } from '../wire/format.ts'

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

/** An event's frame. With one shard its id is everybody's cursor, so that it is made once and kept with the event. */
export function eventFrame(format: Format, event: StoredEvent, cursor: Cursor): Buffer {
  if (cursor.length > 1) return format.event(event, formatCursor(cursor))
  let encoding = event.encodings
  while (encoding && encoding.format !== format) encoding = encoding.next
  if (encoding) return encoding.frame
  const frame = format.event(event, formatCursor(cursor))
  event.encodings = { format, frame, next: event.encodings }
  return frame
}
