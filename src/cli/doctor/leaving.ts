import { ok, skipped, wrong, type Check, type Outcome } from './check.ts'
import { Talk } from './websocket.ts'
import { reasonOf, type Answer, type Way } from './way.ts'

/** How many streams go: more than come and go by themselves meanwhile, on a server that is not busy. */
const STREAMS = 4

/** How long the server may take to count those that are there, and then to notice that they are not, in milliseconds. */
const COUNTED_MS = 3000
const NOTICED_MS = 9000

/** How often it is asked, in milliseconds. */
const ASKED_MS = 200

/** The streams' signs of life are so far apart, in seconds; by default it would be 15. */
const SIGN_S = 4
const HEARTBEAT_S = 15

/** What takes longer was noticed when the server had something to write, in milliseconds. */
const AT_ONCE_MS = 2000

/** Streams of this kind have a gauge of their own, and few others use them. */
const GAUGE = /^ringside_connections\{transport="ndjson"\} (\d+)$/m

/** Whether Ringside notices that a client has gone, by what it counts: its metrics where they can be had, else members. */
export const leaving: Check = {
  name: 'a client that goes',
  needs: ['read'],
  kind: 'heavy',
  async run(way) {
    const before = await count(way)
    if (before !== undefined) return leaveStreams(way, before)
    const outcome = await leaveWebSocket(way)
    if (outcome.outcome !== 'ok') return outcome
    return ok(`${outcome.detail}; streams were not tested: /metrics can't be had from here`)
  }
}

/** Undefined where it can't be had. */
async function count(way: Way): Promise<number | undefined> {
  const { status, text } = await way.ask({ path: 'metrics', isBare: true, version: 'HTTP/1.1' })
  const [, number] = (status === 200 && GAUGE.exec(text)) || []
  return number === undefined ? undefined : Number(number)
}

/** `before`: how many there were. */
async function leaveStreams(way: Way, before: number): Promise<Outcome> {
  const streams = await Promise.all(Array.from({ length: STREAMS }, () => stream(way)))
  const isCounted = await becomes(way, COUNTED_MS, count => count >= before + STREAMS)
  for (const { body } of streams) body.destroy()
  if (isCounted === undefined)
    return skipped('the counts of /metrics are not of the instance that streams come to')
  // others may have come meanwhile
  const took = await becomes(way, NOTICED_MS, count => count <= before + STREAMS / 2)
  if (took === undefined)
    return wrong(
      "Ringside doesn't notice it, not even at the second sign of life: the stream stays",
      'leaving'
    )
  if (took < AT_ONCE_MS) return ok('a stream that is left is noticed at once')
  const signs = Math.ceil(took / 1000 / SIGN_S)
  return wrong(
    `a stream that is left is noticed at sign of life number ${signs} alone: after ${signs * HEARTBEAT_S} s (HEARTBEAT)`,
    'leaving'
  )
}

/** What stands in front shall take it for a stream of any EventSource. */
function stream(way: Way): Promise<Answer> {
  return way.openStream({
    path: way.eventsPath(`heartbeat=${SIGN_S}`),
    headers: { accept: 'application/x-ndjson, text/event-stream;q=0.1' }
  })
}

/** Resolves with after how many milliseconds it was so; undefined for not in time. */
async function becomes(
  way: Way,
  within: number,
  isSo: (count: number) => boolean
): Promise<number | undefined> {
  const began = performance.now()
  while (performance.now() - began < within) {
    const now = await count(way)
    if (now !== undefined && isSo(now)) return performance.now() - began
    await new Promise(resolve => setTimeout(resolve, ASKED_MS))
  }
  return undefined
}

/** Two join the topic, one goes, and the other must hear of it. */
async function leaveWebSocket(way: Way): Promise<Outcome> {
  const talks: Talk[] = []
  try {
    for (let count = 0; count < 2; count++) talks.push(await Talk.open(way, way.origin))
    const [stays, goes] = talks as [Talk, Talk]
    for (const talk of talks) {
      const answer = await talk.ask('join', { topic: way.topic })
      if (answer.op !== 'ok') return skipped(`members are not told: ${String(answer['message'])}`)
    }
    goes.cut()
    const left = await stays.hear(({ op }) => op === 'left', NOTICED_MS)
    return left
      ? ok('a WebSocket that is left is noticed at once')
      : wrong('Ringside does not notice a WebSocket that is left', 'leaving')
  } catch (error) {
    return skipped(`/metrics can't be had from here, nor a WebSocket: ${reasonOf(error)}`)
  } finally {
    for (const talk of talks) talk.cut()
  }
}
