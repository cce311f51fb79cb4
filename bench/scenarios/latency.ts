import type { Publishers } from '../load/publishers.ts'
import type { Server } from '../load/server.ts'
import type { Subscribers } from '../load/subscribers.ts'
import { audience, drained, during, PLAIN, round, type Bench, type Scenario } from '../scenario.ts'

export const latency: Scenario = {
  name: 'latency',
  about:
    '1,000 subscribers, one event at a time, so many a second as keep the server’s core half busy (each by what a ' +
    'delivery costs it): from the publish to the subscriber, both in the load’s process.',
  peers: PLAIN,
  quickPeers: ['ringside'],
  columns: [
    { key: 'rate', title: 'events/s', digits: 0 },
    { key: 'load', title: 'load, %', digits: 0 },
    { key: 'p50', title: 'p50, ms', digits: 1, floor: 'net' },
    { key: 'p99', title: 'p99, ms', digits: 1, floor: 'net' },
    { key: 'p999', title: 'p99.9, ms', digits: 1 }
  ],
  async measure(bench) {
    const server = await bench.start()
    const publishers = await bench.publishers(server, 1)
    const subscribers = await audience(bench, server, publishers, bench.size(1000, 200))
    const rate = await halfBusy(bench, server, publishers, subscribers)
    const { cpu, seconds } = await during(server, subscribers, () =>
      publishers.paced(rate, bench.size(8, 0.5))
    )
    const { latency: samples } = subscribers
    return {
      rate: round(rate),
      load: round(cpu / seconds / 1e4),
      p50: round(samples.percentile(50), 2),
      p99: round(samples.percentile(99), 2),
      p999: round(samples.percentile(99.9), 2)
    }
  }
}

/** How many events a second to these subscribers keep the server's core half busy. */
export async function halfBusy(
  bench: Bench,
  server: Server,
  publishers: Publishers,
  subscribers: Subscribers
): Promise<number> {
  let rate = 40
  for (let tries = 0; tries < 2; tries++) {
    const { cpu, events } = await during(server, subscribers, () =>
      publishers.paced(rate, bench.size(3, 0.3))
    )
    rate = (0.5 * 1e6 * events) / subscribers.streams / cpu
    await drained(subscribers)
  }
  return rate
}
