import { setTimeout as sleep } from 'node:timers/promises'
import { InvalidArgumentError, type Command } from 'commander'
import { readRows, RecordingUnreadable, type Row } from '../recording.ts'
import { Failed } from './failed.ts'
import { addExamples } from './help.ts'
import { bar, Progress } from './progress.ts'
import { Refused, Sender } from './sending.ts'
import { addTarget, targetOf, type Target, type TargetOptions } from './target.ts'
import type { Env, Terminal } from './terminal.ts'

/** Which columns of the recording are what. */
interface Columns {
  readonly topicColumn: string
  readonly timeColumn: string
  readonly priceColumn: string
  /** The symbol of all rows, where no column says it. */
  readonly symbol?: string
}

interface Options extends TargetOptions, Columns {
  /** How many times as fast as it was recorded; infinite for as fast as it goes. */
  readonly speed: number
}

/** A quote as it is published, and when it was recorded, in milliseconds since the epoch. */
interface Quote {
  readonly line: number
  readonly time: number
  readonly json: string
}

/** The most quotes of a request, and after how many characters it takes no more. */
const MAX_QUOTES = 1000
const MAX_LENGTH = 1024 * 1024

/** How often the progress moves on while nothing is due, in milliseconds. */
const STEP_MS = 200

/**
 * Adds `ringside replay`: it plays a recording as live quotes. It fails (`Failed`) for a file that it can't read, and when
 * the server refuses a quote.
 */
export function addReplay(program: Command, env: Env, { err }: Terminal): void {
  const command = program
    .command('replay')
    .description(
      'play recorded data as live quotes: a row each, in the order and with the pace of their times'
    )
    .argument('<file>', 'a .csv whose first row names the columns, or an .ndjson of objects')
    .option('--topic-column <name>', 'the column that says the symbol', 'symbol')
    .option(
      '--time-column <name>',
      'the column that says the time: a date, or seconds or ms since 1970',
      'date'
    )
    .option('--price-column <name>', 'the column that says the price', 'price')
    .option('--symbol <symbol>', 'the symbol of all rows, where no column says it')
    .option('--speed <factor>', 'how many times as fast as it was recorded, or max', readSpeed, 1)
    .action(async (file: string, options: Options) => {
      const quotes = await readQuotes(file, options)
      await new Player(quotes, targetOf(options, env), line => err(`ringside: ${line}\n`)).play(options.speed)
    })
  addExamples(
    addTarget(command),
    'ringside replay prices.ndjson --topic-column symbol --time-column time --speed 60',
    'ringside replay data/stocks.csv --speed 2592000',
    'ringside replay data/sp500-2000.csv --symbol ^GSPC --price-column close --speed max'
  )
}

// --- the recording ---

/** By their times; those of the same time as they stand in the file. */
async function readQuotes(file: string, columns: Columns): Promise<Quote[]> {
  const quotes: Quote[] = []
  try {
    for await (const row of readRows(file)) quotes.push(quoteOf(row, columns))
  } catch (error) {
    throw error instanceof RecordingUnreadable ? new Failed(`${file}: ${error.message}`) : error
  }
  return quotes.sort((one, other) => one.time - other.time)
}

function quoteOf(row: Row, { topicColumn, timeColumn, priceColumn, symbol }: Columns): Quote {
  const time = timeOf(cellOf(row, timeColumn))
  if (Number.isNaN(time)) throw wrong(row, timeColumn, 'is no time')
  const price = row.columns.get(priceColumn)
  if (!Number.isFinite(cellOf(row, priceColumn))) throw wrong(row, priceColumn, 'is no number')
  const name = symbol ?? String(cellOf(row, topicColumn))
  // a column that is called so must not be another one
  const others = [...row.columns].filter(([column]) => column !== 'symbol' && column !== 'price')
  const members = [['symbol', JSON.stringify(name)], ['price', price], ...others]
  const json = members.map(([member, value]) => `${JSON.stringify(member)}:${value}`).join(',')
  return { line: row.line, time, json: `{${json}}` }
}

function cellOf(row: Row, column: string): unknown {
  const json = row.columns.get(column)
  if (json !== undefined) return JSON.parse(json)
  const columns = [...row.columns.keys()].join(', ')
  throw new RecordingUnreadable(`line ${row.line} has no ${column}; it has ${columns}`)
}

function wrong(row: Row, column: string, what: string): RecordingUnreadable {
  return new RecordingUnreadable(`line ${row.line}: ${column} ${what}: ${row.columns.get(column)}`)
}

/** From here on a number of seconds since the epoch would be a year after 5138: then it is milliseconds. */
const MILLISECONDS_FROM = 1e11

/** NaN for what is no time. */
function timeOf(cell: unknown): number {
  if (typeof cell === 'number') return cell >= MILLISECONDS_FROM ? cell : cell * 1000
  return typeof cell === 'string' ? Date.parse(cell) : NaN
}

// --- playing it ---

/** Plays quotes on a server. */
class Player {
  readonly #quotes: readonly Quote[]
  readonly #sender: Sender
  readonly #progress = new Progress()
  /** How many are stored. */
  #played = 0

  constructor(quotes: readonly Quote[], target: Target, say: (line: string) => void) {
    this.#quotes = quotes
    this.#sender = new Sender(target, Infinity, say)
  }

  async play(speed: number): Promise<void> {
    const began = performance.now()
    const first = this.#quotes[0]?.time ?? 0
    while (this.#played < this.#quotes.length) {
      const now = speed === Infinity ? Infinity : first + (performance.now() - began) * speed
      const due = this.#dueAt(now)
      if (due.length > 0) await this.#publish(due)
      else await this.#rest((this.#quotes[this.#played]!.time - now) / speed)
      this.#progress.show(this.#line)
    }
    this.#progress.end(this.#line)
  }

  /** As many of those that come next as go into one request. */
  #dueAt(now: number): Quote[] {
    const due: Quote[] = []
    let length = 0
    for (let next = this.#played; due.length < MAX_QUOTES && length < MAX_LENGTH; next++) {
      const quote = this.#quotes[next]
      if (!quote || quote.time > now) break
      due.push(quote)
      length += quote.json.length
    }
    return due
  }

  async #publish(quotes: readonly Quote[]): Promise<void> {
    const body = `[${quotes.map(({ json }) => json).join(',')}]`
    try {
      await this.#sender.send({ path: 'tickers', contentType: 'application/json', body })
    } catch (error) {
      if (!(error instanceof Refused)) throw error
      const [, index = 0] = /^\/(\d+)/.exec(error.errors[0]?.path ?? '') ?? []
      throw new Failed(`line ${quotes[Number(index)]!.line}: ${error.message.replace(/^\/\d+\//, '')}`)
    }
    this.#played += quotes.length
  }

  async #rest(ms: number): Promise<void> {
    // a timer takes no more than 24 days
    await sleep(Math.min(Math.max(1, ms), this.#progress.isShown ? STEP_MS : 60_000))
  }

  readonly #line = (): string => {
    const [played, all] = [this.#played, this.#quotes.length]
    const last = this.#quotes[Math.max(0, played - 1)]
    const when = last ? new Date(last.time).toISOString().slice(0, 16).replace('T', ' ') : ''
    const count = `${played.toLocaleString('en')} of ${all.toLocaleString('en')} quotes`
    return `${bar(all === 0 ? 1 : played / all)}  ${count}  ${when}`
  }
}

function readSpeed(text: string): number {
  if (text === 'max') return Infinity
  if (Number(text) > 0 && Number.isFinite(Number(text))) return Number(text)
  throw new InvalidArgumentError('A number above 0, or max.')
}
