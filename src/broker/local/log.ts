import { createHash } from 'node:crypto'
import type { Clock, Timer } from '../../clock.ts'
import type { Settings } from '../../config.ts'
import { comparePositions, IDEMPOTENCY_MS, isWildcard, wildcardOf } from '../../event.ts'
import type { Cursor, Position, StoredEvent } from '../../event.ts'
import { Ring } from '../../ring.ts'
import { READER_LATENESS_MS } from '../event-log.ts'
import type { Append, Appended, EventLog, EventLogListener, Page, State } from '../event-log.ts'
import { TopicIndex } from './topics.ts'

/** How often the position moves while no event comes, in milliseconds: heartbeats carry it. */
const TICK_MS = 1000

/** How often what has run out is let go of, in milliseconds. */
const SWEEP_MS = 60_000

/**
 * The embedded event log: everything in this process's memory, in one shard. It keeps the promise for as long as the
 * process lives; after a restart every older cursor is of another life.
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
  /** In the order in which they run out. */
  readonly #keys = new Map<string, UsedKey>()
  readonly #timers: Timer[] = []
  #listener: EventLogListener | undefined
  #last: Position

  constructor(settings: Pick<Settings, 'RING_SIZE' | 'RING_TTL'>, clock: Clock) {
    this.#settings = settings
    this.#clock = clock
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
    this.#forgetKeys()
    const checked = events.map(event => this.#check(event))
    const refused = checked.some(outcome => outcome && !('id' in outcome))
    return Promise.resolve(
      events.map(
        (event, index) => checked[index] ?? (refused ? { outcome: 'not stored' } : this.#appendOne(event))
      )
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
    // a page that was filled may have been cut; what it passed over counts as seen
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
    const used = append.key === undefined ? undefined : this.#keys.get(append.key)
    if (used) {
      return used.print === fingerprint(append)
        ? { outcome: 'replayed', id: used.id }
        : { outcome: 'key reused' }
    }
    const version = append.state?.version
    const conflict = version !== undefined && !sameVersion(this.#topics.get(append.topic)?.state, version)
    return conflict ? { outcome: 'conflict' } : undefined
  }

  #appendOne(append: Append): Appended {
    const event = this.#store(append, this.#topics.get(append.topic) ?? this.#addTopic(append.topic))
    const id = [event.id]
    if (append.key !== undefined) {
      this.#keys.set(append.key, {
        id,
        print: fingerprint(append),
        until: this.#clock.now() + IDEMPOTENCY_MS
      })
    }
    if (this.#filters.has(event.topic) || this.#filters.has(wildcardOf(event.topic)))
      this.#listener?.event(event)
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

  /** A topic may be forgotten once every cursor that could ask what followed it is too old to be answered without a gap. */
  #sweep(): void {
    const horizon = this.#clock.now() - this.#settings.RING_TTL
    for (const [name, topic] of this.#topics.entries) {
      this.#expire(topic)
      if (topic.last.ms < horizon - READER_LATENESS_MS && topic.state === null) this.#topics.delete(name)
    }
    this.#forgetKeys()
  }

  #forgetKeys(): void {
    const now = this.#clock.now()
    for (const [key, { until }] of this.#keys) {
      if (until > now) break
      this.#keys.delete(key)
    }
  }

  #every(ms: number, callback: () => void): void {
    const timer = this.#clock.after(ms, () => {
      callback()
      timer.refresh()
    })
    this.#timers.push(timer)
  }
}

function sameVersion(state: State | null | undefined, version: Position | null): boolean {
  if (!state || !version) return !state && !version
  return comparePositions(state.version, version) === 0
}

/** What tells two events apart, without keeping their data. */
function fingerprint({ topic, type, data }: Append): string {
  return createHash('sha256').update(`${topic}\n${type}\n`).update(data).digest('base64')
}

interface Topic {
  readonly ring: Ring
  /** Its last id, whatever has become of that event. */
  last: Position
  state: State | null
}

interface UsedKey {
  readonly id: Cursor
  readonly print: string
  readonly until: number
}
