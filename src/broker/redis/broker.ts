import { createHash, randomUUID } from 'node:crypto'
import type { Clock } from '../../clock.ts'
import type { Settings } from '../../config.ts'
import { comparePositions, earlier, isWildcard, justBefore, later } from '../../event.ts'
import type { Cursor, Member, Position, Signal, StoredEvent } from '../../event.ts'
import type { Broker } from '../broker.ts'
import type { Append, Appended, EventLog, EventLogListener, Page, State } from '../event-log.ts'
import type { Roster, RosterListener } from '../roster.ts'
import { TALLY_MS, type Tally } from '../tally.ts'
import { BrokerUnavailable } from '../unavailable.ts'
import { hashTag, RedisConnections, type RedisTarget } from './connections.ts'
import { RedisShard, type ShardListener, type ShardRange } from './shard.ts'
import type { ShardAppend, ShardOutcome } from './wire.ts'

/** How many topics of a wildcard are read in one call. */
const TOPICS_A_CALL = 100

/** The fewest events of each topic of a wildcard that are read in one call. */
const LEAST_EACH = 8

/** Beyond every position: where a filter has no topics, its events are complete up to anywhere. */
const FAR: Position = { ms: Number.MAX_SAFE_INTEGER, seq: 0 }

export type RedisSettings = Pick<
  Settings,
  'KEY_PREFIX' | 'RING_SIZE' | 'RING_TTL' | 'SHARDS' | 'WAIT_REPLICAS'
>

/** Everything in Redis, so that any number of instances are one hub. */
export class RedisBroker implements Broker, EventLog, Roster, Tally, ShardListener {
  readonly log: EventLog = this
  readonly roster: Roster = this
  readonly tally: Tally = this
  readonly shards: number
  readonly #shards: RedisShard[]
  readonly #connections: RedisConnections
  readonly #prefix: string
  readonly #instance = randomUUID()
  readonly #report: (stage: string, error: Error) => void
  #listener!: EventLogListener
  #heard!: RosterListener
  #sharded = false
  #position: Position[]
  /** What was asked for last of each filter whose members are followed. */
  readonly #follows = new Map<string, object>()
  #up = false
  /** Whether a read has failed since `up` was told. */
  #failed = false
  #reported = false
  #closed = false

  constructor(
    target: RedisTarget,
    settings: RedisSettings,
    clock: Clock,
    report: (stage: string, error: Error) => void
  ) {
    this.shards = settings.SHARDS
    this.#report = report
    const waits = settings.WAIT_REPLICAS > 0
    this.#connections = new RedisConnections(target, waits, error => this.failed('commands', error))
    this.#prefix = settings.KEY_PREFIX
    this.#shards = Array.from(
      { length: settings.SHARDS },
      (_, shard) =>
        new RedisShard({
          ...{
            shard,
            tag: hashTag(shard, settings.SHARDS),
            connections: this.#connections,
            listener: this,
            clock,
            settings
          },
          ...{ instance: this.#instance, sharded: () => this.#sharded, waitReplicas: settings.WAIT_REPLICAS }
        })
    )
    this.#position = this.#shards.map(() => ({ ms: 0, seq: 0 }))
  }

  get birth(): Cursor {
    return this.#shards.map(({ birth }) => birth)
  }

  get lost(): Cursor {
    return this.#shards.map(({ lost }) => lost)
  }

  get up(): boolean {
    return this.#up
  }

  /** FNV-1a over the topic's bytes: the same in every instance, and even for names that differ little. */
  shardOf(topic: string): number {
    if (this.shards === 1) return 0
    let hash = 0x811c9dc5
    for (const byte of Buffer.from(topic)) hash = Math.imul(hash ^ byte, 0x01000193)
    return (hash >>> 0) % this.shards
  }

  /** Doesn't wait for Redis: while it is away the broker is down, and comes up when it is there. */
  async start(listener: EventLogListener): Promise<void> {
    this.#listener = listener
    listener.up(false)
    void this.#begin()
  }

  async #begin(): Promise<void> {
    try {
      this.#sharded = await this.#connections.shardsPubSub()
    } catch (error) {
      this.failed('commands', error as Error)
      if (!this.#closed) setTimeout(() => void this.#begin(), 500).unref()
      return
    }
    for (const shard of this.#shards) shard.start()
    const policy = await this.#connections.evictionPolicy().catch(() => null) // an ACL may forbid to ask
    if (policy)
      this.#report(
        'memory',
        new Error(`maxmemory-policy ${policy} may evict what is still to be read; set noeviction`)
      )
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const shard of this.#shards) shard.close()
    await this.#connections.close()
  }

  // --- counting ---

