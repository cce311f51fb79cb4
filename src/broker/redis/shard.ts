import type { Redis } from 'ioredis'
import type { Clock } from '../../clock.ts'
import { comparePositions, formatPosition, IDEMPOTENCY_MS, isWildcard, later } from '../../event.ts'
import { parsePosition, wildcardOf } from '../../event.ts'
import type { Position, StoredEvent } from '../../event.ts'
import { READER_LATENESS_MS } from '../event-log.ts'
import type { RosterListener } from '../roster.ts'
import { BrokerUnavailable } from '../unavailable.ts'
import { COMMAND_TIMEOUT_MS, type RedisConnections } from './connections.ts'
import { RedisRosterStore } from './roster-store.ts'
import { ShardRoster } from './shard-roster.ts'
import { eventArguments, readEntry, readMessage, readOutcomes } from './wire.ts'
import type { RangeAnswer, RangeEntry, ShardAppend, ShardOutcome } from './wire.ts'

/** How often a shard's position is asked for; it comes back on the connection of the announcements, or that is dead. */
const TICK_MS = 1000

/** How long to wait before another connection is tried, in milliseconds. */
const RETRY_MS = 250

/** How much sooner than we give up Redis must have begun to store: an answer may wait until this process reads it. */
const LATE_MS = 500

/** How many topics' last ids are kept, to find a missed announcement by, between two ticks. */
const MAX_HANDED = 10_000

/** How much goes into one call of the append script: whichever is reached first. */
const MAX_CALL_EVENTS = 500
const MAX_CALL_BYTES = 1_048_576

/** What a shard tells its broker. */
export interface ShardListener extends RosterListener {
  event(event: StoredEvent): void
  tick(shard: number, position: Position): void
  /** What was announced up to here may have been missed: it must be read. */
  jump(shard: number, position: Position): void
  /** An event was announced without the one before it, which can't be handed over in order any more. */
  missed(topic: string): void
  /** The store has forgotten events of these filters that were not handed over here. */
  forgot(filters: readonly string[]): void
  /** Whether announcements come in. */
  live(shard: number, live: boolean): void
  failed(stage: string, error: Error): void
}

export interface ShardOptions {
  readonly shard: number
  readonly tag: string
  readonly connections: RedisConnections
  readonly listener: ShardListener
  readonly clock: Clock
  readonly settings: { readonly KEY_PREFIX: string; readonly RING_SIZE: number; readonly RING_TTL: number }
  readonly instance: string
  readonly sharded: () => boolean
  readonly waitReplicas: number
}

/** One shard of the store: its keys, its scripts, and the connection that its announcements come in on. */
export class RedisShard {
  /** Who is present on its topics. */
  readonly roster: ShardRoster
  birth: Position = ZERO
  lost: Position = ZERO
  live = false
  /** Everything announced up to here has been handed over. */
  #position: Position = ZERO
  /**
   * What was acknowledged from here: of each call the last event, until a later call has found it in the store. One
   * that was stored by a node which is no longer the one is missing there, whatever the other has stored since.
   */
  #acknowledged: Witness[] = []
  /** Whether a call is looking for those. */
  #seeking = false
  /** Whether no call has looked for the latest of them. */
  #isUnproven = false
  /** What was handed over last. */
  #handedLast: Witness | null = null
  /** What was handed over, and by what came after it on its topic is missing. */
  #forgotten: Witness | null = null
  /** The position before the last jump. */
  #jumpedFrom: Position = ZERO
  /** The last id of each topic that an event was handed over of, since the last jump. */
  readonly #handed = new Map<string, Position>()
  readonly #filters = new Map<string, Subscription>()
  readonly #options: ShardOptions
  readonly #prefix: string
  readonly #prefixBytes: number
  #subscriber: Redis | undefined
  #closed = false
  #queue: QueuedAppend[] = []
  /** Redis' clock less ours, as of the last answer, in milliseconds. */
  #offset: number | null = null
  /** Whether a call waits for replicas. */
  #waiting = false
  #tickNumber = 0
  #arrived: (id: Position) => void = () => {}
  #wake: () => void = () => {}
  #waiters: Waiter[] = []

