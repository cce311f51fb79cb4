import { RingsideError } from './error.ts'
import { Joins, type JoinOptions, type Membership } from './joins.ts'
import type { Said } from './messages.ts'
import { checkOptions, type ConnectOptions, type PublishOptions } from './options.ts'
import { addressOf, call, Ended, goodbye, Reconnection, refusal, staleSince } from './reconnect.ts'
import type { State } from './reconnect.ts'
import { Requests } from './requests.ts'
import { Subscriptions, type SocketOptions, type SocketSubscription } from './subscriptions.ts'
import { Timer } from './timer.ts'

const PROTOCOL = 'ringside.v1.json'

/** How long opening a connection may take, in milliseconds. */
const OPEN_MS = 10_000

/** How often it is tried to open the first connection where only a WebSocket does not come through. */
const FIRST_ATTEMPTS = 3

/**
 * A connection to `GET /ws`, for what needs two directions. It comes back by itself: subscriptions go on at their
 * cursor, who had joined joins again, and a publish without an answer is sent again with its key, so that it is stored
 * once.
 */
export class Connection {
  readonly #options: ConnectOptions
  readonly #reconnection: Reconnection
  readonly #requests = new Requests()
  readonly #subscriptions = new Subscriptions(this.#requests)
  readonly #joins = new Joins(this.#requests)
  /** Ends the attempt that is under way. */
  #end: (end: Ended) => void = () => {}

  constructor(options: ConnectOptions) {
    this.#options = options
    if (!options.WebSocket && !globalThis.WebSocket) {
      throw new TypeError('WebSocket: there is none here; give one in the options')
    }
    checkOptions(options)
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
    return this.#subscriptions.add([topics].flat(), options as SocketOptions)
  }

  /** Publishes JSON; resolves with the event's id once it is stored. Sent again until it has an answer. */
  async publish(topic: string, data: unknown, options: PublishOptions = {}): Promise<string> {
    if (ArrayBuffer.isView(data)) throw new TypeError('data: bytes are no JSON; POST them')
    const { type, key = randomKey() } = options
    return (await this.#requests.ask({ op: 'publish', topic, type, data, key }, 'always')).id
  }

  /** Tells those who listen to a topic now. Never stored, and not sent again. */
  async signal(topic: string, data: unknown): Promise<void> {
    await this.#requests.ask({ op: 'signal', topic, data }, 'never')
  }

  /** Joins a topic until it leaves, whatever happens to the connection. Resolves once the server has taken it. */
  async join(topic: string, options: JoinOptions = {}): Promise<Membership> {
    return this.#joins.add(topic, options)
  }

  /** Marks notifications of the token's user as read; resolves with how many are unread then. */
  async read(ids: readonly string[]): Promise<number> {
    return (await this.#requests.ask({ op: 'read', ids }, 'always')).unread
  }

  async ping(): Promise<void> {
    await this.#requests.ask({ op: 'ping' }, 'never')
  }

  /** Ends it. What has no answer yet is rejected; nothing is called back any more. */
  close(): void {
    this.#reconnection.close()
    this.#end(new Ended('closed'))
    this.#rejectAll(new RingsideError('closed', 'the connection was closed'))
  }

  #rejectAll(error: RingsideError): void {
    this.#subscriptions.close(error)
    this.#joins.close(error)
    this.#requests.close(error)
  }

  // --- the connection ---

  async #run(): Promise<void> {
    const { closed } = this.#reconnection
    let attempts = FIRST_ATTEMPTS
    while (!closed.aborted) {
      const address = addressOf('ws', this.#options.url)
      const { token } = this.#reconnection
      if (token) address.searchParams.set('token', token)
      // a page may not open one to wherever it likes
      const failed = (error: Error) => ({ end: new Ended(error.message, { final: true }), isOpened: true })
      const { end, isOpened } = await this.#connect(address).catch(failed)
      this.#lose()
      if (isOpened) attempts = Infinity
      const refused = isOpened || closed.aborted ? undefined : await refusalOf(address, () => --attempts <= 0)
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
      const [pings, silence] = [new Timer(), new Timer()]
      const end = (end: Ended) => {
        silence.stop()
        pings.stop()
        this.#end = () => {}
        socket.onopen = socket.onmessage = socket.onclose = null
        socket.close()
        backoff.worked(performance.now() - openedAt)
        resolve({ end, isOpened: openedAt < Infinity })
      }
      const expect = (ms: number) => silence.start(ms, () => end(new Ended('there was no sign of life')))
      const ping = () => {
        void this.ping().catch(() => {})
        pings.start(1000 * heartbeat, ping)
      }
      expect(OPEN_MS)
      this.#end = end
      socket.onopen = () => {
        openedAt = performance.now()
        pings.start(1000 * heartbeat, ping)
        this.#begin(socket)
      }
      socket.onmessage = ({ data }: MessageEvent<string>) => {
        expect(2500 * heartbeat)
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
    if (code === 1009) this.#requests.failBiggest(reason || 'the message is too big')
    const next = { expired: code === 4401, final: code === 4401 || code === 1008 }
    try {
      // what a stream is told by `goodbye`
      const { reason: why, retry } = JSON.parse(reason) as { reason: string; retry?: number }
      return goodbye(why, retry, next)
    } catch {
      return new Ended(reason || `the connection was lost (${code})`, next)
    }
  }

  #begin(socket: WebSocket): void {
    this.#requests.begin(socket, () => {
      this.#subscriptions.begin()
      this.#joins.begin()
    })
    // last, because whoever is told may ask for more
    this.#reconnection.become('live')
  }

