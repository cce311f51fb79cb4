import { comparePositions, earlier, isEphemeral, later, wildcardOf } from '../../event.ts'
import type { Position, StoredEvent } from '../../event.ts'
import type { Checkpoint } from './checkpoints.ts'
import { ZERO } from './life.ts'
import { readMessage } from './wire.ts'

/** How many topics' last ids are kept between two ticks, to find a missed announcement by. */
const MAX_TOPICS = 10_000

/** Where announcements lead. Calls come in order; none may throw. */
export interface AnnouncementsListener {
  event(event: StoredEvent): void
  /** Everything up to here has been handed over. */
  tick(position: Position): void
  /** What was announced up to here may have been missed: it must be read. */
  jump(position: Position): void
  /** Events of these filters or topics can't be handed over any more. */
  gap(filters: readonly string[]): void
  /** Whether announcements come in. */
  live(live: boolean): void
  /** An event shows that another primary leads: before more is handed over, what it lacks must be known to all. */
  fork(): void
}

/** A filter whose events are announced to this instance. */
export interface Channel {
  /** Whether Redis has confirmed that it passes the announcements on. */
  isListened: boolean
  /** All that was announced after this is handed over; null until the first tick since Redis has confirmed. */
  base: Position | null
}

/**
 * What the announcements of one shard say, and whether any was missed. It is fed with what comes in and asks nobody:
 *
 * - It hands over nothing before a tick has come in: only that shows what had been announced before.
 * - Each event names the one before it on its topic (`prev`). If that lies after the filter's base and was not handed
 *   over, an announcement was missed; then everybody must read on from where he is: a jump.
 * - If that is older than the one that was handed over last on this topic, the store has lost that one: a fork.
 */
export class Announcements {
  readonly #shard: number
  readonly #listener: AnnouncementsListener
  #isLive = false
  /** Everything announced up to here has been handed over. */
  #position: Position = ZERO
  /** A loss up to here concerns nobody who is live: he had been handed all of it, or was told. */
  #harmless: Position = ZERO
  /** The last id of each topic that an event was handed over of, since the position that the bases stand at. */
  readonly #lastIds = new Map<string, Position>()
  readonly #channels = new Map<string, Channel>()
  /** The event that was handed over last. */
  #last: Checkpoint | null = null
  /** An event that was handed over and that the store seems to have lost. */
  #suspect: Checkpoint | null = null

  constructor(shard: number, listener: AnnouncementsListener) {
    this.#shard = shard
    this.#listener = listener
  }

  get isLive(): boolean {
    return this.#isLive
  }

  get position(): Position {
    return this.#position
  }

  // --- filters ---

