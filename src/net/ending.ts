import type { ServerResponse } from 'node:http'
import { constants, type Http2ServerResponse, type ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'

/** How long a peer may take to close its side after ours was ended, in milliseconds. */
export const LINGER_MS = 3000

/** What the buffer for a connection takes on every system, in bytes. */
const SMALL_ANSWER = 16_384

/**
 * Ends the answers of an app of which nothing is taken for so many milliseconds. While it stops, each connection ends with
 * its answer: one that was busy when the stop began would keep the server open.
 */
export function endAnswers(app: FastifyInstance, stallTimeout: number, isStopping: () => boolean): void {
  app.addHook('onSend', async (request, reply, payload) => {
    if (isStopping() && request.raw.httpVersionMajor === 1) reply.header('connection', 'close')
    if (!isTakenWhole(request, payload)) endUnread(reply, stallTimeout)
  })
}

/** Whether an answer leaves us at once, whoever reads it: not by HTTP/2, where the peer says how much it takes. */
function isTakenWhole({ raw }: FastifyRequest, payload: unknown): boolean {
  if (raw.httpVersionMajor === 2) return false
  if (typeof payload !== 'string' && !Buffer.isBuffer(payload)) return payload == null
  return payload.length <= SMALL_ANSWER
}

/** Ends an answer of which nothing is taken for so many milliseconds: it would wait for ever. */
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

/** Ends a connection, with these bytes last, at the latest after `LINGER_MS`: a peer may never end its side. */
export function endConnection(socket: Socket, last = ''): void {
  socket.end(last)
  const timer = setTimeout(() => socket.destroy(), LINGER_MS).unref()
  socket.once('close', () => clearTimeout(timer))
}
