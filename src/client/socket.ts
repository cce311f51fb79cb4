import { addressOf, call, Ended, decoded, Reconnection, refusal } from './reconnect.ts'
import type { Gap, OnToken, RingsideEvent, State, Why } from './reconnect.ts'

export interface ConnectOptions {
  /** Where the server is: absolute, or as seen from the page. Default `/`. */
  readonly url?: string | URL | undefined
  /** A JWT. It goes into the address (`?token=`), because a page can give a WebSocket no headers. */
  readonly token?: string | undefined
  /** Asked for another token when the server says that the last one is no longer good. */
  readonly onToken?: OnToken | undefined
  /** `connecting`, `live`, `offline` or `closed`. Not called for `close()`. */
  readonly onState?: ((state: State, why?: Why) => void) | undefined
  /** A sign of life every so many seconds: after two and a half without any, the connection is dead. Default 15. */
  readonly heartbeat?: number | undefined
  /** The WebSocket to use where there is no global one, as in Node.js 20: that of the package `ws`, for instance. */
  readonly WebSocket?: (new (url: string, protocol: string) => object) | undefined
}

/** What a subscription on a connection may say. Without `after` and `rewind` it starts from now. */
export interface SocketOptions<Data = unknown> {
  /** Each event after the start, exactly once and in order. */
  readonly onEvent: (event: RingsideEvent<Data>) => void
  /** Events are missing; told before any later event of these topics. */
  readonly onGap?: ((gap: Gap) => void) | undefined
  /** What others send to those who listen to a topic now; it is never stored. */
  readonly onSignal?: ((signal: Signal) => void) | undefined
  /** Somebody has joined one of these topics, or tells other things of himself. */
  readonly onJoined?: OnMember | undefined
  readonly onLeft?: OnMember | undefined
  /** The server has ended it (`forbidden`, for instance). */
  readonly onEnd?: ((error: RingsideError) => void) | undefined
  readonly after?: string | undefined
  readonly rewind?: number | undefined
  readonly rate?: number | undefined
}

export interface Signal {
  readonly topic: string
  /** Who has sent it: the `sub` of a token, else the id of a connection. */
  readonly from: string
  readonly data: unknown
}

export interface SocketSubscription {
  /** Everything up to here has arrived. Undefined until the start is known. */
  readonly cursor: string | undefined
  unsubscribe(): Promise<void>
}

/** Somebody who has joined a topic. */
export interface Member {
  /** Of the connection: somebody with two of them is there twice. */
  readonly id: string
  /** Of its token; null without one. */
  readonly sub: string | null
  /** What it tells of itself. */
  readonly info: unknown
}

export type OnMember = (member: Member, topic: string) => void

export interface JoinOptions {
  /** What the others are told of this one. */
  readonly info?: unknown
  /** All who are there, this one included: at first, and anew after each reconnect. */
  readonly onMembers?: ((members: readonly Member[]) => void) | undefined
  readonly onJoined?: OnMember | undefined
  readonly onLeft?: OnMember | undefined
  /** The server did not let this one join again. */
  readonly onEnd?: ((error: RingsideError) => void) | undefined
}

export interface Membership {
  leave(): Promise<void>
}

export interface PublishOptions {
  readonly type?: string | undefined
  /** Makes it safe to send it again, for 10 minutes. Default: a random one. */
  readonly key?: string | undefined
}

/**
 * What could not be done. `code`: as the server says (`bad_request`, `forbidden`, `too_large`, `rate_limited`,
 * `unavailable`), or `closed`. A publish that is `unavailable` may have been stored: with the same `key` it is safe to
 * repeat it.
 */
