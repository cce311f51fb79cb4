import { stopIfGone, type Asker } from '../../asker.ts'
import type { Clock, Timer } from '../../clock.ts'
import type { Settings } from '../../config.ts'
import { later, wildcardOf, type Cursor, type Position, type StoredEvent } from '../../event.ts'
import type { Memory } from '../../memory.ts'
import { Rules } from '../../rules/rules.ts'
import { Turn } from '../../turn.ts'
import { detached } from '../embedded/detached.ts'
import type { Found } from '../embedded/found.ts'
import { IdempotencyKeys } from '../embedded/idempotency.ts'
import { READER_LATENESS_MS } from '../event-log.ts'
import type { Append, Appended, EventLog, EventLogListener, Page, State, Subscribed } from '../event-log.ts'
import { BrokerUnavailable } from '../unavailable.ts'
import { Commits, type CommitListener } from './commits.ts'
import { StoreDamaged } from './damaged.ts'
import { Decisions, type Kept } from './decisions.ts'
import { Drops } from './drops.ts'
import { hasEnded, Heads } from './heads.ts'
import { load, readMeta, type Meta } from './load.ts'
import { Reads } from './reads.ts'
import { POSITION, sealPosition } from './records.ts'
import type { Store } from './store.ts'
import { Topics } from './topics.ts'

/** How often the position moves while no event comes, and what has run out is dropped, in milliseconds. */
const TICK_MS = 1000

export type DiskSettings = Pick<Settings, 'RING_SIZE' | 'RING_TTL' | 'FSYNC' | 'MAX_STORE_BYTES'>

/** Who is told how the store does. */
export interface DiskObserver {
  /** What the operator must know, in a line. */
  warn(message: string): void
  /** Something was flushed to the disk, within so many milliseconds. */
  flushed(ms: number): void
}

/**
 * The event log on disk, in one shard, of this process alone. In memory are the records of topics and the idempotency keys;
 * events and states are read from the disk. What `append` has resolved with survives the process, and the machine.
 */
export class DiskLog implements EventLog, CommitListener {
  readonly shards = 1
  readonly birth: Cursor
  readonly lost: Cursor
  readonly heldAfter = null
  readonly #settings: DiskSettings
  readonly #rules: Rules
  readonly #meta: Meta
  readonly #kept: Kept
  readonly #decisions: Decisions
  readonly #commits: Commits
  readonly #drops: Drops
  readonly #reads: Reads
  readonly #observer: DiskObserver
  readonly #filters = new Set<string>()
  #timer: Timer | undefined
  #flusher: Timer | undefined
  #listener: EventLogListener | undefined
  /** All up to here is stored, and was handed over. */
  #last: Position
  #isClosed = false
  /** What is done each second, where it is under way. */
  #upkeep: Promise<void> = Promise.resolve()
  /** Resolves once what is known of the store is what is in it: nothing may be read before. */
  #ready: Promise<void> = Promise.resolve()
  /** Why it can't be used, and why nothing can be stored; null while that can be. */
  unusable: string | null = null
  unwritable: string | null = null

  private constructor(
    settings: DiskSettings,
    rules: Rules,
    kept: Kept,
    meta: Meta,
    number: number,
    last: Position,
    observer: DiskObserver
  ) {
    this.#settings = settings
    this.#rules = rules
    this.#kept = kept
    this.#meta = meta
    this.#observer = observer
    this.#last = last
    this.birth = [meta.birth]
    this.lost = [meta.lost]
    const { FSYNC, MAX_STORE_BYTES } = settings
    const own = { rules, maxStateBytes: MAX_STORE_BYTES / 2 }
    this.#decisions = new Decisions(kept, own, { birth: meta.birth, last, number })
    this.#commits = new Commits(kept, this.#decisions, FSYNC === 'commit', this)
    this.#drops = new Drops(kept, this.#commits, this.#decisions)
    this.#reads = new Reads(kept.store, kept.topics, kept.clock)
  }

  /** The log of a store that has just been opened. Rejects with `StoreUnusable` and `StoreDamaged`. */
  static async open(
    store: Store,
    settings: DiskSettings,
    clock: Clock,
    memory: Memory,
    observer: DiskObserver,
    rules: Rules = new Rules(settings)
  ): Promise<DiskLog> {
    const meta = await readMeta(store, clock.now())
    const topics = new Topics(memory, meta.birth, rules)
    const keys = new IdempotencyKeys(clock, memory)
    const heads = new Heads(store, topics)
    const { number, last } = await load(store, meta, topics, keys)
    const kept = { store, topics, keys, heads, memory, clock }
    return new DiskLog(settings, rules, kept, meta, number, last, observer)
  }

