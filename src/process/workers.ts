import cluster, { type Worker } from 'node:cluster'
import closeWithGrace from 'close-with-grace'
import { together, type Measured } from '../metrics.ts'

/** How long to wait before a worker that died is replaced, in milliseconds: one that can't live shall not use up the machine. */
const REPLACE_MS = 1000

/** How long a worker may take to tell its metrics, in milliseconds; without those of one that hangs there are the others'. */
const MEASURE_MS = 2000

/** The signals that stop the server. With several processes the supervisor alone heeds them: a terminal tells them all. */
export const STOP_SIGNALS = ['SIGINT', 'SIGTERM'] as const

/** What the supervisor says to a worker: stop, tell what you have measured, or here is what all have. */
type Order =
  | { readonly order: 'stop' }
  | { readonly order: 'measure'; readonly id: number }
  | { readonly order: 'scraped'; readonly id: number; readonly text: string }

/** What a worker says to the supervisor: here is what I have measured, or tell me what all have. */
type Word =
  | { readonly word: 'measured'; readonly id: number; readonly measured: Measured }
  | { readonly word: 'scrape'; readonly id: number }

// --- the one over them ---

export interface Supervision {
  readonly count: number
  /** How long the workers may take to stop, in milliseconds. */
  readonly stopTimeout: number
  /** What only the nth worker has in its environment. */
  environment(slot: number): Record<string, string>
  /** All workers listen, for the first time. */
  started(port: number): void
  /** Says what goes wrong. */
  log(message: string): void
}

/**
 * Runs several workers on one port: each is the whole server, and takes its turn with new connections. A worker that
 * dies is replaced. Ends the process: 0 after a signal, once all workers have stopped; 1 when one can't start.
 */
export function supervise({ count, stopTimeout, environment, started, log }: Supervision): void {
  let starting = true
  let stopping = false
  const listening = new Set<Worker>()
  const fork = (slot: number): void => {
    const worker = cluster.fork(environment(slot))
    worker.once('listening', ({ port }) => {
      listening.add(worker)
      if (starting && listening.size === count) {
        starting = false
        started(port)
      }
    })
    worker.on('message', (message: Word) => {
      if (message.word === 'scrape') void answerScrape(worker, message.id, [...listening])
    })
    worker.once('exit', (code, signal) => {
      if (stopping) return
      // it has said why
      if (!listening.delete(worker)) process.exit(1)
      log(`worker ${worker.process.pid} ended (${signal ?? `status ${code}`}); another one takes its place`)
      setTimeout(() => !stopping && fork(slot), REPLACE_MS)
    })
  }
  for (let slot = 0; slot < count; slot++) fork(slot)
  process.on('SIGHUP', () => workers().forEach(worker => worker.process.kill('SIGHUP')))
  closeWithGrace({ delay: stopTimeout, logger: { error: log }, skip: ['SIGHUP'] }, async ({ err }) => {
    if (err) log(err.stack ?? err.message)
    stopping = true
    await Promise.all(workers().map(stop))
  })
}

function workers(): Worker[] {
  return Object.values(cluster.workers ?? {}).filter(worker => worker !== undefined)
}

function stop(worker: Worker): Promise<void> {
  return new Promise(resolve => {
    worker.once('exit', () => resolve())
    give(worker, { order: 'stop' })
  })
}

async function answerScrape(asker: Worker, id: number, all: readonly Worker[]): Promise<void> {
  const measured = await Promise.all(all.map(measure))
  const text = await together(measured.filter(each => each !== null))
  give(asker, { order: 'scraped', id, text })
}

let measurements = 0

/** Null of one that doesn't answer. */
function measure(worker: Worker): Promise<Measured | null> {
  const id = measurements++
  return new Promise(resolve => {
    const settle = (measured: Measured | null) => {
      clearTimeout(timeout)
      worker.off('message', onMessage)
      resolve(measured)
    }
    const onMessage = (message: Word) => {
      if (message.word === 'measured' && message.id === id) settle(message.measured)
    }
    const timeout = setTimeout(settle, MEASURE_MS, null)
    worker.on('message', onMessage)
    give(worker, { order: 'measure', id })
  })
}

/** Nothing is said to one that has gone meanwhile. */
function give(worker: Worker, order: Order): void {
  if (worker.isConnected()) worker.send(order)
}

// --- a worker ---

/** Whether this process is one of several. */
export function isWorker(): boolean {
  return cluster.isWorker
}

/** Does what the supervisor says: to stop (which no signal does), and to tell what was measured. */
export function obey(orders: { stop(): void; measure(): Promise<Measured> }): void {
  for (const signal of STOP_SIGNALS) process.on(signal, () => {})
  process.on('message', (message: Order) => {
    if (message.order === 'stop') orders.stop()
    else if (message.order === 'measure') void tellMeasured(message.id, orders.measure())
  })
}

async function tellMeasured(id: number, measuring: Promise<Measured>): Promise<void> {
  say({ word: 'measured', id, measured: await measuring })
}

let scrapes = 0

/** The metrics of all workers, in the text exposition format. */
export function scrapeAll(): Promise<string> {
  const id = scrapes++
  return new Promise(resolve => {
    const onMessage = (message: Order) => {
      if (message.order !== 'scraped' || message.id !== id) return
      process.off('message', onMessage)
      resolve(message.text)
    }
    process.on('message', onMessage)
    say({ word: 'scrape', id })
  })
}

function say(word: Word): void {
  if (process.connected) process.send!(word)
}
