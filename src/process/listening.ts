import { lookup } from 'node:dns/promises'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'

/**
 * Connections that may wait until they are taken. When all clients of another instance come at once, the system lets those
 * beyond it wait for seconds, or resets them; it allows no more than net.core.somaxconn.
 */
const BACKLOG = 65_535

/** The addresses to listen on: `localhost` may be two, one of IPv4 and one of IPv6. */
export async function addressesOf(host: string): Promise<readonly string[]> {
  if (host !== 'localhost') return [host]
  const found = await lookup(host, { all: true })
  return [...new Set(found.map(({ address }) => address))]
}

/**
 * Has a server listen on an address, and on more of them at the same port; resolves with its URL. Fastify would make
 * another server for `localhost`'s second address, which nothing holds to the limits of the first. Here the connections of
 * all addresses come to the one server. What can't be listened on besides the first is left out, as Fastify does.
 */
export async function listenOn(
  app: FastifyInstance,
  [first, ...others]: readonly string[],
  port: number
): Promise<string> {
  const closers = new Set<() => void>()
  // after the drain, when the server itself takes no more
  app.addHook('preClose', async () => closers.forEach(close => close()))
  const address = await app.listen({ host: first!, port, backlog: BACKLOG })
  const { port: given } = app.server.address() as AddressInfo
  for (const host of others) await listenBesides(app, host, given).then(close => closers.add(close), ignore)
  return address
}

/** Resolves with what ends it. */
function listenBesides(app: FastifyInstance, host: string, port: number): Promise<() => void> {
  const enter = (socket: Socket) => void app.server.emit('connection', socket)
  // as Node's own server of HTTP has them
  const besides = createServer({ allowHalfOpen: !('setSecureContext' in app.server), noDelay: true }, enter)
  return new Promise((resolve, reject) => {
    besides.once('error', reject)
    besides.listen({ host, port, backlog: BACKLOG }, () => resolve(() => besides.close()))
  })
}

function ignore(): void {}
