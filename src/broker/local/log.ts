import type { Clock, Timer } from '../../clock.ts'
import type { Settings } from '../../config.ts'
import { comparePositions, isWildcard, wildcardOf } from '../../event.ts'
import type { Cursor, Position, StoredEvent } from '../../event.ts'
import { Ring } from '../../ring.ts'
import { READER_LATENESS_MS } from '../event-log.ts'
import type { Append, Appended, EventLog, EventLogListener, Page, State } from '../event-log.ts'
import { IdempotencyKeys } from './idempotency.ts'
import { TopicIndex } from './topics.ts'

/** How often the position moves while no event comes, in milliseconds. Heartbeats carry it to clients. */
const TICK_MS = 1000

/** How often expired events, topics and idempotency keys are dropped, in milliseconds. */
const SWEEP_MS = 60_000

/**
 * The embedded event log. It keeps everything in the memory of this process, in one shard. After a restart it begins
 * another life: every cursor from before lies before its `birth`.
 */
export class LocalLog implements EventLog {
  readonly shards = 1
  readonly birth: Cursor
  readonly lost: Cursor = [{ ms: 0, seq: 0 }]
  readonly up = true
  readonly #settings: Pick<Settings, 'RING_SIZE' | 'RING_TTL'>
  readonly #clock: Clock
  readonly #topics = new TopicIndex<Topic>()
  readonly #filters = new Set<string>()
  readonly #keys: IdempotencyKeys
  readonly #timers: Timer[] = []
  #listener: EventLogListener | undefined
  #last: Position

