/**
 * What streaming and the WebSocket share: the words of what is told, when to come back, and what the browser says about
 * network and page. What a runtime doesn't have (`document` in Node.js) is looked for, never assumed. What is measured is
 * measured by `performance.now()`: the time of day may be set while it runs.
 */
import { Timer } from './timer.ts'

/** An event as it was published. */
export interface RingsideEvent<Data = unknown> {
  /** Opaque text: where the stream stands once this event has arrived. */
  readonly id: string
  readonly topic: string
  readonly type: string
  /** When the broker stored it, in milliseconds since the epoch. */
  readonly time: number
  /** Parsed JSON where it was JSON, else a string; a `Uint8Array` where it was bytes. */
  readonly data: Data
}

/** Events that will not come any more: what is shown of these topics may be out of date. */
export interface Gap {
  /** `expired`: the server has moved on; `unknown`: the cursor is of no use to it; `lost`: its store lost them. */
  readonly reason: 'expired' | 'unknown' | 'lost'
  readonly topics: readonly string[]
  /** The cursor after which they are missing. */
  readonly after: string
}

/**
 * Where a subscription or a connection stands:
 * - `connecting`: there is no connection; one is being opened, or will be;
 * - `catching-up`: what was missed comes in;
 * - `live`: what is published comes at once;
 * - `stale`: the connection is there, but the server is cut off from its store: nothing new can come, for the time being;
 * - `polling`: nothing streams through a proxy on the way, so pages are asked for one after the other;
 * - `offline`: there is no connection, and the browser says that it has no network; it is tried all the same;
 * - `ended`: for good, because all its topics have ended, and everything was told;
 * - `closed`: for good, by `close()` or because the server refuses.
 */
export type State =
  'connecting' | 'catching-up' | 'live' | 'stale' | 'polling' | 'offline' | 'ended' | 'closed'

/** Why a state was entered, where there is more to say than its name. */
export interface Why {
  readonly reason: string
  /** In so many milliseconds there will be another attempt, at the latest. */
  readonly delay?: number
  /** Since when nothing new can come (`stale`), in milliseconds since the epoch, by the server's clock. */
  readonly since?: number
  /** What the runtime says, where it is what has failed: the `TypeError` of a fetch, for instance. */
  readonly cause?: unknown
}

/** Answers a token that is good now, when the server says that the last one no longer is. */
export type OnToken = () => string | Promise<string>

/** How an attempt ended, and what follows from it. */
export class Ended extends Error {
  readonly next: {
    /** There is no use in another attempt. */
    readonly final?: boolean
    /** Nothing comes any more, because all topics have ended. */
    readonly over?: boolean
    /** The token is no longer good. */
    readonly expired?: boolean
    /** The server wants to be left alone for so many milliseconds. */
    readonly floor?: number | undefined
    /** The delay, where the server has chosen it, or where none is needed. */
    readonly delay?: number | undefined
    /** Nothing came through: `at once` or later. */
    readonly silent?: 'at once' | 'later'
  }

  constructor(reason: string, next: Ended['next'] = {}, cause?: unknown) {
    super(reason, { cause })
    this.next = next
  }
}

/** The longest time between two attempts, in milliseconds. */
const CAP_MS = 30_000

/** The shortest while nobody looks. */
const HIDDEN_MS = 10_000

/** What has worked for so long, in milliseconds, was no failure. */
const STABLE_MS = 5000

/** What a page has and other runtimes may not have, as far as it is of use here. */
interface Page extends Partial<EventTarget> {
  readonly navigator?: { readonly onLine?: boolean }
  readonly document?: Partial<EventTarget> & { readonly visibilityState: string; readonly baseURI: string }
  readonly location?: { readonly href: string }
}

/** Of no runtime's own type: it is compiled for pages, and for what imports it in Node.js. */
const page = globalThis as unknown as Page

/** Only a browser knows, and only its no is worth something; even then the server may be one that can be reached. */
function isOffline(): boolean {
  return page.navigator?.onLine === false
}