  constructor(options: ShardOptions) {
    this.#options = options
    this.#prefix = `${options.settings.KEY_PREFIX}{${options.tag}}:`
    this.#prefixBytes = Buffer.byteLength(this.#prefix)
    const prefix = this.#prefix
    this.roster = new ShardRoster({
      ...options,
      prefix,
      store: new RedisRosterStore({
        prefix,
        commands: options.connections.commands,
        instance: options.instance,
        isSharded: options.sharded,
        reborn: () => this.#nextTick(),
        onBirth: birth => this.roster.noteBirth(birth)
      }),
      isLive: () => this.live,
      listen: channel => this.#listen([channel]),
      unlisten: channel => this.#unlisten(channel)
    })
  }

  /** Connects, and keeps connected until `close`. */
  start(): void {
    this.roster.start()
    void this.#stayConnected()
  }

  close(): void {
    this.#closed = true
    this.roster.close()
    this.#wake()
    this.#subscriber?.disconnect()
  }

  // --- announcements ---

  /** Resolves with a position after which every event of the filter is handed over. */
  async subscribe(filter: string): Promise<Position> {
    const subscription: Subscription = { isListened: false, base: null }
    this.#filters.set(filter, subscription)
    try {
      if (!this.live) throw new BrokerUnavailable('no connection to Redis')
      await this.#listen([this.#channelOf(filter)])
      subscription.isListened = true
      return await this.#nextTick()
    } catch (error) {
      // unless it was given up and is subscribed to again
      if (this.#filters.get(filter) === subscription) this.#filters.delete(filter)
      throw unavailable(error)
    }
  }

  unsubscribe(filter: string): void {
    this.#filters.delete(filter)
    this.#unlisten(this.#channelOf(filter))
  }

  #unlisten(channel: string): void {
    const subscriber = this.#subscriber
    if (!this.live || !subscriber) return
    const done = this.#options.sharded() ? subscriber.sunsubscribe(channel) : subscriber.unsubscribe(channel)
    done.catch(() => {}) // the connection is being replaced
  }