  constructor(settings: Pick<Settings, 'RING_SIZE' | 'RING_TTL'>, clock: Clock) {
    this.#settings = settings
    this.#clock = clock
    this.#keys = new IdempotencyKeys(clock)
    this.#last = { ms: clock.now(), seq: 0 }
    this.birth = [this.#last]
  }

  shardOf(): number {
    return 0
  }

  start(listener: EventLogListener): Promise<void> {
    this.#listener = listener
    listener.up(true)
    this.#every(TICK_MS, () => this.#tick())
    this.#every(SWEEP_MS, () => this.#sweep())
    return Promise.resolve()
  }

  append(events: readonly Append[]): Promise<Appended[]> {
    this.#keys.forgetOld()
    const checked = events.map(event => this.#check(event))
    const isRefused = checked.some(outcome => outcome && outcome.outcome !== 'replayed')
    return Promise.resolve(
      events.map((event, index) => checked[index] ?? (isRefused ? NOT_STORED : this.#appendOne(event)))
    )
  }

  range(filter: string, after: Cursor, limit: number): Promise<Page> {
    const position = after[0]!
    const now = this.#clock.now()
    const found: StoredEvent[] = []
    const gaps = new Map<string, Position>()
    for (const [name, topic] of this.#topics.matching(filter)) {
      if (comparePositions(topic.last, position) <= 0) continue
      this.#expire(topic)
      if (comparePositions(topic.ring.base, position) > 0) gaps.set(name, topic.ring.base)
      found.push(...topic.ring.after(position, limit))
    }
    if (isWildcard(filter)) found.sort((a, b) => comparePositions(a.id, b.id))
    const page = found.slice(0, limit)
    const events = page.filter(event => event.expires === undefined || event.expires > now)
    // a full page may have been cut: it is complete up to its last event, also when that one is passed over
    const end = page.length < limit ? this.#last : page.at(-1)!.id
    return Promise.resolve({ events, end: [end], gaps })
  }

  rewind(filter: string, count: number): Promise<Map<string, Position>> {
    const starts = new Map<string, Position>()
    for (const [name, topic] of this.#topics.matching(filter)) {
      this.#expire(topic)
      const start = topic.ring.before(count)
      if (start) starts.set(name, start)
    }
    return Promise.resolve(starts)
  }

  state(topic: string): Promise<State | null> {
    return Promise.resolve(this.#topics.get(topic)?.state ?? null)
  }

  states(topics: readonly string[]): Promise<Map<string, State>> {
    const states = topics.map(topic => [topic, this.#topics.get(topic)?.state] as const)
    return Promise.resolve(new Map(states.filter((each): each is [string, State] => !!each[1])))
  }

  async versions(topics: readonly string[]): Promise<Map<string, Position>> {
    return new Map([...(await this.states(topics))].map(([topic, { version }]) => [topic, version]))
  }

  topics(filter: string): Promise<string[]> {
    return Promise.resolve([...this.#topics.matching(filter)].map(([name]) => name))
  }

  subscribe(filter: string): Promise<Cursor> {
    this.#filters.add(filter)
    this.#tick()
    return Promise.resolve([this.#last])
  }

  unsubscribe(filter: string): void {
    this.#filters.delete(filter)
  }

  position(): Promise<Cursor> {
    return Promise.resolve([this.#last])
  }

  /** Hands nothing over any more. */
  close(): void {
    for (const timer of this.#timers) timer.cancel()
    this.#listener = undefined
  }

  /** What keeps an event from being stored; undefined when nothing does. */
  #check(append: Append): Appended | undefined {
    const used = this.#keys.check(append)
    if (used) return used
    const version = append.state?.version
    if (version === undefined) return undefined
    return isVersionOf(this.#topics.get(append.topic)?.state, version) ? undefined : { outcome: 'conflict' }
  }

  #appendOne(append: Append): Appended {
    const event = this.#store(append, this.#topics.get(append.topic) ?? this.#addTopic(append.topic))
    const id = [event.id]
    this.#keys.use(append, id)
    const isAskedFor = this.#filters.has(event.topic) || this.#filters.has(wildcardOf(event.topic))
    if (isAskedFor) this.#listener?.event(event)
    return { outcome: 'stored', id }
  }

  #store({ topic: name, type, data, ttl, state }: Append, topic: Topic): StoredEvent {
    const now = this.#clock.now()
    const { ms, seq } = this.#last
    const id = now > ms ? { ms: now, seq: 0 } : { ms, seq: seq + 1 }
    const event: StoredEvent = {
      id,
      shard: 0,
      topic: name,
      type,
      data,
      prev: topic.last === this.birth[0] ? null : topic.last,
      ...(ttl !== undefined && { expires: now + ttl * 1000 })
    }
    this.#last = topic.last = id
    topic.ring.push(event)
    if (state) topic.state = state.value === null ? null : { value: state.value, version: id }
    return event
  }

  #addTopic(name: string): Topic {
    const birth = this.birth[0]!
    const topic: Topic = { ring: new Ring(this.#settings.RING_SIZE, birth), last: birth, state: null }
    this.#topics.set(name, topic)
    return topic
  }

  #tick(): void {
    const now = this.#clock.now()
    if (now > this.#last.ms) this.#last = { ms: now, seq: 0 }
    this.#listener?.tick([this.#last])
  }

  #expire(topic: Topic): void {
    topic.ring.dropBefore(this.#clock.now() - this.#settings.RING_TTL)
  }

  /** Forgets a topic once every cursor from before its last event is too old to be read from. A state is kept for ever. */
  #sweep(): void {
    const horizon = this.#clock.now() - this.#settings.RING_TTL
    for (const [name, topic] of this.#topics.entries) {
      this.#expire(topic)
      if (topic.last.ms < horizon - READER_LATENESS_MS && topic.state === null) this.#topics.delete(name)
    }
    this.#keys.forgetOld()
  }

  #every(ms: number, callback: () => void): void {
    const timer = this.#clock.after(ms, () => {
      callback()
      timer.refresh()
    })
    this.#timers.push(timer)
  }
}

const NOT_STORED: Appended = { outcome: 'not stored' }

/** Whether a state has a version; null: whether there is no state. */
function isVersionOf(state: State | null | undefined, version: Position | null): boolean {
  if (!state || !version) return !state && !version
  return comparePositions(state.version, version) === 0
}

interface Topic {
  readonly ring: Ring
  /** The id of its last event, also when the ring has dropped that one. */
  last: Position
  state: State | null
}
