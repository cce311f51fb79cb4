import type { Server } from '../load/server.ts'
import { metric } from '../metrics.ts'
import { RINGSIDE, round, type Bench, type Figures, type Scenario } from '../scenario.ts'

const MISSED = 100

export const resumeStorm: Scenario = {
  name: 'resume-storm',
  about:
    '10,000 clients come back at once with a cursor, and 100 missed events each, beside 10,000 that come without. ' +
    'Warm: the topic had a subscriber a moment ago. Cold: it had none, so that the broker must be asked.',
  peers: RINGSIDE,
  columns: [
    { key: 'fresh', title: 'fresh, s', digits: 2 },
    { key: 'warm', title: 'resumed warm, s', digits: 2, per: 'fresh' },
    { key: 'warmReads', title: 'broker reads' },
    { key: 'cold', title: 'resumed cold, s', digits: 2, per: 'fresh' },
    { key: 'coldReads', title: 'broker reads' }
  ],
  async measure(bench) {
    const count = bench.size(10_000, 300)
    const server = await bench.start()
    const publishers = await bench.publishers(server, 1)
    const first = bench.subscribers(server)
    await first.open(bench.size(500, 100))
    await first.close()
    await first.open(1)
    const cursor = /ringside-cursor: (\S+)/i.exec(first.lastHead)?.[1]

    const cold = 'cold'
    publishers.publish(1, cold)
    await publishers.settled()
    const coldCursor = /"id":"([^"]+)"/.exec(publishers.connections[0]!.lastAnswer)?.[1]
    if (!cursor || !coldCursor) throw new Error('there is no cursor to come back with')
    for (let left = MISSED; left > 0; left--) publishers.publish()
    for (let left = MISSED; left > 0; left--) publishers.publish(1, cold)
    await publishers.settled()

    const fresh = await storm(bench, server, count, 0, {})
    const warm = await storm(bench, server, count, MISSED, { after: cursor })
    const coldOne = await storm(bench, server, count, MISSED, { after: coldCursor, topics: [cold] })
    return {
      connections: count,
      fresh: fresh.seconds,
      freshCpu: fresh.cpu,
      ...named('warm', warm),
      ...named('cold', coldOne)
    }
  }
}

interface Storm {
  readonly seconds: number
  readonly cpu: number
  readonly reads: number
}

function named(name: string, { seconds, cpu, reads }: Storm): Figures {
  return { [name]: seconds, [`${name}Cpu`]: cpu, [`${name}Reads`]: reads }
}

async function storm(
  bench: Bench,
  server: Server,
  count: number,
  missed: number,
  options: { after?: string; topics?: string[] }
): Promise<Storm> {
  const readsBefore = await metric(server, 'ringside_broker_seconds_count', 'op="range"')
  const subscribers = bench.subscribers(server)
  const cpu = server.cpu()
  const started = performance.now()
  await subscribers.open(count, { ...options, concurrency: 256 })
  const all = await subscribers.received(count * missed)
  const seconds = round((performance.now() - started) / 1000, 3)
  if (!all || subscribers.events !== count * missed)
    throw new Error(`${subscribers.events} events came instead of ${count * missed}`)
  const used = Math.round((server.cpu() - cpu) / count)
  const reads = (await metric(server, 'ringside_broker_seconds_count', 'op="range"')) - readsBefore
  await subscribers.close()
  return { seconds, cpu: used, reads }
}
