import type { Cursor, Data, Position, StoredEvent, GapReason, Member, Signal } from '../event.ts'

/**
 * The only source of ids and of truth: it stores events, hands them over, and answers what was before.
 *
 * What an implementation owes, and what hangs on it:
 * - It MUST give ids that only grow within a shard, also when its clock steps back, in the same atomic step that
 *   stores the event (promise 1: in id order).
 * - It MUST resolve `append` only when the event is stored, and MUST NOT store it after it has rejected
 *   unless the rejection says that it is not known (`BrokerUnavailable`).
 * - It MUST hand over every event of a subscribed filter exactly once and in id order within its shard, from the
 *   position that `subscribe` resolved with. Where it could not, it MUST call `jump` before any later event, so that
 *   they are read; and `gap` where not even that can bring them (promise 2).
 * - It MUST NOT take an event out of the middle of a topic: what is held of a topic is its newest part.
 * - It MUST remember each topic's last id for as long as a cursor may be young enough to ask for what followed
 *   (`RING_TTL`), so that a topic whose events are gone still shows its loss.
 * - It MUST keep who has joined here a member until `leave` or the end of this instance, also when the store has
 *   forgotten it or was out of reach; and MUST let the members of an instance that has died go within `GONE_MS`.
 * - It MUST hand over each change of who is a member of a followed topic once and in order. Where it could not see the
 *   changes, it MUST hand over what is different once it can: no ghost stays, and nobody is missing.
 */
export interface Broker {
  /** Over how many shards topics are spread; each has an order of ids of its own. */
  readonly shards: number
  /** Where this life of the store began: a cursor before it is of another life. */
  readonly birth: Cursor
  /** Up to where this life of the store has forgotten events that it had stored: before it, nothing is sure. */
  readonly lost: Cursor
  /** Whether it answers. */
  readonly up: boolean

  /** The shard that a topic belongs to. */
  shardOf(topic: string): number

  /** Begins to hand over. Called once, before anything else. */
  start(listener: BrokerListener): Promise<void>

  /**
   * Stores events, all of them or none of those in one shard, announces them, and resolves with what became of each,
   * in order. Events of one call don't see each other: neither their keys nor their states.
   * Rejects with `BrokerUnavailable` when it is not known to have stored them.
   */
  append(events: readonly Append[]): Promise<Appended[]>

  /**
   * The events after a cursor on the topics that a filter covers, oldest first, at most `limit` of each shard.
   * `after` MUST NOT lie before `birth`. Rejects with `BrokerUnavailable`.
   */
  range(filter: string, after: Cursor, limit: number): Promise<Page>

  /** For each topic that the filter covers and that holds events: the position just before its `count`th last one. */
  rewind(filter: string, count: number): Promise<Map<string, Position>>

  /** The latest whole value of a topic and the id of the event that made it; null when it has none. */
  state(topic: string): Promise<State | null>

  /** The topics that a filter covers and that the broker remembers. */
  topics(filter: string): Promise<string[]>

  /**
   * Resolves with a position once every event of the filter after it will be handed over.
   * The position is current: all that was stored before the call lies at or before it.
   */
  subscribe(filter: string): Promise<Cursor>

  /** Ends what `subscribe` began. */
  unsubscribe(filter: string): void

  /** The id last given in each shard, now. A cursor past it is from the future. Rejects with `BrokerUnavailable`. */
  position(): Promise<Cursor>

  /**
   * Begins to hand over who comes and goes on the topics that a filter covers, and what is signalled on them. Resolves
   * once it does. Called once, until `unfollow`. Rejects with `BrokerUnavailable`, and then follows nothing.
   */
  follow(filter: string): Promise<void>

  /** Ends what `follow` began. */
  unfollow(filter: string): void

  /** Who is a member of a topic, on every instance, as it was handed over for this topic so far. It MUST be followed. */
  members(topic: string): readonly Member[]

  /**
   * Makes a member of a topic that is followed; or tells other things of one who is there. Resolves when it is among
   * its `members`. Rejects with `BrokerUnavailable`, and then it is none.
   */
  join(topic: string, member: Member): Promise<void>

