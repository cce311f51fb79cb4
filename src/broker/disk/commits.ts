import { setImmediate } from 'node:timers/promises'
import type { Clock } from '../../clock.ts'
import { comparePositions, isEphemeral, type Position, type StoredEvent } from '../../event.ts'
import { MemoryFull, type Memory } from '../../memory.ts'
import { IdempotencyKeys } from '../embedded/idempotency.ts'
import { isNeverStored } from '../ephemeral.ts'
import type { Append, Appended } from '../event-log.ts'
import type { Rules } from '../../rules/rules.ts'
import { BrokerUnavailable } from '../unavailable.ts'
import { hasEnded, Heads, isAt, type Head } from './heads.ts'
import { commitKey, idempotencyKey, POSITION, stateKey, topicKey } from './records.ts'
import { sealKey, sealPosition, sealState, sealText, sealTopic } from './records.ts'
import { putEvent } from './puts.ts'
import type { Batch, Store } from './store.ts'
import type { Topics } from './topics.ts'

/** How many of the newest commits have a record: more than LevelDB's log can hold. Where one is missing, so are events. */
const NUMBERED = 65_536

/** The most events of a group: who comes after them waits for the next one. */
const GROUP = 1000

/** So few are not worth two groups: what a commit costs besides its events is most of what it takes then. */
const FEW = 128

/** For how long a group may wait for more, in milliseconds. */
const GATHERING_MS = 2

/** What the store keeps, and what is known of it in memory. */
export interface Kept {
  readonly store: Store
  readonly topics: Topics
  readonly keys: IdempotencyKeys
  readonly heads: Heads
  readonly memory: Memory
  readonly clock: Clock
}

export interface CommitSettings {
  /** What holds for each topic. */
  readonly rules: Pick<Rules, 'of'>
  /** Whether an event must be flushed to the disk before it counts as stored. */
  readonly isFlushed: boolean
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
interface Call {
  readonly appends: readonly Append[]
  readonly resolve: (appended: Appended[]) => void
  readonly reject: (reason: unknown) => void
}

/** What is stored in one step. */
interface Group {
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

/** Who is told of what has been stored. */
export interface CommitListener {
  /** These are stored, in the order of their ids, and every id up to `last` that was given. */
  committed(events: readonly StoredEvent[], last: Position): void
  /** They were flushed to the disk within so many milliseconds. */
  flushed(ms: number): void
  /** Nothing can be written any more. What was under way may be in the store, or not. */
  failed(error: unknown): void
}

/**
 * Stores events: those that come while others are being flushed go with one flush. Two groups are under way at a time: one
 * is being written while the next one is decided on, as if the first were stored. When the first fails, both do.
 */
export class Commits {
  readonly #kept: Kept
  readonly #settings: CommitSettings
  readonly #listener: CommitListener
  readonly #calls: Call[] = []
  readonly #jobs: Job[] = []
  #isRunning = false
  /** Why nothing can be written; null while it can. */
  #failure: Error | null = null
  #writing: Promise<void> = Promise.resolve()
  #underWay = 0
  readonly #birth: Position
  #given: Position
  #number: number

  constructor(kept: Kept, settings: CommitSettings, beginning: Beginning, listener: CommitListener) {
    this.#kept = kept
    this.#settings = settings
    this.#listener = listener
    this.#birth = beginning.birth
    this.#given = beginning.last
    this.#number = beginning.number
  }

  /** See `EventLog.append`. */
  append(appends: readonly Append[]): Promise<Appended[]> {
    return new Promise((resolve, reject) => {
      this.#calls.push({ appends, resolve, reject })
      this.#run()
    })
  }

  /**
   * Does something with the store while nothing else is written. Rejects with `BrokerUnavailable` where nothing can be
   * written, or when the writing fails.
   */
  exclusively(job: () => Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#jobs.push({ job, resolve, reject })
      this.#run()
    })
  }

