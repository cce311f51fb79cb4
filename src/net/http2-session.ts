/** A connection of HTTP/2, for as long as something of Ringside's is under way on it. */
import type { Http2ServerResponse, Http2Session } from 'node:http2'
import type { FastifyReply } from 'fastify'

/** How many answers keep each connection. */
const kept = new WeakMap<Http2Session, number>()

/**
 * Keeps the connection of an answer until that has ended: the server's time-out for connections on which nothing comes or
 * goes doesn't know how long a stream may be silent, or a poll be held.
 */
export function keepSession({ raw, server }: FastifyReply): void {
  const { http2SessionTimeout = 0 } = server.initialConfig
  const stream = (raw as unknown as Http2ServerResponse).stream
  const { session } = stream
  if (http2SessionTimeout === 0 || !session) return
  kept.set(session, (kept.get(session) ?? 0) + 1)
  session.setTimeout(0)
  stream.once('close', () => {
    const left = kept.get(session)! - 1
    kept.set(session, left)
    if (left === 0) session.setTimeout(http2SessionTimeout)
  })
}
