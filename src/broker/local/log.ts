import { setImmediate } from 'node:timers/promises'
import { stopIfGone, type Asker } from '../../asker.ts'
import type { Clock, Timer } from '../../clock.ts'
import type { Settings } from '../../config.ts'
import { comparePositions, END, eventBytes, wildcardOf } from '../../event.ts'
import type { Cursor, Position, StoredEvent } from '../../event.ts'
import { Memory, type Needs } from '../../memory.ts'
import { Turn } from '../../turn.ts'
import { Rules } from '../../rules/rules.ts'
import { isNeverStored } from '../ephemeral.ts'
import { READER_LATENESS_MS } from '../event-log.ts'
import type { Append, Appended, EventLog, EventLogListener, Page, State, Subscribed } from '../event-log.ts'
import { detached } from '../embedded/detached.ts'
import type { Found } from '../embedded/found.ts'
import { LocalEvents, type Topic } from './events.ts'
import { IdempotencyKeys } from '../embedded/idempotency.ts'

/** How often the position moves while no event comes, and what has run out is dropped, in milliseconds. */
const TICK_MS = 1000

/** How much is answered with before the turn is given back, in bytes; and as how many each event counts besides its own. */
const MOST_A_TURN = 4 * 1024 * 1024
const EVENT_WORK = 4096

/**
 * The embedded event log. It keeps everything in the memory of this process, in one shard. After a restart it begins
 * another life: every cursor from before lies before its `birth`.
 */
export class LocalLog implements EventLog {
  readonly shards = 1
  readonly birth: Cursor
  readonly lost: Cursor = [{ ms: 0, seq: 0 }]
  readonly up = true
  readonly #rules: Rules
  readonly #clock: Clock
  readonly #memory: Memory
  readonly #events: LocalEvents
  readonly #filters = new Set<string>()
  readonly #keys: IdempotencyKeys
  #timer: Timer | undefined
  /** How much was answered with since the turn was given back, in bytes. */
  #given = 0
  #listener: EventLogListener | undefined
  #last: Position

  constructor(
    settings: Pick<Settings, 'RING_SIZE' | 'RING_TTL'>,
    clock: Clock,
    memory: Memory = new Memory(Infinity),
    rules: Rules = new Rules(settings)
  ) {
    this.#rules = rules
    this.#clock = clock
    this.#memory = memory
    this.#keys = new IdempotencyKeys(clock, memory)
    this.#last = { ms: clock.now(), seq: 0 }
    this.birth = [this.#last]
    this.#events = new LocalEvents(rules, clock, memory, this.#last)
  }

  get heldAfter(): Cursor {
    return [this.#events.droppedTo]
  }

  shardOf(): number {
    return 0
  }

  start(listener: EventLogListener): Promise<void> {
    this.#listener = listener
    listener.up(true)
    this.#timer = this.#clock.after(TICK_MS, () => {
      this.#sweep()
      this.#tick()
      this.#timer?.refresh()
    })
    return Promise.resolve()
  }

