import { stopIfGone, type Asker } from '../asker.ts'
import type { EventLog } from '../broker/event-log.ts'
import type { Clock } from '../clock.ts'
import { comparePositions, covers, earlier, furthest, isWildcard, later, parseCursor } from '../event.ts'
import type { Cursor, Gap, GapReason, Position } from '../event.ts'
import type { Rules } from '../rules/rules.ts'
import { Turn } from '../turn.ts'
import type { Audience } from './audience.ts'
import type { SharedReads } from './shared-reads.ts'

/** How much of a cursor that nobody gave out is told back. */
const ECHO = 128

/** How long reading what was asked for may take before some of it runs out, in milliseconds. */
const READ_MS = 5000

/** How many topics are looked at before it is asked whether the turn is over. */
const STEP = 1000

/** Where a subscription wishes to start. */
export interface StartingPoint {
  /** The cursor to start after, as text. Where it is given, `rewind` and `since` count for nothing. */
  readonly after?: string | undefined
  /** First the last so many events of each topic. */
  readonly rewind?: number | undefined
  /** First everything since then, in milliseconds since the epoch. */
  readonly since?: number | undefined
}

/** Where a session starts. */
export interface Start {
  readonly cursor: Cursor
  /** What it is told before anything else: its own cursor could not be taken, or is too old. */
  readonly gap: Gap | null
  /** Whether it came with a cursor. */
  readonly resumes: boolean
  /** Whether its cursor is older than any ring. */
  readonly isTooOld: boolean
  /** With `rewind`: the position after which each topic starts. */
  readonly floors: Map<string, Position> | null
}

/** What finding a start needs of the hub. */
export interface StartHub {
  readonly log: EventLog
  readonly clock: Clock
  /** Everything up to here has been handed over in this process. */
  readonly position: Cursor
  readonly rules: Pick<Rules, 'longestOf' | 'over'>
  readonly reads: Pick<SharedReads, 'rewind'>
}

/** Finds where a subscription starts. Rejects with `BrokerUnavailable`, and with `Unwanted` once whoever asks has gone. */
export async function findStart(
  hub: StartHub,
  audience: Audience,
  { after, rewind, since }: StartingPoint,
  asker?: Asker
): Promise<Start> {
  const now = furthest(hub.position, hub.log.birth, ...audience.watches.map(watch => watch.base))
  if (after) return judge(hub, after, now, audience)
  if (rewind) return rewound(hub, audience, rewind, now, asker)
  return fresh(since === undefined ? now : timeAgo(hub, since, now, audience.kind.filters))
}

function fresh(cursor: Cursor, floors: Map<string, Position> | null = null): Start {
  return { cursor, floors, gap: null, resumes: false, isTooOld: false }
}

function resumed(cursor: Cursor, gap: Gap | null = null, isTooOld = false): Start {
  return { cursor, gap, isTooOld, resumes: true, floors: null }
}

/** What a client's cursor is worth. Only the broker may say that one is from the future. */
async function judge(hub: StartHub, after: string, now: Cursor, audience: Audience): Promise<Start> {
  const { log } = hub
  const { filters } = audience.kind
  const parsed = parseCursor(after, log.shards)
  const gap = (reason: GapReason): Gap => ({ reason, topics: filters, after: after.slice(0, ECHO) })
  if (!parsed || isTorn(parsed)) return resumed(now, gap('unknown'))
  const last = covers(now, parsed) ? now : furthest(now, await log.position())
  const cursor = mend(hub, parsed, last, filters)
  if (!covers(last, cursor)) return resumed(now, gap('unknown'))
  // whatever is found: what was there may have gone without a trace
  if (cursor.some(({ ms }) => ms < horizonOf(hub, filters))) {
    return resumed(cursor, audience.outlivesLosses ? null : gap('expired'), true)
  }
  return covers(cursor, log.birth) ? resumed(cursor) : resumed(now, gap('unknown'))
}

/** An id that was cut short with a connection reads as a time long ago: milliseconds have had 13 digits since 2001. */
function isTorn(cursor: Cursor): boolean {
  return cursor.every(({ ms }) => ms < 1e12)
}

/** What a cursor says wrongly of shards that none of the topics is in counts for nothing. */
function mend(hub: StartHub, cursor: Cursor, last: Cursor, filters: readonly string[]): Cursor {
  if (cursor.length === 1 || filters.some(isWildcard)) return cursor
  const { birth } = hub.log
  const shards = new Set(filters.map(filter => hub.log.shardOf(filter)))
  const horizon = horizonOf(hub, filters)
  const isSound = (position: Position, shard: number) =>
    position.ms >= horizon &&
    comparePositions(position, birth[shard]!) >= 0 &&
    comparePositions(position, last[shard]!) <= 0
  return cursor.map((position, shard) =>
    shards.has(shard) || isSound(position, shard) ? position : last[shard]!
  )
}

/** Starts before the earliest of the last events of each topic; what lies before each topic's own is passed over. */
async function rewound(
  hub: StartHub,
  { watches }: Audience,
  count: number,
  now: Cursor,
  asker: Asker | undefined
): Promise<Start> {
  const { log, reads } = hub
  const found = await Promise.all(watches.map(watch => reads.rewind(watch, count, asker)))
  // its own: others share what was found
  const floors = new Map<string, Position>()
  const cursor = [...now]
  const turn = new Turn()
  for (const starts of found) {
    for (const [topic, start] of starts) {
      const shard = log.shardOf(topic)
      cursor[shard] = earlier(cursor[shard]!, start)
      if (floors.set(topic, start).size % STEP !== 0 || !turn.isOver) continue
      await turn.next()
      stopIfGone(asker)
    }
  }
  return fresh(cursor, floors)
}

/** The position at a time, in milliseconds since the epoch; not before this life of the store, and not after now. */
function timeAgo(hub: StartHub, since: number, now: Cursor, filters: readonly string[]): Cursor {
  // who asks for all that is kept gets what will still be kept when it is read
  const oldest = horizonOf(hub, filters) + Math.min(hub.rules.longestOf(filters) / 100, READ_MS)
  const from = { ms: Math.max(since - 1, Math.ceil(oldest)), seq: 0 }
  return hub.log.birth.map((birth, shard) => earlier(later(birth, from), now[shard]!))
}

/**
 * The oldest that a cursor may be for some filters, in milliseconds since the epoch: as old as any of their topics' events.
 * What is gone of those whose events are kept for a shorter time, the log says: it remembers their last ids for longer.
 */
export function horizonOf(hub: StartHub, filters: readonly string[]): number {
  return timeOf(hub) - hub.rules.longestOf(filters)
}

/** What time it is, by our clock and the broker's: the later of both, in milliseconds since the epoch. */
export function timeOf({ clock, position }: Pick<StartHub, 'clock' | 'position'>): number {
  return Math.max(clock.now(), ...position.map(({ ms }) => ms))
}
