import { EventEmitter } from 'node:events'
import { IncomingMessage, ServerResponse, type Server } from 'node:http'
import { constants, type Http2ServerResponse, type ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import type { FastifyInstance, FastifyReply } from 'fastify'
import type { Session } from '../hub/session.ts'
import type { Sink } from '../hub/sink.ts'
import { chunked, LAST_CHUNK, plain, type Packing } from '../wire/packing.ts'
import { direct, type Handle, type Waiter } from './direct.ts'

/** How long a peer may take to close its side after ours was ended, in milliseconds. */
const LINGER_MS = 3000

/**
 * Where a stream's bytes go once its answer has begun: a session's sink, which also tells the session what becomes of
 * the connection.
 */
export interface Connection extends Sink {
  /** Feeds a session's bytes to the peer, these first. A connection that drains nothing for so many milliseconds is ended. */
  serve(session: Session, stallTimeout: number, preface?: readonly Buffer[]): void
}

/** How what is written to this answer must be delimited; decided before its head is sent. */
export function packingOf({ raw }: FastifyReply): Packing {
  return isTaken(raw) ? chunked : plain
}

/** Sends the head: the headers that were set. */
export function openConnection(reply: FastifyReply): Connection {
  reply.hijack()
  const raw: ServerResponse | Http2ServerResponse = reply.raw
  raw.writeHead(200, reply.getHeaders() as Record<string, string>)
  raw.flushHeaders()
  return isTaken(raw) ? new TakenConnection(raw) : new ResponseConnection(reply)
}

/** Whether nobody can be answered any more: a 'close' that has been is not told to who listens later. */
export function isGone({ raw, request }: FastifyReply): boolean {
  const response: ServerResponse | Http2ServerResponse = raw
  if ('stream' in response) {
    const { destroyed, closed } = response.stream as ServerHttp2Stream
    return destroyed || closed
  }
  const { socket, destroyed } = request.raw
  // the end of a peer that Node still reads for comes before its close
  return destroyed || response.destroyed || socket.destroyed || (isTaken(raw) && socket.readableEnded)
}

/** Ends an answer of which nothing is taken for so many milliseconds: what waits of it would wait for ever. */
export function endUnread({ raw, request }: FastifyReply, stallTimeout: number): void {
  const response: ServerResponse | Http2ServerResponse = raw
  if ('stream' in response) {
    const stream = response.stream as ServerHttp2Stream
    return void stream.setTimeout(stallTimeout, () => stream.close(constants.NGHTTP2_CANCEL))
  }
  const { socket } = request.raw
  response.setTimeout(stallTimeout, () => response.destroy())
  response.once('finish', () => {
    // Node would hold it against a request that came meanwhile
    if (socket.timeout === stallTimeout) socket.setTimeout(0)
  })
}

/** Ends a connection, with these bytes last. A peer that doesn't end its side would keep it, and may go on sending. */
export function endConnection(socket: Socket, last = ''): void {
  socket.end(last)
  const timer = setTimeout(() => socket.destroy(), LINGER_MS).unref()
  socket.once('close', () => clearTimeout(timer))
}

// --- a connection that Node has let go of ---

const claim = Symbol('claim')
const asked = Symbol('asked')

/** The answer begun last on each connection. */
const lastResponses = new WeakMap<Socket, ServerResponse>()

/** The responses to requests that were taken. */
const taken = new WeakSet<ServerResponse | Http2ServerResponse>()

function isTaken(raw: ServerResponse | Http2ServerResponse): raw is ServerResponse {
  return taken.has(raw)
}

/**
 * Makes Node let go of a connection when a stream is asked for: the parser goes back to its pool, and what is kept of
 * the connection is its socket. Node does so for a request that upgrades; a stream, too, never gives its connection
 * back. Without this class (`http.createServer({ IncomingMessage })`) streams are served all the same, through the
 * response that Node keeps for them.
 */
export class StreamRequest extends IncomingMessage {
  declare [claim]?: 'stream' | 'upgrade' | null;
  /** Whether it asks to upgrade, as the parser has it. */
  declare [asked]?: boolean

  get upgrade(): boolean {
    if (this[claim] === undefined) this[claim] = claimOf(this)
    return this[claim] !== null
  }

  set upgrade(upgrade: boolean | null) {
    // what the parser says comes before anybody has asked; what the server says, after
    if (this[claim] === undefined) this[asked] = Boolean(upgrade)
    else if (!upgrade) this[claim] = null
  }
}

/** What becomes of a request's connection: null when Node keeps it. */
function claimOf(request: StreamRequest): 'stream' | 'upgrade' | null {
  const app = apps.get(request.socket)
  if (!app) return request[asked] ? 'upgrade' : null
  const { server } = app
  // they would take a stream for an upgrade that is theirs
  const others = server.listeners('upgrade').some(listener => listener !== onUpgrade)
  if (request[asked] && (others || (webSocketsFor(server, request) && isFree(request.socket))))
    return 'upgrade'
  if (others || !asksForStream(request)) return null
  // Node asks who listens right after: a server that takes nothing never has a listener of ours
  listenTo(server)
  return 'stream'
}

/** The apps that serve what was taken, by connection. */
const apps = new WeakMap<Socket, FastifyInstance>()

/** Servers with such an app: two would be one too many. */
const servers = new WeakSet<object>()

/** Serves the streams of a server through the routes of an app, where the server makes each request a `StreamRequest`. */
export function takeStreams(app: FastifyInstance): void {
  const { server } = app
  if (servers.has(server)) return
  servers.add(server)
  server.on('connection', (socket: Socket) => apps.set(socket, app))
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    if (request instanceof StreamRequest) lastResponses.set(request.socket, response)
  })
}

