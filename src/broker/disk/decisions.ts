import type { Clock } from '../../clock.ts'
import { comparePositions, isEphemeral, type Position, type StoredEvent } from '../../event.ts'
import { MemoryFull, type Memory } from '../../memory.ts'
import type { Rules } from '../../rules/rules.ts'
import { IdempotencyKeys } from '../embedded/idempotency.ts'
import { isNeverStored } from '../ephemeral.ts'
import type { Append, Appended } from '../event-log.ts'
import { hasEnded, Heads, isAt, type Head } from './heads.ts'
import { putEvent, putState, takeEvent } from './puts.ts'
import { commitKey, idempotencyKey, POSITION, topicKey } from './records.ts'
import { sealKey, sealPosition, sealText, sealTopic } from './records.ts'
import type { Batch, Store } from './store.ts'
import type { Topics } from './topics.ts'

/** How many of the newest commits have a record: more than LevelDB's log can hold. Where one is missing, so are events. */
const NUMBERED = 65_536

/** What the store keeps, and what is known of it in memory. */
export interface Kept {
  readonly store: Store
  readonly topics: Topics
  readonly keys: IdempotencyKeys
  readonly heads: Heads
  readonly memory: Memory
  readonly clock: Clock
}

export interface DecisionSettings {
  /** What holds for each topic. */
  readonly rules: Pick<Rules, 'of'>
  /** How many bytes all states may take. */
  readonly maxStateBytes: number
}

/** Where a store goes on. */
export interface Beginning {
  readonly birth: Position
  /** The last position that it has given or told. */
  readonly last: Position
  /** The number of its last commit. */
  readonly number: number
}

/** What somebody wants stored, all of it or nothing. */
export interface Call {
  readonly appends: readonly Append[]
  readonly resolve: (appended: Appended[]) => void
  readonly reject: (reason: unknown) => void
}

/** What is stored in one step. */
export interface Group {
  readonly batch: Batch
  /** Whether it stores anything: of ephemeral events without a key nothing but how far their ids have come. */
  isLasting: boolean
  /** The topics that it was to change, and those that it does. */
  readonly used: readonly Head[]
  readonly changed: Set<Head>
  readonly events: StoredEvent[]
  readonly answers: (() => void)[]
  readonly calls: readonly Call[]
}

/** Decides what becomes of what is to be stored, as if all that was decided before were stored: gives ids, and numbers. */
export class Decisions {
  readonly #kept: Kept
  readonly #settings: DecisionSettings
  readonly #birth: Position
  #given: Position
  #number: number

  constructor(kept: Kept, settings: DecisionSettings, { birth, last, number }: Beginning) {
    this.#kept = kept
    this.#settings = settings
    this.#birth = birth
    this.#given = last
    this.#number = number
  }

  /** The last id that was given, or what all ids come after. */
  get given(): Position {
    return this.#given
  }

  /** The number of the last commit. */
  get number(): number {
    return this.#number
  }

  /** All ids from now on come after a position. */
  advance(position: Position): void {
    this.#given = position
  }

  /** Begins anew, after the store has been opened again. */
  resume({ last, number }: Beginning): void {
    this.#given = last
    this.#number = number
  }

  /**
   * Reads what must be known of the topics: which events their rings will drop. `settle` resolves once nothing is being
   * written.
   */
  async prepare(calls: readonly Call[], settle: () => Promise<void>): Promise<Head[]> {
    const { heads } = this.#kept
    const used: Head[] = []
    const counts = new Map<string, number>()
    for (const { appends } of calls)
      for (const { topic } of appends) counts.set(topic, (counts.get(topic) ?? 0) + 1)
    for (const [topic, count] of counts) {
      const head = heads.of(topic)
      head.groups++
      used.push(head)
      head.ring = this.#settings.rules.of(topic).ring
      const surplus = head.count + count - head.ring
      if (surplus > 0 && !head.isWhole && head.ids.length <= surplus)
        await heads.fill(head, surplus + 1, settle)
    }
    return used
  }

