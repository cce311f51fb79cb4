import { ConfigError } from '../config.ts'
import { feedOf, isOperators, isTopic, parsePattern, permits, type Pattern } from '../event.ts'
import { Denied, wrong } from '../problem.ts'
import type { Rules } from '../rules/rules.ts'
import type { Claims } from './tokens.ts'

/** Who asks, and what they may. */
export interface Grant {
  /** The user; null for nobody known. */
  readonly sub: string | null
  /** Whether all that a topic or wildcard covers may be read. */
  maySubscribe(filter: string): boolean
  mayPublish(topic: string): boolean
  /** Whether there is no topic that may be published on: then the body of what is sent is not even read. Default: false. */
  readonly publishesNothing?: boolean
  /** Whether they operate the server: see section 12 of the contract. Default: false. */
  readonly isAdmin?: boolean
  /** When it runs out, in milliseconds since the epoch; Infinity for never. */
  readonly expires: number
}

/**
 * A grant within the bounds that hold for all of them, whatever it says: everybody may read their own notifications, and
 * nobody another user's; the operator's topics are read by who operates the server, and written by the server alone.
 */
export class WithinBounds implements Grant {
  readonly sub: string | null
  readonly expires: number
  readonly publishesNothing: boolean
  readonly isAdmin: boolean
  readonly #grant: Grant

  constructor(grant: Grant) {
    this.sub = grant.sub ?? null // a host without types may leave it out
    this.expires = grant.expires
    this.publishesNothing = grant.publishesNothing ?? false
    this.isAdmin = grant.isAdmin ?? false
    this.#grant = grant
  }

  maySubscribe(filter: string): boolean {
    if (isOperators(filter)) return this.isAdmin
    if (feedOf(filter) !== 'notifications') return this.#grant.maySubscribe(filter)
    // a user may be called *
    return filter === `notifications/${this.sub}` && this.sub !== null && isTopic(filter)
  }

  mayPublish(topic: string): boolean {
    return !isOperators(topic) && this.#grant.mayPublish(topic)
  }
}

/** What a token claims. */
export class TokenGrant implements Grant {
  readonly sub: string | null
  readonly expires: number
  readonly #claims: Claims

  constructor(claims: Claims) {
    this.sub = claims.sub
    this.expires = claims.expires
    this.#claims = claims
  }

  get publishesNothing(): boolean {
    return this.#claims.publish.length === 0
  }

  get isAdmin(): boolean {
    return this.#claims.admin
  }

  maySubscribe(filter: string): boolean {
    return permits(this.#claims.subscribe, filter)
  }

  mayPublish(topic: string): boolean {
    return permits(this.#claims.publish, topic)
  }
}

/** What may be done without a token. */
export class Anonymous implements Grant {
  readonly sub = null
  readonly expires = Infinity
  readonly publishesNothing = true
  readonly #patterns: readonly Pattern[]
  readonly #rules: Pick<Rules, 'areAnonymous' | 'isAnonymous'>

  /**
   * `patterns`: what may be read, where no rule for topics says whether it may. Throws a `ConfigError` for what is no
   * pattern.
   */
  constructor(patterns: readonly string[], rules: Pick<Rules, 'areAnonymous' | 'isAnonymous'>) {
    this.#rules = rules
    this.#patterns = patterns.map(text => {
      const pattern = parsePattern(text)
      if (pattern) return pattern
      throw new ConfigError(
        `ANONYMOUS_SUBSCRIBE=${text}: is not a pattern; it must be segments joined by /, * for any one, ** at the end for any number`
      )
    })
  }

  get mayNothing(): boolean {
    return this.#patterns.length === 0 && !this.#rules.areAnonymous
  }

  maySubscribe(filter: string): boolean {
    if (feedOf(filter) === 'notifications' || isOperators(filter)) return false
    return this.#rules.isAnonymous(filter, () => permits(this.#patterns, filter))
  }

  mayPublish(): boolean {
    return false
  }
}

/** Everyone may do everything while no key is configured; the user is whoever the client says it is. */
export class Developer implements Grant {
  readonly sub: string | null
  readonly isAdmin = true
  readonly expires = Infinity

  constructor(sub: string | null) {
    this.sub = sub
  }

  maySubscribe(): boolean {
    return true
  }

  mayPublish(topic: string): boolean {
    return !isOperators(topic)
  }
}

// --- what is asked of a grant ---

/** Throws `Denied` unless all of these topics and wildcards may be read; `path` is what they are called in the request. */
export function requireSubscribe(grant: Grant, filters: readonly string[], path = 'topic'): void {
  for (const filter of filters) {
    if (!grant.maySubscribe(filter)) throw refusal(grant, path, `${JSON.stringify(filter)} may not be read`)
  }
}

/**
 * Throws `Denied` unless all of these topics may be published on; `pathOf` is what the one that may not is called in the
 * request.
 */
export function requirePublish(
  grant: Grant,
  topics: readonly string[],
  pathOf: (index: number) => string = () => 'topic'
): void {
  const index = topics.findIndex(topic => !grant.mayPublish(topic))
  if (index === -1) return
  throw refusal(grant, pathOf(index), `${JSON.stringify(topics[index])} may not be published on`)
}

/** Throws `Denied` where there is no topic that may be published on: before the topics are known. */
export function requireSomePublish(grant: Grant): void {
  if (grant.publishesNothing) throw refusal(grant, 'topic', 'none may be published on')
}

/** Throws `Denied` unless who asks operates the server. */
export function requireAdmin(grant: Grant): void {
  if (grant.isAdmin) return
  throw refusal(
    grant,
    'ringside.admin',
    'this is for who operates the server: the token must claim "admin": true'
  )
}

/** The user who asks. Throws a `Problem` where nobody is known. */
export function requireUser(grant: Grant): string {
  if (grant.sub !== null) return grant.sub
  if (grant instanceof Developer) throw wrong('malformed', 'user', 'it must say whose notifications')
  throw refusal(grant, 'sub', 'only a user has notifications')
}

function refusal(grant: Grant, path: string, message: string): Denied {
  // whoever has shown nothing may have something to show
  if (grant instanceof Anonymous) return missingToken()
  return new Denied('forbidden', `${path}: ${message}`, [{ path, message }])
}

/** What is told to whoever has no token and needs one. */
export function missingToken(): Denied {
  return new Denied(
    'missing',
    'a token is needed: Authorization: Bearer, the cookie ringside_token, or ?token='
  )
}
