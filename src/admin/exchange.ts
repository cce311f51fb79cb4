import type { Roster } from '../broker/roster.ts'
import type { Clock, Timer } from '../clock.ts'
import type { Signal } from '../event.ts'
import type { Presence, Room } from '../hub/presence.ts'
import { EXCHANGE } from './topics.ts'

/** How long instances may take to answer, in milliseconds: then it is said which have not. */
const DEADLINE_MS = 2000

/** How long until it is tried again to join the others, in milliseconds. */
const REJOIN_MS = 500

/** The longest message, in characters: the parts of answers are bounded, so that none is longer. */
const MOST_TEXT = 4 * 1024 * 1024

/** The most questions of an instance that are under way. */
const MOST_ASKED = 100

/** What an instance is called among all that share the store. */
export interface InstanceName {
  /** Of this life of its process alone. */
  readonly id: string
  readonly host: string
  readonly pid: number
}

/** What the instances have answered. */
export interface Asked<T> {
  readonly answers: readonly { readonly instance: InstanceName; readonly value: T }[]
  /** Those that are there, and have not answered in time. */
  readonly unanswered: readonly InstanceName[]
}

/** What an instance answers and hears. */
export interface Listener {
  /** Resolves with what is answered, as it goes through JSON. */
  answer(question: unknown): Promise<unknown>
  /** Another instance says something that nobody answers. */
  hear(news: unknown): void
}

export interface ExchangeOptions {
  readonly name: InstanceName
  readonly roster: Pick<Roster, 'join' | 'leave' | 'members' | 'signal'>
  readonly presence: Pick<Presence, 'hold' | 'release'>
  readonly clock: Clock
  readonly listener: Listener
}

/** What goes from one instance to another. */
type Message =
  | { readonly kind: 'ask'; readonly number: number; readonly question: unknown }
  | { readonly kind: 'answer'; readonly number: number; readonly value: unknown }
  | { readonly kind: 'news'; readonly news: unknown }

/**
 * How the instances of a hub ask each other. All of them are members of one topic of the operator's, so that each knows
 * which others there are, also those that hang; and they ask and answer by signals on it, which are never stored. An answer
 * goes to a topic of whoever has asked.
 */
export class Exchange {
  readonly #options: ExchangeOptions
  readonly #pending = new Map<number, Pending>()
  #rooms: readonly Room[] = []
  #numbers = 0
  #rejoining: Timer | undefined

  constructor(options: ExchangeOptions) {
    this.#options = options
  }

  /** Joins the others; where the store is away, as soon as it is back. */
  start(): void {
    void this.#join()
  }

  /** Leaves them. */
  close(): void {
    this.#rejoining?.cancel()
    void this.#options.roster.leave(EXCHANGE, this.#options.name.id)
    this.#leaveRooms()
  }

  async #join(): Promise<void> {
    const { name, presence, roster, clock } = this.#options
    try {
      this.#rooms = [EXCHANGE, ownTopic(name.id)].map(topic => presence.hold(topic))
      await Promise.all(this.#rooms.map(({ ready }) => ready))
      for (const { ears } of this.#rooms) ears.add(this.#receive)
      await roster.join(EXCHANGE, { id: name.id, sub: null, info: JSON.stringify(name) })
    } catch {
      this.#leaveRooms()
      this.#rejoining = clock.after(REJOIN_MS, () => void this.#join())
    }
  }

  #leaveRooms(): void {
    for (const room of this.#rooms) {
      room.ears.delete(this.#receive)
      this.#options.presence.release(room)
    }
    this.#rooms = []
  }

  /** All instances that are known to be there: this one, and those that share the store. */
  instances(): InstanceName[] {
    const { name, roster } = this.#options
    const names = roster.members(EXCHANGE).map(({ info }) => JSON.parse(info ?? '{}') as InstanceName)
    return [name, ...names.filter(({ id }) => id !== name.id)]
  }

  /** Asks all instances, or only one. Never rejects: who can't be reached has not answered. */
  async ask<T>(question: unknown, only?: string): Promise<Asked<T>> {
    const { name, listener } = this.#options
    const asked = this.instances().filter(({ id }) => only === undefined || id === only)
    const others = asked.filter(({ id }) => id !== name.id)
    const own = others.length < asked.length ? listener.answer(question) : null
    const answers = others.length > 0 ? await this.#askOthers(question, others, only) : new Map()
    const answered = own ? [{ instance: name, value: (await own) as T }] : []
    for (const instance of others) {
      if (answers.has(instance.id)) answered.push({ instance, value: answers.get(instance.id) as T })
    }
    return { answers: answered, unanswered: others.filter(({ id }) => !answers.has(id)) }
  }

  #askOthers(
    question: unknown,
    others: readonly InstanceName[],
    only: string | undefined
  ): Promise<Map<string, unknown>> {
    const { clock } = this.#options
    const number = ++this.#numbers
    const answers = new Map<string, unknown>()
    if (this.#pending.size >= MOST_ASKED) return Promise.resolve(answers)
    return new Promise(resolve => {
      const settle = () => {
        deadline.cancel()
        this.#pending.delete(number)
        resolve(answers)
      }
      const deadline = clock.after(DEADLINE_MS, settle)
      this.#pending.set(number, { answers, left: new Set(others.map(({ id }) => id)), settle })
      const topic = only === undefined ? EXCHANGE : ownTopic(only)
      this.#send(topic, { kind: 'ask', number, question }).catch(settle)
    })
  }

  /** Says something to all other instances. Where it can't, it is not said. */
  tell(news: unknown): void {
    if (this.instances().length > 1) this.#send(EXCHANGE, { kind: 'news', news }).catch(() => {})
  }

  async #send(topic: string, message: Message): Promise<void> {
    const { name, roster } = this.#options
    await roster.signal({ topic, sender: name.id, from: null, data: JSON.stringify(message) })
  }

  // --- what comes from others ---

  readonly #receive = ({ sender, data }: Signal): void => {
    const { name, listener } = this.#options
    const message = sender === name.id ? null : readMessage(data)
    if (!message) return
    if (message.kind === 'ask') void this.#answer(sender, message.number, message.question)
    else if (message.kind === 'news') listener.hear(message.news)
    else this.#take(sender, message.number, message.value)
  }

  async #answer(sender: string, number: number, question: unknown): Promise<void> {
    try {
      const value = await this.#options.listener.answer(question)
      await this.#send(ownTopic(sender), { kind: 'answer', number, value })
    } catch {
      // who has asked says that there was no answer
    }
  }

  #take(sender: string, number: number, value: unknown): void {
    const pending = this.#pending.get(number)
    if (!pending?.left.delete(sender)) return
    pending.answers.set(sender, value)
    if (pending.left.size === 0) pending.settle()
  }
}

interface Pending {
  readonly answers: Map<string, unknown>
  /** Who has not answered yet. */
  readonly left: Set<string>
  settle(): void
}

/** What another instance has sent; null where that can't be read. */
function readMessage(data: Signal['data']): Message | null {
  if (typeof data !== 'string' || data.length > MOST_TEXT) return null
  try {
    return JSON.parse(data) as Message
  } catch {
    return null
  }
}

/** Where an instance hears what is for it alone. */
function ownTopic(id: string): string {
  return `${EXCHANGE}/${id}`
}
