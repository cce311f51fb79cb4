import { stopIfGone, type Asker } from '../../asker.ts'
import type { Clock } from '../../clock.ts'
import { comparePositions, eventBytes, isWildcard, justBefore, later } from '../../event.ts'
import { textBytes } from '../../event.ts'
import type { Position, StoredEvent } from '../../event.ts'
import type { Memory, Reliever } from '../../memory.ts'
import { Ring } from '../../ring.ts'
import type { Rules, TopicRule } from '../../rules/rules.ts'
import { Turn } from '../../turn.ts'
import type { State } from '../event-log.ts'
import { Ages } from '../embedded/ages.ts'
import type { Found } from '../embedded/found.ts'
import { Families, Family } from '../embedded/families.ts'
import { Order } from '../embedded/order.ts'
import { TopicIndex } from '../embedded/topics.ts'

/** What a topic takes besides its name and its events, and a state besides its value, in bytes: measured. */
const TOPIC_BYTES = 350
const STATE_BYTES = 200

/** How many topics are looked at before it is asked whether the turn is over. */
const STEP = 1000

/** A topic that the log remembers. */
export class Topic {
  readonly name: string
  readonly family: LocalFamily
  readonly ring: Ring
  /** What holds for it, as of when the rules were asked last. */
  rule: TopicRule
  /**
   * The id of its last event, also when the ring has dropped that one. Before its first: where this life of the store
   * began, or up to where topics of its family have been forgotten, of which it may be one.
   */
  last: Position
  state: State | null = null

  constructor(name: string, family: LocalFamily, rule: TopicRule) {
    this.name = name
    this.family = family
    this.rule = rule
    this.last = family.forgotten
    this.ring = new Ring(Infinity, family.forgotten)
  }

  /** The id of the last event that its ring has dropped. */
  get base(): Position {
    return this.ring.base
  }
}

/** A family, with all events that are held of it. */
class LocalFamily extends Family<Topic> {
  readonly events = new Order(idOf)
}

/**
 * The events that are held, and what is remembered of their topics. What is dropped for want of room is dropped in the order
 * of the ids, whatever its topic; a ring that is full, or holds what is too old for its topic, drops its own oldest.
 */
export class LocalEvents implements Reliever {
  readonly #rules: Rules
  readonly #clock: Clock
  readonly #memory: Memory
  readonly #topics = new TopicIndex<Topic>()
  readonly #families: Families<Topic, LocalFamily>
  /** The topics that hold events, by their oldest. */
  readonly #holding = new Ages(firstOf)
  /** The topics whose state is not kept for ever, by their last event. */
  readonly #stated = new Ages(lastOf)
  /** The topics without state that hold no event any more, by their last one. */
  readonly #emptied = new Order(lastOf)
  /** Bytes of events, and of the topics that could be forgotten with them; what would be given back with those is more. */
  #spare = 0
  /** When it was last looked what is too old, in milliseconds since the epoch. */
  #expiredAt = NaN
  /** All events up to here were dropped, for their age or for want of room. */
  #droppedTo: Position

