import { ok, wrong, type Check, type Outcome } from './check.ts'
import { LeftOut } from './faults.ts'
import { Listening } from './listening.ts'
import { Talk } from './websocket.ts'
import { reasonOf, type Way } from './way.ts'

/** What is held. */
interface Held {
  /** When it was cut, by the clock that measures. Throws `LeftOut` where Ringside itself has ended it. */
  readonly endedAt: () => number | undefined
  close(): void
}

/** The close codes that Ringside ends a WebSocket with: it stops, it is full, the token has run out. */
const OWN_CODES = [1001, 1013, 4401]

/**
 * Holds streams and a WebSocket for so many milliseconds. On the living one an event comes each second: what cuts it cuts
 * all streams after so long. The silent ones have nothing but Ringside's own signs of life, each 15 s and each 20 s.
 */
export function holdings(ms: number): Check[] {
  return [
    {
      name: 'a silent stream',
      needs: ['read'],
      lasts: ms,
      run: way => hold(ms, () => stream(way, ''), 'idle')
    },
    {
      name: 'a living stream',
      needs: ['read'],
      lasts: ms,
      run: way => hold(ms, () => stream(way, 'heartbeat=1'), 'lifetime')
    },
    {
      name: 'a silent WebSocket',
      needs: ['read'],
      lasts: ms,
      run: way => hold(ms, () => talk(way), 'idle')
    }
  ]
}

async function hold(ms: number, open: () => Promise<Held>, advice: 'idle' | 'lifetime'): Promise<Outcome> {
  const began = performance.now()
  const held = await open()
  while (performance.now() - began < ms && held.endedAt() === undefined)
    await new Promise(resolve => setTimeout(resolve, Math.min(100, ms)))
  const endedAt = held.endedAt()
  held.close()
  if (endedAt === undefined) return ok(`it lives on after ${seconds(ms)}`)
  return wrong(`it was cut after ${seconds(endedAt - began)}`, advice)
}

async function stream(way: Way, query: string): Promise<Held> {
  const stream = await Listening.open(way, { query, topic: way.silentTopic, version: way.version })
  const endedAt = () => {
    stream.checkServed()
    return stream.endedAt
  }
  return { endedAt, close: () => stream.close() }
}

async function talk(way: Way): Promise<Held> {
  const talk = await Talk.open(way, way.origin).catch((error: unknown) => {
    throw new LeftOut(`there is none: ${reasonOf(error)}`)
  })
  const endedAt = () => {
    if (!talk.ended) return undefined
    const { at, code } = talk.ended
    if (OWN_CODES.includes(code)) throw new LeftOut(`Ringside itself has closed it: ${code}`)
    return at
  }
  return { endedAt, close: () => talk.cut() }
}

function seconds(ms: number): string {
  return ms >= 120_000 ? `${Math.round(ms / 60_000)} min` : `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`
}
