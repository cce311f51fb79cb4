import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto'
import { readFileSync } from 'node:fs'
import {
  createLocalJWKSet,
  createRemoteJWKSet,
  customFetch,
  decodeProtectedHeader,
  errors,
  jwtVerify,
  SignJWT
} from 'jose'
import type {
  CryptoKey,
  FetchImplementation,
  JSONWebKeySet,
  JWTPayload,
  JWTVerifyGetKey,
  JWTVerifyOptions
} from 'jose'
import { Type } from 'typebox'
import { Value } from 'typebox/value'
import type { Clock } from '../clock.ts'
import { ConfigError, type Settings } from '../config.ts'
import { parsePattern, type Pattern } from '../event.ts'
import { Denied, type InputError } from '../problem.ts'

/** The longest token, in characters. */
const MAX_TOKEN = 8192

/** How many tokens are remembered, so that a client's next request needs no verification. */
const MAX_VERIFIED = 1000

/** How often keys are fetched anew, in milliseconds: for that long a key that was withdrawn is taken. */
const REFRESH_MS = 600_000

/** Keys are fetched again for a token whose key isn't among them, but not more often than this, in milliseconds. */
const COOLDOWN_MS = 2000

/** Nor more often than this while they can't be had. */
const RETRY_MS = 1000

/** How long a fetch of keys may take, in milliseconds, and how large they may be, in bytes. */
const FETCH_MS = 5000
const MAX_KEYS_BYTES = 1_048_576

/** What a token says, once it is known to be true. */
export interface Claims {
  /** The user; null for a token that names none. */
  readonly sub: string | null
  readonly subscribe: readonly Pattern[]
  readonly publish: readonly Pattern[]
  /** When it runs out, in milliseconds since the epoch. */
  readonly expires: number
}

/** Who is told that keys can't be had. */
export interface Log {
  warn(message: string): void
}

/** What tokens take from the configuration. */
export type TokenSettings = Pick<
  Settings,
  'JWT_SECRET' | 'JWT_PUBLIC_KEY' | 'JWKS_URL' | 'JWT_AUDIENCE' | 'JWT_ISSUER' | 'JWT_CLOCK_TOLERANCE'
>

/** A key and what it may check: one is never taken for the algorithm of another kind (RFC 8725, section 3.1). */
interface Key {
  readonly algorithms: readonly string[]
  readonly key: Uint8Array | KeyObject | JWTVerifyGetKey<CryptoKey>
}

/** EdDSA, and its name of today (RFC 9864, section 2.2). */
const EDDSA = ['EdDSA', 'Ed25519']

/** Checks tokens (JWT, RFC 7519) with the keys that are configured. */
export class Tokens {
  readonly #keys: Key[]
  readonly #settings: TokenSettings
  readonly #clock: Clock
  readonly #verified = new Map<string, Claims>()