export class RingsideError extends Error {
  override name = 'RingsideError'
  readonly code: string

  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

const PROTOCOL = 'ringside.v1.json'

/** How long opening a connection may take, in milliseconds. */
const OPEN_MS = 10_000

/** How many requests may be without an answer at a time: what has waited for a connection must not look like a flood. */
const WINDOW = 16

/** How many may wait for their turn. */
const WAITING = 1000

/** How long nothing is sent when the server says that it was too much, in milliseconds. */
const HOLD_MS = 1000

/** How long a publish may be sent again with its key, in milliseconds: the server remembers it for 10 minutes. */
const KEY_MS = 9 * 60_000

/** What the server may say, with all that any of it has. */
interface Said extends RingsideEvent, Gap {
  readonly op: string
  readonly ref?: number
  readonly topics: readonly string[]
  readonly cursor?: string
  readonly code: string
  readonly message: string
  readonly members: readonly Member[]
  readonly member: Member
  readonly from: string
  readonly encoding?: string
  readonly unread: number
}

interface Request {
  readonly text: string
  /** Whether it is sent again: `never`, for as long as this connection lives, or `always`. */
  readonly again: 'never' | 'here' | 'always'
  readonly done: (said: Said) => void
  readonly failed: (error: RingsideError) => void
  isSent: boolean
  /** When it was sent first, in milliseconds since the epoch; 0 for never. */
  since: number
}

/** What is subscribed to, whatever happens to the connection. */
interface Wish {
  readonly topics: readonly string[]
  readonly options: SocketOptions
  /** Until the server has taken it for the first time. */
  settle: Settle | undefined
  cursor: string | undefined
  /** Where this connection's subscription starts; undefined until the server has said so. */
  start: string | undefined
  /** Whether the cursor was of no use: it is kept until the server has given another one, and the gap is told again. */
  isUnknown: boolean
}

/** Where somebody is, whatever happens to the connection. */
interface Presence {
  readonly topic: string
  readonly options: JoinOptions
  settle: Settle | undefined
}

type Settle = (error?: RingsideError) => void

/**
 * A connection to `GET /ws`, for what needs two directions. It comes back by itself: subscriptions go on at their
 * cursor, who had joined joins again, and a publish without an answer is sent again with its key, so that it is stored
 * once.
 */
export class Connection {
  readonly #options: ConnectOptions
  readonly #reconnection: Reconnection
  /** In the order in which they are to be sent. */
  readonly #requests = new Map<number, Request>()
  readonly #wishes = new Set<Wish>()
  readonly #presences = new Map<string, Presence>()
  #socket: WebSocket | undefined
  /** Ends the attempt that is under way. */
  #end: (end: Ended) => void = () => {}
  #ref = 0
  /** How many requests may be without an answer; fewer once that was too much for the server. */
  #window = WINDOW
  /** Runs while nothing is to be sent, because it was too much. */
  #hold: ReturnType<typeof setTimeout> | undefined

  constructor(options: ConnectOptions) {
    this.#options = options
    if (!options.WebSocket && !globalThis.WebSocket) {
      throw new TypeError('WebSocket: there is none here; give one in the options')
    }
    addressOf('ws', options.url) // a wrong `url` is told to the caller
    this.#reconnection = new Reconnection(
      options,
      (state, why) => {
        if (state === 'closed') this.#rejectAll(new RingsideError('closed', why?.reason ?? ''))
        call(options.onState, state, why)
      },
      lost => lost && this.#end(lost)
    )
    void this.#run()
  }

  get state(): State {
    return this.#reconnection.state
  }

  /**
   * Subscribes to topics that no other subscription of this connection covers. Resolves once the server has taken it;
   * without a connection that is when there is one.
   */
  async subscribe<Data = unknown>(
    topics: string | readonly string[],
    options: SocketOptions<Data>
  ): Promise<SocketSubscription> {
    const wish: Wish = {
      ...{ topics: [topics].flat(), options: options as SocketOptions, settle: undefined },
      ...{ cursor: options.after || undefined, start: undefined, isUnknown: false }
    }
    await this.#taken(wish, () => {
      this.#wishes.add(wish)
      if (this.#socket) this.#subscribe(wish)
    })
    return {
      get cursor() {
        return wish.cursor
      },
      unsubscribe: async () => {
        if (this.#wishes.delete(wish)) await this.#giveUp({ op: 'unsubscribe', topics: wish.topics })
      }
    }
  }

