import { comparePositions, earlier, isWildcard, later } from '../../event.ts'
import type { Cursor, Position, StoredEvent } from '../../event.ts'
import type { Page } from '../event-log.ts'
import type { ShardReads, ShardRange, TopicRange } from './reads.ts'

/** How many topics of a wildcard are read in one call. */
const TOPICS_A_CALL = 100

/** The fewest events of each topic of a wildcard that are read in one call. */
const LEAST_EACH = 8

/** Beyond every position: where a filter has no topics, its events are complete up to anywhere. */
const FAR: Position = { ms: Number.MAX_SAFE_INTEGER, seq: 0 }

/** What was read of one shard. */
export interface ShardRead {
  readonly shard: number
  readonly range: ShardRange
  /** Where the store's life began, as of then. */
  readonly birth: Position
  /** What the store's clock said, in milliseconds since the epoch: what ran out before is passed over. */
  readonly now: number
}

/** ShardReads what one shard holds of the topics under a wildcard, after a position and at most `limit` events of each. */
export async function rangeOfMany(
  reads: Pick<ShardReads, 'changed' | 'range'>,
  wildcard: string,
  after: Position,
  limit: number
): Promise<ShardRange> {
  const { through, topics } = await reads.changed(wildcard, after)
  // of many topics a few events each: where one has more, the page ends
  const each = Math.min(limit, Math.max(LEAST_EACH, Math.ceil((2 * limit) / topics.length)))
  const found: TopicRange[] = []
  for (let from = 0; from < topics.length; from += TOPICS_A_CALL) {
    const some = topics.slice(from, from + TOPICS_A_CALL)
    found.push(...(await reads.range(some, after, each)).topics)
  }
  // nor does it go beyond `through`: a topic that was born since the look-up was not read
  const ends = found.map(({ events }) => completeTo(events, each))
  return { through: ends.reduce(earlier, through), topics: found }
}

/** The newest event of each topic of a filter, where it comes after a position. */
export async function newestOfMany(
  reads: Pick<ShardReads, 'changed' | 'lastEvents' | 'lastId'>,
  filter: string,
  after: Position
): Promise<ShardRange> {
  const { through, topics } = isWildcard(filter)
    ? await reads.changed(filter, after)
    : { through: await reads.lastId(), topics: [filter] }
  const found = topics.map(async topic => {
    const events = await reads.lastEvents(topic, 1)
    return { topic, last: null, events: events.filter(({ id }) => comparePositions(id, after) > 0) }
  })
  // what has changed since the look-up comes after `through`, and with the next page
  return { through, topics: await Promise.all(found) }
}

/** One page of what was read after a cursor; `only`: the one shard that all topics of the filter are in. */
export function pageOf(reads: readonly ShardRead[], after: Cursor, limit: number, only?: number): Page {
  const gaps = new Map<string, Position>()
  const events: StoredEvent[] = []
  const end = after.map((position, shard) => (only === undefined || only === shard ? position : FAR))
  for (const { shard, range, birth, now } of reads) {
    const from = after[shard]!
    // the store began anew since: whoever reads on must be told so
    if (comparePositions(birth, from) > 0) continue
    for (const topic of range.topics) {
      const loss = lossAfter(from, topic)
      if (loss) gaps.set(topic.topic, loss)
    }
    const { kept, through } = firstOf(range, limit)
    events.push(...kept.filter(({ expires = Infinity }) => expires > now))
    end[shard] = later(from, through)
  }
  return { events, end, gaps }
}

/** The last event of a topic that is gone although it came after a cursor; null when none is. */
function lossAfter(after: Position, { events: [first], last }: TopicRange): Position | null {
  const reached = first ? first.prev : last
  return reached && comparePositions(reached, after) > 0 ? reached : null
}

/** The oldest events of some topics, and up to where they are all. */
function firstOf({ topics, through }: ShardRange, limit: number) {
  const all = topics.flatMap(({ events }) => events).filter(({ id }) => comparePositions(id, through) <= 0)
  if (topics.length > 1) all.sort((a, b) => comparePositions(a.id, b.id))
  const kept = all.slice(0, limit)
  // as many as were asked for may not be all
  return { kept, through: kept.length < limit ? through : kept.at(-1)!.id }
}

/** Up to where a list that was asked for so many events is all of them. */
function completeTo(events: readonly StoredEvent[], asked: number): Position {
  return events.length < asked ? FAR : events.at(-1)!.id
}
