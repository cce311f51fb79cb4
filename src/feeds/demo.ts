import type { FastifyBaseLogger } from 'fastify'
import type { Clock, Timer } from '../clock.ts'
import type { Publisher } from '../publisher.ts'
import type { Dashboards } from './dashboards.ts'
import { Host, metricEvents } from './demo/host.ts'
import { Job, type Progress } from './demo/job.ts'
import { quote, readPrices, type Price } from './demo/prices.ts'
import type { Notifications } from './notifications.ts'
import type { Tickers } from './tickers.ts'

/** How often the host is measured and the recorded prices move on, in milliseconds. */
const STEP_MS = 1000

/** How its events come in. */
const BY = { source: 'demo' } as const

/** Whose bell rings when the job is done. */
const USER = 'demo'

export interface DemoOptions {
  publisher: Pick<Publisher, 'publish'>
  tickers: Pick<Tickers, 'publish'>
  dashboards: Pick<Dashboards, 'put' | 'patch'>
  notifications: Pick<Notifications, 'send'>
  clock: Clock
  logger: Pick<FastifyBaseLogger, 'debug'>
  /** How many streams are open. */
  connections(): number
}

/**
 * The built-in live feeds: this very machine on `dashboards/host` and `metrics/*`, recorded prices, said to be recorded,
 * on `tickers/DEMO:*`, and how far a job is with them on `jobs/demo`, which rings the bell of the user `demo` when it is
 * done. Nothing in them is made up.
 */
export class Demo {
  readonly #options: DemoOptions
  readonly #host: Host
  readonly #prices: readonly Price[][]
  readonly #job: Job
  #step = 0
  #timer: Timer | undefined

  /** `prices`: a series for each symbol; the job is done with the longest. */
  constructor(options: DemoOptions, prices: readonly Price[][]) {
    this.#options = options
    this.#prices = prices
    this.#job = new Job(prices.reduce((longest, each) => (each.length > longest.length ? each : longest)))
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
    const progress = this.#job.next()
    const first = this.#step === 0
    const quotes = this.#prices.map(series => quote(series[this.#step % series.length]!))
    this.#step++
    const job = { topic: 'jobs/demo', type: 'progress', data: JSON.stringify(progress) }
    await publisher.publish([...metricEvents(host), job], BY)
    await tickers.publish(quotes, BY)
    const json = JSON.stringify(host)
    // the whole document is a merge patch like any other
    if (first) await dashboards.put('host', json, BY)
    else await dashboards.patch('host', json, BY)
    if (progress.done === progress.of) await this.#ring(progress)
  }

  async #ring({ title, highest: { date, price } }: Progress): Promise<void> {
    const body = `${title}: ${price.toFixed(2)}, on ${date}.`
    const message = { title: 'The job is done', body, priority: 'normal', tags: ['job'] }
    await this.#options.notifications.send([USER], message)
  }
}
