import type { Clock } from '../../clock.ts'
import { formatPosition, later, parsePosition, wildcardOf } from '../../event.ts'
import type { Position, StoredEvent } from '../../event.ts'
import type { Memory } from '../../memory.ts'
import type { Rules } from '../../rules/rules.ts'
import type { RosterListener } from '../roster.ts'
import { Announcements } from './announcements.ts'
import { Appends } from './appends.ts'
import { Checkpoints } from './checkpoints.ts'
import type { RedisConnections } from './connections.ts'
import { Fitness } from './fitness.ts'
import { ShardKeys } from './keys.ts'
import { Life, ZERO } from './life.ts'
import { Link, type LinkConnection, type LinkConnectionListener } from './link.ts'
import type { Report } from './open.ts'
import { ShardReads } from './reads.ts'
import { Requirements } from './requirements.ts'
import { RedisRosterStore } from './roster-store.ts'
import { ShardRoster } from './shard-roster.ts'
import { hashTag } from './sharding.ts'
import { disconnected, Unfit, unavailable } from './unavailable.ts'
import { positionArguments } from './wire.ts'

/** What a shard hands over to its log. */
export interface ShardListener {
  event(event: StoredEvent): void
  /** Everything up to here has been handed over. */
  tick(shard: number, position: Position): void
  /** What was announced up to here may have been missed: it must be read. */
  jump(shard: number, position: Position): void
  /** Events of these filters or topics, after what was handed over last, are lost. */
  gap(filters: readonly string[]): void
  /** `isLive` has changed. */
  live(): void
}

export interface ShardSettings {
  readonly KEY_PREFIX: string
  readonly RING_SIZE: number
  readonly RING_TTL: number
  readonly SHARDS: number
  readonly WAIT_REPLICAS: number
}

export interface ShardOptions {
  readonly shard: number
  readonly connections: RedisConnections
  readonly settings: ShardSettings
  readonly clock: Clock
  /** This instance's name among all that share the store. */
  readonly instance: string
  readonly rosterListener: RosterListener
  readonly memory: Memory
  readonly rules: Rules
  readonly report: Report
  /** Is told what the store lacks, so that it can't be used. */
  readonly unfit: (unfit: Unfit) => void
  /** Is told what nobody can find out of the store. */
  readonly warn: Report
}

/** One shard of the store, as its parts together. */
export class RedisShard {
  readonly keys: ShardKeys
  readonly life: Life
  readonly fitness: Fitness
  readonly appends: Appends
  readonly reads: ShardReads
  /** Who is present on its topics. */
  readonly roster: ShardRoster
  readonly #options: ShardOptions
  readonly #announcements: Announcements
  readonly #checkpoints: Checkpoints
  readonly #link: Link
  #listener!: ShardListener

  constructor(options: ShardOptions) {
    const { clock, connections, rules, settings, shard } = options
    this.#options = options
    const tag = hashTag(shard, settings.SHARDS)
    const keys = new ShardKeys(settings.KEY_PREFIX, tag, connections.database)
    const life = new Life({ ringTtl: settings.RING_TTL, onBirth: birth => this.roster.noteBirth(birth) })
    const checkpoints = new Checkpoints(life)
    const position = () => this.#announcements.position
    this.keys = keys
    this.life = life
    this.fitness = this.#makeFitness(tag)
    this.#checkpoints = checkpoints
    this.#announcements = this.#makeAnnouncements()
    this.#link = this.#makeLink()
    this.appends = new Appends({
      ...{ checkpoints, clock, keys, life, position, rules },
      store: this.fitness.guard(connections),
      waits: settings.WAIT_REPLICAS > 0,
      publishCommand: () => connections.publishCommand,
      announced: () => this.#announced()
    })
    this.reads = new ShardReads({ keys, life, position, rules, shard, store: connections.reads })
    this.roster = this.#makeRoster()
  }

  /** Whether announcements come in. */
  get isLive(): boolean {
    return this.#announcements.isLive
  }

  /** Connects, and keeps connected until `close`. */
  start(listener: ShardListener): void {
    this.#listener = listener
    this.roster.start()
    this.#link.start()
  }

  close(): void {
    this.roster.close()
    this.#link.close()
  }

  /** What the store's clock says, in milliseconds since the epoch, as far as is known. */
  now(): number {
    return this.life.now() ?? this.#announcements.position.ms
  }

  /** Resolves with a position after which every event of the filter is handed over. Rejects with `BrokerUnavailable`. */
  async subscribe(filter: string): Promise<Position> {
    if (!this.isLive) throw disconnected()
    const channel = this.#announcements.add(filter)
    try {
      await this.#link.listen(this.keys.events(filter))
      channel.isListened = true
      return await this.#link.nextTick()
    } catch (error) {
      this.#announcements.remove(filter, channel)
      if (error instanceof Unfit) this.#giveUp(error)
      throw unavailable(error)
    }
  }

  unsubscribe(filter: string): void {
    this.#announcements.remove(filter)
    this.#link.unlisten(this.keys.events(filter))
  }

  /** Lets go of the events of a topic and of its state: see `EventLog.clear`. Rejects with `BrokerUnavailable`. */
  async clear(topic: string): Promise<Position | null> {
    const { keys } = this
    const wildcard = wildcardOf(topic)
    const names = [keys.last(wildcard), keys.ring(topic), keys.state(topic), keys.states(wildcard)] as const
    try {
      const last = await this.#options.connections.clear(...names, topic)
      return parsePosition(last) ?? null
    } catch (error) {
      throw unavailable(error)
    }
  }

  // --- ticks ---

