import type {
  Append,
  Appended,
  EventLog,
  EventLogListener,
  Page,
  State,
  Subscribed
} from '../../src/broker/event-log.ts'
import { LocalLog } from '../../src/broker/local/log.ts'
import { Rules, type Rule, type RuleDefaults } from '../../src/rules/rules.ts'
import { BrokerUnavailable } from '../../src/broker/unavailable.ts'
import { comparePositions, isWildcard, later } from '../../src/event.ts'
import type { Cursor, Position, StoredEvent } from '../../src/event.ts'
import { Memory } from '../../src/memory.ts'
import { settled, type HeldClock } from '../support/clock.ts'

/** An event as the model remembers it. */
export interface Logged {
  readonly id: Position
  readonly shard: number
  readonly topic: string
  readonly data: string
  readonly expires?: number
  /** Its topic's state from then on. */
  readonly value?: string | null | undefined
}

/**
 * The embedded log behind a network that does what the test says: its answers come when they are released, in any
 * order, its announcements come late, twice, or not at all, in the order of their shard alone, and it can be away.
 * Several shards are as many logs.
 */
export class HeldLog implements EventLog {
  /** Every event that was ever stored, or only handed over, in the order of ids. */
  readonly stored: Logged[] = []
  up = true
  readonly heldAfter = null
  lost: Cursor
  /** Whether the next question reaches the store at once and its answer is late, or the other way round. */
  askEarly = true
  /** The most events of one answer: fewer than was asked for is allowed. */
  pageLimit = Infinity
  /** How often each question was asked. */
  readonly asked = { range: 0, rewind: 0, subscribe: 0, position: 0, state: 0 }
  #inner: LocalLog[]
  #listener!: EventLogListener
  readonly #answers: Answer[] = []
  /** What is on its way, for each shard. */
  readonly #announced: ((listener: EventLogListener) => void)[][]
  /** Up to where all was let through. */
  #position: Cursor
  readonly #clock: HeldClock
  readonly #settings: RuleDefaults
  readonly #rules: Rules
  readonly #subscribed = new Set<string>()
  #ticked: Cursor

  readonly #limit: number
  /** What each shard may hold is its own. */
  readonly #memories: Memory[]

  /** `memory`: what the store may hold of each shard, in bytes. */
  constructor(
    settings: RuleDefaults & { readonly rules?: readonly Rule[] },
    clock: HeldClock,
    shards = 1,
    memory = Infinity
  ) {
    this.#clock = clock
    this.#settings = settings
    this.#rules = new Rules(settings, settings.rules)
    this.#limit = memory
    this.#memories = Array.from({ length: shards }, () => new Memory(memory))
    this.#inner = this.#memories.map(memory => this.#logWith(memory))
    this.#announced = this.#inner.map(() => [])
    this.lost = this.#inner.map(() => ({ ms: 0, seq: 0 }))
    this.#position = this.#ticked = this.birth
  }

  #logWith(memory: Memory): LocalLog {
    return new LocalLog(this.#settings, this.#clock, memory, this.#rules)
  }

  get shards(): number {
    return this.#inner.length
  }

  get birth(): Cursor {
    return this.#inner.flatMap(({ birth }) => birth)
  }

  /** By the last letter: of the topics of a wildcard some are in one shard, some in another. */
  clear(topic: string): Promise<Position | null> {
    return this.#inner[this.shardOf(topic)]!.clear(topic)
  }

  shardOf(topic: string): number {
    return topic.charCodeAt(topic.length - 1) % this.shards
  }

  async start(listener: EventLogListener): Promise<void> {
    this.#listener = listener
    await this.#begin()
    listener.up(true)
  }

