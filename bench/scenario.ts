import { setTimeout as sleep } from 'node:timers/promises'
import { Publishers, type Publisher } from './load/publishers.ts'
import { Server, type ServerOptions } from './load/server.ts'
import { Subscribers } from './load/subscribers.ts'
import type { Peer } from './peer.ts'
import { COMPRESSING, peers, STORES } from './peers.ts'

/** What was measured, by the name of its column, and remarks. */
export type Figures = Record<string, number | string>

export interface Column {
  readonly key: string
  readonly title: string
  /** Digits after the point. */
  readonly digits?: number
  /** The peer whose figure this one is divided by, to give a ratio. */
  readonly floor?: string
  /** The figure of the same row that this one is divided by, to give a ratio. */
  readonly per?: string
}

export interface Scenario {
  readonly name: string
  /** What is done, in a sentence or two. */
  readonly about: string
  /** Who takes part. */
  readonly peers: readonly string[]
  /** Who takes part when it must be quick; the same when it isn't said. */
  readonly quickPeers?: readonly string[]
  readonly columns: readonly Column[]
  /** What to install beside the peers; null when it is there. */
  missing?(): string | null
  measure(bench: Bench): Promise<Figures>
}

export const RINGSIDE = ['ringside'] as const
/** Ringside as it comes, and over TLS. */
export const RINGSIDES = ['ringside', 'ringside-tls', 'ringside-http2'] as const
const SPECIAL: readonly string[] = [...STORES, ...COMPRESSING]
/** Everyone that can be subscribed to. */
export const EVERYONE = peers.map(({ name }) => name).filter(name => !SPECIAL.includes(name))
/** The same, but Ringside only as it comes. */
const OTHER_RINGSIDES = ['ringside-disk', 'ringside-tls', 'ringside-http2', 'ringside-ws']
export const PLAIN = EVERYONE.filter(name => !OTHER_RINGSIDES.includes(name))

/** What a scenario works with. Everything that it starts is stopped by `close`. */
export class Bench {
  readonly peer: Peer
  readonly quick: boolean
  readonly #settings: Record<string, string>
  readonly #started: { stop(): Promise<void> }[] = []

  constructor(peer: Peer, quick: boolean, settings: Record<string, string>) {
    this.peer = peer
    this.quick = quick
    this.#settings = settings
  }

  /** The size of a thing: this much, or that when it must be quick. */
  size(full: number, quick: number): number {
    return this.quick ? quick : full
  }

  async start(settings: Record<string, string> = {}, options: ServerOptions = {}): Promise<Server> {
    return this.onStop(await Server.start(this.peer.command({ ...this.#settings, ...settings }), options))
  }

  subscribers({ port }: Server): Subscribers {
    return new Subscribers(this.peer, port)
  }

  publishers({ port }: Server, count: number): Promise<Publishers> {
    return Publishers.connect(this.peer, port, count)
  }

  onStop<T extends { stop(): Promise<void> }>(started: T): T {
    this.#started.push(started)
    return started
  }

  async close(): Promise<void> {
    await Promise.all(this.#started.map(each => each.stop()))
  }
}

/** Opens so many subscribers and lets the server warm up on them. Throws when one is missing. */
export async function audience(
  bench: Bench,
  server: Server,
  publishers: Publishers,
  count: number,
  options: Parameters<Subscribers['open']>[1] = {}
): Promise<Subscribers> {
  await practise(bench, server, publishers)
  const subscribers = bench.subscribers(server)
  await subscribers.open(count, options)
  if (subscribers.refused > 0) throw new Error(`${subscribers.refused} were refused: ${subscribers.refusal}`)
  // all have their head, but some servers tell a channel of a subscriber only later
  for (let tries = 0; tries < 20; tries++) {
    const before = subscribers.events
    publishers.publish()
    if (await subscribers.received(before + count, 300)) break
  }
  await publishers.paced(100, bench.size(1, 0.3))
  await drained(subscribers)
  await publishers.settled()
  return subscribers
}

/** Publishes to one subscriber until the way of an event is compiled: that is done once, however long a server runs. */
async function practise(bench: Bench, server: Server, publishers: Publishers): Promise<void> {
  const one = bench.subscribers(server)
  await one.open(1)
  await publishers.paced(1000, bench.size(6, 0.3))
  await publishers.settled()
  await one.close()
}

/** Waits until nothing comes any more. */
export async function drained(subscribers: Subscribers): Promise<void> {
  await subscribers.received(Infinity, 200)
}

export interface Window {
  readonly seconds: number
  /** Events that were delivered. */
  readonly events: number
  /** Processor time of the server, in microseconds. */
  readonly cpu: number
}

/** What happens while something runs. What was still on its way when it ended belongs to it. */
export async function during(
  server: Server,
  subscribers: Subscribers,
  run: () => Promise<unknown>
): Promise<Window> {
  const started = performance.now()
  const cpu = server.cpu()
  const { events } = subscribers
  subscribers.latency.clear()
  server.toggleProfile()
  await run()
  server.toggleProfile()
  return {
    seconds: (performance.now() - started) / 1000,
    events: subscribers.events - events,
    cpu: server.cpu() - cpu
  }
}

/**
 * Publishes as fast as the server lets it for some seconds: each connection sends its next event when the one before was
 * answered, and while it has no more than `window` that are not delivered yet. What is lost on the way is made up for,
 * and told.
 */
export async function saturate(
  publishers: Publishers,
  subscribers: Subscribers,
  window: number,
  seconds: number
): Promise<{ lost: number }> {
  const { connections } = publishers
  const audience = subscribers.streams
  const mostUnderWay = window * connections.length
  const { sent: sentBefore } = publishers
  let origin = subscribers.events
  let lost = 0
  let running = true
  const pump = (connection: Publisher) => {
    if (!running || connection.underWay > 0) return
    const delivered = Math.floor((subscribers.events - origin) / audience)
    if (publishers.sent - sentBefore - delivered < mostUnderWay)
      return publishers.publish(1, undefined, connection)
    subscribers.threshold = origin + (delivered + 1) * audience
  }
  const pumpAll = () => connections.forEach(pump)
  subscribers.reached = pumpAll
  for (const connection of connections) connection.onAnswer = () => pump(connection)
  pumpAll()
  const deadline = performance.now() + seconds * 1000
  let seen = -1
  let silent = 0
  while (performance.now() < deadline) {
    await sleep(Math.min(50, deadline - performance.now()))
    silent = subscribers.events === seen ? silent + 1 : 0
    if (silent === 10) {
      const missing = (publishers.sent - sentBefore) * audience - (subscribers.events - origin)
      silent = 0
      lost += missing
      origin -= missing
      pumpAll()
    }
    seen = subscribers.events
  }
  running = false
  subscribers.threshold = Infinity
  return { lost }
}

export function round(value: number, digits = 1): number {
  return Number(value.toFixed(digits))
}

export const KIB = 1024
