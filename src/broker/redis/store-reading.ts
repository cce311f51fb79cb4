import type { Redis } from 'ioredis'
import { comparePositions, earlier, formatPosition, later, parsePosition, wildcardOf } from '../../event.ts'
import type { Position, StoredEvent } from '../../event.ts'
import { TransferFailed, type Line } from '../transfer.ts'
import type { ShardKeys } from './keys.ts'
import { ZERO } from './life.ts'
import { readEntry, type RangeEntry } from './wire.ts'

/** How many keys are looked for, topics asked for, and events of a topic read at a time: at first, and where it has more. */
const KEYS_A_SCAN = 1000
const TOPICS_A_CALL = 50
const FIRST_EVENTS = 20
const MORE_EVENTS = 100

/** What the clock is while a store is being filled: no instance can begin a life there. */
export const UNDER_WAY = 'an import is under way, or was broken off'

/** A connection to the server that has a store, and how things are called there. */
export interface Place {
  readonly redis: Redis
  readonly keys: ShardKeys
}

/** The keys that begin in some way, some at a time; one may come twice. */
export async function* keysFrom(redis: Redis, beginning: string): AsyncGenerator<string[]> {
  const pattern = `${beginning.replace(/[\\*?[\]]/g, '\\$&')}*`
  let cursor = '0'
  do {
    const [next, found] = await redis.scan(cursor, 'MATCH', pattern, 'COUNT', KEYS_A_SCAN)
    cursor = next
    if (found.length > 0) yield found
  } while (cursor !== '0')
}

/** A topic as it was at the time of the export, and the first of its events. */
interface TopicThen {
  readonly topic: string
  readonly last: Position
  readonly state: { readonly value: string; readonly version: Position } | null
  readonly events: readonly StoredEvent[]
}

/** Reads a store as it is at one time. */
export class StoreReading {
  readonly #redis: Redis
  readonly #keys: ShardKeys
  /** The time of the export: nothing that comes after it counts. */
  #then: Position = ZERO
  #lost: Position = ZERO

  constructor({ redis, keys }: Place) {
    this.#redis = redis
    this.#keys = keys
  }

