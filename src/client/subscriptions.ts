import type { RingsideError } from './error.ts'
import type { Said, Sender } from './messages.ts'
import { call, decoded, Ends } from './reconnect.ts'
import type { Gap, RingsideEvent } from './reconnect.ts'
import type { OnMember } from './joins.ts'
import type { Lasting, Requests } from './requests.ts'

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
  /** It is over: the server has ended it (`forbidden`, for instance), or without an error all its topics have ended. */
  readonly onEnd?: ((error?: RingsideError) => void) | undefined
  readonly after?: string | undefined
  readonly rewind?: number | undefined
  readonly rate?: number | undefined
}

export interface Signal {
  readonly topic: string
  /** Who has sent it, as a member is named. */
  readonly from: Sender
  readonly data: unknown
}

export interface SocketSubscription {
  /** Everything up to here has arrived. Undefined until the start is known. */
  readonly cursor: string | undefined
  unsubscribe(): Promise<void>
}

/** What is subscribed to, whatever happens to the connection. */
interface Interest extends Lasting {
  readonly topics: readonly string[]
  readonly options: SocketOptions
  readonly ends: Ends
  cursor: string | undefined
  /** Where this connection's subscription starts; undefined until the server has said so. */
  start: string | undefined
  /** Whether the cursor was of no use: it is kept until the server has given another one, and the gap is told again. */
  isUnknown: boolean
}

/** The subscriptions of a connection. Each goes on at its cursor when the connection has come back. */
export class Subscriptions {
  readonly #requests: Requests
  readonly #interests = new Set<Interest>()

  constructor(requests: Requests) {
    this.#requests = requests
  }

  /** Resolves once the server has taken it. */
  async add(topics: readonly string[], options: SocketOptions): Promise<SocketSubscription> {
    const interest: Interest = {
      ...{ topics, options, settle: undefined, ends: new Ends(topics) },
      ...{ cursor: options.after || undefined, start: undefined, isUnknown: false }
    }
    await this.#requests.taken(interest, () => {
      this.#interests.add(interest)
      if (this.#requests.isConnected) this.#subscribe(interest)
    })
    return {
      get cursor() {
        return interest.cursor
      },
      unsubscribe: () => this.#giveUp(interest)
    }
  }

  async #giveUp(interest: Interest): Promise<void> {
    const { topics } = interest
    if (this.#interests.delete(interest)) await this.#requests.giveUp({ op: 'unsubscribe', topics })
  }

  /** There is a connection: asks for all of them. */
  begin(): void {
    for (const interest of this.#interests) this.#subscribe(interest)
  }

  /** The connection is lost. */
  lose(): void {
    for (const interest of this.#interests) interest.start = undefined
  }

  close(error: RingsideError): void {
    for (const { settle } of this.#interests) settle?.(error)
    this.#interests.clear()
  }

  #subscribe(interest: Interest): void {
    const { topics, options, cursor } = interest
    const start = cursor === undefined ? { rewind: options.rewind } : { after: cursor }
    interest.isUnknown = false
    this.#requests.request(
      { op: 'subscribe', topics, rate: options.rate, ...start },
      'here',
      said => {
        interest.start = said.cursor
        if (interest.isUnknown || interest.cursor === undefined) interest.cursor = said.cursor
        interest.settle?.()
        interest.settle = undefined
      },
      error => {
        if (!this.#interests.delete(interest)) return
        if (interest.settle) interest.settle(error)
        else call(options.onEnd, error)
      }
    )
  }

  // --- what the server says ---

  receiveEvent({ op: _op, ...event }: Said): void {
    for (const interest of this.#covering([event.topic])) {
      // what was on its way to a subscription that has been given up is not for the one that has taken its place
      if (interest.start === undefined) continue
      interest.cursor = event.id
      call(interest.options.onEvent, decoded(event))
      if (!interest.ends.take(event) || !this.#interests.has(interest)) continue
      void this.#giveUp(interest).catch(() => {})
      call(interest.options.onEnd)
    }
  }

  receiveGap({ reason, topics, after }: Said): void {
    for (const interest of this.#covering(topics)) {
      if (reason === 'unknown') {
        interest.isUnknown = true
        interest.cursor = interest.start ?? interest.cursor
      }
      call(interest.options.onGap, { reason, topics, after })
    }
  }

  /** A position of the connection's only subscription, or of the one that is named: a quiet one's cursor stays young. */
  receiveCursor({ topics, cursor }: Said): void {
    const interests = topics ? this.#covering(topics) : [...this.#interests]
    if (interests.length === 1 && interests[0]!.start !== undefined) interests[0]!.cursor = cursor
  }

  receiveSignal({ topic, from, data, encoding }: Said): void {
    const signal = decoded({ topic, from, data, ...(encoding && { encoding }) })
    for (const { options } of this.#covering([topic])) call(options.onSignal, signal)
  }

  /** Somebody has joined one of the topics, or left it. */
  receiveMember(change: 'onJoined' | 'onLeft', { member, topic }: Said): void {
    for (const { options } of this.#covering([topic])) call(options[change], member, topic)
  }

  #covering(topics: readonly string[]): Interest[] {
    return [...this.#interests].filter(interest =>
      topics.some(
        topic => interest.topics.includes(topic) || interest.topics.includes(topic.replace(/[^/]*$/, '*'))
      )
    )
  }
}
