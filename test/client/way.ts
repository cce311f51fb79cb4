import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Test } from 'tap'
import type { Address } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'

/**
 * How a way treats an answer:
 * - `open`: every piece is passed on as it comes;
 * - `held back`: nothing, the head neither, before the answer has ended, as a buffering proxy does;
 * - `refused`: 502 from the proxy itself;
 * - `dead`: nothing at all, and the connection stays.
 */
export type Mode = 'open' | 'held back' | 'refused' | 'dead'

/** A request that came by. */
export interface Passed {
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
  /** How long each piece of an answer takes, in milliseconds. */
  delay = 0
  readonly passed: Passed[] = []
  readonly #targets: readonly Pick<Address, 'port'>[]
  readonly #answers = new Set<Answer>()
  /** Ends a WebSocket. */
  readonly #sockets = new Set<() => void>()
  #turn = 0

  constructor(port: number, targets: readonly Pick<Address, 'port'>[]) {
    this.port = port
    this.url = `http://127.0.0.1:${port}`
    this.#targets = targets
  }

  /** How many streams are open now. */
  get streams(): number {
    return [...this.#answers].filter(({ passed }) => passed.streams).length
  }

  /** Breaks every connection at once. New ones are let through. */
  cut(): void {
    for (const { response } of this.#answers) response.destroy()
    for (const end of this.#sockets) end()
  }

  /** Passes nothing more of what is open now, and tells nobody. */
  silence(): void {
    for (const answer of this.#answers) answer.isSilent = true
  }

  serve(incoming: IncomingMessage, response: ServerResponse): void {
    const { pathname: path, searchParams: query } = new URL(incoming.url!, this.url)
    const { method = '', headers } = incoming
    const passed: Passed = {
      ...{ method, path, query, headers, at: Date.now() },
      streams: /text\/event-stream/.test(headers.accept ?? '')
    }
    this.passed.push(passed)
    const { mode } = this
    const answer: Answer = { passed, response, isSilent: mode === 'dead' }
    this.#answers.add(answer)
    response.on('close', () => this.#answers.delete(answer))
    if (mode === 'dead') return
    if (mode === 'refused') return void response.writeHead(502, { 'content-type': 'text/html' }).end('<p>502')
    const { port } = this.#targets[this.#turn++ % this.#targets.length]!
    const upstream = request({ host: '127.0.0.1', port, method, path: incoming.url, headers, agent: false })
    response.on('close', () => upstream.destroy())
    upstream.on('error', () => response.destroy())
    upstream.on('response', source => this.#pass(source, answer, mode === 'held back'))
    incoming.pipe(upstream)
  }

  /** A WebSocket: `held back` and `dead` are the same, nothing comes of it. */
  upgrade(incoming: IncomingMessage, client: Duplex, head: Buffer): void {
    const { pathname: path, searchParams: query } = new URL(incoming.url!, this.url)
    const { method = '', headers } = incoming
    this.passed.push({ ...{ method, path, query, headers, at: Date.now() }, streams: false })
    client.on('error', () => {})
    if (this.mode === 'refused')
      return void client.end('HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n')
    const { port } = this.#targets[this.#turn++ % this.#targets.length]!
    const upstream = connect({ host: '127.0.0.1', port })
    const end = () => {
      client.destroy()
      upstream.destroy()
      this.#sockets.delete(end)
    }
    this.#sockets.add(end)
    upstream.on('error', end)
    for (const socket of [client, upstream]) socket.on('close', end)
    if (this.mode !== 'open') return
    const lines = [`${method} ${incoming.url} HTTP/1.1`]
    for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${String(value)}`)
    upstream.write(`${lines.join('\r\n')}\r\n\r\n`)
    upstream.write(head)
    this.#slowly(client, upstream)
    this.#slowly(upstream, client)
  }

  /** Passes on each piece in its order, after its delay. */
  #slowly(from: Duplex, to: Duplex): void {
    let last = Promise.resolve()
    from.on('data', (piece: Buffer) => {
      const { delay } = this
      if (delay > 0) last = last.then(() => new Promise(resolve => setTimeout(resolve, delay)))
      last = last.then(() => void (to.destroyed || to.write(piece)))
    })
  }

  /** Each piece in its order, after its delay. */
  #pass(source: IncomingMessage, answer: Answer, isHeldBack: boolean): void {
    const { response } = answer
    const kept: Buffer[] = []
    let last = Promise.resolve()
    const later = (act: () => void) => {
      const { delay } = this
      last = last.then(() => (delay > 0 ? new Promise(resolve => setTimeout(resolve, delay)) : undefined))
      last = last.then(() => (answer.isSilent || response.destroyed ? undefined : act()))
    }
    const head = () => response.writeHead(source.statusCode!, source.headers).flushHeaders()
    if (!isHeldBack) later(head)
    source.on('data', (piece: Buffer) => {
      if (isHeldBack) kept.push(piece)
      else later(() => response.write(piece))
    })
    source.on('error', () => response.destroy())
    source.on('end', () => {
      if (isHeldBack) later(head)
      later(() => response.end(Buffer.concat(kept)))
    })
  }
}

interface Answer {
  readonly passed: Passed
  readonly response: ServerResponse
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
