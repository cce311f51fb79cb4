/** The ways to read events: what each asks for, and what it understands of the answer. No network, no clock. */
import { decode, encode } from 'cborg'
import { StrictParser, type Frame } from '../support/sse-parser.ts'
import type { Entry, Transport } from './model.ts'
import type { Random } from './random.ts'

/** The longest that a stream is kept, unless the server ends it, in milliseconds. */
const LONGEST_STREAM_MS = 15_000

/** How much longer than it was asked to wait a poll may go without an answer, in milliseconds. */
const ANSWER_MS = 20_000

/** The longest pause between two polls when there is nothing more to read, in milliseconds. */
const POLL_MS = 400

/** What happens to a subscriber, without its time. */
export type Happening = Entry extends infer E ? (E extends Entry ? Omit<E, 'at'> : never) : never

export interface ReadingOptions {
  /** The cursor to go on from; empty for none. */
  readonly lastId: string
  /** SSE: whether the data of each event is the whole event. The others have no other way. */
  readonly envelope: boolean
  readonly random: Random
}

/** One request for events, and what its answer tells. Its methods throw for what no such answer may hold. */
export interface Reading {
  readonly headers: Readonly<Record<string, string>>
  readonly query: Readonly<Record<string, string>>
  /** When the client gives up, in milliseconds; null: it never does. */
  readonly patience: number | null
  /** When the answer must be complete, in milliseconds; null: it is without end. */
  readonly deadline: number | null
  /** How long to wait before the next request, as far as this one told; in milliseconds. */
  readonly retry: number | undefined
  /** The head has come, with status 200; `start`: what it says of where it starts. */
  begin(start: string | undefined): Iterable<Happening>
  push(chunk: Uint8Array): Iterable<Happening>
  /** The server has ended the answer. */
  end(): Iterable<Happening>
}

/** An event as JSON; what was published is in `data`. */
interface Envelope {
  readonly id: string
  readonly topic: string
  readonly data: Published
}

interface Published {
  readonly topic: string
  readonly n: number
}

interface Gap {
  readonly reason: string
  readonly topics: readonly string[]
}

/** An EventSource. */
class SseReading implements Reading {
  readonly headers: Reading['headers']
  readonly query: Reading['query']
  readonly patience: number
  readonly deadline = null
  retry: number | undefined
  readonly #envelope: boolean
  readonly #parser = new StrictParser()

  constructor({ lastId, envelope, random }: ReadingOptions) {
    this.headers = {
      accept: 'text/event-stream',
      ...(lastId !== '' && { 'last-event-id': lastId }),
      ...(random.chance(0.5) && { 'accept-encoding': 'gzip' })
    }
    this.query = envelope ? { envelope: 'true' } : {}
    this.patience = random.whole(100, LONGEST_STREAM_MS)
    this.#envelope = envelope
  }

  /** Nothing: an EventSource sees no headers. */
  begin(): Happening[] {
    return []
  }

  *push(chunk: Uint8Array): Generator<Happening> {
    for (const frame of this.#parser.push(chunk)) yield* this.#read(frame)
  }

  end(): Happening[] {
    this.#parser.end()
    return []
  }

  *#read({ id, event, data, retry }: Frame): Generator<Happening> {
    this.retry = retry ?? this.retry
    if (data === undefined) throw new Error('a block without data')
    const value: unknown = JSON.parse(data)
    // whoever was told no cursor yet has none before a gap
    if (event !== 'gap' && event !== 'goodbye' && id === undefined) throw new Error(`no id: ${event} ${data}`)
    if (event === 'gap') yield gapOf(value as Gap)
    else if (event === 'goodbye') yield { kind: 'goodbye', reason: (value as { reason: string }).reason }
    // what a stream begins with says as well when to come back
    else if (event === 'cursor') yield { kind: retry === undefined ? 'moved' : 'cursor', id: id! }
    else if (event === 'stale') return
    else if (this.#envelope) yield* unwrap(value as Envelope, id)
    else yield { kind: 'event', id: id!, ...pick(value as Published) }
  }
}

/** A program that reads a line for each event, and comes back with the id of the last one. */
class NdjsonReading implements Reading {
  readonly headers = { accept: 'application/x-ndjson' }
  readonly query: Reading['query']
  readonly patience: number
  readonly deadline = null
  retry: number | undefined
  readonly #resumes: boolean
  readonly #decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  #text = ''
  /** Where the stream starts, for as long as the client hasn't taken that for its cursor. */
  #start: string | null = null

  constructor({ lastId, random }: ReadingOptions) {
    this.query = lastId === '' ? {} : { after: lastId }
    this.patience = random.whole(100, LONGEST_STREAM_MS)
    this.#resumes = lastId !== ''
  }

