import type { EventLog } from '../broker/event-log.ts'
import { comparePositions, type Cursor } from '../event.ts'
import type { Watch } from './watch.ts'

/** What finding out whether topics have ended needs of the hub. */
export interface EndsHub {
  readonly log: Pick<EventLog, 'birth' | 'lost'>
}

/** Whether nothing comes any more for who has come so far: all of these filters are topics, and ended by then. */
export function isOver({ log }: EndsHub, watches: readonly Watch[], cursor: Cursor): boolean {
  return watches.every(({ topicEnd: end, shard }) => {
    if (!end || comparePositions(end, cursor[shard]!) > 0) return false
    // of what the store has lost, an end may have been a part
    return [log.birth, log.lost].every(gone => comparePositions(end, gone[shard]!) > 0)
  })
}
