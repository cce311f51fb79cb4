import type { EventLog } from './event-log.ts'
import type { Roster } from './roster.ts'
import type { Tally } from './tally.ts'

/** What all instances of a hub share, on one store: its events, who is present, and what clients did. */
export interface Broker {
  readonly log: EventLog
  readonly roster: Roster
  readonly tally: Tally
  readonly health: Health
  /** Ends the hand-over and lets go of every resource. */
  close(): Promise<void>
}

/** What operators are told of the store, in words that anybody may read. */
export interface Health {
  /** Why the store can't be used; null where that is not known, or it can. */
  readonly unusable: string | null
  /** Why it stores nothing, although all else goes on; null while it does. */
  readonly unwritable: string | null
}
