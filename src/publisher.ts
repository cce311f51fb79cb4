import type { Append, Appended, EventLog } from './broker/event-log.ts'
import type { Cursor } from './event.ts'
import type { Metrics } from './metrics.ts'
import { Problem } from './problem.ts'

/** Which part of the server an event came through, as the metrics label it. */
export type Source = 'events' | 'tickers' | 'dashboards' | 'notifications' | 'demo'

/** The one way in: hands events to the log, and counts and times it. */
export class Publisher {
  readonly #log: EventLog
  readonly #metrics: Metrics

  constructor(log: EventLog, metrics: Metrics) {
    this.#log = log
    this.#metrics = metrics
  }

  /**
   * Resolves once all are stored, with what became of each, in order. Rejects with `BrokerUnavailable`, and with a
   * `Problem` when a key was used before for another event.
   */
  async publish(events: readonly Append[], source: Source): Promise<Appended[]> {
    const started = performance.now()
    try {
      const appended = await this.#log.append(events)
      const reused = appended.findIndex(({ outcome }) => outcome === 'key reused')
      if (reused >= 0) throw keyReused(events.length > 1 ? ` (item ${reused})` : '')
      const stored = appended.filter(({ outcome }) => outcome === 'stored').length
      this.#metrics.eventsPublished.inc({ feed: source }, stored)
      return appended
    } finally {
      this.#metrics.brokerSeconds.observe({ op: 'append' }, (performance.now() - started) / 1000)
    }
  }
}

/** The id of an event that was stored, now or before. */
export function idOf(appended: Appended): Cursor {
  if ('id' in appended) return appended.id
  throw new Error(`an event was not stored: ${appended.outcome}`)
}

function keyReused(which: string): Problem {
  const message = `was used before for another event${which}`
  return new Problem('refused', `Idempotency-Key: ${message}`, [{ path: 'Idempotency-Key', message }])
}
