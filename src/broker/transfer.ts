import { comparePositions, formatPosition, isTopic, isWildcard, isFilter, parsePosition } from '../event.ts'
import { TYPE_PATTERN, type Data, type Position, type StoredEvent } from '../event.ts'
import { cutLines } from '../lines.ts'
import type { State } from './event-log.ts'

/**
 * A whole store as lines of JSON, the same whatever kind of store it comes from or goes to. First the head; then the topics,
 * each followed by its state and its events, oldest first; then what was forgotten, the idempotency keys, and the end, without
 * which the rest counts for nothing. Only stores of one shard: the cursors of others are of another shape.
 */
export type Line =
  | ({ readonly kind: 'head'; readonly position: Position } & Life)
  | ({ readonly kind: 'topic'; readonly topic: string } & TopicFacts)
  | { readonly kind: 'state'; readonly topic: string; readonly state: State }
  | { readonly kind: 'event'; readonly event: StoredEvent }
  | { readonly kind: 'forgotten'; readonly wildcard: string; readonly upTo: Position }
  | { readonly kind: 'key'; readonly hash: string; readonly use: Use }
  | { readonly kind: 'end'; readonly lines: number; readonly lost: Position }

/** Where the life of a store began, and up to where it has lost what it had stored. */
export interface Life {
  readonly birth: Position
  readonly lost: Position
}

/** What is known of a topic besides its name, its state and its events. */
export interface TopicFacts {
  /** The id of its last event, also where that is gone. */
  readonly last: Position
}

/** What an idempotency key was used for. */
export interface Use {
  readonly id: Position
  readonly print: string
  /** When it is forgotten, in milliseconds since the epoch. */
  readonly until: number
}

/** What can't be moved, or not to there; the message says why, in a line for the operator. */
export class TransferFailed extends Error {
  override name = 'TransferFailed'
}

/** The version of the lines. */
const VERSION = 1

/** The longest line, in bytes. */
const MAX_LINE = 256 * 1024 * 1024

// --- writing ---

/** A line as text, with its end. */
export function formatLine(line: Line): string {
  return `${JSON.stringify(fieldsOf(line))}\n`
}

function fieldsOf(line: Line): Record<string, unknown> {
  switch (line.kind) {
    case 'head':
      return { store: VERSION, ...texts({ birth: line.birth, lost: line.lost, position: line.position }) }
    case 'topic':
      return { topic: line.topic, ...texts({ last: line.last }) }
    case 'state':
      return { state: line.state.value, topic: line.topic, ...texts({ version: line.state.version }) }
    case 'event':
      return eventFields(line.event)
    case 'forgotten':
      return { forgotten: line.wildcard, ...texts({ upTo: line.upTo }) }
    case 'key':
      return { key: line.hash, ...line.use, ...texts({ id: line.use.id }) }
    case 'end':
      return { end: line.lines, ...texts({ lost: line.lost }) }
  }
}

function eventFields({ id, topic, type, data, prev, expires }: StoredEvent): Record<string, unknown> {
  const content = typeof data === 'string' ? { data } : { base64: Buffer.from(data).toString('base64') }
  return { event: formatPosition(id), topic, type, ...content, prev: prev && formatPosition(prev), expires }
}

function texts(positions: Record<string, Position>): Record<string, string> {
  return Object.fromEntries(Object.entries(positions).map(([name, at]) => [name, formatPosition(at)]))
}

/** How many lines are handed over at a time; and after how many bytes of data they are. */
const STEP = 1000
const STEP_BYTES = 1024 * 1024

/** Lines some at a time, with the end after them. They return up to where readers may have lost something. */
export async function* inSteps(lines: AsyncGenerator<Line, Position>): AsyncGenerator<Line[]> {
  let step: Line[] = []
  let count = 0
  let bytes = 0
  for (;;) {
    const { done, value } = await lines.next()
    if (done) {
      yield [...step, { kind: 'end', lines: count, lost: value }]
      return
    }
    count++
    step.push(value)
    if (value.kind === 'event') bytes += value.event.data.length
    if (step.length < STEP && bytes < STEP_BYTES) continue
    yield step
    step = []
    bytes = 0
  }
}

// --- reading ---

/** A line with its number, counted from 1. */
export type Numbered = readonly [number: number, line: Line]

