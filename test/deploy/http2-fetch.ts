import { connect, type ClientHttp2Session, type IncomingHttpHeaders } from 'node:http2'
import { Readable } from 'node:stream'
import type { FetchLike } from 'eventsource'

/** A `fetch`, and how it ends. */
export interface Http2Fetch {
  readonly fetch: FetchLike
  close(): void
}

/**
 * A `fetch` over HTTP/2, with so many requests on one connection. As browsers do, it lets a stream go on when its
 * connection takes no others any more (GOAWAY): undici 7 ends all of them then.
 */
export function http2Fetch(origin: string, ca: Buffer, streams: number): Http2Fetch {
  const sessions = new Map<ClientHttp2Session, number>()

  function sessionWithRoom(): ClientHttp2Session {
    const found = [...sessions].find(
      ([{ closed, destroyed }, count]) => !closed && !destroyed && count < streams
    )
    const session = found?.[0] ?? connect(origin, { ca })
    if (!found) {
      session.on('error', () => {}) // its requests fail with it
      session.on('close', () => sessions.delete(session))
      sessions.set(session, 0)
    }
    sessions.set(session, sessions.get(session)! + 1)
    return session
  }

  const fetch: FetchLike = (input, { headers, signal }) => {
    const { pathname, search, href } = new URL(input)
    const session = sessionWithRoom()
    return new Promise((resolve, reject) => {
      const stream = session.request({ ':path': pathname + search, ...headers })
      ;(signal as AbortSignal | undefined)?.addEventListener('abort', () => stream.destroy())
      stream.on('response', (head: IncomingHttpHeaders & { ':status'?: number }) =>
        resolve({
          status: head[':status']!,
          redirected: false,
          url: href,
          headers: { get: name => (head[name.toLowerCase()] as string | undefined) ?? null },
          body: Readable.toWeb(stream)
        })
      )
      stream.on('error', reject)
      stream.on('close', () => {
        if (sessions.has(session)) sessions.set(session, sessions.get(session)! - 1)
        reject(new Error('the connection has ended'))
      })
    })
  }
  return {
    fetch,
    close: () => [...sessions.keys()].forEach(session => session.destroy())
  }
}
