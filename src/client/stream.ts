import { addressOf, Ended, decoded, pause, Reconnection, refusal } from './reconnect.ts'
import type { Gap, OnToken, RingsideEvent, State, Why } from './reconnect.ts'

/** What to subscribe to besides the topics, and how. Without `after`, `rewind` and `since` it starts from now. */
export interface StreamOptions {
  /** Where the server is: absolute, or as seen from the page. Default `/`. */
  readonly url?: string | URL | undefined
  /** First everything after this cursor: an event's `id`, or a `cursor` that was kept. */
  readonly after?: string | undefined
  /** First the last so many events of each topic; 0 to 1000. */
  readonly rewind?: number | undefined
  /** First everything since then: a duration (`10m`) or an ISO time. */
  readonly since?: string | undefined
  /** At most so many events a second of each topic, the newest; 0.1 to 100. */
  readonly rate?: number | undefined
  /**
   * Events of these types alone. An EventSource must know them beforehand: so it is used only where they are given
   * (and neither `token` nor `headers` is), and else a fetch.
   */
  readonly types?: readonly string[] | undefined
  /** A JWT, sent as `Authorization: Bearer`. */
  readonly token?: string | undefined
  /** Asked for another token when the server says that the last one is no longer good. */
  readonly onToken?: OnToken | undefined
  /** Headers of every request. */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** Whether cookies go along to another origin. Default false. */
  readonly withCredentials?: boolean | undefined
  /** A sign of life every so many seconds: after two and a half without any, the connection is dead. Default 15. */
  readonly heartbeat?: number | undefined
  /** How long a stream may give nothing, in milliseconds, before it is taken to be held back. Default 5000. */
  readonly patience?: number | undefined
  /** How long polls go on, in milliseconds, before a stream is tried again; twice as long each time. Default 60000. */
  readonly streamAgain?: number | undefined
}

/** Something that is told, and how far it brings whoever is told: from one cursor to another. */
export interface Step {
  readonly from: string | undefined
  readonly to: string | undefined
  readonly event?: RingsideEvent | undefined
  readonly gap?: Gap | undefined
}

/** Who is told. */
export interface Listener {
  /** In order; together the steps are everything after the first one's `from`. */
  step(step: Step): void
  state(state: State, why?: Why): void
}

/** A frame of the stream: `id` is undefined where it has none, `type` is `message` where it has none. */
type OnFrame = (type: string, data: string, id: string | undefined) => void

/** What the server itself says on a stream. */
const OWN_TYPES = ['cursor', 'gap', 'goodbye', 'heartbeat']

/** What is taken without another wish: see `StreamOptions`. */
const HEARTBEAT_S = 15
const PATIENCE_MS = 5000
const STREAM_AGAIN_MS = 60_000

/** How long a poll is held, in seconds: many proxies give up after 30. */
const WAIT_S = 25

/** How long a poll may take beyond that, in milliseconds. */
const ANSWER_MS = 10_000

/** The most events of a page. */
const LIMIT = 1000

/** The time between two polls, in milliseconds: what comes meanwhile is one page. */
const REST_MS = 100

/** The longest time between two attempts to stream again, in milliseconds. */
const STREAM_AGAIN_MAX_MS = 600_000

/** With nothing for so long, in milliseconds, what was missed has come. */
const QUIET_MS = 300

const LOST = 'the connection was lost'

/** One way to the server, over whatever gets through, always at its own cursor: an EventSource, a fetch, or polls. */
export class Stream {
  /** Everything up to here has been told; undefined until the server has said where the stream starts. */
  cursor: string | undefined
  readonly #topics: readonly string[]
  readonly #options: StreamOptions
  readonly #listener: Listener
  readonly #reconnection: Reconnection
  #attempt = new AbortController()
  /** When this attempt's first frame came. */
  #openedAt = Infinity
  #polls = false
  #again: Timer
  /** How often a stream that had begun fell silent, with no heartbeat between. */
  #silences = 0
  /** Whether an EventSource may have been refused: only a fetch shows the status. */
  #doubtful = false
  /** By how much this clock is ahead of the broker's, at the most; what is older than `#resumedAt` was missed. */
  #lead = Infinity
  #resumedAt = Infinity
  #quiet: Timer

