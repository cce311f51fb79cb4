import type { StoredEvent } from '../../event.ts'
import { sealEvent, sealText, type Positions } from './records.ts'
import type { Batch } from './store.ts'

/** What an event takes besides its value, in bytes: its two keys, but for the topic's name, and its place in its family. */
const EVENT_OVERHEAD = 50

/** Where the events of a topic lie, and their places in the order of its family. */
export interface Places {
  readonly events: Positions
  readonly family: Positions
}

/** Puts an event into a batch, in both places that it has. Returns about how many bytes it takes in the store. */
export function putEvent(batch: Batch, { events, family }: Places, event: StoredEvent): number {
  const { id, topic } = event
  const key = events.key(id)
  const value = sealEvent(key, event)
  batch.put(key, value)
  const place = family.key(id)
  batch.put(place, sealText(place, topic.slice(topic.lastIndexOf('/') + 1)))
  return value.length + 2 * key.length + EVENT_OVERHEAD
}
