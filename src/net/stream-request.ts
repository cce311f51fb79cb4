import type { EventEmitter } from 'node:events'
import { IncomingMessage, ServerResponse, type Server } from 'node:http'
import type { Http2ServerResponse } from 'node:http2'
import type { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { Round } from '../round.ts'
import { endConnection } from './ending.ts'
import { Routes } from './routes.ts'
import { addWebSockets, serveAsAnyOther, webSocketsFor } from './upgrades.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Whether a GET of the route may be answered with a stream: when `Accept` names one, or also when it names none. */
    stream?: 'named' | 'default'
  }
}

const claim = Symbol('claim')
const asked = Symbol('asked')

/** The answer begun last on each connection. */
const lastResponses = new WeakMap<Socket, ServerResponse>()

/** The responses to requests that were taken. */
const taken = new WeakSet<ServerResponse | Http2ServerResponse>()

/** Whether an answer is to a request whose connection was taken from Node. */
export function isTaken(raw: ServerResponse | Http2ServerResponse): raw is ServerResponse {
  return taken.has(raw)
}

/**
 * Makes Node let go of a connection when a stream of Ringside's is asked for: the parser goes back to its pool, and what
 * is kept of the connection is its socket. Node does so for a request that upgrades; a stream, too, never gives its
 * connection back. Without this class (`http.createServer({ IncomingMessage })`) streams are served all the same, through
 * the response that Node keeps for them.
 */
export class StreamRequest extends IncomingMessage {
  declare [claim]?: 'stream' | 'upgrade' | null;
  /** Whether it asks to upgrade, as the parser says. */
  declare [asked]?: boolean

  get upgrade(): boolean {
    if (this[claim] === undefined) this[claim] = claimOf(this)
    return this[claim] !== null
  }

  set upgrade(upgrade: boolean | null) {
    // the parser sets it before anybody has read it, and the server sets it after
    if (this[claim] === undefined) this[asked] = Boolean(upgrade)
    else if (!upgrade) this[claim] = null
  }
}

/** What becomes of a request's connection: null when Node keeps it. */
function claimOf(request: StreamRequest): 'stream' | 'upgrade' | null {
  // most requests neither ask for a stream nor to upgrade: nothing else is asked of them
  if (!request[asked] && request.method !== 'GET') return null
  const app = apps.get(request.socket)
  if (!app) return request[asked] ? 'upgrade' : null
  const { server } = app
  // other listeners would take a stream for an upgrade of theirs
  const others = server.listeners('upgrade').some(listener => listener !== onUpgrade)
  if (request[asked] && (others || (webSocketsFor(server, request) && isFree(request.socket))))
    return 'upgrade'
  if (others || !asksForStream(request, streamRoutes.get(server)!)) return null
  // Node looks for listeners right after this; so a server that takes nothing needs no listener of ours
  listenTo(server)
  return 'stream'
}

/** The apps that serve what was taken, by connection. */
const apps = new WeakMap<Socket, FastifyInstance>()

// --- which requests are taken ---

/** The routes of each server that are answered with streams, and when they are. */
const streamRoutes = new WeakMap<object, Routes<'named' | 'default'>>()

/**
 * Serves the streams of a server through the routes of an app that have `config.stream` and are registered after this
 * call, where the server makes each request a `StreamRequest`. All other requests are left to Node.
 */
export function takeStreams(app: FastifyInstance): void {
  const { server } = app
  const routes = streamRoutes.get(server) ?? new Routes(app)
  app.addHook('onRoute', ({ method, url, config }) => {
    if (config?.stream && [method].flat().includes('GET')) routes.add(url, config.stream)
  })
  if (streamRoutes.has(server)) return // two would take each connection twice
  streamRoutes.set(server, routes)
  server.on('connection', (socket: Socket) => apps.set(socket, app))
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    if (request instanceof StreamRequest) lastResponses.set(request.socket, response)
  })
}

/** Whether one of our routes is asked for a stream: `Accept` names one, or leaves the choice to a route that has one then. */
function asksForStream(request: IncomingMessage, routes: Routes<'named' | 'default'>): boolean {
  const { method, httpVersion, headers, socket } = request
  // a request without a host Node refuses, unless it upgrades (RFC 9112, section 3.2)
  if (method !== 'GET' || httpVersion !== '1.1' || headers.host === undefined) return false
  const { accept = '*/*' } = headers
  const isNamed = /text\/event-stream|application\/x-ndjson/i.test(accept)
  if (!isNamed && !accept.includes('*/*')) return false
  const route = routes.find(request)
  return (isNamed ? route !== undefined : route === 'default') && isFree(socket)
}

/** Whether no earlier answer is still on its way: a stream must not overtake it. */
function isFree(socket: Socket): boolean {
  return lastResponses.get(socket)?.writableFinished ?? true
}

// --- what becomes of them ---

/**
 * What emits 'upgrade', as a server would, for the WebSockets that are asked for on a path, and for nothing else. All
 * other requests that ask to upgrade are left to those who listen besides; where nobody does, they are answered as any
 * other.
 */
export function webSocketsOn(app: FastifyInstance, path: string): EventEmitter {
  listenTo(app.server)
  return addWebSockets(app, path)
}

function listenTo(server: FastifyInstance['server']): void {
  if (!server.listeners('upgrade').includes(onUpgrade)) server.on('upgrade', onUpgrade)
}

function onUpgrade(this: Server, request: IncomingMessage, socket: Socket, head: Buffer): void {
  if (request instanceof StreamRequest && request[claim] === 'stream') return takeStream(request, socket)
  if (webSocketsFor(this, request)?.emit('upgrade', request, socket, head)) {
    lastResponses.delete(socket)
    return void apps.delete(socket)
  }
  if (this.listenerCount('upgrade') === 1) serveAsAnyOther(this, request, socket, head)
}

/** Streams that are asked for: after a restart of the server thousands of them in a second. */
const begun = new Round()

function takeStream(request: StreamRequest, socket: Socket): void {
  const app = apps.get(socket)!
  socket.on('error', ignore) // 'close' follows
  const response = new ServerResponse(request)
  response.shouldKeepAlive = false
  response.assignSocket(socket)
  response.on('finish', () => endConnection(socket))
  taken.add(response)
  // else the last answer on the connection would be kept for as long as the stream lives
  lastResponses.delete(socket)
  apps.delete(socket)
  begun.add(() => {
    if (!socket.destroyed) app.routing(request, response)
  })
}

function ignore(): void {}
