import type { Position, StoredEvent } from '../../event.ts'
import { sealEvent, sealState, sealText, stateKey, type Positions } from './records.ts'
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

/** Takes an event out, from both places that it has. */
export function takeEvent(batch: Batch, { events, family }: Places, id: Position): void {
  batch.del(events.key(id))
  batch.del(family.key(id))
}

/** Puts a topic's state into a batch; null takes it out. */
export function putState(batch: Batch, topic: string, value: string | null, version: Position): void {
  const key = stateKey(topic)
  if (value === null) batch.del(key)
  else batch.put(key, sealState(key, { value, version }))
}
