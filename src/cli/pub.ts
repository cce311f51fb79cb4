import { randomUUID } from 'node:crypto'
import { InvalidArgumentError, type Command } from 'commander'
import { isTopic, KEY_PATTERN, TYPE_PATTERN } from '../event.ts'
import { cutLines } from '../lines.ts'
import { Failed } from './failed.ts'
import { addExamples } from './help.ts'
import { GivenUp, Refused, Sender } from './sending.ts'
import { addTarget, targetOf, type TargetOptions } from './target.ts'
import type { Env, Terminal } from './terminal.ts'

interface Options extends TargetOptions {
  readonly type?: string
  readonly key?: string
}

/** For how long a single event is tried, in milliseconds: a server may be about to start. */
const PATIENCE_MS = 10_000

/** The most lines of a request, and after how many bytes it takes no more. */
const MAX_LINES = 1000
const MAX_BYTES = 1024 * 1024

/** The longest line, in bytes: more than any server takes. */
const MAX_LINE = 16 * 1024 * 1024

const JSON_TYPE = 'application/json'

/**
 * Adds `ringside pub`: it publishes an event, or each line of standard input as one. It fails (`Failed`) when the server
 * refuses one, and the ones before it are stored then.
 */
export function addPub(program: Command, env: Env, { out, err }: Terminal): void {
  const command = program
    .command('pub')
    .description('publish an event and print its id, or each line of standard input as an event')
    .argument('<topic>', 'where to publish it', readTopic)
    .argument(
      '<data>',
      'JSON or text; - for standard input, an event a line, each sent again until it is stored'
    )
    .option('--type <type>', 'the type of the event; default: message', readType)
    .option(
      '--key <key>',
      'the same key again within 10 minutes stores nothing; of lines, with their numbers',
      readKey
    )
    .action(async (topic: string, data: string, options: Options) => {
      const target = targetOf(options, env)
      const say = (line: string) => err(`ringside: ${line}\n`)
      const isInput = data === '-'
      const sender = new Sender(target, isInput ? Infinity : PATIENCE_MS, say)
      const publisher = new Publisher(topic, options, sender)
      if (isInput) await publisher.publishLines(process.stdin)
      else out(`${await publisher.publishOnce(data)}\n`)
    })
  addExamples(
    addTarget(command),
    "ringside pub orders 'Hello!'",
    `ringside pub orders '{"item":"tea"}' --type order --key order-17`,
    'tail -f app.log | ringside pub logs/app -',
    'ringside pub imports - --key import-17 < events.ndjson'
  )
}

/** Publishes on a topic. */
class Publisher {
  readonly #topic: string
  readonly #options: Options
  readonly #sender: Sender
  #line = 1

  constructor(topic: string, options: Options, sender: Sender) {
    this.#topic = topic
    this.#options = options
    this.#sender = sender
  }

  /** Resolves with the id. Whoever doesn't know whether it was stored is told how to find out. */
  async publishOnce(data: string): Promise<string> {
    const { key = randomUUID() } = this.#options
    try {
      return await this.#publish(data, key)
    } catch (error) {
      if (!(error instanceof GivenUp) || !error.unsure) throw error
      throw new Failed(`${error.message}; with --key ${key} it can be published again, and is stored once`)
    }
  }