  decide(calls: readonly Call[], used: readonly Head[]): Group {
    const { store, heads } = this.#kept
    const changed = new Set<Head>()
    const group: Group = {
      batch: store.batch(),
      isLasting: false,
      used,
      changed,
      events: [],
      answers: [],
      calls
    }
    for (const hash of this.#kept.keys.forgetOld()) group.batch.del(idempotencyKey(hash))
    for (const call of calls) this.#decideOne(call, group)
    for (const head of changed) {
      Heads.cut(head)
      const key = topicKey(head.name)
      group.batch.put(key, sealTopic(key, Heads.record(head)))
    }
    if (group.events.some(isEphemeral)) group.batch.put(POSITION, sealPosition(POSITION, this.#given))
    if (group.isLasting) this.seal(group.batch)
    heads.trim()
    return group
  }

  #decideOne({ appends, resolve, reject }: Call, group: Group): void {
    const checked = appends.map(append => this.#check(append))
    if (checked.some(outcome => outcome && outcome.outcome !== 'replayed')) {
      const outcomes = checked.map(outcome => outcome ?? NOT_STORED)
      group.answers.push(() => resolve(outcomes))
      return
    }
    const fresh = appends.filter((_, index) => !checked[index])
    try {
      this.#makeRoom(fresh)
    } catch (error) {
      group.answers.push(() => reject(error))
      return
    }
    const outcomes = appends.map((append, index) => checked[index] ?? this.#store(append, group))
    group.answers.push(() => resolve(outcomes))
  }

  /** What keeps an event from being stored; undefined when nothing does. */
  #check(append: Append): Appended | undefined {
    const used = this.#kept.keys.check(append)
    if (used) return used
    const head = this.#kept.heads.of(append.topic)
    if (hasEnded(head)) return { outcome: 'ended' }
    const version = append.state?.version
    if (version === undefined) return undefined
    return isAt(head.version, version) ? undefined : { outcome: 'conflict' }
  }

  /** Throws `MemoryFull` where there is no room for what must be kept of these events in memory, or for their states. */
  #makeRoom(appends: readonly Append[]): void {
    const { memory, topics, heads } = this.#kept
    const keys = appends.reduce((sum, append) => sum + IdempotencyKeys.bytesOf(append), 0)
    const stored = appends.filter(append => !isNeverStored(append, this.#settings.rules))
    memory.makeRoom({ keys, topics: topics.bytesOf(stored.map(({ topic }) => topic)) })
    let states = topics.stateBytes
    for (const { state, topic } of appends) {
      if (state) states += Buffer.byteLength(state.value ?? '') - heads.of(topic).stateBytes
    }
    if (states > topics.stateBytes && states > this.#settings.maxStateBytes)
      throw new MemoryFull('states', 'MAX_STORE_BYTES')
  }

  #store(append: Append, group: Group): Appended {
    const isStored = !isNeverStored(append, this.#settings.rules)
    const head = this.#kept.heads.of(append.topic)
    const event = this.#make(append, head, isStored)
    group.events.push(event)
    if (isStored) this.#put(event, append.state, head, group)
    const use = this.#kept.keys.use(append, [event.id])
    if (use) {
      const key = idempotencyKey(use.hash)
      group.batch.put(key, sealKey(key, use))
    }
    if (isStored || use) group.isLasting = true
    return { outcome: 'stored', id: [event.id] }
  }

  /** Gives an event its id. */
  #make({ topic, type, data, ttl }: Append, { last }: Head, isStored: boolean): StoredEvent {
    const now = this.#kept.clock.now()
    const { ms, seq } = this.#given
    const id = now > ms ? { ms: now, seq: 0 } : { ms, seq: seq + 1 }
    this.#given = id
    const prev = comparePositions(last, this.#birth) === 0 ? null : last
    const lasting: StoredEvent = { id, shard: 0, topic, type, data, prev }
    if (!isStored) return { ...lasting, expires: 0 }
    return ttl === undefined ? lasting : { ...lasting, expires: now + ttl * 1000 }
  }

  #put(event: StoredEvent, state: Append['state'], head: Head, { batch, changed }: Group): void {
    changed.add(head)
    Heads.add(head, event, putEvent(batch, head, event))
    while (head.count > head.ring) takeEvent(batch, head, Heads.drop(head))
    if (!state) return
    putState(batch, head.name, state.value, event.id)
    Heads.setState(head, state.value, event.id)
  }

  /** Numbers a batch: where a number is missing later, so is what was stored with it. */
  seal(batch: Batch): void {
    const key = commitKey(++this.#number)
    batch.put(key, sealText(key, ''))
    if (this.#number > NUMBERED) batch.del(commitKey(this.#number - NUMBERED))
  }
}

const NOT_STORED: Appended = { outcome: 'not stored' }
