import { availableParallelism, cpus, freemem, hostname, loadavg, totalmem, uptime } from 'node:os'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import type { FastifyBaseLogger } from 'fastify'
import type { Append } from '../broker/event-log.ts'
import type { Clock, Timer } from '../clock.ts'
import type { Publisher } from '../publisher.ts'
import { readRows, type Row } from '../recording.ts'
import type { Dashboards } from './dashboards.ts'
import type { NewQuote, Tickers } from './tickers.ts'

/** How often the host is measured and the recorded prices move on, in milliseconds. */
const STEP_MS = 1000

/** How often the event loop's delay is sampled, in milliseconds. */
const DELAY_RESOLUTION_MS = 10

/** How its events come in. */
const BY = { source: 'demo' } as const

const DATA = new URL('../../data/', import.meta.url)

export interface DemoOptions {
  publisher: Publisher
  tickers: Tickers
  dashboards: Dashboards
  clock: Clock
  logger: Pick<FastifyBaseLogger, 'debug'>
  /** How many streams are open. */
  connections(): number
}

/**
 * The built-in live feeds: this very machine on `dashboards/host` and `metrics/*`, and recorded prices, said to be
 * recorded, on `tickers/*`. Nothing in them is made up.
 */
export class Demo {
  readonly #options: DemoOptions
  readonly #host: Host
  readonly #prices: readonly Price[][]
  #step = 0
  #timer: Timer | undefined

  constructor(options: DemoOptions, prices: readonly Price[][]) {
    this.#options = options
    this.#prices = prices
    this.#host = new Host(options.connections)
  }

  /** Reads what was recorded. */
  static async open(options: DemoOptions): Promise<Demo> {
    return new Demo(options, await readPrices())
  }

  start(): void {
    this.#timer = this.#options.clock.after(STEP_MS, () => this.#next())
  }

  stop(): void {
    this.#timer?.cancel()
    this.#host.stop()
  }

  #next(): void {
    // no broker is not the demo's news
    this.#publish().catch(error => this.#options.logger.debug(error, 'demo: not published'))
    this.#timer?.refresh()
  }

  async #publish(): Promise<void> {
    const { dashboards, publisher, tickers } = this.#options
    const host = this.#host.measure()
    const first = this.#step === 0
    const quotes = this.#prices.map(series => quote(series[this.#step % series.length]!))
    this.#step++
    await publisher.publish(metricEvents(host), BY)
    await tickers.publish(quotes, BY)
    const json = JSON.stringify(host)
    // the whole document is a merge patch like any other
    if (first) await dashboards.put('host', json, BY)
    else await dashboards.patch('host', json, BY)
  }
}

// --- this machine ---

type HostDocument = ReturnType<Host['measure']>

/** Measures this machine and process; what is a rate is so since the measurement before. */
class Host {
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

function metricEvents({ cpu, memory, load, eventLoop, connections }: HostDocument): Append[] {
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

// --- recorded prices ---

interface Price {
  readonly symbol: string
  readonly date: string
  readonly price: number
}

/** A series for each symbol, oldest first: months for the stocks, days for the index. */
async function readPrices(): Promise<Price[][]> {
  const series = new Map<string, Price[]>()
  const add = (price: Price) => {
    const known = series.get(price.symbol)
    if (known) known.push(price)
    else series.set(price.symbol, [price])
  }
  for await (const row of rowsOf('stocks.csv')) {
    add({ symbol: text(row, 'symbol'), date: text(row, 'date'), price: number(row, 'price') })
  }
  for await (const row of rowsOf('sp500-2000.csv')) {
    add({ symbol: '^GSPC', date: text(row, 'date'), price: number(row, 'close') })
  }
  return [...series.values()]
}

function rowsOf(name: string): AsyncGenerator<Row> {
  return readRows(fileURLToPath(new URL(name, DATA)))
}

function text({ columns }: Row, name: string): string {
  return JSON.parse(columns.get(name)!) as string
}

function number({ columns }: Row, name: string): number {
  return Number(columns.get(name))
}

function quote({ symbol, price, date }: Price): NewQuote {
  return { symbol, json: JSON.stringify({ symbol, price, date, recorded: true }) }
}