  /** Publishes JSON; resolves with the event's id once it is stored. Sent again until it has an answer. */
  async publish(topic: string, data: unknown, options: PublishOptions = {}): Promise<string> {
    if (ArrayBuffer.isView(data)) throw new TypeError('data: bytes are no JSON; POST them')
    const { type, key = randomKey() } = options
    return (await this.#ask({ op: 'publish', topic, type, data, key }, 'always')).id
  }

  /** Tells those who listen to a topic now. Never stored, and not sent again. */
  async signal(topic: string, data: unknown): Promise<void> {
    await this.#ask({ op: 'signal', topic, data }, 'never')
  }

  /** Joins a topic until it leaves, whatever happens to the connection. Resolves once the server has taken it. */
  async join(topic: string, options: JoinOptions = {}): Promise<Membership> {
    if (this.#presences.has(topic)) throw new RingsideError('bad_request', `${topic}: has joined already`)
    const presence: Presence = { topic, options, settle: undefined }
    await this.#taken(presence, () => {
      this.#presences.set(topic, presence)
      if (this.#socket) this.#join(presence)
    })
    return {
      leave: async () => {
        if (this.#presences.get(topic) !== presence) return
        this.#presences.delete(topic)
        await this.#giveUp({ op: 'leave', topic })
      }
    }
  }

  /** Marks notifications of the token's user as read; resolves with how many are unread then. */
  async read(ids: readonly string[]): Promise<number> {
    return (await this.#ask({ op: 'read', ids }, 'always')).unread
  }

  async ping(): Promise<void> {
    await this.#ask({ op: 'ping' }, 'never')
  }

  /** Ends it. What has no answer yet is rejected; nothing is called back any more. */
  close(): void {
    this.#reconnection.close()
    this.#end(new Ended('closed'))
    this.#rejectAll(new RingsideError('closed', 'the connection was closed'))
  }

  // --- the connection ---

  async #run(): Promise<void> {
    const { closed } = this.#reconnection
    while (!closed.aborted) {
      const address = addressOf('ws', this.#options.url)
      const { token } = this.#reconnection
      if (token) address.searchParams.set('token', token)
      // a page may not open one to wherever it likes
      const failed = (error: Error) => ({ end: new Ended(error.message, { final: true }), isOpened: true })
      const { end, isOpened } = await this.#connect(address).catch(failed)
      this.#lose()
      const refused = isOpened || closed.aborted ? undefined : await refusalOf(address)
      if (!closed.aborted) await this.#reconnection.comeBack(refused ?? end)
    }
  }

  /** Resolves when the connection has ended, or could not be opened. */
  #connect(address: URL): Promise<{ end: Ended; isOpened: boolean }> {
    const { WebSocket = globalThis.WebSocket, heartbeat = 15 } = this.#options
    const { backoff } = this.#reconnection
    return new Promise(resolve => {
      const socket = new WebSocket(address.href.replace(/^http/, 'ws'), PROTOCOL) as WebSocket
      let openedAt = Infinity
      let pings: ReturnType<typeof setInterval> | undefined
      const end = (end: Ended) => {
        clearTimeout(silence)
        clearInterval(pings)
        this.#end = () => {}
        socket.onopen = socket.onmessage = socket.onclose = null
        socket.close()
        backoff.worked(Date.now() - openedAt)
        resolve({ end, isOpened: openedAt < Infinity })
      }
      const silent = () => end(new Ended('there was no sign of life'))
      let silence = setTimeout(silent, OPEN_MS)
      this.#end = end
      socket.onopen = () => {
        openedAt = Date.now()
        pings = setInterval(() => void this.ping().catch(() => {}), 1000 * heartbeat)
        this.#begin(socket)
      }
      socket.onmessage = ({ data }: MessageEvent<string>) => {
        clearTimeout(silence)
        silence = setTimeout(silent, 2500 * heartbeat)
        this.#reconnection.heard()
        let said: Said
        try {
          said = JSON.parse(data) as Said
        } catch {
          return end(new Ended('the server is not understood'))
        }
        this.#receive(said)
      }
      socket.onerror = () => {} // 'close' follows
      socket.onclose = ({ code, reason }) => end(this.#meaningOf(code, reason))
    })
  }

  #meaningOf(code: number, reason: string): Ended {
    if (code === 1009) {
      // it would be too big again: the biggest of those that have no answer
      const sent = [...this.#requests].filter(([, { isSent }]) => isSent)
      const [biggest] = sent.sort(([, one], [, other]) => other.text.length - one.text.length)
      if (biggest) this.#fail(biggest[0], new RingsideError('too_large', reason || 'the message is too big'))
    }
    const next = { expired: code === 4401, final: code === 4401 || code === 1008 }
    try {
      // what a stream is told by `goodbye`
      const { reason: why, retry } = JSON.parse(reason) as { reason: string; retry?: number }
      return new Ended(`the server said goodbye (${why})`, {
        ...next,
        ...(retry && { floor: retry, delay: retry })
      })
    } catch {
      return new Ended(reason || `the connection was lost (${code})`, next)
    }
  }

  #begin(socket: WebSocket): void {
    const waiting = [...this.#requests]
    this.#requests.clear()
    this.#window = WINDOW
    this.#socket = socket
    for (const wish of this.#wishes) this.#subscribe(wish)
    for (const presence of this.#presences.values()) this.#join(presence)
    for (const [ref, request] of waiting) this.#requests.set(ref, request)
    this.#send()
    // last, because whoever is told may ask for more
    this.#reconnection.become('live')
  }

  #lose(): void {
    this.#socket = undefined
    clearTimeout(this.#hold)
    this.#hold = undefined
    for (const wish of this.#wishes) wish.start = undefined
    for (const [ref, request] of this.#requests) {
      request.isSent = false
      if (request.again === 'here') this.#requests.delete(ref)
      if (request.again === 'never')
        this.#fail(ref, new RingsideError('unavailable', 'the connection was lost'))
    }
  }

  /** Resolves once a wish or a presence is taken. */
  #taken(what: Wish | Presence, begin: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.state === 'closed') throw new RingsideError('closed', 'the connection is closed')
      what.settle = error => (error ? reject(error) : resolve())
      begin()
    })
  }

  #subscribe(wish: Wish): void {
    const { topics, options, cursor } = wish
    const start = cursor === undefined ? { rewind: options.rewind } : { after: cursor }
    wish.isUnknown = false
    this.#request(
      { op: 'subscribe', topics, rate: options.rate, ...start },
      'here',
      said => {
        wish.start = said.cursor
        if (wish.isUnknown || wish.cursor === undefined) wish.cursor = said.cursor
        wish.settle?.()
        wish.settle = undefined
      },
      error => {
        if (!this.#wishes.delete(wish)) return
        if (wish.settle) wish.settle(error)
        else call(options.onEnd, error)
      }
    )
  }

  #join(presence: Presence): void {
    const { topic, options } = presence
    this.#request(
      { op: 'join', topic, info: options.info },
      'here',
      ({ members }) => {
        call(options.onMembers, members)
        presence.settle?.()
        presence.settle = undefined
      },
      error => {
        if (this.#presences.get(topic) === presence) this.#presences.delete(topic)
        if (presence.settle) presence.settle(error)
        else call(options.onEnd, error)
      }
    )
  }

  // --- requests ---

  #ask(message: object, again: Request['again']): Promise<Said> {
    return new Promise((resolve, reject) => this.#request(message, again, resolve, reject))
  }

  /** Asks for the end of something that ends with the connection as well. */
  #giveUp(message: object): Promise<void> {
    return new Promise((resolve, reject) => {
      const failed = (error: RingsideError) => (error.code === 'unavailable' ? resolve() : reject(error))
      this.#request(message, 'never', () => resolve(), failed)
    })
  }

