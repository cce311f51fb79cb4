import { feedOf, type Feed } from '../event.ts'
import type { RingMeasures } from '../metrics.ts'
import type { Watch } from './watch.ts'

/** By feed; `events` has the topics that belong to none. */
type Measured = Record<'events' | Feed, RingMeasures>

/**
 * What the rings of filters hold, by the feed of their topics. Times are milliseconds since the epoch; `ttl` is for how long
 * events are kept, in milliseconds.
 *
 * How far back the ring of a topic reaches is known where the topic is listened to by its name, and its ring is full. The
 * ring of a wildcard says nothing of it: it has the newest events of all its topics, and each topic has as many of its own.
 */
export function measureRings(watches: Iterable<Watch>, ttl: number, now: number): Measured {
  const measured: Measured = {
    events: none(ttl),
    tickers: none(ttl),
    dashboards: none(ttl),
    notifications: none(ttl)
  }
  for (const watch of watches) {
    const { filter, held, bytes, oldest, isFull } = watch
    const feed = feedOf(filter) ?? 'events'
    const before = measured[feed]
    const age = held > 0 ? Math.max(0, now - oldest) / 1000 : 0
    measured[feed] = {
      events: before.events + held,
      bytes: before.bytes + bytes,
      oldestAge: Math.max(before.oldestAge, age),
      reach: isFull ? Math.min(before.reach, age) : before.reach
    }
  }
  return measured
}

function none(ttl: number): RingMeasures {
  return { events: 0, bytes: 0, oldestAge: 0, reach: ttl / 1000 }
}
