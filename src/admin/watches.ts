import { isOperators } from '../event.ts'
import type { Watch } from '../hub/watch.ts'
import { Turn } from '../turn.ts'

/** Over how long events are counted to say how many come a second, in milliseconds. */
const RATE_MS = 10_000

/** A topic or wildcard that somebody listens to. Times are milliseconds since the epoch. */
export interface TopicRow {
  readonly topic: string
  /** Streams and subscriptions. */
  readonly subscribers: number
  /** Events a second, over the last ten seconds. */
  readonly rate: number
  /** What is held of it for who resumes: how many events, their bytes of memory, and when the oldest was stored. */
  readonly events: number
  readonly bytes: number
  readonly oldest: number | null
  /** The newest of them. */
  readonly last: { readonly topic: string; readonly type: string; readonly time: number } | null
}

/** The busiest topics of an instance, and how many there are. */
export interface TopicPart {
  readonly rows: readonly TopicRow[]
  readonly total: number
}

/** The busiest of what is listened to; `now` in milliseconds since the epoch. What is ephemeral has no ring to tell by. */
export async function busiest(watches: Iterable<Watch>, limit: number, now: number): Promise<TopicPart> {
  const turn = new Turn()
  const rows = await turn.map(watches, watch => rowOf(watch, now))
  const others = rows.filter(({ topic }) => !isOperators(topic))
  const sorted = await turn.sort(others, byRate)
  return { rows: sorted.slice(0, limit), total: others.length }
}

/** What several instances say of the same topics, together. Each of them holds a ring of its own. */
export function together(rows: readonly TopicRow[]): TopicRow[] {
  const topics = new Map<string, TopicRow>()
  for (const row of rows) {
    const known = topics.get(row.topic)
    topics.set(row.topic, known ? joined(known, row) : row)
  }
  return [...topics.values()].sort(byRate)
}

function byRate(a: TopicRow, b: TopicRow): number {
  return b.rate - a.rate || b.subscribers - a.subscribers || (a.topic < b.topic ? -1 : 1)
}

function joined(a: TopicRow, b: TopicRow): TopicRow {
  const fuller = b.events > a.events ? b : a
  const newer = (b.last?.time ?? 0) > (a.last?.time ?? 0) ? b : a
  return {
    ...fuller,
    subscribers: a.subscribers + b.subscribers,
    rate: Math.max(a.rate, b.rate),
    last: newer.last
  }
}

function rowOf(watch: Watch, now: number): TopicRow {
  const { filter, subscribers, held, bytes, oldest, last } = watch
  return {
    ...{ topic: filter, subscribers, events: held, bytes },
    rate: rateOf(watch, now),
    oldest: held > 0 ? oldest : null,
    last: last ? { topic: last.topic, type: last.type, time: last.id.ms } : null
  }
}

/** A ring that has filled in a shorter time says how many came in that. */
function rateOf(watch: Watch, now: number): number {
  const count = watch.heldSince(now - RATE_MS)
  const isShort = count === watch.held && watch.isFull
  const ms = isShort ? Math.max(1, now - watch.oldest) : RATE_MS
  return Math.round((count * 10_000) / ms) / 10
}
