import cluster, { type Worker } from 'node:cluster'
import closeWithGrace from 'close-with-grace'
import type { Measured } from '../metrics.ts'
import { Measurements } from './measurements.ts'
import type { Order, Word } from './messages.ts'

/** How long to wait before a worker that died is replaced, in milliseconds: one that can't live shall not use up the machine. */
const REPLACE_MS = 1000

/** The longest wait, in milliseconds: it doubles with each replacement that can't start. */
const REPLACE_MAX_MS = 30_000

/** How long a worker may take to tell its metrics, in milliseconds: of one that hangs there are the counts it told last. */
const MEASURE_MS = 2000

export interface Supervision {
  readonly count: number
  /** How long the workers may take to stop, in milliseconds. */
  readonly stopTimeout: number
  /** What only the nth worker has in its environment. */
  environment(slot: number): Record<string, string>
  /** All workers listen, for the first time. */
  started(port: number): void
  /** Says what goes wrong. */
  warn(message: string): void
}

/**
 * Runs several workers on one port: each is the whole server, and takes its turn with new connections. A worker that dies
 * is replaced, and a replacement that can't start is tried again, while the others go on. Ends the process: 0 after a
 * signal, once all workers have stopped; 1 when one can't start before all have been listening.
 */
export function supervise(supervision: Supervision): void {
  new Supervisor(supervision).start()
}

class Supervisor {
  readonly #supervision: Supervision
  readonly #listening = new Set<Worker>()
  readonly #measurements: Measurements
  /** Until all workers listen for the first time. */
  #isStarting = true
  #isStopping = false
  /** Whether a worker has said why it can't start. */
  #hasFailed = false

  constructor(supervision: Supervision) {
    this.#supervision = supervision
    this.#measurements = new Measurements(supervision.count)
  }

  start(): void {
    const { count, stopTimeout, warn } = this.#supervision
    for (let slot = 0; slot < count; slot++) this.#fork(slot)
    process.on('SIGHUP', () => workers().forEach(worker => worker.process.kill('SIGHUP')))
    closeWithGrace({ delay: stopTimeout, logger: { error: warn }, skip: ['SIGHUP'] }, async ({ err }) => {
      if (err) warn(err.stack ?? err.message)
      this.#isStopping = true
      await Promise.all(workers().map(stop))
    })
  }

  /** `failures`: how many workers in a row could not start in this slot. */
  #fork(slot: number, failures = 0): void {
    const worker = cluster.fork(this.#supervision.environment(slot))
    worker.once('listening', ({ port }) => this.#listens(worker, port))
    worker.on('message', (message: Word) => this.#hear(slot, worker, message))
    // not when it exits: what it has said last may still be on its way then
    worker.once('disconnect', () => this.#measurements.bury(slot, worker.id))
    worker.once('exit', (code, signal) => {
      const hasListened = this.#listening.delete(worker)
      const how = `worker ${worker.process.pid} ${hasListened ? 'ended' : 'could not start'} (${signal ?? `status ${code}`})`
      if (hasListened) this.#replace(slot, 0, `${how}; another one takes its place`)
      else afterLastWord(worker, () => this.#startFailed(slot, failures, how))
    })
  }

  #startFailed(slot: number, failures: number, how: string): void {
    if (this.#isStopping) return
    // why it can't start it has said
    if (this.#isStarting) process.exit(1)
    this.#replace(slot, failures + 1, `${how}; another one tries`)
  }

  #listens(worker: Worker, port: number): void {
    const { count, started } = this.#supervision
    this.#listening.add(worker)
    if (!this.#isStarting || this.#listening.size < count) return
    this.#isStarting = false
    started(port)
  }

  #replace(slot: number, failures: number, why: string): void {
    if (this.#isStopping) return
    const wait = Math.min(REPLACE_MS * 2 ** failures, REPLACE_MAX_MS)
    this.#supervision.warn(`${why} in ${wait / 1000} s`)
    setTimeout(() => !this.#isStopping && this.#fork(slot, failures), wait)
  }

  // --- what they have measured ---

  #hear(slot: number, worker: Worker, message: Word): void {
    if (message.word === 'counted') this.#measurements.keep(slot, worker.id, message.counts)
    else if (message.word === 'measured') this.#measurements.keep(slot, worker.id, message.measured)
    else if (message.word === 'failed') this.#hearFailure(message.why)
    else void this.#answerScrape(worker, message.id)
  }

  /** What keeps one from starting keeps all from it: it is said once before that ends the process. */
  #hearFailure(why: string): void {
    if (this.#isStarting && this.#hasFailed) return
    this.#hasFailed = true
    this.#supervision.warn(why)
  }

  async #answerScrape(asker: Worker, id: number): Promise<void> {
    const answers = new Map<number, Measured>()
    const ask = async (worker: Worker) => {
      const measured = await measure(worker)
      if (measured) answers.set(worker.id, measured)
    }
    await Promise.all([...this.#listening].map(ask))
    give(asker, { order: 'scraped', id, text: await this.#measurements.text(answers) })
  }
}

let asked = 0

/** What a worker has measured by now; null when it has gone meanwhile, or doesn't answer in time. */
function measure(worker: Worker): Promise<Measured | null> {
  const id = asked++
  return new Promise(resolve => {
    if (!worker.isConnected()) return resolve(null)
    const settle = (measured: Measured | null) => {
      clearTimeout(timeout)
      worker.off('message', onMessage).off('disconnect', onDisconnect)
      resolve(measured)
    }
    const onMessage = (message: Word) => {
      if (message.word === 'measured' && message.id === id) settle(message.measured)
    }
    const onDisconnect = () => settle(null)
    const timeout = setTimeout(settle, MEASURE_MS, null)
    worker.on('message', onMessage).on('disconnect', onDisconnect)
    give(worker, { order: 'measure', id })
  })
}

function workers(): Worker[] {
  return Object.values(cluster.workers ?? {}).filter(worker => worker !== undefined)
}

/** What a worker has said last may still be on its way when it has ended. */
function afterLastWord(worker: Worker, proceed: () => void): void {
  if (worker.isConnected()) worker.once('disconnect', proceed)
  else proceed()
}

function stop(worker: Worker): Promise<void> {
  return new Promise(resolve => {
    worker.once('exit', () => resolve())
    give(worker, { order: 'stop' })
  })
}

/** Nothing is said to one that has gone meanwhile. */
function give(worker: Worker, order: Order): void {
  if (worker.isConnected()) worker.send(order)
}
