import { comparePositions, END, wildcardOf, type Position, type StoredEvent } from '../../event.ts'
import { Positions, type TopicRecord } from './records.ts'
import type { Store } from './store.ts'
import type { Topics, TopicUsers } from './topics.ts'

/** The most heads that are kept while nothing is stored on their topics. */
const KEPT = 1000

/** The most ids of a topic's oldest events that a head keeps, and how many are read at a time. */
const IDS = 256

/** A topic as its next event will find it: what has been decided, of which the last may not be on disk yet. */
export interface Head {
  readonly name: string
  readonly events: Positions
  readonly family: Positions
  last: Position
  base: Position
  count: number
  bytes: number
  version: Position | null
  stateBytes: number
  /** Whether its last event is an `end`, held or not. */
  isEnded: boolean
  /** The ids of its oldest events that are held, the first of them always where there are any. */
  readonly ids: Position[]
  /** Whether these are all that are held. */
  isWhole: boolean
  /** How many events its ring holds, by the rule of when its next event was prepared. */
  ring: number
  /** How many groups under way may change it. */
  groups: number
}

/** The heads of the topics that events are being stored on, or were a moment ago. */
export class Heads implements TopicUsers {
  readonly #store: Store
  readonly #topics: Topics
  readonly #heads = new Map<string, Head>()

  constructor(store: Store, topics: Topics) {
    this.#store = store
    this.#topics = topics
    topics.usedBy(this)
  }

  /** Whether something is being stored on a topic. */
  isBusy(topic: string): boolean {
    return (this.#heads.get(topic)?.groups ?? 0) > 0
  }

  of(name: string): Head {
    const known = this.#heads.get(name)
    if (known) return known
    const topic = this.#topics.get(name)
    const beginning = this.#topics.beginningOf(name)
    const head: Head = {
      name,
      events: Positions.ofTopic(name),
      family: Positions.ofFamily(wildcardOf(name)),
      last: topic?.last ?? beginning,
      base: topic?.base ?? beginning,
      count: topic?.count ?? 0,
      bytes: topic?.bytes ?? 0,
      version: topic?.version ?? null,
      stateBytes: topic?.stateBytes ?? 0,
      isEnded: topic?.isEnded ?? false,
      ids: topic && topic.count > 0 ? [topic.first] : [],
      isWhole: (topic?.count ?? 0) <= 1,
      ring: Infinity,
      groups: 0
    }
    this.#heads.set(name, head)
    return head
  }

  /** Sees to it that a head has at least so many ids, or all. `settle` resolves once nothing is under way. */
  async fill(head: Head, count: number, settle: () => Promise<void>): Promise<void> {
    if (head.isWhole || head.ids.length >= count) return
    const limit = Math.max(IDS, count)
    if ((await this.#read(head, limit)) === limit) return
    // what is under way is not in the store yet
    await settle()
    while ((await this.#read(head, limit)) === limit);
    head.isWhole = true
  }

  async #read({ events, ids, base, last }: Head, limit: number): Promise<number> {
    const keys = await this.#store.keys(events.between(ids.at(-1) ?? base, last), limit)
    for (const key of keys) ids.push(Positions.in(key))
    return keys.length
  }

  /** An event has been added to a topic. */
  static add(head: Head, { id, type }: Pick<StoredEvent, 'id' | 'type'>, bytes: number): void {
    head.last = id
    head.isEnded = type === END
    head.count++
    head.bytes += bytes
    if (head.isWhole) head.ids.push(id)
  }

  /** Keeps no more ids of a head than are worth their memory. */
  static cut(head: Head): void {
    if (head.ids.length <= IDS || !head.isWhole) return
    head.ids.length = IDS
    head.isWhole = false
  }

  /** Takes the oldest event off a head, whose next one must be known, and says its id. */
  static drop(head: Head): Position {
    const id = head.ids.shift()!
    head.base = id
    head.bytes -= Math.round(head.bytes / head.count)
    head.count--
    return id
  }

  /** A topic has another state; null: none any more. */
  static setState(head: Head, value: string | null, version: Position): void {
    head.version = value === null ? null : version
    head.stateBytes = value === null ? 0 : Buffer.byteLength(value)
  }

  static record({ last, base, count, bytes, version, stateBytes, isEnded, ids }: Head): TopicRecord {
    return { last, first: ids[0] ?? last, base, count, bytes, version, stateBytes, isEnded }
  }

  /** Lets those go that were not used lately. */
  trim(): void {
    for (const [name, { groups }] of this.#heads) {
      if (this.#heads.size <= KEPT) return
      if (groups === 0) this.#heads.delete(name)
    }
  }

  delete(name: string): void {
    this.#heads.delete(name)
  }

  /** What was decided is not so: they are as the store is. */
  clear(): void {
    this.#heads.clear()
  }
}

/** Whether a topic has ended: the event that ended it is still held. */
export function hasEnded({ count, isEnded }: Pick<TopicRecord, 'count' | 'isEnded'>): boolean {
  return isEnded && count > 0
}

/** Whether a state has a version; null: whether there is none. */
export function isAt(version: Position | null, expected: Position | null): boolean {
  if (!version || !expected) return !version && !expected
  return comparePositions(version, expected) === 0
}
