import { AggregatorRegistry, Registry, collectDefaultMetrics } from 'prom-client'
import { Memory } from './memory.ts'
import { HttpTimes } from './metrics/http.ts'
import { LimitGauges, type Limits } from './metrics/limits.ts'
import {
  BROKER_OPS,
  CLOSED,
  DENIALS,
  FAILURES,
  GAPS,
  LASTING,
  OUTCOMES,
  REFUSALS,
  REFUSED_OPS,
  REJECTED,
  REPLAYED_FROM,
  SOURCES,
  TRANSPORTS,
  WS_OPS,
  type BrokerOp,
  type Failure,
  type Rejection
} from './metrics/labels.ts'
import { Series } from './metrics/series.ts'
import { VitalGauges, type RingMeasures, type Vitals } from './metrics/vitals.ts'

export type { BrokerOp, Failure, Rejection, RingMeasures }

/** Buckets in seconds for what should take a fraction of a millisecond and may take seconds. */
const LATENCIES = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

/** Buckets in seconds for how long a connection lasts: a dropped one to a day. */
const LIFETIMES = [1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400]

/**
 * Every metric, on a registry of its own: nobody else names one. Counters end in `_total`, times are seconds, sizes
 * bytes; no label takes a value that clients choose. All are there from the start, with 0 for each value of their labels.
 */
export class Metrics {
  readonly registry = new Registry()
  readonly #series = new Series(this.registry)
  readonly connections = this.#series.levels('connections', 'Open connections of subscribers', {
    transport: TRANSPORTS
  })
  readonly connectionsOpened = this.#series.counts('connections_opened_total', 'Connections opened', {
    transport: TRANSPORTS
  })
  readonly connectionsClosed = this.#series.counts('connections_closed_total', 'Connections closed, by why', {
    transport: TRANSPORTS,
    reason: CLOSED
  })
  readonly connectionsRejected = this.#series.counts(
    'connections_rejected_total',
    'Connections refused, by why',
    { reason: REJECTED }
  )
  readonly connectionDuration = this.#series.times(
    'connection_duration_seconds',
    'How long connections lasted',
    LIFETIMES,
    { transport: TRANSPORTS }
  )
  readonly reconnects = this.#series.counts(
    'reconnects_total',
    'Streams and subscriptions opened with a cursor, such as Last-Event-ID',
    { transport: LASTING }
  )
  readonly eventsPublished = this.#series.counts('events_published_total', 'Events stored by this instance', {
    feed: SOURCES
  })
  readonly writesFailed = this.#series.counts(
    'writes_failed_total',
    'Writes that came to nothing, or are not known to have been stored (unavailable), by why',
    { reason: FAILURES }
  )
  readonly writesRejected = this.#series.counter(
    'writes_rejected_total',
    'Writes refused: past the rate of a client'
  )
  readonly readsRejected = this.#series.counter(
    'reads_rejected_total',
    'Reads refused: past the rate of a client'
  )
  readonly eventsDelivered = this.#series.counts('events_delivered_total', 'Events given to connections', {
    transport: TRANSPORTS
  })
  readonly bytesSent = this.#series.counts('bytes_sent_total', 'Bytes given to connections', {
    transport: TRANSPORTS
  })
  readonly delivery = this.#series.histogram(
    'delivery_seconds',
    "From the broker's time of an event to its write, once for each audience",
    LATENCIES
  )
  readonly resumes = this.#series.counts(
    'resumes_total',
    'Streams opened with a cursor, by what they began with',
    { outcome: OUTCOMES }
  )
  readonly replayedEvents = this.#series.counts(
    'replayed_events_total',
    'Events delivered that were missed before',
    { source: REPLAYED_FROM }
  )
  readonly gaps = this.#series.counts('gaps_total', 'Gaps announced', { reason: GAPS })
  readonly lagging = this.#series.gauge(
    'lagging_connections',
    'Connections that read too slowly to be fed live'
  )
  readonly topics = this.#series.gauge('topics', 'Topics and wildcards with a subscriber here')
  readonly brokerUp = this.#series.gauge('broker_up', 'Whether the broker answers', { aggregator: 'min' })
  readonly brokerRecoveries = this.#series.counter('broker_recoveries_total', 'Times the broker came back')
  readonly brokerSeconds = this.#series.times('broker_seconds', 'How long the broker took', LATENCIES, {
    op: BROKER_OPS
  })
  readonly brokerRefusals = this.#series.counts(
    'broker_refusals_total',
    'What the broker answered and refused, by what it was asked for and why (full, denied, other)',
    { op: REFUSED_OPS, kind: REFUSALS }
  )
  readonly storeFlushSeconds = this.#series.histogram(
    'store_flush_seconds',
    'How long the store on disk took to flush what was stored',
    LATENCIES
  )
  readonly authFailures = this.#series.counts(
    'auth_failures_total',
    'Requests that were not allowed, by why',
    {
      reason: DENIALS
    }
  )
  readonly wsMessages = this.#series.counts(
    'ws_messages_total',
    'Messages of WebSocket clients, by what they ask for',
    { op: WS_OPS }
  )
  readonly http = new HttpTimes(this.registry)
  readonly #limits = new LimitGauges(this.#series)
  readonly #vitals: VitalGauges

  /** `memory`: what its gauges say when they are asked. `worker`: which of the workers this is, from 0. */
  constructor(
    version: string,
    memory: Pick<Memory, 'held' | 'limit' | 'limitOf'> = new Memory(Infinity),
    worker = 0
  ) {
    this.#vitals = new VitalGauges(this.#series, memory, worker)
    this.#series
      .labelled('build_info', 'What runs', ['version', 'node'], { aggregator: 'first' })
      .set({ version, node: process.version }, 1)
    collectDefaultMetrics({ register: this.registry })
  }

  /** Who is asked for gauges that nobody sets, from now on and besides those of before. */
  watch(vitals: Partial<Vitals>): void {
    this.#vitals.watch(vitals)
  }

  /** Says what limits are. */
  limit(limits: Partial<Limits>): void {
    this.#limits.set(limits)
  }

  /** How often what was refused so far: what was refused to whom (`what`), and why. */
  async refused(): Promise<{ what: string; reason: string; count: number }[]> {
    const reads = await this.readsRejected.get()
    const writes = await this.writesFailed.get()
    // who may not write is told of by what is said of access
    const failed = writes.values.filter(({ labels }) => !NO_REFUSALS.has(String(labels['reason'])))
    return [
      ...byReason('connection', (await this.connectionsRejected.get()).values),
      ...byReason('access', (await this.authFailures.get()).values),
      ...byReason('write', failed),
      ...reads.values.map(({ value }) => ({ what: 'read', reason: 'rate', count: value }))
    ]
  }

  /** The counters and histograms alone: cheap, because no gauge looks at the process for it. */
  counts(): Promise<Measured> {
    const counts = this.registry.getMetricsAsArray().filter(isCount)
    return Promise.all(counts.map(({ name }) => this.registry.getSingleMetric(name)!.get()))
  }
}

