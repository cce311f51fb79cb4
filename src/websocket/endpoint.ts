import type { IncomingMessage, Server } from 'node:http'
import websocket from '@fastify/websocket'
import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify'
import type { Settings } from '../config.ts'
import { countBegun } from '../http/timing.ts'
import type { Agents } from '../http/agents.ts'
import type { TurnedAway } from '../http/turned-away.ts'
import { Problem } from '../problem.ts'
import type { GoodbyeReason } from '../wire/format.ts'
import { PROTOCOLS, websocketFormat, type Protocol } from '../wire/websocket.ts'
import { webSocketsOn } from '../net/stream-request.ts'
import { Peer, turnAway, type PeerContext } from './peer.ts'

export interface WebSocketOptions extends Omit<PeerContext, 'logger' | 'maxBytes' | 'settings'> {
  settings: PeerContext['settings'] & Pick<Settings, 'WS_MAX_BYTES'>
  /** Why no connection can be taken now; null when one can. */
  refusal(): GoodbyeReason | null
  turnedAway: Pick<TurnedAway, 'count'>
  agents: Agents
}

/** What a message may need more than its data: names, topics, ids of notifications. */
const OVERHEAD = 8192

/** How often each connection is asked for a sign of life, in seconds: some proxies and clients end idle ones at 30. */
const PING_S = 20

/** How long a client may take to answer a close frame, in milliseconds. */
const CLOSE_TIMEOUT_MS = 2000

/** GET /ws. Section 6 of the contract. */
export const websocketRoutes: FastifyPluginAsync<WebSocketOptions> = async (app, options) => {
  const { hub, clock, settings, limits, refusal, turnedAway, agents } = options
  const maxBytes = maxMessage(settings)
  const context: PeerContext = { ...options, logger: app.log, maxBytes: maxBytes || Infinity }
  const heartbeat = new Heartbeat()
  const timer = clock.after(1000, () => {
    heartbeat.tick()
    timer.refresh()
  })

  let isClosing = false
  app.addHook('preClose', async () => {
    isClosing = true
  })

  // an app that takes WebSockets by the same plugin takes ours as well
  if (!app.hasDecorator('websocketServer')) {
    const server = webSocketsOn(app, `${app.prefix.replace(/\/+$/, '')}/ws`)
    const serverOptions = {
      server: server as Server,
      maxPayload: maxBytes,
      // what is compressed goes out later, and frames that are written meanwhile would go before it
      perMessageDeflate: false,
      clientTracking: false,
      // each peer counts its pings itself, and reads none while it is full
      maxPendingAutoPongs: 0,
      closeTimeout: CLOSE_TIMEOUT_MS
    }
    await app.register(websocket, {
      options: serverOptions,
      // the hub says goodbye to every connection
      preClose(done) {
        this.websocketServer.close()
        done()
      }
    })
    // whoever is refused before the plugin's own hook has run it doesn't know of, and Node has given the socket away
    const asked = new WeakSet<IncomingMessage>()
    server.on('upgrade', (request: IncomingMessage) => asked.add(request))
    app.addHook('onResponse', async ({ raw }) => {
      if (asked.has(raw)) raw.socket.destroySoon()
    })
  }

  app.route({
    method: 'GET',
    url: '/ws',
    // OpenAPI has no words for it
    schema: { hide: true },
    config: { isCounted: true },
    preValidation: async (request, reply) => {
      if (!request.ws) return
      // `ws` takes none any more, and would not say when to come back
      if (isClosing)
        throw new Problem(
          'unavailable',
          'the server is stopping',
          [],
          Math.ceil(hub.connections.spread() / 1000)
        )
      checkHandshake(request, reply)
    },
    // there is no other answer any more, and the connection should not keep it
    preHandler: async ({ raw, ws }, reply) => {
      if (!ws) return
      countBegun(reply, 101)
      reply.raw.detachSocket(raw.socket)
    },
    handler: async (_request, reply) => {
      reply.header('upgrade', 'websocket')
      throw new Problem('upgrade required', 'this is for WebSockets (RFC 6455)')
    },
    wsHandler: (ws, request) => {
      // those of the plugin keep the request
      ws.removeAllListeners('error')
      const reason = refusal()
      // without its broker it is told so when it asks for something
      if (reason !== null && reason !== 'unavailable') {
        turnedAway.count(reason)
        return turnAway(ws, reason, hub.connections.spread())
      }
      const client = limits.clientOf(request)
      const place = limits.connect(client, true)
      if ('limit' in place) {
        turnedAway.count(place.limit)
        return turnAway(ws, 'full', hub.connections.spread(place.window))
      }
      const format = websocketFormat((ws.protocol || PROTOCOLS[0]) as Protocol)
      const peer = new Peer(
        context,
        {
          ...{ ws, socket: request.raw.socket, format, grant: request.grant, client, place },
          ...{ address: request.ip, agent: agents.of(request.headers['user-agent']) }
        },
        () => heartbeat.delete(peer)
      )
      heartbeat.add(peer)
    }
  })
}

/** The largest message, in bytes; 0 for no limit. */
export function maxMessage({
  MAX_EVENT_BYTES,
  WS_MAX_BYTES = 2 * MAX_EVENT_BYTES + OVERHEAD
}: Pick<Settings, 'MAX_EVENT_BYTES' | 'WS_MAX_BYTES'>): number {
  return WS_MAX_BYTES
}

/** What `ws` would refuse as well, in its own words; and which subprotocol is spoken. Throws a `Problem`. */
function checkHandshake({ raw: { headers } }: FastifyRequest, reply: FastifyReply): void {
  if (headers['sec-websocket-version'] !== '13') {
    reply.headers({ upgrade: 'websocket', 'sec-websocket-version': '13' })
    throw new Problem('upgrade required', 'Sec-WebSocket-Version: it must be 13')
  }
  if (!/^[+/0-9A-Za-z]{22}==$/.test(headers['sec-websocket-key'] ?? ''))
    throw new Problem('malformed', 'Sec-WebSocket-Key: it must be 16 bytes in base64')
  // what comes after the head are frames
  if (headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0)
    throw new Problem('malformed', 'a handshake has no body')
  const offered = headers['sec-websocket-protocol']
  if (offered === undefined) return
  const names = offered.split(',').map(name => name.trim())
  const chosen = names.find(name => PROTOCOLS.some(protocol => protocol === name))
  if (chosen === undefined) {
    throw new Problem('malformed', `Sec-WebSocket-Protocol: ${offered}: there is ${PROTOCOLS.join(', ')}`)
  }
  headers['sec-websocket-protocol'] = chosen // the first one is taken
}

/** Asks every connection for signs of life: by one timer, and each at a time of its own. */
class Heartbeat {
  /** When each is due, in ticks; the one that is due next comes first. */
  readonly #due = new Map<Peer, number>()
  #ticks = 0

  add(peer: Peer): void {
    this.#due.set(peer, this.#ticks + PING_S)
  }

  delete(peer: Peer): void {
    this.#due.delete(peer)
  }

  /** Once a second. */
  tick(): void {
    this.#ticks++
    for (const [peer, due] of this.#due) {
      if (due > this.#ticks) return
      this.#due.delete(peer)
      this.add(peer)
      peer.ping() // which may end it
    }
  }
}