  /** Begins to fetch keys, where they have a URL. Throws a `ConfigError`. */
  constructor(settings: TokenSettings, clock: Clock, log: Log) {
    const { JWT_SECRET, JWT_PUBLIC_KEY, JWKS_URL } = settings
    this.#settings = settings
    this.#clock = clock
    // what was checked with keys of before may not hold with those of now
    const forget = () => this.#verified.clear()
    this.#keys = [
      ...(JWT_SECRET ? [{ algorithms: ['HS256'], key: new TextEncoder().encode(JWT_SECRET) }] : []),
      ...(JWT_PUBLIC_KEY ? [readPublicKey(JWT_PUBLIC_KEY)] : []),
      ...(JWKS_URL ? [new RemoteKeys(readUrl(JWKS_URL), clock, forget, log)] : [])
    ]
  }

  /** The algorithms of tokens that are taken. */
  get algorithms(): readonly string[] {
    return [...new Set(this.#keys.flatMap(({ algorithms }) => algorithms))]
  }

  /** What a token says. Rejects with `Denied`, which never repeats any of it. */
  async read(token: string): Promise<Claims> {
    const known = this.#verified.get(token)
    if (known && known.expires > this.#clock.now()) return known
    this.#verified.delete(token)
    const claims = this.#claims(await this.#verify(token))
    // the one that was remembered first is forgotten first
    if (this.#verified.size >= MAX_VERIFIED) this.#verified.delete(this.#verified.keys().next().value!)
    this.#verified.set(token, claims)
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
    for (const { key, algorithms } of keys) {
      try {
        return await this.#verifyWith(token, key, algorithms)
      } catch (error) {
        denied = denialOf(error)
        // the next key may be the one that has signed it; what it claims is the same for all
        if (!['signature', 'key'].includes(denied.reason)) break
      }
    }
    throw denied
  }

  async #verifyWith(token: string, key: Key['key'], algorithms: readonly string[]): Promise<JWTPayload> {
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
      if (!(error instanceof errors.JWKSMultipleMatchingKeys)) throw error
      // a token that doesn't name its key, and several keys of its kind
      for await (const candidate of error) {
        try {
          return (await jwtVerify(token, candidate, options)).payload
        } catch (failed) {
          if (!(failed instanceof errors.JWSSignatureVerificationFailed)) throw failed
        }
      }
      throw new errors.JWSSignatureVerificationFailed()
    }
  }

  #claims(payload: JWTPayload): Claims {
    if (!Value.Check(ClaimsSchema, payload)) {
      throw misunderstood(
        [...Value.Errors(ClaimsSchema, payload)].map(({ instancePath, message }) => ({
          path: instancePath,
          message
        }))
      )
    }
    const { sub = null, exp, ringside = {} } = payload
    const wrong: InputError[] = []
    const read = (name: 'subscribe' | 'publish') =>
      (ringside[name] ?? []).flatMap((text, index) => {
        const pattern = parsePattern(text)
        if (pattern) return [pattern]
        wrong.push({ path: `/ringside/${name}/${index}`, message: 'is not a pattern of topics' })
        return []
      })
    const claims = { sub, subscribe: read('subscribe'), publish: read('publish') }
    if (wrong.length > 0) throw misunderstood(wrong)
    // who comes after that, by our clock, comes while it is not yet that late by another's
    const late = exp * 1000 <= this.#clock.now()
    return { ...claims, expires: exp * 1000 + (late ? this.#settings.JWT_CLOCK_TOLERANCE : 0) }
  }
}

const Patterns = Type.Optional(Type.Array(Type.String()))

const ClaimsSchema = Type.Object({
  sub: Type.Optional(Type.String({ minLength: 1 })),
  exp: Type.Number(),
  ringside: Type.Optional(Type.Object({ subscribe: Patterns, publish: Patterns }))
})

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

// --- keys ---

/** Which algorithms a key is for: no more than its kind allows. Undefined for a key that is for none. */
function algorithmsOf({ asymmetricKeyType, asymmetricKeyDetails = {} }: KeyObject): string[] | undefined {
  const { modulusLength = 0, namedCurve } = asymmetricKeyDetails
  // RFC 7518, section 3.3: 2048 bits or more
  if (asymmetricKeyType === 'rsa' && modulusLength >= 2048) return ['RS256']
  if (asymmetricKeyType === 'ec' && namedCurve === 'prime256v1') return ['ES256']
  return asymmetricKeyType === 'ed25519' ? EDDSA : undefined
}

const KINDS = 'RSA of 2048 bits or more, P-256 or Ed25519'

function readPublicKey(setting: string): Key {
  const isText = setting.includes('-----BEGIN ')
  const name = isText ? 'JWT_PUBLIC_KEY' : `JWT_PUBLIC_KEY=${setting}`
  const pem = isText ? unescape(setting) : readFile(name, setting)
  if (/-----BEGIN [A-Z ]*PRIVATE KEY/.test(pem))
    throw new ConfigError(`${name}: is a private key; the server needs the public one`)
  const key = readKey(name, () => createPublicKey(pem))
  return { key, algorithms: algorithmsFor(name, key) }
}

/** An environment variable may have its line ends written out. */
function unescape(pem: string): string {
  return pem.replaceAll('\\n', '\n')
}

function readFile(name: string, path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new ConfigError(`${name}: can't be read: ${(error as Error).message}`)
  }
}

function readKey(name: string, read: () => KeyObject): KeyObject {
  try {
    return read()
  } catch {
    throw new ConfigError(`${name}: has no such key in PEM; it must be ${KINDS}`)
  }
}

function algorithmsFor(name: string, key: KeyObject): string[] {
  const algorithms = algorithmsOf(key)
  if (algorithms) return algorithms
  throw new ConfigError(`${name}: a key of this kind is not taken; it must be ${KINDS}`)
}

function readUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url && url.username === '' && url.password === '') return url
  throw new ConfigError('JWKS_URL: not allowed; it must be an https or http URL without a user')
}

