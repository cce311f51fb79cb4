import type { ServerResponse } from 'node:http'
import { constants, type Http2ServerResponse, type ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import type { FastifyInstance, FastifyReply } from 'fastify'
import type { Clock, Timer } from '../clock.ts'
import { ANSWERS_PART, MemoryFull, type Memory } from '../memory.ts'
import { Line, type Place } from './line.ts'
import { isGone } from './sink.ts'

/** What no answer is larger than, in bytes: to make one and to write it takes some 50 ms. */
const MOST_BYTES = 32 * 1024 * 1024

/** What is a small answer, in bytes: problems, and what is said to who writes. */
const SMALL_BYTES = 16_384

/** What an answer takes besides its text, with its request, in bytes; measured at a stream of HTTP/2, about. */
const OVERHEAD_BYTES = 8192

/** What a client has to take of an answer at least, in bytes a second. */
const LEAST_RATE = 1024

/** For how long nothing need be taken of an answer while there is no room for others, in milliseconds. */
const PATIENCE_MS = 1000

/** The answers of an app that are no streams, from when they are given to Node until their last byte has left. */
export class Answers {
  /** The largest answer that there can be, in bytes. */
  readonly most: number
  /** The setting that says so, if one does. */
  readonly mostBy: 'MEMORY' | undefined
  readonly #memory: Memory
  readonly #clock: Clock
  readonly #stallTimeout: number
  /** So much must have left after the stall time-out, in bytes. */
  readonly #piece: number
  /** The one of which nothing was taken for the longest time comes first. */
  readonly #open = new Line<OpenAnswer>()
  /** How often it is looked whether something is taken, in milliseconds. */
  readonly #lookMs: number
  #timer: Timer | null = null

  /** `stallTimeout`, in milliseconds: an answer of which less than 1 KiB a second is taken is ended after it. */
  constructor(memory: Memory, clock: Clock, stallTimeout: number) {
    this.#memory = memory
    this.#clock = clock
    this.#stallTimeout = stallTimeout
    this.#lookMs = Math.min(1000, stallTimeout / 4)
    this.#piece = Math.max(LEAST_RATE, (LEAST_RATE * stallTimeout) / 1000)
    const part = memory.limit * ANSWERS_PART - OVERHEAD_BYTES
    this.most = Math.floor(Math.min(part, MOST_BYTES))
    this.mostBy = part < MOST_BYTES ? 'MEMORY' : undefined
  }

  /**
   * Counts an answer that is about to be sent. Null for one that there is no way to send. Throws `MemoryFull` for one that
   * could be told so.
   */
  open(reply: FastifyReply, bytes: number): OpenAnswer | null {
    const size = bytes + OVERHEAD_BYTES
    const isSmall = bytes <= SMALL_BYTES
    const excess = this.#memory.held('answers') + size - this.#memory.limit * ANSWERS_PART * (isSmall ? 2 : 1)
    if (excess > 0 && !this.#makeRoom(excess)) {
      if (isSmall) return null
      throw new MemoryFull('answers')
    }
    // bounded by their part alone: states that fill the memory must not keep anybody from reading
    this.#memory.add('answers', size)
    const answer = new OpenAnswer(reply, size, this.#clock.now(), this.#closed)
    answer.place = this.#open.join(answer)
    this.#timer ??= this.#clock.after(this.#lookMs, () => this.#look())
    onceGone(reply, () => answer.close())
    return answer
  }

  /** Writes an answer in pieces, each when the one before has left: so it shows how much is taken. */
  write(reply: FastifyReply, answer: OpenAnswer, payload: string | Buffer): void {
    const { raw, statusCode } = reply
    raw.writeHead(statusCode, {
      ...(reply.getHeaders() as Record<string, string>),
      'content-length': Buffer.byteLength(payload)
    })
    const pieces = piecesOf(payload, this.#piece)
    let piece = pieces.next().value
    const next = (error?: Error | null): void => {
      if (error || answer.isClosed) return
      this.#isTaken(answer)
      const bytes = piece
      piece = pieces.next().value
      if (piece) raw.write(bytes, next)
      else raw.end(bytes)
    }
    next()
  }

  /** Whether an answer of so many bytes is written in pieces. */
  isLong(bytes: number): boolean {
    return bytes > this.#piece
  }

  /** One for all of them: there are many. */
  readonly #closed = (answer: OpenAnswer): void => {
    this.#open.leave(answer.place!)
    answer.place = null
    this.#memory.give('answers', answer.size)
  }

  #isTaken(answer: OpenAnswer): void {
    if (answer.isClosed) return
    answer.isTaken(this.#clock.now())
    this.#open.leave(answer.place!)
    answer.place = this.#open.join(answer)
  }

  /** Ends the answers of which too little was taken for so long. One timer for all: most of them are taken at once. */
  #look(): void {
    const before = this.#clock.now() - this.#stallTimeout
    for (const answer of this.#open) {
      if (answer.since > before) break
      if (answer.isNext) answer.end()
      else this.#isTaken(answer)
    }
    if (this.#open.size > 0) this.#timer!.refresh()
    else this.#timer = null
  }

  /** Ends answers of which nothing is taken, until so many bytes are free. */
  #makeRoom(bytes: number): boolean {
    const enough = this.#memory.held('answers') - bytes
    const before = this.#clock.now() - PATIENCE_MS
    for (const answer of this.#open) {
      if (this.#memory.held('answers') <= enough || answer.since > before) break
      answer.end()
    }
    return this.#memory.held('answers') <= enough
  }
}

/** An answer whose last byte has not left. */
class OpenAnswer {
  isClosed = false
  /** What it is counted with, in bytes. */
  readonly size: number
  /** When something was taken of it, in milliseconds since the epoch. */
  since: number
  /** Among those that are open; null where it is not. */
  place: Place<OpenAnswer> | null = null
  readonly #reply: FastifyReply
  readonly #onClose: (answer: OpenAnswer) => void

  constructor(reply: FastifyReply, size: number, since: number, onClose: (answer: OpenAnswer) => void) {
    this.#reply = reply
    this.size = size
    this.since = since
    this.#onClose = onClose
  }

  isTaken(now: number): void {
    this.since = now
  }

  /** Whether it can be taken: it doesn't wait behind another one. */
  get isNext(): boolean {
    const { raw } = this.#reply
    return 'stream' in raw || raw.socket !== null
  }

  /** Ends it, whatever has left of it. */
  end(): void {
    this.close()
    endUnanswered(this.#reply)
  }

  /** Its last byte has left, or never will. */
  close(): void {
    if (this.isClosed) return
    this.isClosed = true
    this.#onClose(this)
  }
}

/**
 * Bounds the answers of an app, as `Answers` says. While it stops, each connection ends with its answer: one that was busy
 * when the stop began would keep the server open.
 */
export function boundAnswers(
  app: FastifyInstance,
  answers: Answers,
  stallTimeout: number,
  isStopping: () => boolean
): void {
  app.addHook('onSend', (request, reply, payload, done) => {
    if (isStopping() && request.raw.httpVersionMajor === 1) reply.header('connection', 'close')
    const bytes = typeof payload === 'string' || Buffer.isBuffer(payload) ? Buffer.byteLength(payload) : null
    if (bytes === null && payload) endUnread(reply, stallTimeout)
    if (!bytes || hasNoContent(reply)) return done()
    try {
      const answer = answers.open(reply, bytes)
      sized.get(reply)?.(bytes)
      if (answer && (answer.isClosed || !answers.isLong(bytes))) return done()
      reply.hijack()
      if (answer) answers.write(reply, answer, payload as string | Buffer)
      else endUnanswered(reply)
    } catch (error) {
      done(error as Error)
    }
  })
}

/** Pieces of so many bytes at most. A text becomes bytes part by part: all at once it would take as much memory again. */
export function* piecesOf(payload: string | Buffer, size: number): Generator<Buffer, undefined> {
  for (let offset = 0; offset < payload.length;) {
    const end = endOfPart(payload, offset + size)
    const bytes =
      typeof payload === 'string' ? Buffer.from(payload.slice(offset, end)) : payload.subarray(offset, end)
    for (let from = 0; from < bytes.length; from += size) yield bytes.subarray(from, from + size)
    offset = end
  }
}

/** Where a part ends that is to end here: not amid a surrogate pair, whose halves are no text. */
function endOfPart(payload: string | Buffer, end: number): number {
  const isAmid = typeof payload === 'string' && /[\ud800-\udbff]/.test(payload.charAt(end - 1))
  return isAmid ? end + 1 : end
}

function hasNoContent({ request, statusCode }: FastifyReply): boolean {
  return request.method === 'HEAD' || statusCode === 204 || statusCode === 304
}

function endUnanswered({ raw, request }: FastifyReply): void {
  const response: ServerResponse | Http2ServerResponse = raw
  if ('stream' in response) (response.stream as ServerHttp2Stream).close(constants.NGHTTP2_CANCEL)
  else request.raw.socket.destroy()
}

/** Ends an answer that is a stream of Node's, such as a file, of which nothing is taken for so many milliseconds. */
function endUnread({ raw, request }: FastifyReply, stallTimeout: number): void {
  const response: ServerResponse | Http2ServerResponse = raw
  if ('stream' in response) {
    const stream = response.stream as ServerHttp2Stream
    return void stream.setTimeout(stallTimeout, () => stream.close(constants.NGHTTP2_CANCEL))
  }
  const { socket } = request.raw
  response.setTimeout(stallTimeout, () => response.destroy())
  response.once('finish', () => {
    // a request that came meanwhile would be ended by it
    if (socket.timeout === stallTimeout) socket.setTimeout(0)
  })
}

/** Who is to be told how large an answer is. */
const sized = new WeakMap<FastifyReply, (bytes: number) => void>()

/** The listener is told how many bytes the body of an answer has, as it goes out, once that is known. */
export function onceSized(reply: FastifyReply, listener: (bytes: number) => void): void {
  sized.set(reply, listener)
}

/** Who is to be told when a connection closes. */
const waiting = new WeakMap<Socket, Set<() => void>>()

/** Tells the listener once that the last byte of an answer has left, or that nobody takes it any more. */
export function onceGone(reply: FastifyReply, listener: () => void): void {
  const response: ServerResponse | Http2ServerResponse = reply.raw
  if (isGone(reply)) return listener()
  if ('stream' in response || response.socket) return void response.on('close', listener)
  // one that waits behind another one is not told that their connection has closed
  const listeners = listenersOf(reply.request.raw.socket)
  const once = (): void => {
    if (listeners.delete(once)) listener()
  }
  listeners.add(once)
  response.once('close', once)
}

function listenersOf(socket: Socket): Set<() => void> {
  const known = waiting.get(socket)
  if (known) return known
  const listeners = new Set<() => void>()
  waiting.set(socket, listeners)
  socket.once('close', () => {
    for (const listener of listeners) listener()
  })
  return listeners
}
