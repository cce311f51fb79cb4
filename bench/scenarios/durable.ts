import { closedLoop, type Rate } from '../load/closed-loop.ts'
import type { Server } from '../load/server.ts'
import type { Bench, Scenario } from '../scenario.ts'

/** How many events are under way: each on a connection of its own, so that nobody has to read ahead. */
const UNDER_WAY = { many: 256, few: 16 }

export const durable: Scenario = {
  name: 'durable',
  about:
    'Events stored on disk a second, with nobody there: each of 256 and of 16 connections sends its next one when the one ' +
    'before was answered, which is when it has been flushed; and what each takes of the server’s processor. Ringside in memory stands ' +
    'beside it, for what HTTP takes.',
  peers: ['ringside', 'ringside-disk', 'ringside-disk-ws', 'mercure', 'plain-log', 'bbolt'],
  columns: [
    { key: 'many', title: 'events/s, 256 under way', floor: 'plain-log' },
    { key: 'manyCpu', title: 'CPU an event, µs', digits: 1 },
    { key: 'few', title: 'events/s, 16 under way', floor: 'plain-log' },
    { key: 'fewCpu', title: 'CPU an event, µs', digits: 1 }
  ],
  async measure(bench) {
    const server = await bench.start()
    const many = await rateOf(bench, server, UNDER_WAY.many)
    const few = await rateOf(bench, server, UNDER_WAY.few)
    return { many: many.rate, manyCpu: many.cpu, few: few.rate, fewCpu: few.cpu }
  }
}

async function rateOf(bench: Bench, server: Server, connections: number): Promise<Rate> {
  const publishers = await bench.publishers(server, connections)
  return closedLoop(bench, server, publishers, { underWay: 1, size: 1 })
}
