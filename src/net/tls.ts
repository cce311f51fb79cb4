import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { maxHeaderSize } from 'node:http'
import { constants, type Http2SecureServer, type ServerHttp2Session } from 'node:http2'
import { createSecureContext } from 'node:tls'
import { ConfigError, type Settings } from '../config.ts'

/** The oldest TLS that is spoken (RFC 8996 has buried what was before). */
const MIN_VERSION = 'TLSv1.2'

/** What a connection may take its time for, in milliseconds. */
interface Patience {
  readonly handshake: number
  /** A request, until it has come whole. */
  readonly request: number
  /** No request. */
  readonly idle: number
}

/** `idle` is longer than the 60 s after which proxies let go of a connection, so that none ends as they use it. */
const PATIENCE = { handshake: 10_000, idle: 72_000 }

/**
 * Streams at a time on a connection of HTTP/2: more than the 100 below which no client must be held (RFC 9113, section
 * 6.5.2), few enough that one connection is not the whole server.
 */
const MAX_STREAMS = 250

/** What one connection of HTTP/2 may hold besides its streams' bytes: header tables, frames, in megabytes. */
const SESSION_MEGABYTES = 10

export type TlsSettings = Pick<Settings, 'TLS_CERT' | 'TLS_KEY' | 'SEND_BUFFER'>

/** HTTPS with HTTP/2 and HTTP/1.1: its certificate, and what Node leaves to us of its connections. */
export class Tls {
  readonly #settings: TlsSettings
  readonly #patience: Patience
  readonly #sessions = new Set<ServerHttp2Session>()
  #server!: Http2SecureServer
  #retired = false
  #expires: number | null = null

  constructor(settings: TlsSettings, patience: Partial<Patience> & Pick<Patience, 'request'>) {
    this.#settings = settings
    this.#patience = { ...PATIENCE, ...patience }
  }

  /** What the server is made with. Throws a `ConfigError`. */
  get options() {
    const context = this.#context()
    this.#shows(context.cert)
    return {
      ...context,
      allowHTTP1: true,
      handshakeTimeout: this.#patience.handshake,
      // Node refuses new streams above it: many that are read slowly are an ordinary case
      maxSessionMemory: SESSION_MEGABYTES + Math.ceil((MAX_STREAMS * this.#settings.SEND_BUFFER) / 1e6),
      // the same limit of headers as that of HTTP/1.1
      settings: { maxConcurrentStreams: MAX_STREAMS, maxHeaderListSize: maxHeaderSize }
    }
  }

  /** Until when the certificate is valid that connections are shown, in milliseconds since the epoch. */
  get expires(): number | null {
    return this.#expires
  }

  /** Watches over the connections of the server. */
  guard(server: Http2SecureServer): void {
    this.#server = server
    // what an HTTPS server has, and one for HTTP/2 with HTTP/1.1 beside it lacks in Node 20 and 22
    const { idle, request } = this.#patience
    Object.assign(server, { keepAliveTimeout: idle, requestTimeout: request, requireHostHeader: true })
    server.on('session', session => this.#watch(session))
  }

  /**
   * Reads the certificate again, for the connections to come. Gives back until when it is valid. Throws a `ConfigError`,
   * and keeps the old one.
   */
  renew(): string {
    const context = this.#context()
    this.#server.setSecureContext(context)
    return this.#shows(context.cert)
  }

  /** Takes note of what is shown from now on, and says until when that is valid. */
  #shows(cert: Buffer): string {
    const { validTo } = new X509Certificate(cert)
    this.#expires = Date.parse(validTo)
    return validTo
  }

  /** Lets the connections of HTTP/2 end with the streams that they have: what comes next takes a new connection. */
  retire(): void {
    this.#retired = true
    for (const session of this.#sessions) session.close()
  }

  #context() {
    const { TLS_CERT, TLS_KEY } = this.#settings
    const pair = { cert: pem('TLS_CERT', TLS_CERT), key: pem('TLS_KEY', TLS_KEY) }
    try {
      createSecureContext(pair)
    } catch (error) {
      throw new ConfigError(
        `TLS_CERT=${TLS_CERT}, TLS_KEY=${TLS_KEY}: no pair of PEM files: ${(error as Error).message}`
      )
    }
    return { ...pair, minVersion: MIN_VERSION } as const
  }

  #watch(session: ServerHttp2Session): void {
    let streams = 0
    const idle = setTimeout(() => {
      if (streams === 0) session.destroy()
    }, this.#patience.idle)
    this.#sessions.add(session)
    session.on('close', () => {
      clearTimeout(idle)
      this.#sessions.delete(session)
    })
    session.on('stream', (stream, _headers, flags) => {
      streams++
      if (this.#retired && !session.closed) session.close()
      const overdue =
        flags & constants.NGHTTP2_FLAG_END_STREAM
          ? undefined
          : setTimeout(() => {
              if (!stream.state.remoteClose) stream.close(constants.NGHTTP2_CANCEL)
            }, this.#patience.request)
      stream.on('close', () => {
        clearTimeout(overdue)
        if (--streams === 0) idle.refresh()
      })
    })
  }
}

function pem(name: string, file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (error) {
    throw new ConfigError(`${name}=${file}: can't be read: ${(error as Error).message}`)
  }
}
