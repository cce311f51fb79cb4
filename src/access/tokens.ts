import { decodeProtectedHeader, errors, jwtVerify, type JWTPayload, type JWTVerifyOptions } from 'jose'
import { Type } from 'typebox'
import { Value } from 'typebox/value'
import type { Clock } from '../clock.ts'
import type { Settings } from '../config.ts'
import { parsePattern, type Pattern } from '../event.ts'
import { Denied, type InputError } from '../problem.ts'
import { readKeys, type Key } from './keys.ts'
import { RemoteKeys, type Logger } from './remote-keys.ts'

/** The longest token, in characters. */
const MAX_TOKEN = 8192

/** How many tokens are remembered, so that a client's next request needs no verification. */
const MAX_VERIFIED = 1000

/** What a token says, once it is known to be true. */
export interface Claims {
  /** The user; null for a token that names none. */
  readonly sub: string | null
  readonly subscribe: readonly Pattern[]
  readonly publish: readonly Pattern[]
  /** Whether its user operates the server. */
  readonly admin: boolean
  /** When it runs out, in milliseconds since the epoch. */
  readonly expires: number
}

/** What tokens take from the configuration. */
export type TokenSettings = Pick<
  Settings,
  'JWT_SECRET' | 'JWT_PUBLIC_KEY' | 'JWKS_URL' | 'JWT_AUDIENCE' | 'JWT_ISSUER' | 'JWT_CLOCK_TOLERANCE'
>

/** Checks tokens (JWT, RFC 7519) with the keys that are configured. */
export class Tokens {
  readonly #keys: Key[]
  readonly #settings: TokenSettings
  readonly #clock: Clock
  /** What was checked with the keys of now. */
  #verified = new Map<string, Claims>()

  /** Begins to fetch keys, where they have a URL. Throws a `ConfigError`. */
  constructor(settings: TokenSettings, clock: Clock, logger: Logger) {
    this.#settings = settings
    this.#clock = clock
    // what was checked with keys of before may not hold with those of now, nor what is being checked
    this.#keys = readKeys(settings, clock, () => void (this.#verified = new Map()), logger)
  }

  /** When the keys that have a URL were fetched last, in milliseconds since the epoch; 0 for not yet, null for no URL. */
  get keysFetched(): number | null {
    const remote = this.#keys.find(key => key instanceof RemoteKeys)
    return remote ? remote.fetchedAt : null
  }

  /** The algorithms of tokens that are taken. */
  get algorithms(): readonly string[] {
    return [...new Set(this.#keys.flatMap(({ algorithms }) => algorithms))]
  }

  /** What a token says that was read before, and still holds; undefined of any other. */
  known(token: string): Claims | undefined {
    const claims = this.#verified.get(token)
    return claims && claims.expires > this.#clock.now() ? claims : undefined
  }

  /** What a token says. Rejects with `Denied`, which never repeats any of it. */
  async read(token: string): Promise<Claims> {
    const known = this.known(token)
    if (known) return known
    const verified = this.#verified
    verified.delete(token)
    const claims = this.#claims(await this.#verify(token))
    // the one that was remembered first is forgotten first
    if (verified.size >= MAX_VERIFIED) verified.delete(verified.keys().next().value!)
    verified.set(token, claims)
    return claims
  }

  async #verify(token: string): Promise<JWTPayload> {
    if (token.length > MAX_TOKEN)
      throw new Denied('too_large', `the token is longer than ${MAX_TOKEN} characters`)
    const algorithm = algorithmOf(token)
    const keys = this.#keys.filter(({ algorithms }) => algorithms.includes(algorithm))
    let denied = new Denied(
      'algorithm',
      `the token's algorithm is none of those that are taken: ${this.algorithms.join(', ')}`
    )
    for (const key of keys) {
      try {
        return await this.#verifyWith(token, key)
      } catch (error) {
        denied = denialOf(error)
        // the next key may be the one that has signed it; what it claims is the same for all
        if (!['signature', 'key'].includes(denied.reason)) break
      }
    }
    throw denied
  }

  async #verifyWith(token: string, { key, algorithms }: Key): Promise<JWTPayload> {
    const { JWT_AUDIENCE, JWT_ISSUER, JWT_CLOCK_TOLERANCE } = this.#settings
    const options: JWTVerifyOptions = {
      algorithms: [...algorithms],
      requiredClaims: ['exp'],
      currentDate: new Date(this.#clock.now()),
      clockTolerance: JWT_CLOCK_TOLERANCE / 1000,
      ...(JWT_AUDIENCE.length > 0 && { audience: JWT_AUDIENCE }),
      ...(JWT_ISSUER.length > 0 && { issuer: JWT_ISSUER })
    }
    try {
      return (await jwtVerify(token, key, options)).payload
    } catch (error) {
      if (error instanceof errors.JWKSMultipleMatchingKeys) return verifyWithAny(token, error, options)
      throw error
    }
  }

  #claims(payload: JWTPayload): Claims {
    if (!Value.Check(ClaimsSchema, payload)) {
      const wrong = Value.Errors(ClaimsSchema, payload)
      throw misunderstood([...wrong].map(({ instancePath, message }) => ({ path: instancePath, message })))
    }
    const { sub = null, exp, ringside } = payload
    const admin = ringside?.admin ?? false
    return { sub, ...readPatterns(ringside), admin, expires: this.#expiry(exp * 1000) }
  }

  /**
   * Until when a token is good. `exp`: what it says itself; both in milliseconds since the epoch.
   *
   * The clock of whoever issued the token may be behind ours, so a token is taken for as long as the tolerance after its
   * `exp` has passed by our clock. One that comes that late is good until the tolerance is over: a stream that it opens
   * would end at once otherwise. One that comes before its `exp` is good until then, and no longer.
   */
  #expiry(exp: number): number {
    const isLate = exp <= this.#clock.now()
    return isLate ? exp + this.#settings.JWT_CLOCK_TOLERANCE : exp
  }
}