  #lose(): void {
    this.#subscriptions.lose()
    this.#requests.lose()
  }

  #receive(said: Said): void {
    const { op } = said
    if (op === 'event') this.#subscriptions.receiveEvent(said)
    else if (op === 'gap') this.#subscriptions.receiveGap(said)
    else if (op === 'stale') this.#reconnection.become('stale', staleSince(said.since))
    else if (op === 'cursor') {
      this.#subscriptions.receiveCursor(said)
      this.#reconnection.become('live')
    } else if (op === 'signal') this.#subscriptions.receiveSignal(said)
    else if (op === 'joined' || op === 'left') {
      const change = op === 'left' ? 'onLeft' : 'onJoined'
      this.#subscriptions.receiveMember(change, said)
      this.#joins.receiveMember(change, said)
    } else this.#requests.receive(said)
  }
}

/**
 * Why no WebSocket could be opened, which itself shows no status: a fetch of the same address asks. Undefined where that
 * tells nothing. `isFinal` is asked when nothing is there, and when all is well but for the WebSocket: then it is refused
 * for its Origin, most probably. In both cases the server of a proxy may have been away for a moment.
 */
async function refusalOf(address: URL, isFinal: () => boolean): Promise<Ended | undefined> {
  const signal = AbortSignal.timeout(OPEN_MS)
  const ask = (mode: RequestMode) => fetch(address, { cache: 'no-store', mode, signal })
  const unopened = () => new Ended(whyUnopened(), { final: isFinal() })
  try {
    const response = await ask('cors')
    const refused = await refusal(response)
    // what is no upgrade has other statuses of its own
    if (response.status === 426) return unopened()
    // most probably the address is wrong
    if (response.status === 404) return new Ended(refused.message, { final: isFinal() })
    return [401, 403, 429, 503].includes(response.status) ? refused : undefined
  } catch {
    // an answer that a page may not read, or none
    return ask('no-cors').then(unopened, () => undefined)
  }
}

function whyUnopened(): string {
  const origin = globalThis.location?.origin
  const why = origin ? `Origin ${origin} is refused (403: it is not in CORS_ORIGIN)` : 'it is refused (403)'
  return `the server answers, but opens no WebSocket: ${why}, or a proxy passes none on`
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
