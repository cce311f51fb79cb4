import { constants, deflateRawSync } from 'node:zlib'
import type { Sum } from './sum.ts'

/**
 * The parts of a gzip stream (RFC 1952) that is written piece by piece, each of which can be read as soon as it has come: all
 * pieces end at a byte, with an empty stored block (RFC 1951, section 3.2.4). That is what zlib calls a sync flush, and the one
 * thing at which every decoder gives away what it has.
 */
const EMPTY_BLOCK = Buffer.from([0, 0, 0, 0xff, 0xff])

/** No name, no time, an unknown system. */
export const HEADER = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])

/** The most bytes of a stored block. */
const STORED = 65_535

/** Text that refers to nothing before it: as it is, which costs next to nothing, however many streams are given their own. */
export function block(text: Buffer): readonly Buffer[] {
  const parts: Buffer[] = []
  for (let at = 0; at < text.length; at += STORED) {
    const part = text.subarray(at, at + STORED)
    const head = Buffer.allocUnsafe(5)
    head[0] = 0
    head.writeUInt16LE(part.length, 1)
    head.writeUInt16LE(~part.length & 0xffff, 3)
    parts.push(head, part)
  }
  return [...parts, EMPTY_BLOCK]
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

/** Up to a sync flush. A window of twice as much, and tables to go with it: less to be made for each write. */
const OPTIONS = { finishFlush: constants.Z_SYNC_FLUSH, windowBits: 14, memLevel: 6 } as const

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
    const bytes = deflateRawSync(text, this.isEmpty ? OPTIONS : { dictionary, ...OPTIONS })
    this.#keep(text)
    // what zlib gives is a part of a chunk of 16 KiB, which a full connection would keep
    return Buffer.from(bytes)
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
