import { ok, skipped, wrong, type Check, type Outcome } from './check.ts'
import { Listening } from './listening.ts'
import type { Way } from './way.ts'

/** How many streams are opened at once: fewer than Ringside lets a client open in a second. */
const AT_ONCE = 12

/** How long they may take, in milliseconds. */
const OPEN_MS = 5000

/** Which version of HTTP a browser would speak. */
export const httpVersion: Check = {
  name: 'HTTP version',
  needs: [],
  async run({ version, isSecure }) {
    if (!isSecure)
      return skipped('in clear browsers speak HTTP/1.1 alone, with six connections for all tabs together')
    if (version === 'HTTP/2') return ok('HTTP/2: all tabs share one connection')
    return wrong('HTTP/1.1 alone: of all tabs together the seventh stream hangs', 'http2')
  }
}

/** How many streams really open at once on one connection of HTTP/2, whatever is announced. */
export const streamsAtOnce: Check = {
  name: 'streams at once',
  needs: ['read', 'HTTP/2'],
  kind: 'heavy',
  async run(way) {
    const session = way.connect()
    const streams: Listening[] = []
    for (let count = 0; count < AT_ONCE; count++) {
      Listening.open(way, { version: 'HTTP/2', session }).then(
        stream => streams.push(stream),
        () => {} // it is not counted
      )
    }
    const opened = await all(streams)
    const announced = session.remoteSettings.maxConcurrentStreams
    const isServed = opened === AT_ONCE && (await hasRoom(way, session))
    session.destroy()
    return outcomeOf(opened, announced, isServed)
  }
}

/** Resolves with how many there are: at once when it is all of them, else when they have had time. */
async function all(streams: readonly Listening[]): Promise<number> {
  const until = performance.now() + OPEN_MS
  while (streams.length < AT_ONCE && performance.now() < until)
    await new Promise(resolve => setTimeout(resolve, 50))
  return streams.length
}

/** Whether something else is answered beside them. */
function hasRoom(way: Way, session: ReturnType<Way['connect']>): Promise<boolean> {
  const asking = { path: way.eventsPath('limit=1'), headers: { accept: 'application/json' } }
  return way.ask({ ...asking, version: 'HTTP/2', session }, OPEN_MS).then(
    () => true,
    () => false
  )
}

function outcomeOf(opened: number, announced: number | undefined, isServed: boolean): Outcome {
  const said = announced === undefined || announced > 2 ** 31 ? 'no limit' : `${announced}`
  if (opened < AT_ONCE)
    return wrong(`${opened} of ${AT_ONCE} open on one connection; announced: ${said}`, 'streams')
  if (!isServed) return wrong(`${opened} open, and nothing else is answered beside them`, 'streams')
  return ok(`${opened} of ${AT_ONCE} open on one connection; announced: ${said}`)
}
