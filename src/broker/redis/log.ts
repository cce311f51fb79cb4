import { Unwanted, type Asker } from '../../asker.ts'
import { feedOf, formatCursor, isWildcard, later, parseCursor } from '../../event.ts'
import type { Cursor, Position, StoredEvent } from '../../event.ts'
import { Turn } from '../../turn.ts'
import type { Append, Appended, EventLog, EventLogListener, Page, State, Subscribed } from '../event-log.ts'
import { fingerprint } from '../fingerprint.ts'
import { ZERO } from './life.ts'
import { pageOf, rangeOfMany, type ShardRead } from './pages.ts'
import type { RedisShard, ShardListener } from './shard.ts'
import { AllOrNone, shardOf } from './sharding.ts'
import { disconnected } from './unavailable.ts'
import type { ShardAppend, ShardOutcome } from './wire.ts'

/** What the log asks of a shard. */
export interface LogShard {
  readonly life: Pick<RedisShard['life'], 'birth' | 'lost'>
  readonly appends: Pick<RedisShard['appends'], 'append'>
  readonly reads: Pick<
    RedisShard['reads'],
    | 'changed'
    | 'end'
    | 'lastId'
    | 'newest'
    | 'page'
    | 'range'
    | 'rewind'
    | 'state'
    | 'states'
    | 'until'
    | 'versions'
    | 'withState'
  >
  readonly isLive: boolean
  clear(topic: string): Promise<Position | null>
  now(): number
  start(listener: ShardListener): void
  subscribe(filter: string): Promise<Position>
  unsubscribe(filter: string): void
}

/** The event log in Redis: its topics are spread over shards, each with an order of ids of its own. */
export class RedisLog implements EventLog, ShardListener {
  readonly #shards: readonly LogShard[]
  readonly #onUp: () => void
  readonly #subscriptions: AllOrNone<LogShard>
  #listener!: EventLogListener
  /** How far this instance has come. */
  readonly #position: Position[]
  /** What it hands over and answers with was read from Redis, and is nowhere else in this process. */
  readonly heldAfter = null
  #up = false
  /** Whether a question was rejected since `up` was said: who asked waits until it is said again. */
  #owesUp = false

  /** `onUp` is called whenever the store answers after it did not. */
  constructor(shards: readonly LogShard[], onUp: () => void) {
    this.#shards = shards
    this.#onUp = onUp
    this.#subscriptions = new AllOrNone(shards, (shard, filter) => shard.unsubscribe(filter))
    this.#position = shards.map(() => ZERO)
  }

  get shards(): number {
    return this.#shards.length
  }

  get birth(): Cursor {
    return this.#shards.map(({ life }) => life.birth)
  }

  get lost(): Cursor {
    return this.#shards.map(({ life }) => life.lost)
  }

  get up(): boolean {
    return this.#up
  }

  shardOf(topic: string): number {
    return shardOf(topic, this.#shards.length)
  }

  /** Doesn't wait for Redis: while it is away the log is down, and comes up when it is there. */
  async start(listener: EventLogListener): Promise<void> {
    this.#listener = listener
    listener.up(false)
    for (const shard of this.#shards) shard.start(this)
  }

  // --- storing ---

  async append(events: readonly Append[]): Promise<Appended[]> {
    const cursor = this.#cursorToKeep(events)
    const parts = this.#shards.map((): { index: number; append: ShardAppend }[] => [])
    events.forEach((event, index) => {
      const print = event.key === undefined ? '' : fingerprint(event)
      parts[this.shardOf(event.topic)]!.push({ index, append: { event, print, ...(cursor && { cursor }) } })
    })
    const appended = new Array<Appended>(events.length)
    const calls = parts.map(async (part, shard) => {
      if (part.length === 0) return
      const outcomes = await this.#shards[shard]!.appends.append(part.map(({ append }) => append))
      part.forEach(({ index }, at) => (appended[index] = this.#appended(outcomes[at]!, shard)))
    })
    await Promise.all(calls)
    return appended
  }

  /**
   * An id says how far the other shards had come, which is another position at each time. So that a key is always answered
   * with the same id, that is stored with the key. With one shard, and without a key, there is nothing to keep.
   */
  #cursorToKeep(events: readonly Append[]): string | undefined {
    const isKept = this.shards > 1 && events.some(({ key }) => key !== undefined)
    return isKept ? formatCursor(this.#position) : undefined
  }

  #appended(outcome: ShardOutcome, shard: number): Appended {
    if (!('id' in outcome)) return { outcome: outcome.outcome }
    const kept = outcome.cursor !== undefined && parseCursor(outcome.cursor, this.shards)
    return { outcome: outcome.outcome, id: (kept || this.#position).with(shard, outcome.id) }
  }

  // --- reading ---

  range(filter: string, after: Cursor, limit: number, asker?: Asker): Promise<Page> {
    return this.#asking(async () => {
      if (isWildcard(filter)) return this.#rangeOfMany(filter, after, limit, asker)
      const shard = this.shardOf(filter)
      const range = await this.#shards[shard]!.reads.until(asker).range([filter], after[shard]!, limit)
      return pageOf([this.#read(shard, range)], after, limit, shard)
    })
  }

  async #rangeOfMany(wildcard: string, after: Cursor, limit: number, asker?: Asker): Promise<Page> {
    const reads = this.#shards.map(async ({ reads }, shard) =>
      this.#read(shard, await rangeOfMany(reads.until(asker), wildcard, after[shard]!, limit))
    )
    return pageOf(await Promise.all(reads), after, limit)
  }

  newest(filter: string, after: Cursor, limit: number, asker?: Asker): Promise<Page> {
    return this.#asking(async () => {
      const own = isWildcard(filter) ? undefined : this.shardOf(filter)
      const reads = this.#shards.map(async ({ reads }, shard) => {
        if (own !== undefined && own !== shard) return []
        return [this.#read(shard, await reads.until(asker).newest(filter, after[shard]!, limit))]
      })
      const page = pageOf((await Promise.all(reads)).flat(), after, limit, own)
      return { events: page.events, end: page.end, gaps: new Map<string, Position>() }
    })
  }