/** For a token that doesn't name its key, where several keys are of its kind: one of them must have signed it. */
async function verifyWithAny(
  token: string,
  candidates: errors.JWKSMultipleMatchingKeys,
  options: JWTVerifyOptions
): Promise<JWTPayload> {
  for await (const candidate of candidates) {
    try {
      return (await jwtVerify(token, candidate, options)).payload
    } catch (error) {
      if (!(error instanceof errors.JWSSignatureVerificationFailed)) throw error
    }
  }
  throw new errors.JWSSignatureVerificationFailed()
}

const Patterns = Type.Optional(Type.Array(Type.String()))

const ClaimsSchema = Type.Object({
  sub: Type.Optional(Type.String({ minLength: 1 })),
  exp: Type.Number(),
  ringside: Type.Optional(
    Type.Object({ subscribe: Patterns, publish: Patterns, admin: Type.Optional(Type.Boolean()) })
  )
})

/** The patterns of the claim `ringside`. Throws a `Denied` that names all that are none. */
function readPatterns({ subscribe = [], publish = [] }: { subscribe?: string[]; publish?: string[] } = {}) {
  const wrong: InputError[] = []
  const read = (name: string, texts: readonly string[]) =>
    texts.flatMap((text, index) => {
      const pattern = parsePattern(text)
      if (pattern) return [pattern]
      wrong.push({ path: `/ringside/${name}/${index}`, message: 'is not a pattern of topics' })
      return []
    })
  const patterns = { subscribe: read('subscribe', subscribe), publish: read('publish', publish) }
  if (wrong.length > 0) throw misunderstood(wrong)
  return patterns
}

function misunderstood(errors: readonly InputError[]): Denied {
  const what = errors.map(({ path, message }) => `${path} ${message}`).join('; ')
  return new Denied('claims', `the token's claims: ${what}`, errors)
}

function algorithmOf(token: string): string {
  try {
    // of another shape it is no signed token (RFC 7515, section 7.1)
    if (/^[\w-]+\.[\w-]+\.[\w-]*$/.test(token)) return decodeProtectedHeader(token).alg ?? ''
  } catch {
    // told below
  }
  throw new Denied('malformed', 'the token is not a signed JWT')
}

/** Why a token was not taken, in words of ours: those of the library may repeat what is in it. */
function denialOf(error: unknown): Denied {
  if (error instanceof Denied) return error
  if (error instanceof errors.JWTExpired) return new Denied('expired', 'the token has run out')
  if (error instanceof errors.JWTClaimValidationFailed) return claimDenial(error)
  if (error instanceof errors.JWSSignatureVerificationFailed)
    return new Denied('signature', "the token's signature is not of a key that is known here")
  if (error instanceof errors.JWKSNoMatchingKey) return new Denied('key', "the token's key is not known here")
  return new Denied('malformed', 'the token is not a JWT that can be checked')
}

function claimDenial({ claim, reason }: errors.JWTClaimValidationFailed): Denied {
  if (reason === 'missing') return misunderstood([{ path: `/${claim}`, message: 'is missing' }])
  if (reason === 'invalid') return misunderstood([{ path: `/${claim}`, message: 'is not a number' }])
  if (claim === 'nbf') return new Denied('early', 'the token is not valid yet')
  if (claim === 'aud') return new Denied('audience', 'the token is for another audience (aud)')
  return new Denied('issuer', 'the token is of another issuer (iss)')
}