/** The state of whoever has no connection. */
function unconnected(): State {
  return isOffline() ? 'offline' : 'connecting'
}

function isHidden(): boolean {
  return page.document?.visibilityState === 'hidden'
}

/** Tells when the network comes or goes, or the page is shown or hidden, until the signal is aborted. */
function onChange(callback: (event: { readonly type: string }) => void, signal: AbortSignal): void {
  const listen = (target: Partial<EventTarget> | undefined, type: string) =>
    target?.addEventListener?.(type, callback, { signal })
  listen(page, 'online')
  listen(page, 'offline')
  listen(page.document, 'visibilitychange')
}

/**
 * Resolves after `delay` milliseconds, or when the signal is aborted. Between two attempts, which `floor` tells, that
 * takes longer while nobody looks; and it is over at once when the network is back or the page is shown, though never
 * before `floor` milliseconds.
 */
export function pause(delay: number, signal: AbortSignal, floor?: number): Promise<void> {
  return new Promise(resolve => {
    const began = performance.now()
    const timer = new Timer()
    const ending = new AbortController()
    const done = () => {
      timer.stop()
      ending.abort()
      resolve()
    }
    onChange(({ type }) => {
      if (floor === undefined || type === 'offline' || isHidden()) return
      timer.start(floor - (performance.now() - began), done)
    }, ending.signal)
    timer.start(floor !== undefined && isHidden() ? Math.max(delay, HIDDEN_MS) : delay, done)
    signal.addEventListener('abort', done, { signal: ending.signal })
    if (signal.aborted) done()
  })
}

/** When to come back: exponential backoff with full jitter, so that a thousand clients don't come back at once. */
export class Backoff {
  /** The window of the first attempt, in milliseconds: the server's `retry:`. */
  base = 2000
  #failures = 0

  /** The delay before the next attempt, in milliseconds. */
  next(): number {
    // also where the server names no time at all, the failures do
    const window = Math.max(1, this.base) * 2 ** this.#failures++
    return Math.random() * Math.max(this.base, Math.min(CAP_MS, window))
  }

  /** It has worked, for so long (milliseconds). */
  worked(ms: number): void {
    if (ms > STABLE_MS) this.#failures = 0
  }
}

/** What a client is between its attempts: its state, its token, and when to come back. */
export class Reconnection {
  state: State = 'connecting'
  token: string | undefined
  readonly backoff = new Backoff()
  readonly #onToken: OnToken | undefined
  readonly #onState: (state: State, why?: Why) => void
  readonly #closing = new AbortController()
  /** Whether the token is new, and has not been of use yet. */
  #isRenewed = false

  /** `onNetwork`: there is a network again, or there is none any more. */
  constructor(
    { token, onToken }: { readonly token?: string | undefined; readonly onToken?: OnToken | undefined },
    onState: (state: State, why?: Why) => void,
    onNetwork?: (lost?: Ended) => void
  ) {
    this.token = token
    this.#onToken = onToken
    this.#onState = onState
    onChange(({ type }) => {
      if (type === 'visibilitychange') return
      // a connection that is lost would be noticed much later; one that is not costs an attempt
      onNetwork?.(type === 'offline' ? new Ended('there is no network') : undefined)
      if (['connecting', 'offline'].includes(this.state)) this.become(unconnected())
    }, this.closed)
  }

  /** Aborted when it is closed. */
  get closed(): AbortSignal {
    return this.#closing.signal
  }

  become(state: State, why?: Why): void {
    if (this.closed.aborted || (this.state === state && !why)) return
    this.state = state
    this.#onState(state, why)
  }

  /** Something came: the token is good. */
  heard(): void {
    this.#isRenewed = false
  }

