import type { ServerResponse } from 'node:http'
import type { Http2ServerResponse } from 'node:http2'
import type { FastifyReply } from 'fastify'
import type { Place } from '../hub/connections.ts'
import type { Session } from '../hub/session.ts'
import { onceGone, onceSized } from '../net/answers.ts'
import { keepSession } from '../net/http2-session.ts'
import { ResponseSink } from '../net/response-sink.ts'
import { isGone, isInjected, packingOf, type StreamSink } from '../net/sink.ts'
import { SocketSink } from '../net/socket-sink.ts'
import { isTaken } from '../net/stream-request.ts'
import type { Packing } from '../wire/packing.ts'
import type { Answer } from './readers.ts'
import { countBegun } from './timing.ts'

/** Longer than any poll is held, in milliseconds. */
const HOLD_MS = 2 ** 30

/** The answer to a reader, as a reply of Fastify. */
export class ReplyAnswer implements Answer {
  readonly #reply: FastifyReply
  #hold: NodeJS.Timeout | undefined

  constructor(reply: FastifyReply) {
    this.#reply = reply
  }

  get isGone(): boolean {
    return isGone(this.#reply)
  }

  get packing(): Packing {
    return packingOf(this.#reply)
  }

  head(headers: Readonly<Record<string, string>>, cursor?: string): void {
    if (cursor !== undefined) this.#reply.header('ringside-cursor', cursor)
    this.#reply.headers(headers)
  }

  keep(place: Place): void {
    onceGone(this.#reply, () => place.release())
  }

  nothing(): unknown {
    return this.#reply.code(204).send()
  }

  send(text?: string, sent?: (bytes: number) => void): unknown {
    if (sent) onceSized(this.#reply, sent)
    return this.#reply.send(text)
  }

  stream(session: Session, stallTimeout: number, preface: readonly Buffer[]): void {
    const { socket } = this.#reply.raw
    socket?.cork() // the head and the first events go out in one packet
    openSink(this.#reply).serve(session, stallTimeout, preface)
    socket?.uncork()
  }

  farewell(bytes: Buffer): () => void {
    const sink = openSink(this.#reply)
    if (bytes.length > 0) sink.write(bytes)
    return () => sink.end()
  }

  leave(): void {
    this.#reply.hijack()
    this.#reply.raw.destroy() // of a peer that has only ended its side
  }

  onClose(listener: () => void): void {
    const { raw } = this.#reply.request
    // a server's own time-out doesn't know how long a poll may be held; with the next request Node sets it again
    if (raw.httpVersionMajor > 1) keepSession(this.#reply)
    else if (!isInjected(this.#reply)) raw.socket.setTimeout(0)
    // nothing else keeps the process, whose timers don't, until an injected poll is answered
    else this.#hold = setInterval(ignore, HOLD_MS)
    raw.socket.once('close', listener)
  }

  offClose(listener: () => void): void {
    clearInterval(this.#hold)
    this.#reply.request.raw.socket.off('close', listener)
  }
}

/** Sends the head: the headers that were set. */
function openSink(reply: FastifyReply): StreamSink {
  reply.hijack()
  const raw: ServerResponse | Http2ServerResponse = reply.raw
  raw.writeHead(200, reply.getHeaders() as Record<string, string>)
  raw.flushHeaders()
  countBegun(reply, 200)
  return isTaken(raw) ? new SocketSink(raw) : new ResponseSink(reply)
}

/** Says on which headers the answer depends; CORS has said already that it depends on the origin. */
export function varyBy(reply: FastifyReply, names: string): void {
  const vary = reply.getHeader('vary')
  reply.header('vary', vary === undefined ? names : `${String(vary)}, ${names}`)
}

function ignore(): void {}
