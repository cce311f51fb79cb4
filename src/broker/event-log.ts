import type { Asker } from '../asker.ts'
import type { Cursor, Data, Position, StoredEvent, GapReason } from '../event.ts'

/**
 * The only source of ids and of truth: it stores events, hands them over, and answers what was before.
 *
 * What an implementation owes, and which of the hub's promises hang on it:
 * - It MUST give ids that only grow within a shard, also when its clock steps back, in the same atomic step that
 *   stores the event (promise 1: in id order).
 * - It MUST resolve `append` only when the event is stored. When it rejects, it MUST NOT have stored the event and MUST
 *   NOT store it later, unless the rejection says that this is not known (`BrokerUnavailable`).
 * - When it has rejected a question with `BrokerUnavailable`, it MUST call `up(true)` once the store answers again: who
 *   asked waits for that.
 * - It MUST hand over every event of a subscribed filter exactly once and in id order within its shard, from the
 *   position that `subscribe` resolved with. When it could not, it MUST call `jump` before any later event, so that the
 *   missing ones are read; and `gap` when reading can't bring them either (promise 2).
 * - It MUST NOT delete an event from the middle of a topic: what it holds of a topic is always the newest part.
 * - It MUST store nothing on a topic that has ended: one whose newest event is of the type `end` and still held.
 * - Of a topic that is ephemeral by the rules it MUST store no event (`isNeverStored`): that gets its id, is handed over in
 *   its place as all others are, and only its key is remembered. It names the event before it that was stored (`prev`),
 *   and is itself named by none. Its id is a position like any other, also after a restart.
 * - It MUST remember each topic's last id for as long as a cursor may be young enough to ask for what followed
 *   (`RING_TTL`), so that a topic whose events are gone still shows its loss.
 * - It SHOULD give up a question that takes long once its `asker` has gone: then that rejects with `Unwanted`.
 */
export interface EventLog {
  /** Over how many shards topics are spread; each has an order of ids of its own. */
  readonly shards: number
  /** Where this life of the store began: a cursor before it is of another life. */
  readonly birth: Cursor
  /** Up to where this life of the store has lost events that it had stored: of what lies before it, any may be missing. */
  readonly lost: Cursor
  /** Whether it answers. */
  readonly up: boolean
  /**
   * Where the events that it hands over and answers with are held, and counted, in this process (`memory.ts`): it holds
   * none any more up to here, of any topic, and whoever keeps such events longer than it must let them go as well. Null
   * where it holds none here: then whoever keeps events counts them.
   */
  readonly heldAfter: Cursor | null

  /** The shard that a topic belongs to. */
  shardOf(topic: string): number

  /** Begins to hand over. Called once, before anything else. */
  start(listener: EventLogListener): Promise<void>

  /**
   * Stores events, all of them or none of those in one shard, announces them, and resolves with what became of each,
   * in order. Events of one call don't see each other: neither their keys, nor their states, nor that one is an `end`.
   * Rejects with `BrokerUnavailable` when it is not known to have stored them, and with `MemoryFull` when there was no room
   * for them: then none is stored.
   */
  append(events: readonly Append[]): Promise<Appended[]>

  /**
   * The events after a cursor on the topics that a filter covers, oldest first, at most `limit` of each shard.
   * `after` MUST NOT lie before `birth`. Rejects with `BrokerUnavailable`.
   */
  range(filter: string, after: Cursor, limit: number, asker?: Asker): Promise<Page>

  /**
   * Of each topic that a filter covers its newest event, where it comes after a cursor: the topics whose newest came first,
   * oldest first, at most `limit` of each shard. The page is complete in that no topic has its newest between the cursor
   * and the page's `end` but these. It tells of no gaps. `after` MUST NOT lie before `birth`. Rejects with
   * `BrokerUnavailable`.
   */
  newest(filter: string, after: Cursor, limit: number, asker?: Asker): Promise<Page>

  /**
   * For each topic that the filter covers and that holds events: the position just before its `count`th last one that has not
   * run out by its own `ttl`, or before its first where it holds fewer. Rejects with `BrokerUnavailable`.
   */
  rewind(filter: string, count: number, asker?: Asker): Promise<Map<string, Position>>

  /**
   * The latest whole value of a topic and the id of the event that made it; null when it has none. Rejects with
   * `BrokerUnavailable`.
   */
  state(topic: string, asker?: Asker): Promise<State | null>

