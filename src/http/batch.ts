import { isAscii } from 'node:buffer'
import { readJson, type JsonInput } from '../input.ts'
import { Problem, wrong } from '../problem.ts'
import { Turn } from '../turn.ts'
import { bytesOf, mediaTypeOf, utf8 } from './body.ts'

/** How much is looked at before it is asked whether the turn is over, in bytes. */
const STEP = 65_536

/** What a batch may have. */
export interface BatchLimits {
  readonly items: number
  /** The largest item, as it came, in bytes. */
  readonly itemBytes: number
}

/** An item of a batch: JSON, and where it stands, such as `/3`. */
export interface BatchItem {
  readonly input: JsonInput
  readonly path: string
}

/** Reads the item of a batch at an index. What it throws is the answer. */
export type ReadItem<T> = (item: BatchItem, index: number) => T

/** Reads a batch, a JSON array or ndjson. Rejects as `readArray`, and with a `Problem` for another media type. */
export function readBatch<T>(
  contentType: string | undefined,
  body: unknown,
  limits: BatchLimits,
  read: ReadItem<T>
): Promise<T[]> {
  const type = mediaTypeOf(contentType)
  if (type === 'application/json') return readArray(body, limits, read)
  if (type === 'application/x-ndjson')
    return readItems(new LineCutter(bytesOf(body), limits.items), limits, read)
  const allowed = 'a batch is application/json or application/x-ndjson'
  throw new Problem('unsupported', `Content-Type: ${contentType}: ${allowed}`)
}

/**
 * Reads a JSON array. The body is cut into items first, which costs little whatever it holds; only when their number and
 * sizes are right are they parsed, one after the other. All of it gives the turn back. Rejects with a `Problem`, and with
 * what `read` throws.
 */
export async function readArray<T>(body: unknown, limits: BatchLimits, read: ReadItem<T>): Promise<T[]> {
  if (!isArray(body)) throw new Problem('malformed', 'a batch is a JSON array')
  return readItems(new ArrayCutter(bytesOf(body), limits.items), limits, read)
}

/** Whether a body begins as a JSON array does. */
export function isArray(body: unknown): boolean {
  const bytes = bytesOf(body)
  return bytes[skipSpace(bytes, 0)] === OPEN_ARRAY
}

async function readItems<T>(cutter: Cutter, limits: BatchLimits, read: ReadItem<T>): Promise<T[]> {
  const turn = new Turn()
  const items = await cut(cutter, turn)
  checkItems(items, limits)
  const texts = new Texts(items.bytes)
  const all: T[] = []
  for (const [index, item] of items.all.entries()) {
    if (turn.isOver) await turn.next()
    const path = `/${index}`
    all.push(read({ input: readJson(texts.of(item), path), path }, index))
  }
  return all
}

async function cut(cutter: Cutter, turn: Turn): Promise<Items> {
  const { length } = cutter.items.bytes
  for (let at = STEP; at < length + STEP; at += STEP) {
    cutter.cut(Math.min(at, length))
    if (turn.isOver) await turn.next()
  }
  cutter.end()
  return cutter.items
}

function checkItems({ all, count }: Items, { items, itemBytes }: BatchLimits): void {
  if (count === 0 || count > items)
    throw new Problem('malformed', `a batch has 1 to ${items} items, this one has ${count}`)
  const index = all.findIndex(item => bytesIn(item) > itemBytes)
  if (index === -1) return
  throw tooLargeItem(`/${index}`, bytesIn(all[index]!), itemBytes)
}

/** An item that is larger as it came than what may become of it. */
export function tooLargeItem(path: string, bytes: number, most: number): Problem {
  return wrong('too large', path, `has ${bytes} bytes; at most ${most} are allowed (MAX_EVENT_BYTES)`)
}

/** Where an item lies in its batch: from here to just before there. */
interface Item {
  readonly start: number
  readonly end: number
}

function bytesIn({ start, end }: Item): number {
  return end - start
}

/** The items of a batch, and how many there are: past the limit they are only counted. */
class Items {
  /** The batch as it came. */
  readonly bytes: Buffer
  readonly all: Item[] = []
  count = 0
  readonly #most: number

  constructor(bytes: Buffer, most: number) {
    this.bytes = bytes
    this.#most = most
  }

