import type { EventLog } from './event-log.ts'
import type { Roster } from './roster.ts'
import type { Tally } from './tally.ts'

/** What all instances of a hub share, on one store: its events, who is present, and what clients did. */
export interface Broker {
  readonly log: EventLog
  readonly roster: Roster
  readonly tally: Tally
  /** Ends the hand-over and lets go of every resource. */
  close(): Promise<void>
}
