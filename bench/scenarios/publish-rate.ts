import { setTimeout as sleep } from 'node:timers/promises'
import type { Publishers } from '../load/publishers.ts'
import { RINGSIDE, type Bench, type Scenario } from '../scenario.ts'

export const CONNECTIONS = 16
export const PIPELINED = 32
const BATCH = 50

export const publishRate: Scenario = {
  name: 'publish-rate',
  about:
    'Events stored a second by the memory broker, with nobody there: 16 connections with 32 requests under way each, ' +
    'one event a request; then batches of 50, two under way.',
  peers: RINGSIDE,
  columns: [
    { key: 'single', title: 'events/s' },
    { key: 'batch', title: 'in batches of 50' }
  ],
  async measure(bench) {
    const publishers = await bench.publishers(await bench.start(), CONNECTIONS)
    return {
      single: await closedLoop(bench, publishers, PIPELINED, 1),
      batch: await closedLoop(bench, publishers, 2, BATCH)
    }
  }
}

/** Each connection always has so many requests under way; answers how many events were stored a second. */
export async function closedLoop(
  bench: Bench,
  publishers: Publishers,
  underWay: number,
  size: number
): Promise<number> {
  let running = true
  for (const connection of publishers.connections) {
    connection.onAnswer = () => {
      if (!running) return
      const room = underWay - connection.underWay
      if (size === 1) publishers.publish(room, undefined, connection)
      else for (let left = room; left > 0; left--) publishers.publishBatch(size, undefined, connection)
    }
    connection.onAnswer()
  }
  await sleep(bench.size(2000, 200))
  const { answered } = publishers
  const started = performance.now()
  await sleep(bench.size(6000, 400))
  const seconds = (performance.now() - started) / 1000
  const stored = (publishers.answered - answered) * size
  running = false
  await publishers.settled()
  return Math.round(stored / seconds)
}
