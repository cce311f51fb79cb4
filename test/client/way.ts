import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import type { Duplex, Writable } from 'node:stream'
import type { Test } from 'tap'
import type { Address } from '../support/app.ts'
import { eventually, inTime } from '../support/inbox.ts'

/**
 * How a way treats an answer:
 * - `open`: every piece is passed on as it comes;
 * - `held back`: nothing, the head neither, before the answer has ended, as a buffering proxy does;
 * - `refused`: 502 from the proxy itself;
 * - `dead`: nothing at all, and the connection stays.
 */
export type Mode = 'open' | 'held back' | 'refused' | 'dead'

/** Whither a piece goes: `down` to the client, or `up` to the server, on a WebSocket alone. */
type Direction = 'down' | 'up'

/** A request that came by. */
export interface Passed {
  /** How it was treated. */
  readonly mode: Mode
  readonly method: string
  readonly path: string
  readonly query: URLSearchParams
  readonly headers: IncomingMessage['headers']
  /** Whether a stream was asked for. */
  readonly streams: boolean
  /** When, in milliseconds since the epoch. */
  readonly at: number
}

/** An HTTP proxy before one server or several, in turn, that does what proxies and networks do to streams and WebSockets. */
export class Way implements Address {
  readonly url: string
  readonly port: number
  /** For what comes from now on. */
  mode: Mode = 'open'
  /** How long each piece takes, of an answer, and of a WebSocket in either direction, in milliseconds. */
  delay = 0
  readonly passed: Passed[] = []
  /** How many pieces have come through whole. */
  pieces = 0
  readonly #targets: readonly Pick<Address, 'port'>[]
  readonly #links = new Set<Link>()
  #turn = 0
  /** Whither the next piece goes that is to be torn; what waits for it. */
  #tearing: { readonly direction: Direction; readonly part: number; readonly done: () => void } | undefined

  constructor(port: number, targets: readonly Pick<Address, 'port'>[]) {
    this.port = port
    this.url = `http://127.0.0.1:${port}`
    this.#targets = targets
  }