  /** All filters that are listened to, or will be. */
  get filters(): string[] {
    return [...this.#channels.keys()]
  }

  /** Begins with a filter. Its events count once `isListened` is set and a tick has come in after that. */
  add(filter: string): Channel {
    const channel: Channel = { isListened: false, base: null }
    this.#channels.set(filter, channel)
    return channel
  }

  /** Ends with a filter; where a channel is given, only if the filter was not given up and begun with anew since. */
  remove(filter: string, channel = this.#channels.get(filter)): void {
    if (this.#channels.get(filter) === channel) this.#channels.delete(filter)
  }

  // --- what comes in ---

  /** A tick: everything up to this position was announced before it. */
  tick(position: Position): void {
    if (!this.#isLive) return this.#goLive(position)
    // at once: the next announcement counts
    for (const channel of this.#channels.values()) if (channel.isListened) channel.base ??= position
    this.#handOverTick(position)
  }

  /** What comes in no longer counts, until the first tick on another connection. */
  goDown(): void {
    if (!this.#isLive) return
    this.#isLive = false
    this.#listener.live(false)
  }

  /** An announced loss of all events up to a position. It comes before what is announced after it. */
  loss(upTo: Position): void {
    if (!this.#isLive) return // the answer to the first tick has it too
    this.#handOverTick(upTo)
    this.#startChains()
    this.checkLoss(upTo)
  }

  /** Says what the store has lost, as an answer has it, unless that concerns nobody or was said before. */
  checkLoss(upTo: Position): void {
    if (!this.#isLive || comparePositions(upTo, this.#harmless) <= 0) return
    this.#harmless = upTo
    this.#listener.gap(this.filters)
  }

  /** An announced event, on the channel of a filter: its topic or the wildcard over it. */
  event(filter: string, message: Buffer): void {
    // Without a base nobody knows what was announced before this. A node whose slot went away and came back has let go
    // of the channels, and passes on what was asked for since: only a tick shows that all of them are listened to.
    if (!this.#isLive || !this.#channels.get(filter)?.base) return
    const event = readMessage(message, this.#shard)
    if (comparePositions(event.id, this.#position) <= 0) return // it came on the other channel before
    if (this.#showsFork(event)) return this.#listener.fork()
    const missed = this.#missedBefore(event)
    if (missed && comparePositions(missed, this.#position) > 0) return this.#jump(event.id)
    // what was missed lies before what was handed over, so that no reader could give it its place
    if (missed) this.#listener.gap([event.topic])
    this.#handOver(event)
  }

  // --- checkpoints ---

  /** The events that were handed over and that the store must still have, or have trimmed. */
  get checkpoints(): Checkpoint[] {
    return [this.#last, this.#suspect].filter(checkpoint => checkpoint !== null)
  }

  /** The store was asked for the checkpoints, and has announced what it has lost. */
  verified(): void {
    this.#suspect = null
  }

  // --- inside ---

  #goLive(position: Position): void {
    for (const channel of this.#channels.values()) {
      channel.isListened = true
      channel.base = position
    }
    this.#jump(position)
    this.#isLive = true
    this.#listener.live(true)
  }

  #jump(position: Position): void {
    // who was live has come up to here, and reads on by himself from here
    this.#harmless = this.#position
    this.#position = later(this.#position, position)
    this.#startChains()
    this.#listener.jump(this.#position)
  }

  #handOverTick(position: Position): void {
    this.#position = later(this.#position, position)
    if (this.#lastIds.size > MAX_TOPICS) this.#startChains()
    this.#listener.tick(this.#position)
  }

  #handOver(event: StoredEvent): void {
    this.#position = event.id
    // one that is not stored is named by no other as the one before, and can't be looked for
    if (!isEphemeral(event)) {
      this.#lastIds.set(event.topic, event.id)
      this.#last = event
    }
    this.#listener.event(event)
  }

  /** All that was announced so far has been handed over: whatever comes now follows on this position. */
  #startChains(): void {
    this.#lastIds.clear()
    for (const channel of this.#channels.values()) if (channel.base) channel.base = this.#position
  }

  /**
   * Whether an event follows on one from before the one that was handed over last on its topic. Then the primary that
   * stored it never had that one.
   */
  #showsFork({ topic, prev }: StoredEvent): boolean {
    const id = this.#lastIds.get(topic)
    // without one before, the store has begun anew
    if (!id || !prev || comparePositions(prev, id) >= 0) return false
    this.#suspect = { topic, id }
    return true
  }

  /** The id of the event before it on its topic, if that should have been handed over and was not. */
  #missedBefore({ topic, prev }: StoredEvent): Position | null {
    const base = prev && this.#baseOf(topic)
    if (!base) return null
    // what was handed over before the filter was given up and taken up again is no link
    const last = later(base, this.#lastIds.get(topic) ?? base)
    return comparePositions(prev, last) > 0 ? prev : null
  }

  /** From where on all events of a topic are handed over: by its own channel or by its wildcard's. */
  #baseOf(topic: string): Position | null {
    const own = this.#channels.get(topic)?.base ?? null
    const wild = this.#channels.get(wildcardOf(topic))?.base ?? null
    return own && wild ? earlier(own, wild) : (own ?? wild)
  }
}
