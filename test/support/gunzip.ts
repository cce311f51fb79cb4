import type { IncomingMessage } from 'node:http'
import { pipeline, type Readable } from 'node:stream'
import { constants, crc32, createGunzip, inflateRawSync } from 'node:zlib'

/** How far back a reference may lie (RFC 1951, section 2). */
const WINDOW = 32_768

/** The body of an answer as it was before it was compressed, if it was. One that is cut ends with an error. */
export function bodyOf(response: IncomingMessage): Readable {
  if (response.headers['content-encoding'] !== 'gzip') return response
  return pipeline(response, createGunzip(), () => {})
}

/** Whether it was not the connection that failed, but what came over it is no gzip, or not all of it. */
export function isGarbled({ code }: NodeJS.ErrnoException): boolean {
  return code?.startsWith('Z_') === true
}

/**
 * Reads a gzip stream as it is written: what was written must be readable at once, and all of it. Each write is whole blocks;
 * the header and the trailer are writes of their own.
 */
export class Gunzip {
  /** Whether its trailer has come, and was right. */
  hasEnded = false
  #hasBegun = false
  #window: Buffer = Buffer.alloc(0)
  #crc = 0
  #length = 0

  /** Answers with the text of one write. Throws for what is no gzip. */
  push(bytes: Buffer): Buffer {
    if (bytes.length === 0) return bytes
    if (this.hasEnded) throw new Error('written to after its trailer')
    if (!this.#hasBegun) return this.#begin(bytes)
    if (bytes[0]! & 1) return this.#end(bytes)
    const text = inflateRawSync(bytes, {
      finishFlush: constants.Z_SYNC_FLUSH,
      ...(this.#window.length > 0 && { dictionary: this.#window })
    })
    this.#window = Buffer.concat([this.#window, text]).subarray(-WINDOW)
    this.#crc = crc32(text, this.#crc)
    this.#length += text.length
    return text
  }

  #begin(bytes: Buffer): Buffer {
    if (bytes.toString('hex') !== '1f8b08000000000000ff')
      throw new Error(`no header: ${bytes.toString('hex')}`)
    this.#hasBegun = true
    return Buffer.alloc(0)
  }

  #end(bytes: Buffer): Buffer {
    const last = inflateRawSync(bytes.subarray(0, -8)) // throws unless it ends
    const crc = bytes.readUInt32LE(bytes.length - 8)
    const length = bytes.readUInt32LE(bytes.length - 4)
    if (last.length > 0 || crc !== this.#crc || length !== this.#length % 2 ** 32)
      throw new Error(`a trailer of ${crc} and ${length}, not ${this.#crc} and ${this.#length}`)
    this.hasEnded = true
    return last
  }
}