/** Writes that failed for what was wrong with them, or for who has sent them. */
const NO_REFUSALS: ReadonlySet<string> = new Set<Failure>([
  'malformed',
  'unsupported',
  'not_found',
  'conflict',
  'unauthorized',
  'forbidden'
])

function byReason(
  what: string,
  values: readonly { value: number; labels: Readonly<Record<string, unknown>> }[]
) {
  return values.map(({ labels, value }) => ({ what, reason: String(labels['reason']), count: value }))
}

/** What one of several workers has measured, as it can be sent to another process. */
export type Measured = Awaited<ReturnType<Registry['getMetricsAsJSON']>>

/** What several workers have measured together, in the text exposition format. */
export function together(measured: readonly Measured[]): Promise<string> {
  return AggregatorRegistry.aggregate([...measured]).metrics()
}

/** The sum of what several workers have measured, in the form in which each of them tells it. */
export function sum(measured: readonly Measured[]): Promise<Measured> {
  return AggregatorRegistry.aggregate([...measured]).getMetricsAsJSON()
}

/** What stays true of a worker that is gone: its counters and histograms. A gauge says how something is now. */
export function countsOf(measured: Measured): Measured {
  return measured.filter(isCount)
}

/** The package declares an enum of numbers; what it has is the word. */
function isCount({ type }: Pick<Measured[number], 'type'>): boolean {
  return String(type) !== 'gauge'
}
