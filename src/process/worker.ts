import cluster from 'node:cluster'
import { systemClock, type Clock } from '../clock.ts'
import type { Measured } from '../metrics.ts'
import { STOP_SIGNALS, type Order, type Word } from './messages.ts'

/** How often a worker tells what it has counted, in milliseconds: one that is killed takes no more than that with it. */
const TELL_MS = 1000

/** What a worker can be asked for. */
export interface Duties {
  stop(): void
  /** All metrics as they are now. */
  measure(): Promise<Measured>
  /** The counters and histograms alone. */
  count(): Promise<Measured>
}

/** A worker's end of the channel to its supervisor. */
export type Channel = Pick<NodeJS.Process, 'connected' | 'send' | 'on' | 'off'>

/** Whether this process is one of several. */
export function isWorker(): boolean {
  return cluster.isWorker
}

/** The place that a worker has among all of them: whoever follows when it dies has the same. */
const SLOT = 'RINGSIDE_WORKER'

/** How a worker is told its place, from 0. */
export function slotEnvironment(slot: number): Record<string, string> {
  return { [SLOT]: String(slot) }
}

/** The place of this worker, from 0. */
export function workerSlot(): number {
  return Number(process.env[SLOT] ?? 0)
}

/**
 * Does what the supervisor says: stops (which no signal makes a worker do), and tells what was measured. By itself it tells
 * every second what it has counted. The answer tells that once more: to be called, and waited for, before the process ends.
 */
export function obey(
  { stop, measure, count }: Duties,
  channel: Channel = process,
  clock: Clock = systemClock
): () => Promise<void> {
  for (const signal of STOP_SIGNALS) channel.on(signal, () => {})
  channel.on('message', (message: Order) => {
    if (message.order === 'stop') stop()
    else if (message.order === 'measure') void tellMeasured(channel, message.id, measure())
  })
  const tell = async () => say(channel, { word: 'counted', counts: await count() })
  // one after the other: with a supervisor that hangs they would pile up
  const timer = clock.after(TELL_MS, () => void tell().then(() => timer.refresh()))
  return tell
}

async function tellMeasured(channel: Channel, id: number, measuring: Promise<Measured>): Promise<void> {
  await say(channel, { word: 'measured', id, measured: await measuring })
}

/** Tells the supervisor why this worker can't start. Resolves once it is told. */
export function fail(why: string): Promise<void> {
  return say(process, { word: 'failed', why })
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
    void say(process, { word: 'scrape', id })
  })
}

/** Resolves once it is said, or can't be said any more: without its supervisor a worker ends by itself. */
function say(channel: Channel, word: Word): Promise<void> {
  return new Promise(resolve => {
    if (!channel.connected) return resolve()
    channel.send!(word, undefined, undefined, () => resolve())
  })
}
