import { Unwanted, type Asker } from '../../asker.ts'
import { comparePositions, formatPosition, isWildcard, justBefore, later } from '../../event.ts'
import { parsePosition, wildcardOf } from '../../event.ts'
import type { Position, StoredEvent } from '../../event.ts'
import type { Rules } from '../../rules/rules.ts'
import type { State } from '../event-log.ts'
import type { ShardKeys } from './keys.ts'
import type { Life } from './life.ts'
import { emptied, unavailable } from './unavailable.ts'
import { readEntry, type RangeAnswer, type RangeEntry } from './wire.ts'

/** How many topics go into one call that looks at each. */
const TOPICS_A_CALL = 500

/** After how many entries a call that looks at rings ends, and after how many bytes one that reads states. */
const ENTRIES_A_CALL = 1000
const BYTES_A_CALL = 1_048_576

/** What reading asks of Redis: its commands and scripts. Questions of one turn are answered in their order. */
export interface ReadStore {
  ringsidePageBuffer(clock: string, last: string, order: string, ...args: string[]): Promise<RangeAnswer>
  ringsideNewestBuffer(clock: string, index: string, ...args: string[]): Promise<RangeAnswer>
  ringsideRewind(keys: number, ...args: string[]): Promise<string[]>
  ringsideStates(keys: number, ...args: string[]): Promise<string[]>
  ringsideRangeBuffer(keys: number, ...args: string[]): Promise<RangeAnswer>
  hmget(key: string, ...fields: string[]): Promise<(string | null)[]>
  smembers(key: string): Promise<string[]>
  zrangebyscore(key: string, min: number, max: '+inf'): Promise<string[]>
}

export interface ReadsOptions {
  readonly shard: number
  readonly keys: ShardKeys
  readonly store: StoppableStore
  readonly life: Life
  /** For how long events can be read. */
  readonly rules: Pick<Rules, 'of' | 'over'>
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
  /**
   * Where it has no events: the id of its last one, which is gone. Null when it never had one, as far as is known. A page
   * of a family knows of those up to its end.
   */
  readonly last: Position | null
  /** The oldest first. */
  readonly events: StoredEvent[]
}

/** A store that asks what is wanted. */
export interface StoppableStore extends ReadStore {
  /** The same, which asks nothing more once whoever asks has gone: that rejects with `Unwanted`. */
  until(asker: Asker): StoppableStore
}

/** Reads what one shard holds. Everything here rejects with `BrokerUnavailable` alone. */
export class ShardReads {
  readonly #options: ReadsOptions

  constructor(options: ReadsOptions) {
    this.#options = options
  }

