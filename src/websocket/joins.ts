import { requireSubscribe } from '../access/grant.ts'
import type { Roster } from '../broker/roster.ts'
import type { Member } from '../event.ts'
import type { Presence, Room } from '../hub/presence.ts'
import { wrong } from '../problem.ts'
import type { ClientMessage } from '../wire/websocket.ts'
import { checkSize, requireTopic } from './messages.ts'
import type { Subscriber } from './subscriptions.ts'

/** The most that a member may tell of itself, in bytes: everybody who joins gets it of everybody. */
const MAX_INFO_BYTES = 1024

/** On which topics a client is a member. */
export class Joins {
  readonly #roster: Roster
  readonly #presence: Presence
  readonly #subscriber: Subscriber
  readonly #most: number
  /** The rooms of the topics that it has joined. */
  readonly #joined = new Map<string, Room>()

  /** `most`: how many topics a client may join. */
  constructor(roster: Roster, presence: Presence, subscriber: Subscriber, most: number) {
    this.#roster = roster
    this.#presence = presence
    this.#subscriber = subscriber
    this.#most = most
  }

  has(topic: string): boolean {
    return this.#joined.has(topic)
  }

  /**
   * Makes the client a member. Once more changes what it tells of itself. Resolves with all members, itself first; with
   * none when its connection has ended meanwhile. Rejects with a `Problem`, and with `BrokerUnavailable`.
   */
  async add(topic: string, read: ClientMessage): Promise<readonly Member[] | null> {
    this.#check(topic)
    const member = { id: this.#subscriber.id, sub: this.#subscriber.grant.sub, info: infoOf(read) }
    const room = await this.#enter(topic, member)
    const { hasEnded } = this.#subscriber
    if (hasEnded || this.#joined.has(topic)) this.#presence.release(room)
    if (hasEnded) {
      void this.#roster.leave(topic, member.id)
      return null
    }
    this.#joined.set(topic, room)
    room.hearers.add(this.#subscriber)
    const members = this.#roster.members(topic)
    return [...members.filter(({ id }) => id === member.id), ...members.filter(({ id }) => id !== member.id)]
  }

  #check(topic: string): void {
    requireTopic(topic)
    requireSubscribe(this.#subscriber.grant, [topic])
    if (!this.#joined.has(topic) && this.#joined.size >= this.#most)
      throw wrong('malformed', 'topic', `at most ${this.#most} can be joined on one connection`)
  }

  async #enter(topic: string, member: Member): Promise<Room> {
    const room = this.#presence.hold(topic)
    try {
      await room.ready
      await this.#roster.join(topic, member)
      return room
    } catch (error) {
      this.#presence.release(room)
      throw error
    }
  }

  /** Ends its membership. Resolves with the members that are left. Throws a `Problem` where it is none. */
  async remove(topic: string): Promise<readonly Member[]> {
    const room = this.#joined.get(topic)
    if (!room) throw wrong('malformed', 'topic', `${JSON.stringify(topic)} was not joined`)
    const { id } = this.#subscriber
    const members = this.#roster.members(topic).filter(member => member.id !== id)
    this.#joined.delete(topic)
    this.#subscriber.leaveRoom(room)
    await this.#roster.leave(topic, id)
    return members
  }

  /** Ends all of its memberships. */
  end(): void {
    const all = [...this.#joined]
    this.#joined.clear()
    for (const [topic, room] of all) {
      this.#subscriber.leaveRoom(room)
      void this.#roster.leave(topic, this.#subscriber.id)
    }
  }
}

/** What a member tells of itself, as compact JSON; null for nothing. */
function infoOf(read: ClientMessage): string | null {
  const info = read.members['info'] == null ? null : read.dataOf('info')
  if (info !== null && typeof info !== 'string') throw wrong('malformed', 'info', 'must not be bytes')
  checkSize('info', info ?? '', MAX_INFO_BYTES)
  return info
}
