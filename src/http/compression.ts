import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { createGzip, gzipSync } from 'node:zlib'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { ANSWERS_PART, type Memory } from '../memory.ts'
import { piecesOf } from '../net/answers.ts'
import { varyBy } from './answer.ts'
import { acceptsGzip } from './wish.ts'

/** What is shorter goes out in one packet, compressed or not. In bytes. */
const LEAST_BYTES = 1024

/** Up to so many bytes it takes longer to hand a text to another thread than to compress it here: some 50 µs. */
const AT_ONCE_BYTES = 16_384

/** While so many bytes of text wait to be compressed, others go out as they are: that is sooner. */
const MOST_WAITING = 4 * 1024 * 1024

/** A text becomes bytes part by part, so that the large ones hold up nobody. In bytes. */
const PIECE_BYTES = 256 * 1024

/** What zlib takes for a text that is being compressed, in bytes: 2 ^ (windowBits + 2) + 2 ^ (memLevel + 9). */
const STATE_BYTES = 256 * 1024

/** Half the time of zlib's default; a tenth more bytes, at pages of recorded quotes. */
const OPTIONS = { level: 3 } as const

/**
 * Compresses pages and documents for clients that accept gzip, by their size; streams are compressed by `hub/`, and files
 * were when they were built. It is for answers of routes that are registered after this call.
 */
export function compressAnswers(app: FastifyInstance, memory: Memory): void {
  const compression = new Compression(memory)
  app.addHook('onSend', (request, reply, payload, done) => {
    if (typeof payload !== 'string' || payload.length * 3 < LEAST_BYTES) return done()
    const size = Buffer.byteLength(payload)
    if (size < LEAST_BYTES || reply.statusCode === 304 || reply.hasHeader('content-encoding')) return done()
    depend(reply)
    if (!isWanted(request)) return done()
    const isGiven = (bytes: Buffer): void => {
      reply.header('content-encoding', 'gzip')
      done(null, bytes)
    }
    if (size <= AT_ONCE_BYTES) return isGiven(Buffer.from(gzipSync(payload, OPTIONS)))
    const compressed = compression.compress(payload, size)
    if (compressed) compressed.then(isGiven, done)
    else done()
  })
}

/** Says that the answer depends on what the client accepts, unless that was said. */
function depend(reply: FastifyReply): void {
  const vary = String(reply.getHeader('vary') ?? '')
  if (!/\baccept-encoding\b/i.test(vary)) varyBy(reply, 'Accept-Encoding')
}

function isWanted(request: FastifyRequest): boolean {
  const { compress = true } = request.query as { compress?: boolean }
  return compress && acceptsGzip(request)
}

/** Compresses one text after the other, in another thread: that leaves the rest of them to the disk. */
class Compression {
  readonly #memory: Memory
  /** Equal texts at the same time are compressed once. */
  readonly #underWay = new Map<string, Promise<Buffer>>()
  #last: Promise<unknown> = Promise.resolve()
  /** Of the texts under way. */
  #bytes = 0

  constructor(memory: Memory) {
    this.#memory = memory
  }

  /** Null where there is no room for it, or others wait: it is to go out as it is. `size`: of the text, in bytes. */
  compress(text: string, size: number): Promise<Buffer> | null {
    const underWay = this.#underWay.get(text)
    if (underWay) return underWay
    if (this.#bytes > 0 && this.#bytes + size > MOST_WAITING) return null
    const memory = this.#memory
    // its text, and what becomes of it, which may be as large
    const held = 2 * size + STATE_BYTES
    if (memory.held('answers') + held > memory.limit * ANSWERS_PART) return null
    memory.add('answers', held)
    this.#bytes += size
    const compressed = this.#last
      .then(() => gzip(text))
      .finally(() => {
        this.#underWay.delete(text)
        this.#bytes -= size
        memory.give('answers', held)
      })
    this.#last = compressed.catch(ignore)
    this.#underWay.set(text, compressed)
    return compressed
  }
}

function gzip(text: string): Promise<Buffer> {
  return buffer(Readable.from(piecesOf(text, PIECE_BYTES)).pipe(createGzip(OPTIONS)))
}

function ignore(): void {}
