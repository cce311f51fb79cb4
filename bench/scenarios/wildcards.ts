import { setTimeout as sleep } from 'node:timers/promises'
import { Caller } from '../load/caller.ts'
import { MARKER } from '../load/event.ts'
import { Probe } from '../load/probe.ts'
import { missingRedis, redisUrl, startRedis } from '../load/redis.ts'
import type { Server } from '../load/server.ts'
import { RINGSIDE, round, type Bench, type Figures, type Scenario } from '../scenario.ts'
import type { StreamOptions } from '../peer.ts'

const FILTER = 'wide/*'
const BATCH = 1000
/** Batches that are sent before their answers are waited for. */
const TOGETHER = 10
/** How many topics have more than one event, and how many more these have. */
const BUSY_TOPICS = 5
const BUSY_EVENTS = 3000
const MISSED = BATCH
const PAGE = 100
/** How long one answer may take, in milliseconds: where the time grows with the square of the topics it never ends. */
const MOST_MS = 10_000
/** After this long a thing is not measured again, in milliseconds. */
const ENOUGH_MS = 10_000
const READY_MS = 10_000

/** No limit of a client; those that a build doesn't know, it doesn't read. */
const UNLIMITED = { READ_RATE: '0', WRITE_RATE: '0', WRITE_BYTES: '0', CONNECT_RATE: '0', RING_SIZE: '5000' }

const what =
  'topics under one wildcard, an event each, and five of them with 3,000 more. A stream that comes back 1,000 events ' +
  'before the end, when nobody has listened to the wildcard yet and then again; a stream that wants the newest event ' +
  'of each topic (`rewind=1`); the first page of 100 events of the last hour, and of one with `rate=1`: each until ' +
  'its last byte is there. And the longest time for which the server did nothing else meanwhile, not even answer ' +
  '`GET /livez`, which it was asked every 5 ms.'

const columns = [
  { key: 'cold', title: 'resumed first, ms', digits: 1 },
  { key: 'coldStill', title: 'standstill, ms', digits: 1 },
  { key: 'warm', title: 'resumed again, ms', digits: 1 },
  { key: 'warmStill', title: 'standstill, ms', digits: 1 },
  { key: 'rewind', title: 'rewound, ms' },
  { key: 'rewindStill', title: 'standstill, ms', digits: 1 },
  { key: 'page', title: 'a page, ms', digits: 1 },
  { key: 'pageStill', title: 'standstill, ms', digits: 1 },
  { key: 'newest', title: 'one with rate=1, ms', digits: 1 },
  { key: 'newestStill', title: 'standstill, ms', digits: 1 }
]

export const wildcards: Scenario = {
  name: 'wildcards',
  about: `On the memory broker, 100,000 ${what}`,
  peers: RINGSIDE,
  columns,
  measure: bench => readWide(bench, bench.size(100_000, 5000))
}

export const wildcardsRedis: Scenario = {
  name: 'wildcards-redis',
  about: `In Redis (on the load’s core), 20,000 ${what}`,
  peers: RINGSIDE,
  missing: missingRedis,
  columns,
  async measure(bench) {
    const redis = bench.onStop(await startRedis())
    return readWide(bench, bench.size(20_000, 5000), { REDIS_URL: redisUrl(redis) })
  }
}

async function readWide(
  bench: Bench,
  topics: number,
  settings: Record<string, string> = {}
): Promise<Figures> {
  const server = await bench.start({ ...UNLIMITED, ...settings })
  await ready(server)
  const after = await fill(bench, server, topics)
  await sleep(bench.size(1000, 50)) // its garbage is nobody's
  const probe = bench.onStop(await Probe.start(server))
  const caller = bench.onStop(new Caller(server.port))
  const stream = (options: StreamOptions, events: number) => () => untilAll(bench, server, options, events)
  const page = (query: string, events: number) => () => onePage(caller, query, events)

  const cold = await several(probe, 1, stream({ after }, MISSED))
  const warm = await several(probe, bench.size(10, 2), stream({ after }, MISSED))
  const pages = await several(probe, bench.size(20, 2), page(`limit=${PAGE}`, PAGE))
  const newest = await several(probe, bench.size(20, 2), page('rate=1&limit=1', 1))
  // at the end: a stream that was given up may leave the server busy
  const rewound = await several(probe, bench.size(5, 1), stream({ rewind: 1 }, topics))
  return {
    ...named('cold', cold),
    ...named('warm', warm),
    ...named('rewind', rewound),
    ...named('page', pages),
    ...named('newest', newest)
  }
}