  async append(events: readonly Append[]): Promise<Appended[]> {
    this.#keys.forgetOld()
    this.#expire()
    const checked = events.map(event => this.#check(event))
    if (checked.some(outcome => outcome && outcome.outcome !== 'replayed'))
      return checked.map(outcome => outcome ?? NOT_STORED)
    const sizes = events.map(eventBytes)
    const isNew = (_: unknown, index: number) => !checked[index]
    // nothing is stored of what there is no room for
    this.#memory.makeRoom(this.#needsOf(events.filter(isNew), sizes.filter(isNew)))
    const now = this.#clock.now()
    return events.map((event, index) => checked[index] ?? this.#appendOne(event, sizes[index]!, now))
  }

  range(filter: string, after: Cursor, limit: number, asker?: Asker): Promise<Page> {
    return this.#read(() => this.#events.range(filter, after[0]!, limit), asker)
  }

  newest(filter: string, after: Cursor, limit: number, asker?: Asker): Promise<Page> {
    return this.#read(() => this.#events.newest(filter, after[0]!, limit), asker)
  }

  /** Reads, once the turn has been given back where much was read in it: who reads page after page must hold up nobody. */
  async #read(find: () => Found, asker: Asker | undefined): Promise<Page> {
    if (this.#given > MOST_A_TURN) {
      await setImmediate()
      this.#given = 0
      stopIfGone(asker)
    }
    this.#expire()
    const { events, end, gaps } = find()
    for (const event of events) this.#given += EVENT_WORK + eventBytes(event)
    // in the same step: what is stored later lies after the end
    return { events, end: [end ?? this.#last], gaps }
  }

  rewind(filter: string, count: number, asker?: Asker): Promise<Map<string, Position>> {
    this.#expire()
    return this.#events.rewind(filter, count, asker)
  }

  state(topic: string): Promise<State | null> {
    this.#expire()
    return Promise.resolve(this.#events.get(topic)?.state ?? null)
  }

  states(topics: readonly string[], asker?: Asker): Promise<Map<string, State>> {
    return this.#ofEach(topics, state => state, asker)
  }

  versions(topics: readonly string[], asker?: Asker): Promise<Map<string, Position>> {
    return this.#ofEach(topics, ({ version }) => version, asker)
  }

  /** Takes something of the states of those topics that have one. */
  async #ofEach<T>(
    topics: readonly string[],
    take: (state: State) => T,
    asker: Asker | undefined
  ): Promise<Map<string, T>> {
    this.#expire()
    const taken = new Map<string, T>()
    await new Turn(asker).map(topics, topic => {
      const state = this.#events.get(topic)?.state
      if (state) taken.set(topic, take(state))
    })
    return taken
  }

  async topics(filter: string, asker?: Asker): Promise<string[]> {
    const names = await new Turn(asker).map(this.#events.topics(filter), ({ name }) => name)
    // one that was forgotten and came again meanwhile was met twice
    return [...new Set(names)]
  }

  subscribe(filter: string): Promise<Subscribed> {
    this.#filters.add(filter)
    this.#expire()
    this.#tick()
    return Promise.resolve({ position: [this.#last], end: this.#endOf(filter) })
  }

  unsubscribe(filter: string): void {
    this.#filters.delete(filter)
  }

  clear(topic: string): Promise<Position | null> {
    return Promise.resolve(this.#events.clear(topic))
  }

  position(): Promise<Cursor> {
    return Promise.resolve([this.#last])
  }

  /** Hands nothing over any more. */
  close(): void {
    this.#timer?.cancel()
    this.#listener = undefined
  }

  /** What keeps an event from being stored; undefined when nothing does. */
  #check(append: Append): Appended | undefined {
    const used = this.#keys.check(append)
    if (used) return used
    if (this.#endOf(append.topic)) return { outcome: 'ended' }
    const version = append.state?.version
    if (version === undefined) return undefined
    this.#expire()
    return isVersionOf(this.#events.get(append.topic)?.state, version) ? undefined : { outcome: 'conflict' }
  }

  /** The id of the event that has ended a topic; null where none has. */
  #endOf(topic: string): Position | null {
    const last = this.#events.get(topic)?.ring.last
    return last?.type === END ? last.id : null
  }

  /** At most so much is needed to store these events, which have these sizes. */
  #needsOf(appends: readonly Append[], sizes: readonly number[]): Needs {
    const needs = { events: 0, topics: 0, states: 0, keys: 0 }
    const stored: Append[] = []
    for (const [index, append] of appends.entries()) {
      needs.keys += IdempotencyKeys.bytesOf(append)
      if (isNeverStored(append, this.#rules)) continue
      stored.push(append)
      needs.events += sizes[index]!
      if (append.state) needs.states += growthOf(append.state, this.#events.get(append.topic))
    }
    needs.topics = this.#events.bytesOf(stored)
    return needs
  }

  #appendOne(append: Append, bytes: number, now: number): Appended {
    const event = isNeverStored(append, this.#rules)
      ? this.#make(append, this.#events.get(append.topic), bytes, now, 0)
      : this.#store(append, bytes, now)
    const id = [event.id]
    this.#keys.use(append, id)
    const isAskedFor = this.#filters.has(event.topic) || this.#filters.has(wildcardOf(event.topic))
    if (isAskedFor) this.#listener?.event(event)
    return { outcome: 'stored', id }
  }

  #store(append: Append, bytes: number, now: number): StoredEvent {
    const { ttl, state } = append
    const topic = this.#events.topic(append.topic)
    const event = this.#make(append, topic, bytes, now, ttl === undefined ? undefined : now + ttl * 1000)
    this.#events.push(topic, event)
    if (state) this.#events.setState(topic, stateOf(state.value, event))
    return event
  }

  /** Gives an event its id, which is the last from then on; `topic` is what is remembered of its topic, if anything is. */
  #make(append: Append, topic: Topic | undefined, bytes: number, now: number, expires?: number): StoredEvent {
    const { ms, seq } = this.#last
    const id = now > ms ? { ms: now, seq: 0 } : { ms, seq: seq + 1 }
    const prev = !topic || topic.last === this.birth[0] ? null : topic.last
    const name = topic?.name ?? append.topic
    const data = detached(append.data)
    const lasting = { id, shard: 0, topic: name, type: append.type, data, prev, bytes }
    this.#last = id
    return expires === undefined ? lasting : { ...lasting, expires }
  }

  #tick(): void {
    const now = this.#clock.now()
    if (now > this.#last.ms) this.#last = { ms: now, seq: 0 }
    this.#listener?.tick([this.#last])
  }

  #expire(): void {
    this.#events.expire()
  }

  /** Forgets a topic once every cursor from before its last event is too old to be read from, unless it has a state. */
  #sweep(): void {
    this.#expire()
    this.#events.forgetBefore(this.#clock.now() - this.#rules.longest - READER_LATENESS_MS)
    this.#keys.forgetOld()
  }
}

const NOT_STORED: Appended = { outcome: 'not stored' }

/** Whether a state has a version; null: whether there is no state. */
function isVersionOf(state: State | null | undefined, version: Position | null): boolean {
  if (!state || !version) return !state && !version
  return comparePositions(state.version, version) === 0
}

/** By how many bytes what is kept as the state of a topic grows at most. */
function growthOf(state: NonNullable<Append['state']>, topic: Topic | undefined): number {
  if (state.value === null) return 0
  return Math.max(
    0,
    LocalEvents.stateBytes({ value: state.value }) - LocalEvents.stateBytes(topic?.state ?? null)
  )
}

function stateOf(value: string | null, { data, id }: StoredEvent): State | null {
  if (value === null) return null
  return { value: value === data ? data : detached(value), version: id }
}
