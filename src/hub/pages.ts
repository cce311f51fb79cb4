import type { Page } from '../broker/event-log.ts'
import { comparePositions, covers, earlier, furthest } from '../event.ts'
import type { Cursor, Gap, StoredEvent } from '../event.ts'
import { takeLosses, type GapsHub } from './gaps.ts'
import type { Session } from './session.ts'
import { PAGE, type SharedReads } from './shared-reads.ts'
import { timeOf } from './start.ts'
import type { Watch } from './watch.ts'

/** What of some pages a session is to get. */
export interface Taken {
  readonly events: readonly StoredEvent[]
  /** Up to here all of the pages are complete, and its audience has come. */
  readonly bound: Cursor
  /** What it is told first. */
  readonly gap: Gap | null
}

/**
 * How far its audience must have come before a session may read on: as far as the session, and as every filter's base.
 * Before that no announcement tells.
 */
export function neededBy({ progress, watches }: Session): Cursor {
  return furthest(progress.reached, ...watches.map(watch => watch.base))
}

/** Whether it has read all that its audience has come past. */
export function isCaughtUp({ audience, progress }: Session): boolean {
  return covers(progress.reached, audience.cursor)
}

/** The filters whose rings don't hold everything that it has not read; what is too old to be read leaves them first. */
export function coldOf(hub: GapsHub, { progress, watches }: Session): Watch[] {
  const now = timeOf(hub)
  for (const watch of watches) watch.dropBefore(now - hub.rules.over(watch.filter).shortest)
  return watches.filter(watch => !watch.holdsAfter(progress.reached))
}

/** A page of each filter from its rings, which must hold it. */
export function heldPages({ position }: GapsHub, watches: readonly Watch[], reached: Cursor): Page[] {
  return watches.map(watch => watch.after(reached, PAGE, position))
}

/** Of each filter a page of its topics' newest events: for who wishes no others. Rejects with `BrokerUnavailable`. */
export function readNewest(reads: SharedReads, session: Session): Promise<Page[]> {
  const { progress, watches } = session
  return Promise.all(watches.map(watch => reads.newest(watch, progress.reached, session)))
}

/** A page of each filter: from the broker for those that are cold. Rejects with `BrokerUnavailable`. */
export async function readPages(
  hub: GapsHub,
  reads: SharedReads,
  session: Session,
  cold: readonly Watch[]
): Promise<Page[]> {
  const { watches } = session
  const { reached } = session.progress
  const read = await Promise.all(cold.map(watch => reads.range(watch, reached, session)))
  const isCold = new Set(cold)
  const warm = watches.filter(watch => !isCold.has(watch))
  // unless a ring has moved on meanwhile: then nothing is complete, and all is read again
  if (warm.every(watch => watch.holdsAfter(reached))) return [...read, ...heldPages(hub, warm, reached)]
  return [{ events: [], end: reached, gaps: new Map() }]
}

/** What of these pages, read from where it has come, a session is to get. */
export function takePages(hub: GapsHub, session: Session, pages: readonly Page[]): Taken {
  const { audience, progress } = session
  const bound = pages.reduce<Cursor>(
    (least, { end }) => least.map((position, shard) => earlier(position, end[shard]!)),
    audience.cursor
  )
  const now = hub.clock.now()
  const gap = takeLosses(hub, session, pages)
  const events = merge(pages).filter(
    ({ id, shard, topic, expires = Infinity }) =>
      expires > now &&
      comparePositions(id, progress.floorOf(topic, shard)) > 0 &&
      comparePositions(id, bound[shard]!) <= 0
  )
  return { events, bound, gap }
}

/** The events of all pages in the order of their ids, each once. */
function merge(pages: readonly Page[]): readonly StoredEvent[] {
  if (pages.length === 1 && pages[0]!.end.length === 1) return pages[0]!.events
  return pages
    .flatMap(page => page.events)
    .sort((a, b) => comparePositions(a.id, b.id) || a.shard - b.shard)
    .filter((event, index, all) => index === 0 || !isSame(event, all[index - 1]!))
}

function isSame(a: StoredEvent, b: StoredEvent): boolean {
  return a.shard === b.shard && comparePositions(a.id, b.id) === 0
}
