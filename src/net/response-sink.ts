import { ServerResponse } from 'node:http'
import type { Http2ServerResponse, ServerHttp2Stream } from 'node:http2'
import type { FastifyReply } from 'fastify'
import type { Session } from '../hub/session.ts'
import { LINGER_MS } from './ending.ts'
import { keepSession } from './http2-session.ts'
import { isGone, isInjected, type StreamSink } from './sink.ts'

/** A stream of HTTP/2 or HTTP/1.0, or on a server that doesn't let go of its connections. */
export class ResponseSink implements StreamSink {
  readonly #reply: FastifyReply
  readonly #body: ServerHttp2Stream | ServerResponse
  #stallTimeout = 0
  #stalling = false
  /** An answer to `app.inject` has no connection that could stall. */
  readonly #isInjected: boolean

  constructor(reply: FastifyReply) {
    const raw: ServerResponse | Http2ServerResponse = reply.raw
    this.#reply = reply
    this.#isInjected = isInjected(reply)
    this.#body = 'stream' in raw ? (raw.stream as ServerHttp2Stream) : raw
  }

  get pending(): number {
    return this.#body.writableNeedDrain ? this.#body.writableLength : 0
  }

  write(bytes: Buffer): void {
    if (this.#body.write(bytes) || this.#stalling || !this.#reply.raw.socket) return
    this.#stalling = true
    this.#setTimeout(this.#stallTimeout)
  }

  end(): void {
    const body = this.#body
    this.#reply.raw.end()
    // a stream of HTTP/1.x ends with its connection, for which Node has time-outs of its own
    if (!(body instanceof ServerResponse)) body.setTimeout(LINGER_MS, () => body.destroy())
  }

  serve(session: Session, stallTimeout: number, preface?: readonly Buffer[]): void {
    const body = this.#body
    const { raw, request } = this.#reply
    if (isGone(this.#reply)) return session.close('client')
    body.on('error', ignore) // 'close' follows
    body.on('drain', () => {
      this.#stalling = false
      this.#setTimeout(0)
      session.drained()
    })
    body.on('timeout', () => {
      session.close('stalled')
      body.destroy()
    })
    // an answer that waits behind another one is not told that their connection has closed
    const gone = raw.socket ? raw : request.raw.socket
    gone.once('close', () => session.close('client'))
    // whoever gave a signal to `app.inject` ends its request by it
    if (this.#isInjected) request.raw.once('close', () => session.close('client'))
    // a server's own time-out doesn't know how long a stream may be silent
    this.#setTimeout(0)
    if (!(body instanceof ServerResponse)) keepSession(this.#reply)
    this.#stallTimeout = stallTimeout
    session.start(this, preface)
  }

  #setTimeout(ms: number): void {
    // an answer that waits behind another one has no socket of its own yet
    if (!this.#isInjected && this.#reply.raw.socket) this.#body.setTimeout(ms)
  }
}

function ignore(): void {}
