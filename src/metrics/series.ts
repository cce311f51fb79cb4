import { Counter, Gauge, Histogram, type Aggregator, type Registry } from 'prom-client'

export type { Aggregator }

/** The labels of a metric, each with all values that it may take. */
export type Labels = Readonly<Record<string, readonly string[]>>

/** One value for each label. */
export type LabelsOf<L extends Labels> = { readonly [Name in keyof L]: L[Name][number] }

/** A counter with labels: there from the start, with 0, for all their values; and it takes no others. */
export interface Counts<L extends Labels> extends Pick<Counter, 'get'> {
  inc(labels: LabelsOf<L>, by?: number): void
}

/** A histogram of the same kind. */
export interface Times<L extends Labels> extends Pick<Histogram, 'get'> {
  observe(labels: LabelsOf<L>, seconds: number): void
}

/** A gauge of the same kind. */
export interface Levels<L extends Labels> extends Pick<Gauge, 'get'> {
  inc(labels: LabelsOf<L>): void
  dec(labels: LabelsOf<L>): void
  set(labels: LabelsOf<L>, value: number): void
}

/** How a gauge is made. */
export interface GaugeOptions {
  /** What the values of several workers are together. Default: their sum. */
  readonly aggregator?: Aggregator
  /** Sets its values when they are asked for. */
  readonly collect?: () => void | Promise<void>
}

/** Makes the metrics of a registry: each begins with `ringside_`, and with 0. */
export class Series {
  readonly #registry: Registry

  constructor(registry: Registry) {
    this.#registry = registry
  }

  counter(name: string, help: string): Counter {
    return new Counter(this.#named(name, help, []))
  }

  counts<L extends Labels>(name: string, help: string, labels: L): Counts<L> {
    const counter = new Counter(this.#named(name, help, Object.keys(labels)))
    for (const each of combinations(labels)) counter.inc(each, 0)
    return counter
  }

  gauge(name: string, help: string, { aggregator = 'sum', collect }: GaugeOptions = {}): Gauge {
    return new Gauge({ ...this.#named(name, help, []), aggregator, ...(collect && { collect }) })
  }

  levels<L extends Labels>(name: string, help: string, labels: L, options: GaugeOptions = {}): Levels<L> {
    const gauge = this.labelled(name, help, Object.keys(labels), options)
    for (const each of combinations(labels)) gauge.set(each, 0)
    return gauge
  }

  /** A gauge that has only the series that it was given: of what there may be none. */
  labelled(
    name: string,
    help: string,
    labels: string[],
    { aggregator = 'sum', collect }: GaugeOptions = {}
  ): Gauge {
    return new Gauge({ ...this.#named(name, help, labels), aggregator, ...(collect && { collect }) })
  }

  /** A counter that is counted elsewhere: `read` says how far, each time that it is asked for. */
  counted(name: string, help: string, labels: Readonly<Record<string, string>>, read: () => number): void {
    const counter: Counter = new Counter({
      ...this.#named(name, help, Object.keys(labels)),
      collect: () => {
        counter.reset()
        counter.inc(labels, read())
      }
    })
  }

  histogram(name: string, help: string, buckets: number[]): Histogram {
    return new Histogram({ ...this.#named(name, help, []), buckets })
  }

  times<L extends Labels>(name: string, help: string, buckets: number[], labels: L): Times<L> {
    const histogram = new Histogram({ ...this.#named(name, help, Object.keys(labels)), buckets })
    for (const each of combinations(labels)) histogram.zero(each)
    return histogram
  }

  #named(name: string, help: string, labelNames: string[]) {
    return { name: `ringside_${name}`, help, labelNames, registers: [this.#registry] }
  }
}

/** Each value of each label with each of the others. */
function combinations(labels: Labels): Record<string, string>[] {
  return Object.entries(labels).reduce<Record<string, string>[]>(
    (found, [name, values]) => found.flatMap(each => values.map(value => ({ ...each, [name]: value }))),
    [{}]
  )
}

/** Sets a gauge without labels; where there is no value, it has none. */
export function setOrRemove(gauge: Gauge, value: number | null | undefined): void {
  if (value === null || value === undefined) gauge.remove()
  else gauge.set(value)
}

/** Null for no limit: a number that is told to another process could not say so. */
export function bounded(limit: number): number | null {
  return limit === 0 || limit === Infinity ? null : limit
}
