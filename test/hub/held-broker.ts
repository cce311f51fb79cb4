import { BrokerUnavailable } from '../../src/broker/broker.ts'
import type { Append, Appended, Broker, BrokerListener, Page, State } from '../../src/broker/broker.ts'
import { MemoryBroker } from '../../src/broker/memory.ts'
import { comparePositions, later, type Cursor, type Position } from '../../src/event.ts'
import { settled, type HeldClock } from '../support/clock.ts'

/** An event as the model remembers it. */
export interface Logged {
  readonly id: Position
  readonly topic: string
  readonly data: string
  readonly expires?: number
  /** Its topic's state from then on. */
  readonly value?: string | null | undefined
}

/**
 * The memory broker behind a network that does what the test says: its answers come when they are released, in any
 * order, its announcements come late, in their order, twice, or not at all, and it can be away.
 */
export class HeldBroker implements Broker {
  readonly shards = 1
  inner: MemoryBroker
  /** Every event that was ever stored, in the order of ids. */
  readonly log: Logged[] = []
  up = true
  lost: Cursor = [{ ms: 0, seq: 0 }]
  /** Whether the next question reaches the store at once and its answer is late, or the other way round. */
  askEarly = true
  /** The most events of one answer: fewer than was asked for is allowed. */
  pageLimit = Infinity
  /** How often each question was asked. */
  readonly asked = { range: 0, rewind: 0, subscribe: 0, position: 0, state: 0 }
  #listener!: BrokerListener
  readonly #answers: Answer[] = []
  #announced: ((listener: BrokerListener) => void)[] = []
  readonly #clock: HeldClock
  readonly #settings: { RING_SIZE: number; RING_TTL: number }
  readonly #subscribed = new Set<string>()
  #ticked: Position

  constructor(settings: { RING_SIZE: number; RING_TTL: number }, clock: HeldClock) {
    this.#clock = clock
    this.#settings = settings
    this.inner = new MemoryBroker(settings, clock)
    this.#ticked = this.inner.birth[0]!
  }

  get birth(): Cursor {
    return this.inner.birth
  }

  shardOf(): number {
    return 0
  }

  async start(listener: BrokerListener): Promise<void> {
    this.#listener = listener
    await this.#begin()
    listener.up(true)
  }

  #begin(): Promise<void> {
    return this.inner.start({
      event: event => this.#announce(to => to.event(event)),
      tick: position => {
        this.#ticked = position[0]!
        this.#announce(to => to.tick(position))
      },
      jump: position => this.#announce(to => to.jump(position)),
      gap: (reason, topics) => this.#announce(to => to.gap(reason, topics)),
      up: () => {}
    })
  }

  /** Stores as another instance would: also while this one's connection is away. */
  async append(events: readonly Append[]): Promise<Appended[]> {
    const appended = await this.inner.append(events)
    events.forEach(({ topic, data, ttl, state }, index) => {
      const result = appended[index]!
      if (result.outcome !== 'stored') return
      const expires = ttl === undefined ? {} : { expires: this.#clock.now() + ttl * 1000 }
      this.log.push({ id: result.id[0]!, topic, data: String(data), ...expires, value: state?.value })
    })
    return appended
  }

  range(filter: string, after: Cursor, limit: number): Promise<Page> {
    this.asked.range++
    return this.#hold(() => {
      // the store began anew since it was asked
      if (comparePositions(after[0]!, this.birth[0]!) < 0)
        return Promise.resolve({ events: [], end: after, gaps: new Map() })
      return this.inner.range(filter, after, Math.min(limit, this.pageLimit))
    })
  }

  rewind(filter: string, count: number): Promise<Map<string, Position>> {
    this.asked.rewind++
    return this.#hold(() => this.inner.rewind(filter, count))
  }

  subscribe(filter: string): Promise<Cursor> {
    this.asked.subscribe++
    return this.#hold(
      () => {
        this.#subscribed.add(filter)
        return this.inner.subscribe(filter)
      },
      () => this.unsubscribe(filter)
    )
  }

  unsubscribe(filter: string): void {
    this.#subscribed.delete(filter)
    this.inner.unsubscribe(filter)
  }

  position(): Promise<Cursor> {
    this.asked.position++
    return this.#hold(() => this.inner.position())
  }

  state(topic: string): Promise<State | null> {
    this.asked.state++
    return this.#hold(() => this.inner.state(topic))
  }

  topics(filter: string): Promise<string[]> {
    return this.inner.topics(filter)
  }

  close(): Promise<void> {
    return this.inner.close()
  }

  // --- what the network does ---

  /** The id given last, as the store knows it. */
  get last(): Position {
    return later(this.#ticked, this.log.at(-1)?.id ?? this.#ticked)
  }

  get answers(): number {
    return this.#answers.length
  }

  get announcements(): number {
    return this.#announced.length
  }

  /** Lets one answer through. */
  release(index: number): void {
    this.#answers.splice(index % Math.max(1, this.#answers.length), 1)[0]?.release()
  }

  /** Lets some announcements through; each twice, as from the channels of a topic and of its wildcard. */
  deliver(count: number, twice = false): void {
    for (const announcement of this.#announced.splice(0, count)) {
      announcement(this.#listener)
      if (twice) announcement(this.#listener)
    }
  }

  /** Everything that is on its way arrives, with all that follows from it. */
  async flow(): Promise<void> {
    await settled()
    do {
      this.deliver(Infinity)
      await this.#clock.turns()
      while (this.answers > 0) {
        this.release(0)
        await settled()
      }
    } while (this.announcements > 0)
    await this.#clock.turns()
  }

  /** What was announced and not let through is lost, and that is noticed. */
  cut(): void {
    this.#announced = []
    const position = [this.last]
    this.#announce(to => to.jump(position))
  }

  /** The store is emptied and begins a new life. The clock must have passed the last id. */
  async beginAnew(): Promise<void> {
    await this.inner.close()
    this.inner = new MemoryBroker(this.#settings, this.#clock)
    this.#ticked = this.birth[0]!
    await this.#begin()
    for (const filter of this.#subscribed) await this.inner.subscribe(filter)
  }

  /** Announces that events can't be had any more. */
  tellLost(topics: readonly string[]): void {
    this.#announce(to => to.gap('lost', topics))
  }

  /** The connection is lost, with all that was on its way. */
  down(): void {
    if (!this.up) return
    this.up = false
    this.#announced = []
    this.#listener.up(false)
    for (const { fail } of this.#answers.splice(0)) fail()
  }

  restore(): void {
    if (this.up) return
    this.up = true
    this.#listener.jump([this.last])
    this.#listener.up(true)
  }

  #announce(announcement: (listener: BrokerListener) => void): void {
    if (this.up) this.#announced.push(announcement)
  }

  #hold<T>(ask: () => Promise<T>, refused: () => void = () => {}): Promise<T> {
    const unavailable = () => {
      refused()
      return new BrokerUnavailable('away')
    }
    if (!this.up) return Promise.reject(unavailable())
    return new Promise((resolve, reject) => {
      const answer = this.askEarly ? ask() : undefined
      this.#answers.push({
        release: () => void (answer ?? ask()).then(resolve, reject),
        fail: () => reject(unavailable())
      })
    })
  }
}

interface Answer {
  release(): void
  fail(): void
}
