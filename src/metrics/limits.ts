import type { Gauge } from 'prom-client'
import { RATES, SIZES } from './labels.ts'
import { bounded, setOrRemove, type Series } from './series.ts'

/** What turns clients away. Infinity, or 0, is no limit: of that there is no gauge. */
export interface Limits {
  readonly connections: number
  readonly sockets: number
  /** The connections of one client. */
  readonly clientConnections: number
  /** What one client may do a second. */
  readonly rates: Readonly<Record<(typeof RATES)[number], number>>
  /** How many bytes one client may write a second. */
  readonly writeBytes: number
  /** The largest of each, in bytes. */
  readonly sizes: Readonly<Record<(typeof SIZES)[number], number>>
  /** Topics of one subscription. */
  readonly topics: number
}

/** The gauges of the limits. Those of an instance are sums over its workers, those of a client are each worker's own. */
export class LimitGauges {
  readonly #plain: Readonly<
    Record<'connections' | 'sockets' | 'clientConnections' | 'writeBytes' | 'topics', Gauge>
  >
  readonly #rates: Gauge
  readonly #sizes: Gauge

  constructor(series: Series) {
    const first = { aggregator: 'first' } as const
    this.#plain = {
      connections: series.gauge('connections_limit', 'The most connections of subscribers'),
      sockets: series.gauge('sockets_limit', 'The most sockets'),
      clientConnections: series.gauge(
        'client_connections_limit',
        'The most connections of one client',
        first
      ),
      writeBytes: series.gauge('client_write_limit_bytes', 'What one client may write a second', first),
      topics: series.gauge('subscription_topics_limit', 'The most topics of one subscription', first)
    }
    this.#rates = series.labelled('client_rate_limit', 'What one client may do a second', ['of'], first)
    this.#sizes = series.labelled('size_limit_bytes', 'The largest of what is sent', ['of'], first)
    // until it is said what they are, there are none
    for (const gauge of Object.values(this.#plain)) gauge.remove()
  }

  /** Says what limits are; those that are not given stay as they were. */
  set({ rates, sizes, ...plain }: Partial<Limits>): void {
    for (const [name, limit] of Object.entries(plain))
      setOrRemove(this.#plain[name as keyof typeof plain], bounded(limit))
    if (rates) for (const of of RATES) if (bounded(rates[of])) this.#rates.set({ of }, rates[of])
    if (sizes) for (const of of SIZES) if (bounded(sizes[of])) this.#sizes.set({ of }, sizes[of])
  }
}