/**
 * Keys of a JSON Web Key Set (RFC 7517) at a URL. They are fetched at the start, every ten minutes, and for a token
 * whose key is not among them. While they can't be fetched, those that were go on being taken.
 */
class RemoteKeys implements Key {
  readonly algorithms = ['RS256', 'ES256', ...EDDSA]
  readonly #clock: Clock
  readonly #changed: () => void
  readonly #log: Log
  readonly #fetched
  #failedAt = -Infinity
  #failure: Error | null = null

  constructor(url: URL, clock: Clock, changed: () => void, log: Log) {
    this.#clock = clock
    this.#changed = changed
    this.#log = log
    this.#fetched = createRemoteJWKSet(url, {
      timeoutDuration: FETCH_MS,
      cooldownDuration: COOLDOWN_MS,
      cacheMaxAge: Infinity, // else they were given up while others can't be had
      [customFetch]: (href, options) => this.#fetch(href, options)
    })
    this.#refresh()
    const timer = clock.after(REFRESH_MS, () => {
      this.#refresh()
      timer.refresh()
    })
  }

  readonly key: JWTVerifyGetKey<CryptoKey> = async (header, token) => {
    try {
      return await this.#fetched(header, token)
    } catch (error) {
      if (error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JWKSMultipleMatchingKeys)
        throw error
      throw new Denied('unavailable', "the keys that check tokens can't be had now")
    }
  }

  #refresh(): void {
    // whoever needs a key that is missing is told so
    this.#fetched.reload().catch(() => {})
  }

  async #fetch(...[url, options]: Parameters<FetchImplementation>): Promise<Response> {
    const since = this.#clock.now() - this.#failedAt
    if (this.#failure && since >= 0 && since < RETRY_MS) throw this.#failure
    try {
      const text = await download(await fetch(url, options))
      checkKeys(text)
      this.#failure = null
      this.#changed()
      return new Response(text)
    } catch (error) {
      if (!this.#failure) this.#log.warn(`JWKS_URL: the keys can't be had: ${reasonOf(error as Error)}`)
      this.#failure = error as Error
      this.#failedAt = this.#clock.now()
      throw error
    }
  }
}

async function download(response: Response): Promise<string> {
  if (response.status !== 200) {
    await response.body?.cancel()
    throw new Error(`the answer is ${response.status}`)
  }
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
    size += chunk.length
    if (size > MAX_KEYS_BYTES) throw new Error(`the answer is larger than ${MAX_KEYS_BYTES} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

/** What is no key set, or an empty one, must not take the place of the one that is there. */
function checkKeys(text: string): void {
  const set = JSON.parse(text) as JSONWebKeySet
  createLocalJWKSet(set)
  if (set.keys.length === 0) throw new Error('the answer has no key')
}

/** Why a fetch failed; what it says itself is only that it did. */
function reasonOf({ message, cause }: Error): string {
  return cause instanceof Error
    ? `${message}: ${cause.message || (cause as NodeJS.ErrnoException).code}`
    : message
}

// --- signing ---

/** What signs a token: a secret (HS256), or a file with a private key in PEM, by whose kind the algorithm is chosen. */
export type Signer =
  { readonly secret: string } | { readonly file: string; readonly kid?: string | undefined }

/** What a new token shall say. */
export interface NewToken {
  readonly sub?: string | undefined
  readonly subscribe: readonly string[]
  readonly publish: readonly string[]
  /** Seconds until it runs out. */
  readonly expires: number
  readonly audience?: string | undefined
  readonly issuer?: string | undefined
}

/** Signs a token. Throws a `ConfigError` for a key that can't. */
export async function signToken(
  { sub, subscribe, publish, expires, audience, issuer }: NewToken,
  signer: Signer
): Promise<string> {
  const now = Math.floor(Date.now() / 1000)
  const claims = {
    ...(sub !== undefined && { sub }),
    ...(audience !== undefined && { aud: audience }),
    ...(issuer !== undefined && { iss: issuer }),
    ...{ iat: now, exp: now + Math.ceil(expires), ringside: { subscribe, publish } }
  }
  const token = new SignJWT(claims)
  if ('secret' in signer) {
    return token
      .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
      .sign(new TextEncoder().encode(signer.secret))
  }
  const { file, kid } = signer
  const pem = readFile(file, file)
  const key = readKey(file, () => createPrivateKey(pem))
  const [alg] = algorithmsFor(file, key) as [string]
  return token.setProtectedHeader({ alg, typ: 'JWT', ...(kid !== undefined && { kid }) }).sign(key)
}
