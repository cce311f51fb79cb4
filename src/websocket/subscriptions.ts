import { requireSubscribe, type Grant } from '../access/grant.ts'
import { formatCursor, isFilter, isWildcard, wildcardOf } from '../event.ts'
import type { Connection, Reading } from '../hub/connections.ts'
import type { Hub } from '../hub/hub.ts'
import type { Hearer, Room } from '../hub/presence.ts'
import type { Session } from '../hub/session.ts'
import type { Sink } from '../hub/sink.ts'
import { Problem, wrong } from '../problem.ts'
import { plain } from '../wire/packing.ts'
import type { Ref, WebSocketFormat } from '../wire/websocket.ts'
import type { Subscribe } from './messages.ts'

/** The client that subscribes, or joins topics. */
export interface Subscriber extends Connection, Sink, Hearer {
  readonly format: WebSocketFormat
  readonly grant: Grant
  /** Whether its connection has ended: then nothing may begin any more. */
  readonly hasEnded: boolean
  /** Gives up a room, unless the client still hears it for another reason. */
  leaveRoom(room: Room): void
}

/** What was asked for together: one session, and a room for each of its filters. */
interface Subscribed {
  session: Session
  readonly rooms: Map<string, Room>
}

/** What a client has subscribed to. */
export class Subscriptions {
  readonly #hub: Hub
  readonly #subscriber: Subscriber
  readonly #most: number
  readonly #takeRead: () => void
  /** By filter; one for several filters that were asked for together. */
  readonly #subscribed = new Map<string, Subscribed>()

  /** `most`: how many filters a client may have. `takeRead` counts a read of it; throws a `Problem` past its rate. */
  constructor(hub: Hub, subscriber: Subscriber, most: number, takeRead: () => void) {
    this.#hub = hub
    this.#subscriber = subscriber
    this.#most = most
    this.#takeRead = takeRead
  }

  /** What it has subscribed to now. */
  get filters(): string[] {
    return [...this.#subscribed.keys()]
  }

  /** How what was asked for together stands. */
  get readings(): readonly Reading[] {
    return Array.from(new Set(this.#subscribed.values()), ({ session }) => session)
  }

  has(filter: string): boolean {
    return this.#subscribed.has(filter)
  }

  /**
   * Subscribes; the answer to `ref` comes before the first event. Rejects with a `Problem`, and with `BrokerUnavailable`.
   */
  async add(ref: Ref, { topics, after, rewind, rate }: Subscribe): Promise<void> {
    this.#takeRead()
    const filters = [...new Set(topics)]
    this.#check(filters)
    const subscriber = this.#subscriber
    const { connections, presence, rules } = this.#hub
    const full = this.#hub.fullOf(filters)
    if (full) throw new Problem('unavailable', full, [], Math.ceil(connections.spread() / 1000))
    const served = rules.rateOf(filters, rate)
    const { format } = subscriber
    const asker = {
      get isGone() {
        return subscriber.hasEnded
      }
    }
    const rooms = filters.map(filter => presence.hold(filter))
    const start = { after: after || undefined, rewind }
    const opened = this.#hub.open(
      { ...start, filters, format, packing: plain, rate: served, connection: subscriber },
      asker
    )
    try {
      const [session] = await Promise.all([opened, ...rooms.map(({ ready }) => ready)])
      if (subscriber.hasEnded) throw new Error('it has ended meanwhile')
      const subscribed: Subscribed = { session, rooms: new Map(rooms.map(room => [room.filter, room])) }
      for (const room of rooms) {
        room.hearers.add(subscriber)
        this.#subscribed.set(room.filter, subscribed)
      }
      session.start(subscriber, [], format.answer('ok', ref, { cursor: formatCursor(session.cursor) }))
    } catch (error) {
      void opened.then(session => session.close('client'), ignore)
      for (const room of rooms) presence.release(room)
      throw error
    }
  }

  /** Whether it may have these as well. They are counted first: a message may name thousands. */
  #check(filters: readonly string[]): void {
    const count = this.#subscribed.size + filters.length
    if (count > this.#most) {
      const message = `this would make ${count} on this connection; at most ${this.#most} are allowed`
      throw wrong('malformed', 'topics', message)
    }
    const bad = filters.find(filter => !isFilter(filter))
    if (bad !== undefined)
      throw wrong('malformed', 'topics', `${JSON.stringify(bad)} is neither a topic nor a wildcard`)
    requireSubscribe(this.#subscriber.grant, filters, 'topics')
    this.#checkOverlaps(filters)
  }

  /** An event must not come twice, so that filters which cover the same topics must be one subscription. */
  #checkOverlaps(filters: readonly string[]): void {
    const held = this.#subscribed
    const byWildcard = new Map(Array.from(held.keys(), filter => [wildcardOf(filter), filter]))
    for (const filter of filters) {
      const same = [filter, wildcardOf(filter)].find(other => held.has(other))
      // the wildcard of a wildcard is itself
      const other = same ?? (isWildcard(filter) ? byWildcard.get(filter) : undefined)
      if (other !== undefined)
        throw wrong('malformed', 'topics', `${filter} overlaps with ${other}, which is subscribed already`)
    }
  }

  /** Gives up some filters; what they were asked for with goes on. Throws a `Problem` for one that is not subscribed. */
  remove(filters: readonly string[]): void {
    const unknown = filters.find(filter => !this.#subscribed.has(filter))
    if (unknown !== undefined)
      throw wrong('malformed', 'topics', `${JSON.stringify(unknown)} is not subscribed`)
    const leaving = new Set(filters)
    for (const subscribed of new Set(filters.map(filter => this.#subscribed.get(filter)!))) {
      const { rooms, session } = subscribed
      for (const [filter, room] of rooms) {
        if (!leaving.has(filter)) continue
        rooms.delete(filter)
        this.#subscribed.delete(filter)
        this.#subscriber.leaveRoom(room)
      }
      if (rooms.size === 0) session.close('client')
      else subscribed.session = this.#hub.narrow(session, [...rooms.keys()])
    }
  }

  /** The connection has taken all that waited in it. */
  drained(): void {
    for (const { session } of new Set(this.#subscribed.values())) session.drained()
  }

  /** Gives up all of them. */
  end(): void {
    const all = new Set(this.#subscribed.values())
    this.#subscribed.clear()
    for (const { session, rooms } of all) {
      session.close('client')
      for (const room of rooms.values()) this.#subscriber.leaveRoom(room)
    }
  }
}

function ignore(): void {}
