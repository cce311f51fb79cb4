import type { Position, StoredEvent } from '../../event.ts'

/** Some events after a position, of a log with one shard. See `Page`. */
export interface Found {
  readonly events: StoredEvent[]
  /** Where the page was cut; null where it holds all that there is. */
  readonly end: Position | null
  readonly gaps: Map<string, Position>
}
