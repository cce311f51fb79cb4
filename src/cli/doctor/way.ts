import { Agent, request, type IncomingHttpHeaders, type IncomingMessage } from 'node:http'
import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2'
import { Agent as TlsAgent, request as requestTls } from 'node:https'
import { isIP } from 'node:net'
import type { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { connect as connectTls } from 'node:tls'
import { Fault } from './faults.ts'
import { addressOf } from '../../client/reconnect.ts'

/** The version of HTTP that is spoken to whatever stands in front. */
export type Version = 'HTTP/1.1' | 'HTTP/2'

/** Something that is asked for. */
export interface Asking {
  /** Below the server's address, with its query. */
  readonly path: string
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Uint8Array
  readonly version?: Version
  /** The connection of HTTP/2; default: the one that all share. */
  readonly session?: ClientHttp2Session
  /** Whether the token stays at home. */
  readonly isBare?: boolean
  readonly signal?: AbortSignal
}

/** The head of an answer, and its body as it comes. */
export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Readable
}

/** An answer that was read whole. */
export interface Reply extends Omit<Answer, 'body'> {
  readonly text: string
}

/** Where the way leads to, and as whom. */
export interface WayOptions {
  readonly url: string
  readonly token?: string | undefined
  /** A topic of its own, on which nobody else listens. */
  readonly topic: string
  /** The origin of a page of another server, which shall be able to use this one. */
  readonly pageOrigin?: string | undefined
  /** Whom to trust, in PEM; default: whom Node.js trusts. */
  readonly ca?: Buffer | undefined
}

/** How long an answer may take, in milliseconds. */
const ANSWER_MS = 8000

/** How long a stream may take until its head is there, in milliseconds. */
const HEAD_MS = 4000

/** The way to the server through whatever stands between: what is asked on it, and the connections that it takes. */
export class Way {
  readonly options: WayOptions
  /** What a browser would speak here. */
  version: Version = 'HTTP/1.1'
  readonly #agent: Agent
  readonly #closing: (() => void)[] = []
  #shared: ClientHttp2Session | undefined

  constructor(options: WayOptions) {
    this.options = options
    // each request has a connection of its own, which says nothing of closing, as a browser's
    const connections = { keepAlive: true, maxFreeSockets: 0 }
    this.#agent = this.isSecure ? new TlsAgent({ ...connections, ca: options.ca }) : new Agent(connections)
  }

  get topic(): string {
    return this.options.topic
  }

  get isSecure(): boolean {
    return this.options.url.startsWith('https:')
  }

  /** The origin of the server's own pages. */
  get origin(): string {
    return new URL(this.options.url).origin
  }

  address(path: string): URL {
    return addressOf(path, this.options.url)
  }

  /** A topic on which nothing is published. */
  get silentTopic(): string {
    return `${this.topic}-silent`
  }

  /** The path of a topic's events, with this query. */
  eventsPath(query = '', topic = this.topic): string {
    const path = topic.split('/').map(encodeURIComponent).join('/')
    return `events/${path}${query === '' ? '' : `?${query}`}`
  }

  /** Resolves with the protocol that is agreed upon; rejects where there is no TLS, or no trust. */
  negotiate(): Promise<Version> {
    const { hostname, port } = new URL(this.options.url)
    const host = hostname.replace(/^\[|\]$/g, '')
    return new Promise((resolve, reject) => {
      const socket = connectTls({
        host,
        port: Number(port || 443),
        ALPNProtocols: ['h2', 'http/1.1'],
        ...(!isIP(host) && { servername: host }),
        ...(this.options.ca && { ca: this.options.ca })
      })
      socket.setTimeout(ANSWER_MS, () => socket.destroy(new Error(`no answer within ${ANSWER_MS / 1000} s`)))
      socket.on('error', reject)
      socket.on('secureConnect', () => {
        resolve(socket.alpnProtocol === 'h2' ? 'HTTP/2' : 'HTTP/1.1')
        socket.destroy()
      })
    })
  }

  /** A connection of HTTP/2, which ends with the way. */
  connect(): ClientHttp2Session {
    const session = connectHttp2(this.origin, this.options.ca && { ca: this.options.ca })
    session.on('error', () => {}) // what is asked on it fails with it
    this.onClose(() => session.destroy())
    return session
  }