  /** Ends what `join` began. Never rejects: when the store is out of reach, it is told as soon as it is back. */
  leave(topic: string, id: string): Promise<void>

  /**
   * Passes a signal on to every instance that follows its topic now, this one included. Whoever can't be reached
   * doesn't get it. Rejects with `BrokerUnavailable`.
   */
  signal(signal: Signal): Promise<void>

  /**
   * Tells how much some did on this instance since it was told last, by name, and resolves with how much each of them
   * did on all others within `TALLY_MS`. Never rejects: of whom nothing is known nothing is said.
   */
  tally(counts: ReadonlyMap<string, number>): Promise<ReadonlyMap<string, number>>

  /** Ends the hand-over and lets go of every resource. */
  close(): Promise<void>
}

/** Where a broker hands over. Calls come in order; none may throw. */
export interface BrokerListener {
  /** An event of a subscribed filter. */
  event(event: StoredEvent): void
  /** Nothing is outstanding in any shard up to here: a true position although no event came. */
  tick(position: Cursor): void
  /**
   * What came up to here, of any filter, may not have been handed over: whoever has not come so far must read it.
   * The position of a broker that had no connection to its store, or lost it.
   */
  jump(position: Cursor): void
  /** Events of these filters or topics, after what was handed over last, can't be had any more. */
  gap(reason: GapReason, topics: readonly string[]): void
  /** The broker answers again, or no longer does. */
  up(up: boolean): void
  /** Somebody has come to a topic that a followed filter covers, or tells other things of itself than before. */
  joined(filter: string, topic: string, member: Member): void
  /** Somebody has gone from it. */
  left(filter: string, topic: string, member: Member): void
  /** A signal on a topic that a followed filter covers: once for each such filter. */
  signalled(filter: string, signal: Signal): void
}

/** An event to be stored. */
export interface Append {
  readonly topic: string
  readonly type: string
  readonly data: Data
  /** Seconds after which it is no longer replayed. */
  readonly ttl?: number
  /** The same key again within `IDEMPOTENCY_MS` stores nothing and answers with the first id. */
  readonly key?: string
  /**
   * The topic's new state, stored in the same step (null: it has none any more), if its version still is `version`
   * (null: it has none yet); whatever it is, where there is no `version`.
   */
  readonly state?: { readonly value: string | null; readonly version?: Position | null }
}

/** What became of an event to be stored. */
export type Appended =
  | { readonly outcome: 'stored'; readonly id: Cursor }
  /** The key was used before, for the same event. */
  | { readonly outcome: 'replayed'; readonly id: Cursor }
  /** The key was used before, for another topic, type or data. Nothing was stored. */
  | { readonly outcome: 'key reused' }
  /** The state has another version by now. Nothing was stored. */
  | { readonly outcome: 'conflict' }
  /** It was in one call with an event that met one of these two. Nothing was stored. */
  | { readonly outcome: 'not stored' }

/** How soon the members of an instance that has died are gone, in milliseconds. */
export const GONE_MS = 30_000

/** For how long it is true what was told to `Broker.tally`, in milliseconds. */
export const TALLY_MS = 2000

/** Some events after a cursor. */
export interface Page {
  /** In id order within each shard. What ran out by its own `ttl` is passed over. */
  readonly events: readonly StoredEvent[]
  /** Complete up to here: nothing that is still held lies between the cursor and this, but these events. */
  readonly end: Cursor
  /**
   * The topics of which events after the cursor are gone, with the id of the last one that is: of all topics that the
   * filter covers, also those whose remaining events lie past `end`.
   */
  readonly gaps: ReadonlyMap<string, Position>
}

/** A topic's latest whole value. */
export interface State {
  readonly value: string
  readonly version: Position
}

/**
 * The broker can't be reached, or didn't answer in time. An event that was to be stored may have been, or not.
 * Whoever rejects with it MUST call `BrokerListener.up(true)` once it answers again.
 */
export class BrokerUnavailable extends Error {
  override name = 'BrokerUnavailable'
}
