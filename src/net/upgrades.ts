/** What becomes of requests that ask to upgrade, besides streams. */
import { EventEmitter } from 'node:events'
import type { IncomingMessage, Server } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { Routes } from './routes.ts'

/** Who takes the WebSockets of each server, by route. */
const webSockets = new WeakMap<object, Routes<EventEmitter>>()

/** What is to emit 'upgrade' for the WebSockets that the server of an app is asked for on the path of a route. */
export function addWebSockets(app: FastifyInstance, path: string): EventEmitter {
  const routes = webSockets.get(app.server) ?? new Routes<EventEmitter>(app)
  const emitter = new EventEmitter()
  webSockets.set(app.server, routes)
  routes.add(path, emitter)
  return emitter
}

/** Who takes the WebSocket that a request asks for; undefined where nobody does, or it asks for something else. */
export function webSocketsFor(server: object, request: IncomingMessage): EventEmitter | undefined {
  const { method, headers } = request
  if (method !== 'GET' || headers.upgrade?.toLowerCase() !== 'websocket') return undefined
  return webSockets.get(server)?.find(request)
}

/**
 * Gives the server a request once more, without its wish to upgrade, which it may ignore (RFC 9110, section 7.8): with a
 * listener Node takes any such request for one that upgrades, and doesn't read its body.
 */
export function serveAsAnyOther(
  server: Server,
  { method, url, httpVersion, rawHeaders }: IncomingMessage,
  socket: Socket,
  head: Buffer
): void {
  const lines = [`${method} ${url} HTTP/${httpVersion}`]
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index]!
    const value = rawHeaders[index + 1]!
    if (/^upgrade$/i.test(name)) continue
    const options = value.split(',').filter(option => option.trim().toLowerCase() !== 'upgrade')
    if (!/^connection$/i.test(name)) lines.push(`${name}: ${value}`)
    else if (options.length > 0) lines.push(`${name}: ${options.join(',')}`)
  }
  socket.unshift(Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), head]))
  server.emit('encrypted' in socket ? 'secureConnection' : 'connection', socket)
}
