import type { Registry } from 'prom-client'
import { STATUSES } from './labels.ts'

/** Buckets in seconds: what is read from memory to what waits for a store that is away. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10]

/** The classes that each route is known to answer with; others are there once they have come. */
const USUAL = [2, 4, 5]

const REQUESTS = 'ringside_http_requests_total'
const SECONDS = 'ringside_http_request_seconds'

/** What a route has answered: plain numbers, since each request that publishes pays for them. */
export class RouteTimes {
  readonly labels: { readonly method: string; readonly route: string }
  /** By the class of the status: the first has 1xx. */
  readonly statuses = [0, 0, 0, 0, 0]
  /** How many took no longer than each bucket says, and longer than the one before; the last has all beyond. */
  readonly buckets = new Array<number>(BUCKETS.length + 1).fill(0)
  seconds = 0

  constructor(method: string, route: string) {
    this.labels = { method, route }
  }

  /** It has answered with a status, after so many seconds. */
  answered(status: number, seconds: number): void {
    this.statuses[Math.floor(status / 100) - 1]!++
    let bucket = 0
    while (bucket < BUCKETS.length && seconds > BUCKETS[bucket]!) bucket++
    this.buckets[bucket]!++
    this.seconds += seconds
  }

  get count(): number {
    return this.statuses.reduce((sum, each) => sum + each, 0)
  }
}

/** The requests of all routes: how they were answered, and how long that took. */
export class HttpTimes {
  readonly #routes = new Map<string, RouteTimes>()

  constructor(registry: Registry) {
    register(registry, {
      ...{ name: REQUESTS, help: 'HTTP requests, by the class of their status', type: 'counter' },
      labelNames: ['method', 'route', 'status'],
      values: () => [...this.#routes.values()].flatMap(countsOf)
    })
    register(registry, {
      name: SECONDS,
      help: 'How long HTTP requests took until they were answered; of streams until their head, of polls with what they waited',
      type: 'histogram',
      labelNames: ['method', 'route'],
      values: () => [...this.#routes.values()].flatMap(timesOf)
    })
  }

  /** What is counted of a route: its pattern, and no path that was asked for. HEAD counts as GET. */
  of(method: string, route: string): RouteTimes {
    const name = method === 'HEAD' ? 'GET' : method
    const key = `${name} ${route}`
    let times = this.#routes.get(key)
    if (!times) this.#routes.set(key, (times = new RouteTimes(name, route)))
    return times
  }
}

interface Sample {
  readonly labels: Readonly<Record<string, string | number>>
  readonly value: number
  readonly metricName?: string
}

interface OwnMetric {
  readonly name: string
  readonly help: string
  readonly type: 'counter' | 'histogram'
  readonly labelNames: readonly string[]
  values(): Sample[]
}

/** The registry asks a metric for no more than this; its type knows those of the package alone. */
function register(registry: Registry, { values, ...metric }: OwnMetric): void {
  const own = { ...metric, get: async () => ({ ...metric, aggregator: 'sum', values: values() }), reset() {} }
  registry.registerMetric(own as unknown as Parameters<Registry['registerMetric']>[0])
}

function countsOf({ labels, statuses }: RouteTimes): Sample[] {
  return STATUSES.flatMap((status, index) => {
    const value = statuses[index]!
    return value > 0 || USUAL.includes(index + 1) ? [{ labels: { ...labels, status }, value }] : []
  })
}

function timesOf({ labels, buckets, count, seconds }: RouteTimes): Sample[] {
  let sum = 0
  const samples: Sample[] = BUCKETS.map((le, index) => {
    sum += buckets[index]!
    return { labels: { le, ...labels }, value: sum, metricName: `${SECONDS}_bucket` }
  })
  return [
    ...samples,
    { labels: { le: '+Inf', ...labels }, value: count, metricName: `${SECONDS}_bucket` },
    { labels, value: seconds, metricName: `${SECONDS}_sum` },
    { labels, value: count, metricName: `${SECONDS}_count` }
  ]
}
