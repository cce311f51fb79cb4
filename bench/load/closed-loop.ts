import { setTimeout as sleep } from 'node:timers/promises'
import { round, type Bench } from '../scenario.ts'
import type { BatchFormat } from '../peer.ts'
import type { Publishers } from './publishers.ts'
import type { Server } from './server.ts'

export interface LoopOptions {
  /** How many requests each connection has under way. */
  readonly underWay: number
  /** How many events a request has: more than one makes it a batch. */
  readonly size: number
  readonly format?: BatchFormat
}

export interface Rate {
  /** Events that were stored a second. */
  readonly rate: number
  /** Processor time of the server for each of them, in microseconds. */
  readonly cpu: number
  /** How much of a core that was, in percent: where it is far below a hundred, the load was what took its time. */
  readonly core: number
}

/** Each connection always has so many requests under way: it sends the next when one was answered. */
export async function closedLoop(
  bench: Bench,
  server: Server,
  publishers: Publishers,
  { underWay, size, format = 'json' }: LoopOptions
): Promise<Rate> {
  let running = true
  for (const connection of publishers.connections) {
    connection.onAnswer = () => {
      if (!running) return
      const room = underWay - connection.underWay
      if (size === 1) publishers.publish(room, undefined, connection)
      else
        for (let left = room; left > 0; left--) publishers.publishBatch(size, undefined, connection, format)
    }
    connection.onAnswer()
  }
  await sleep(bench.size(2000, 200))
  const [answered, cpuBefore, started] = [publishers.answered, server.cpu(), performance.now()]
  server.toggleProfile()
  await sleep(bench.size(6000, 400))
  server.toggleProfile()
  const seconds = (performance.now() - started) / 1000
  const cpu = server.cpu() - cpuBefore
  const stored = (publishers.answered - answered) * size
  running = false
  await publishers.settled()
  return {
    rate: Math.round(stored / seconds),
    cpu: round(cpu / stored),
    core: Math.round(cpu / seconds / 1e4)
  }
}
