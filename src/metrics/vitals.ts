import { performance } from 'node:perf_hooks'
import type { Gauge } from 'prom-client'
import { MEMORY_KINDS, type Memory } from '../memory.ts'
import { FEEDS } from './labels.ts'
import { bounded, setOrRemove, type Aggregator, type Series } from './series.ts'

/** What there is to say of a store on disk: its size and limit in bytes, and the age of its oldest event in seconds. */
export interface StoreMeasures {
  readonly bytes: number
  readonly limit: number
  readonly oldestAge: number
}

/** What the rings of a feed's topics hold, of those that somebody listens to here. */
export interface RingMeasures {
  readonly events: number
  readonly bytes: number
  /** How old the oldest of them is, in seconds; 0 where there is none. */
  readonly oldestAge: number
  /** How far back the ring of a topic reaches that reaches least far, in seconds: who is away for longer misses events. */
  readonly reach: number
}

/** What the parts of an instance say of themselves when they are asked. Null stands for what they don't have. */
export interface Vitals {
  /** Whether it can serve. */
  readonly ready: () => boolean
  /** Whether events can be stored. */
  readonly writable: () => boolean
  readonly draining: () => boolean
  /** How many connections of subscribers are open. */
  readonly connections: () => number
  /** How many sockets are open, whatever for. */
  readonly sockets: () => number | null
  /** Until when the certificate is valid, in milliseconds since the epoch. */
  readonly certificateExpires: () => number | null
  /** When the keys that check tokens were fetched last, in milliseconds since the epoch; 0 for not yet. */
  readonly keysFetched: () => number | null
  readonly rings: () => Readonly<Record<(typeof FEEDS)[number], RingMeasures>>
  readonly store: () => Promise<StoreMeasures | null>
}

/** The gauges of what is asked only when somebody wants to know. */
export class VitalGauges {
  readonly #series: Series
  readonly #vitals: Partial<Vitals> = {}

  constructor(series: Series, memory: Pick<Memory, 'held' | 'limit' | 'limitOf'>, worker: number) {
    this.#series = series
    this.#addHealth()
    this.#addMemory(memory)
    this.#addRings()
    this.#addStore()
    this.#addWorker(String(worker))
  }

  /** Who is asked from now on, besides those of before. */
  watch(vitals: Partial<Vitals>): void {
    Object.assign(this.#vitals, vitals)
  }

  #addHealth(): void {
    const asBit = (answer: boolean | undefined) => (answer === undefined ? null : Number(answer))
    this.#one('ready', 'Whether it can serve', 'min', vitals => asBit(vitals.ready?.()))
    this.#one('writable', 'Whether events can be stored', 'min', vitals => asBit(vitals.writable?.()))
    this.#one('draining', 'Whether it is stopping', 'max', vitals => asBit(vitals.draining?.()))
    this.#one('sockets', 'Open sockets, whatever for', 'sum', vitals => vitals.sockets?.())
    this.#one('certificate_expiry_timestamp_seconds', 'Until when the certificate is valid', 'min', vitals =>
      inSeconds(vitals.certificateExpires?.())
    )
    this.#one(
      'keys_fetched_timestamp_seconds',
      'When the keys of JWKS_URL were fetched last; 0 for not yet',
      'min',
      vitals => inSeconds(vitals.keysFetched?.())
    )
  }

  /** A gauge of one value, which is not there while there is none. */
  #one(
    name: string,
    help: string,
    aggregator: Aggregator,
    ask: (vitals: Partial<Vitals>) => number | null | undefined
  ): void {
    const collect = () => setOrRemove(gauge, ask(this.#vitals))
    const gauge: Gauge = this.#series.gauge(name, help, { aggregator, collect })
  }

  #addMemory(memory: Pick<Memory, 'held' | 'limit' | 'limitOf'>): void {
    const limit = this.#series.gauge('memory_limit_bytes', 'What clients can make the process hold')
    setOrRemove(limit, bounded(memory.limit))
    const kinds = this.#series.labelled('memory_kind_limit_bytes', 'The same of one kind', ['kind'])
    for (const kind of MEMORY_KINDS)
      if (bounded(memory.limitOf(kind))) kinds.set({ kind }, memory.limitOf(kind))
    const collect = () => {
      for (const kind of MEMORY_KINDS) held.set({ kind }, memory.held(kind))
    }
    const held = this.#series.levels(
      'memory_bytes',
      'What clients make the process hold, by kind',
      { kind: MEMORY_KINDS },
      { collect }
    )
  }

  #addRings(): void {
    const labels = { feed: FEEDS }
    const series = this.#series
    // one look at the rings for all four
    const collect = () => {
      const measured = this.#vitals.rings?.()
      if (!measured) return
      for (const feed of FEEDS) {
        const { events: count, bytes: size, oldestAge, reach: least } = measured[feed]
        events.set({ feed }, count)
        bytes.set({ feed }, size)
        oldest.set({ feed }, oldestAge)
        reach.set({ feed }, least)
      }
    }
    const events = series.levels(
      'ring_events',
      'Events held of topics that somebody listens to here',
      labels,
      { collect }
    )
    const bytes = series.levels('ring_bytes', 'Memory that these events take', labels)
    const oldest = series.levels(
      'ring_oldest_event_seconds',
      'How old the oldest of these events is',
      labels,
      {
        aggregator: 'max'
      }
    )
    const reach = series.levels(
      'ring_reach_seconds',
      'How long a client may be away: as far back as the shortest full ring of a topic reaches, else RING_TTL',
      labels,
      { aggregator: 'min' }
    )
  }

  #addStore(): void {
    let looking: Promise<StoreMeasures | null> | undefined
    // one look at the store for all three; a disk that can't be asked keeps no other metric back
    const look = () =>
      (looking ??= (this.#vitals.store?.() ?? Promise.resolve(null))
        .catch(() => null)
        .finally(() => (looking = undefined)))
    const of = (name: string, help: string, take: (measures: StoreMeasures) => number) => {
      const collect = async () => {
        const measures = await look()
        setOrRemove(gauge, measures && take(measures))
      }
      const gauge: Gauge = this.#series.gauge(`store_${name}`, help, { collect })
    }
    of(
      'oldest_event_seconds',
      'How old the oldest event of the store on disk is',
      ({ oldestAge }) => oldestAge
    )
    of('bytes', 'What the store on disk takes', ({ bytes }) => bytes)
    of('limit_bytes', 'What the store on disk may take', ({ limit }) => limit)
  }

  /** What is worth knowing of each process apart: all else is one sum for all workers. */
  #addWorker(worker: string): void {
    const series = this.#series
    const of = (name: string, help: string, ask: () => number) => {
      const collect = () => gauge.set({ worker }, ask())
      const gauge = series.labelled(`worker_${name}`, help, ['worker'], { collect })
    }
    of('connections', 'Open connections of subscribers, by worker', () => this.#vitals.connections?.() ?? 0)
    of('resident_memory_bytes', 'Memory of each worker', () => process.memoryUsage.rss())
    of(
      'start_time_seconds',
      'When each worker was started, in seconds since the epoch',
      () => Math.round(performance.timeOrigin) / 1000
    )
    series.counted(
      'worker_eventloop_active_seconds_total',
      'How long the event loop of each worker was busy: its rate is 1 where it is busy all the time',
      { worker },
      () => performance.eventLoopUtilization().active / 1000
    )
  }
}

function inSeconds(ms: number | null | undefined): number | null {
  return ms === null || ms === undefined ? null : Math.round(ms) / 1000
}
