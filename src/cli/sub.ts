import { InvalidArgumentError, type Command } from 'commander'
import type { Gap, RingsideEvent, State, Why } from '../client/reconnect.ts'
import { Stream } from '../client/stream.ts'
import { isFilter } from '../event.ts'
import { itemsOf, memberOf } from '../wire/json.ts'
import { Failed } from './failed.ts'
import { addExamples } from './help.ts'
import { addTarget, targetOf, type Target, type TargetOptions } from './target.ts'
import type { Env, Terminal } from './terminal.ts'

interface Options extends TargetOptions {
  readonly after?: string
  readonly rewind?: number
  readonly since?: string
  readonly rate?: number
  readonly json?: true
}

/**
 * Adds `ringside sub`: it prints the events of some topics for as long as it runs, each exactly once and in order. It fails
 * (`Failed`) when the server refuses.
 */
export function addSub(program: Command, env: Env, terminal: Terminal): void {
  const command = program
    .command('sub')
    .description(
      'print what is published on topics, also across restarts of the server; gaps are told on standard error'
    )
    .argument('<topic...>', "topics; the last segment may be *, as in 'tickers/*'", addFilter)
    .option('--after <id>', 'first everything after this event')
    .option('--rewind <n>', 'first the last n events of each topic, 0 to 1000', readRewind)
    .option('--since <time>', 'first everything since then: 10m, or 2026-01-31T12:00:00Z')
    .option('--rate <r>', 'at most r events a second of each topic, always the newest; 0.1 to 100', readRate)
    .option('--json', 'the whole event as JSON, one a line: {"id","topic","type","time","data"}')
    .action((topics: string[], options: Options) => follow(topics, options, targetOf(options, env), terminal))
  addExamples(
    addTarget(command),
    'ringside sub orders alerts/deploys',
    "ringside sub 'tickers/*' --rewind 1 --json | jq .data.price",
    'ringside sub orders --after 1795513736091-0 >> orders.log',
    'ringside sub orders --url https://live.example.com --token "$(cat token)"'
  )
}

/** Resolves when nothing comes any more, or nobody reads it. */
function follow(
  topics: readonly string[],
  options: Options,
  target: Target,
  terminal: Terminal
): Promise<void> {
  const { after, rewind, since, rate, json = false } = options
  const { out, err, gone, ready } = terminal
  return new Promise((resolve, reject) => {
    const report = new Report(target.url, line => err(`ringside: ${line}\n`))
    const stream = new Stream(
      topics,
      { ...target, after, rewind, since, rate },
      {
        step({ event, gap }) {
          if (gap) report.gap(gap)
          if (event) out(`${textOf(event as SentEvent, json)}\n`)
        },
        state(state, why) {
          if (state === 'ended') resolve()
          else if (state === 'closed') reject(new Failed(`${target.url}: ${why?.reason}`))
          else report.state(state, why)
        },
        // who reads slowly is waited for: what comes meanwhile waits on the server
        ready: () => ready?.()
      },
      parse
    )
    gone?.addEventListener('abort', () => {
      stream.close()
      resolve()
    })
  })
}

// --- events ---

/** An event, and the JSON that it came as: there its numbers are as they were written. */
interface SentEvent extends RingsideEvent {
  readonly json: string
}

function parse(json: string): unknown {
  const said = JSON.parse(json) as { events?: object[] }
  if (!Array.isArray(said.events)) return Object.assign(said, { json })
  const texts = itemsOf(memberOf(json, 'events')!)
  return { ...said, events: said.events.map((event, index) => ({ ...event, json: texts[index] })) }
}

/** Text as it is, and JSON and bytes as the server has sent them. */
function textOf({ data, json }: SentEvent, whole: boolean): string {
  if (whole) return json
  if (data instanceof Uint8Array) return Buffer.from(data).toString('base64')
  // the data is the last member, and no string before it can hold this: its quotes would be escaped
  return typeof data === 'string' ? data : json.slice(json.indexOf('"data":') + '"data":'.length, -1)
}

// --- what else there is to say ---

/** Tells what becomes of the connection, each thing once. */
class Report {
  readonly #url: string
  readonly #say: (line: string) => void
  /** What was said last of a connection that is not as it should be. */
  #said: string | undefined

  constructor(url: string, say: (line: string) => void) {
    this.#url = url
    this.#say = say
  }

  gap({ reason, topics, after }: Gap): void {
    this.#say(`gap (${reason}): events on ${topics.join(', ')} are missing after ${after}`)
  }

  state(state: State, why: Why | undefined): void {
    if (state === 'stale')
      this.#amiss('the server is cut off from its store; until it is back nothing new can come')
    else if (state === 'polling') this.#amiss('no stream comes through; asking again and again instead')
    else if (why) this.#amiss(`${why.reason}${causeOf(why)}; trying again`)
    else if (this.#said !== undefined && (state === 'live' || state === 'catching-up')) {
      this.#said = undefined
      this.#say('connected again')
    }
  }

  #amiss(what: string): void {
    if (this.#said === what) return
    this.#said = what
    this.#say(`${this.#url}: ${what}`)
  }
}

/** What the system says of it: a fetch names that as the cause of its own error. */
function causeOf({ cause }: Why): string {
  const { message } = ((cause as Error | undefined)?.cause ?? {}) as { message?: string }
  // those of TLS have line ends
  return message ? ` (${message.trim().replace(/\s+/g, ' ')})` : ''
}

// --- options ---

function addFilter(text: string, before: string[] = []): string[] {
  if (!isFilter(text)) throw new InvalidArgumentError('Segments joined by /, of which the last may be *.')
  // it could be a segment, and is rather meant as in a token
  if (/(^|\/)\*\*$/.test(text))
    throw new InvalidArgumentError('** is for tokens; here * is one segment, the last.')
  return [...before, text]
}

function readRewind(text: string): number {
  if (/^\d{1,4}$/.test(text) && Number(text) <= 1000) return Number(text)
  throw new InvalidArgumentError('A whole number from 0 to 1000.')
}

function readRate(text: string): number {
  const rate = Number(text)
  if (rate >= 0.1 && rate <= 100) return rate
  throw new InvalidArgumentError('A number from 0.1 to 100.')
}
