import type { Clock, Timer } from '../../clock.ts'
import { comparePositions, isWildcard, parsePosition, wildcardOf } from '../../event.ts'
import type { Member, Position, Signal } from '../../event.ts'
import type { RosterListener } from '../roster.ts'
import { BrokerUnavailable } from '../unavailable.ts'
import type { RedisConnections } from './connections.ts'
import { memberText, readChange, readMember, readMembers, readSignal, signalBytes } from './wire.ts'
import type { MemberChange } from './wire.ts'

/** How long an instance counts as alive since it last said so, in milliseconds. */
const LEASE_MS = 15_000

/** How often an instance says so, and lets the members go of those that don't, in milliseconds. */
const RENEW_MS = 5000

/** How long a key is kept that nobody renews, in milliseconds. */
const LIFE_MS = 3_600_000

/** After how many renewals all is put anew, so that no key runs out, and no mistake stays. */
const RENEWALS_A_PUT = 120

/** How long it may take until every instance has come back to a store that was away or was emptied, in milliseconds. */
const GRACE_MS = 8000

/** How many members go into one call. */
const MEMBERS_A_CALL = 200

/** How many topics are read in one call. */
const TOPICS_A_CALL = 100

export interface ShardRosterOptions {
  /** What every key and channel begins with. */
  readonly prefix: string
  readonly connections: RedisConnections
  readonly listener: RosterListener
  readonly clock: Clock
  readonly instance: string
  readonly sharded: () => boolean
  /** Whether announcements come in. */
  isLive(): boolean
  listen(channel: string): Promise<void>
  unlisten(channel: string): void
  /** Resolves once a store that was emptied has begun a new life. */
  reborn(): Promise<unknown>
}

/**
 * Who is present on the topics of one shard, and the signals on them. Every instance keeps a copy of the members of what
 * it follows: read once, and changed by what is announced. Each change has an id of the shard, and what is read says up
 * to which id it is true; so that the two go together, whichever comes first.
 *
 * A member belongs to its instance, which holds a lease and renews it. Whoever renews lets the members go of instances
 * whose lease has run out. When the store has forgotten its members an instance puts them back.
 */
export class ShardRoster {
  readonly #options: ShardRosterOptions
  readonly #views = new Map<string, View>()
  /** Who has joined here: what each one is, by topic and id. */
  readonly #own = new Map<string, Map<string, string>>()
  #queue: QueuedChange[] = []
  #birth: string | null = null
  #timer: Timer | undefined
  #renewalsToPut = RENEWALS_A_PUT
  /** Runs while others may not have put their members into a store that was emptied. */
  #refilling: Timer | null = null
  /** Runs while others may not have renewed a lease that ran out because the store was away. */
  #settling: Timer | null = null

  constructor(options: ShardRosterOptions) {
    this.#options = options
  }

