import { AggregatorRegistry, Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client'
import type { Aggregator } from 'prom-client'
import { Memory, MEMORY_KINDS } from './memory.ts'

/** Buckets in seconds for what should take a fraction of a millisecond and may take seconds. */
const LATENCIES = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

/** Buckets in seconds for how long a connection lasts: a dropped one to a day. */
const LIFETIMES = [1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400]

/** What there is to say of a store on disk: its size in bytes, and the age of its oldest event in seconds. */
export interface StoreMeasures {
  readonly bytes: number
  readonly oldestAge: number
}

/**
 * Every metric, on a registry of its own: nobody else names one. Counters end in `_total`, times are seconds, sizes
 * bytes; no label takes a value that clients choose.
 */
export class Metrics {
  readonly registry = new Registry()
  readonly connections = this.#gauge('connections', 'Open connections of subscribers', ['transport'])
  readonly connectionsOpened = this.#counter('connections_opened_total', 'Connections opened', ['transport'])
  readonly connectionsClosed = this.#counter('connections_closed_total', 'Connections closed, by why', [
    'transport',
    'reason'
  ])
  readonly connectionsRejected = this.#counter('connections_rejected_total', 'Connections refused, by why', [
    'reason'
  ])
  readonly connectionDuration = this.#histogram(
    'connection_duration_seconds',
    'How long connections lasted',
    LIFETIMES,
    ['transport']
  )
  readonly eventsPublished = this.#counter('events_published_total', 'Events stored by this instance', [
    'feed'
  ])
  readonly writesRejected = this.#counter(
    'writes_rejected_total',
    'Writes refused: past the rate of a client'
  )
  readonly readsRejected = this.#counter('reads_rejected_total', 'Reads refused: past the rate of a client')
  readonly eventsDelivered = this.#counter('events_delivered_total', 'Events given to connections', [
    'transport'
  ])
  readonly bytesSent = this.#counter('bytes_sent_total', 'Bytes given to connections', ['transport'])
  readonly delivery = this.#histogram(
    'delivery_seconds',
    "From the broker's time of an event to its write, once for each audience",
    LATENCIES
  )
  readonly resumes = this.#counter('resumes_total', 'Streams opened with a cursor, by what they began with', [
    'outcome'
  ])
  readonly replayedEvents = this.#counter(
    'replayed_events_total',
    'Events delivered that were missed before',
    ['source']
  )
  readonly gaps = this.#counter('gaps_total', 'Gaps announced', ['reason'])
  readonly lagging = this.#gauge('lagging_connections', 'Connections that read too slowly to be fed live')
  readonly topics = this.#gauge('topics', 'Topics and wildcards with a subscriber here')
  readonly brokerUp = this.#gauge('broker_up', 'Whether the broker answers', [], 'min')
  readonly brokerRecoveries = this.#counter('broker_recoveries_total', 'Times the broker came back')
  readonly brokerSeconds = this.#histogram('broker_seconds', 'How long the broker took', LATENCIES, ['op'])
  readonly brokerRefusals = this.#counter(
    'broker_refusals_total',
    'What the broker answered and refused, by what it was asked for and why (full, denied, other)',
    ['op', 'kind']
  )
  readonly storeFlushSeconds = this.#histogram(
    'store_flush_seconds',
    'How long the store on disk took to flush what was stored',
    LATENCIES
  )
  readonly authFailures = this.#counter('auth_failures_total', 'Requests that were not allowed, by why', [
    'reason'
  ])
  readonly wsMessages = this.#counter(
    'ws_messages_total',
    'Messages of WebSocket clients, by what they ask for',
    ['op']
  )

  #measureStore: () => Promise<StoreMeasures> = () => Promise.resolve({ bytes: 0, oldestAge: 0 })

  /** `memory`: what its gauges say when they are asked. */
  constructor(version: string, memory: Pick<Memory, 'held' | 'limit'> = new Memory(Infinity)) {
    this.#gauge('build_info', 'What runs', ['version', 'node'], 'first').set(
      { version, node: process.version },
      1
    )
    this.#watchMemory(memory)
    this.#watchStore()
    collectDefaultMetrics({ register: this.registry })
  }

  /** `measure`: what the gauges of the store on disk say when they are asked. */
  watchStore(measure: () => Promise<StoreMeasures>): void {
    this.#measureStore = measure
  }

  /** The counters and histograms alone: cheap, because no gauge looks at the process for it. */
  counts(): Promise<Measured> {
    const counts = this.registry.getMetricsAsArray().filter(isCount)
    return Promise.all(counts.map(({ name }) => this.registry.getSingleMetric(name)!.get()))
  }

  #watchMemory(memory: Pick<Memory, 'held' | 'limit'>): void {
    this.#gauge('memory_limit_bytes', 'What clients can make the process hold').set(memory.limit)
    const held = this.#gauge(
      'memory_bytes',
      'What clients make the process hold, by kind',
      ['kind'],
      'sum',
      () => {
        for (const kind of MEMORY_KINDS) held.set({ kind }, memory.held(kind))
      }
    )
  }

  #watchStore(): void {
    const oldest = this.#gauge(
      'store_oldest_event_seconds',
      'How old the oldest event of the store on disk is'
    )
    // one look at the store for both
    const bytes = this.#gauge('store_bytes', 'What the store on disk takes', [], 'sum', async () => {
      const measures = await this.#measureStore().catch(() => null)
      // a disk that can't be asked keeps no other metric back
      if (!measures) return
      bytes.set(measures.bytes)
      oldest.set(measures.oldestAge)
    })
  }

  /** `aggregator`: what the values of several workers are together; `collect` sets them when they are asked for. */
  #gauge<L extends string>(
    name: string,
    help: string,
    labelNames: L[] = [],
    aggregator: Aggregator = 'sum',
    collect?: () => void | Promise<void>
  ): Gauge<L> {
    return new Gauge({
      ...{ name: `ringside_${name}`, help, labelNames, aggregator },
      ...(collect && { collect }),
      registers: [this.registry]
    })
  }

  #counter<L extends string>(name: string, help: string, labelNames: L[] = []): Counter<L> {
    return new Counter({ name: `ringside_${name}`, help, labelNames, registers: [this.registry] })
  }

  #histogram<L extends string>(
    name: string,
    help: string,
    buckets: number[],
    labelNames: L[] = []
  ): Histogram<L> {
    return new Histogram({ name: `ringside_${name}`, help, buckets, labelNames, registers: [this.registry] })
  }
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
