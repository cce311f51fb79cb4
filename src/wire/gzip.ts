import { constants, deflateRawSync, type ZlibOptions } from 'node:zlib'
import type { Sum } from './sum.ts'

/**
 * The parts of a gzip stream (RFC 1952) that is written piece by piece, each of which can be read as soon as it has come: all
 * pieces end at a byte, with an empty stored block (RFC 1951, section 3.2.4). That is what zlib calls a sync flush, and the one
 * thing at which every decoder gives away what it has.
 */
const EMPTY_BLOCK = Buffer.from([0, 0, 0, 0xff, 0xff])

/** No name, no time, an unknown system. */
export const HEADER = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])

/** From so many bytes on, text that refers to nothing before it is worth a compressor of its own. */
const WORTH = 2048

/** Text that refers to nothing before it. */
export function block(text: Buffer): readonly Buffer[] {
  if (text.length >= WORTH) return [deflated(text, { level: constants.Z_BEST_SPEED })]
  const head = Buffer.allocUnsafe(5)
  head[0] = 0
  head.writeUInt16LE(text.length, 1)
  head.writeUInt16LE(~text.length & 0xffff, 3)
  return [head, text, EMPTY_BLOCK]
}

/** Compressed text, up to a sync flush. */
function deflated(text: Buffer, options: ZlibOptions): Buffer {
  // zlib's own chunk of 16 KiB would be kept for as long as a few bytes of it
  const chunkSize = text.length + 64
  return deflateRawSync(text, { finishFlush: constants.Z_SYNC_FLUSH, chunkSize, ...options })
}

/** The end of a stream: an empty block that is the last one, and the sum of all its text. */
export function trailer({ crc, length }: Sum): Buffer {
  const bytes = Buffer.from([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0])
  bytes.writeUInt32LE(crc, 5)
  bytes.writeUInt32LE(length % 2 ** 32, 9)
  return bytes
}

/** How much of what was written is looked back at, in bytes. */
const REACH = 8192

/** A window of twice as much, and tables to go with it: less to be made for each write. */
const SMALL = { windowBits: 14, memLevel: 6 } as const

/** What was written last: what comes next is told by what is the same in it. */
export class History {
  /** What one takes, in bytes. */
  static readonly bytes = 2 * REACH
  readonly #text = Buffer.allocUnsafeSlow(History.bytes)
  #length = 0
  /** How much was written since it began. */
  #written = 0

  /** Whether all of it was written since it began: more would be no better. */
  get isFull(): boolean {
    return this.#written >= REACH
  }

  get isEmpty(): boolean {
    return this.#written === 0
  }

  /** What is written next refers to nothing before it. */
  clear(): void {
    this.#length = 0
    this.#written = 0
  }

  /** Compresses text for those who have all that it holds; takes it in. */
  deflate(text: Buffer): Buffer {
    const dictionary = this.#text.subarray(Math.max(0, this.#length - REACH), this.#length)
    const bytes = deflated(text, this.isEmpty ? SMALL : { dictionary, ...SMALL })
    this.#keep(text)
    return bytes
  }

  #keep(text: Buffer): void {
    this.#written += text.length
    const kept = text.subarray(-REACH)
    if (this.#length + kept.length > this.#text.length) {
      this.#length = this.#text.copy(this.#text, 0, this.#length - REACH, this.#length)
    }
    this.#length += kept.copy(this.#text, this.#length)
  }
}
