import type { Clock, Timer } from '../../clock.ts'
import type { Member, Signal } from '../../event.ts'
import type { Memory } from '../../memory.ts'
import type { RosterListener } from '../roster.ts'
import type { ShardKeys } from './keys.ts'
import { MemberCopy } from './member-copy.ts'
import { OwnMembers, REJOIN_MS } from './own-members.ts'
import type { RosterStore } from './roster-store.ts'
import { disconnected, unavailable } from './unavailable.ts'
import { memberText, readChange, readSignal } from './wire.ts'

/**
 * How often an instance renews its lease, and removes the members of those that don't, in milliseconds. The last renewal
 * of one that dies holds for `LEASE_MS`, and a store that was away then gives `REJOIN_MS` more; with a renewal after each
 * that is within `GONE_MS`.
 */
export const RENEW_MS = 3000

export interface ShardRosterOptions {
  readonly keys: Pick<ShardKeys, 'members'>
  readonly store: RosterStore
  readonly listener: RosterListener
  readonly clock: Clock
  /** Counts the members that are known here. */
  readonly memory: Memory
  /** Whether announcements come in. */
  isLive(): boolean
  /** Resolves once what is announced on a channel comes in. */
  listen(channel: string): Promise<void>
  unlisten(channel: string): void
}

/**
 * Who is a member of which topic of one shard, and the signals on these topics.
 *
 * A member belongs to its instance, which holds a lease in the store. Every instance keeps a copy of the members of each
 * filter that it follows. When the connection was lost, all copies are read again. When the store was emptied, every
 * instance puts its own members back, and reads only once the others have had the time to do so too.
 */
export class ShardRoster {
  readonly #options: ShardRosterOptions
  readonly #own: OwnMembers
  /** By filter. */
  readonly #copies = new Map<string, MemberCopy>()
  #renewal: Timer | undefined
  #birth: string | null = null
  /** Runs after the store was emptied: others may not have put their members back. */
  readonly #refilling: Countdown

  constructor(options: ShardRosterOptions) {
    this.#options = options
    this.#refilling = new Countdown(options.clock)
    this.#own = new OwnMembers(options)
  }

  start(): void {
    this.#renewal = this.#options.clock.after(RENEW_MS, () => {
      void this.#renew()
      this.#renewal!.refresh()
    })
  }

  close(): void {
    this.#renewal?.cancel()
    this.#refilling.cancel()
    this.#own.flush()
  }

  // --- what the shard's connection brings ---

  /** The channels that are to be listened to. */
  get channels(): string[] {
    return [...this.#copies.keys()].map(filter => this.#channelOf(filter))
  }

  /** Announcements may have been missed. */
  jump(): void {
    void this.#recover()
  }

  /** Takes the birth of the store as an answer has it. Where it is another one, the store has no members any more. */
  noteBirth(birth: string): void {
    const before = this.#birth
    this.#birth = birth
    if (before === null || before === birth) return
    this.#refilling.start(REJOIN_MS, () => void this.#recover())
    this.#own.putAll().catch(() => {}) // the next renewal tries again
  }

  /** Takes an announcement from the channel of a filter. */
  receive(channel: string, message: Buffer): void {
    const filter = channel.slice(this.#channelOf('').length)
    const copy = this.#copies.get(filter)
    if (!copy) return
    const change = readChange(message)
    if (change) copy.receive(change)
    else this.#options.listener.signalled(filter, readSignal(message))
  }

  // --- what the broker is asked for ---

  async follow(filter: string): Promise<void> {
    const { isLive, listen, listener, memory, store } = this.#options
    if (!isLive()) throw disconnected()
    const isRefilling = () => this.#refilling.isRunning
    const copy = new MemberCopy({ filter, store, listener, memory, isRefilling })
    this.#copies.set(filter, copy)
    try {
      await listen(this.#channelOf(filter))
      await copy.read()
    } catch (error) {
      // unless it was given up, and is followed again
      if (this.#copies.get(filter) === copy) this.unfollow(filter)
      throw unavailable(error)
    }
  }

  unfollow(filter: string): void {
    this.#copies.get(filter)?.close()
    if (this.#copies.delete(filter)) this.#options.unlisten(this.#channelOf(filter))
  }

  members(topic: string): Member[] {
    return this.#copies.get(topic)?.members(topic) ?? []
  }

  async join(topic: string, member: Member): Promise<void> {
    const { id } = member
    const text = memberText(member)
    const at = await this.#own.join(topic, id, text)
    // the announcement may come later; it then changes nothing
    if (at) this.#copies.get(topic)?.apply({ topic, id, text, at })
  }

  leave(topic: string, id: string): Promise<void> {
    return this.#own.leave(topic, id)
  }

  signal(signal: Signal): Promise<void> {
    return this.#options.store.signal(signal)
  }

  // --- what is done again until it succeeds ---

  /** Never rejects: what fails is done with the next renewal. */
  async #renew(): Promise<void> {
    if (this.#own.isIdle && this.#copies.size === 0) return
    try {
      // also while no announcements come in: this instance is alive, and others may not be
      await this.#own.renew()
      if (this.#options.isLive()) await this.#readAgain()
    } catch {
      // the next renewal is soon
    }
  }

  /** Puts back what the store may have forgotten, and reads what was missed. Never rejects. */
  async #recover(): Promise<void> {
    for (const copy of this.#copies.values()) copy.doubt()
    try {
      // first our own members: they must not be missing in what is read
      await this.#own.putAll()
      await this.#readAgain()
    } catch {
      // the next renewal is soon
    }
  }

  /** Reads the copies that are in doubt; none while the store may lack members that are still to be put back. */
  async #readAgain(): Promise<void> {
    for (const copy of this.#copies.values()) {
      if (this.#refilling.isRunning) return
      if (copy.needsReading) await copy.read()
    }
  }

  #channelOf(filter: string): string {
    return this.#options.keys.members(filter)
  }
}

/** A time that runs from its last start on. */
class Countdown {
  readonly #clock: Clock
  #timer: Timer | null = null

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get isRunning(): boolean {
    return this.#timer !== null
  }

  /** Starts over, for some milliseconds; `end` is called when they have passed. */
  start(ms: number, end: () => void = () => {}): void {
    this.cancel()
    this.#timer = this.#clock.after(ms, () => {
      this.#timer = null
      end()
    })
  }

  cancel(): void {
    this.#timer?.cancel()
    this.#timer = null
  }
}
