import { addressOf, Ended, Ends, decoded, goodbye, over, pause } from './reconnect.ts'
import { Reconnection, staleSince } from './reconnect.ts'
import type { Gap, OnToken, RingsideEvent, State, Why } from './reconnect.ts'
import { checkTime, Timer } from './timer.ts'
import { overEventSource, overFetch, readText, type OnFrame } from './transports.ts'

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
  /** Resolves when it can take more; until then a fetch reads no further, and no page is asked for. */
  ready?(): Promise<unknown> | undefined
}

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

/**
 * By how much this clock is ahead of a server's broker, at the most, in milliseconds, by the server's address: what one
 * stream has learned, the next one knows.
 */
const leads = new Map<string, number>()

/** One way to the server, over whatever gets through, always at its own cursor: an EventSource, a fetch, or polls. */
export class Stream {
  /** Everything up to here has been told; undefined until the server has said where the stream starts. */
  cursor: string | undefined
  readonly #topics: readonly string[]
  readonly #options: StreamOptions
  readonly #listener: Listener
  readonly #parse: (json: string) => unknown
  readonly #reconnection: Reconnection
  readonly #ends: Ends
  #attempt = new AbortController()
  /** When this attempt's first frame came, by the clock that measures. */
  #openedAt = Infinity
  /** Whether the server has said where this attempt starts. */
  #isPlaced = false
  #polls = false
  readonly #again = new Timer()
  #looksAgain = false
  /** How often a stream that had begun fell silent, with no heartbeat between. */
  #silences = 0
  /** Whether an EventSource may have been refused: only a fetch shows the status. */
  #doubtful = false
  readonly #server: string
  /** By the clock that measures; what is older by the broker's was missed. */
  #resumedAt = Infinity
  readonly #quiet = new Timer()

  /** `parse` reads the JSON of a frame or a page; what it adds to an event is handed on with the event. */
  constructor(
    topics: readonly string[],
    options: StreamOptions,
    listener: Listener,
    parse: (json: string) => unknown = JSON.parse
  ) {
    this.#topics = topics
    this.#options = options
    this.#listener = listener
    this.#parse = parse
    this.#ends = new Ends(topics)
    this.cursor = options.after || undefined
    // what is wrong is told to the caller
    checkTime('heartbeat', options.heartbeat, 1)
    checkTime('patience', options.patience, 0)
    checkTime('streamAgain', options.streamAgain, 0)
    this.#server = addressFor(topics, options).origin
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
    this.#again.stop()
  }