  #read(number: number, range: ShardRead['range']): ShardRead {
    const shard = this.#shards[number]!
    return { shard: number, range, birth: shard.life.birth, now: shard.now() }
  }

  rewind(filter: string, count: number, asker?: Asker): Promise<Map<string, Position>> {
    return this.#asking(async () => {
      if (!isWildcard(filter)) {
        const shard = this.#shardOf(filter)
        return shard.reads.until(asker).rewind([filter], count, shard.now())
      }
      const found = this.#shards.map(async shard => {
        const reads = shard.reads.until(asker)
        const { topics } = await reads.changed(filter, ZERO)
        return reads.rewind(topics, count, shard.now())
      })
      return merged(await Promise.all(found), new Turn(asker))
    })
  }

  state(topic: string, asker?: Asker): Promise<State | null> {
    return this.#asking(() => this.#shardOf(topic).reads.until(asker).state(topic))
  }

  states(topics: readonly string[], asker?: Asker): Promise<Map<string, State>> {
    const ask = (reads: LogShard['reads'], some: readonly string[]) => reads.states(some)
    return this.#asking(() => this.#ofEach(topics, ask, asker))
  }

  versions(topics: readonly string[], asker?: Asker): Promise<Map<string, Position>> {
    const ask = (reads: LogShard['reads'], some: readonly string[]) => reads.versions(some)
    return this.#asking(() => this.#ofEach(topics, ask, asker))
  }

  /** Asks each shard of its own topics. */
  async #ofEach<T>(
    topics: readonly string[],
    ask: (reads: LogShard['reads'], topics: readonly string[]) => Promise<Map<string, T>>,
    asker: Asker | undefined
  ): Promise<Map<string, T>> {
    const parts = this.#shards.map((): string[] => [])
    const turn = new Turn(asker)
    await turn.map(topics, topic => parts[this.shardOf(topic)]!.push(topic))
    const found = this.#shards.map(({ reads }, index) => ask(reads.until(asker), parts[index]!))
    return merged(await Promise.all(found), turn)
  }

  async topics(filter: string, asker?: Asker): Promise<string[]> {
    return isWildcard(filter) ? this.#asking(() => this.#topics(filter, asker)) : [filter]
  }

  async #topics(wildcard: string, asker: Asker | undefined): Promise<string[]> {
    const found = this.#shards.map(async shard => {
      const reads = shard.reads.until(asker)
      const [{ topics }, states] = await Promise.all([
        reads.changed(wildcard, ZERO),
        reads.withState(wildcard)
      ])
      return [topics, states]
    })
    const turn = new Turn(asker)
    const all = new Set<string>()
    for (const topics of (await Promise.all(found)).flat()) await turn.map(topics, topic => all.add(topic))
    return [...all]
  }

  clear(topic: string): Promise<Position | null> {
    return this.#asking(() => this.#shardOf(topic).clear(topic))
  }

  position(): Promise<Cursor> {
    return this.#asking(() => Promise.all(this.#shards.map(({ reads }) => reads.lastId())))
  }

  #shardOf(topic: string): LogShard {
    return this.#shards[this.shardOf(topic)]!
  }

  /** Every question goes through here: whoever is rejected may wait until `up` is said. */
  async #asking<T>(ask: () => Promise<T>): Promise<T> {
    try {
      return await ask()
    } catch (error) {
      if (!(error instanceof Unwanted)) this.#owesUp = true
      throw error
    }
  }

  // --- subscriptions ---

  subscribe(filter: string): Promise<Subscribed> {
    return this.#asking(async () => {
      if (!this.#up) throw disconnected()
      const mayEnd = !isWildcard(filter) && !feedOf(filter)
      const begun = await this.#subscriptions.begin(filter, async shard => {
        const position = await shard.subscribe(filter)
        // asked once its events are handed over: its end is either one of them, or found here
        return { position, end: mayEnd ? await shard.reads.end(filter) : null }
      })
      if (isWildcard(filter)) return { position: begun.map(({ position }) => position), end: null }
      const { position, end } = begun[0]!
      return { position: this.#position.with(this.shardOf(filter), position), end }
    })
  }

  unsubscribe(filter: string): void {
    this.#subscriptions.end(filter)
  }

  // --- what the shards hand over ---

  event(event: StoredEvent): void {
    this.#position[event.shard] = event.id
    this.#listener.event(event)
  }

  tick(shard: number, position: Position): void {
    this.#position[shard] = later(this.#position[shard]!, position)
    this.#listener.tick([...this.#position])
    if (this.#owesUp && this.#up) this.#sayUp()
  }

  jump(shard: number, position: Position): void {
    this.#position[shard] = position
    this.#listener.jump([...this.#position])
  }

  gap(topics: readonly string[]): void {
    this.#listener.gap('lost', topics)
  }

  live(): void {
    const up = this.#shards.every(({ isLive }) => isLive)
    if (up === this.#up) return
    this.#up = up
    if (!up) return this.#listener.up(false)
    this.#onUp()
    this.#sayUp()
  }

  #sayUp(): void {
    this.#owesUp = false
    this.#listener.up(true)
  }
}

async function merged<T>(maps: readonly Map<string, T>[], turn: Turn): Promise<Map<string, T>> {
  if (maps.length === 1) return maps[0]!
  const all = new Map<string, T>()
  for (const map of maps) await turn.map(map, ([topic, value]) => all.set(topic, value))
  return all
}
