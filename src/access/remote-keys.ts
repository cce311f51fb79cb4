import { createLocalJWKSet, createRemoteJWKSet, customFetch, errors } from 'jose'
import type { CryptoKey, FetchImplementation, JSONWebKeySet, JWTVerifyGetKey } from 'jose'
import type { Clock } from '../clock.ts'
import { Denied } from '../problem.ts'
import { EDDSA } from './pem.ts'

/** How often keys are fetched anew, in milliseconds: for that long a key that was withdrawn is taken. */
const REFRESH_MS = 600_000

/** A token whose key isn't among them has the keys fetched again, but no more often than this, in milliseconds. */
const COOLDOWN_MS = 2000

/** While the keys can't be had, they are asked for no more often than this, in milliseconds. */
const RETRY_MS = 1000

/** How long a fetch of keys may take, in milliseconds, and how large they may be, in bytes. */
const FETCH_MS = 5000
const MAX_KEYS_BYTES = 1_048_576

/** Who is told that keys can't be had, and that they can be had again. */
export interface Logger {
  warn(message: string): void
}

/**
 * Keys of a JSON Web Key Set (RFC 7517) at a URL. They are fetched at the start, every ten minutes, and for a token
 * whose key is not among them. While they can't be fetched, those that were go on being taken.
 */
export class RemoteKeys {
  readonly algorithms = ['RS256', 'ES256', ...EDDSA]
  readonly #clock: Clock
  readonly #changed: () => void
  readonly #logger: Logger
  readonly #fetched
  /** When they were fetched last, in milliseconds since the epoch; 0 for not yet. */
  fetchedAt = 0
  #failedAt = -Infinity
  #failure: Error | null = null

  constructor(url: URL, clock: Clock, changed: () => void, logger: Logger) {
    this.#clock = clock
    this.#changed = changed
    this.#logger = logger
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
      if (this.#failure) this.#logger.warn('JWKS_URL: the keys are there again')
      this.#failure = null
      this.fetchedAt = this.#clock.now()
      this.#changed()
      return new Response(text)
    } catch (error) {
      if (!this.#failure) this.#logger.warn(`JWKS_URL: the keys can't be had: ${reasonOf(error as Error)}`)
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
