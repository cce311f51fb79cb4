import { textBytes, type Member, type Signal } from '../event.ts'

/** How soon the members of an instance that has died are gone, in milliseconds. */
export const GONE_MS = 30_000

/**
 * Who is a member of which topic, over all instances; and the signals, which pass by and are never stored.
 *
 * What an implementation owes, and what hangs on it:
 * - It MUST keep whoever has joined here a member until `leave` or the end of this instance, also when the store has
 *   forgotten it or was out of reach.
 * - It MUST let the members of an instance that has died go within `GONE_MS`.
 * - It MUST hand over each change of a followed topic's members once and in order. Where it could not see the changes,
 *   it MUST hand over what is different as soon as it can: no ghost stays, and nobody is missing.
 */
export interface Roster {
  /** Says where changes and signals are handed over. Called once, before anything else. */
  listen(listener: RosterListener): void

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
   * Makes somebody a member of a topic that is followed, or changes what a member tells of itself. Resolves when it is
   * among its `members`. Rejects with `BrokerUnavailable`, and then it is none; with `MemoryFull` where there is no room.
   */
  join(topic: string, member: Member): Promise<void>

  /** Ends what `join` began. Never rejects: when the store is out of reach, it is told as soon as it is back. */
  leave(topic: string, id: string): Promise<void>

  /**
   * Passes a signal on to every instance that follows its topic now, this one included. An instance that can't be
   * reached doesn't get it. Rejects with `BrokerUnavailable`.
   */
  signal(signal: Signal): Promise<void>
}

/** Where a roster hands over. Calls come in order; none may throw. */
export interface RosterListener {
  /** Somebody has come to a topic that a followed filter covers, or tells other things of itself than before. */
  joined(filter: string, topic: string, member: Member): void
  /** Somebody has gone from it. */
  left(filter: string, topic: string, member: Member): void
  /** A signal on a topic that a followed filter covers: once for each such filter. */
  signalled(filter: string, signal: Signal): void
}

/** What a member takes besides its texts, in bytes: measured, with the map that a topic has. */
const MEMBER_BYTES = 600

/** About how many bytes of memory a member takes: its texts are its topic, its id and what it tells. */
export function memberBytes(...texts: readonly string[]): number {
  return texts.reduce((sum, text) => sum + textBytes(text), MEMBER_BYTES)
}