  constructor(topics: readonly string[], options: StreamOptions, listener: Listener) {
    this.#topics = topics
    this.#options = options
    this.#listener = listener
    this.cursor = options.after || undefined
    this.#address() // a wrong `url` is told to the caller
    this.#reconnection = new Reconnection(
      options,
      (state, why) => listener.state(state, why),
      lost => {
        if (lost) this.#attempt.abort(lost)
        // another network may have no such proxy
        else if (this.#polls) this.#streamAgain(0)
      }
    )
    void this.#run()
  }

  get state(): State {
    return this.#reconnection.state
  }

  /** Ends it; nothing more is told. */
  close(): void {
    this.#reconnection.close()
    this.#attempt.abort()
    clearTimeout(this.#again)
  }

  async #run(): Promise<void> {
    const { backoff, closed } = this.#reconnection
    while (!closed.aborted) {
      const attempt = (this.#attempt = new AbortController())
      this.#openedAt = Infinity
      const why: unknown = await (this.#polls ? this.#poll(attempt) : this.#stream(attempt)).catch(
        (error: unknown) => (attempt.signal.aborted ? (attempt.signal.reason as unknown) : error)
      )
      backoff.worked(Date.now() - this.#openedAt)
      attempt.abort() // however it ended, nothing more comes of it
      clearTimeout(this.#quiet)
      const end = why instanceof Ended ? why : new Ended('the server does not answer')
      if (!this.#isHeldBack(end)) await this.#reconnection.comeBack(end)
      else {
        this.#polls = true
        this.#reconnection.become('connecting', { reason: end.message })
      }
    }
  }

  /** Whether streams are: one that had begun may also have died, the first time. */
  #isHeldBack({ next: { silent } }: Ended): boolean {
    if (silent !== 'at once' && !(silent && ++this.#silences > 1)) return false
    this.#silences = 0
    return true
  }

  // --- a stream ---

  async #stream(attempt: AbortController): Promise<void> {
    const { signal } = attempt
    const { patience = PATIENCE_MS, heartbeat = HEARTBEAT_S, types, token, headers } = this.#options
    const silent = (silent: 'at once' | 'later') =>
      attempt.abort(new Ended('nothing came through', { silent }))
    let timer = setTimeout(silent, patience, 'at once')
    const alive = () => {
      clearTimeout(timer)
      timer = setTimeout(silent, 2500 * heartbeat, 'later')
    }
    const onFrame: OnFrame = (type, data, id) => {
      if (signal.aborted) return
      this.#openedAt = Math.min(this.#openedAt, Date.now())
      this.#doubtful = false
      this.#reconnection.heard()
      this.#take(type, data, id)
    }
    this.#resumedAt = this.#lead < Infinity ? Date.now() - this.#lead : Infinity
    const address = this.#address({ heartbeat })
    try {
      if (!types || token || headers || this.#doubtful || !globalThis.EventSource) {
        const init = this.#init(signal, 'text/event-stream')
        await overFetch(address, init, onFrame, alive, ms => (this.#reconnection.backoff.base = ms))
      } else {
        this.#doubtful = true
        await overEventSource(address, this.#options, onFrame, alive, signal)
      }
    } finally {
      clearTimeout(timer)
    }
  }

  #take(type: string, data: string, id: string | undefined): void {
    const said = (data ? JSON.parse(data) : {}) as Said
    if (type === 'gap') this.#step({ gap: said })
    else if (type === 'heartbeat') {
      this.#silences = 0
      this.#step({ to: said.cursor })
      this.#reconnection.become('live')
    } else if (type === 'goodbye') {
      const { reason, retry } = said
      this.#attempt.abort(
        new Ended(`the server said goodbye (${reason})`, {
          expired: reason === 'expired',
          ...{ floor: retry, delay: retry }
        })
      )
    } else if (type === 'cursor') {
      const { rewind, since } = this.#options
      const isFresh = this.cursor === undefined && !rewind && !since
      this.#step({ to: id })
      this.#reconnection.become(isFresh ? 'live' : 'catching-up')
      this.#awaitQuiet()
    } else if (data) {
      this.#lead = Math.min(this.#lead, Date.now() - said.time)
      if (said.time >= this.#resumedAt) this.#reconnection.become('live')
      this.#awaitQuiet()
      this.#step({ to: id, event: said })
    } else this.#step({ to: id })
  }

  #awaitQuiet(): void {
    clearTimeout(this.#quiet)
    if (this.state === 'catching-up')
      this.#quiet = setTimeout(() => this.#reconnection.become('live'), QUIET_MS)
  }

  // --- polls ---

  async #poll(attempt: AbortController): Promise<void> {
    const { rate, streamAgain = STREAM_AGAIN_MS } = this.#options
    const { signal } = attempt
    // the first one is to show at once whether pages come through where streams do not
    let wait = 0
    try {
      for (;;) {
        const { events, cursor, gap, more } = await this.#page(attempt, wait)
        if (!this.#again) this.#streamAgain(streamAgain)
        this.#reconnection.backoff.worked(Infinity)
        this.#reconnection.heard()
        this.#reconnection.become('polling')
        if (gap) this.#step({ gap })
        for (const event of events) if (!signal.aborted) this.#step({ to: event.id, event })
        if (!signal.aborted) this.#step({ to: cursor })
        wait = more ? 0 : WAIT_S
        if (!more) await pause(rate ? 1000 / rate : REST_MS, signal)
        signal.throwIfAborted()
      }
    } finally {
      // neither do pages: then it isn't that streams are held back
      if (this.state !== 'polling') this.#stopPolling()
    }
  }

  async #page(attempt: AbortController, wait: number): Promise<Page> {
    const timer = setTimeout(
      () => attempt.abort(new Ended('the server does not answer')),
      1000 * wait + ANSWER_MS
    )
    try {
      const init = this.#init(attempt.signal, 'application/json')
      const response = await fetch(this.#address({ wait: wait || undefined, limit: LIMIT }), init)
      if (!isOf(response, 'application/json')) throw await refusal(response)
      const page = (await response.json()) as Page
      attempt.signal.throwIfAborted()
      return page
    } finally {
      clearTimeout(timer)
    }
  }

  /** Tries beside the polls whether a stream gives something by now; if so, it takes over where they are. */
  #streamAgain(ms: number): void {
    const { patience = PATIENCE_MS, streamAgain = STREAM_AGAIN_MS } = this.#options
    clearTimeout(this.#again)
    this.#again = setTimeout(() => {
      const attempt = new AbortController()
      const giveUp = () => attempt.abort()
      const timer = setTimeout(giveUp, patience)
      this.#reconnection.closed.addEventListener('abort', giveUp)
      let through = false
      void overFetch(this.#address(), this.#init(attempt.signal, 'text/event-stream'), () => {
        through = true
        giveUp()
      }).catch(() => {
        clearTimeout(timer)
        this.#reconnection.closed.removeEventListener('abort', giveUp)
        if (this.state === 'closed' || !this.#polls) return
        if (!through) return this.#streamAgain(Math.min(Math.max(2 * ms, streamAgain), STREAM_AGAIN_MAX_MS))
        this.#stopPolling()
        this.#attempt.abort(new Ended('streams come through again', { delay: 0 }))
      })
    }, ms)
  }

  #stopPolling(): void {
    clearTimeout(this.#again)
    this.#again = undefined
    this.#polls = false
  }

  // --- both ---

  #step({ to, gap, event }: Partial<Step>): void {
    const { types } = this.#options
    const from = this.cursor
    this.cursor = to || from
    const wanted = event && (types?.includes(event.type) ?? true)
    this.#listener.step({ from, to: this.cursor, gap, event: wanted ? decoded(event) : undefined })
  }

  #address(more: Record<string, unknown> = {}): URL {
    const { url, rate, rewind, since } = this.#options
    const address = addressOf('events', url)
    const start = this.cursor === undefined ? { rewind, since } : { after: this.cursor }
    for (const topic of this.#topics) address.searchParams.append('topic', topic)
    for (const [name, value] of Object.entries({ envelope: true, rate, ...start, ...more })) {
      if (value !== undefined) address.searchParams.append(name, String(value))
    }
    return address
  }

  #init(signal: AbortSignal, accept: string): RequestInit {
    const { headers, withCredentials } = this.#options
    const authorization = this.#reconnection.token && { authorization: `Bearer ${this.#reconnection.token}` }
    return {
      signal,
      headers: { accept, ...authorization, ...headers },
      credentials: withCredentials ? 'include' : 'same-origin',
      cache: 'no-store'
    }
  }
}

type Timer = ReturnType<typeof setTimeout> | undefined

/** The data of a frame: an event in its envelope, or what the server itself says. */
type Said = RingsideEvent & Gap & { readonly cursor?: string; readonly retry: number }

interface Page {
  readonly events: readonly RingsideEvent[]
  readonly cursor: string
  readonly gap: Gap | null
  readonly more: boolean
}

// --- the ways ---

/** Reads until the stream ends, which is a rejection, as is everything else. `onLife`: something came, whatever it is. */
async function overFetch(
  address: URL,
  init: RequestInit,
  onFrame: OnFrame,
  onLife?: () => void,
  onRetry?: (ms: number) => void
): Promise<never> {
  const response = await fetch(address, init)
  if (!isOf(response, 'text/event-stream')) throw await refusal(response)
  const parse = parser(onFrame, onRetry)
  const decoder = new TextDecoder()
  const reader = response.body!.getReader()
  for (;;) {
    const { done, value } = await reader.read()
    if (done) throw new Ended(LOST)
    onLife?.()
    parse(decoder.decode(value, { stream: true }))
    // a read after this would not always be ended by it
    init.signal?.throwIfAborted()
  }
}

/** The same over an EventSource, which is never left to come back by itself: it knows no backoff. */
function overEventSource(
  address: URL,
  { types = [], withCredentials = false }: StreamOptions,
  onFrame: OnFrame,
  onLife: () => void,
  signal: AbortSignal
): Promise<never> {
  return new Promise((_resolve, reject) => {
    const source = new EventSource(address, { withCredentials })
    const end = () => {
      source.close()
      reject(new Ended(LOST))
    }
    source.onerror = end
    signal.addEventListener('abort', end)
    for (const type of new Set([...OWN_TYPES, ...types])) {
      source.addEventListener(type, ({ data, lastEventId }: MessageEvent<string>) => {
        try {
          onLife()
          onFrame(type, data, lastEventId)
        } catch {
          end() // what can't be read is not passed over: it is asked for again
        }
      })
    }
  })
}

function isOf(response: Response, type: string): boolean {
  return response.status === 200 && (response.headers.get('content-type') ?? '').startsWith(type)
}

/** Reads text/event-stream (WHATWG HTML, section 9.2.6), piece by piece. */
export function parser(onFrame: OnFrame, onRetry?: (ms: number) => void): (text: string) => void {
  let rest = ''
  let type = ''
  let data = ''
  let id: string | undefined
  return text => {
    // a CR at the very end may be the first half of a CRLF
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/)
    rest = lines.pop()!
    for (const line of lines) {
      const [, name, value = ''] = /^([^:]*):? ?(.*)$/s.exec(line)!
      if (name === 'data') data += `${value}\n`
      else if (name === 'event') type = value
      else if (name === 'id' && !value.includes('\0')) id = value
      else if (name === 'retry' && /^\d+$/.test(value)) onRetry?.(Number(value))
      if (line) continue
      if (data || id !== undefined) onFrame(data ? type || 'message' : '', data.slice(0, -1), id)
      type = data = ''
      id = undefined
    }
  }
}