  async count(counts: ReadonlyMap<string, number>): Promise<Map<string, number>> {
    const others = new Map<string, number>()
    const calls = [...counts].map(async ([name, count]) => {
      // a name may be of any length, and nobody's business
      const digest = createHash('sha256').update(name).digest('base64url')
      const key = `${this.#prefix}{${hashTag(this.shardOf(name), this.shards)}}:t:${digest}`
      const args = [this.#instance, `${count}`, `${TALLY_MS}`]
      others.set(name, await this.#connections.commands.ringsideTally(key, ...args))
    })
    // what can't be had is tried again soon
    await Promise.allSettled(calls)
    return others
  }

  // --- storing ---

  async append(events: readonly Append[]): Promise<Appended[]> {
    const parts = this.#shards.map((): { index: number; append: ShardAppend }[] => [])
    events.forEach((event, index) => {
      parts[this.shardOf(event.topic)]!.push({ index, append: { event, print: fingerprint(event) } })
    })
    const appended = new Array<Appended>(events.length)
    const calls = parts.map(async (part, shard) => {
      if (part.length === 0) return
      const outcomes = await this.#shards[shard]!.append(part.map(({ append }) => append))
      part.forEach(({ index }, at) => (appended[index] = this.#appended(outcomes[at]!, shard)))
    })
    await Promise.all(calls)
    return appended
  }

  #appended(outcome: ShardOutcome, shard: number): Appended {
    return 'id' in outcome
      ? { outcome: outcome.outcome, id: this.#position.with(shard, outcome.id) }
      : { outcome: outcome.outcome }
  }

  // --- reading ---

  async range(filter: string, after: Cursor, limit: number): Promise<Page> {
    try {
      if (isWildcard(filter)) return await this.#rangeOfMany(filter, after, limit)
      const shard = this.shardOf(filter)
      const range = await this.#shards[shard]!.range([filter], after[shard]!, limit)
      return this.#page([{ shard, range }], after, limit, shard)
    } catch (error) {
      this.#failed = true
      throw error
    }
  }

  async #rangeOfMany(filter: string, after: Cursor, limit: number): Promise<Page> {
    const reads = await Promise.all(
      this.#shards.map(async (shard, number) => {
        const { through, topics } = await shard.changed(filter, after[number]!)
        // of many topics a few events each: where there are more, the page ends
        const each = Math.min(limit, Math.max(LEAST_EACH, Math.ceil((2 * limit) / topics.length)))
        const found: ShardRange['topics'][number][] = []
        for (let from = 0; from < topics.length; from += TOPICS_A_CALL) {
          const some = topics.slice(from, from + TOPICS_A_CALL)
          found.push(...(await shard.range(some, after[number]!, each)).topics)
        }
        // a topic that was born since the look-up would be missed beyond this
        const complete = found.reduce(
          (least, { events }) => earlier(least, completeTo(events, each)),
          through
        )
        return { shard: number, range: { through: complete, topics: found } }
      })
    )
    return this.#page(reads, after, limit)
  }

  /** One page of what was read; `only`: the one shard that the filter's topics are in. */
  #page(reads: readonly ShardRead[], after: Cursor, limit: number, only?: number): Page {
    const gaps = new Map<string, Position>()
    const events: StoredEvent[] = []
    const end: Position[] = after.map((_, shard) =>
      only === undefined || only === shard ? after[shard]! : FAR
    )
    for (const { shard, range } of reads) {
      const from = after[shard]!
      // the store began anew since: whoever reads on must be told so
      if (comparePositions(this.birth[shard]!, from) > 0) continue
      const lists = range.topics.map(({ topic, last, events: found }) => {
        const loss = lossAfter(from, found, last)
        if (loss) gaps.set(topic, loss)
        return found
      })
      const { kept, through } = firstOf(lists, limit, range.through)
      const now = this.#shards[shard]!.now()
      events.push(...kept.filter(({ expires = Infinity }) => expires > now))
      end[shard] = later(from, through)
    }
    return { events, end, gaps }
  }

  async rewind(filter: string, count: number): Promise<Map<string, Position>> {
    const starts = new Map<string, Position>()
    await Promise.all(
      (await this.topics(filter)).map(async topic => {
        const [first] = await this.#shards[this.shardOf(topic)]!.lastEvents(topic, count)
        if (first) starts.set(topic, justBefore(first))
      })
    )
    return starts
  }

  async state(topic: string): Promise<State | null> {
    return this.#shards[this.shardOf(topic)]!.state(topic)
  }

