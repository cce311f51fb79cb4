import { setTimeout as delay } from 'node:timers/promises'
import { skipped, wrong, type Check, type Finding, type Need, type Outcome } from './check.ts'
import { eventChecks } from './events.ts'
import { Fault, LeftOut } from './faults.ts'
import { holdings } from './holding.ts'
import { clocksCheck, tokenCheck } from './identity.ts'
import { leaving } from './leaving.ts'
import { away, lookWhileAway, preflight, resuming } from './resuming.ts'
import { largeBatch, longToken } from './room.ts'
import { httpVersion, streamsAtOnce } from './streams.ts'
import { survey, type Met, type Rights } from './survey.ts'
import { reasonOf, Way, type WayOptions } from './way.ts'
import { websocket } from './websocket.ts'

/** How long those that measure times may have it quiet, in milliseconds: the whole is to take less than 20 s. */
const QUIET_MS = 7000

/** How long a check may take besides what it is meant to, in milliseconds. */
const MOST_MS = 12_500

/** How to look. */
export interface DiagnosisOptions {
  /** For how many milliseconds streams are held. */
  readonly holdMs: number
  /** Ends it early. */
  readonly signal?: AbortSignal | undefined
  /** The time here, in milliseconds since the epoch. */
  readonly now?: () => number
}

/** Looks at everything, much of it at the same time; yields what it finds, in an order that stays the same. */
export async function* diagnose(
  where: WayOptions,
  { holdMs, signal, now = Date.now }: DiagnosisOptions
): AsyncGenerator<Finding> {
  const way = new Way(where)
  signal?.addEventListener('abort', () => way.close())
  try {
    const met = await survey(way)
    yield serverFinding(met, way)
    if (met.kind === 'away') yield named('while away', await lookWhileAway(way).catch(failed))
    if (met.kind !== 'Ringside' || met.unready !== undefined) return
    const { rights } = met
    for (const { check, outcome } of examine(way, rights, [
      tokenCheck(rights, now),
      clocksCheck(rights.read === true, now),
      httpVersion,
      ...eventChecks(rights.publish === true),
      streamsAtOnce,
      resuming,
      preflight,
      websocket,
      longToken,
      largeBatch,
      leaving,
      away,
      ...holdings(holdMs)
    ]))
      yield named(check.name, await outcome)
  } finally {
    way.close()
  }
}

interface Examined {
  readonly check: Check
  readonly outcome: Promise<Outcome>
}

/** Begins all of them; what is heavy, when those that measure times have their answers. */
function examine(way: Way, rights: Rights, checks: readonly Check[]): Examined[] {
  const begin = (check: Check): Examined => ({ check, outcome: perform(check, way, rights) })
  const timed = checks.filter(({ kind }) => kind === 'timed').map(begin)
  const measured = Promise.all(timed.map(({ outcome }) => outcome))
  const isQuiet = Promise.race([measured, delay(QUIET_MS, undefined, { ref: false })])
  return checks.map(check => {
    const known = timed.find(each => each.check === check)
    if (known) return known
    if (check.kind !== 'heavy') return begin(check)
    return { check, outcome: isQuiet.then(() => perform(check, way, rights)) }
  })
}

async function perform(check: Check, way: Way, rights: Rights): Promise<Outcome> {
  const missing = check.needs.map(need => lacking(need, way, rights)).find(why => why !== undefined)
  if (missing !== undefined) return skipped(missing)
  const most = (check.lasts ?? 0) + MOST_MS
  const done = new AbortController()
  const late = delay(most, wrong(`it has not come to an end within ${most / 1000} s`), {
    signal: done.signal
  })
  late.catch(() => {}) // it has come to an end
  const outcome = await Promise.race([check.run(way).catch(failed), late])
  done.abort()
  return outcome
}

function failed(error: unknown): Outcome {
  if (error instanceof LeftOut) return skipped(error.message)
  return wrong(reasonOf(error), error instanceof Fault ? error.advice : undefined)
}

/** Why there is none of what is needed; undefined where there is. */
function lacking(need: Need, way: Way, rights: Rights): string | undefined {
  if (need === 'HTTP/2') return way.version === need ? undefined : 'HTTP/2 is not spoken here'
  const right = rights[need]
  return right === true ? undefined : right
}

function serverFinding(met: Met, way: Way): Finding {
  if (met.kind !== 'Ringside') return named('server', wrong(met.detail))
  if (met.unready !== undefined) return named('server', wrong(`Ringside can't serve: ${met.unready}`))
  return named('server', {
    outcome: 'ok',
    detail: `Ringside answers at ${way.options.url}, over ${way.version}`
  })
}

function named(check: string, outcome: Outcome): Finding {
  return { check, ...outcome }
}