/**
 * Reads lines, some at a time, and sees to it that all of them together are a store: each event follows on the one before it,
 * and nothing is missing up to the end. Throws `TransferFailed` with the number of the line and what is wrong.
 */
export async function* readLines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Numbered[]> {
  const sequence = new Sequence()
  let number = 0
  for await (const texts of cutLines(chunks, MAX_LINE, tooLong)) {
    const lines: Numbered[] = []
    for (const text of texts) {
      number++
      try {
        const line = readLine(text)
        sequence.take(line)
        lines.push([number, line])
      } catch (error) {
        throw wrongLine(number, error)
      }
    }
    yield lines
  }
  if (!sequence.isOver)
    throw wrongLine(number + 1, new Wrong('the end is missing: the export was broken off'))
}

function tooLong(): TransferFailed {
  return new TransferFailed(`a line has more than ${MAX_LINE} bytes`)
}

/** Names the line for what is wrong with it; any other error stays as it is. */
export function wrongLine(number: number, error: unknown): unknown {
  return error instanceof Wrong ? new TransferFailed(`line ${number}: ${error.message}`) : error
}

/** What is wrong with a line, without its number. */
export class Wrong extends Error {}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function readLine(bytes: Buffer): Line {
  const fields = new Fields(bytes)
  if (fields.has('store')) return readHead(fields)
  if (fields.has('event')) return { kind: 'event', event: readEvent(fields) }
  if (fields.has('state')) {
    const state = { value: fields.text('state'), version: fields.position('version') }
    return { kind: 'state', topic: fields.topic('topic'), state }
  }
  if (fields.has('forgotten')) {
    const wildcard = fields.text('forgotten')
    if (wildcard !== '' && !(isFilter(wildcard) && isWildcard(wildcard)))
      throw new Wrong('forgotten is no wildcard')
    return { kind: 'forgotten', wildcard, upTo: fields.position('upTo') }
  }
  if (fields.has('key')) return readKey(fields)
  if (fields.has('end')) return { kind: 'end', lines: fields.whole('end'), lost: fields.position('lost') }
  if (fields.has('topic'))
    return { kind: 'topic', topic: fields.topic('topic'), last: fields.position('last') }
  throw new Wrong('it is none of the lines that an export has')
}

function readHead(fields: Fields): Line {
  const version = fields.whole('store')
  if (version > VERSION) throw new Wrong(`it was exported by a newer version (${version})`)
  const [birth, lost, position] = (['birth', 'lost', 'position'] as const).map(name => fields.position(name))
  return { kind: 'head', birth: birth!, lost: lost!, position: position! }
}

function readEvent(fields: Fields): StoredEvent {
  const type = fields.text('type')
  if (!new RegExp(TYPE_PATTERN).test(type)) throw new Wrong('type is none that an event has')
  return {
    id: fields.position('event'),
    shard: 0,
    topic: fields.topic('topic'),
    type,
    data: readData(fields),
    prev: fields.isNull('prev') ? null : fields.position('prev'),
    ...(fields.has('expires') && { expires: fields.whole('expires') })
  }
}

function readData(fields: Fields): Data {
  if (!fields.has('base64')) return fields.text('data')
  const text = fields.text('base64')
  const bytes = Buffer.from(text, 'base64')
  if (bytes.toString('base64') !== text) throw new Wrong('base64 is no base64')
  return bytes
}

function readKey(fields: Fields): Line {
  const [hash, print] = [fields.text('key'), fields.text('print')]
  if (!/^[\w-]{43}$/.test(hash)) throw new Wrong('key is no hash of a key')
  if (!/^[\w+/]{43}=$/.test(print)) throw new Wrong('print is none of an event')
  return { kind: 'key', hash, use: { id: fields.position('id'), print, until: fields.whole('until') } }
}

/** The members of a line. Whatever is asked for and is not there, or is something else, throws `Wrong`. */
class Fields {
  readonly #members: Readonly<Record<string, unknown>>