  /** Waits until it is time for another attempt; when there is no use in one, closes. */
  async comeBack({ message: reason, next, cause }: Ended): Promise<void> {
    const { floor = 0, delay = floor + this.backoff.next() } = next
    if (next.expired && (await this.#renew())) return
    if ((next.final || next.over) && !this.closed.aborted) {
      this.close(next.over ? 'ended' : 'closed')
      return this.#onState(this.state, { reason })
    }
    this.become(unconnected(), { reason, delay, cause })
    if (delay > 0) await pause(delay, this.closed, floor)
    this.become(unconnected())
  }

  close(state: 'ended' | 'closed' = 'closed'): void {
    this.state = state
    this.#closing.abort()
  }

  /** Whether there is another token. One that was of no use is not followed by a third. */
  async #renew(): Promise<boolean> {
    if (this.#isRenewed || !this.#onToken) return false
    this.#isRenewed = true
    try {
      this.token = await this.#onToken()
      return true
    } catch {
      return false
    }
  }
}

/** The server is cut off from its store since then, and says so, on a stream or a WebSocket. */
export function staleSince(since: number): Why {
  return { reason: 'the server is cut off from its store', since }
}

/** What `goodbye` means, on a stream or at the end of a WebSocket; `retry` in milliseconds, if the server says so. */
export function goodbye(reason: string, retry: number | undefined, next: Ended['next'] = {}): Ended {
  const wait = retry! > 0 ? retry : undefined
  return new Ended(`the server said goodbye (${reason})`, { ...next, floor: wait, delay: wait })
}

/** Why it is over. */
export function over(): Ended {
  return new Ended('all its topics have ended', { over: true })
}

/** Which of some topics have ended. Under a wildcard new ones may come. */
export class Ends {
  readonly #topics: readonly string[]
  readonly #ended = new Set<string>()

  constructor(topics: readonly string[]) {
    this.#topics = topics
  }

  /** Takes an event; says whether it is the last of all topics. */
  take({ topic, type }: RingsideEvent): boolean {
    if (type === 'end') this.#ended.add(topic)
    else this.#ended.delete(topic)
    return this.#topics.every(each => this.#ended.has(each))
  }
}

/** The address of something on the server; `base` is where the server is, absolute or as seen from the page. */
export function addressOf(path: string, base: string | URL = '/'): URL {
  const { document, location } = page
  try {
    return new URL(path, new URL(String(base).replace(/\/*$/, '/'), document?.baseURI ?? location?.href))
  } catch {
    throw new TypeError(`url: ${base} is no address here`)
  }
}

/** What an answer other than the one that was asked for means: most of 4xx is final, all else may pass. */
export async function refusal(response: Response): Promise<Ended> {
  const { status, headers } = response
  // what tells an EventSource not to come back (WHATWG HTML, section 9.2.3)
  if (status === 204) return over()
  const { detail } = (await response.json().catch(() => ({}))) as { detail?: string }
  const after = headers.get('retry-after') ?? ''
  return new Ended(detail ?? `the server answered ${status}`, {
    expired: status === 401,
    final: status >= 400 && status < 500 && ![408, 425, 429].includes(status),
    // seconds, or a date (RFC 9110, section 10.2.3), which is by the server's clock where that is known
    floor: Math.max(
      0,
      Number(after) * 1000 || Date.parse(after) - (Date.parse(headers.get('date') ?? '') || Date.now()) || 0
    )
  })
}

/** What was sent, with bytes as bytes. */
export function decoded<Sent extends { readonly data: unknown; readonly encoding?: string }>(
  sent: Sent
): Omit<Sent, 'encoding'> {
  const { encoding, ...rest } = sent
  if (encoding !== 'base64') return rest
  return { ...rest, data: Uint8Array.from(atob(sent.data as string), each => each.charCodeAt(0)) }
}

/** Calls back. What the callback throws is its owner's to see, and no reason to lose what comes after. */
export function call<Args extends unknown[]>(
  callback: ((...args: Args) => void) | undefined,
  ...args: Args
): void {
  try {
    callback?.(...args)
  } catch (error) {
    queueMicrotask(() => {
      throw error
    })
  }
}
