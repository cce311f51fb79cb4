import { isUtf8 } from 'node:buffer'
import type { Readable } from 'node:stream'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { readJson, type JsonInput } from '../input.ts'
import { MemoryFull, type Memory } from '../memory.ts'
import { Problem, wrong } from '../problem.ts'
import { Round } from '../round.ts'
import { isWrite } from './access.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** How many bytes of its body are counted in the memory that clients take; null once it was answered. */
    bodyBytes: number | null
  }

  interface FastifyContextConfig {
    /** The setting that `bodyLimit` is made of. */
    bodyLimitBy?: string
  }
}

/** What comes in one piece, as a rule. */
const CHUNK_BYTES = 65_536

/**
 * Makes bodies arrive as bytes, whatever their type: they are stored as they came. Each counts from before it is read until
 * its request is answered, and one that there is no room for is not read.
 */
export function takeRawBodies(app: FastifyInstance, memory: Memory): void {
  const round = new Round()
  app.decorateRequest('bodyBytes', 0)
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (request: FastifyRequest, payload: Readable, done: Done) => {
    // what nobody is there for is not kept
    if (request.is404 || !isWrite(request)) done(null)
    else readBody(request, payload, memory, (error, body) => round.add(() => done(error, body)))
  })
  app.addHook('onRequest', (request, reply, done) => {
    const { raw } = request
    // HTTP/2 frames its bodies itself: without a type Fastify would not look for one
    if (raw.httpVersionMajor === 2 && raw.method !== 'GET') raw.headers['content-type'] ??= 'text/plain'
    if (!isEncoded(request) || request.is404 || !isWrite(request)) return done()
    // what can be taken (RFC 9110, section 15.5.16)
    reply.header('accept-encoding', 'identity')
    const coding = request.headers['content-encoding']
    done(new Problem('unsupported', `Content-Encoding: ${coding}: a body must come as it is`))
  })
  // by now it was dealt with, also where the client has gone
  app.addHook('onSend', (request, _reply, _payload, done) => {
    memory.give('bodies', request.bodyBytes ?? 0)
    request.bodyBytes = null
    done()
  })
}

function isEncoded({ headers }: FastifyRequest): boolean {
  const coding = headers['content-encoding']
  return coding !== undefined && !/^(identity)?$/i.test(coding)
}

/** Told once of a body, or of why there is none. A call and no promise: most bodies are small, and there are many. */
type Done = (error: Error | null, body?: Buffer) => void

/** Reads a body. Throws, or tells, as `expect` does, and a `Problem` where it ends too early. */
function readBody(request: FastifyRequest, payload: Readable, memory: Memory, done: Done): void {
  const { 'content-length': given } = request.headers
  const length = given === undefined ? 0 : Number(given)
  // one that says how long it is, is refused before it is read
  if (length > 0) expect(request, length, memory)
  const isLong = length > CHUNK_BYTES
  if (isLong) readLong(request, payload, length, done)
  else readChunks(request, payload, memory, done)
}

/** Reads a body of so many bytes, many. */
function readLong(request: FastifyRequest, payload: Readable, length: number, done: Done): void {
  // memory that nothing is written to yet is only promised by the system
  const body = Buffer.allocUnsafeSlow(length)
  let size = 0
  const take = (chunk: Buffer): void => {
    if (request.bodyBytes === null || size + chunk.length > length) throw tornBody()
    size += chunk.copy(body, size)
  }
  eachChunk(payload, take, error => (error ? done(error) : done(null, body.subarray(0, size))))
}

/** Reads a body that is short, or doesn't say how long it is. */
function readChunks(request: FastifyRequest, payload: Readable, memory: Memory, done: Done): void {
  const chunks: Buffer[] = []
  let size = 0
  const take = (chunk: Buffer): void => {
    size += chunk.length
    if (request.bodyBytes === null || size > request.bodyBytes) expect(request, size, memory)
    chunks.push(chunk)
  }
  eachChunk(payload, take, error => {
    if (error) done(error)
    else done(null, chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks, size))
  })
}

/** Counts a body that has so many bytes by now. Throws a `Problem` where it is too much, and `MemoryFull`. */
function expect(request: FastifyRequest, size: number, memory: Memory): void {
  // it took too long for the host, and what still comes is for nobody
  if (request.bodyBytes === null) throw tornBody()
  const { bodyLimit, config } = request.routeOptions
  if (size > bodyLimit) {
    const setting = config.bodyLimitBy === undefined ? '' : ` (${config.bodyLimitBy})`
    throw wrong(
      'too large',
      '',
      `the body has ${size} bytes or more; at most ${bodyLimit} are allowed${setting}`
    )
  }
  const more = size - request.bodyBytes
  if (more === 0) return
  request.writer.takeBytes(more)
  holdBody(memory, more)
  request.bodyBytes = size
}

/**
 * Counts bytes of a body or message that is being read. Throws `MemoryFull` where there is no room for more of them: they
 * have a part of the memory, so that nobody's uploads drive out what is stored.
 */
export function holdBody(memory: Memory, bytes: number): void {
  if (memory.held('bodies') + bytes > memory.limitOf('bodies')) throw new MemoryFull('bodies')
  memory.take('bodies', bytes)
}

/** Tells once that all has come, or what `take` threw: then the rest passes by, and the answer can still be sent. */
function eachChunk(payload: Readable, take: (chunk: Buffer) => void, settled: (error?: Error) => void): void {
  let isSettled = false
  const settle = (error?: Error): void => {
    if (isSettled) return
    isSettled = true
    // nothing of one that was refused is kept; of one that has ended there is nothing to hear, and to stop costs more
    if (error) payload.off('data', onData).off('end', onEnd).off('error', onTorn).off('close', onTorn)
    settled(error)
  }
  const onEnd = (): void => settle()
  const onTorn = (): void => {
    // what has ended closes as well
    if (!isSettled) settle(tornBody())
  }
  const onData = (chunk: Buffer): void => {
    try {
      take(chunk)
    } catch (error) {
      settle(error as Error)
    }
  }
  payload.on('data', onData).on('end', onEnd).on('error', onTorn).on('close', onTorn)
}

function tornBody(): Problem {
  return new Problem('malformed', 'the body does not end where it should')
}

/** Reads a body of JSON or of another media type that is JSON. Throws a `Problem`. */
export function readJsonBody(
  contentType: string | undefined,
  body: unknown,
  mediaType = 'application/json'
): JsonInput {
  requireJson(contentType, mediaType)
  return readJson(utf8(body))
}

/** Throws a `Problem` for what says that it is neither JSON nor of this media type. */
export function requireJson(contentType: string | undefined, mediaType = 'application/json'): void {
  const given = mediaTypeOf(contentType)
  if (given === mediaType || given === 'application/json') return
  throw new Problem('unsupported', `Content-Type: ${contentType}: it must be ${mediaType}`)
}

/** A body as it came; empty where there is none. */
export function bytesOf(body: unknown): Buffer {
  return (body as Buffer | undefined) ?? Buffer.alloc(0)
}

export function mediaTypeOf(contentType = ''): string {
  const end = contentType.indexOf(';')
  return (end === -1 ? contentType : contentType.slice(0, end)).trim().toLowerCase()
}

/** Throws a `Problem` for what is no UTF-8. A byte order mark is data like any other. */
export function utf8(body: unknown): string {
  const bytes = bytesOf(body)
  const text = bytes.toString()
  // this stands for all that could not be read, and may also have been sent as it is
  if (text.includes('\ufffd') && !isUtf8(bytes)) throw new Problem('malformed', 'the body is not UTF-8')
  return text
}
