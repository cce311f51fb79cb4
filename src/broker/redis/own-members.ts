import type { Clock } from '../../clock.ts'
import type { Position } from '../../event.ts'
import type { Memory } from '../../memory.ts'
import type { MemberUpdate, Renewed, RosterStore } from './roster-store.ts'
import { memberTextBytes } from './wire.ts'

/** For how long an instance counts as alive since it last renewed its lease, in milliseconds. */
export const LEASE_MS = 12_000

/** After how many renewals all members are stored anew, so that no key expires and no mistake stays. */
export const RENEWALS_A_PUT = 200

/** How long it may take until every instance has come back to a store that was away or was emptied, in milliseconds. */
export const REJOIN_MS = 8000

/** How many members go into one call. */
export const MEMBERS_A_CALL = 200

export interface OwnMembersOptions {
  readonly store: RosterStore
  readonly clock: Clock
  /** Counts them. */
  readonly memory: Memory
}

/**
 * Who has joined on this instance, for one shard, and the lease that keeps them in the store. The other instances remove
 * the members of one whose lease has expired, as this one does with theirs.
 */
export class OwnMembers {
  readonly #options: OwnMembersOptions
  /** What each one is, by topic and by id. */
  readonly #members = new Map<string, Map<string, string>>()
  /** What goes out once what goes on now is done. */
  #queue: QueuedUpdate[] = []
  #renewalsToPut = RENEWALS_A_PUT
  /** Whether the last call has asked for a lease. */
  #isLeased = false

  constructor(options: OwnMembersOptions) {
    this.#options = options
  }

  /** Whether the store may need to hear of this instance. */
  get isIdle(): boolean {
    return this.#members.size === 0 && this.#renewalsToPut > 0
  }

  /**
   * Makes somebody a member, or changes what it is. Resolves with an id at which that is so; with null when it has left or
   * was changed again meanwhile. Rejects with `BrokerUnavailable`, and then it is what it was before; with `MemoryFull`
   * where there is no room.
   */
  async join(topic: string, id: string, text: string): Promise<Position | null> {
    const before = this.#textOf(topic, id)
    const more = memberTextBytes(topic, id, text) - memberTextBytes(topic, id, before)
    if (more > 0) this.#options.memory.makeRoom({ members: more })
    this.#keep(topic, id, text)
    try {
      const at = await this.#update({ topic, id, text })
      return this.#textOf(topic, id) === text ? at : null
    } catch (error) {
      this.#putSoon() // it may have been stored
      if (this.#textOf(topic, id) === text) this.#keep(topic, id, before)
      throw error
    }
  }

  /** Ends what `join` began. Never rejects: a store that can't be reached is told with the next renewal. */
  async leave(topic: string, id: string): Promise<void> {
    this.#keep(topic, id, null)
    await this.#update({ topic, id, text: null }).catch(() => this.#putSoon())
  }

  /** Sends at once what waits for that. */
  flush(): void {
    const queue = this.#queue
    this.#queue = []
    for (const some of partsOf(queue)) {
      this.#call(some.map(({ update }) => update)).then(
        ({ at }) => some.forEach(({ resolve }) => resolve(at)),
        (error: Error) => some.forEach(({ reject }) => reject(error))
      )
    }
  }

  /** Renews the lease, and removes the members of dead instances. Rejects with `BrokerUnavailable`. */
  async renew(): Promise<void> {
    try {
      const { wasAlive, hasMore } = await this.#call([])
      for (let isMore = hasMore; isMore;) isMore = (await this.#call([])).hasMore
      this.#renewalsToPut--
      // without its lease the others may have removed its members
      if (this.#renewalsToPut < 0 || (!wasAlive && this.#members.size > 0)) await this.putAll()
    } catch (error) {
      this.#putSoon()
      throw error
    }
  }

  /** Stores all members anew, and removes what is stored of this instance and not here. Rejects with `BrokerUnavailable`. */
  async putAll(): Promise<void> {
    try {
      for (const some of partsOf(await this.#differences())) {
        // who has come, gone or changed since has said so itself
        await this.#call(some.filter(({ topic, id, text }) => this.#textOf(topic, id) === text))
      }
      this.#renewalsToPut = RENEWALS_A_PUT
    } catch (error) {
      this.#putSoon()
      throw error
    }
  }

  /** All members that are here, and those that the store still has and that have left. */
  async #differences(): Promise<MemberUpdate[]> {
    const stored = await this.#options.store.own()
    const gone = stored.filter(({ topic, id }) => this.#textOf(topic, id) === null)
    const here = [...this.#members].flatMap(([topic, members]) =>
      [...members].map(([id, text]) => ({ topic, id, text }))
    )
    return [...gone.map(member => ({ ...member, text: null })), ...here]
  }

  #putSoon(): void {
    this.#renewalsToPut = 0
  }

  #textOf(topic: string, id: string): string | null {
    return this.#members.get(topic)?.get(id) ?? null
  }

  #keep(topic: string, id: string, text: string | null): void {
    const before = memberTextBytes(topic, id, this.#textOf(topic, id))
    this.#options.memory.add('members', memberTextBytes(topic, id, text) - before)
    const members = this.#members.get(topic) ?? new Map<string, string>()
    if (text === null) members.delete(id)
    else members.set(id, text)
    if (members.size > 0) this.#members.set(topic, members)
    else this.#members.delete(topic)
  }

  /** Stores an update with all others of this turn, in one call. Resolves with an id at which it is so. */
  #update(update: MemberUpdate): Promise<Position> {
    return new Promise((resolve, reject) => {
      if (this.#queue.push({ update, resolve, reject }) === 1) this.#options.clock.soon(() => this.flush())
    })
  }

  async #call(updates: readonly MemberUpdate[]): Promise<Renewed> {
    const wasLeased = this.#isLeased
    this.#isLeased = this.#members.size > 0
    const renewed = await this.#options.store.update(updates, {
      leaseMs: this.#isLeased ? LEASE_MS : 0,
      removals: MEMBERS_A_CALL,
      rejoinMs: REJOIN_MS
    })
    // this call has renewed it: the next one would not see that it was lost
    if (wasLeased && !renewed.wasAlive) this.#putSoon()
    return renewed
  }
}

interface QueuedUpdate {
  readonly update: MemberUpdate
  readonly resolve: (at: Position) => void
  readonly reject: (error: Error) => void
}

/** A list in parts that each fit into a call. */
function partsOf<T>(list: readonly T[]): T[][] {
  return Array.from({ length: Math.ceil(list.length / MEMBERS_A_CALL) }, (_, index) =>
    list.slice(index * MEMBERS_A_CALL, (index + 1) * MEMBERS_A_CALL)
  )
}