  get up(): boolean {
    return this.unusable === null
  }

  shardOf(): number {
    return 0
  }

  start(listener: EventLogListener): Promise<void> {
    this.#listener = listener
    listener.up(true)
    const { clock } = this.#kept
    this.#timer = clock.after(TICK_MS, () => {
      this.#upkeep = this.#lookAfter().finally(() => this.#timer?.refresh())
    })
    const { FSYNC } = this.#settings
    if (typeof FSYNC === 'number') {
      this.#flusher = clock.after(FSYNC, () => {
        void this.#flush().finally(() => this.#flusher?.refresh())
      })
    }
    return Promise.resolve()
  }

  async append(events: readonly Append[]): Promise<Appended[]> {
    if (this.unusable) throw new BrokerUnavailable(this.unusable)
    // a state that is too old is none that another version could be asked of
    if (this.#drops.hasOldState) await this.#expire()
    return this.#commits.append(events)
  }

  range(filter: string, after: Cursor, limit: number, asker?: Asker): Promise<Page> {
    return this.#page(async last => {
      const { ms } = after[0]!
      // What is too old is told exactly once it was dropped. Most cursors are younger, and need not wait for that.
      if (ms < this.#kept.clock.now() - this.#rules.over(filter).shortest) await this.#expire()
      return this.#reads.range(filter, after[0]!, last, limit)
    }, asker)
  }

  newest(filter: string, after: Cursor, limit: number, asker?: Asker): Promise<Page> {
    return this.#page(() => this.#reads.newest(filter, after[0]!, limit), asker)
  }

  #page(find: (last: Position) => Promise<Found>, asker: Asker | undefined): Promise<Page> {
    return this.#read(async () => {
      // asked before it is read: what is stored meanwhile lies after the end
      const last = this.#last
      const { events, end, gaps } = await find(last)
      stopIfGone(asker)
      return { events, end: [end ?? last], gaps }
    })
  }

  rewind(filter: string, count: number, asker?: Asker): Promise<Map<string, Position>> {
    return this.#read(() => this.#reads.rewind(filter, count, asker))
  }

  state(topic: string): Promise<State | null> {
    return this.#read(() => this.#reads.state(topic))
  }

  states(topics: readonly string[], asker?: Asker): Promise<Map<string, State>> {
    return this.#read(() => this.#reads.states(topics, asker))
  }

  versions(topics: readonly string[], asker?: Asker): Promise<Map<string, Position>> {
    return this.#read(async () => {
      const now = this.#kept.clock.now()
      const versions = await new Turn(asker).map(
        topics,
        topic => [topic, this.#kept.topics.versionOf(topic, now)] as const
      )
      return new Map(versions.filter((each): each is [string, Position] => !!each[1]))
    })
  }

  topics(filter: string, asker?: Asker): Promise<string[]> {
    return this.#read(async () => {
      const names = await new Turn(asker).map(this.#kept.topics.matching(filter), ({ name }) => name)
      // one that was forgotten and came again meanwhile was met twice
      return [...new Set(names)]
    })
  }

  async subscribe(filter: string): Promise<Subscribed> {
    this.#filters.add(filter)
    try {
      return await this.#read(() => {
        const topic = this.#kept.topics.get(filter)
        const end = topic && hasEnded(topic) ? topic.last : null
        return Promise.resolve({ position: [this.#last], end })
      })
    } catch (error) {
      this.#filters.delete(filter)
      throw error
    }
  }

  unsubscribe(filter: string): void {
    this.#filters.delete(filter)
  }

  async clear(topic: string): Promise<Position | null> {
    if (this.unusable) throw new BrokerUnavailable(this.unusable)
    return this.#drops.clear(topic)
  }

  position(): Promise<Cursor> {
    return Promise.resolve([this.#last])
  }

  /** How many bytes its files take, and how old its oldest event is, in seconds. */
  async measure(): Promise<{ bytes: number; oldestAge: number }> {
    const { store, topics, clock } = this.#kept
    const now = clock.now()
    const oldest = topics.oldest?.first.ms ?? now
    return { bytes: await store.bytes(), oldestAge: Math.max(0, now - oldest) / 1000 }
  }

  /** Stores what is still under way, and lets go of the files. */
  async close(): Promise<void> {
    this.#isClosed = true
    this.#timer?.cancel()
    this.#flusher?.cancel()
    this.#listener = undefined
    const { store } = this.#kept
    await this.#upkeep
    await this.#drops.purge().catch(() => {})
    await this.#commits
      .exclusively(async () => {
        await this.#told(this.#last, true)
        await store.note(this.#decisions.number)
      })
      .catch(() => {})
    await store.close()
  }

  // --- what the commits tell ---

  committed(events: readonly StoredEvent[], last: Position): void {
    this.#last = later(this.#last, last)
    for (const event of events) {
      if (this.#filters.has(event.topic) || this.#filters.has(wildcardOf(event.topic)))
        this.#listener?.event({ ...event, data: detached(event.data) })
    }
  }

  flushed(ms: number): void {
    this.#observer.flushed(ms)
  }

  failed(error: unknown): void {
    if (error instanceof StoreDamaged) return this.#damaged(error)
    const { message } = error as Error
    if (this.unwritable === message) return
    this.unwritable = message
    this.#observer.warn(`nothing can be stored any more, readers are served: ${message}`)
  }

  // --- time ---

  /** Moves the position, drops what has run out, and tries again to write where that had failed. */
  async #lookAfter(): Promise<void> {
    if (this.#isClosed || this.unusable) return
    try {
      if (this.unwritable) await this.#recover()
      else await this.#sweep()
    } catch (error) {
      if (error instanceof StoreDamaged) this.#damaged(error)
      else if (!(error instanceof BrokerUnavailable) && !this.#isClosed) this.failed(error)
    }
  }

  async #sweep(): Promise<void> {
    await this.#tick()
    const { MAX_STORE_BYTES } = this.#settings
    const now = this.#kept.clock.now()
    await this.#drops.purge()
    await this.#drops.expire()
    await this.#drops.within(MAX_STORE_BYTES)
    await this.#drops.forgetBefore(now - this.#rules.longest - READER_LATENESS_MS)
  }

  async #tick(): Promise<void> {
    const now = { ms: this.#kept.clock.now(), seq: 0 }
    // While events are stored, the last of them says how far all have come.
    if (this.#commits.advance(now)) {
      // Kept before it is told: after a restart, ids must come after all that anybody has heard of. An ephemeral event may
      // have gone further meanwhile.
      await this.#commits.exclusively(() => this.#told(later(this.#last, now), false))
      this.#last = later(this.#last, now)
    }
    this.#listener?.tick([this.#last])
  }

  async #told(position: Position, sync: boolean): Promise<void> {
    await this.#kept.store.put(POSITION, sealPosition(POSITION, position), sync)
  }

  async #flush(): Promise<void> {
    if (this.unwritable || this.unusable || this.#isClosed) return
    await this.#commits.exclusively(() => this.#told(this.#last, true)).catch(() => {})
  }

  async #expire(): Promise<void> {
    if (this.unwritable) return
    await this.#drops.expire().catch(error => {
      // readers are served although nothing can be written
      if (!(error instanceof BrokerUnavailable)) throw error
    })
  }

  /** Once there is room again: opens the store anew, and goes on with what is in it. */
  async #recover(): Promise<void> {
    const { store, topics, keys, heads } = this.#kept
    if (!(await store.hasRoom())) return
    await this.#commits.settle()
    const reading = store.reopen().then(() => {
      heads.clear()
      topics.clear()
      keys.clear()
      return load(store, this.#meta, topics, keys)
    })
    this.#ready = reading.then(
      () => {},
      () => {
        throw new BrokerUnavailable('the store is being opened again')
      }
    )
    this.#ready.catch(() => {})
    const beginning = await reading
    this.unwritable = null
    this.#last = later(this.#last, beginning.last)
    this.#commits.resume({ ...beginning, last: this.#last })
    // what had been under way may have been stored, and was not handed over
    this.#listener?.jump([this.#last])
    // whoever asked while it was closed asks again
    this.#listener?.up(true)
    this.#observer.warn('the store is written again')
  }

  async #read<T>(ask: () => Promise<T>): Promise<T> {
    if (this.unusable) throw new BrokerUnavailable(this.unusable)
    await this.#ready
    try {
      return await ask()
    } catch (error) {
      if (!(error instanceof StoreDamaged)) throw error
      this.#damaged(error)
      throw new BrokerUnavailable(this.unusable!)
    }
  }

  /** Nothing is said any more that may be wrong. */
  #damaged({ message }: StoreDamaged): void {
    if (this.unusable) return
    this.unusable = `the store is damaged: ${message}`
    this.#observer.warn(`${this.unusable}; stop the server, and see what \`ringside store check\` says`)
    this.#listener?.up(false)
  }
}