  /** `done` is called in the turn of the answer: what comes right after it already belongs to what it has begun. */
  #request(message: object, again: Request['again'], done: Request['done'], failed: Request['failed']): void {
    const refuse = (code: string, why: string) => failed(new RingsideError(code, why))
    if (this.state === 'closed') return refuse('closed', 'the connection is closed')
    if (again === 'never' && !this.#socket) return refuse('unavailable', 'there is no connection')
    if (this.#requests.size >= WAITING) return refuse('unavailable', 'too much waits already')
    const ref = ++this.#ref
    const text = JSON.stringify({ ...message, ref })
    this.#requests.set(ref, { text, again, done, failed, isSent: false, since: 0 })
    this.#send()
  }

  /** Sends what waits, in its order, as far as it may. */
  #send(): void {
    if (!this.#socket || this.#hold) return
    let window = this.#window
    for (const [ref, request] of this.#requests) {
      if (window-- === 0) return
      if (request.isSent) continue
      if (request.since && Date.now() - request.since > KEY_MS) {
        this.#fail(ref, new RingsideError('unavailable', 'there was no answer in time'))
        continue
      }
      request.isSent = true
      request.since ||= Date.now()
      this.#socket.send(request.text)
    }
  }

  #fail(ref: number, error: RingsideError): void {
    const request = this.#requests.get(ref)
    this.#requests.delete(ref)
    request?.failed(error)
  }