  async #stayConnected(): Promise<void> {
    const { listener, clock } = this.#options
    while (!this.#closed) {
      let hasMoved = false
      try {
        await this.#followAnnouncements()
      } catch (error) {
        hasMoved = error instanceof SlotMoved
        if (!this.#closed) listener.failed('announcements', error as Error)
      }
      this.#giveUp()
      for (const { reject } of this.#waiters.splice(0))
        reject(new BrokerUnavailable('the connection to Redis was lost'))
      if (!this.#closed && !hasMoved)
        await new Promise<void>(resolve => clock.after(RETRY_MS, (this.#wake = resolve)))
    }
  }

  /** Ends the connection: what it still has to say doesn't count. */
  #giveUp(): void {
    const { listener, shard } = this.#options
    const subscriber = this.#subscriber
    this.#subscriber = undefined
    if (this.live) listener.live(shard, (this.live = false))
    subscriber?.disconnect()
  }

  /** Runs for as long as one connection lives; rejects when it is lost, or silent for too long. */
  async #followAnnouncements(): Promise<void> {
    const { connections, instance, sharded } = this.#options
    const subscriber = await connections.subscriber(`${this.#prefix}clock`, () => {}) // 'close' follows
    this.#subscriber = subscriber
    const lost = new Promise<never>((_, reject) => {
      subscriber.once('close', () => reject(new Error('connection closed')))
      // the node has let go of all channels, as it no longer has their slot
      subscriber.once('moved', () => {
        if (this.#subscriber === subscriber) this.#giveUp()
        reject(new SlotMoved('the slot has moved'))
      })
    })
    lost.catch(() => {})
    const ticks = `${this.#prefix}i:${instance}`
    subscriber.on(sharded() ? 'smessageBuffer' : 'messageBuffer', (channel: Buffer, message: Buffer) => {
      if (this.#subscriber !== subscriber) return
      // what comes after the prefix says what it is: `i` a tick, `m` members and signals, `lost`, else an event
      const kind = channel[this.#prefixBytes]
      if (kind === TICKS) this.#receiveTick(message.toString())
      else if (kind === LOST) this.#receiveLost(message.toString())
      else if (kind === MEMBERS) this.roster.receive(channel.toString(), message)
      else this.#receiveEvent(channel.toString('utf8', this.#prefixBytes + 2), message)
    })
    const filters = [...this.#filters]
    const events = filters.map(([filter]) => this.#channelOf(filter))
    await this.#listen([ticks, `${this.#prefix}lost`, ...events, ...this.roster.channels])
    for (const [, subscription] of filters) subscription.isListened = true
    for (;;) {
      const waiters = this.#waiters
      this.#waiters = []
      try {
        const position = await Promise.race([this.#tick(ticks), lost])
        for (const { resolve } of waiters) resolve(position)
      } catch (error) {
        for (const { reject } of waiters) reject(unavailable(error))
        throw error
      }
      if (this.#waiters.length === 0) await Promise.race([this.#pause(), lost])
    }
  }

  async #listen(channels: string[]): Promise<void> {
    for (let from = 0; from < channels.length; from += 1000) {
      const some = channels.slice(from, from + 1000)
      if (this.#options.sharded()) await this.#subscriber!.ssubscribe(...some)
      else await this.#subscriber!.subscribe(...some)
    }
  }

  #goLive(position: Position): void {
    const { listener, shard } = this.#options
    this.#jump(position)
    this.live = true
    listener.live(shard, true)
  }

  /** Asks for the position and waits until it comes in where the announcements do. */
  async #tick(channel: string): Promise<Position> {
    const { connections, sharded, clock } = this.#options
    const number = String(++this.#tickNumber)
    const arrived = new Promise<Position>((resolve, reject) => {
      const timer = clock.after(COMMAND_TIMEOUT_MS, () =>
        reject(new Error(`a tick did not come back in ${COMMAND_TIMEOUT_MS} ms`))
      )
      this.#arrived = position => {
        timer.cancel()
        resolve(position)
      }
    })
    arrived.catch(() => {})
    const acknowledged = this.#acknowledged
    const handed = [this.#handedLast, this.#forgotten].filter(witness => witness !== null)
    const witnesses = [...acknowledged, ...handed]
    const sought = this.live ? [] : witnesses.filter(({ id }) => this.#isYoung(id))
    const asked = connections.commands.ringsideTick(
      1 + sought.length,
      `${this.#prefix}clock`,
      ...sought.map(({ topic }) => `${this.#prefix}ring:${topic}`),
      sharded() ? 'SPUBLISH' : 'PUBLISH',
      channel,
      number,
      ...numbers(this.#position),
      ...numbers(witnesses.map(({ id }) => id).reduce(later, ZERO)),
      formatPosition(this.birth),
      ...sought.flatMap(({ id }) => numbers(id))
    )
    const [, birth, lost, now] = await asked.catch((error: Error) => {
      // a peer that is gone without a word never closes its connection
      if (error.message.includes('timed out')) connections.replace()
      throw error
    })
    if (sought.length > 0) {
      this.#forgotten = null
      this.#found(acknowledged, null)
    }
    this.#noteClock(now)
    this.#noteLife(birth, lost)
    const position = await arrived
    this.#tellLost()
    if (this.#isUnproven) void this.#prove()
    return position
  }

  /** Comes before what is announced after it. */
  #receiveLost(message: string): void {
    if (!this.live) return // the first tick says it
    this.lost = later(this.lost, parsePosition(message)!)
    this.#handOverTick(this.lost)
    this.#startChains()
    this.#tellLost()
  }

  #tellLost(): void {
    if (comparePositions(this.lost, this.#jumpedFrom) <= 0) return
    this.#jumpedFrom = this.lost
    if (this.live) this.#options.listener.forgot([...this.#filters.keys()])
  }

  #receiveTick(message: string): void {
    const [number, id] = message.split(' ')
    if (number !== String(this.#tickNumber)) return
    const position = parsePosition(id!)!
    // at once: the next announcement counts
    for (const subscription of this.#filters.values())
      if (subscription.isListened) subscription.base ??= position
    if (this.live) this.#handOverTick(position)
    else this.#goLive(position)
    this.#arrived(position)
  }

  #handOverTick(position: Position): void {
    this.#position = later(this.#position, position)
    if (this.#handed.size > MAX_HANDED) this.#startChains()
    this.#options.listener.tick(this.#options.shard, this.#position)
  }

  /** All that was announced so far has been handed over: whatever comes now follows on this position. */
  #startChains(): void {
    this.#handed.clear()
    for (const subscription of this.#filters.values())
      if (subscription.base) subscription.base = this.#position
  }

  #receiveEvent(filter: string, message: Buffer): void {
    // Before a tick has come back nobody knows what was announced before this. It shows that all channels are listened
    // to: a node whose slot went away and came back has forgotten them, and would pass on what was asked for since.
    if (!this.live || !this.#filters.get(filter)?.base) return
    const event = readMessage(message, this.#options.shard)
    if (comparePositions(event.id, this.#position) <= 0) return // it came on the other channel before
    if (this.#hasForgotten(event)) return this.#giveUp()
    const missing = this.#missingBefore(event)
    if (missing && comparePositions(missing, this.#position) > 0) return this.#jump(event.id)
    if (missing) this.#options.listener.missed(event.topic)
    this.#handed.set(event.topic, event.id)
    this.#position = event.id
    this.#handedLast = event
    this.#options.listener.event(event)
  }

  /**
   * Whether it follows on its topic on an event from before the one that was handed over last: then another node leads
   * that never had that one. Before anything of its is handed over, all must be told.
   */
  #hasForgotten({ topic, prev }: StoredEvent): boolean {
    const id = this.#handed.get(topic)
    // without one before, the store has begun anew
    if (!id || !prev || comparePositions(prev, id) >= 0) return false
    this.#forgotten = { topic, id }
    return true
  }

  /** The id of the event before it on its topic, if that should have been handed over and was not. */
  #missingBefore({ topic, prev }: StoredEvent): Position | null {
    if (!prev) return null
    const subscriptions = [this.#filters.get(topic), this.#filters.get(wildcardOf(topic))]
    const bases = subscriptions.map(subscription => subscription?.base).filter(base => !!base)
    const [base] = bases.sort(comparePositions)
    if (!base) return null
    // what was handed over before the filter was given up and taken up again is no link
    const known = later(base, this.#handed.get(topic) ?? base)
    return comparePositions(prev, known) > 0 ? prev : null
  }

  #jump(position: Position): void {
    this.#jumpedFrom = this.#position
    this.#position = later(this.#position, position)
    this.#startChains()
    this.#options.listener.jump(this.#options.shard, this.#position)
    this.roster.jump()
  }

  #nextTick(): Promise<Position> {
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject })
      this.#wake()
    })
  }

  #pause(): Promise<void> {
    return new Promise(resolve => {
      const timer = this.#options.clock.after(TICK_MS, resolve)
      this.#wake = () => {
        timer.cancel()
        resolve()
      }
    })
  }

  // --- storing ---

  /** Stores events with all others of this turn, in one call. Rejects with `BrokerUnavailable`. */
  append(events: readonly ShardAppend[]): Promise<ShardOutcome[]> {
    return new Promise((resolve, reject) => {
      if (this.#queue.push({ events, resolve, reject }) === 1) this.#options.clock.soon(() => this.#flush())
    })
  }

  #flush(): void {
    // one wait at a time: what comes meanwhile goes together in the next call
    if (this.#waiting) return
    const queue = this.#queue
    this.#queue = []
    let call: QueuedAppend[] = []
    let count = 0
    let bytes = 0
    for (const queued of queue) {
      call.push(queued)
      count += queued.events.length
      for (const { event } of queued.events) bytes += event.data.length
      if (count < MAX_CALL_EVENTS && bytes < MAX_CALL_BYTES) continue
      void this.#store(call)
      ;[call, count, bytes] = [[], 0, 0]
    }
    if (call.length > 0) void this.#store(call)
  }

  async #store(call: readonly QueuedAppend[]): Promise<void> {
    this.#waiting = this.#options.waitReplicas > 0
    try {
      const outcomes = await this.#callAppend(call)
      let index = 0
      for (const { events, resolve } of call) resolve(outcomes.slice(index, (index += events.length)))
    } catch (error) {
      for (const { reject } of call) reject(unavailable(error))
    }
    if (!this.#waiting) return
    this.#waiting = false
    if (this.#queue.length > 0) this.#flush()
  }

  /** Looks for what was acknowledged last where nothing is stored after it. A tick can't: it must not fail with it. */
  async #prove(): Promise<void> {
    await this.#callAppend([]).catch(() => {}) // the next tick tries again
  }

  async #callAppend(call: readonly QueuedAppend[]): Promise<ShardOutcome[]> {
    const { connections, settings, sharded, waitReplicas } = this.#options
    if (this.#offset === null) throw new BrokerUnavailable('no connection to Redis')
    // one call at a time looks, however many have not been answered
    const known = this.#seeking ? [] : this.#acknowledged
    const sought = known.filter(({ id }) => this.#isYoung(id))
    const keys = ['clock', ...sought.map(({ topic }) => `ring:${topic}`)].map(key => this.#prefix + key)
    const args: (string | Buffer)[] = [
      ...keys,
      this.#prefix,
      sharded() ? 'SPUBLISH' : 'PUBLISH',
      // what is answered 503 for want of an answer must not be stored later
      String(Math.round(performance.now() + this.#offset + COMMAND_TIMEOUT_MS - LATE_MS)),
      String(this.#position.ms),
      String(settings.RING_SIZE),
      String(settings.RING_TTL + READER_LATENESS_MS),
      String(IDEMPOTENCY_MS),
      call.map(({ events }) => events.length).join(' '),
      formatPosition(this.birth),
      ...sought.flatMap(({ id }) => numbers(id))
    ]
    for (const { events } of call) for (const event of events) args.push(...eventArguments(event))
    const seeks = sought.length > 0
    if (seeks) this.#seeking = true
    try {
      const answer =
        waitReplicas > 0
          ? await this.#appendAndWait(keys.length, args)
          : await connections.commands.ringsideAppend(keys.length, ...args)
      if (answer[0] === 'late') throw new BrokerUnavailable('Redis did not take it in time')
      this.#noteClock(answer[1]!)
      const outcomes = readOutcomes(answer)
      const made = witnessOf(call, outcomes)
      this.#isUnproven = made !== null || (this.#isUnproven && !seeks)
      this.#found(known, made)
      return outcomes
    } finally {
      if (seeks) this.#seeking = false
    }
  }

  /** A call has found witnesses, and made one: the latest stands for all, as the node that has it has all of them. */
  #found(known: readonly Witness[], made: Witness | null): void {
    const others = this.#acknowledged.filter(witness => !known.includes(witness))
    const latest = [...known, ...(made ? [made] : [])].sort((a, b) => comparePositions(a.id, b.id)).at(-1)
    this.#acknowledged = latest ? [...others, latest] : others
  }

  async #appendAndWait(keys: number, args: (string | Buffer)[], isRetry = false): Promise<string[]> {
    const { connections, waitReplicas } = this.#options
    const pipeline = connections.appends.pipeline()
    pipeline.ringsideAppend(keys, ...args)
    pipeline.wait(waitReplicas, COMMAND_TIMEOUT_MS / 2)
    const [appended, waited] = (await pipeline.exec()) ?? []
    if (appended?.[0]?.message.startsWith('MOVED') && !isRetry) {
      await connections.refresh()
      return this.#appendAndWait(keys, args, true)
    }
    if (appended?.[0]) throw appended[0]
    if (waited?.[0]) throw waited[0]
    const replicas = Number(waited?.[1] ?? 0)
    if (replicas < waitReplicas)
      throw new BrokerUnavailable(`only ${replicas} of ${waitReplicas} replicas have it`)
    return appended![1] as string[]
  }

  // --- reading ---

  /** The events after a position on topics of one family. */
  async range(topics: readonly string[], after: Position, limit: number): Promise<ShardRange> {
    try {
      const family = wildcardOf(topics[0]!)
      const keys = [
        `${this.#prefix}clock`,
        `${this.#prefix}last:${family}`,
        ...topics.map(topic => `${this.#prefix}ring:${topic}`)
      ]
      const answer = await this.#options.connections.commands.ringsideRangeBuffer(
        keys.length,
        ...keys,
        formatPosition(later(after, this.#horizon())),
        String(limit),
        ...topics
      )
      return this.#readRange(answer as unknown as RangeAnswer, topics)
    } catch (error) {
      throw unavailable(error)
    }
  }

  #readRange([given, birth, lost, ...rest]: RangeAnswer, topics: readonly string[]): ShardRange {
    const through = parsePosition(given.toString())
    if (!through) throw emptied()
    this.#noteLife(birth.toString(), lost.toString())
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

  /** The topics under a wildcard that changed after a position, and the id given last before that was looked up. */
  async changed(family: string, after: Position): Promise<{ through: Position; topics: string[] }> {
    try {
      const { commands } = this.#options.connections
      const given = this.given()
      const topics = commands.zrangebyscore(`${this.#prefix}index:${family}`, after.ms, '+inf')
      const [through, names] = await Promise.all([given, topics])
      return { through, topics: names }
    } catch (error) {
      throw unavailable(error)
    }
  }

  async lastEvents(topic: string, count: number): Promise<StoredEvent[]> {
    try {
      const entries = await this.#options.connections.commands.xrevrangeBuffer(
        `${this.#prefix}ring:${topic}`,
        '+',
        formatPosition(this.#horizon()),
        'COUNT',
        count
      )
      return (entries as unknown as RangeEntry[])
        .map(entry => readEntry(entry, topic, this.#options.shard))
        .reverse()
    } catch (error) {
      throw unavailable(error)
    }
  }

  async state(topic: string): Promise<{ value: string; version: Position } | null> {
    try {
      const [value, version] = await this.#options.connections.commands.hmget(
        `${this.#prefix}state:${topic}`,
        'value',
        'version'
      )
      return value == null || version == null ? null : { value, version: parsePosition(version)! }
    } catch (error) {
      throw unavailable(error)
    }
  }

  /** The topics under a wildcard that have a state. */
  async states(family: string): Promise<string[]> {
    try {
      return await this.#options.connections.commands.smembers(`${this.#prefix}states:${family}`)
    } catch (error) {
      throw unavailable(error)
    }
  }

  /** The id given last, now. */
  async given(): Promise<Position> {
    try {
      const [ms, seq, birth, lost] = await this.#options.connections.commands.hmget(
        `${this.#prefix}clock`,
        ...['ms', 'seq', 'birth', 'lost']
      )
      if (!ms || !birth) throw emptied()
      this.#noteLife(birth, lost ?? '')
      return { ms: Number(ms), seq: Number(seq) }
    } catch (error) {
      throw unavailable(error)
    }
  }

  /** What Redis' clock says, in milliseconds since the epoch, as far as the last answer tells. */
  now(): number {
    return this.#offset === null ? this.#position.ms : performance.now() + this.#offset
  }

  /** A ring may hold older events than are to be read: it goes away as a whole. */
  #horizon(): Position {
    return { ms: Math.max(0, this.#position.ms - this.#options.settings.RING_TTL), seq: 0 }
  }

  #channelOf(filter: string): string {
    return `${this.#prefix}${isWildcard(filter) ? 'w' : 't'}:${filter}`
  }

  /** Whether a ring must still hold it, unless newer events have pushed it out. */
  #isYoung({ ms }: Position): boolean {
    return ms > this.now() - this.#options.settings.RING_TTL / 2
  }

  #noteClock(now: string): void {
    this.#offset = parsePosition(now)!.ms - performance.now()
  }

  #noteLife(birth: string, lost: string): void {
    this.birth = parsePosition(birth) ?? this.birth
    // what was stored before it began anew is not to be found
    const isOfThisLife = ({ id }: Witness) => comparePositions(id, this.birth) > 0
    this.#acknowledged = this.#acknowledged.filter(isOfThisLife)
    if (this.#handedLast && !isOfThisLife(this.#handedLast)) this.#handedLast = null
    if (this.#forgotten && !isOfThisLife(this.#forgotten)) this.#forgotten = null
    this.lost = parsePosition(lost) ?? ZERO
    if (birth) this.roster.noteBirth(birth)
  }
}

/** The node that announcements came from no longer has the shard's slot. */
class SlotMoved extends Error {}

const ZERO: Position = { ms: 0, seq: 0 }

/** The first letters of the channels' names. */
const TICKS = 0x69
const LOST = 0x6c
const MEMBERS = 0x6d

export interface ShardRange {
  /** Complete up to here. */
  readonly through: Position
  readonly topics: readonly {
    readonly topic: string
    readonly last: Position | null
    readonly events: StoredEvent[]
  }[]
}

/** An event that was in the store. */
interface Witness {
  readonly topic: string
  readonly id: Position
}

/** A filter that announcements are asked for. */
interface Subscription {
  /** Whether Redis has confirmed it. */
  isListened: boolean
  /** All that was announced after it is handed over; null until a tick has come in since then. */
  base: Position | null
}

interface QueuedAppend {
  readonly events: readonly ShardAppend[]
  readonly resolve: (outcomes: ShardOutcome[]) => void
  readonly reject: (error: Error) => void
}

interface Waiter {
  readonly resolve: (position: Position) => void
  readonly reject: (error: Error) => void
}

/** What shows that a call was not forgotten: the event that it stored last, or else one that had been stored before. */
function witnessOf(call: readonly QueuedAppend[], outcomes: readonly ShardOutcome[]): Witness | null {
  const stored = outcomes.findLastIndex(({ outcome }) => outcome === 'stored')
  const index = stored < 0 ? outcomes.findLastIndex(({ outcome }) => outcome === 'replayed') : stored
  const found = outcomes[index]
  if (!found || !('id' in found)) return null
  return { topic: call.flatMap(({ events }) => events)[index]!.event.topic, id: found.id }
}

function numbers({ ms, seq }: Position): [string, string] {
  return [String(ms), String(seq)]
}

/** Until the next tick has begun its new life, the store can't say what is missing. */
function emptied(): BrokerUnavailable {
  return new BrokerUnavailable('Redis was emptied')
}

function unavailable(error: unknown): BrokerUnavailable {
  if (error instanceof BrokerUnavailable) return error
  const { message } = error as Error
  // without a connection ioredis speaks of its own options
  const isDown = message.includes('enableOfflineQueue')
  return new BrokerUnavailable(isDown ? 'no connection to Redis' : `Redis: ${message}`)
}