  async #begin(): Promise<void> {
    for (const [shard, inner] of this.#inner.entries()) {
      await inner.start({
        event: event => this.#announce(shard, event.id, to => to.event({ ...event, shard })),
        tick: ([position]) => {
          this.#ticked = this.#ticked.with(shard, position!)
          this.#announce(shard, position!, to => to.tick(this.#position))
        },
        jump: () => {},
        gap: () => {},
        up: () => {}
      })
    }
  }

  /** Stores as another instance would: also while this one's connection is away. */
  async append(events: readonly Append[]): Promise<Appended[]> {
    const appended: Appended[] = []
    for (const [shard, inner] of this.#inner.entries()) {
      const indices = [...events.keys()].filter(index => this.shardOf(events[index]!.topic) === shard)
      const results = await inner.append(indices.map(index => events[index]!))
      for (const [at, index] of indices.entries()) {
        const result = results[at]!
        appended[index] =
          'id' in result ? { ...result, id: this.#position.with(shard, result.id[0]!) } : result
        if (result.outcome === 'stored') this.#note(events[index]!, result.id[0]!, shard)
      }
    }
    return appended
  }

  #note({ topic, data, ttl, state }: Append, id: Position, shard: number): void {
    const isStored = !this.#rules.of(topic).ephemeral
    const expires = ttl === undefined ? {} : { expires: this.#clock.now() + ttl * 1000 }
    this.stored.push({
      id,
      shard,
      topic,
      data: String(data),
      ...(isStored ? expires : { expires: 0 }),
      value: state?.value
    })
  }

  range(filter: string, after: Cursor, limit: number): Promise<Page> {
    this.asked.range++
    return this.#hold(() => this.#pages('range', filter, after, limit))
  }

  async #pages(what: 'range' | 'newest', filter: string, after: Cursor, limit: number): Promise<Page> {
    const page = { events: [] as StoredEvent[], end: after, gaps: new Map<string, Position>() }
    for (const [shard, inner] of this.#inner.entries()) {
      const from = after[shard]!
      if (!isWildcard(filter) && this.shardOf(filter) !== shard) {
        // it has no topic there
        page.end = page.end.with(shard, FAR)
        continue
      }
      // the store began anew since it was asked
      if (comparePositions(from, this.birth[shard]!) < 0) continue
      const { events, end, gaps } = await inner[what](filter, [from], Math.min(limit, this.pageLimit))
      page.events.push(...events.map(event => ({ ...event, shard })))
      page.end = page.end.with(shard, end[0]!)
      for (const [topic, last] of gaps) page.gaps.set(topic, last)
    }
    return page
  }

  newest(filter: string, after: Cursor, limit: number): Promise<Page> {
    this.asked.range++
    return this.#hold(() => this.#pages('newest', filter, after, limit))
  }

  rewind(filter: string, count: number): Promise<Map<string, Position>> {
    this.asked.rewind++
    return this.#hold(async () => {
      const found = await Promise.all(this.#inner.map(inner => inner.rewind(filter, count)))
      return new Map(found.flatMap(starts => [...starts]))
    })
  }

  subscribe(filter: string): Promise<Subscribed> {
    this.asked.subscribe++
    return this.#hold(
      async () => {
        this.#subscribed.add(filter)
        const position = this.#position
        const begun = await Promise.all(this.#inner.map(inner => inner.subscribe(filter)))
        if (isWildcard(filter)) return { position: begun.flatMap(({ position }) => position), end: null }
        const shard = this.shardOf(filter)
        const {
          position: [own],
          end
        } = begun[shard]!
        return { position: position.with(shard, own!), end }
      },
      () => this.unsubscribe(filter)
    )
  }

  unsubscribe(filter: string): void {
    this.#subscribed.delete(filter)
    for (const inner of this.#inner) inner.unsubscribe(filter)
  }

  position(): Promise<Cursor> {
    this.asked.position++
    return this.#hold(async () => (await Promise.all(this.#inner.map(inner => inner.position()))).flat())
  }

  state(topic: string): Promise<State | null> {
    this.asked.state++
    return this.#hold(() => this.#inner[this.shardOf(topic)]!.state(topic))
  }

  async states(topics: readonly string[]): Promise<Map<string, State>> {
    return new Map(
      (await Promise.all(this.#inner.map(inner => inner.states(topics)))).flatMap(each => [...each])
    )
  }

  async versions(topics: readonly string[]): Promise<Map<string, Position>> {
    return new Map([...(await this.states(topics))].map(([topic, { version }]) => [topic, version]))
  }

  async topics(filter: string): Promise<string[]> {
    return (await Promise.all(this.#inner.map(inner => inner.topics(filter)))).flat()
  }

  close(): void {
    for (const inner of this.#inner) inner.close()
  }

  // --- what the network does ---

  /** The id given last, as the store knows it. */
  get last(): Cursor {
    return this.#ticked.map((ticked, shard) =>
      later(ticked, this.stored.findLast(event => event.shard === shard)?.id ?? ticked)
    )
  }

  get answers(): number {
    return this.#answers.length
  }

  get announcements(): number {
    return this.#announced.flat().length
  }

  /** Lets one answer through. */
  release(index: number): void {
    this.#answers.splice(index % Math.max(1, this.#answers.length), 1)[0]?.release()
  }

  /** One answer fails, and the connection stays: the log is not away. */
  refuse(index: number): void {
    this.#answers.splice(index % Math.max(1, this.#answers.length), 1)[0]?.fail()
  }

  /** Lets some announcements of a shard through, or `Infinity` of all; each twice, as from the channels of a topic and of its wildcard. */
  deliver(count: number, twice = false, shard = 0): void {
    const waiting = count === Infinity ? this.#announced : [this.#announced[shard]!]
    for (const announcement of waiting.flatMap(queue => queue.splice(0, count))) {
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
    for (const [shard, position] of this.last.entries()) {
      this.#announced[shard]!.splice(0)
      this.#announce(shard, position, to => to.jump(this.#position))
    }
  }

  /** Something else needs a part of the store's memory for a moment: its oldest events may have to go. */
  squeeze(part: number): void {
    for (const memory of this.#memories) squeeze(memory, part)
  }

  /** Whether the store let an event go to make room, or for its age. */
  hasDropped({ id, shard }: Pick<Logged, 'id' | 'shard'>): boolean {
    return comparePositions(id, this.#inner[shard]!.heldAfter[0]!) <= 0
  }

  /** The store is emptied and begins a new life. The clock must have passed the last id. */
  async beginAnew(): Promise<void> {
    this.close()
    this.#memories.splice(0, this.shards, ...this.#inner.map(() => new Memory(this.#limit)))
    this.#inner = this.#memories.map(memory => this.#logWith(memory))
    this.#ticked = this.birth
    await this.#begin()
    for (const filter of this.#subscribed) for (const inner of this.#inner) await inner.subscribe(filter)
  }

  /** Announces that events can't be had any more. */
  tellLost(topics: readonly string[]): void {
    this.#announced[0]!.push(to => to.gap('lost', topics))
  }

  /** The connection is lost, with all that was on its way. */
  down(): void {
    if (!this.up) return
    this.up = false
    for (const queue of this.#announced) queue.splice(0)
    this.#listener.up(false)
    for (const { fail } of this.#answers.splice(0)) fail()
  }

  restore(): void {
    if (this.up) return
    this.up = true
    this.#position = this.last
    this.#listener.jump(this.#position)
    this.#listener.up(true)
  }

  #announce(shard: number, position: Position, announcement: (listener: EventLogListener) => void): void {
    if (!this.up) return
    this.#announced[shard]!.push(listener => {
      this.#position = this.#position.with(shard, later(this.#position[shard]!, position))
      announcement(listener)
    })
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

/** Something needs a part of a memory for a moment. */
export function squeeze(memory: Memory, part: number): void {
  const bytes = part * memory.limit
  memory.add('bodies', bytes)
  memory.settle()
  memory.give('bodies', bytes)
}

/** Beyond every position. */
const FAR: Position = { ms: Number.MAX_SAFE_INTEGER, seq: 0 }

interface Answer {
  release(): void
  fail(): void
}
