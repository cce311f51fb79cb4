import { availableParallelism, cpus, freemem, hostname, loadavg, totalmem, uptime } from 'node:os'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import type { Append } from '../../broker/event-log.ts'

/** How often the event loop's delay is sampled, in milliseconds. */
const DELAY_RESOLUTION_MS = 10

export type HostDocument = ReturnType<Host['measure']>

/** Measures this machine and process; what is a rate is so since the measurement before. */
export class Host {
  readonly #connections: () => number
  readonly #delay = monitorEventLoopDelay({ resolution: DELAY_RESOLUTION_MS })
  #times = coreTimes()

  constructor(connections: () => number) {
    this.#connections = connections
    this.#delay.enable()
  }

  stop(): void {
    this.#delay.disable()
  }

  measure() {
    const before = this.#times
    this.#times = coreTimes()
    const cores = this.#times.map(({ idle, all }, core) => {
      const spent = all - (before[core]?.all ?? 0)
      return spent > 0 ? rounded(1 - (idle - (before[core]?.idle ?? 0)) / spent, 3) : 0
    })
    const [one, five, fifteen] = loadavg() as [number, number, number]
    const delay = { mean: milliseconds(this.#delay.mean), p99: milliseconds(this.#delay.percentile(99)) }
    this.#delay.reset()
    return {
      name: hostname(),
      uptime: Math.round(uptime()),
      cpu: { cores, parallelism: availableParallelism() },
      memory: { total: totalmem(), free: freemem(), process: process.memoryUsage.rss() },
      load: { '1m': rounded(one, 2), '5m': rounded(five, 2), '15m': rounded(fifteen, 2) },
      eventLoop: { unit: 'ms', ...delay },
      connections: this.#connections()
    }
  }
}

/** The same as events on `metrics/*`. */
export function metricEvents({ cpu, memory, load, eventLoop, connections }: HostDocument): Append[] {
  const metrics = { cpu, memory, load, 'event-loop': eventLoop, connections: { open: connections } }
  return Object.entries(metrics).map(([name, value]) => ({
    topic: `metrics/${name}`,
    type: 'metric',
    data: JSON.stringify(value)
  }))
}

function coreTimes() {
  return cpus().map(({ times }) => ({
    idle: times.idle,
    all: times.user + times.nice + times.sys + times.idle + times.irq
  }))
}

/** A sample, in nanoseconds from one timer to the next, as the milliseconds by which it came late. */
function milliseconds(nanoseconds: number): number {
  return Number.isFinite(nanoseconds) ? rounded(Math.max(0, nanoseconds / 1e6 - DELAY_RESOLUTION_MS), 2) : 0
}

function rounded(value: number, digits: number): number {
  return Number(value.toFixed(digits))
}