  /** Resolves with the head of the answer. */
  async open(asking: Asking): Promise<Answer> {
    const { token } = this.options
    const headers = {
      ...(token !== undefined && !asking.isBare && { authorization: `Bearer ${token}` }),
      ...asking.headers
    }
    const answer =
      (asking.version ?? this.version) === 'HTTP/2'
        ? await this.#overHttp2({ ...asking, headers })
        : await this.#overHttp1({ ...asking, headers })
    answer.body.on('error', () => {}) // whoever reads it notices as well
    return answer
  }

  /** Resolves with the head of a stream. Rejects where that is held back. */
  openStream(asking: Asking): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const opening = this.open(asking)
      const timer = setTimeout(() => {
        reject(new Fault(`the head of a stream has not come within ${HEAD_MS / 1000} s`, 'buffering'))
        // what comes after that is let go
        opening.then(
          ({ body }) => body.destroy(),
          () => {}
        )
      }, HEAD_MS)
      opening.then(resolve, reject).finally(() => clearTimeout(timer))
    })
  }

  /** Resolves with a whole answer. Rejects where there is none in so many milliseconds. */
  async ask(asking: Asking, within = ANSWER_MS): Promise<Reply> {
    const signal = AbortSignal.timeout(within)
    try {
      const { status, headers, body } = await this.open({ ...asking, signal })
      return { status, headers, text: await text(body) }
    } catch (error) {
      throw signal.aborted ? new Error(`no answer within ${within / 1000} s`, { cause: error }) : error
    }
  }

  /** Calls back when the way is no longer needed. */
  onClose(callback: () => void): void {
    this.#closing.push(callback)
  }

  /** Ends all that is under way. */
  close(): void {
    this.#agent.destroy()
    for (const callback of this.#closing.splice(0)) callback()
  }

  #overHttp1({ path, method = 'GET', headers, body, signal }: Asking): Promise<Answer> {
    const send = this.isSecure ? requestTls : request
    return new Promise((resolve, reject) => {
      const sent = send(this.address(path), { method, headers, agent: this.#agent, signal })
      sent.on('response', (response: IncomingMessage) =>
        resolve({ status: response.statusCode!, headers: response.headers, body: response })
      )
      sent.on('error', reject)
      sent.end(body)
    })
  }

  #overHttp2({ path, method = 'GET', headers, body, session, signal }: Asking): Promise<Answer> {
    const { pathname, search } = this.address(path)
    const connection = session ?? this.#sharedSession()
    return new Promise((resolve, reject) => {
      const stream = connection.request(
        { ...headers, ':method': method, ':path': pathname + search },
        { endStream: body === undefined, ...(signal && { signal }) }
      )
      stream.on('response', ({ ':status': status, ...headers }) =>
        resolve({ status: status!, headers, body: stream })
      )
      stream.on('error', reject)
      stream.on('close', () => reject(new Error('the connection was cut before there was an answer')))
      if (body !== undefined) stream.end(body)
    })
  }

  #sharedSession(): ClientHttp2Session {
    if (!this.#shared || this.#shared.closed || this.#shared.destroyed) this.#shared = this.connect()
    return this.#shared
  }
}

/** Whether Ringside has answered, and not something that stands before it. */
export function isRingside({ headers }: Pick<Answer, 'headers'>): boolean {
  return (
    headers['ringside-cursor'] !== undefined ||
    (headers['content-type'] ?? '').startsWith('application/problem+json')
  )
}

/** What an answer says is wrong, for people: Ringside's own words, or who else it may be. */
export function saidOf(reply: Reply): string {
  if (!isRingside(reply)) return `${reply.status}, which is not Ringside's own`
  const { detail } = JSON.parse(reply.text || '{}') as { detail?: string }
  return `${reply.status}: ${detail ?? 'without a reason'}`
}

/** What has gone wrong on the way, in a line. */
export function reasonOf(error: unknown): string {
  const { message, code } = error as NodeJS.ErrnoException
  // of several addresses, each has its own error and the whole has no message; those of TLS have line ends
  return (message || code || String(error)).trim().replace(/\s+/g, ' ')
}