  add(start: number, end: number): void {
    if (++this.count <= this.#most) this.all.push({ start, end })
  }
}

/**
 * The texts of a batch's items, which are asked for in their order. A piece of ASCII is made text as a whole, because to
 * do so with each of many small items takes longer than to parse it; an item is then a part of that text. Other items,
 * and those that are larger than a piece, become text on their own.
 */
class Texts {
  readonly #bytes: Buffer
  /** Where the piece begins and ends in the batch, and its text; null where it is not ASCII. */
  #start = 0
  #end = 0
  #text: string | null = null

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  /** Throws a `Problem` for what is no UTF-8. */
  of({ start, end }: Item): string {
    if (end > this.#end) this.#moveTo(start)
    if (this.#text === null || end > this.#end) return utf8(this.#bytes.subarray(start, end))
    return this.#text.slice(start - this.#start, end - this.#start)
  }

  #moveTo(start: number): void {
    const piece = this.#bytes.subarray(start, start + STEP)
    this.#start = start
    this.#end = start + piece.length
    this.#text = isAscii(piece) ? piece.toString('latin1') : null
  }
}

/** Cuts a batch into its items, piece by piece. What it doesn't look at, such as whether an item is JSON, is found later. */
interface Cutter {
  readonly items: Items
  /** Goes on up to here. */
  cut(until: number): void
  /** There is no more. Throws a `Problem` where there should be. */
  end(): void
}

class LineCutter implements Cutter {
  readonly items: Items
  #start = 0

  constructor(bytes: Buffer, most: number) {
    this.items = new Items(bytes, most)
  }

  cut(until: number): void {
    const { bytes } = this.items
    while (this.#start < until) {
      const found = bytes.indexOf(LINE_END, this.#start)
      const end = found === -1 ? bytes.length : found
      if (skipSpace(bytes, this.#start, end) < end) this.items.add(this.#start, end)
      this.#start = end + 1
    }
  }

  end(): void {}
}

/** Cuts at the commas between the outermost brackets. All that JSON is made of is ASCII, and UTF-8 has no ASCII in the rest. */
class ArrayCutter implements Cutter {
  readonly items: Items
  #at: number
  /** Where the item begins that is being looked at. */
  #start: number
  #depth = 1

  constructor(bytes: Buffer, most: number) {
    this.items = new Items(bytes, most)
    this.#at = this.#start = skipSpace(bytes, 0) + 1
  }

  /** Strings are passed over whole. */
  cut(until: number): void {
    const { bytes } = this.items
    let at = this.#at
    for (; at < until && this.#depth > 0; at++) {
      const byte = bytes[at]!
      if (byte === QUOTE) at = endOfString(bytes, at)
      else if (byte === OPEN_ARRAY || byte === OPEN_OBJECT) this.#depth++
      else if (byte === CLOSE_ARRAY || byte === CLOSE_OBJECT) {
        if (--this.#depth === 0) this.#addLast(at)
      } else if (byte === COMMA && this.#depth === 1) {
        this.items.add(this.#start, at)
        this.#start = at + 1
      }
    }
    this.#at = at
  }

  #addLast(end: number): void {
    const isEmpty = this.items.count === 0 && skipSpace(this.items.bytes, this.#start) === end
    if (!isEmpty) this.items.add(this.#start, end)
  }

  end(): void {
    const { bytes } = this.items
    if (this.#depth > 0) throw new Problem('malformed', 'the body is not JSON: the array has no end')
    const isLast = bytes[this.#at - 1] === CLOSE_ARRAY
    if (isLast && skipSpace(bytes, this.#at) === bytes.length) return
    throw new Problem('malformed', 'the body is not JSON: there is more than an array')
  }
}

/** The quote that ends the string that begins here; behind all bytes where there is none. */
function endOfString(bytes: Buffer, start: number): number {
  let at = start + 1
  for (; at < bytes.length && bytes[at] !== QUOTE; at++) if (bytes[at] === BACKSLASH) at++
  return at
}

/** RFC 8259, section 2. */
function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === LINE_END || byte === 0x0d || byte === 0x09
}

function skipSpace(bytes: Buffer, at: number, end = bytes.length): number {
  while (at < end && isSpace(bytes[at]!)) at++
  return at
}

const QUOTE = 0x22
const COMMA = 0x2c
const OPEN_ARRAY = 0x5b
const BACKSLASH = 0x5c
const CLOSE_ARRAY = 0x5d
const OPEN_OBJECT = 0x7b
const CLOSE_OBJECT = 0x7d
const LINE_END = 0x0a
