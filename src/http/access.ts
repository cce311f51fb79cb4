import { parseCookie } from 'cookie'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { ConfigError, type Settings } from '../config.ts'
import { isTopic, parsePattern, permits } from '../event.ts'
import { feedOf } from '../feeds/feeds.ts'
import type { Metrics } from '../metrics.ts'
import { Denied } from '../problem.ts'
import type { Claims, Tokens } from '../access/tokens.ts'
import { malformed } from './subscription.ts'

/** Who asks, and what they may. */
export interface Grant {
  /** The user; null for nobody known. */
  readonly sub: string | null
  /** Whether all that a topic or wildcard covers may be read. */
  maySubscribe(filter: string): boolean
  mayPublish(topic: string): boolean
  /** When it runs out, in milliseconds since the epoch; Infinity for never. */
  readonly expires: number
}

/** Finds out who asks, in place of tokens. What it throws is the answer; the reply is for that one's headers. */
export type GrantOf = (request: FastifyRequest, reply: FastifyReply) => Grant | Promise<Grant>

declare module 'fastify' {
  interface FastifyRequest {
    /** Who asks; of a request to Ringside that is not open to everybody. */
    grant: Grant
  }

  interface FastifyContextConfig {
    /** Whether everybody may ask, and nobody is asked who they are. */
    open?: boolean
  }
}

export interface AccessOptions {
  /** How to find out who asks: the host's own way, tokens, or `development`, where everyone may do everything. */
  readonly by: GrantOf | Tokens | 'development'
  readonly settings: Pick<Settings, 'ANONYMOUS_SUBSCRIBE' | 'CORS_ORIGIN'>
  readonly metrics: Metrics
  /** Answers a reader who can't be checked now in a way that its EventSource survives. */
  turnAway(request: FastifyRequest, reply: FastifyReply): unknown
}

/** Makes every route of an app that is not open know who asks, or refuse it. Sections 6 and 7 of the contract. */
export function guard(app: FastifyInstance, { by, settings, metrics, turnAway }: AccessOptions): void {
  const identify = identifierOf(by, settings)
  // closed to whoever comes by without having been asked
  app.decorateRequest('grant')
  app.addHook('onRequest', async (request, reply) => {
    if (request.is404 || request.routeOptions.config.open) return
    try {
      request.grant = await identify(request, reply)
    } catch (error) {
      if (!(error instanceof Denied && error.reason === 'unavailable' && acceptsStream(request))) throw error
      metrics.authFailures.inc({ reason: error.reason })
      return turnAway(request, reply)
    }
  })
  app.addHook('onError', async (_request, reply, error) => {
    if (!(error instanceof Denied)) return
    metrics.authFailures.inc({ reason: error.reason })
    const challenge = typeof by === 'function' ? undefined : challengeOf(error)
    if (challenge !== undefined) reply.header('www-authenticate', challenge)
  })
}

function identifierOf(by: AccessOptions['by'], settings: AccessOptions['settings']): GrantOf {
  if (by === 'development') {
    return request => {
      if (isUpgrade(request)) checkOrigin(request, settings.CORS_ORIGIN, false)
      return new Developer(request)
    }
  }
  if (typeof by === 'function') {
    return async (request, reply) => {
      // what a browser brings by itself shows nothing of the page that asks
      const { cookie, authorization } = request.headers
      checkOriginOf(request, settings.CORS_ORIGIN, cookie !== undefined && authorization === undefined)
      return new Known(await by(request, reply))
    }
  }
  const anonymous = new Anonymous(settings.ANONYMOUS_SUBSCRIBE)
  return async request => {
    const found = findToken(request)
    checkOriginOf(request, settings.CORS_ORIGIN, found?.isCookie ?? false)
    if (found) return new Known(new Holder(await by.read(found.token)))
    if (isWrite(request) || anonymous.mayNothing) throw missing()
    return anonymous
  }
}

// --- grants ---

/** Everybody may read their own notifications, and nobody another's, whatever else they may. */
class Known implements Grant {
  readonly sub: string | null
  readonly expires: number
  readonly #grant: Grant

  constructor(grant: Grant) {
    this.sub = grant.sub ?? null // of a host without types
    this.expires = grant.expires
    this.#grant = grant
  }

  maySubscribe(filter: string): boolean {
    if (feedOf(filter) !== 'notifications') return this.#grant.maySubscribe(filter)
    // a user may be called *
    return filter === `notifications/${this.sub}` && this.sub !== null && isTopic(filter)
  }

  mayPublish(topic: string): boolean {
    return this.#grant.mayPublish(topic)
  }
}

/** Whoever holds a token. */
class Holder implements Grant {
  readonly sub: string | null
  readonly expires: number
  readonly #claims: Claims

  constructor(claims: Claims) {
    this.sub = claims.sub
    this.expires = claims.expires
    this.#claims = claims
  }

  maySubscribe(filter: string): boolean {
    return permits(this.#claims.subscribe, filter)
  }

  mayPublish(topic: string): boolean {
    return permits(this.#claims.publish, topic)
  }
}

/** Whoever has no token. */
class Anonymous implements Grant {
  readonly sub = null
  readonly expires = Infinity
  readonly #patterns

  constructor(patterns: readonly string[]) {
    this.#patterns = patterns.map(text => {
      const pattern = parsePattern(text)
      if (pattern) return pattern
      throw new ConfigError(
        `ANONYMOUS_SUBSCRIBE=${text}: is not a pattern; it must be segments joined by /, * for any one, ** at the end for any number`
      )
    })
  }

  get mayNothing(): boolean {
    return this.#patterns.length === 0
  }

