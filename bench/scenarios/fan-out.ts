import { audience, during, EVERYONE, round, type Bench, type Figures, type Scenario } from '../scenario.ts'

const EVENTS_PER_SECOND = 40

export const fanOut: Scenario = {
  name: 'fan-out',
  about:
    '1,000 subscribers of one topic, one event of 122 bytes at a time, 40 a second: what a delivery costs the server, ' +
    'and how long it takes.',
  peers: EVERYONE.filter(name => name !== 'ringside-ws'),
  columns: [
    { key: 'cpu', title: 'CPU a delivery, µs', digits: 2, floor: 'net' },
    { key: 'p50', title: 'p50, ms', digits: 1 },
    { key: 'p99', title: 'p99, ms', digits: 1, floor: 'net' }
  ],
  measure: oneAtATime
}

/** What a delivery costs the server, and how long it takes, when nothing else is under way. */
export async function oneAtATime(bench: Bench): Promise<Figures> {
  const server = await bench.start()
  const publishers = await bench.publishers(server, 1)
  const subscribers = await audience(bench, server, publishers, bench.size(1000, 200))
  const { cpu, events } = await during(server, subscribers, () =>
    publishers.paced(EVENTS_PER_SECOND, bench.size(10, 0.5))
  )
  const { latency } = subscribers
  const figures = {
    cpu: round(cpu / events, 2),
    p50: round(latency.percentile(50), 2),
    p99: round(latency.percentile(99), 2)
  }
  await subscribers.close()
  await server.stop()
  return figures
}
