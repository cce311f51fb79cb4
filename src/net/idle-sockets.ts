import type { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { siteOf } from './address.ts'
import { Line, type Place } from './line.ts'

/** How many idle sockets one address may have. One with half a head takes some 20 kB. */
export const MOST_IDLE = 512

/** For how long a socket may be idle where there is no room for another one, in milliseconds. */
const PATIENCE_MS = 1000

/** How often it is looked for room for all, at most, in milliseconds. */
const LOOK_MS = 100

/** The socket; where there is TLS, of which there are two sockets, and of HTTP/2 one for each stream, the peer's address and port. */
type Key = Socket | string

/** A socket on which something may be asked. It is idle until a head has come whole, and when all was answered. */
interface OpenSocket {
  readonly key: Key
  /** Where it counts by its address; null where it doesn't. */
  readonly site: string | null
  /** Of TLS the one below. */
  readonly socket: Socket
  readonly onClose: () => void
  /** How many requests are under way on it. */
  requests: number
  /** Whether one was answered. */
  wasAsked: boolean
  /** Since when it is idle, by the clock of `performance`. */
  since: number
  /** Among those that are idle, of all and of its address; null where it is not. */
  place: Place<OpenSocket> | null
  placeOfSite: Place<OpenSocket> | null
}

/**
 * The sockets of a server on which nothing is asked now. An address may have `MOST_IDLE` of them, and where sockets are
 * scarce they go first: a flood of them must neither take the memory nor keep out those who ask.
 */
export class IdleSockets {
  readonly #isExempt: (address: string) => boolean
  readonly #onRefused: () => void
  readonly #open = new Map<Key, OpenSocket>()
  #isSecure = false
  /** Those that are idle, the longest first; and the same for each address. */
  readonly #idle = new Line<OpenSocket>()
  readonly #bySite = new Map<string, Line<OpenSocket>>()
  #looked = -Infinity

  /** `isExempt`: which addresses may have any number. `onRefused` is told of each that is closed before anything
   * was asked on it because its address has too many. */
  constructor(isExempt: (address: string) => boolean, onRefused: () => void) {
    this.#isExempt = isExempt
    this.#onRefused = onRefused
  }

  /** Watches over the sockets of a server that doesn't listen yet. */
  watch(app: FastifyInstance): void {
    this.#isSecure = 'setSecureContext' in app.server
    app.server.on('connection', (socket: Socket) => this.#enter(socket))
    app.addHook('onRequest', ({ raw }, reply, done) => {
      const socket = this.#open.get(this.#keyOf(raw.socket))
      if (!socket) return done()
      // of a stream or a WebSocket nothing is asked any more, and it should not pay for this
      if ((raw as { upgrade?: boolean }).upgrade) this.#forget(socket)
      else {
        // those that are pipelined are asked all at once
        if (socket.requests++ === 0) this.#isIdleNoMore(socket)
        reply.raw.on('close', () => this.#answered(socket))
      }
      done()
    })
  }

  /** Ends sockets that are idle for a while: there is hardly room for another one. */
  makeRoom(): void {
    const now = performance.now()
    if (now - this.#looked < LOOK_MS) return
    this.#looked = now
    for (const socket of this.#idle) {
      if (now - socket.since < PATIENCE_MS) break
      this.#end(socket)
    }
  }

  #enter(socket: Socket): void {
    const { remoteAddress } = socket
    const key = this.#keyOf(socket)
    const known = this.#open.get(key)
    // a request that asks to upgrade in vain is read again on the same one
    if (remoteAddress === undefined || known?.socket === socket) return
    if (known) this.#forget(known)
    const site = this.#isExempt(remoteAddress) ? null : siteOf(remoteAddress).name
    if (site !== null && !this.#hasRoom(site)) {
      socket.destroy()
      return this.#onRefused()
    }
    const onClose = () => this.#forget(entered)
    const entered: OpenSocket = {
      ...{ key, site, socket, onClose, requests: 0, wasAsked: false, since: 0 },
      ...{ place: null, placeOfSite: null }
    }
    socket.on('close', onClose)
    this.#open.set(key, entered)
    this.#isIdle(entered)
  }

  /** Whether an address may have another one. One that has waited for long goes for it. */
  #hasRoom(site: string): boolean {
    const idle = this.#bySite.get(site)
    if (!idle || idle.size < MOST_IDLE) return true
    const before = performance.now() - PATIENCE_MS
    for (const socket of idle) {
      if (!socket.wasAsked && socket.since > before) continue
      this.#end(socket)
      if (!socket.wasAsked) this.#onRefused()
      return true
    }
    return false
  }

  #answered(socket: OpenSocket): void {
    if (--socket.requests > 0 || this.#open.get(socket.key) !== socket) return
    socket.wasAsked = true
    this.#isIdle(socket)
  }

  #isIdle(socket: OpenSocket): void {
    socket.since = performance.now()
    socket.place = this.#idle.join(socket)
    if (socket.site === null) return
    let siblings = this.#bySite.get(socket.site)
    if (!siblings) this.#bySite.set(socket.site, (siblings = new Line()))
    socket.placeOfSite = siblings.join(socket)
  }

  #isIdleNoMore(socket: OpenSocket): void {
    const { site, place, placeOfSite } = socket
    if (place) this.#idle.leave(place)
    socket.place = null
    if (site === null || !placeOfSite) return
    const siblings = this.#bySite.get(site)!
    siblings.leave(placeOfSite)
    socket.placeOfSite = null
    if (siblings.size === 0) this.#bySite.delete(site)
  }

  #keyOf(socket: Socket): Key {
    return this.#isSecure ? `${socket.remoteAddress} ${socket.remotePort}` : socket
  }

  #forget(socket: OpenSocket): void {
    this.#isIdleNoMore(socket)
    if (this.#open.get(socket.key) === socket) this.#open.delete(socket.key)
    socket.socket.off('close', socket.onClose)
  }

  #end(socket: OpenSocket): void {
    this.#forget(socket)
    socket.socket.destroy()
  }
}
