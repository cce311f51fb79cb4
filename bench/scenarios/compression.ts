import { request, type IncomingMessage } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { createGunzip } from 'node:zlib'
import type { Publishers } from '../load/publishers.ts'
import { QUOTES } from '../load/quotes.ts'
import type { Server } from '../load/server.ts'
import type { Subscribers } from '../load/subscribers.ts'
import { COMPRESSING, TOPIC } from '../peers.ts'
import { KIB, RINGSIDE, round, type Bench, type Figures, type Scenario } from '../scenario.ts'

/** So few that those who compress for each connection keep up: what waits would be compressed together. */
const EVENTS_PER_SECOND = 10

/** How long an event is waited for that is to come at once, in milliseconds. */
const PATIENCE_MS = 2000

export const compression: Scenario = {
  name: 'compression',
  about:
    '1,000 subscribers of one topic, recorded quotes (frames of 109 bytes) one at a time, 10 a second, as they are and with gzip: bytes on the ' +
    'wire and processor time of the server a delivery, of a proxy with what is behind it; after how long a client has read an event that comes ' +
    'compressed (the slowest of 20); and what a stream that waits takes of memory (10,000 of Ringside, 2,000 of the others; collected).',
  peers: [...RINGSIDE, ...COMPRESSING],
  columns: [
    { key: 'bytes', title: 'bytes a delivery', digits: 1 },
    { key: 'gzipBytes', title: 'gzip', digits: 1 },
    { key: 'fewer', title: 'times fewer', digits: 2 },
    { key: 'cpu', title: 'CPU a delivery, µs', digits: 2 },
    { key: 'gzipCpu', title: 'gzip, µs', digits: 2, per: 'cpu' },
    { key: 'read', title: 'gzip: read after, ms', digits: 1 },
    { key: 'idle', title: 'an idle stream, KiB', digits: 2 },
    { key: 'gzipIdle', title: 'gzip, KiB', digits: 2 }
  ],
  async measure(bench) {
    const plain = await deliveries(bench, false)
    const uncompressed = { bytes: plain.bytes, cpu: plain.cpu, idle: await idle(bench, false) }
    const read = await reading(bench)
    if (typeof read === 'string') return { ...uncompressed, read }
    const gzip = await deliveries(bench, true)
    return {
      ...uncompressed,
      gzipBytes: gzip.bytes,
      fewer: round(plain.bytes / gzip.bytes, 2),
      gzipCpu: gzip.cpu,
      read,
      gzipIdle: await idle(bench, true)
    } satisfies Figures
  }
}

/** After how many milliseconds a client has read an event that comes compressed, at worst; or why it never can. */
async function reading(bench: Bench): Promise<number | string> {
  const server = await bench.start()
  const publishers = await bench.publishers(server, 1)
  const reader = await GzipReader.open(server, bench.peer.subscribe({ compressed: true }))
  try {
    if (typeof reader === 'string') return reader
    let worst = 0
    for (const quote of QUOTES.slice(0, bench.size(20, 5))) {
      const started = performance.now()
      publishers.connections[0]!.send(bench.peer.publish(quote, `${TOPIC}?type=quote`), 1)
      while (!reader.text.includes(quote)) {
        if (performance.now() - started > PATIENCE_MS) return 'holds events back'
        await sleep(1)
      }
      worst = Math.max(worst, performance.now() - started)
      await sleep(100)
    }
    return round(worst)
  } finally {
    if (typeof reader !== 'string') reader.close()
    await server.stop()
  }
}

/** A client that decompresses what comes, as soon as it has. */
class GzipReader {
  text = ''
  readonly #response: IncomingMessage

  private constructor(response: IncomingMessage) {
    this.#response = response
    const gunzip = response.pipe(createGunzip())
    gunzip.on('data', (bytes: Buffer) => (this.text += bytes.toString())).on('error', () => {})
    response.on('error', () => {}) // it is closed by us
  }

  /** Sends a request for a stream; resolves with why there is none that is compressed, if so. */
  static open({ port }: Server, head: string): Promise<GzipReader | string> {
    const [first, ...lines] = head.trim().split('\r\n')
    const headers = Object.fromEntries(lines.map(line => line.split(': ')))
    return new Promise((resolve, reject) => {
      const sent = request({ port, host: '127.0.0.1', path: first!.split(' ')[1], headers, agent: false })
      const late = setTimeout(() => {
        resolve('holds events back')
        sent.destroy()
      }, PATIENCE_MS)
      sent.on('error', reject).on('response', response => {
        clearTimeout(late)
        if (response.headers['content-encoding'] === 'gzip') return resolve(new GzipReader(response))
        resolve('does not compress')
        response.on('error', () => {}).destroy()
      })
      sent.end()
    })
  }

  close(): void {
    this.#response.destroy()
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

function isRingside({ peer }: Bench): boolean {
  return !COMPRESSING.some(name => name === peer.name)
}

/** KiB of memory by which the process grows for each stream that waits. */
async function idle(bench: Bench, compressed: boolean): Promise<number> {
  const server = await bench.start({}, { collectable: true })
  const warm = await open(bench, server, bench.size(500, 100), compressed)
  await warm.close()
  const before = await server.restingMemory()
  const count = isRingside(bench) ? bench.size(10_000, 1000) : bench.size(2000, 300)
  const subscribers = await open(bench, server, count, compressed)
  const grown = (await server.restingMemory()) - before
  await subscribers.close()
  await server.stop()
  return round(grown / count / KIB, 2)
}