  /** The states of those of some topics that have one. Rejects with `BrokerUnavailable`. */
  states(topics: readonly string[], asker?: Asker): Promise<Map<string, State>>

  /** The versions of the states of those of some topics that have one. Rejects with `BrokerUnavailable`. */
  versions(topics: readonly string[], asker?: Asker): Promise<Map<string, Position>>

  /** The topics that a filter covers and that the log remembers, in no order. Rejects with `BrokerUnavailable`. */
  topics(filter: string, asker?: Asker): Promise<string[]>

  /**
   * Resolves with a position once every event of the filter after it will be handed over, and says whether its topic has
   * ended by then. The position is current: all that was stored before the call lies at or before it. Rejects with
   * `BrokerUnavailable`, and then hands over nothing of the filter.
   */
  subscribe(filter: string): Promise<Subscribed>

  /** Ends what `subscribe` began. */
  unsubscribe(filter: string): void

  /**
   * Lets go of all events of a topic and of its state, for good. Resolves with the id of its last event up to now, from
   * before which a cursor shows the loss (`Page.gaps`); null where nothing is known of the topic. Those who hold its events
   * elsewhere, such as the rings of the hubs, are told by who calls this. Rejects with `BrokerUnavailable`.
   */
  clear(topic: string): Promise<Position | null>

  /** The id last given in each shard, now. A cursor past it is from the future. Rejects with `BrokerUnavailable`. */
  position(): Promise<Cursor>
}

/** What a log says of a filter from which on it hands over. */
export interface Subscribed {
  readonly position: Cursor
  /** The id of the event that has ended the filter's topic; null where that has not ended, and of a wildcard. */
  readonly end: Position | null
}

/** Where an event log hands over. Calls come in order; none may throw. */
export interface EventLogListener {
  /** An event of a subscribed filter. */
  event(event: StoredEvent): void
  /** Everything up to here has been handed over, in every shard, although no event may have come. */
  tick(position: Cursor): void
  /**
   * Events up to here, of any filter, may not have been handed over: whoever has not come so far must read them. A log
   * says so when it has connected to its store, again or for the first time, and when it finds that it missed something.
   */
  jump(position: Cursor): void
  /** Events of these filters or topics, after what was handed over last, are gone and can't be read either. */
  gap(reason: GapReason, topics: readonly string[]): void
  /** The store answers again, or no longer does. `true` may come twice: a question may fail while all else goes well. */
  up(up: boolean): void
}

/** An event to be stored. */
export interface Append {
  readonly topic: string
  readonly type: string
  readonly data: Data
  /** Seconds after which it is no longer replayed; as long as the log holds it where there are none. */
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
  /** Or, where it is ephemeral, handed over. */
  | { readonly outcome: 'stored'; readonly id: Cursor }
  /** The key was used before, for the same event. */
  | { readonly outcome: 'replayed'; readonly id: Cursor }
  /** The key was used before, for another topic, type or data. Nothing was stored. */
  | { readonly outcome: 'key reused' }
  /** The state has another version by now. Nothing was stored. */
  | { readonly outcome: 'conflict' }
  /** The topic has ended. Nothing was stored. */
  | { readonly outcome: 'ended' }
  /** It was in one call with an event that met one of these three. Nothing was stored. */
  | { readonly outcome: 'not stored' }

/** Some events after a cursor. */
export interface Page {
  /** In id order within each shard. What ran out by its own `ttl` is passed over. */
  readonly events: readonly StoredEvent[]
  /** Complete up to here: nothing that is still held lies between the cursor and this, but these events. */
  readonly end: Cursor
  /**
   * The topics of which events between the cursor and `end` are gone, with the id of the last one that is, which may lie
   * past `end`. A log may also name topics whose events that are gone lie past `end`: a later page names them again. Where
   * they are many, or are no longer known, the filter itself stands for them; this only where there is one shard.
   */
  readonly gaps: ReadonlyMap<string, Position>
}

/** A topic's latest whole value. */
export interface State {
  readonly value: string
  readonly version: Position
}

/**
 * How much longer than any cursor counts a topic's last id is kept, in milliseconds: the clock of the instance that
 * reads may be so much behind.
 */
export const READER_LATENESS_MS = 60_000