  /** Returns up to where readers may have lost something. */
  async *lines(): AsyncGenerator<Line, Position> {
    yield await this.#head()
    for (const wildcard of await this.#families()) {
      const topics = await this.#topicsOf(wildcard)
      for (let from = 0; from < topics.length; from += TOPICS_A_CALL)
        for (const found of await this.#read(topics.slice(from, from + TOPICS_A_CALL)))
          yield* this.#topicLines(found)
    }
    yield* this.#keyLines()
    return this.#lost
  }

  async #head(): Promise<Line> {
    const { clock, prefix } = this.#keys
    if ((await this.#redis.type(clock)) === 'string') throw new TransferFailed(UNDER_WAY)
    const [ms, seq, begun, lost] = await this.#redis.hmget(clock, 'ms', 'seq', 'birth', 'lost')
    const birth = parsePosition(begun ?? '')
    if (!ms || !birth) throw new TransferFailed(`there is no store: no key ${prefix}clock`)
    this.#then = { ms: Number(ms), seq: Number(seq) }
    this.#lost = parsePosition(lost ?? '') ?? ZERO
    return { kind: 'head', birth, lost: this.#lost, position: this.#then }
  }

  /** The wildcards that have topics. */
  async #families(): Promise<Set<string>> {
    const kinds = [this.#keys.last(''), this.#keys.states('')]
    const families = new Set<string>()
    for (const kind of kinds)
      for await (const names of keysFrom(this.#redis, kind))
        for (const name of names) families.add(name.slice(kind.length))
    return families
  }

  async #topicsOf(wildcard: string): Promise<string[]> {
    const [known, withState] = await Promise.all([
      this.#redis.hkeys(this.#keys.last(wildcard)),
      this.#redis.smembers(this.#keys.states(wildcard))
    ])
    return [...new Set([...known, ...withState])].filter(topic => topic !== '')
  }

  /** Those of some topics that were there then. */
  async #read(topics: readonly string[]): Promise<TopicThen[]> {
    return (await Promise.all(topics.map(topic => this.#readTopic(topic)))).filter(each => each !== null)
  }

  async #readTopic(topic: string): Promise<TopicThen | null> {
    const [lastId, [value, versionId], events] = await Promise.all([
      this.#redis.hget(this.#keys.last(wildcardOf(topic)), topic),
      this.#redis.hmget(this.#keys.state(topic), 'value', 'version'),
      this.#events(topic, '-', FIRST_EVENTS)
    ])
    const version = parsePosition(versionId ?? '')
    // a topic of which nothing but the state is remembered
    const known = parsePosition(lastId ?? '') ?? version
    const last = known && (this.#isThen(known) ? known : await this.#lastThen(topic))
    if (!last) return null
    const state = version && value != null ? { value, version: this.#versionThen(version, last) } : null
    return { topic, last, state, events }
  }

  #isThen(position: Position): boolean {
    return comparePositions(position, this.#then) <= 0
  }

  /** The last event that a topic had then, where it has had others since; null where it had none. */
  async #lastThen(topic: string): Promise<Position | null> {
    const ring = this.#keys.ring(topic)
    const [[newest], [oldest]] = await Promise.all([
      this.#redis.xrevrange(ring, formatPosition(this.#then), '-', 'COUNT', 1),
      this.#redis.xrange(ring, '-', '+', 'COUNT', 1)
    ])
    if (newest) return parsePosition(newest[0])!
    const before = oldest?.[1][1]?.split(' ')[0]
    if (before === '-') return null
    // all that it had then is gone
    return earlier(parsePosition(before ?? '') ?? this.#then, this.#then)
  }

  #versionThen(version: Position, last: Position): Position {
    if (this.#isThen(version)) return version
    this.#lost = later(this.#lost, this.#then)
    return last
  }

  async #events(topic: string, from: string, limit: number): Promise<StoredEvent[]> {
    const end = formatPosition(this.#then)
    const entries = await this.#redis.xrangeBuffer(this.#keys.ring(topic), from, end, 'COUNT', limit)
    return (entries as RangeEntry[]).map(entry => readEntry(entry, topic, 0))
  }

  async *#topicLines({ topic, last, state, events }: TopicThen): AsyncGenerator<Line> {
    yield { kind: 'topic', topic, last }
    if (state) yield { kind: 'state', topic, state }
    let before: Position | null = null
    let asked = FIRST_EVENTS
    for (let some = events; some.length > 0;) {
      const first = some[0]!.prev
      if (before && (!first || comparePositions(first, before) !== 0)) throw torn(topic)
      for (const event of some) yield { kind: 'event', event }
      before = some.at(-1)!.id
      if (some.length < asked) break
      asked = MORE_EVENTS
      some = await this.#events(topic, `(${formatPosition(before)}`, asked)
    }
    if (before && comparePositions(before, last) !== 0) throw torn(topic)
  }

  async *#keyLines(): AsyncGenerator<Line> {
    const beginning = `${this.#keys.prefix}key:`
    for await (const names of keysFrom(this.#redis, beginning)) {
      const [[seconds, micros], values, left] = await Promise.all([
        this.#redis.time() as Promise<[number, number]>,
        this.#redis.mget(names),
        Promise.all(names.map(name => this.#redis.pttl(name)))
      ])
      const now = Number(seconds) * 1000 + Math.floor(Number(micros) / 1000)
      for (const [index, name] of names.entries()) {
        const [idText, print] = values[index]?.split(' ') ?? []
        const id = parsePosition(idText ?? '')
        if (!id || !print || !this.#isThen(id) || left[index]! < 0) continue
        const use = { id, print, until: now + left[index]! }
        yield { kind: 'key', hash: name.slice(beginning.length), use }
      }
    }
  }
}

function torn(topic: string): TransferFailed {
  return new TransferFailed(
    `events of topic ${topic} were dropped while it was read: try again, or stop the instances`
  )
}
