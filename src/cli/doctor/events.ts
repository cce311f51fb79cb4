import { setTimeout as delay } from 'node:timers/promises'
import { ok, wrong, type Check, type Outcome } from './check.ts'
import { LeftOut } from './faults.ts'
import { Listening, type Frame, type ListeningOptions } from './listening.ts'
import { judge, type Arrival } from './timing.ts'
import { isRingside, saidOf, type Way } from './way.ts'

/** A way to listen that something on the way may treat like no other. */
const VARIANTS = {
  'events, HTTP/1.1': { version: 'HTTP/1.1' },
  'events, compressed': { version: 'HTTP/1.1', headers: { 'accept-encoding': 'gzip' } },
  'events, HTTP/2': { version: 'HTTP/2', headers: { 'accept-encoding': 'gzip' } }
} as const satisfies Record<string, ListeningOptions>

type Variant = keyof typeof VARIANTS

/** How many events are sent, and how far apart, in milliseconds. */
const COUNT = 5
const APART_MS = 400

/** How long the last one may take, in milliseconds. */
const PATIENCE_MS = 1500

/** How far apart heartbeats are, in milliseconds. */
const HEARTBEAT_MS = 1000

/**
 * Whether timed events come one by one, as each kind of client would get them. All listen to the same events. Who may not
 * publish has the server's own heartbeats looked at.
 */
export function eventChecks(mayPublish: boolean): Check[] {
  let trial: Promise<Map<Variant, Outcome | Error>> | undefined
  const variants = (way: Way) =>
    (Object.keys(VARIANTS) as Variant[]).filter(
      name => VARIANTS[name].version === 'HTTP/1.1' || way.version === 'HTTP/2'
    )
  return (Object.keys(VARIANTS) as Variant[]).map(name => ({
    name,
    kind: 'timed',
    needs: VARIANTS[name].version === 'HTTP/2' ? ['read', 'HTTP/2'] : ['read'],
    run: async way => {
      trial ??= (mayPublish ? timeEvents : timeHeartbeats)(way, variants(way))
      const outcome = (await trial).get(name)!
      if (outcome instanceof Error) throw outcome
      return outcome
    }
  }))
}

/** Each variant's outcome; an error where its stream could not be had. */
async function timeEvents(way: Way, variants: readonly Variant[]): Promise<Map<Variant, Outcome | Error>> {
  const outcomes = new Map<Variant, Outcome | Error>()
  const streams = await Promise.all(variants.map(async name => [name, await streamOf(way, name)] as const))
  const open = new Map<Variant, Listening>()
  for (const [name, stream] of streams) {
    if (stream instanceof Error) outcomes.set(name, stream)
    else open.set(name, stream)
  }
  // a second time where it looks bad: what was late once may have had a busy machine
  for (const round of [0, 1]) {
    const amiss = [...open.keys()].filter(name => !isGood(outcomes.get(name)))
    if (amiss.length === 0) break
    const sent = await publishApart(way, round * COUNT)
    for (const [name, outcome] of await Promise.all(
      amiss.map(async name => [name, await outcomeOf(open.get(name)!, sent)] as const)
    ))
      outcomes.set(name, outcome)
  }
  for (const stream of open.values()) stream.close()
  return outcomes
}

function isGood(outcome: Outcome | Error | undefined): boolean {
  return outcome !== undefined && !(outcome instanceof Error) && outcome.outcome === 'ok'
}

async function streamOf(way: Way, variant: Variant): Promise<Listening | Error> {
  try {
    // with its head, events come: where none comes on it, those that are sent will show how bad it is
    return await Listening.open(way, VARIANTS[variant])
  } catch (error) {
    return error as Error
  }
}

interface Sent {
  readonly number: number
  readonly storedAt: number
}

async function publishApart(way: Way, from: number): Promise<Sent[]> {
  const sent: Promise<Sent>[] = []
  for (let number = from; number < from + COUNT; number++) {
    if (number > from) await delay(APART_MS)
    const publishing = publish(way, number)
    publishing.catch(() => {}) // told when all are waited for
    sent.push(publishing)
  }
  return Promise.all(sent)
}

async function publish(way: Way, number: number): Promise<Sent> {
  const reply = await way.ask({
    // nobody shall find it later
    path: way.eventsPath('ttl=60'),
    method: 'POST',
    headers: { 'content-type': 'text/plain' },
    body: String(number),
    version: 'HTTP/1.1'
  })
  if (reply.status === 201) return { number, storedAt: performance.now() }
  const said = `an event was answered ${saidOf(reply)}`
  throw isRingside(reply) ? new LeftOut(said) : new Error(said)
}

async function outcomeOf(stream: Listening, sent: readonly Sent[]): Promise<Outcome | Error> {
  const arrivals = await arrivalsOf(stream, sent)
  try {
    stream.checkServed()
  } catch (error) {
    return error as Error
  }
  const { endedAt, openedAt } = stream
  if (endedAt === undefined || arrivals.every(({ at }) => at !== undefined)) return judge(arrivals)
  return wrong(`the stream was cut after ${Math.round(endedAt - openedAt)} ms`, 'lifetime')
}

async function arrivalsOf(stream: Listening, sent: readonly Sent[]): Promise<Arrival[]> {
  const frameOf = ({ number }: Sent) =>
    stream.frames.find(({ type, data }) => type === 'message' && data === String(number))
  await stream.until(() => sent.every(frameOf), PATIENCE_MS)
  return sent.map(each => ({ storedAt: each.storedAt, at: frameOf(each)?.at }))
}

// --- without a publisher ---

async function timeHeartbeats(
  way: Way,
  variants: readonly Variant[]
): Promise<Map<Variant, Outcome | Error>> {
  const outcomes = variants.map(async name => [name, await heartbeatsOf(way, name)] as const)
  return new Map(await Promise.all(outcomes))
}

async function heartbeatsOf(way: Way, variant: Variant): Promise<Outcome | Error> {
  try {
    const stream = await Listening.open(way, { ...VARIANTS[variant], query: 'heartbeat=1' })
    const heartbeats = () => stream.frames.filter(({ type }) => type === 'heartbeat')
    await stream.until(() => heartbeats().length >= COUNT, COUNT * HEARTBEAT_MS + PATIENCE_MS)
    stream.close()
    return judgeHeartbeats(stream, heartbeats())
  } catch (error) {
    return error as Error
  }
}

function judgeHeartbeats(
  { frames, openedAt }: Pick<Listening, 'frames' | 'openedAt'>,
  heartbeats: readonly Frame[]
): Outcome {
  if (frames.length === 0) return wrong('nothing comes on a stream: it is held back', 'buffering')
  const times = heartbeats.map(({ at, data }) => at - (JSON.parse(data) as { time: number }).time)
  // what all of them have in common may be the clock's
  const spread = Math.max(...times) - Math.min(...times)
  if (spread > HEARTBEAT_MS / 2) return wrong(`${heartbeats.length} heartbeats came in lumps`, 'buffering')
  if (frames[0]!.at - openedAt > HEARTBEAT_MS / 2)
    return wrong('what a stream begins with came with the first heartbeat: one behind', 'compression')
  if (heartbeats.length < COUNT - 1)
    return wrong(`${heartbeats.length} of ${COUNT} heartbeats came`, 'buffering')
  return ok(`${heartbeats.length} heartbeats came one by one (how late they are shows an event alone)`)
}
