import { parseCookie } from 'cookie'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { Anonymous, Developer, missingToken, TokenGrant, WithinBounds, type Grant } from '../access/grant.ts'
import type { Claims, Tokens } from '../access/tokens.ts'
import type { Settings } from '../config.ts'
import type { Metrics } from '../metrics.ts'
import { Denied } from '../problem.ts'
import type { Rules } from '../rules/rules.ts'
import { isListed } from './cors.ts'
import type { Notices } from './notices.ts'

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
  /** Who says what happens often. */
  readonly notices: Notices
  /** Which topics may be read without a token. */
  readonly rules: Rules
  /** Answers a reader who can't be checked now in a way that its EventSource survives. */
  turnAway(request: FastifyRequest, reply: FastifyReply): unknown
}

/** Makes every route of an app that is not open know who asks, or refuse it. Sections 6 and 7 of the contract. */
export function guard(app: FastifyInstance, options: AccessOptions): void {
  const { by, settings, metrics, notices, rules, turnAway } = options
  const identify = identifierOf(by, settings, rules)
  // closed to whoever comes by without having been asked
  app.decorateRequest('grant')
  app.addHook('onRequest', (request, reply, done) => {
    if (request.is404 || request.routeOptions.config.open) return done()
    const enter = (grant: Grant): void => {
      request.grant = grant
      done()
    }
    const refuse = (error: Error): void => {
      if (!(error instanceof Denied && error.reason === 'unavailable' && acceptsStream(request)))
        return done(error)
      metrics.authFailures.inc({ reason: error.reason })
      turnAway(request, reply)
    }
    // who asks is most often known at once: a promise would cost each request more than all that is asked here
    const grant = identify(request, reply)
    if (grant instanceof Promise) grant.then(enter, refuse).catch(done)
    else enter(grant)
  })
  app.addHook('onError', async (request, reply, error) => {
    if (!(error instanceof Denied)) return
    metrics.authFailures.inc({ reason: error.reason })
    if (error.reason === 'origin') noteOrigin(notices, request, settings.CORS_ORIGIN)
    const challenge = typeof by === 'function' ? undefined : challengeOf(error)
    if (challenge !== undefined) reply.header('www-authenticate', challenge)
  })
}

function identifierOf(by: AccessOptions['by'], settings: AccessOptions['settings'], rules: Rules): GrantOf {
  if (by === 'development') {
    return request => {
      if (isUpgrade(request) || isWrite(request)) checkOrigin(request, settings.CORS_ORIGIN, false)
      return new Developer(userInQuery(request))
    }
  }
  if (typeof by === 'function') {
    return async (request, reply) => {
      // what a browser brings by itself shows nothing of the page that asks
      const { cookie, authorization } = request.headers
      checkOriginOf(request, settings.CORS_ORIGIN, cookie !== undefined && authorization === undefined)
      return new WithinBounds(await by(request, reply))
    }
  }
  const anonymous = new Anonymous(settings.ANONYMOUS_SUBSCRIBE, rules)
  return request => {
    const found = findToken(request)
    checkOriginOf(request, settings.CORS_ORIGIN, found?.isCookie ?? false)
    if (!found) {
      if (isWrite(request) || anonymous.mayNothing) throw missingToken()
      return anonymous
    }
    const claims = by.known(found.token)
    return claims ? grantOf(claims) : by.read(found.token).then(grantOf)
  }
}

function grantOf(claims: Claims): Grant {
  return new WithinBounds(new TokenGrant(claims))
}

/** In development mode the query says who asks. */
function userInQuery({ query }: FastifyRequest): string | null {
  const { user } = query as { user?: unknown }
  return typeof user === 'string' ? user : null
}

// --- tokens in requests ---

/**
 * The cookies that a token may come in. One with the prefix is set by this host alone, over TLS (RFC 6265bis, section
 * 4.1.3.2): where there is one, another that any host of the same domain could have set counts for nothing.
 */
const COOKIES = ['__Host-ringside_token', 'ringside_token'] as const

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
  const cookies = cookie === undefined ? {} : parseCookie(cookie)
  const fromCookie = COOKIES.map(name => cookies[name]).find(Boolean)
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
  return method !== 'GET' && method !== 'HEAD' && method !== 'OPTIONS'
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
function checkOrigin(request: FastifyRequest, listed: readonly string[], byCookie: boolean): void {
  const { origin, 'sec-fetch-site': site } = request.headers
  if (origin === undefined) {
    if (!byCookie || site === 'same-origin') return
    throw new Denied('origin', 'with a cookie, Origin must show which page asks')
  }
  if (isListed(origin, [...listed, originOf(request)]) || (!byCookie && listed.includes('*'))) return
  throw new Denied(
    'origin',
    `Origin: ${JSON.stringify(origin)} is neither the server's own, ${originOf(request)}, nor in CORS_ORIGIN`
  )
}

/** Tells the log of a page that was refused, and of those that are not: whoever runs the server must compare the two. */
function noteOrigin(notices: Notices, request: FastifyRequest, listed: readonly string[]): void {
  const { origin = null } = request.headers
  const own = originOf(request)
  notices.note(`origin ${origin}`, count =>
    request.log.info(
      { count, origin, allowed: [own, ...listed] },
      `refused ${count}: pages of the origin ${origin} are not allowed; the server's own is ${own}, CORS_ORIGIN has ${listed.join(', ') || 'none'}`
    )
  )
}

/**
 * The server's own origin, as a browser would say it: without the port that its scheme has anyhow. Of a WebSocket Traefik
 * says that it has come by `wss`; its page has come by `https`.
 */
function originOf({ protocol, host }: FastifyRequest): string {
  const url = `${protocol.replace(/^ws/, 'http')}://${host}`
  return URL.canParse(url) ? new URL(url).origin : 'null'
}