  async #run(): Promise<void> {
    const { backoff, closed } = this.#reconnection
    while (!closed.aborted) {
      const attempt = (this.#attempt = new AbortController())
      this.#openedAt = Infinity
      this.#isPlaced = false
      const why: unknown = await (this.#polls ? this.#poll(attempt) : this.#stream(attempt)).catch(
        (error: unknown) => (attempt.signal.aborted ? (attempt.signal.reason as unknown) : error)
      )
      backoff.worked(performance.now() - this.#openedAt)
      attempt.abort() // however it ended, nothing more comes of it
      this.#quiet.stop()
      const end = why instanceof Ended ? why : new Ended('the server does not answer', {}, why)
      if (!this.#isHeldBack(end)) await this.#reconnection.comeBack(end)
      else {
        this.#polls = true
        this.#reconnection.become('connecting', { reason: end.message })
      }
    }
    this.#again.stop()
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
    const withCredentials = !!this.#options.withCredentials
    const silent = new Timer()
    const expect = (ms: number, silence: 'at once' | 'later') =>
      silent.start(ms, () => attempt.abort(new Ended('nothing came through', { silent: silence })))
    const alive = async () => {
      silent.stop()
      await this.#listener.ready?.()
      expect(2500 * heartbeat, 'later')
    }
    expect(patience, 'at once')
    const onFrame: OnFrame = (type, data, id) => {
      if (signal.aborted) return
      this.#openedAt = Math.min(this.#openedAt, performance.now())
      this.#doubtful = false
      this.#reconnection.heard()
      this.#take(type, data, id)
    }
    this.#resumedAt = performance.now() - (leads.get(this.#server) ?? -Infinity)
    const address = this.#address({ heartbeat })
    try {
      if (!types || token || headers || this.#doubtful || !globalThis.EventSource) {
        const init = this.#init(signal, 'text/event-stream')
        await overFetch(address, init, onFrame, alive, ms => (this.#reconnection.backoff.base = ms))
      } else {
        this.#doubtful = true
        await overEventSource(address, { types, withCredentials }, onFrame, alive, signal)
      }
    } finally {
      silent.stop()
    }
  }

  #take(type: string, data: string, id: string | undefined): void {
    const said = (data ? this.#parse(data) : {}) as Said
    if (type === 'gap') this.#step({ gap: said })
    else if (type === 'heartbeat') {
      this.#silences = 0
      this.#step({ to: said.cursor })
      this.#becomeLive()
    } else if (type === 'goodbye') {
      const { reason, retry } = said
      this.#attempt.abort(goodbye(reason, retry, { expired: reason === 'expired' }))
    } else if (type === 'stale') this.#reconnection.become('stale', staleSince(said.since))
    else if (type === 'cursor') {
      const { rewind, since } = this.#options
      const isFresh = this.cursor === undefined && !rewind && !since
      this.#step({ to: id })
      this.#positioned(isFresh)
    } else if (data) {
      const lead = performance.now() - said.time
      leads.set(this.#server, Math.min(lead, leads.get(this.#server) ?? lead))
      if (said.time >= this.#resumedAt) this.#becomeLive()
      this.#awaitQuiet()
      this.#step({ to: id, event: said })
    } else this.#step({ to: id })
  }

  /** The server has said where the stream stands: at its start, at the end of what was missed, or in quiet times. */
  #positioned(isFresh: boolean): void {
    if (!this.#isPlaced) this.#reconnection.become(isFresh ? 'live' : 'catching-up')
    else if (this.state === 'stale') this.#reconnection.become('live')
    this.#isPlaced = true
    this.#awaitQuiet()
  }

  /** Unless nothing new can come: a heartbeat comes all the same. */
  #becomeLive(): void {
    if (this.state !== 'stale') this.#reconnection.become('live')
  }

  #awaitQuiet(): void {
    if (this.state === 'catching-up') this.#quiet.start(QUIET_MS, () => this.#reconnection.become('live'))
  }

  // --- polls ---

  async #poll(attempt: AbortController): Promise<void> {
    const { rate, streamAgain = STREAM_AGAIN_MS } = this.#options
    const { signal } = attempt
    // the first one is to show at once whether pages come through where streams do not
    let wait = 0
    try {
      for (;;) {
        const { events, cursor, gap, more, ended } = await this.#page(attempt, wait)
        if (!this.#looksAgain) this.#streamAgain(streamAgain)
        this.#reconnection.backoff.worked(Infinity)
        this.#reconnection.heard()
        this.#reconnection.become('polling')
        if (gap) this.#step({ gap })
        for (const event of events) if (!signal.aborted) this.#step({ to: event.id, event })
        if (!signal.aborted) this.#step({ to: cursor })
        if (ended) throw over()
        await this.#listener.ready?.()
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
      const address = this.#address({ wait: wait || undefined, limit: LIMIT })
      let text = ''
      await readText(address, init, 'application/json', piece => (text += piece))
      return this.#parse(text) as Page
    } finally {
      clearTimeout(timer)
    }
  }

  /** Tries beside the polls whether a stream gives something by now; if so, it takes over where they are. */
  #streamAgain(ms: number): void {
    const { patience = PATIENCE_MS, streamAgain = STREAM_AGAIN_MS } = this.#options
    const { closed } = this.#reconnection
    this.#looksAgain = true
    this.#again.start(ms, () => {
      const attempt = new AbortController()
      const giveUp = () => attempt.abort()
      const { signal } = attempt
      const timer = new Timer()
      timer.start(patience, giveUp)
      closed.addEventListener('abort', giveUp, { signal })
      let through = false
      void overFetch(this.#address(), this.#init(signal, 'text/event-stream'), () => {
        through = true
        giveUp()
      }).catch(() => {
        timer.stop()
        giveUp() // the listener goes with it
        if (closed.aborted || !this.#polls) return
        const next = Math.max(streamAgain, REST_MS, Math.min(2 * ms, STREAM_AGAIN_MAX_MS))
        if (!through) return this.#streamAgain(next)
        this.#stopPolling()
        this.#attempt.abort(new Ended('streams come through again', { delay: 0 }))
      })
    })
  }

  #stopPolling(): void {
    this.#again.stop()
    this.#looksAgain = false
    this.#polls = false
  }

  // --- both ---

  #step({ to, gap, event }: Partial<Step>): void {
    const { types } = this.#options
    const from = this.cursor
    this.cursor = to || from
    const wanted = event && (types?.includes(event.type) ?? true)
    this.#listener.step({ from, to: this.cursor, gap, event: wanted ? decoded(event) : undefined })
    if (event && this.#ends.take(event)) this.#attempt.abort(over())
  }

  #address(more: Record<string, unknown> = {}): URL {
    const { rewind, since } = this.#options
    const start = this.cursor === undefined ? { rewind, since } : { after: this.cursor }
    return addressFor(this.#topics, this.#options, { ...start, ...more })
  }

  #init(signal: AbortSignal, accept: string): RequestInit {
    return initFor(this.#options, this.#reconnection.token, signal, accept)
  }
}

/** The data of a frame: an event in its envelope, or what the server itself says. */
type Said = RingsideEvent & Gap & { readonly cursor?: string; readonly retry: number; readonly since: number }

interface Page {
  readonly events: readonly RingsideEvent[]
  readonly cursor: string
  readonly gap: Gap | null
  readonly more: boolean
  readonly ended?: true
}

// --- what is asked for ---

function addressFor(
  topics: readonly string[],
  { url, rate }: StreamOptions,
  more: Record<string, unknown> = {}
): URL {
  const address = addressOf('events', url)
  for (const topic of topics) address.searchParams.append('topic', topic)
  for (const [name, value] of Object.entries({ envelope: true, rate, ...more })) {
    if (value !== undefined) address.searchParams.append(name, String(value))
  }
  return address
}

function initFor(
  { headers, withCredentials }: StreamOptions,
  token: string | undefined,
  signal: AbortSignal,
  accept: string
): RequestInit {
  // not returned as it is written: the types of Node.js have no `cache`, and would take it for a slip of the pen
  const init = {
    signal,
    headers: { accept, ...(token && { authorization: `Bearer ${token}` }), ...headers },
    credentials: withCredentials ? ('include' as const) : ('same-origin' as const),
    cache: 'no-store' as const
  }
  return init
}

/** Whether the server lets whoever asks read these topics. Rejects where it can't be reached. */
export async function mayRead(
  topics: readonly string[],
  options: StreamOptions,
  signal: AbortSignal
): Promise<boolean> {
  const init = initFor(options, options.token, signal, 'text/event-stream')
  // also 204: they have ended
  return (await fetch(addressFor(topics, options), { ...init, method: 'HEAD' })).ok
}
