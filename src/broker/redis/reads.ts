import { formatPosition, later, parsePosition, wildcardOf } from '../../event.ts'
import type { Position, StoredEvent } from '../../event.ts'
import type { State } from '../event-log.ts'
import type { ShardKeys } from './keys.ts'
import type { Life } from './life.ts'
import { emptied, unavailable } from './unavailable.ts'
import { readEntry, type RangeAnswer, type RangeEntry } from './wire.ts'

/** What reading asks of Redis: its commands, and the range script. Questions of one turn are answered in their order. */
export interface ReadStore {
  ringsideRangeBuffer(keys: number, ...args: string[]): Promise<RangeAnswer>
  hmget(key: string, ...fields: string[]): Promise<(string | null)[]>
  smembers(key: string): Promise<string[]>
  zrangebyscore(key: string, min: number, max: '+inf'): Promise<string[]>
  xrevrangeBuffer(key: string, end: '+', start: string, token: 'COUNT', count: number): Promise<RangeEntry[]>
}

export interface ReadsOptions {
  readonly shard: number
  readonly keys: ShardKeys
  readonly store: ReadStore
  readonly life: Life
  /** For how long events can be read, in milliseconds. */
  readonly ringTtl: number
  /** How far this instance has come. */
  readonly position: () => Position
}

/** What was read of some topics of a shard. */
export interface ShardRange {
  /** Complete up to here. */
  readonly through: Position
  readonly topics: readonly TopicRange[]
}

/** What was read of one topic. */
export interface TopicRange {
  readonly topic: string
  /** The id of its last event, whatever has become of that one; null when it never had one, as far as is known. */
  readonly last: Position | null
  /** The oldest first. */
  readonly events: StoredEvent[]
}

/** Reads what one shard holds. Everything here rejects with `BrokerUnavailable` alone. */
export class ShardReads {
  readonly #options: ReadsOptions

  constructor(options: ReadsOptions) {
    this.#options = options
  }

  /** The events after a position on topics of one wildcard, at most `limit` of each. */
  async range(topics: readonly string[], after: Position, limit: number): Promise<ShardRange> {
    const { keys, store } = this.#options
    const names = [keys.clock, keys.last(wildcardOf(topics[0]!)), ...topics.map(topic => keys.ring(topic))]
    const from = formatPosition(later(after, this.#horizon()))
    return asking(async () => {
      const answer = await store.ringsideRangeBuffer(names.length, ...names, from, String(limit), ...topics)
      return this.#readRange(answer, topics)
    })
  }

  #readRange([lastId, birth, lost, ...rest]: RangeAnswer, topics: readonly string[]): ShardRange {
    const through = parsePosition(lastId.toString())
    if (!through) throw emptied()
    this.#options.life.note(birth.toString(), lost.toString())
    const found = topics.map((topic, index) => {
      const last = rest[2 * index] as Buffer
      const entries = rest[2 * index + 1] as RangeEntry[]
      return {
        topic,
        last: parsePosition(last.toString()) ?? null,
        events: entries.map(entry => readEntry(entry, topic, this.#options.shard))
      }
    })
    return { through, topics: found }
  }

  /**
   * The topics of a wildcard that have had events after a position. `through` was the last id before they were looked up:
   * after it, a topic that is not among them may have begun.
   */
  async changed(wildcard: string, after: Position): Promise<{ through: Position; topics: string[] }> {
    const { keys, store } = this.#options
    return asking(async () => {
      const lastId = this.lastId()
      const names = store.zrangebyscore(keys.index(wildcard), after.ms, '+inf')
      const [through, topics] = await Promise.all([lastId, names])
      return { through, topics }
    })
  }

  /** The newest events of a topic, at most `count`, the oldest first. */
  async lastEvents(topic: string, count: number): Promise<StoredEvent[]> {
    const { keys, shard, store } = this.#options
    return asking(async () => {
      const from = formatPosition(this.#horizon())
      const entries = await store.xrevrangeBuffer(keys.ring(topic), '+', from, 'COUNT', count)
      return entries.map(entry => readEntry(entry, topic, shard)).reverse()
    })
  }

  /** The latest whole value of a topic; null when it has none. */
  async state(topic: string): Promise<State | null> {
    const { keys, store } = this.#options
    return asking(async () => {
      const [value, version] = await store.hmget(keys.state(topic), 'value', 'version')
      return value == null || version == null ? null : { value, version: parsePosition(version)! }
    })
  }

  /** The topics of a wildcard that have a state. */
  async states(wildcard: string): Promise<string[]> {
    const { keys, store } = this.#options
    return asking(() => store.smembers(keys.states(wildcard)))
  }

  /** The id that the shard gave last. */
  async lastId(): Promise<Position> {
    const { keys, life, store } = this.#options
    return asking(async () => {
      const [ms, seq, birth, lost] = await store.hmget(keys.clock, 'ms', 'seq', 'birth', 'lost')
      if (!ms || !birth) throw emptied()
      life.note(birth, lost ?? '')
      return { ms: Number(ms), seq: Number(seq) }
    })
  }

  /** Before this nothing is read: a ring goes away as a whole, and so may hold events that are too old. */
  #horizon(): Position {
    return { ms: Math.max(0, this.#options.position().ms - this.#options.ringTtl), seq: 0 }
  }
}

async function asking<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask()
  } catch (error) {
    throw unavailable(error)
  }
}