  #rejectAll(error: RingsideError): void {
    for (const { settle } of [...this.#wishes, ...this.#presences.values()]) settle?.(error)
    this.#wishes.clear()
    this.#presences.clear()
    for (const ref of [...this.#requests.keys()]) this.#fail(ref, error)
    clearTimeout(this.#hold)
  }

  // --- what the server says ---

  #receive(said: Said): void {
    const { op, ref = 0, topic } = said
    const request = this.#requests.get(ref)
    if (op === 'event') this.#receiveEvent(said)
    else if (op === 'gap') this.#receiveGap(said)
    else if (op === 'cursor') this.#receiveCursor(said)
    else if (op === 'signal') {
      const { from, data, encoding } = said
      const signal = decoded({ topic, from, data, ...(encoding && { encoding }) })
      for (const { options } of this.#covering([topic])) call(options.onSignal, signal)
    } else if (op === 'joined' || op === 'left') {
      const change = op === 'left' ? 'onLeft' : 'onJoined'
      for (const { options } of this.#covering([topic])) call(options[change], said.member, topic)
      call(this.#presences.get(topic)?.options[change], said.member, topic)
    } else if (request && op === 'error') this.#refused(ref, request, said)
    else if (request) {
      this.#requests.delete(ref)
      request.done(said)
      this.#send()
    }
  }

  #receiveEvent({ op: _op, ...event }: Said): void {
    for (const wish of this.#covering([event.topic])) {
      // what was on its way to a subscription that has been given up is not for the one that has taken its place
      if (wish.start === undefined) continue
      wish.cursor = event.id
      call(wish.options.onEvent, decoded(event))
    }
  }

  #receiveGap({ reason, topics, after }: Said): void {
    for (const wish of this.#covering(topics)) {
      if (reason === 'unknown') {
        wish.isUnknown = true
        wish.cursor = wish.start ?? wish.cursor
      }
      call(wish.options.onGap, { reason, topics, after })
    }
  }

  /** A position of the connection's only subscription, or of the one that is named: a quiet one's cursor stays young. */
  #receiveCursor({ topics, cursor }: Said): void {
    const wishes = topics ? this.#covering(topics) : [...this.#wishes]
    if (wishes.length === 1 && wishes[0]!.start !== undefined) wishes[0]!.cursor = cursor
  }

  #refused(ref: number, request: Request, { code, message }: Said): void {
    if (request.again === 'never' || (code !== 'rate_limited' && code !== 'unavailable')) {
      this.#fail(ref, new RingsideError(code, message))
      return this.#send()
    }
    request.isSent = false
    if (this.#hold) return
    this.#window = Math.ceil(this.#window / 2)
    this.#hold = setTimeout(() => {
      this.#hold = undefined
      this.#send()
    }, HOLD_MS)
  }

  #covering(topics: readonly string[]): Wish[] {
    return [...this.#wishes].filter(wish =>
      topics.some(topic => wish.topics.includes(topic) || wish.topics.includes(topic.replace(/[^/]*$/, '*')))
    )
  }
}

/** Whether whoever may not be let in is told so: a WebSocket shows no status. */
async function refusalOf(address: URL): Promise<Ended | undefined> {
  try {
    const response = await fetch(address, { cache: 'no-store', signal: AbortSignal.timeout(OPEN_MS) })
    const refused = await refusal(response)
    // what is no upgrade has other statuses of its own
    return [401, 403, 429, 503].includes(response.status) ? refused : undefined
  } catch {
    return undefined
  }
}

/** Not `randomUUID`, which a page has over HTTPS alone. */
function randomKey(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))]
    .map(byte => byte.toString(16).padStart(2, '0'))
    .join('')
}

/** Opens the connection; see `Connection`. Throws a `TypeError` for a `url` that is none. */
export function connect(options: ConnectOptions = {}): Connection {
  return new Connection(options)
}
