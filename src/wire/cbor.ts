/** CBOR (RFC 8949), and JSON text as CBOR and back: what was published as one is read as the other. */

import { decode, encode, Tagged, Token, Tokenizer, Type, type TagDecoder } from 'cborg'
import { decode as decodeJson } from 'cborg/json'
import type { Data } from '../event.ts'
import { WireError } from './error.ts'
import { depthOf } from './json.ts'

/** Nothing is encoded, or made to text, that is nested more deeply: both go down by calling themselves. */
const MAX_DEPTH = 256

/** One item. Maps keep the order of their members. */
export function encodeCbor(value: unknown): Uint8Array {
  return encode(value, { mapSorter: () => 0 })
}

/**
 * Data as CBOR has it: bytes; JSON as what it says; else text. Whole numbers keep all of 64 bits, others are doubles.
 * What is nested too deeply stays JSON text.
 */
export function toCbor(data: Data): unknown {
  if (typeof data !== 'string') return data
  try {
    const value: unknown = JSON.parse(data)
    if (depthOf(data) > MAX_DEPTH) return data
    // of whole numbers alone CBOR holds more than a double does: all else is read twice as fast without it
    return /\d{16}/.test(data) ? exactly(data, value) : value
  } catch {
    return data
  }
}

/** JSON with numbers that a double doesn't hold: whole ones as they are; the rounded value where even CBOR has none. */
function exactly(text: string, rounded: unknown): unknown {
  try {
    const value: unknown = decodeJson(Buffer.from(text), { allowBigInt: true })
    encode(value)
    return value
  } catch {
    return rounded
  }
}

function bytesIn(decode: () => unknown): Uint8Array {
  const bytes = decode()
  if (bytes instanceof Uint8Array) return bytes
  throw new Error('what has this tag is bytes')
}

/** From its hex digits, which takes no longer than the bytes are long, however large it is. */
const wholeNumberIn = (decode: () => unknown) => BigInt(`0x0${Buffer.from(bytesIn(decode)).toString('hex')}`)

/**
 * What says the same as without its tag: big numbers and "this is CBOR" (RFC 8949), and an array of single bytes (RFC 8746),
 * which is how some libraries write a `Uint8Array`.
 */
const TAGS: Readonly<Record<string, TagDecoder>> = {
  2: wholeNumberIn,
  3: decode => -1n - wholeNumberIn(decode),
  64: bytesIn,
  55799: decode => decode()
}

// as maps, so that no name means anything to JavaScript
const DECODING = {
  useMaps: true,
  rejectDuplicateMapKeys: true,
  allowBigInt: true,
  // other tags are kept: the rest of the message, its ref above all, can be read, and what has the tag is named
  tags: new Proxy(TAGS, { get: (tags, tag) => tags[String(tag)] ?? Tagged.decoder(Number(tag)) })
}

const MOST = 2n ** 64n - 1n
const LEAST = -(2n ** 64n)

/** How many bytes follow the first one of an item, by its lowest five bits, to say how long it is (RFC 8949, section 3). */
const LENGTH_BYTES: Readonly<Record<number, number>> = { 24: 1, 25: 2, 26: 4, 27: 8 }

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Takes text as it is: what is no UTF-8 is refused (RFC 8949, section 5.3.1), and a byte order mark is kept. */
class StrictTokenizer extends Tokenizer {
  readonly #bytes: Uint8Array

  constructor(bytes: Uint8Array) {
    super(bytes, DECODING)
    this.#bytes = bytes
  }

  override next(): Token {
    const start = this.pos()
    const token = super.next()
    if (token.type !== Type.string) return token
    const value = token.value as string
    const text = this.#bytes.subarray(start + 1 + (LENGTH_BYTES[this.#bytes[start]! & 31] ?? 0), this.pos())
    const isAscii = text.length === value.length && !value.includes('\ufffd')
    return isAscii ? token : new Token(Type.string, utf8.decode(text), token.encodedLength)
  }
}

/** What CBOR says, with maps as they are. Throws a `WireError`. */
export function decodeCbor(bytes: Buffer): unknown {
  try {
    const plain = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)
    return decode(plain, { ...DECODING, tokenizer: new StrictTokenizer(plain) })
  } catch (error) {
    const why = error instanceof RangeError ? 'it is nested too deeply' : (error as Error).message
    throw new WireError(`the message is not CBOR: ${why}`)
  }
}

/** A member as it is passed on: bytes, or what it says as JSON text. Throws a `WireError`. */
export function fromCbor(value: unknown, name: string): Data {
  return value instanceof Uint8Array ? Buffer.from(value) : jsonOf(value, name, 0)
}

/** The members of a map. What is undefined is left out, as JSON does. */
export function definedIn(map: Map<unknown, unknown>): [unknown, unknown][] {
  return [...map].filter(([, value]) => value !== undefined)
}

/** What was decoded from CBOR, as JSON text. Throws a `WireError` for what JSON doesn't have. */
function jsonOf(value: unknown, path: string, depth: number): string {
  if (depth > MAX_DEPTH) throw new WireError(`${path} is nested too deeply`)
  if (value instanceof Tagged)
    throw new WireError(`${path} has the CBOR tag ${value.tag}, which is not understood`)
  if (typeof value === 'bigint') {
    if (value > MOST || value < LEAST) throw new WireError(`${path} is a whole number of more than 64 bits`)
    return value.toString()
  }
  if (typeof value === 'number' && !Number.isFinite(value)) throw new WireError(`${path} is no finite number`)
  if (value instanceof Uint8Array)
    throw new WireError(`${path} has bytes in it: only data as a whole may be bytes`)
  if (value === undefined) return 'null'
  if (Array.isArray(value)) {
    return `[${value.map((item, index) => jsonOf(item, `${path}/${index}`, depth + 1)).join(',')}]`
  }
  if (value instanceof Map) {
    const members = definedIn(value).map(([key, item]) => {
      if (typeof key !== 'string') throw new WireError(`${path} has a name in it that is not text`)
      return `${JSON.stringify(key)}:${jsonOf(item, `${path}/${key}`, depth + 1)}`
    })
    return `{${members.join(',')}}`
  }
  return JSON.stringify(value)
}
