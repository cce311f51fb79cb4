import { parsePosition, wildcardOf } from '../../event.ts'
import type { Position, Signal } from '../../event.ts'
import type { ShardKeys } from './keys.ts'
import { emptied, unavailable } from './unavailable.ts'
import { readMembers, signalBytes } from './wire.ts'
import type { MemberChange, PublishCommand } from './wire.ts'

/** How long Redis keeps a key that nobody writes to, in milliseconds. */
const KEY_LIFE_MS = 3_600_000

/** What becomes of a member of this instance; `text` is what it is now, null when it leaves. */
export type MemberUpdate = Omit<MemberChange, 'at'>

/** What a call does besides its updates. */
export interface Renewal {
  /** For how long the instance counts as alive from now on, in milliseconds; 0 for one that has no members. */
  readonly leaseMs: number
  /** How many members of dead instances are removed at most. */
  readonly removals: number
  /** For how long after the store was away nobody is removed, in milliseconds. */
  readonly rejoinMs: number
}

export interface Renewed {
  /** The id given last. The updates of this call have been made up to here. */
  readonly at: Position
  /** Whether the instance had a lease before this call. */
  readonly wasAlive: boolean
  /** Whether members of dead instances may be left. */
  readonly hasMore: boolean
}

/** The members of some topics, with every change up to an id. */
export interface MembersRead {
  readonly at: Position
  /** What each member is, by topic and by the member's id. */
  readonly topics: ReadonlyMap<string, ReadonlyMap<string, string>>
}

/** What the roster of a shard asks its store. Every method rejects with `BrokerUnavailable`. */
export interface RosterStore {
  /** Makes and unmakes members of this instance, renews its lease, and removes members of dead instances. */
  update(updates: readonly MemberUpdate[], renewal: Renewal): Promise<Renewed>
  /** The members of some topics. */
  members(topics: readonly string[]): Promise<MembersRead>
  /** The topics that have members and that a wildcard covers. */
  topics(wildcard: string): Promise<string[]>
  /** The members of this instance, as far as the store knows. */
  own(): Promise<Pick<MemberUpdate, 'topic' | 'id'>[]>
  /** Passes a signal on to whoever listens to its topic or its wildcard. */
  signal(signal: Signal): Promise<void>
}

/** Those of them that only read. */
export interface RosterReads {
  ringsideMembers(keys: number, ...args: string[]): Promise<Answer>
  smembers(key: string): Promise<string[]>
}

/** The commands and scripts of Redis that the roster needs. */
export interface RosterCommands extends RosterReads {
  ringsideRoster(clock: string, ...args: string[]): Promise<Answer>
  publish(channel: string, message: Buffer): Promise<unknown>
  spublish(channel: string, message: Buffer): Promise<unknown>
}

export interface RedisRosterStoreOptions {
  readonly keys: ShardKeys
  readonly commands: RosterCommands
  readonly instance: string
  /** How announcements are made. */
  publishCommand(): PublishCommand
  /** Resolves once a store that was emptied has begun a new life. */
  reborn(): Promise<unknown>
  /** Is told where the life of the store began, with each answer. */
  onBirth(birth: string): void
}

/** The members of one shard's topics in Redis: its calls, with their arguments and answers. */
export class RedisRosterStore implements RosterStore {
  readonly #options: RedisRosterStoreOptions

  constructor(options: RedisRosterStoreOptions) {
    this.#options = options
  }

  async update(updates: readonly MemberUpdate[], { leaseMs, removals, rejoinMs }: Renewal): Promise<Renewed> {
    const { commands, instance, keys, publishCommand } = this.#options
    const { at, rest } = await this.#ask(() =>
      commands.ringsideRoster(
        keys.clock,
        keys.prefix,
        publishCommand(),
        instance,
        String(leaseMs),
        String(KEY_LIFE_MS),
        String(removals),
        String(rejoinMs),
        ...updates.flatMap(({ topic, id, text }) => [topic, id, text ?? ''])
      )
    )
    const [wasAlive, hasMore] = rest
    return { at, wasAlive: wasAlive === '1', hasMore: hasMore === '1' }
  }

  async members(topics: readonly string[]): Promise<MembersRead> {
    const { commands, keys } = this.#options
    const names = [keys.clock, ...topics.map(topic => `${keys.prefix}members:${topic}`)]
    const { at, rest } = await this.#ask(() => commands.ringsideMembers(names.length, ...names))
    const lists = rest as string[][]
    return { at, topics: new Map(topics.map((topic, index) => [topic, new Map(readMembers(lists[index]!))])) }
  }

  topics(wildcard: string): Promise<string[]> {
    return this.#setMembers(`present:${wildcard}`)
  }

  async own(): Promise<Pick<MemberUpdate, 'topic' | 'id'>[]> {
    const lines = await this.#setMembers(`joined:${this.#options.instance}`)
    return lines.map(line => {
      const space = line.indexOf(' ')
      return { topic: line.slice(space + 1), id: line.slice(0, space) }
    })
  }

  async signal(signal: Signal): Promise<void> {
    const message = signalBytes(signal)
    const filters = [signal.topic, wildcardOf(signal.topic)]
    await Promise.all(filters.map(filter => this.#publish(this.#options.keys.members(filter), message)))
  }

  async #publish(channel: string, message: Buffer): Promise<void> {
    const { commands, publishCommand } = this.#options
    const isSharded = publishCommand() === 'SPUBLISH'
    await available(isSharded ? commands.spublish(channel, message) : commands.publish(channel, message))
  }

  #setMembers(key: string): Promise<string[]> {
    const { commands, keys } = this.#options
    return available(commands.smembers(keys.prefix + key))
  }

  /** Calls a script that answers nothing while the store has no life; then again, once it has one. */
  async #ask(call: () => Promise<Answer>): Promise<LivingAnswer> {
    const { onBirth, reborn } = this.#options
    let answer = await available(call())
    if (answer.length === 0) {
      await reborn()
      answer = await available(call())
    }
    if (answer.length === 0) throw emptied()
    const [given, birth, ...rest] = answer
    onBirth(birth as string)
    return { at: parsePosition(given as string)!, rest }
  }
}

/** Nothing; or the id given last and the birth of the store, then what was asked for. */
type Answer = (string | string[])[]

interface LivingAnswer {
  readonly at: Position
  readonly rest: Answer
}

async function available<T>(call: Promise<T>): Promise<T> {
  try {
    return await call
  } catch (error) {
    throw unavailable(error)
  }
}
