import { crc32 } from 'node:zlib'

/**
 * CRC-32 and length of text, as the trailer of a gzip stream says them (RFC 1952, section 2.3.1). They can be had of parts
 * and put together: a few numbers are all that has to be kept of what was sent.
 */
export class Sum {
  /** As 32 bits with a sign: so V8 keeps it in the object itself. */
  #crc = 0
  #length = 0
  /** How long the sum was that this one began to follow; -1 while it follows none. */
  #from = -1

  /** The sum of a text. */
  static of(text: Buffer): Sum {
    const sum = new Sum()
    sum.#crc = crc32(text) | 0
    sum.#length = text.length
    return sum
  }

  /** Of all the text; while it follows no other. */
  get crc(): number {
    return this.#crc >>> 0
  }

  /** Bytes of text; while it follows no other. */
  get length(): number {
    return this.#length
  }

  /** Adds the text of another one behind its own. */
  append(other: Sum): void {
    this.#crc = shifted(this.#crc, other.#length) ^ other.#crc
    this.#length += other.#length
  }

  /**
   * From now on all that is appended to the other one belongs to this one as well, until `leave`: nothing has to be added for
   * each of those who follow. A CRC is linear: what was different at the beginning is all that has to be known at the end.
   */
  follow(other: Sum): void {
    this.#crc ^= other.#crc
    this.#from = other.#length
  }

  /** Follows the other one no longer, and has the text that came meanwhile. */
  leave(other: Sum): void {
    const length = other.#length - this.#from
    this.#crc = shifted(this.#crc, length) ^ other.#crc
    this.#length += length
    this.#from = -1
  }

  /** Whether it follows another one. */
  get follows(): boolean {
    return this.#from >= 0
  }
}

// --- polynomials over GF(2), modulo that of CRC-32: the highest bit is x^0 (zlib's crc32_combine) ---

const POLYNOMIAL = 0xedb88320

/** x^(2^n), for n from 0 to 31; from then on they come again. */
const POWERS = powers()

/** A CRC as it is in front of so many more bytes. */
function shifted(crc: number, bytes: number): number {
  let power = 1 << 31
  // a byte is 2^3 bits
  for (let rest = bytes, n = 3; rest > 0; rest = Math.floor(rest / 2), n++) {
    if (rest % 2 === 1) power = times(POWERS[n % 32]!, power)
  }
  return times(power, crc)
}

function times(a: number, b: number): number {
  let product = 0
  for (let bit = 1 << 31; bit !== 0; bit >>>= 1) {
    if (a & bit) product ^= b
    b = b & 1 ? (b >>> 1) ^ POLYNOMIAL : b >>> 1
  }
  return product
}

function powers(): Int32Array {
  const all = new Int32Array(32)
  all[0] = 1 << 30
  for (let n = 1; n < 32; n++) all[n] = times(all[n - 1]!, all[n - 1]!)
  return all
}