  /** The same for one who asks: once that one has gone nothing more is read, and it rejects with `Unwanted`. */
  until(asker: Asker | undefined): ShardReads {
    return asker ? new ShardReads({ ...this.#options, store: this.#options.store.until(asker) }) : this
  }

  /** The events after a position on topics of one wildcard, at most `limit` of each. */
  async range(topics: readonly string[], after: Position, limit: number): Promise<ShardRange> {
    const { keys, store } = this.#options
    const names = [keys.clock, keys.last(wildcardOf(topics[0]!)), ...topics.map(topic => keys.ring(topic))]
    const each = topics.flatMap(topic => [topic, formatPosition(later(after, this.#horizonOf(topic)))])
    return asking(async () => {
      const answer = await store.ringsideRangeBuffer(names.length, ...names, String(limit), ...each)
      return this.#readRange(answer, topics)
    })
  }

  #readRange([lastId, birth, lost, ...rest]: RangeAnswer, topics: readonly string[]): ShardRange {
    const through = this.#noteClock(lastId, birth, lost)
    const found = topics.map((topic, index) =>
      this.#topicRange(topic, rest[2 * index] as Buffer, rest[2 * index + 1] as RangeEntry[])
    )
    return { through, topics: found }
  }

  /**
   * The first events after a position on all topics of a wildcard, at most `limit` of them, by the order of the family.
   * Null where that order may lack some: an older version has stored events, or it was trimmed.
   */
  async page(wildcard: string, after: Position, limit: number): Promise<ShardRange | null> {
    const { keys, store } = this.#options
    const from = formatPosition(later(after, this.#horizonOver(wildcard)))
    const names = [keys.clock, keys.last(wildcard), keys.order(wildcard)] as const
    return asking(async () =>
      this.#readPage(await store.ringsidePageBuffer(...names, keys.ring(''), from, String(limit)))
    )
  }

  /**
   * The newest event of each topic of a filter, where it comes after a position: of about `limit` topics, those first whose
   * newest came first. No topic has its newest between the position and `through` but these.
   */
  async newest(filter: string, after: Position, limit: number): Promise<ShardRange> {
    const { keys, store } = this.#options
    const horizon = this.#horizonOver(filter)
    const [wildcard, topic] = isWildcard(filter) ? [filter, ''] : [wildcardOf(filter), filter]
    const args = [formatPosition(later(after, horizon)), formatPosition(horizon), String(limit), topic]
    return asking(async () => {
      const answer = await store.ringsideNewestBuffer(
        keys.clock,
        keys.index(wildcard),
        keys.ring(''),
        ...args
      )
      return this.#readPage(answer)!
    })
  }

  #readPage([lastId, birth, lost, complete, ...rest]: RangeAnswer): ShardRange | null {
    this.#noteClock(lastId, birth, lost)
    const through = parsePosition(complete!.toString())
    if (!through) return null
    const topics = Array.from({ length: rest.length / 3 }, (_, index) => {
      const [topic, reached, entries] = rest.slice(3 * index) as [Buffer, Buffer, RangeEntry[]]
      return this.#young(this.#topicRange(topic.toString(), reached, entries))
    })
    return { through, topics }
  }

  #topicRange(topic: string, last: Buffer, entries: readonly RangeEntry[]): TopicRange {
    const events = entries.map(entry => readEntry(entry, topic, this.#options.shard))
    return { topic, last: parsePosition(last.toString()) ?? null, events }
  }

  /** Where others of its wildcard are kept for longer, what was read of a topic may be too old for it. */
  #young(range: TopicRange): TopicRange {
    const horizon = this.#horizonOf(range.topic)
    const events = range.events.filter(({ id }) => comparePositions(id, horizon) >= 0)
    const last = events.length > 0 ? range.last : (range.events.at(-1)?.id ?? range.last)
    return { topic: range.topic, last, events }
  }

  /** Takes what an answer says of the store; the id given last. */
  #noteClock(lastId: Buffer, birth: Buffer, lost: Buffer): Position {
    const given = parsePosition(lastId.toString())
    if (!given) throw emptied()
    this.#options.life.note(birth.toString(), lost.toString())
    return given
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

  /**
   * For each topic that has events: the position just before its `count`th last one, or before its first. `now`: by then an
   * event has not run out that counts, in milliseconds since the epoch.
   */
  async rewind(topics: readonly string[], count: number, now: number): Promise<Map<string, Position>> {
    const { keys, store } = this.#options
    const args = [String(count), String(ENTRIES_A_CALL), String(now)]
    const starts = new Map<string, Position>()
    await inCalls(topics, async some => {
      const rings = some.map(topic => keys.ring(topic))
      const horizons = some.map(topic => formatPosition(this.#horizonOf(topic)))
      const firsts = await store.ringsideRewind(some.length, ...rings, ...args, ...horizons)
      firsts.forEach((first, index) => {
        const [id, prev] = first.split(' ').map(parsePosition)
        if (id) starts.set(some[index]!, justBefore({ id, prev: prev ?? null }))
      })
      return firsts.length
    })
    return starts
  }

  /** The states of those topics that have one. */
  async states(topics: readonly string[]): Promise<Map<string, State>> {
    return this.#states(topics, 'value')
  }

  /** The versions of the states of those topics that have one. */
  async versions(topics: readonly string[]): Promise<Map<string, Position>> {
    const states = await this.#states(topics, '')
    return new Map([...states].map(([topic, { version }]) => [topic, version]))
  }

  async #states(topics: readonly string[], what: 'value' | ''): Promise<Map<string, State>> {
    const { keys, store } = this.#options
    const states = new Map<string, State>()
    await inCalls(topics, async some => {
      const names = some.map(topic => keys.state(topic))
      const answer = await store.ringsideStates(names.length, ...names, what, String(BYTES_A_CALL))
      for (let index = 0; index < answer.length; index += 2) {
        const version = parsePosition(answer[index]!)
        if (version) states.set(some[index / 2]!, { value: answer[index + 1]!, version })
      }
      return answer.length / 2
    })
    return states
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
  async withState(wildcard: string): Promise<string[]> {
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

  /** The id of the event that has ended a topic, and can still be read; null where none has. */
  async end(topic: string): Promise<Position | null> {
    const { keys, store } = this.#options
    return asking(async () => {
      const [id] = await store.hmget(keys.ended(wildcardOf(topic)), topic)
      const end = id ? parsePosition(id) : undefined
      return end && comparePositions(end, this.#horizonOf(topic)) >= 0 ? end : null
    })
  }

  /** Before this nothing is read of a topic: a ring goes away as a whole, and so may hold events that are too old. */
  #horizonOf(topic: string): Position {
    return this.#ago(this.#options.rules.of(topic).ttl)
  }

  /** Before this nothing is read of any topic of a filter. */
  #horizonOver(filter: string): Position {
    return this.#ago(this.#options.rules.over(filter).longest)
  }

  #ago(ms: number): Position {
    return { ms: Math.max(0, this.#options.position().ms - ms), seq: 0 }
  }
}

/** Asks of topics, call by call; each says of how many of its topics it has an answer, which must be one at least. */
async function inCalls(
  topics: readonly string[],
  call: (some: readonly string[]) => Promise<number>
): Promise<void> {
  for (let next = 0; next < topics.length;) {
    const some = topics.slice(next, next + TOPICS_A_CALL)
    next += await asking(() => call(some))
  }
}

async function asking<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask()
  } catch (error) {
    throw error instanceof Unwanted ? error : unavailable(error)
  }
}