  /**
   * Says that all ids from now on come after a position, if it is a later one and nothing is under way; else says nothing.
   */
  advance(position: Position): boolean {
    if (this.#failure || this.#underWay > 0 || comparePositions(position, this.#given) <= 0) return false
    this.#given = position
    return true
  }

  /** Begins anew, after the store has been opened again. */
  resume({ last, number }: Beginning): void {
    this.#given = last
    this.#number = number
    this.#failure = null
  }

  /** The number of the last commit. */
  get number(): number {
    return this.#number
  }

  /** Resolves once nothing is being written any more. */
  async settle(): Promise<void> {
    await this.#writing
  }

  #run(): void {
    if (this.#isRunning) return
    this.#isRunning = true
    void this.#work()
  }

  async #work(): Promise<void> {
    while (this.#calls.length + this.#jobs.length > 0) {
      if (this.#failure) this.#refuse(this.#failure)
      else await this.#step().catch(error => this.#fail(error))
    }
    this.#kept.heads.trim()
    this.#isRunning = false
  }

  async #step(): Promise<void> {
    const [job] = this.#jobs
    if (job) {
      await this.#writing
      if (this.#failure) return
      this.#jobs.shift()
      return this.#do(job)
    }
    await this.#gather()
    const calls = this.#take()
    try {
      const heads = await this.#prepare(calls)
      this.#mustWrite()
      const group = this.#decide(calls, heads)
      this.#underWay++
      await this.#writing
      this.#mustWrite()
      this.#writing = this.#write(group)
    } catch (error) {
      const reason = this.#fail(error)
      for (const { reject } of calls) reject(reason)
    }
  }

  async #do({ job, resolve, reject }: Job): Promise<void> {
    try {
      await job()
      resolve()
    } catch (error) {
      reject(this.#fail(error))
    }
  }

  /** Waits for as long as each turn brings more: a commit costs much more than an event, where a flush is quick. */
  async #gather(): Promise<void> {
    const began = performance.now()
    for (let before = 0; before < this.#calls.length && this.#calls.length < GROUP;) {
      if (performance.now() - began > GATHERING_MS) return
      before = this.#calls.length
      await setImmediate()
    }
  }

  /** Takes half of what waits, unless that is few: one half can be decided on while the other is being written. */
  #take(): Call[] {
    const most = Math.min(GROUP, Math.max(FEW, this.#calls.length / 2))
    let events = 0
    let count = 0
    while (count < this.#calls.length && events < most) events += this.#calls[count++]!.appends.length
    return this.#calls.splice(0, count)
  }

  // --- deciding ---

  /** Reads what must be known of the topics: which events their rings will drop. */
  async #prepare(calls: readonly Call[]): Promise<Head[]> {
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
        await heads.fill(head, surplus + 1, () => this.#writing)
    }
    return used
  }

  #decide(calls: readonly Call[], used: readonly Head[]): Group {
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
    while (head.count > head.ring) this.drop(head, batch)
    if (state) setState(head, state.value, event.id, batch)
  }

  /** Drops the oldest event of a topic. */
  drop(head: Head, batch: Batch): void {
    const id = Heads.drop(head)
    batch.del(head.events.key(id))
    batch.del(head.family.key(id))
  }

  /** Takes the state of a topic away. */
  forgetState(head: Head, batch: Batch): void {
    setState(head, null, head.last, batch)
  }

  /** Numbers a batch: where a number is missing later, so is what was stored with it. */
  seal(batch: Batch): void {
    const key = commitKey(++this.#number)
    batch.put(key, sealText(key, ''))
    if (this.#number > NUMBERED) batch.del(commitKey(this.#number - NUMBERED))
  }

  // --- writing ---

  async #write(group: Group): Promise<void> {
    const { batch, events, answers, calls, isLasting } = group
    // an event that is not stored has nothing that could be lost
    const isFlushed = this.#settings.isFlushed && isLasting
    const records = Array.from(group.changed, head => [head, Heads.record(head)] as const)
    const last = this.#given
    try {
      const began = performance.now()
      await this.#kept.store.write(batch, isFlushed)
      if (isFlushed) this.#listener.flushed(performance.now() - began)
    } catch (error) {
      const reason = this.#fail(error)
      for (const { reject } of calls) reject(reason)
      return
    }
    this.#underWay--
    for (const [{ name }, record] of records) this.#kept.topics.set(name, record)
    for (const head of group.used) head.groups--
    this.#listener.committed(events, last)
    for (const answer of answers) answer()
  }

  #mustWrite(): void {
    if (this.#failure) throw this.#failure
  }

  /** Nothing can be written any more. Says what those are told who wanted something stored. */
  #fail(error: unknown): Error {
    if (this.#failure) return this.#failure
    this.#failure = new BrokerUnavailable(reasonOf(error))
    this.#underWay = 0
    this.#listener.failed(error)
    return this.#failure
  }

  #refuse(reason: Error): void {
    for (const { reject } of [...this.#calls.splice(0), ...this.#jobs.splice(0)]) reject(reason)
  }
}

const NOT_STORED: Appended = { outcome: 'not stored' }

/** A job that must be alone with the store. */
interface Job {
  readonly job: () => Promise<void>
  readonly resolve: () => void
  readonly reject: (reason: unknown) => void
}

function setState(head: Head, value: string | null, version: Position, batch: Batch): void {
  const key = stateKey(head.name)
  if (value === null) batch.del(key)
  else batch.put(key, sealState(key, { value, version }))
  head.version = value === null ? null : version
  head.stateBytes = value === null ? 0 : Buffer.byteLength(value)
}

/** Why a write has failed, as a client is told. */
function reasonOf(error: unknown): string {
  const { message } = error as Error
  return /no space left|disk quota/i.test(message)
    ? 'the disk is full'
    : `the store can't be written: ${message}`
}