  async #publish(data: string | Uint8Array, key: string | undefined): Promise<string> {
    const { type } = this.#options
    const path = `events/${this.#topic.split('/').map(encodeURIComponent).join('/')}`
    const { id } = await this.#sender.send({
      path: type === undefined ? path : `${path}?type=${encodeURIComponent(type)}`,
      contentType: typeof data === 'string' && isJson(data) ? JSON_TYPE : 'text/plain',
      body: data,
      key
    })
    return id as string
  }

  /** One line after the other, in their order. What is read and not stored yet is little. */
  async publishLines(chunks: AsyncIterable<Uint8Array>): Promise<void> {
    const tooLong = () => new Failed(`a line has more than ${MAX_LINE} bytes`)
    for await (const lines of cutLines(chunks, MAX_LINE, tooLong)) {
      for (const run of runsOf(lines, this.#options.key === undefined)) {
        await (run.json ? this.#publishBatch(run.json) : this.#publishLine(run.text))
      }
    }
  }

  /** Text is stored as it is, which no batch can say. */
  async #publishLine(line: Uint8Array): Promise<void> {
    const { key } = this.#options
    try {
      await this.#publish(line, key && `${key}-${this.#line}`)
    } catch (error) {
      throw this.#named(error, 0)
    }
    this.#line++
  }

  /** Where one is refused, all of them are: then those before it are stored, under the same key. */
  async #publishBatch(lines: readonly string[]): Promise<void> {
    const { type } = this.#options
    const head = JSON.stringify({ topic: this.#topic, type }).slice(0, -1)
    const key = randomUUID()
    const send = (count: number) => {
      const items = lines.slice(0, count).map(line => `${head},"data":${line}}`)
      return this.#sender.send({ path: 'events', contentType: JSON_TYPE, body: `[${items.join(',')}]`, key })
    }
    try {
      await send(lines.length)
    } catch (error) {
      if (isTooLarge(error) && lines.length > 1) return this.#publishHalves(lines)
      const count = indexOf(error) ?? 0
      if (count > 0) await send(count)
      throw this.#named(error, count)
    }
    this.#line += lines.length
  }

  async #publishHalves(lines: readonly string[]): Promise<void> {
    const half = Math.ceil(lines.length / 2)
    await this.#publishBatch(lines.slice(0, half))
    await this.#publishBatch(lines.slice(half))
  }

  /** The same with the line that is refused: so many after the first that is not stored. */
  #named(error: unknown, after: number): unknown {
    if (!(error instanceof Failed)) return error
    const message = error.message.replace(/^\/\d+\//, '')
    return new Failed(`line ${this.#line + after}: ${message}`)
  }
}

/** Which item of a batch is refused, where the server says so. */
function indexOf(error: unknown): number | undefined {
  const path = error instanceof Refused ? error.errors[0]?.path : undefined
  const index = path && /^\/(\d+)/.exec(path)?.[1]
  return index ? Number(index) : undefined
}

/** Whether a batch is larger than the server takes, and not an item of it. */
function isTooLarge(error: unknown): boolean {
  return error instanceof Refused && error.status === 413 && indexOf(error) === undefined
}

// --- lines ---

/** Lines of JSON that go together, or one of text. */
type Run =
  | { readonly json: string[]; readonly text?: undefined }
  | { readonly json?: undefined; readonly text: Uint8Array }

/** Lines in their order, as they are sent. `together`: whether any may go together. */
function runsOf(lines: readonly Buffer[], together: boolean): Run[] {
  const runs: Run[] = []
  let bytes = 0
  for (const line of lines.map(withoutReturn)) {
    const json = together ? jsonOf(line) : undefined
    const last = runs.at(-1)?.json
    bytes += line.length
    if (json === undefined) runs.push({ text: line })
    else if (last && last.length < MAX_LINES && bytes <= MAX_BYTES) last.push(json)
    else {
      runs.push({ json: [json] })
      bytes = line.length
    }
  }
  return runs
}

function withoutReturn(line: Buffer): Buffer {
  return line.at(-1) === 0x0d ? line.subarray(0, -1) : line
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** A line that is an object or an array; numbers, strings and the like are the same as text. */
function jsonOf(line: Buffer): string | undefined {
  try {
    const text = utf8.decode(line)
    return /^\s*[[{]/.test(text) && isJson(text) ? text : undefined
  } catch {
    return undefined
  }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

// --- arguments ---

function readTopic(text: string): string {
  if (!isTopic(text)) throw new InvalidArgumentError('Segments joined by /, none empty or *.')
  if (text.split('/').some(segment => /^\.\.?$/.test(segment)))
    throw new InvalidArgumentError('No address can hold a segment that is . or ..')
  return text
}

function readType(text: string): string {
  if (new RegExp(TYPE_PATTERN).test(text)) return text
  throw new InvalidArgumentError('1 to 64 of A-Z a-z 0-9 _ . : -')
}

function readKey(text: string): string {
  if (new RegExp(KEY_PATTERN).test(text)) return text
  throw new InvalidArgumentError('1 to 255 visible characters of ASCII.')
}
