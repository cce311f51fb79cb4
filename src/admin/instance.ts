import { hostname } from 'node:os'
import { randomBytes } from 'node:crypto'
import { monitorEventLoopDelay, performance } from 'node:perf_hooks'
import type { Memory, MemoryKind } from '../memory.ts'
import { MEMORY_KINDS } from '../memory.ts'
import type { ConnectionCounts } from './connections.ts'
import type { InstanceName } from './exchange.ts'

/** How often the delay of the event loop is sampled, in milliseconds. */
const RESOLUTION_MS = 20

/** What there is to say of the store. */
export interface StoreReport {
  readonly kind: 'memory' | 'disk' | 'redis'
  readonly up: boolean
  /** Why it can't be used, or takes nothing; null where it can, or does. */
  readonly unusable: string | null
  readonly unwritable: string | null
}

/** The delay of the event loop over the last second, in milliseconds. */
export interface LoopDelay {
  readonly mean: number
  readonly p99: number
  readonly max: number
}

/** How an instance does. Sizes are bytes, times milliseconds since the epoch. */
export interface InstanceReport extends InstanceName {
  /** Which of several processes on one port it is, from 0; null where it is alone. */
  readonly worker: number | null
  readonly version: string
  readonly node: string
  readonly started: number
  /** Why it can't serve; null where it can. */
  readonly unready: string | null
  readonly draining: boolean
  readonly connections: ConnectionCounts
  /** Topics and wildcards with a subscriber here, or with one a moment ago. */
  readonly topics: number
  /** The budget: what clients make it hold, by kind. And what the process takes in all. */
  readonly memory: {
    readonly limit: number | null
    readonly held: number
    readonly kinds: Readonly<Record<MemoryKind, number>>
    readonly rss: number
  }
  readonly eventLoop: LoopDelay
  readonly store: StoreReport
}

/** A name for this life of this process. */
export function ownName(): InstanceName {
  return { id: randomBytes(6).toString('hex'), host: hostname(), pid: process.pid }
}

/** The budget of an instance, and the memory of its process. */
export function memoryReport(memory: Memory): InstanceReport['memory'] {
  const kinds = Object.fromEntries(MEMORY_KINDS.map(kind => [kind, memory.held(kind)]))
  return {
    limit: memory.limit === Infinity ? null : memory.limit,
    held: memory.sum,
    kinds: kinds as InstanceReport['memory']['kinds'],
    rss: process.memoryUsage.rss()
  }
}

/** What runs this process, and since when. */
export function processReport(): Pick<InstanceReport, 'node' | 'started'> {
  return { node: process.version, started: Math.round(performance.timeOrigin) }
}

/** Measures the delay of the event loop, second by second. */
export class LoopMeter {
  readonly #histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
  #last: LoopDelay = { mean: 0, p99: 0, max: 0 }

  start(): void {
    this.#histogram.enable()
  }

  stop(): void {
    this.#histogram.disable()
  }

  /** Of the last whole second. */
  get last(): LoopDelay {
    return this.#last
  }

  /** A second is over. */
  turn(): void {
    const { mean, max } = this.#histogram
    const p99 = this.#histogram.percentile(99)
    this.#last = { mean: delayOf(mean), p99: delayOf(p99), max: delayOf(max) }
    this.#histogram.reset()
  }
}

/** In milliseconds, less what lies between two samples anyhow. */
function delayOf(nanoseconds: number): number {
  if (!Number.isFinite(nanoseconds)) return 0
  return Math.round(Math.max(0, nanoseconds / 1e6 - RESOLUTION_MS) * 10) / 10
}
