import { audience, during, EVERYONE, round, type Scenario } from '../scenario.ts'

const EVENTS_PER_SECOND = 40

export const fanOut: Scenario = {
  name: 'fan-out',
  about:
    '1,000 subscribers of one topic, one event of 122 bytes at a time, 40 a second: what a delivery costs the server, ' +
    'and how long it takes.',
  peers: EVERYONE,
  columns: [
    { key: 'cpu', title: 'CPU a delivery, µs', digits: 2, floor: 'net' },
    { key: 'p50', title: 'p50, ms', digits: 1 },
    { key: 'p99', title: 'p99, ms', digits: 1, floor: 'net' }
  ],
  async measure(bench) {
    const server = await bench.start()
    const publishers = await bench.publishers(server, 1)
    const subscribers = await audience(bench, server, publishers, bench.size(1000, 200))
    const { cpu, events } = await during(server, subscribers, () =>
      publishers.paced(EVENTS_PER_SECOND, bench.size(10, 0.5))
    )
    return {
      cpu: round(cpu / events, 2),
      p50: round(subscribers.latency.percentile(50), 2),
      p99: round(subscribers.latency.percentile(99), 2)
    }
  }
}