function takeStream(request: StreamRequest, socket: Socket): void {
  const app = apps.get(socket)!
  socket.on('error', ignore) // 'close' follows
  const response = new ServerResponse(request)
  response.shouldKeepAlive = false
  response.assignSocket(socket)
  response.on('finish', () => endConnection(socket))
  taken.add(response)
  // else the answer before would be kept for as long as the stream lives
  lastResponses.delete(socket)
  apps.delete(socket)
  app.routing(request, response)
}

// --- requests that upgrade ---

/** Who takes the WebSockets of each server, by path. */
const webSockets = new WeakMap<object, Map<string, EventEmitter>>()

/**
 * What emits 'upgrade', as a server would, for the WebSockets that are asked for on a path, and for nothing else. All
 * other requests that ask to upgrade are left to those who listen besides; where nobody does, they are answered as any
 * other.
 */
export function webSocketsOn({ server }: FastifyInstance, path: string): EventEmitter {
  const paths = webSockets.get(server) ?? new Map<string, EventEmitter>()
  const emitter = new EventEmitter()
  webSockets.set(server, paths.set(path, emitter))
  listenTo(server)
  return emitter
}

function listenTo(server: FastifyInstance['server']): void {
  if (!server.listeners('upgrade').includes(onUpgrade)) server.on('upgrade', onUpgrade)
}

function webSocketsFor(
  server: object,
  { method, url = '', headers }: IncomingMessage
): EventEmitter | undefined {
  if (method !== 'GET' || headers.upgrade?.toLowerCase() !== 'websocket') return undefined
  return webSockets.get(server)?.get(url.split('?')[0]!)
}

function onUpgrade(this: Server, request: IncomingMessage, socket: Socket, head: Buffer): void {
  if (request instanceof StreamRequest && request[claim] === 'stream') return takeStream(request, socket)
  if (webSocketsFor(this, request)?.emit('upgrade', request, socket, head)) {
    lastResponses.delete(socket)
    return void apps.delete(socket)
  }
  if (this.listenerCount('upgrade') === 1) serveAsAnyOther(this, request, socket, head)
}

/**
 * Gives the server a request once more, without its wish to upgrade, which it may ignore (RFC 9110, section 7.8): with a
 * listener Node takes any such request for one that upgrades, and doesn't read its body.
 */