  /**
   * Calls the tick script, which announces the position on the channel of this instance's ticks. On a new connection it
   * verifies all checkpoints, so that what another primary lacks is known before anything else is handed over. Later it
   * verifies none: of a slot that is on its way to another node all calls with several keys are refused, and a tick must
   * not fail with them.
   */
  async #askForTick(number: number): Promise<void> {
    const stored = this.#checkpoints.current()
    const handedOver = this.#announcements.checkpoints.filter(({ id }) => this.life.includes(id))
    const all = [...stored, ...handedOver]
    const asked = this.isLive ? [] : all.filter(({ id }) => this.life.isYoung(id))
    const [, birth, lost, now] = await this.#callTick([
      1 + asked.length,
      this.keys.clock,
      ...asked.map(({ topic }) => this.keys.ring(topic)),
      this.#options.connections.publishCommand,
      this.#options.instance,
      String(number),
      ...positionArguments(this.#announcements.position),
      ...positionArguments(all.map(({ id }) => id).reduce(later, ZERO)),
      formatPosition(this.life.birth),
      ...asked.flatMap(({ id }) => positionArguments(id))
    ])
    if (asked.length > 0) {
      this.#announcements.verified()
      this.#checkpoints.verified({ checkpoints: stored }, null)
    }
    this.life.noteClock(now)
    this.life.note(birth, lost)
  }

  async #callTick(args: [keys: number, ...args: string[]]): Promise<[string, string, string, string]> {
    const { connections } = this.#options
    try {
      return await connections.tick(...args)
    } catch (error) {
      // a peer that is gone without a word never closes its connection
      if ((error as Error).message.includes('timed out')) connections.replace()
      throw error
    }
  }

  // --- what comes in ---

  /** Takes a message by what its channel is for. */
  #receive(channel: Buffer, message: Buffer): void {
    switch (this.keys.kindOf(channel)) {
      case 'event':
        return this.#announcements.event(this.keys.filterOf(channel), message)
      case 'tick':
        return this.#link.receiveTick(message.toString())
      case 'members':
        return this.roster.receive(channel.toString(), message)
      case 'loss':
        return this.#receiveLoss(message.toString())
    }
  }

  /** Resolves once all that was announced before has come in, or nothing comes in: a tick comes behind it. */
  async #announced(): Promise<void> {
    if (this.isLive) await this.#link.nextTick().catch(() => {})
  }

  #receiveLoss(message: string): void {
    if (!this.isLive) return // the first tick says it
    this.life.noteLoss(parsePosition(message)!)
    this.#announcements.loss(this.life.lost)
  }

  /** Gives up the connection: the store lacks what is needed. */
  #giveUp(unfit: Unfit): void {
    this.#options.unfit(unfit)
    this.#link.giveUp()
  }

  // --- the parts ---

  #makeAnnouncements(): Announcements {
    const { shard } = this.#options
    return new Announcements(shard, {
      event: event => this.#listener.event(event),
      tick: position => this.#listener.tick(shard, position),
      jump: position => {
        this.#listener.jump(shard, position)
        this.roster.jump()
      },
      gap: filters => this.#listener.gap(filters),
      live: () => this.#listener.live(),
      fork: () => this.#link.giveUp()
    })
  }

  #makeLink(): Link {
    const { clock, instance, report, unfit } = this.#options
    const { keys } = this
    return new Link({
      clock,
      connect: listener => this.#connect(listener),
      channels: () => [
        keys.ticks(instance),
        keys.losses,
        ...this.#announcements.filters.map(filter => keys.events(filter)),
        ...this.roster.channels
      ],
      askForTick: number => this.#askForTick(number),
      listener: {
        message: (channel, message) => this.#receive(channel, message),
        tick: position => this.#announcements.tick(position),
        ticked: () => {
          this.#announcements.checkLoss(this.life.lost)
          this.appends.verify()
          this.fitness.checkInTime()
        },
        down: () => this.#announcements.goDown(),
        failed: error => (error instanceof Unfit ? unfit(error) : report('announcements', error))
      }
    })
  }

  /** A connection to a store that has been tried out. */
  async #connect(listener: LinkConnectionListener): Promise<LinkConnection> {
    const connection = await this.#options.connections.subscriber(this.keys.clock, listener)
    try {
      await this.fitness.connected()
      return connection
    } catch (error) {
      connection.disconnect()
      throw error
    }
  }

  #makeFitness(tag: string): Fitness {
    const { connections, instance, settings, warn } = this.#options
    const requirements = new Requirements({
      keys: this.keys,
      trialKeys: new ShardKeys(`${settings.KEY_PREFIX}try:${instance}:`, tag),
      store: () => connections.commands,
      publishCommand: () => connections.publishCommand,
      unknown: error => warn('store', error)
    })
    return new Fitness({
      requirements,
      elapsed: () => this.life.elapsed(),
      refused: error => connections.wouldRefuse(error),
      unfit: error => this.#giveUp(error)
    })
  }

  #makeRoster(): ShardRoster {
    const { clock, connections, instance, memory, rosterListener } = this.#options
    const { keys } = this
    const store = new RedisRosterStore({
      ...{ instance, keys },
      commands: connections.roster,
      publishCommand: () => connections.publishCommand,
      reborn: () => this.#link.nextTick(),
      onBirth: birth => this.roster.noteBirth(birth)
    })
    return new ShardRoster({
      ...{ clock, keys, memory, store },
      listener: rosterListener,
      isLive: () => this.isLive,
      listen: channel => this.#link.listen(channel),
      unlisten: channel => this.#link.unlisten(channel)
    })
  }
}