  constructor(bytes: Buffer) {
    let value: unknown
    try {
      value = JSON.parse(utf8.decode(bytes))
    } catch {
      throw new Wrong('it is no JSON')
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw new Wrong('it is no object')
    this.#members = value as Record<string, unknown>
  }

  has(name: string): boolean {
    return Object.hasOwn(this.#members, name)
  }

  isNull(name: string): boolean {
    return this.has(name) && this.#members[name] === null
  }

  text(name: string): string {
    const value = this.#members[name]
    if (typeof value !== 'string') throw new Wrong(`${name} is no text`)
    if (/\p{Cs}/u.test(value)) throw new Wrong(`${name} is no text that UTF-8 can carry`)
    return value
  }

  topic(name: string): string {
    const text = this.text(name)
    if (!isTopic(text)) throw new Wrong(`${name} is no topic`)
    return text
  }

  whole(name: string): number {
    const value = this.#members[name]
    if (!Number.isSafeInteger(value) || (value as number) < 0 || (value as number) >= 2 ** 48)
      throw new Wrong(`${name} is no whole number`)
    return value as number
  }

  position(name: string): Position {
    const value = this.#members[name]
    const position = typeof value === 'string' ? parsePosition(value) : undefined
    if (!position || position.ms >= 2 ** 48 || position.seq >= 2 ** 32)
      throw new Wrong(`${name} is no position`)
    return position
  }
}

/** The topic whose lines come. */
interface TopicRead extends TopicFacts {
  readonly name: string
  /** The last event that came of it. */
  event: Position | null
  hasState: boolean
}

/** Sees to it that lines follow each other as those of a store do. */
class Sequence {
  #lines = 0
  #position: Position | null = null
  #topic: TopicRead | null = null
  isOver = false

  /** Throws `Wrong` for a line that can't come now. */
  take(line: Line): void {
    if (this.isOver) throw new Wrong('it comes after the end')
    if ((line.kind === 'head') !== (this.#position === null))
      throw new Wrong(line.kind === 'head' ? 'there is a head already' : 'the head is missing')
    if (line.kind === 'event') this.#takeEvent(line.event)
    else if (line.kind === 'state') this.#takeState(line.topic, line.state.version)
    else this.#takeOther(line)
    this.#lines++
  }

  #takeEvent({ id, topic, prev }: StoredEvent): void {
    const own = this.#own(topic)
    if (comparePositions(id, own.last) > 0) throw new Wrong(`it comes after the last event of ${topic}`)
    if (prev && comparePositions(prev, id) >= 0) throw new Wrong('prev comes after the event')
    if (own.event && (!prev || comparePositions(prev, own.event) !== 0))
      throw new Wrong(`of topic ${topic}, the event after ${formatPosition(own.event)} is missing`)
    own.event = id
  }

  #takeState(topic: string, version: Position): void {
    const own = this.#own(topic)
    if (own.hasState) throw new Wrong(`topic ${topic} has a state already`)
    if (comparePositions(version, own.last) > 0)
      throw new Wrong(`version comes after the last event of ${topic}`)
    own.hasState = true
  }

  #own(topic: string): TopicRead {
    if (this.#topic?.name !== topic) throw new Wrong(`it does not follow on the line of topic ${topic}`)
    return this.#topic
  }

  #takeOther(line: Exclude<Line, { kind: 'event' | 'state' }>): void {
    this.#endTopic()
    switch (line.kind) {
      case 'head':
        if (comparePositions(line.birth, line.position) > 0) throw new Wrong('birth comes after position')
        this.#position = line.position
        return
      case 'topic':
        this.#mustBeKnown(line.last, 'last')
        this.#topic = { name: line.topic, last: line.last, event: null, hasState: false }
        return
      case 'forgotten':
        return this.#mustBeKnown(line.upTo, 'upTo')
      case 'key':
        return this.#mustBeKnown(line.use.id, 'id')
      case 'end':
        if (line.lines !== this.#lines) throw new Wrong(`${this.#lines} lines came instead of ${line.lines}`)
        this.isOver = true
    }
  }

  /** Nothing is missing of the topic that came last. */
  #endTopic(): void {
    const topic = this.#topic
    this.#topic = null
    if (topic?.event && comparePositions(topic.event, topic.last) !== 0)
      throw new Wrong(`before it, the last event of topic ${topic.name} is missing`)
  }

  #mustBeKnown(position: Position, name: string): void {
    if (comparePositions(position, this.#position!) > 0)
      throw new Wrong(`${name} comes after the position of the store`)
  }
}
