import { stopIfGone, type Asker } from '../../asker.ts'
import type { Clock } from '../../clock.ts'
import { comparePositions, isWildcard, justBefore, later } from '../../event.ts'
import type { Position, StoredEvent } from '../../event.ts'
import { Turn } from '../../turn.ts'
import type { Found } from '../embedded/found.ts'
import type { State } from '../event-log.ts'
import { StoreDamaged } from './damaged.ts'
import { openEvent, openState, openText, Positions, printable, stateKey } from './records.ts'
import type { Store } from './store.ts'
import { floorOf, type Topic, type Topics } from './topics.ts'

/** How many topics are looked at at a time: one after the other they would wait for the disk in turn. */
const STEP = 100

/** Reads what the store holds. All of it rejects with `StoreDamaged` where that is not what was stored. */
export class Reads {
  readonly #store: Store
  readonly #topics: Topics
  readonly #clock: Clock

  constructor(store: Store, topics: Topics, clock: Clock) {
    this.#store = store
    this.#topics = topics
    this.#clock = clock
  }

  /** The events between two positions on the topics that a filter covers, at most `limit`, and what of them is gone. */
  async range(filter: string, after: Position, last: Position, limit: number): Promise<Found> {
    const { events, end } = isWildcard(filter)
      ? await this.#family(filter, after, last, limit)
      : await this.#topic(filter, after, last, limit)
    // in this order: what is dropped while it is read is told
    return { events: this.#fresh(events), end, gaps: this.#topics.gaps(filter, after) }
  }

  async #topic(name: string, after: Position, last: Position, limit: number): Promise<Omit<Found, 'gaps'>> {
    const topic = this.#topics.get(name)
    // an earlier life of a topic that was forgotten may still be on the disk
    const from = later(after, topic?.base ?? last)
    if (comparePositions(from, last) >= 0) return { events: [], end: null }
    const entries = await this.#store.entries(Positions.ofTopic(name).between(from, last), limit)
    const events = entries.map(([key, value]) => openEvent(key, value))
    return { events, end: events.length < limit ? null : events.at(-1)!.id }
  }

  async #family(
    wildcard: string,
    after: Position,
    last: Position,
    limit: number
  ): Promise<Omit<Found, 'gaps'>> {
    if (comparePositions(after, last) >= 0) return { events: [], end: null }
    const entries = await this.#store.entries(Positions.ofFamily(wildcard).between(after, last), limit)
    const prefix = wildcard.slice(0, -1)
    const places = entries.map(([key, value]) => ({
      id: Positions.in(key),
      topic: prefix + openText(key, value)
    }))
    const events = await this.#events(places)
    return { events, end: places.length < limit ? null : places.at(-1)!.id }
  }

  /** The events at some places, but for those that were dropped meanwhile. */
  async #events(places: readonly { id: Position; topic: string }[]): Promise<StoredEvent[]> {
    const keys = places.map(({ id, topic }) => Positions.ofTopic(topic).key(id))
    const values = await this.#store.getMany(keys)
    return places.flatMap(({ id, topic }, index) => {
      const value = values[index]
      const known = this.#topics.get(topic)
      // what was dropped meanwhile; and what was forgotten, which is taken out of the store a little later
      if (!known || comparePositions(id, known.base) <= 0) return []
      if (value) return [openEvent(keys[index]!, value)]
      throw new StoreDamaged(`the record ${printable(keys[index]!)} is missing`)
    })
  }

  #fresh(events: readonly StoredEvent[]): StoredEvent[] {
    const now = this.#clock.now()
    return events.filter(({ expires = Infinity }) => expires > now)
  }

  /** The events of a topic after a position, the newest first. */
  async #backwards(topic: Topic, after: Position, limit: number): Promise<StoredEvent[]> {
    const from = later(after, floorOf(topic, this.#clock.now()))
    if (comparePositions(from, topic.last) >= 0) return []
    const range = Positions.ofTopic(topic.name).between(from, topic.last)
    const entries = await this.#store.entries(range, limit, true)
    return entries.map(([key, value]) => openEvent(key, value))
  }

  /** Of each topic that a filter covers its newest event, if it comes after a position; at most `limit` topics. */
  async newest(filter: string, after: Position, limit: number): Promise<Found> {
    const topics = this.#topics.newest(filter, after, limit)
    const now = this.#clock.now()
    const held = topics.filter(topic => comparePositions(topic.last, floorOf(topic, now)) > 0)
    const last = await this.#events(held.map(topic => ({ id: topic.last, topic: topic.name })))
    const fresh = new Map(this.#fresh(last).map(event => [event.topic, event]))
    const newest = held.map(async topic => fresh.get(topic.name) ?? this.#newestOf(topic, after))
    const events = (await Promise.all(newest)).filter(event => event !== undefined)
    const end = topics.length < limit || !isWildcard(filter) ? null : topics.at(-1)!.last
    // where the newest has run out, an older one stands for it
    return { events: events.sort((a, b) => comparePositions(a.id, b.id)), end, gaps: new Map() }
  }

  /** The newest event of a topic after a position that has not run out. */
  async #newestOf(topic: Topic, after: Position): Promise<StoredEvent | undefined> {
    for (let limit = 16; ; limit *= 4) {
      const events = await this.#backwards(topic, after, limit)
      const [event] = this.#fresh(events)
      if (event || events.length < limit) return event
    }
  }

  /** For each topic that a filter covers: the position just before its `count`th last event that has not run out. */
  async rewind(filter: string, count: number, asker?: Asker): Promise<Map<string, Position>> {
    const starts = new Map<string, Position>()
    const turn = new Turn()
    let topics: Topic[] = []
    const look = async () => {
      const found = await Promise.all(topics.map(topic => this.#before(topic, count)))
      topics.forEach(({ name }, index) => found[index] && starts.set(name, found[index]))
      topics = []
      stopIfGone(asker)
    }
    for (const topic of [...this.#topics.matching(filter)]) {
      if (topic.count === 0) continue
      topics.push(topic)
      if (topics.length === STEP) await look()
      if (turn.isOver) await turn.next()
    }
    await look()
    return starts
  }

  /** The position just before the `count`th last event of a topic that has not run out, or before its first. */
  async #before(topic: Topic, count: number): Promise<Position | undefined> {
    for (let limit = count; ; limit *= 2) {
      const events = await this.#backwards(topic, topic.base, limit)
      const isAll = events.length < limit
      const first = this.#fresh(events)[count - 1] ?? (isAll ? events.at(-1) : undefined)
      if (first) return justBefore(first)
      if (isAll) return undefined
    }
  }

  async state(topic: string): Promise<State | null> {
    return (await this.states([topic])).get(topic) ?? null
  }

  async states(topics: readonly string[], asker?: Asker): Promise<Map<string, State>> {
    const states = new Map<string, State>()
    const now = this.#clock.now()
    const known = topics.filter(topic => this.#topics.versionOf(topic, now))
    for (let from = 0; from < known.length; from += STEP) {
      const part = known.slice(from, from + STEP)
      const keys = part.map(stateKey)
      const values = await this.#store.getMany(keys)
      stopIfGone(asker)
      for (const [index, topic] of part.entries()) {
        const value = values[index]
        if (value) states.set(topic, openState(keys[index]!, value))
      }
    }
    return states
  }
}
