import type { Append, Appended, Broker } from './broker/broker.ts'
import type { Metrics } from './metrics.ts'

/** Which part of the server an event came through, as the metrics label it. */
export type Feed = 'events' | 'demo'

/** The one way in: hands events to the broker, and counts and times it. */
export class Publisher {
  readonly #broker: Broker
  readonly #metrics: Metrics

  constructor(broker: Broker, metrics: Metrics) {
    this.#broker = broker
    this.#metrics = metrics
  }

  /** Resolves once all are stored, with what became of each, in order. Rejects with `BrokerUnavailable`. */
  async publish(events: readonly Append[], feed: Feed): Promise<Appended[]> {
    const end = this.#metrics.brokerSeconds.startTimer({ op: 'append' })
    try {
      const appended = await this.#broker.append(events)
      const stored = appended.filter(({ outcome }) => outcome === 'stored').length
      this.#metrics.eventsPublished.inc({ feed }, stored)
      return appended
    } finally {
      end()
    }
  }
}
