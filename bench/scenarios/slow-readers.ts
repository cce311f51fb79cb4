import { setTimeout as sleep } from 'node:timers/promises'
import { metric } from '../metrics.ts'
import {
  audience,
  drained,
  KIB,
  RINGSIDE,
  round,
  type Bench,
  type Figures,
  type Scenario
} from '../scenario.ts'

export const slowReaders: Scenario = {
  name: 'slow-readers',
  about:
    '1,000 subscribers stop reading for a minute, 1,000 others read on; 1,000 events a second, in batches of 50. What ' +
    'the slow ones cost in memory, and the others in time; whether they get everything in order, or a gap, when ' +
    'they read on; and whether those that never do are ended (at `STALL_TIMEOUT`).',
  peers: RINGSIDE,
  columns: [
    { key: 'before', title: 'p99 of the others before, ms', digits: 1 },
    { key: 'meanwhile', title: 'meanwhile, ms', digits: 1, per: 'before' },
    { key: 'memory', title: 'memory a slow one, KiB', digits: 1 },
    { key: 'lagging', title: 'lagging' },
    { key: 'gaps', title: 'gaps told' },
    { key: 'wrong', title: 'wrong' },
    { key: 'ended', title: 'ended of the stalled' }
  ],
  async measure(bench) {
    return { ...(await readOn(bench)), ...(await stall(bench)) }
  }
}

/** They stop, and read on before they are given up. */
async function readOn(bench: Bench): Promise<Figures> {
  const count = bench.size(1000, 20)
  // the kernel's buffers take some megabytes of each connection before the server has to hold anything
  const batch = bench.size(50, 1000)
  const seconds = bench.size(60, 1.5)
  const server = await bench.start({ STALL_TIMEOUT: '120s', ...(bench.quick && { SEND_BUFFER: '16 KiB' }) })
  const publishers = await bench.publishers(server, 1)
  const others = await audience(bench, server, publishers, count)
  const batches = (forSeconds: number) =>
    publishers.paced(20, forSeconds, () => publishers.publishBatch(batch))

  await batches(bench.size(10, 0.5))
  await drained(others)
  others.latency.clear()
  await batches(bench.size(10, 0.5))
  const before = others.latency.percentile(99)
  await drained(others)

  const slow = bench.subscribers(server)
  await slow.open(count, { checked: true })
  const memoryBefore = await server.settledMemory()
  slow.stopReading()
  others.latency.clear()
  await batches(seconds)
  const meanwhile = others.latency.percentile(99)
  const lagging = await metric(server, 'ringside_lagging_connections')
  const memory = await server.settledMemory()

  slow.readOn()
  await batches(bench.size(10, 0.5))
  await drained(slow)
  const { sent } = publishers
  const last = slow.events
  publishers.publish()
  const allLive = await slow.received(last + count)
  await server.stop()
  return {
    before: round(before, 2),
    meanwhile: round(meanwhile, 2),
    memory: round((memory - memoryBefore) / count / KIB),
    lagging,
    gaps: slow.gaps,
    wrong: slow.wrong,
    events: sent,
    live: allLive ? count : slow.events - last
  }
}

/** They stop, and never read on. */
async function stall(bench: Bench): Promise<Figures> {
  const count = bench.size(1000, 20)
  const server = await bench.start({ STALL_TIMEOUT: '1s', SEND_BUFFER: '16 KiB' })
  const publishers = await bench.publishers(server, 1)
  const slow = bench.subscribers(server)
  await slow.open(count)
  slow.stopReading()
  const deadline = performance.now() + bench.size(60_000, 6000)
  let left = count
  while (left > 0 && performance.now() < deadline) {
    // much at once: the kernel's buffers must be full before anybody can be seen to stall
    for (let times = 0; times < 20; times++) publishers.publishBatch(500)
    await sleep(250)
    left = await metric(server, 'ringside_connections')
  }
  await server.stop()
  return { ended: count - left, stalled: count }
}
