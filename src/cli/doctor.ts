import { randomBytes } from 'node:crypto'
import { InvalidArgumentError, type Command } from 'commander'
import { adviceFor, type AdviceId } from './doctor/advice.ts'
import type { Finding } from './doctor/check.ts'
import { Failed } from './failed.ts'
import { addExamples } from './help.ts'
import { addTarget, readUrl, targetOf, type TargetOptions } from './target.ts'
import type { Env, Terminal } from './terminal.ts'

interface Options extends TargetOptions {
  readonly minutes?: number
  readonly origin?: string
  readonly json?: true
}

/** For how long streams are held without `--minutes`, in milliseconds: longer than HEARTBEAT. */
const HOLD_MS = 16_000

/** The longest that they are, in minutes. */
const MOST_MINUTES = 1440

/**
 * Adds `ringside doctor`: it tests the way to a server, and prints what is wrong and what to change. It fails (`Failed`)
 * where something is wrong.
 */
export function addDoctor(program: Command, env: Env, { out, gone }: Terminal): void {
  const command = program
    .command('doctor')
    .description(
      'test the way from here to a running server, through whatever stands between, and say what to change'
    )
    .argument('[url]', 'where the server is; in place of --url', readUrl)
    .option('--minutes <n>', 'hold a silent and a living stream for n minutes, instead of 16 s', readMinutes)
    .option('--origin <origin>', 'a page of another server that shall be able to read this one', readOrigin)
    .option('--json', 'a line of JSON for each check: {"check","outcome","detail","advice"}')
    .action(async (url: string | undefined, options: Options) => {
      // the other commands need not wait for all that it loads
      const { diagnose } = await import('./doctor/diagnosis.ts')
      const { minutes, origin, json = false } = options
      const target = targetOf({ ...options, ...(url !== undefined && { url }) }, env)
      const topic = `doctor/${randomBytes(6).toString('hex')}`
      const holdMs = minutes === undefined ? HOLD_MS : minutes * 60_000
      const amiss: Finding[] = []
      let count = 0
      const where = { ...target, topic, pageOrigin: origin }
      for await (const finding of diagnose(where, { holdMs, signal: gone })) {
        if (gone?.aborted) return
        out(json ? `${JSON.stringify(asJson(finding))}\n` : lineOf(finding))
        count++
        if (finding.outcome === 'wrong') amiss.push(finding)
      }
      if (!json) out(prescriptionsFor(amiss))
      if (amiss.length > 0)
        throw new Failed(`${target.url}: ${amiss.length} of ${count} checks found a fault`)
    })
  addExamples(
    addTarget(command),
    'ringside doctor https://live.example.com --token "$(cat token)"',
    "ringside doctor --token \"$(ringside token --subscribe 'doctor/*' --publish 'doctor/*')\"",
    'ringside doctor https://live.example.com --origin https://app.example.com --minutes 20',
    'ringside doctor https://live.example.com --json | jq -r \'select(.outcome == "wrong").detail\''
  )
}

// --- what is printed ---

/** How wide a column is, in characters: as its longest word. */
const OUTCOME_WIDTH = 'skipped'.length
const CHECK_WIDTH = 'events, compressed'.length
const PROXY_WIDTH = 'ingress-nginx'.length

function lineOf({ outcome, check, detail }: Finding): string {
  return `${outcome.padEnd(OUTCOME_WIDTH)}  ${check.padEnd(CHECK_WIDTH)}  ${detail}\n`
}

function asJson({ check, outcome, detail, advice }: Finding): object {
  return { check, outcome, detail, ...(advice && { advice: adviceFor(advice) }) }
}

/** What to change, where it is known: once for all that is to be mended by the same. */
function prescriptionsFor(amiss: readonly Finding[]): string {
  const ids = new Set(amiss.flatMap(({ advice }) => advice ?? []))
  return [...ids]
    .map(id =>
      prescriptionOf(
        id,
        amiss.filter(({ advice }) => advice === id)
      )
    )
    .join('')
}

function prescriptionOf(id: AdviceId, findings: readonly Finding[]): string {
  const { why, lines } = adviceFor(id)
  const heads = findings.map(({ check, detail }) => `${check}: ${detail}\n`)
  const rows = Object.entries(lines).flatMap(([proxy, each]) =>
    each.map((line, index) => `  ${(index === 0 ? proxy : '').padEnd(PROXY_WIDTH)}  ${line}\n`)
  )
  return `\n${heads.join('')}  ${why}\n${rows.join('')}`
}

// --- options ---

function readMinutes(text: string): number {
  const minutes = Number(text)
  if (minutes > 0 && minutes <= MOST_MINUTES) return minutes
  throw new InvalidArgumentError(`A number above 0, up to ${MOST_MINUTES}.`)
}

function readOrigin(text: string): string {
  if (/^https?:\/\//.test(text) && URL.canParse(text) && new URL(text).origin === text) return text
  throw new InvalidArgumentError('An origin such as https://app.example.com, without a path.')
}
