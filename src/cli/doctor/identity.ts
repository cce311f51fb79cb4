import { ok, skipped, wrong, type Check } from './check.ts'
import { Listening } from './listening.ts'
import type { Rights } from './survey.ts'
import type { Way } from './way.ts'

/** By how much clocks may differ, in milliseconds: JWT_CLOCK_TOLERANCE, as it is without another setting. */
const TOLERANCE_MS = 5000

/** A `Date` is of whole seconds. */
const SECOND_MS = 1000

/** What a token says of itself; nothing of it was checked. */
interface Payload {
  readonly sub?: unknown
  readonly exp?: unknown
  readonly nbf?: unknown
}

/** Whether Ringside takes the token, for how long, and what for. `now`: milliseconds since the epoch. */
export function tokenCheck(rights: Rights, now: () => number): Check {
  return {
    name: 'token',
    needs: [],
    async run({ options: { token }, topic }) {
      const may = `${rights.read === true ? 'may' : 'may not'} read and ${rights.publish === true ? 'may' : 'may not'} publish on ${topic}`
      if (token === undefined) return skipped(`none was given; without one you ${may}`)
      const payload = payloadOf(token)
      const times = payload && timesOf(payload, now())
      if (rights.refusal !== undefined)
        return wrong(`Ringside refuses it: ${rights.refusal}${times ? ` (by the clock here ${times})` : ''}`)
      const whose = typeof payload?.sub === 'string' ? `of ${payload.sub}: ` : ''
      return ok(`${whose}${may}${times ? `; ${times}` : ''}`)
    }
  }
}

/** Undefined for what is no JWT. */
function payloadOf(token: string): Payload | undefined {
  try {
    const payload = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as unknown
    return typeof payload === 'object' && payload !== null ? payload : undefined
  } catch {
    return undefined
  }
}

function timesOf({ exp, nbf }: Payload, now: number): string | undefined {
  if (typeof nbf === 'number' && nbf * 1000 > now) return `it is good in ${span(nbf * 1000 - now)}`
  if (typeof exp !== 'number') return undefined
  const left = exp * 1000 - now
  return left > 0 ? `it runs out in ${span(left)}` : `it ran out ${span(-left)} ago`
}

/** Whether the clocks here, on the way and of Ringside agree: tokens are for a time. */
export function clocksCheck(mayRead: boolean, now: () => number): Check {
  return {
    name: 'clocks',
    needs: [],
    async run(way) {
      const { headers } = await way.ask({
        path: way.eventsPath('limit=1'),
        headers: { accept: 'application/json' }
      })
      // of a time that was cut to whole seconds, the middle is the likeliest
      const date = Date.parse(headers.date ?? '') + SECOND_MS / 2 - now()
      if (Math.abs(date) > TOLERANCE_MS + SECOND_MS)
        return wrong(`the header Date is ${apart(date)} the clock here`, 'clocks')
      if (!mayRead) return ok('the header Date agrees with the clock here')
      const ringside = await clockOf(way, now)
      if (Math.abs(ringside) > TOLERANCE_MS)
        return wrong(`Ringside's clock is ${apart(ringside)} the clock here: tokens may be refused`, 'clocks')
      return ok(`Ringside's clock and the one here are ${Math.round(Math.abs(ringside))} ms apart`)
    }
  }
}

/** By how much Ringside's clock is ahead, in milliseconds, less what an event takes. */
async function clockOf(way: Way, now: () => number): Promise<number> {
  const stream = await Listening.open(way, { query: 'heartbeat=1', version: way.version })
  try {
    const heartbeat = () => stream.frames.find(({ type }) => type === 'heartbeat')
    await stream.until(() => heartbeat() !== undefined, 4000)
    const frame = heartbeat()
    if (!frame) throw new Error('no heartbeat has come, which would have told the time')
    const { time } = JSON.parse(frame.data) as { time: number }
    return time - (now() - (performance.now() - frame.at))
  } finally {
    stream.close()
  }
}

function apart(ms: number): string {
  return `${span(Math.abs(ms))} ${ms > 0 ? 'ahead of' : 'behind'}`
}

function span(ms: number): string {
  const seconds = Math.round(ms / 1000)
  if (seconds < 120) return `${seconds} s`
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`
}