  async topics(filter: string): Promise<string[]> {
    if (!isWildcard(filter)) return [filter]
    const found = await Promise.all(
      this.#shards.map(async shard => {
        const [{ topics }, states] = await Promise.all([
          shard.changed(filter, { ms: 0, seq: 0 }),
          shard.states(filter)
        ])
        return [...topics, ...states]
      })
    )
    return [...new Set(found.flat())]
  }

  position(): Promise<Cursor> {
    return Promise.all(this.#shards.map(shard => shard.given()))
  }

  // --- who is present ---

  listen(listener: RosterListener): void {
    this.#heard = listener
  }

  async follow(filter: string): Promise<void> {
    const follow = {}
    this.#follows.set(filter, follow)
    const results = await Promise.allSettled(
      this.#shardsOf(filter).map(({ roster }) => roster.follow(filter))
    )
    const failed = results.find(({ status }) => status === 'rejected')
    if (failed?.status !== 'rejected') return
    // unless it was given up and is followed again
    if (this.#follows.get(filter) === follow) this.unfollow(filter)
    throw failed.reason
  }

  unfollow(filter: string): void {
    this.#follows.delete(filter)
    for (const { roster } of this.#shardsOf(filter)) roster.unfollow(filter)
  }

  members(topic: string): readonly Member[] {
    return this.#rosterOf(topic).members(topic)
  }

  join(topic: string, member: Member): Promise<void> {
    return this.#rosterOf(topic).join(topic, member)
  }

  leave(topic: string, id: string): Promise<void> {
    return this.#rosterOf(topic).leave(topic, id)
  }

  signal(signal: Signal): Promise<void> {
    return this.#rosterOf(signal.topic).signal(signal)
  }

  #rosterOf(topic: string) {
    return this.#shards[this.shardOf(topic)]!.roster
  }

  joined(filter: string, topic: string, member: Member): void {
    this.#heard.joined(filter, topic, member)
  }

  left(filter: string, topic: string, member: Member): void {
    this.#heard.left(filter, topic, member)
  }

  signalled(filter: string, signal: Signal): void {
    this.#heard.signalled(filter, signal)
  }

  // --- announcements ---

  async subscribe(filter: string): Promise<Cursor> {
    if (!this.#up) throw new BrokerUnavailable('no connection to Redis')
    const positions = await Promise.all(this.#shardsOf(filter).map(shard => shard.subscribe(filter)))
    return isWildcard(filter) ? positions : this.#position.with(this.shardOf(filter), positions[0]!)
  }

  unsubscribe(filter: string): void {
    for (const shard of this.#shardsOf(filter)) shard.unsubscribe(filter)
  }

  /** Where the topics are that a filter covers. */
  #shardsOf(filter: string): readonly RedisShard[] {
    return isWildcard(filter) ? this.#shards : [this.#shards[this.shardOf(filter)]!]
  }

  event(event: StoredEvent): void {
    this.#position[event.shard] = event.id
    this.#listener.event(event)
  }

  tick(shard: number, position: Position): void {
    this.#position[shard] = later(this.#position[shard]!, position)
    this.#listener.tick([...this.#position])
    if (!this.#failed || !this.#up) return
    this.#failed = false
    this.#listener.up(true)
  }

  jump(shard: number, position: Position): void {
    this.#position[shard] = position
    this.#listener.jump([...this.#position])
  }

  missed(topic: string): void {
    this.#listener.gap('lost', [topic])
  }

  forgot(filters: readonly string[]): void {
    this.#listener.gap('lost', filters)
  }

  live(): void {
    const up = this.#shards.every(({ live }) => live)
    if (up === this.#up) return
    this.#up = up
    this.#failed = false
    if (up) this.#reported = false
    this.#listener.up(up)
  }

  /** Reports what went wrong first; what follows from it would fill the log until Redis is back. */
  failed(stage: string, error: Error): void {
    if (this.#closed || this.#reported) return
    this.#reported = true
    this.#report(stage, error)
  }
}

interface ShardRead {
  readonly shard: number
  readonly range: ShardRange
}

/** The last event of a topic that is gone although it came after a cursor; null when none is. */
function lossAfter(after: Position, [first]: readonly StoredEvent[], last: Position | null): Position | null {
  const reached = first ? first.prev : last
  return reached && comparePositions(reached, after) > 0 ? reached : null
}

/** The oldest of some topics' events, and up to where they are all. A full list may have been cut. */
function firstOf(lists: readonly StoredEvent[][], limit: number, through: Position) {
  const all = lists.flat().filter(({ id }) => comparePositions(id, through) <= 0)
  if (lists.length > 1) all.sort((a, b) => comparePositions(a.id, b.id))
  const kept = all.slice(0, limit)
  return { kept, through: kept.length < limit ? through : kept.at(-1)!.id }
}

/** Up to where a list that was asked for so many events is all of them. */
function completeTo(events: readonly StoredEvent[], asked: number): Position {
  return events.length < asked ? FAR : events.at(-1)!.id
}

/** What tells two events under one key apart, without keeping their data. */
function fingerprint({ topic, type, data, key }: Append): string {
  if (key === undefined) return ''
  return createHash('sha256').update(`${topic}\n${type}\n`).update(data).digest('base64')
}
