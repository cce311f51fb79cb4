import { audience, drained, during, EVERYONE, round, saturate, type Scenario } from '../scenario.ts'

const EVENTS_PER_SECOND = 40

export const fanOut: Scenario = {
  name: 'fan-out',
  about:
    '1,000 subscribers of one topic, events of 122 bytes. First one event at a time, 40 a second: what a delivery ' +
    'costs the server. Then as many as it takes: 16 publishers, each of which sends its next event when the one ' +
    'before was answered and it has at most 256 under way that are not delivered (4 and 32 for those that would only ' +
    'queue more).',
  peers: EVERYONE,
  columns: [
    { key: 'cpu', title: 'CPU a delivery, µs', digits: 2, floor: 'net' },
    { key: 'p99', title: 'p99, ms', digits: 1 },
    { key: 'saturated', title: 'saturated: deliveries/s', floor: 'net-tick' },
    { key: 'saturatedP50', title: 'p50, ms', digits: 1 },
    { key: 'saturatedP99', title: 'p99, ms', digits: 1, floor: 'net-tick' },
    { key: 'lost', title: 'lost' }
  ],
  async measure(bench) {
    const count = bench.size(1000, 500)
    const { pressure } = bench.peer
    // the ring must hold what is under way, or who falls behind is told of a gap
    const server = await bench.start({ RING_SIZE: '10000' })
    const publishers = await bench.publishers(server, pressure.publishers)
    const subscribers = await audience(bench, server, publishers, count)

    const single = await during(server, subscribers, () =>
      publishers.paced(EVENTS_PER_SECOND, bench.size(10, 1))
    )
    const p99 = subscribers.latency.percentile(99)
    await drained(subscribers)

    await saturate(publishers, subscribers, pressure.window, bench.size(3, 0.3)) // until the compiler has seen it
    let lost = 0
    const full = await during(server, subscribers, async () => {
      lost = (await saturate(publishers, subscribers, pressure.window, bench.size(10, 0.7))).lost
    })
    return {
      cpu: round(single.cpu / single.events, 2),
      p99: round(p99),
      saturated: Math.round(full.events / full.seconds),
      saturatedP50: round(subscribers.latency.percentile(50)),
      saturatedP99: round(subscribers.latency.percentile(99)),
      saturatedCpu: round(full.cpu / full.events, 3),
      lost
    }
  }
}