  maySubscribe(filter: string): boolean {
    return feedOf(filter) !== 'notifications' && permits(this.#patterns, filter)
  }

  mayPublish(): boolean {
    return false
  }
}

/** Everyone, while no key is configured; the query says who they are. */
class Developer implements Grant {
  readonly sub: string | null
  readonly expires = Infinity

  constructor({ query }: FastifyRequest) {
    const { user } = query as { user?: unknown }
    this.sub = typeof user === 'string' ? user : null
  }

  maySubscribe(): boolean {
    return true
  }

  mayPublish(): boolean {
    return true
  }
}

// --- what is asked of a grant ---

/** Throws `Denied` unless all of these topics and wildcards may be read. */
export function requireSubscribe(grant: Grant, filters: readonly string[]): void {
  const refused = filters.find(filter => !grant.maySubscribe(filter))
  if (refused !== undefined) throw refusal(grant, 'topic', `${JSON.stringify(refused)} may not be read`)
}

/** Throws `Denied` unless all of these topics may be published on; `pathOf` names the one that may not. */
export function requirePublish(
  grant: Grant,
  topics: readonly string[],
  pathOf: (index: number) => string = () => 'topic'
): void {
  const index = topics.findIndex(topic => !grant.mayPublish(topic))
  if (index === -1) return
  throw refusal(grant, pathOf(index), `${JSON.stringify(topics[index])} may not be published on`)
}

/** The user who asks. Throws a `Problem` where nobody is known. */
export function requireUser(grant: Grant): string {
  if (grant.sub !== null) return grant.sub
  if (grant instanceof Developer) throw malformed('user', 'is required: whose notifications')
  throw grant instanceof Anonymous ? missing() : refusal(grant, 'sub', 'only a user has notifications')
}

function refusal(grant: Grant, path: string, message: string): Denied {
  // whoever has shown nothing may have something to show
  if (grant instanceof Anonymous) return missing()
  return new Denied('forbidden', `${path}: ${message}`, [{ path, message }])
}

function missing(): Denied {
  return new Denied(
    'missing',
    'a token is needed: Authorization: Bearer, the cookie ringside_token, or ?token='
  )
}

// --- tokens in requests ---

const COOKIE = 'ringside_token'

/** The token of a request: the first of these places that has one. What stands there and is none is not passed over. */
function findToken({ headers, query }: FastifyRequest): { token: string; isCookie: boolean } | undefined {
  const { authorization, cookie } = headers
  if (authorization !== undefined) {
    // RFC 6750, section 2.1; the scheme is case-insensitive (RFC 9110, section 11.1)
    const [, token] = /^Bearer +([\w.~+/-]+=*) *$/i.exec(authorization) ?? []
    if (token === undefined) throw new Denied('malformed', 'Authorization: it must be Bearer and a token')
    return { token, isCookie: false }
  }
  // one without a value was taken back
  const fromCookie = cookie === undefined ? undefined : parseCookie(cookie)[COOKIE]
  if (fromCookie) return { token: fromCookie, isCookie: true }
  const { token } = query as { token?: unknown }
  if (token === undefined || token === '') return undefined
  if (typeof token !== 'string') throw new Denied('malformed', 'token: it is given more than once')
  return { token, isCookie: false }
}

/** What to show who wants in (RFC 6750, section 3); nothing where another token would not help. */
function challengeOf({ reason, message }: Denied): string | undefined {
  if (reason === 'origin' || reason === 'unavailable') return undefined
  if (reason === 'missing') return 'Bearer realm="ringside"'
  const error = reason === 'forbidden' ? 'insufficient_scope' : 'invalid_token'
  // what a description may have in it
  const description = message.replace(/[^ !#-[\]-~]/g, "'")
  return `Bearer realm="ringside", error="${error}", error_description="${description}"`
}

function acceptsStream({ method, headers }: FastifyRequest): boolean {
  return (method === 'GET' || method === 'HEAD') && namesStream(headers.accept)
}

/** Whether `Accept` has text/event-stream by name, as an EventSource's does. */
export function namesStream(accept = ''): boolean {
  return /\btext\/event-stream\b/i.test(accept)
}

// --- the page that asks ---

/** Whether a request changes something (RFC 9110, section 9.2.1). */
export function isWrite({ method }: FastifyRequest): boolean {
  return !['GET', 'HEAD', 'OPTIONS'].includes(method)
}

function isUpgrade({ headers }: FastifyRequest): boolean {
  return headers.upgrade?.toLowerCase() === 'websocket'
}

/** A cookie is sent for any page; and no browser asks who may open a WebSocket. */
function checkOriginOf(request: FastifyRequest, listed: readonly string[], byCookie: boolean): void {
  if (isUpgrade(request) || (byCookie && isWrite(request))) checkOrigin(request, listed, byCookie)
}

/**
 * Throws `Denied` for a page of another origin that is not listed. Who says no origin is no browser, or an old one:
 * with a cookie it must show at least that it asks of its own (`Sec-Fetch-Site`).
 */
export function checkOrigin(request: FastifyRequest, listed: readonly string[], byCookie: boolean): void {
  const { origin, 'sec-fetch-site': site } = request.headers
  if (origin === undefined) {
    if (!byCookie || site === 'same-origin') return
    throw new Denied('origin', 'with a cookie, Origin must show which page asks')
  }
  if (listed.includes(origin) || origin === originOf(request) || (!byCookie && listed.includes('*'))) return
  throw new Denied(
    'origin',
    `Origin: ${JSON.stringify(origin)} is neither the server's own, ${originOf(request)}, nor in CORS_ORIGIN`
  )
}

/** The server's own origin, as a browser would say it: without the port that its scheme has anyhow. */
function originOf({ protocol, host }: FastifyRequest): string {
  const url = `${protocol}://${host}`
  return URL.canParse(url) ? new URL(url).origin : 'null'
}
