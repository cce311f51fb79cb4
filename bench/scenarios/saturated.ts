import {
  audience,
  during,
  EVERYONE,
  round,
  saturate,
  type Bench,
  type Figures,
  type Scenario
} from '../scenario.ts'

export const saturated: Scenario = {
  name: 'saturated',
  about:
    '1,000 subscribers of one topic, and as many events of 122 bytes as it takes: 16 publishers, each of which sends ' +
    'its next event when the one before was answered and it has at most 256 under way that are not delivered (4 and ' +
    '32 for those that would only queue more).',
  peers: EVERYONE.filter(name => name !== 'ringside-ws'),
  quickPeers: ['net-tick', 'ringside'],
  columns: [
    { key: 'deliveries', title: 'deliveries/s', floor: 'net-tick' },
    { key: 'cpu', title: 'CPU a delivery, µs', digits: 3, floor: 'net-tick' },
    { key: 'p50', title: 'p50, ms', digits: 1 },
    { key: 'p99', title: 'p99, ms', digits: 1, floor: 'net-tick' },
    { key: 'lost', title: 'lost' }
  ],
  measure: asManyAsItTakes
}

/** How many deliveries a second there are, and what each costs, when the server is never idle. */
export async function asManyAsItTakes(bench: Bench): Promise<Figures> {
  const { publishers: connections, window } = bench.peer.pressure
  // the ring must hold what is under way, or who falls behind is told of a gap
  const server = await bench.start({ RING_SIZE: '10000' })
  const publishers = await bench.publishers(server, connections)
  const subscribers = await audience(bench, server, publishers, bench.size(1000, 200))
  await saturate(publishers, subscribers, window, bench.size(3, 0.2)) // until the compiler has seen it
  let lost = 0
  const { cpu, events, seconds } = await during(server, subscribers, async () => {
    lost = (await saturate(publishers, subscribers, window, bench.size(8, 0.4))).lost
  })
  const { latency } = subscribers
  return {
    deliveries: Math.round(events / seconds),
    cpu: round(cpu / events, 3),
    p50: round(latency.percentile(50), 2),
    p99: round(latency.percentile(99), 2),
    lost
  }
}