/** It listens before Redis has answered it. */
async function ready({ port }: Server): Promise<void> {
  for (const deadline = Date.now() + READY_MS; Date.now() < deadline; await sleep(20))
    if ((await fetch(`http://127.0.0.1:${port}/readyz`)).ok) return
  throw new Error('the server does not become ready')
}

/** Publishes an event on each topic, first those of the busy ones. Returns the cursor behind which the last `MISSED` are. */
async function fill(bench: Bench, server: Server, topics: number): Promise<string> {
  const publishers = await bench.publishers(server, 1)
  const publish = async (events: number, topic: (index: number) => string) => {
    let next = 0
    while (next < events) {
      for (let batches = 0; batches < TOGETHER && next < events; batches++)
        publishers.publishBatch(Math.min(BATCH, events - next), () => topic(next++))
      await publishers.settled()
    }
  }
  const nameOf = (index: number) => `wide/${index}`
  await publish(BUSY_TOPICS * bench.size(BUSY_EVENTS, 20), index => nameOf(index % BUSY_TOPICS))
  const before = topics - MISSED - 1
  await publish(before, nameOf)
  publishers.publish(1, nameOf(before))
  await publishers.settled()
  const cursor = /"id":"([^"]+)"/.exec(publishers.connections[0]!.lastAnswer)?.[1]
  if (cursor === undefined) throw new Error('there is no cursor to come back with')
  await publish(MISSED, index => nameOf(before + 1 + index))
  return cursor
}

/**
 * How long it takes until a new stream has told all that it is to begin with, in milliseconds; Infinity when it is given
 * up.
 */
async function untilAll(
  bench: Bench,
  server: Server,
  options: StreamOptions,
  events: number
): Promise<number> {
  const subscribers = bench.subscribers(server)
  const all = new Promise<void>(resolve => (subscribers.reached = resolve))
  subscribers.threshold = events
  const started = performance.now()
  const open = async () => {
    await subscribers.open(1, { topics: [FILTER], ...options })
    if (subscribers.refused > 0) throw new Error(`the stream was refused: ${subscribers.refusal}`)
    // what comes with the head of the answer is not told by `reached`
    if (subscribers.events < events) await all
  }
  await Promise.race([open(), sleep(MOST_MS)])
  const milliseconds = performance.now() - started
  await subscribers.close()
  if (subscribers.events > events) throw new Error(`${subscribers.events} events came instead of ${events}`)
  return subscribers.events < events ? Infinity : milliseconds
}

/** How long it takes until a page is there, in milliseconds; Infinity when it is given up. */
async function onePage(caller: Caller, query: string, events: number): Promise<number> {
  const path = `/events?topic=${encodeURIComponent(FILTER)}&since=1h&${query}`
  const answer = await Promise.race([caller.get(path, { accept: 'application/json' }), sleep(MOST_MS, null)])
  if (answer === null) {
    await caller.stop()
    return Infinity
  }
  const came = answer.body.split(String.fromCharCode(MARKER)).length - 1
  if (came !== events) throw new Error(`${came} events came instead of ${events}`)
  return answer.milliseconds
}

interface Times {
  /** The median; Infinity when it was given up. */
  readonly milliseconds: number
  /** The longest of all times. */
  readonly standstill: number
}

async function several(probe: Probe, times: number, once: () => Promise<number>): Promise<Times> {
  const all: number[] = []
  let longest = 0
  for (const started = performance.now(); all.length < times;) {
    const { result, standstill } = await probe.during(once)
    all.push(result)
    longest = Math.max(longest, standstill)
    if (performance.now() - started > ENOUGH_MS) break
    await sleep(50) // until the server has closed the stream
  }
  all.sort((one, other) => one - other)
  return { milliseconds: all[Math.floor(all.length / 2)]!, standstill: longest }
}

function named(name: string, { milliseconds, standstill }: Times): Figures {
  const shown = milliseconds === Infinity ? `over ${MOST_MS.toLocaleString('en')}` : round(milliseconds)
  return { [name]: shown, [`${name}Still`]: round(standstill) }
}