  *begin(start: string | undefined): Generator<Happening> {
    this.#start = required(start)
    // whoever has a cursor keeps it until the first line: that may be a gap which says that it is unknown
    if (!this.#resumes) yield* this.#place([])
  }

  *push(chunk: Uint8Array): Generator<Happening> {
    const lines = (this.#text + this.#decoder.decode(chunk, { stream: true })).split('\n')
    this.#text = lines.pop()!
    for (const line of lines) yield* this.#place(this.#read(line))
  }

  end(): Happening[] {
    this.#decoder.decode()
    if (this.#text !== '') throw new Error(`the stream ends within a line: ${this.#text.slice(-200)}`)
    return []
  }

  #place(told: readonly Happening[]): readonly Happening[] {
    const start = this.#start
    this.#start = null
    return start === null ? told : startAt(start, told)
  }

  #read(line: string): Happening[] {
    if (line === '') return []
    const value = JSON.parse(line) as Record<string, unknown>
    if ('id' in value) return unwrap(value as unknown as Envelope)
    if (value['type'] === 'gap') return [gapOf(value as unknown as Gap)]
    if (value['type'] === 'stale') return []
    if (value['type'] === 'cursor') return [{ kind: 'moved', id: String(value['cursor']) }]
    if (value['type'] !== 'goodbye') throw new Error(`a wrong line: ${line}`)
    this.retry = Number(value['retry'])
    return [{ kind: 'goodbye', reason: String(value['reason']) }]
  }
}

/** A program that asks for page after page, and now and then waits for the first event. */
class PollReading implements Reading {
  readonly headers = { accept: 'application/json' }
  readonly query: Reading['query']
  readonly patience: number | null
  readonly deadline: number
  retry: number | undefined
  readonly #limit: number
  readonly #chunks: Uint8Array[] = []
  #start = ''

  constructor({ lastId, random }: ReadingOptions) {
    const wait = random.chance(0.5) ? random.whole(1, 5) : 0
    this.#limit = random.pick([5, 50, 500])
    this.query = {
      limit: String(this.#limit),
      ...(lastId !== '' && { after: lastId }),
      ...(wait > 0 && { wait: String(wait) })
    }
    this.patience = random.chance(0.1) ? random.whole(1, 500) : null
    this.deadline = wait * 1000 + ANSWER_MS
  }

  begin(start: string | undefined): Happening[] {
    this.#start = required(start)
    return []
  }

  push(chunk: Uint8Array): Happening[] {
    this.#chunks.push(chunk)
    return []
  }

  *end(): Generator<Happening> {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(this.#chunks))
    const { events, cursor, gap, more } = JSON.parse(text) as {
      readonly events: readonly Envelope[]
      readonly cursor: string
      readonly gap: Gap | null
      readonly more: boolean
    }
    if (events.length > this.#limit) throw new Error(`${events.length} events, of at most ${this.#limit}`)
    this.retry = more ? 0 : POLL_MS
    // the page is read whole or not at all; its gap stands before its events
    yield* startAt(this.#start, gap ? [gapOf(gap)] : [])
    for (const event of events) yield* unwrap(event)
    yield { kind: 'moved', id: cursor }
  }
}

/** A program that subscribes over a WebSocket, by either subprotocol. */
export class SocketReading {
  readonly protocol: string
  /** When the client gives up, in milliseconds. */
  readonly patience: number
  readonly #lastId: string

  constructor({ lastId, random }: Omit<ReadingOptions, 'envelope'>) {
    this.protocol = random.chance(0.3) ? 'ringside.v1.cbor' : 'ringside.v1.json'
    this.patience = random.whole(100, LONGEST_STREAM_MS)
    this.#lastId = lastId
  }

  /** What is sent once it is open. */
  request(topics: readonly string[]): string | Uint8Array {
    const message = { op: 'subscribe', ref: 1, topics, ...(this.#lastId !== '' && { after: this.#lastId }) }
    return this.#isBinary ? encode(message) : JSON.stringify(message)
  }

  push(bytes: Buffer, isBinary: boolean): readonly Happening[] {
    if (isBinary !== this.#isBinary) throw new Error(`a ${isBinary ? 'binary' : 'text'} message`)
    const message = (isBinary ? decode(bytes) : JSON.parse(bytes.toString())) as Record<string, unknown>
    const { op, cursor } = message
    if (op === 'event') return unwrap(message as unknown as Envelope)
    if (op === 'gap') return [gapOf(message as unknown as Gap)]
    if (op === 'stale') return []
    if (op === 'joined' || op === 'left') return [] // members join what a wildcard covers
    if (op === 'error') return [{ kind: 'refused', code: String(message['code']) }]
    if ((op !== 'ok' && op !== 'cursor') || typeof cursor !== 'string') {
      throw new Error(`a wrong message: ${JSON.stringify(message)}`)
    }
    return [{ kind: op === 'ok' ? 'cursor' : 'moved', id: cursor }]
  }

  get #isBinary(): boolean {
    return this.protocol === 'ringside.v1.cbor'
  }
}

/** The ways to read by a request. */
export const readings: Readonly<Record<Exclude<Transport, 'ws'>, new (options: ReadingOptions) => Reading>> =
  {
    sse: SseReading,
    ndjson: NdjsonReading,
    poll: PollReading
  }

/** Where an answer starts, as its head says, comes first; but for the gap that says why it isn't where it was asked to. */
function startAt(start: string, told: readonly Happening[]): Happening[] {
  const [first] = told
  const replaced = first?.kind === 'gap' && first.reason === 'unknown' ? 1 : 0
  return [...told.slice(0, replaced), { kind: 'cursor', id: start }, ...told.slice(replaced)]
}

/** An event, and what contradicts itself in it. */
function unwrap(envelope: Envelope, id = envelope.id): Happening[] {
  const event = { kind: 'event', id, ...pick(envelope.data) } as const
  if (envelope.id === id && envelope.topic === event.topic) return [event]
  return [event, { kind: 'broken', why: `the envelope of ${id} says ${envelope.id}, ${envelope.topic}` }]
}

function pick({ topic, n }: Published): Published {
  return { topic, n }
}

function gapOf({ reason, topics }: Gap): Happening {
  return { kind: 'gap', reason, topics }
}

function required(start: string | undefined): string {
  if (start === undefined) throw new Error('no Ringside-Cursor')
  return start
}
