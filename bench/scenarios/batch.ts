import { audience, during, round, type Scenario } from '../scenario.ts'

const BATCH = 50
const BATCHES_PER_SECOND = 10

export const batch: Scenario = {
  name: 'batch',
  about:
    '1,000 subscribers, ten batches of 50 events a second: `POST /events` where there is such a thing, else 50 ' +
    'requests in one write.',
  peers: ['net', 'net-tick', 'ringside', 'ws', 'nchan', 'centrifugo', 'centrifuge'],
  quickPeers: ['net-tick', 'ringside'],
  columns: [
    { key: 'cpu', title: 'CPU a delivery, µs', digits: 3, floor: 'net-tick' },
    { key: 'p50', title: 'p50, ms', digits: 1 },
    { key: 'p99', title: 'p99, ms', digits: 1, floor: 'net-tick' },
    { key: 'deliveries', title: 'deliveries/s' }
  ],
  async measure(bench) {
    const server = await bench.start()
    const publishers = await bench.publishers(server, 1)
    const subscribers = await audience(bench, server, publishers, bench.size(1000, 200))
    const { seconds, events, cpu } = await during(server, subscribers, () =>
      publishers.paced(BATCHES_PER_SECOND, bench.size(10, 0.5), () => publishers.publishBatch(BATCH))
    )
    return {
      cpu: round(cpu / events, 3),
      p50: round(subscribers.latency.percentile(50)),
      p99: round(subscribers.latency.percentile(99)),
      deliveries: Math.round(events / seconds)
    }
  }
}
