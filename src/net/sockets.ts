import type { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import type { Settings } from '../config.ts'
import { IdleSockets } from './idle-sockets.ts'

/** Descriptors that are kept for what is no connection of a client: Redis, files, the log. */
const OWN_DESCRIPTORS = 64

/** Sockets that are kept for who doesn't subscribe: publishers, scrapes, and those who are turned away. */
const OTHER_SOCKETS = 1000

/** What a stream takes, about, in bytes: some 5 KiB when nothing waits in it, and as much again for those that are slow. */
const STREAM_BYTES = 8192

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

/**
 * Of each worker: its part of what was set, else what so many descriptors and so much memory (bytes, for streams alone)
 * allow.
 */
export function boundsOf(
  { MAX_CONNECTIONS, WORKERS }: Pick<Settings, 'MAX_CONNECTIONS' | 'WORKERS'>,
  descriptors: number,
  memory: number
): Bounds {
  const without = (reserve: number) => Math.max(descriptors - reserve, Math.ceil(descriptors / 2))
  return {
    maxConnections:
      MAX_CONNECTIONS === undefined
        ? Math.min(without(OTHER_SOCKETS), Math.floor(memory / STREAM_BYTES))
        : Math.ceil(MAX_CONNECTIONS / WORKERS) || Infinity,
    maxSockets: without(OWN_DESCRIPTORS),
    headersTimeout: 15_000,
    // what Node has by default, and Fastify takes away
    requestTimeout: 300_000,
    connectionsCheckingInterval: 5000
  }
}

/** Holds a server that doesn't listen yet to these bounds. `isExempt`: which addresses may have any number of idle sockets. */
export function bound(
  app: FastifyInstance,
  bounds: Bounds,
  isExempt: (address: string) => boolean = () => false
): void {
  const { headersTimeout, requestTimeout, connectionsCheckingInterval, maxSockets } = bounds
  // the server of HTTP/2 takes none of them as an option
  Object.assign(app.server, { headersTimeout, requestTimeout, connectionsCheckingInterval })
  const refused = (reason: 'sockets' | 'idle_sockets') => app.ringside.turnedAway.count(reason)
  const idle = new IdleSockets(isExempt, () => refused('idle_sockets'))
  idle.watch(app)
  if (maxSockets === Infinity) return
  const scarce = maxSockets - Math.min(OTHER_SOCKETS / 2, maxSockets / 8)
  // the server itself counts those of its own address alone
  const open = new Set<Socket>()
  app.addHook('onReady', async () => {
    app.ringside.metrics.watch({ sockets: () => open.size })
    app.ringside.metrics.limit({ sockets: maxSockets })
  })
  // one for all of them: there are many
  function forget(this: Socket): void {
    open.delete(this)
  }
  app.server.on('connection', (socket: Socket) => {
    // a request that asks to upgrade in vain is read again on the same one
    if (open.has(socket)) return
    open.add(socket.on('close', forget))
    if (open.size > scarce) idle.makeRoom()
    // with Node's own `maxConnections` full workers would pass it on to each other, again and again
    if (open.size <= maxSockets) return
    socket.destroy()
    refused('sockets')
  })
}