  start(): void {
    this.#timer = this.#options.clock.after(RENEW_MS, () => {
      void this.#renew()
      this.#timer!.refresh()
    })
  }

  close(): void {
    for (const timer of [this.#timer, this.#refilling, this.#settling]) timer?.cancel()
    this.#flush()
  }

  // --- what the shard's connection brings ---

  get channels(): string[] {
    return [...this.#views.keys()].map(filter => this.#channelOf(filter))
  }

  /** What was announced may have been missed. */
  jump(): void {
    this.#settling?.cancel()
    this.#settling = this.#options.clock.after(GRACE_MS, () => (this.#settling = null))
    void this.#recover()
  }

  /** The store's birth, as far as the last answer tells. One that began anew has nobody in it. */
  noteBirth(birth: string): void {
    const before = this.#birth
    this.#birth = birth
    if (before === null || before === birth) return
    this.#refilling?.cancel()
    this.#refilling = this.#options.clock.after(GRACE_MS, () => {
      this.#refilling = null
      void this.#recover()
    })
    this.#putAll().catch(() => {}) // the next renewal tries again
  }

  /** Takes what came on the channel of a filter. */
  receive(channel: string, message: Buffer): void {
    const filter = channel.slice(this.#channelOf('').length)
    const view = this.#views.get(filter)
    if (!view) return
    const change = readChange(message)
    if (!change) return this.#options.listener.signalled(filter, readSignal(message))
    view.since?.push(change)
    // whoever only now begins to follow it is told when it was read
    if (view.isRead) this.#apply(filter, view, change)
  }

  // --- what the broker is asked for ---

  async follow(filter: string): Promise<void> {
    const { isLive, listen, unlisten } = this.#options
    if (!isLive()) throw new BrokerUnavailable('no connection to Redis')
    const view = new View()
    this.#views.set(filter, view)
    try {
      await listen(this.#channelOf(filter))
      await this.#read(filter, view)
    } catch (error) {
      if (this.#views.get(filter) === view) {
        this.#views.delete(filter)
        unlisten(this.#channelOf(filter))
      }
      throw unavailable(error)
    }
  }

  unfollow(filter: string): void {
    if (this.#views.delete(filter)) this.#options.unlisten(this.#channelOf(filter))
  }

  members(topic: string): Member[] {
    return [...(this.#views.get(topic)?.topics.get(topic) ?? [])].map(([id, { text }]) =>
      readMember(id, text)
    )
  }

  async join(topic: string, member: Member): Promise<void> {
    const { id } = member
    const text = memberText(member)
    const before = this.#own.get(topic)?.get(id) ?? null
    this.#keep(topic, id, text)
    try {
      const at = await this.#change([topic, id, text])
      const view = this.#views.get(topic)
      // it may have left or changed since; the announcements of that may have come before this answer
      const isStill = this.#own.get(topic)?.get(id) === text
      if (view && isStill) this.#apply(topic, view, { topic, id, text, at })
    } catch (error) {
      this.#renewalsToPut = 0 // it may have been stored
      if (this.#own.get(topic)?.get(id) === text) this.#keep(topic, id, before)
      throw unavailable(error)
    }
  }

  async leave(topic: string, id: string): Promise<void> {
    this.#keep(topic, id, null)
    try {
      await this.#change([topic, id, null])
    } catch {
      this.#renewalsToPut = 0
    }
  }

  async signal(signal: Signal): Promise<void> {
    const { connections, sharded } = this.#options
    const message = signalBytes(signal)
    const channels = [signal.topic, wildcardOf(signal.topic)].map(filter => this.#channelOf(filter))
    try {
      await Promise.all(
        channels.map(channel =>
          sharded()
            ? connections.commands.spublish(channel, message)
            : connections.commands.publish(channel, message)
        )
      )
    } catch (error) {
      throw unavailable(error)
    }
  }

  // --- our own members ---

  #keep(topic: string, id: string, text: string | null): void {
    const members = this.#own.get(topic) ?? new Map<string, string>()
    if (text === null) members.delete(id)
    else members.set(id, text)
    if (members.size > 0) this.#own.set(topic, members)
    else this.#own.delete(topic)
  }

  /** Makes or unmakes a member, with all others of this turn in one call. Resolves with an id that it is true at. */
  #change(change: ChangeToMake): Promise<Position> {
    return new Promise((resolve, reject) => {
      if (this.#queue.push({ change, resolve, reject }) === 1) this.#options.clock.soon(() => this.#flush())
    })
  }

  #flush(): void {
    const queue = this.#queue
    this.#queue = []
    for (let from = 0; from < queue.length; from += MEMBERS_A_CALL) {
      const some = queue.slice(from, from + MEMBERS_A_CALL)
      this.#call(some.map(({ change }) => change)).then(
        ({ at }) => some.forEach(({ resolve }) => resolve(at)),
        (error: Error) => some.forEach(({ reject }) => reject(error))
      )
    }
  }

  /** Renews the lease with some changes. Resolves with whether it was held before, and whether more are to be let go. */
  async #call(changes: readonly ChangeToMake[]): Promise<{ at: Position; held: boolean; more: boolean }> {
    const { connections, instance, prefix, sharded } = this.#options
    const answer = await this.#askLiving(() =>
      connections.commands.ringsidePresence(
        `${prefix}clock`,
        prefix,
        sharded() ? 'SPUBLISH' : 'PUBLISH',
        instance,
        String(this.#own.size > 0 ? LEASE_MS : 0),
        String(LIFE_MS),
        String(this.#settling ? 0 : MEMBERS_A_CALL),
        ...changes.flatMap(([topic, id, text]) => [topic, id, text ?? ''])
      )
    )
    const [held, more] = answer.rest
    return { at: answer.at, held: held === '1', more: more === '1' }
  }

  /** Puts all of our members where they belong, and takes out what is not ours any more. */
  async #putAll(): Promise<void> {
    const { connections, instance, prefix } = this.#options
    try {
      const stored = await connections.commands.smembers(`${prefix}joined:${instance}`)
      const changes = new Map<string, ChangeToMake>()
      for (const line of stored) {
        const space = line.indexOf(' ')
        changes.set(line, [line.slice(space + 1), line.slice(0, space), null])
      }
      for (const [topic, members] of this.#own)
        for (const [id, text] of members) changes.set(`${id} ${topic}`, [topic, id, text])
      const all = [...changes.values()]
      for (let from = 0; from < all.length; from += MEMBERS_A_CALL) {
        // who has come, gone or changed meanwhile has said so itself
        const some = all
          .slice(from, from + MEMBERS_A_CALL)
          .filter(([topic, id, text]) => (this.#own.get(topic)?.get(id) ?? null) === text)
        await this.#call(some)
      }
      this.#renewalsToPut = RENEWALS_A_PUT
    } catch (error) {
      this.#renewalsToPut = 0
      throw error
    }
  }

  /** What couldn't be done now is done with the next renewal: nothing here rejects. */
  async #renew(): Promise<void> {
    const isIdle = this.#own.size === 0 && this.#views.size === 0 && this.#renewalsToPut > 0
    if (isIdle || !this.#options.isLive()) return
    try {
      const { held, more } = await this.#call([])
      for (let isMore = more; isMore;) isMore = (await this.#call([])).more
      if (--this.#renewalsToPut < 0 || (!held && this.#own.size > 0)) await this.#putAll()
      await this.#readAll()
    } catch {
      this.#renewalsToPut = 0
    }
  }

  async #recover(): Promise<void> {
    for (const view of this.#views.values()) view.distrust()
    try {
      // first what is ours: else it would be missing in what is read
      await this.#putAll()
      await this.#readAll()
    } catch {
      this.#renewalsToPut = 0
    }
  }

  // --- what is known of all members ---

  #apply(filter: string, view: View, { topic, id, text, at }: MemberChange): void {
    const { listener } = this.#options
    const members = view.topics.get(topic) ?? new Map<string, Known>()
    const before = members.get(id)
    // an announcement may come after the answer of who made the change
    if (before && comparePositions(at, before.at) <= 0) return
    if (text === null) members.delete(id)
    else members.set(id, { text, at })
    if (members.size > 0) view.topics.set(topic, members)
    else view.topics.delete(topic)
    if (text !== null && text !== before?.text) listener.joined(filter, topic, readMember(id, text))
    if (text === null && before) listener.left(filter, topic, readMember(id, before.text))
  }

  /** Reads what is not known to be true. */
  async #readAll(): Promise<void> {
    for (const [filter, view] of this.#views) {
      if (!view.since || !view.isRead) continue
      // who was not put back yet must not be told as gone
      if (this.#refilling) return
      await this.#read(filter, view)
    }
  }

  #read(filter: string, view: View): Promise<void> {
    return (view.reading ??= this.#readUntilTrue(filter, view).finally(() => (view.reading = null)))
  }

  async #readUntilTrue(filter: string, view: View): Promise<void> {
    for (;;) {
      const since = view.distrust()
      const found = await this.#find(filter, view)
      if (this.#views.get(filter) !== view) return
      if (view.isRead && this.#refilling) return
      if (view.since !== since) continue // it was distrusted again meanwhile
      for (const { topic, id, text, at } of since) {
        // a topic that was not asked for had no members then
        const { members, at: readAt } = found.get(topic) ?? { members: new Map<string, Known>(), at: ZERO }
        found.set(topic, { members, at: readAt })
        if (comparePositions(at, readAt) <= 0) continue
        if (text === null) members.delete(id)
        else members.set(id, { text, at })
      }
      view.since = null
      return this.#adopt(filter, view, found)
    }
  }

  /** Reads the members of all topics that a filter covers, and of those that were covered. */
  async #find(filter: string, view: View): Promise<Map<string, Found>> {
    const { connections, prefix } = this.#options
    const named = isWildcard(filter)
      ? await connections.commands.smembers(`${prefix}present:${filter}`)
      : [filter]
    const topics = [...new Set([...named, ...view.topics.keys()])]
    const found = new Map<string, Found>()
    for (let from = 0; from < topics.length; from += TOPICS_A_CALL) {
      const some = topics.slice(from, from + TOPICS_A_CALL)
      const keys = [`${prefix}clock`, ...some.map(topic => `${prefix}members:${topic}`)]
      const { at, rest } = await this.#askLiving(() =>
        connections.commands.ringsideMembers(keys.length, ...keys)
      )
      some.forEach((topic, index) => {
        const members = readMembers(rest[index] as string[])
        found.set(topic, { at, members: new Map(members.map(([id, text]) => [id, { text, at }])) })
      })
    }
    return found
  }

  /** Takes over what was found, and tells what is different from what was known. */
  #adopt(filter: string, view: View, found: ReadonlyMap<string, Found>): void {
    const { listener } = this.#options
    const { isRead } = view
    view.isRead = true
    for (const [topic, { members }] of found) {
      const before = view.topics.get(topic) ?? new Map<string, Known>()
      if (members.size > 0) view.topics.set(topic, members)
      else view.topics.delete(topic)
      if (!isRead) continue
      for (const [id, { text }] of before)
        if (!members.has(id)) listener.left(filter, topic, readMember(id, text))
      for (const [id, { text }] of members)
        if (text !== before.get(id)?.text) listener.joined(filter, topic, readMember(id, text))
    }
  }

  /** Asks a script that answers nothing in a store without a life; then again, once it has one. */
  async #askLiving(ask: () => Promise<Answer>): Promise<{ at: Position; rest: Answer }> {
    let answer = await ask()
    if (answer.length === 0) {
      await this.#options.reborn()
      answer = await ask()
    }
    if (answer.length === 0) throw new BrokerUnavailable('Redis was emptied')
    const [given, birth, ...rest] = answer
    this.noteBirth(birth as string)
    return { at: parsePosition(given as string)!, rest }
  }

  #channelOf(filter: string): string {
    return `${this.#options.prefix}m:${filter}`
  }
}

/** What is known of the members of all topics that a filter covers. */
class View {
  readonly topics = new Map<string, Map<string, Known>>()
  /** What was announced since it can't be known to be true; null while it is. */
  since: MemberChange[] | null = []
  /** Whether it was true once. */
  isRead = false
  reading: Promise<void> | null = null

  /** From now on it isn't known to be true, until it is read. */
  distrust(): MemberChange[] {
    return (this.since = [])
  }
}

/** What a member is, and as of which id. */
interface Known {
  readonly text: string
  readonly at: Position
}

/** The members of a topic as they were read, with every change up to an id. */
interface Found {
  readonly members: Map<string, Known>
  readonly at: Position
}

/** Null: it leaves. */
type ChangeToMake = readonly [topic: string, id: string, text: string | null]

interface QueuedChange {
  readonly change: ChangeToMake
  readonly resolve: (at: Position) => void
  readonly reject: (error: Error) => void
}

type Answer = (string | string[])[]

const ZERO: Position = { ms: 0, seq: 0 }

function unavailable(error: unknown): BrokerUnavailable {
  return error instanceof BrokerUnavailable
    ? error
    : new BrokerUnavailable(`Redis: ${(error as Error).message}`)
}