  constructor(rules: Rules, clock: Clock, memory: Memory, birth: Position) {
    this.#rules = rules
    this.#clock = clock
    this.#memory = memory
    this.#families = new Families((...own) => new LocalFamily(...own), memory, birth)
    this.#droppedTo = birth
    memory.onShortage(this)
    rules.onChange(() => this.#refile())
  }

  get(topic: string): Topic | undefined {
    return this.#topics.get(topic)
  }

  /** The topics that a filter covers. */
  *topics(filter: string): Generator<Topic> {
    for (const [, topic] of this.#topics.matching(filter)) yield topic
  }

  /** What it would take to remember the topics of these events, those that are not known, in bytes. */
  bytesOf(events: readonly { readonly topic: string }[]): number {
    const unknown = events.filter(({ topic }) => !this.#topics.get(topic))
    // most events are on topics that are known
    if (unknown.length === 0) return 0
    return this.#families.bytesOf(new Set(unknown.map(({ topic }) => topic)), topicBytes)
  }

  /** What a state takes, in bytes. */
  static stateBytes(state: Pick<State, 'value'> | null): number {
    return state ? STATE_BYTES + textBytes(state.value) : 0
  }

  // --- storing ---

  /** The topic of a name, which it makes where there is none. */
  topic(name: string): Topic {
    const known = this.#topics.get(name)
    if (known) return known
    const topic = new Topic(name, this.#families.join(name), this.#rules.of(name))
    this.#topics.set(name, topic)
    this.#count('topics', topicBytes(name))
    return topic
  }

  /** Adds an event, which comes after all others. */
  push(topic: Topic, event: StoredEvent): void {
    const { family, ring, rule } = topic
    while (ring.length >= rule.ring) this.#dropFirst(topic)
    // only one that holds events is where its oldest says
    const moves = ring.length === 0 || hasMortalState(topic)
    if (moves) this.#takeOut(topic)
    // one that is the last stays the last
    const isLast = family.newest.last === topic
    if (!isLast) family.newest.delete(topic)
    ring.push(event)
    topic.last = event.id
    if (!isLast) family.newest.append(topic)
    family.events.append(event)
    if (moves) this.#putIn(topic)
    this.#count('events', eventBytes(event))
  }

  /** Puts a topic where its age will be looked at. */
  #putIn(topic: Topic): void {
    const { ring, rule, state } = topic
    if (ring.length > 0) this.#holding.add(topic, rule.ttl)
    else if (!state) this.#emptied.add(topic)
    if (hasMortalState(topic)) this.#stated.add(topic, rule.stateTtl)
  }

  /** What `#putIn` has done; it must still be as it was then. */
  #takeOut(topic: Topic): void {
    const { ring, rule, state } = topic
    if (ring.length > 0) this.#holding.delete(topic, rule.ttl)
    else if (!state) this.#emptied.delete(topic)
    if (hasMortalState(topic)) this.#stated.delete(topic, rule.stateTtl)
  }

  /** Other rules hold. */
  #refile(): void {
    this.#expiredAt = NaN
    for (const [name, topic] of this.#topics.entries) {
      this.#takeOut(topic)
      topic.rule = this.#rules.of(name)
      this.#putIn(topic)
    }
  }

  setState(topic: Topic, state: State | null): void {
    const bytes = topicBytes(topic.name)
    this.#memory.add('states', LocalEvents.stateBytes(state) - LocalEvents.stateBytes(topic.state))
    // one that has a state is never forgotten
    if (state && !topic.state) this.#spare -= bytes
    if (!state && topic.state) this.#spare += bytes
    const moves = topic.ring.length === 0 || topic.rule.stateTtl !== Infinity
    if (moves) this.#takeOut(topic)
    topic.state = state
    if (moves) this.#putIn(topic)
  }

  /** Lets go of the events of a topic and of its state; the id of its last event, null where it is not known. */
  clear(name: string): Position | null {
    const topic = this.#topics.get(name)
    if (!topic) return null
    while (topic.ring.length > 0) this.#dropFirst(topic)
    if (topic.state) this.setState(topic, null)
    return topic.last
  }

  // --- reading ---

  /** The events after a position on the topics that a filter covers, at most `limit`, and what of them is gone. */
  range(filter: string, after: Position, limit: number): Found {
    const order = this.#orderOf(filter)
    const events = order ? order.after(after, limit) : []
    const end = events.length < limit ? null : events.at(-1)!.id
    const now = this.#clock.now()
    const fresh = events.filter(({ expires = Infinity }) => expires > now)
    return { events: fresh, end, gaps: this.#families.gaps(filter, this.#topics.get(filter), after) }
  }

  /** Of each topic that a filter covers its newest event, if it comes after a position; at most `limit` topics. */
  newest(filter: string, after: Position, limit: number): Found {
    const now = this.#clock.now()
    const topics = isWildcard(filter)
      ? (this.#families.get(filter)?.newest.after(after, limit) ?? [])
      : [...this.topics(filter)]
    const events = topics.flatMap(({ ring }) => ring.newest(after, now) ?? [])
    const end = topics.length < limit || !isWildcard(filter) ? null : topics.at(-1)!.last
    return { events: events.sort((a, b) => comparePositions(a.id, b.id)), end, gaps: new Map() }
  }

  #orderOf(filter: string): { after(position: Position, limit: number): StoredEvent[] } | undefined {
    return isWildcard(filter) ? this.#families.get(filter)?.events : this.#topics.get(filter)?.ring
  }

  /** For each topic that a filter covers: the position just before its `count`th last event that has not run out. */
  async rewind(filter: string, count: number, asker?: Asker): Promise<Map<string, Position>> {
    const starts = new Map<string, Position>()
    const turn = new Turn()
    const now = this.#clock.now()
    let looked = 0
    for (const { name, ring } of this.topics(filter)) {
      if (++looked % STEP === 0 && turn.isOver) {
        await turn.next()
        stopIfGone(asker)
      }
      const start = ring.before(count, now)
      if (start) starts.set(name, start)
    }
    return starts
  }

  // --- letting go ---

  /** Drops what is too old by now, of each topic by its rule: events, and states. */
  expire(): void {
    const now = this.#clock.now()
    // nothing is kept for less than a second
    if (now === this.#expiredAt) return
    this.#expiredAt = now
    let last: Position | undefined
    for (let old = this.#holding.tooOld(now); old; old = this.#holding.tooOld(now)) {
      const { item, ttl } = old
      const dropped = this.#dropBefore(item, now - ttl)
      last = last ? later(last, dropped) : dropped
    }
    if (last) this.#noteDropped(last)
    for (let old = this.#stated.tooOld(now); old; old = this.#stated.tooOld(now))
      this.setState(old.item, null)
  }

  /** Drops the events of a topic from before a time, of which there must be one; the position of the last. */
  #dropBefore(topic: Topic, ms: number): Position {
    let last = topic.ring.first!.id
    for (let { first } = topic.ring; first && first.id.ms < ms; { first } = topic.ring) {
      last = first.id
      this.#dropFirst(topic)
    }
    return last
  }

  /** All up to a position was dropped that is not held by a topic whose events are kept for longer. */
  #noteDropped(position: Position): void {
    const first = this.#holding.first?.ring.first
    const isHeld = first && comparePositions(first.id, position) < 0
    const upTo = isHeld ? justBefore({ id: first.id, prev: null }) : position
    this.#droppedTo = later(this.#droppedTo, upTo)
  }

  /** Forgets the topics that hold neither an event nor a state, and had their last event before a time. */
  forgetBefore(ms: number): void {
    for (let { first } = this.#emptied; first && first.last.ms < ms; { first } = this.#emptied)
      this.#forget(first)
  }

  get spare(): number {
    return this.#spare
  }

  /** Lets the oldest events go, and the topics that hold none any more: readers who may miss some are told a gap. */
  relieve(bytes: number): void {
    const enough = this.#memory.sum - bytes
    while (this.#memory.sum > enough) {
      const emptied = this.#emptied.first
      const oldest = this.#holding.first
      if (emptied) {
        this.#families.forget(emptied.family.wildcard, emptied.last)
        this.#forget(emptied)
      } else if (oldest) {
        this.#droppedTo = oldest.ring.first!.id
        this.#dropFirst(oldest)
      } else return
    }
  }

  /** No event is held any more up to here. */
  get droppedTo(): Position {
    return this.#droppedTo
  }

  /** Drops the oldest event of a topic. */
  #dropFirst(topic: Topic): void {
    const { family, ring } = topic
    const event = ring.first!
    const isLast = family.losses.last === topic
    if (!isLast) family.losses.delete(topic)
    this.#takeOut(topic)
    ring.shift()
    this.#putIn(topic)
    if (!isLast) family.losses.add(topic)
    family.events.delete(event)
    this.#count('events', -eventBytes(event))
    if (ring.length === 0) family.newest.delete(topic)
  }

  #forget(topic: Topic): void {
    const { family, name } = topic
    this.#emptied.delete(topic)
    this.#topics.delete(name)
    this.#families.leave(family, topic)
    this.#count('topics', -topicBytes(name))
  }

  /** Counts what could be let go again. */
  #count(kind: 'events' | 'topics', bytes: number): void {
    this.#memory.add(kind, bytes)
    this.#spare += bytes
  }
}

/** Whether a topic has a state that is not kept for ever. */
function hasMortalState({ rule, state }: Topic): boolean {
  return state !== null && rule.stateTtl !== Infinity
}

function topicBytes(name: string): number {
  return TOPIC_BYTES + textBytes(name)
}

function idOf({ id }: StoredEvent): Position {
  return id
}

function firstOf({ ring }: Topic): Position {
  return ring.first!.id
}

function lastOf({ last }: Topic): Position {
  return last
}