  /** How many streams are open now. */
  get streams(): number {
    return [...this.#links].filter(({ passed }) => passed.streams).length
  }

  /** Breaks every connection at once; answers how many. New ones are let through. */
  cut(): number {
    const links = [...this.#links]
    for (const { end } of links) end()
    return links.length
  }

  /** Breaks the connection that has the next piece in this direction, when a part of it is through; resolves then. */
  tear(direction: Direction, part: number): Promise<void> {
    return new Promise(done => (this.#tearing = { direction, part, done }))
  }

  /** Passes nothing more of what is open now, and tells nobody. */
  silence(): void {
    for (const link of this.#links) link.isSilent = true
  }

  serve(incoming: IncomingMessage, response: ServerResponse): void {
    const { mode } = this
    const link = this.#link(incoming, () => response.destroy())
    response.on('close', () => this.#links.delete(link))
    if (mode === 'dead') return
    if (mode === 'refused') return void response.writeHead(502, { 'content-type': 'text/html' }).end('<p>502')
    const { method, headers, url: path } = incoming
    const upstream = request({ host: '127.0.0.1', port: this.#next(), method, path, headers, agent: false })
    response.on('close', () => upstream.destroy())
    upstream.on('error', link.end)
    upstream.on('response', source => this.#answer(source, response, link, mode === 'held back'))
    incoming.pipe(upstream)
  }

  /** A WebSocket: `held back` and `dead` are the same, nothing comes of it. */
  upgrade(incoming: IncomingMessage, client: Duplex, head: Buffer): void {
    const { mode } = this
    const link = this.#link(incoming, () => {
      client.destroy()
      upstream?.destroy()
    })
    client.on('error', () => {})
    client.on('close', () => this.#links.delete(link))
    const upstream =
      mode === 'refused' ? undefined : connect({ host: '127.0.0.1', port: this.#next(), allowHalfOpen: true })
    if (!upstream) return void client.end('HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n')
    upstream.on('error', () => {}) // 'close' follows
    if (mode !== 'open') {
      for (const socket of [client, upstream]) socket.on('close', link.end)
      return
    }
    const { method, headers, url } = incoming
    const lines = [`${method} ${url} HTTP/1.1`]
    for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${String(value)}`)
    upstream.write(`${lines.join('\r\n')}\r\n\r\n`)
    upstream.write(head)
    this.#join(client, upstream, link, 'up')
    this.#join(upstream, client, link, 'down')
  }

  /** Notes a request, and that its connection is open. */
  #link({ url, method = '', headers }: IncomingMessage, end: () => void): Link {
    const { pathname: path, searchParams: query } = new URL(url!, this.url)
    const passed: Passed = {
      ...{ mode: this.mode, method, path, query, headers, at: Date.now() },
      streams: /text\/event-stream/.test(headers.accept ?? '')
    }
    this.passed.push(passed)
    const link: Link = { passed, end, isSilent: this.mode === 'dead' }
    this.#links.add(link)
    return link
  }

  /** The port of the server whose turn it is. */
  #next(): number {
    return this.#targets[this.#turn++ % this.#targets.length]!.port
  }

  /** Passes on one direction of a WebSocket: each piece, and then the end. */
  #join(from: Duplex, to: Duplex, link: Link, direction: Direction): void {
    const later = this.#inOrder()
    from.on('data', (piece: Buffer) => later(() => this.#pass(piece, to, link, direction)))
    from.on('end', () => later(() => to.end()))
    from.on('close', () => later(link.end))
  }

  /** Passes on an answer. */
  #answer(source: IncomingMessage, response: ServerResponse, link: Link, isHeldBack: boolean): void {
    const kept: Buffer[] = []
    const later = this.#inOrder()
    const head = () => {
      if (!link.isSilent && !response.destroyed)
        response.writeHead(source.statusCode!, source.headers).flushHeaders()
    }
    if (!isHeldBack) later(head)
    source.on('data', (piece: Buffer) => {
      if (isHeldBack) kept.push(piece)
      else later(() => this.#pass(piece, response, link, 'down'))
    })
    source.on('error', link.end)
    source.on('end', () => {
      if (isHeldBack) {
        later(head)
        later(() => this.#pass(Buffer.concat(kept), response, link, 'down'))
      }
      later(() => {
        if (!link.isSilent && !response.destroyed) response.end()
      })
    })
  }

  /** What does one thing after the other, each after the delay of when it was asked to. */
  #inOrder(): (act: () => void) => void {
    let last = Promise.resolve()
    return act => {
      const { delay } = this
      if (delay > 0) last = last.then(() => new Promise(resolve => setTimeout(resolve, delay)))
      last = last.then(act)
    }
  }

  #pass(piece: Buffer, to: Writable, link: Link, direction: Direction): void {
    if (link.isSilent || to.destroyed) return
    const tearing = this.#tearing
    if (tearing?.direction !== direction) {
      to.write(piece)
      this.pieces++
      return
    }
    this.#tearing = undefined
    link.isSilent = true
    to.write(piece.subarray(0, Math.ceil(piece.length * tearing.part)), () => {
      link.end()
      tearing.done()
    })
  }
}

/** A connection that is open, and what it was asked for. */
interface Link {
  readonly passed: Passed
  readonly end: () => void
  isSilent: boolean
}

export async function wayTo(t: Test, ...targets: readonly Pick<Address, 'port'>[]): Promise<Way> {
  const server = createServer((incoming, response) => way.serve(incoming, response))
  server.on('upgrade', (incoming, socket, head: Buffer) => way.upgrade(incoming, socket, head))
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const way = new Way((server.address() as AddressInfo).port, targets)
  t.teardown(() => {
    way.cut()
    server.close()
    server.closeAllConnections()
  })
  return way
}

/** Resolves once so many requests like this have come by, with them. */
export async function passing(way: Way, like: (passed: Passed) => boolean, count = 1): Promise<Passed[]> {
  return eventually(
    () => way.passed.filter(like),
    ({ length }) => length >= count,
    `${count} requests`
  )
}

/** What goes wrong on a way; `torn` is a connection that breaks amid a piece. */
export type Trouble = 'cut' | 'torn down' | 'torn up' | 'held back' | 'refused'

export interface Troubles {
  readonly kinds: readonly Trouble[]
  readonly random: () => number
  /** Resolves when the client has what it had before. */
  readonly back: () => Promise<unknown>
  /** Resolves when it has noticed that it is held back. */
  readonly heldBack?: () => Promise<unknown>
}

/**
 * Each kind of trouble twice, in an order that looks random: once on a way that is quick, and once on one that is slow,
 * with pieces that are still under way. The next one comes when the client is back; it must be sent something all the time.
 */
export async function trouble(way: Way, { kinds, random, back, heldBack }: Troubles): Promise<void> {
  const usual = way.mode
  const turns = kinds
    .flatMap(kind => [0, 5 + 20 * random()].map(delay => ({ kind, delay, order: random() })))
    .sort((one, other) => one.order - other.order)
  for (const { kind, delay } of turns) {
    await isServing(way)
    await back()
    // now and then what is quick comes after what is slow: it must not come before it
    for (const each of delay ? [delay, 0, delay] : [0]) {
      way.delay = each
      await isServing(way)
    }
    const before = way.passed.length
    const part = delay ? 0.1 : 0.6 // amid the id of an event, and amid its data
    if (kind === 'torn down') await inTime(way.tear('down', part), 'a piece to tear')
    else if (kind === 'torn up') await inTime(way.tear('up', part), 'a message to tear')
    else if (kind === 'cut')
      await eventually(
        () => way.cut(),
        broken => broken > 0,
        'something to break'
      )
    else {
      way.mode = kind
      way.cut()
      await eventually(
        () => way.passed.slice(before).some(({ mode }) => mode === kind),
        isMet => isMet,
        'the client to come back'
      )
      if (kind === 'held back') await heldBack?.()
    }
    way.mode = usual
    way.delay = 0
  }
  await isServing(way)
  await back()
}

/** Resolves once some more pieces have come through. */
export async function isServing(way: Way): Promise<void> {
  const goal = way.pieces + 5
  await eventually(
    () => way.pieces,
    pieces => pieces >= goal,
    'pieces to come through'
  )
}
