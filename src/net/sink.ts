import type { ServerResponse } from 'node:http'
import type { Http2ServerResponse, ServerHttp2Stream } from 'node:http2'
import { Socket } from 'node:net'
import type { FastifyReply } from 'fastify'
import type { Session } from '../hub/session.ts'
import type { Sink } from '../hub/sink.ts'
import { chunked, plain, type Packing } from '../wire/packing.ts'
import { isTaken } from './stream-request.ts'

/** Where the bytes of a stream go once its answer has begun. It also tells the session what becomes of the connection. */
export interface StreamSink extends Sink {
  /** Feeds a session's bytes to the peer, these first. A connection that drains nothing for so many milliseconds is ended. */
  serve(session: Session, stallTimeout: number, preface?: readonly Buffer[]): void
}

/** How what is written to this answer must be delimited; decided before its head is sent. */
export function packingOf({ raw }: FastifyReply): Packing {
  return isTaken(raw) ? chunked : plain
}

/** Whether nobody can be answered any more. It must be asked: a 'close' that was emitted is not emitted again. */
export function isGone({ raw, request }: FastifyReply): boolean {
  const response: ServerResponse | Http2ServerResponse = raw
  if ('stream' in response) {
    const { destroyed, closed } = response.stream as ServerHttp2Stream
    return destroyed || closed
  }
  const { socket, destroyed } = request.raw
  // a peer may have ended its side before its connection is closed
  return destroyed || response.destroyed || socket.destroyed || (isTaken(raw) && socket.readableEnded)
}

/** Whether a request came by `app.inject`, and not over a connection. */
export function isInjected({ raw, request }: FastifyReply): boolean {
  return !('stream' in raw) && !(request.raw.socket instanceof Socket)
}
