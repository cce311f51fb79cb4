import { randomUUID } from 'node:crypto'
import { addressOf, Backoff, refusal } from '../client/reconnect.ts'
import { Failed } from './failed.ts'
import type { Target } from './target.ts'

/** Something to be stored. */
export interface Sending {
  /** Where it is posted to, below the server's address, with its query. */
  readonly path: string
  readonly contentType: string
  readonly body: string | Uint8Array
  /** What it is known by, so that it is stored once; without one it gets its own. */
  readonly key?: string | undefined
}

/** The server refuses it, for good. */
export class Refused extends Failed {
  override name = 'Refused'
  readonly status: number
  /** The parts that are wrong, where the server has named any: JSON Pointers, or names. */
  readonly errors: readonly { readonly path: string; readonly message: string }[]

  constructor(status: number, message: string, errors: Refused['errors']) {
    super(message)
    this.status = status
    this.errors = errors
  }
}

/** It was tried for long enough. */
export class GivenUp extends Failed {
  override name = 'GivenUp'
  /** Whether it may have been stored all the same. */
  readonly unsure: boolean

  constructor(message: string, unsure: boolean) {
    super(message)
    this.unsure = unsure
  }
}

/** The window of the first attempt after one that has failed, in milliseconds. */
const RETRY_MS = 500

/** The longest time between two attempts, in milliseconds. */
const RETRY_MOST_MS = 5000

/** How long an answer may take, in milliseconds. */
const ANSWER_MS = 30_000

/** How long a server knows a key, less a margin, in milliseconds: after that the same could be stored twice. */
const KEY_MS = 9 * 60_000

/** How the system says that nobody was reached: then nothing can have been stored. */
const UNREACHED = new Set([
  'ECONNREFUSED',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'UND_ERR_CONNECT_TIMEOUT'
])

/** An attempt that has come to nothing, so far. */
interface Attempt {
  readonly why: string
  /** The server wants to be left alone for so many milliseconds. */
  readonly floor: number
  /** Whether it may have been stored all the same. */
  readonly unsure: boolean
}

/** Sends to a server what is to be stored, again and again until it is, and never so that it could be stored twice. */
export class Sender {
  readonly #target: Target
  readonly #patience: number
  readonly #say: (line: string) => void
  /** What was said last of a server that doesn't store. */
  #said: string | undefined

  /** `patience`: for how many milliseconds it is tried. `say` is told what stands in the way, once. */
  constructor(target: Target, patience: number, say: (line: string) => void) {
    this.#target = target
    this.#patience = patience
    this.#say = say
  }

  /** Resolves with the answer once it is stored. Rejects with `Refused`, or `GivenUp` when the time is up. */
  async send({ key = randomUUID(), ...sending }: Sending): Promise<Record<string, unknown>> {
    const backoff = new Backoff()
    backoff.base = RETRY_MS
    const began = performance.now()
    let doubtful: number | undefined
    for (;;) {
      const asked = performance.now()
      const outcome = await this.#post(sending, key)
      if ('stored' in outcome) {
        if (this.#said !== undefined) this.#say('it is stored again')
        this.#said = undefined
        return outcome.stored
      }
      if (outcome.unsure) doubtful ??= asked
      const until = Math.min(began + this.#patience, (doubtful ?? Infinity) + KEY_MS)
      const delay = outcome.floor + Math.min(RETRY_MOST_MS, backoff.next())
      if (performance.now() + delay > until) throw this.#givenUp(outcome, doubtful !== undefined)
      this.#amiss(outcome.why)
      await new Promise(resolve => setTimeout(resolve, delay))
    }
  }

  async #post(
    { path, contentType, body }: Sending,
    key: string
  ): Promise<Attempt | { readonly stored: Record<string, unknown> }> {
    const { url, token } = this.#target
    try {
      const response = await fetch(addressOf(path, url), {
        method: 'POST',
        headers: {
          accept: 'application/json',
          'content-type': contentType,
          'idempotency-key': key,
          ...(token !== undefined && { authorization: `Bearer ${token}` })
        },
        body,
        // a POST that follows one may become a GET
        redirect: 'manual',
        signal: AbortSignal.timeout(ANSWER_MS)
      })
      if (response.status === 201) return { stored: (await response.json()) as Record<string, unknown> }
      return await notStored(response)
    } catch (error) {
      if (error instanceof Refused) throw error
      return unanswered(error as Error)
    }
  }

  #amiss(why: string): void {
    if (this.#said === why) return
    this.#said = why
    this.#say(`${this.#target.url}: ${why}; trying again`)
  }

  #givenUp({ why }: Attempt, unsure: boolean): GivenUp {
    const stored = unsure ? 'it is not known whether it was stored' : 'nothing was stored'
    return new GivenUp(`${this.#target.url}: ${why}; ${stored}`, unsure)
  }
}

/** What another answer than that it is stored means. Throws `Refused` for what is final. */
async function notStored(response: Response): Promise<Attempt> {
  const { status, headers, url } = response
  const location = headers.get('location')
  if (location !== null) throw new Refused(status, `the server is not at ${url}, but at ${location}`, [])
  const isOurs = headers.get('content-type')?.startsWith('application/problem+json') ?? false
  const { errors = [] } = (isOurs ? await response.clone().json() : {}) as Partial<Pick<Refused, 'errors'>>
  const { message, next } = await refusal(response)
  if (!next.final && status >= 400) return { why: message, floor: next.floor ?? 0, unsure: status !== 429 }
  throw new Refused(status, isOurs ? message : `${url} answered ${status}: it is no Ringside`, errors)
}

function unanswered({ message, cause, name }: Error): Attempt {
  const { code = '', message: why = message } = (cause ?? {}) as { code?: string; message?: string }
  // those of TLS have line ends
  const said =
    name === 'TimeoutError' ? `no answer in ${ANSWER_MS / 1000} s` : why.trim().replace(/\s+/g, ' ')
  return { why: said, floor: 0, unsure: !UNREACHED.has(code) }
}
