import type { Socket } from 'node:net'
import { Server as TlsServer, type TLSSocket } from 'node:tls'
import type { FastifyInstance } from 'fastify'
import type { Settings } from '../config.ts'

/** Descriptors that are kept for what is no connection of a client: Redis, files, the log. */
const OWN_DESCRIPTORS = 64

/** Sockets that are kept for who doesn't subscribe: publishers, scrapes, and those who are turned away. */
const OTHER_SOCKETS = 1000

/** How many sockets there may be, and how long a client may take to say what it wants. Times are milliseconds. */
export interface Bounds {
  /** The most connections of subscribers; `Infinity` for no limit. */
  readonly maxConnections: number
  /** The most sockets, whatever for: past it they are closed at once. `Infinity` for no limit. */
  readonly maxSockets: number
  /** From the first byte that could come to the end of the headers. */
  readonly headersTimeout: number
  /** The same, to the end of the body. */
  readonly requestTimeout: number
  /** How often it is looked at who is too late. */
  readonly connectionsCheckingInterval: number
}

/** Of each worker: its part of what was set, and what so many descriptors allow. */
export function boundsOf(
  { MAX_CONNECTIONS, WORKERS }: Pick<Settings, 'MAX_CONNECTIONS' | 'WORKERS'>,
  descriptors: number
): Bounds {
  const without = (reserve: number) => Math.max(descriptors - reserve, Math.ceil(descriptors / 2))
  return {
    maxConnections:
      MAX_CONNECTIONS === undefined
        ? without(OTHER_SOCKETS)
        : Math.ceil(MAX_CONNECTIONS / WORKERS) || Infinity,
    maxSockets: without(OWN_DESCRIPTORS),
    headersTimeout: 15_000,
    // what Node has by default, and Fastify takes away
    requestTimeout: 300_000,
    connectionsCheckingInterval: 5000
  }
}

/** Holds a server that doesn't listen yet to these bounds. */
export function bound(app: FastifyInstance, bounds: Bounds): void {
  const { headersTimeout, requestTimeout, connectionsCheckingInterval, maxSockets } = bounds
  // the server of HTTP/2 takes none of them as an option
  Object.assign(app.server, { headersTimeout, requestTimeout, connectionsCheckingInterval })
  if (maxSockets === Infinity) return
  const scarce = maxSockets - Math.min(OTHER_SOCKETS / 2, maxSockets / 8)
  const makeRoom = roomMaker(app)
  app.server.on('connection', (socket: Socket) => {
    app.server.getConnections((_error, count) => {
      if (count > scarce) makeRoom()
      // with Node's own `maxConnections` full workers would pass it on to each other, again and again
      if (count <= maxSockets) return
      socket.destroy()
      app.ringside.metrics.connectionsRejected.inc({ reason: 'sockets' })
    })
  })
}

/** How long a socket may be silent where there is hardly room for another one, in milliseconds. */
const PATIENCE_MS = 1000

/** How often it is looked for room, at most, in milliseconds. */
const LOOK_MS = 100

/**
 * Ends the sockets that nothing was asked on, or nothing more: a flood of them must not keep out those who ask.
 */
function roomMaker(app: FastifyInstance): () => void {
  const { server } = app
  /** On which nothing was asked yet, the oldest first, and since when. */
  const silent = new Map<Socket, number>()
  let looked = -Infinity
  function forget(this: Socket): void {
    silent.delete(this)
  }
  server.on(server instanceof TlsServer ? 'secureConnection' : 'connection', (socket: Socket) => {
    // those of HTTP/2 are watched over as sessions
    if ((socket as Partial<TLSSocket>).alpnProtocol === 'h2') return
    silent.set(socket, performance.now())
    socket.on('close', forget)
  })
  app.addHook('onRequest', ({ raw: { socket } }, _reply, done) => {
    if (silent.delete(socket)) socket.off('close', forget)
    done()
  })
  return () => {
    const now = performance.now()
    if (now - looked < LOOK_MS) return
    looked = now
    for (const [socket, since] of silent) {
      if (now - since < PATIENCE_MS) break
      socket.destroy()
    }
    // one whose last answer a slow reader hasn't taken whole is idle to Node, and may be cut: it can ask again
    server.closeIdleConnections()
  }
}