function serveAsAnyOther(server: Server, request: IncomingMessage, socket: Socket, head: Buffer): void {
  const { method, url, httpVersion, rawHeaders } = request
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

/** Accept names a stream, or the path is that of the events and Accept leaves the choice to us. */
function asksForStream({ method, url = '', httpVersion, headers, socket }: IncomingMessage): boolean {
  if (
    method !== 'GET' ||
    httpVersion !== '1.1' ||
    !/\/(events|tickers|dashboards|notifications)(?![^/?])/.test(url)
  )
    return false
  // a request without it Node refuses, unless it upgrades (RFC 9112, section 3.2)
  if (headers.host === undefined) return false
  const { accept = '*/*' } = headers
  const named = /text\/event-stream|application\/x-ndjson/i.test(accept)
  if (!named && !(/\*\/\*/.test(accept) && url.includes('/events'))) return false
  return isFree(socket)
}

/** An answer that is still on its way must not be overtaken. */
function isFree(socket: Socket): boolean {
  return lastResponses.get(socket)?.writableFinished ?? true
}

const NOTHING = Buffer.alloc(0)

/** The connection of each socket, so that its listeners need no closure of their own. */
const connections = new Map<Socket, TakenConnection>()

/** A stream on a bare socket: all that is kept of it. */
class TakenConnection implements Connection, Waiter {
  readonly #socket: Socket
  #session: Session | undefined
  #stallTimeout = 0
  /** Whether the socket has asked to wait: only then does it tell when it has drained. */
  #isFull = false
  readonly #handle: Handle | null
  /** Bytes that were written past the stream and that the kernel hasn't taken; and what of them waited when last asked. */
  #direct = 0
  #left = 0

  constructor(response: ServerResponse) {
    const socket = response.socket!
    response.detachSocket(socket)
    this.#socket = socket
    this.#handle = direct?.handleOf(socket) ?? null
  }

  get pending(): number {
    return this.#isFull ? this.#socket.writableLength + this.#direct : 0
  }

  write(bytes: Buffer): void {
    const socket = this.#socket
    // what is in the stream goes first
    if (this.#handle === null || this.#isFull || socket.writableLength > 0) {
      if (socket.write(bytes) || this.#isFull) return
    } else {
      const outcome = direct!.write(this.#handle, bytes, this)
      if (outcome === 'taken') return
      if (outcome === 'failed') return void socket.destroy()
      this.#direct = bytes.length
      this.#left = this.#handle.writeQueueSize
      socket.cork()
    }
    this.#isFull = true
    // it counts as life when part of what waits goes out; nobody asks while nothing waits
    if (this.#stallTimeout > 0) socket.setTimeout(this.#stallTimeout)
  }

  written(status: number): void {
    const socket = this.#socket
    this.#direct = 0
    if (status < 0 || socket.destroyed) return void socket.destroy()
    socket.uncork()
    this.#settle()
  }

  /** What came meanwhile may wait in the stream still, which says by itself only of more than some KiB that it has gone. */
  #settle(): void {
    const socket = this.#socket
    if (!this.#isFull || this.#direct > 0 || socket.writableNeedDrain || socket.writableEnded) return
    if (socket.writableLength === 0) return this.drained()
    socket.write(NOTHING, error => {
      if (!error) this.#settle()
    })
  }

  end(): void {
    endConnection(this.#socket, LAST_CHUNK)
  }

  serve(session: Session, stallTimeout: number, preface?: readonly Buffer[]): void {
    const socket = this.#socket
    if (socket.destroyed || socket.readableEnded) {
      session.close('client')
      return void socket.destroy()
    }
    this.#session = session
    this.#stallTimeout = stallTimeout
    connections.set(socket, this)
    socket.setTimeout(0) // whoever set one, it doesn't know of what is written past the stream
    socket.on('close', onClose).on('drain', onDrain).on('timeout', onTimeout).on('end', onEnd)
    socket.resume() // what a client still sends is of no interest
    session.start(this, preface)
  }

  drained(): void {
    this.#isFull = false
    this.#socket.setTimeout(0)
    this.#session?.drained()
  }

  /** Nothing has gone out for the time that was set; of what was written past the stream Node doesn't know. */
  timedOut(): void {
    // it was set for what went before on the connection
    if (!this.#isFull) return void this.#socket.setTimeout(0)
    const left = this.#direct > 0 ? this.#handle!.writeQueueSize : this.#left
    if (left === this.#left) return this.close('stalled')
    this.#left = left
    this.#socket.setTimeout(this.#stallTimeout)
  }

  close(reason: 'client' | 'stalled'): void {
    connections.delete(this.#socket)
    this.#session?.close(reason)
    this.#socket.destroy()
  }
}

function onClose(this: Socket): void {
  connections.get(this)?.close('client')
}

function onEnd(this: Socket): void {
  connections.get(this)?.close('client')
}

function onDrain(this: Socket): void {
  connections.get(this)?.drained()
}

function onTimeout(this: Socket): void {
  connections.get(this)?.timedOut()
}

// --- a response as Node has it ---

/** A stream of HTTP/2 or HTTP/1.0, or on a server that doesn't let go of its connections. */
class ResponseConnection implements Connection {
  readonly #reply: FastifyReply
  readonly #body: ServerHttp2Stream | ServerResponse
  #stallTimeout = 0
  #stalling = false

  constructor(reply: FastifyReply) {
    const raw: ServerResponse | Http2ServerResponse = reply.raw
    this.#reply = reply
    this.#body = 'stream' in raw ? (raw.stream as ServerHttp2Stream) : raw
  }

  get pending(): number {
    return this.#body.writableNeedDrain ? this.#body.writableLength : 0
  }

  write(bytes: Buffer): void {
    if (this.#body.write(bytes) || this.#stalling || !this.#reply.raw.socket) return
    this.#stalling = true
    this.#body.setTimeout(this.#stallTimeout)
  }

  end(): void {
    const body = this.#body
    this.#reply.raw.end()
    // one of HTTP/1.x ends with its connection, for which Node has its own time-outs
    if (!(body instanceof ServerResponse)) body.setTimeout(LINGER_MS, () => body.destroy())
  }

  serve(session: Session, stallTimeout: number, preface?: readonly Buffer[]): void {
    const body = this.#body
    const { raw, request } = this.#reply
    if (isGone(this.#reply)) return session.close('client')
    body.on('error', ignore) // 'close' follows
    body.on('drain', () => {
      this.#stalling = false
      body.setTimeout(0)
      session.drained()
    })
    body.on('timeout', () => {
      session.close('stalled')
      body.destroy()
    })
    // an answer that waits behind another one never learns that their connection is gone
    const gone = raw.socket ? raw : request.raw.socket
    gone.once('close', () => session.close('client'))
    this.#stallTimeout = stallTimeout
    session.start(this, preface)
  }
}

function ignore(): void {}
