import { setTimeout as sleep } from 'node:timers/promises'
import type { Publishers } from '../load/publishers.ts'
import { QUOTES } from '../load/quotes.ts'
import type { Server } from '../load/server.ts'
import type { Subscribers } from '../load/subscribers.ts'
import { TOPIC } from '../peers.ts'
import { KIB, RINGSIDE, round, type Bench, type Figures, type Scenario } from '../scenario.ts'

const EVENTS_PER_SECOND = 40

export const compression: Scenario = {
  name: 'compression',
  about:
    '1,000 subscribers of one topic, recorded quotes (frames of 109 bytes) one at a time, 40 a second, as they are and with gzip: bytes on the ' +
    'wire and processor time of the server a delivery; and what a stream that waits takes of memory (10,000, collected).',
  peers: RINGSIDE,
  columns: [
    { key: 'bytes', title: 'bytes a delivery', digits: 1 },
    { key: 'gzipBytes', title: 'gzip', digits: 1 },
    { key: 'fewer', title: 'times fewer', digits: 2 },
    { key: 'cpu', title: 'CPU a delivery, µs', digits: 2 },
    { key: 'gzipCpu', title: 'gzip, µs', digits: 2, per: 'cpu' },
    { key: 'idle', title: 'an idle stream, KiB', digits: 2 },
    { key: 'gzipIdle', title: 'gzip, KiB', digits: 2 }
  ],
  async measure(bench) {
    const plain = await deliveries(bench, false)
    const gzip = await deliveries(bench, true)
    return {
      bytes: plain.bytes,
      gzipBytes: gzip.bytes,
      fewer: round(plain.bytes / gzip.bytes, 2),
      cpu: plain.cpu,
      gzipCpu: gzip.cpu,
      idle: await idle(bench, false),
      gzipIdle: await idle(bench, true)
    } satisfies Figures
  }
}

/** What a delivery takes: bytes that come, and microseconds of the server. */
async function deliveries(bench: Bench, compressed: boolean): Promise<{ bytes: number; cpu: number }> {
  const server = await bench.start()
  const publishers = await bench.publishers(server, 1)
  const count = bench.size(1000, 200)
  const subscribers = await open(bench, server, count, compressed)
  await publish(bench, publishers, bench.size(200, 4))
  await settled(publishers, subscribers)
  const { bytes } = subscribers
  const cpu = server.cpu()
  const seconds = bench.size(10, 1)
  await publish(bench, publishers, EVENTS_PER_SECOND, seconds)
  await settled(publishers, subscribers)
  const delivered = EVENTS_PER_SECOND * seconds * count
  const spent = {
    bytes: round((subscribers.bytes - bytes) / delivered, 2),
    cpu: round((server.cpu() - cpu) / delivered, 2)
  }
  await subscribers.close()
  await server.stop()
  return spent
}

async function open(bench: Bench, server: Server, count: number, compressed: boolean): Promise<Subscribers> {
  const subscribers = bench.subscribers(server)
  await subscribers.open(count, { compressed })
  if (subscribers.refused > 0) throw new Error(`${subscribers.refused} were refused: ${subscribers.refusal}`)
  const isCompressed = /^content-encoding: gzip\r$/im.test(subscribers.lastHead)
  if (isCompressed !== compressed) throw new Error(`it began with ${subscribers.lastHead}`)
  return subscribers
}

/** Publishes quotes evenly; they begin anew when there are no more. */
function publish(bench: Bench, publishers: Publishers, perSecond: number, seconds = 3): Promise<void> {
  const [connection] = publishers.connections
  let next = 0
  return publishers.paced(perSecond, seconds, () =>
    connection!.send(bench.peer.publish(QUOTES[next++ % QUOTES.length]!, `${TOPIC}?type=quote`), 1)
  )
}

/** Waits until nothing comes any more. In what is compressed no events can be counted. */
async function settled(publishers: Publishers, subscribers: Subscribers): Promise<void> {
  await publishers.settled()
  for (let before = -1; before < subscribers.bytes;) {
    before = subscribers.bytes
    await sleep(200)
  }
}

/** KiB of memory by which the process grows for each stream that waits. */
async function idle(bench: Bench, compressed: boolean): Promise<number> {
  const server = await bench.start({}, { collectable: true })
  const warm = await open(bench, server, bench.size(500, 100), compressed)
  await warm.close()
  const before = await server.restingMemory()
  const count = bench.size(10_000, 1000)
  const subscribers = await open(bench, server, count, compressed)
  const grown = (await server.restingMemory()) - before
  await subscribers.close()
  await server.stop()
  return round(grown / count / KIB, 2)
}
