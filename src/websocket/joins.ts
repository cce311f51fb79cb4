import { Anonymous, requireSubscribe } from '../access/grant.ts'
import type { Roster } from '../broker/roster.ts'
import type { Member } from '../event.ts'
import type { Hub } from '../hub/hub.ts'
import type { Room } from '../hub/presence.ts'
import { wrong } from '../problem.ts'
import type { Writer } from '../publisher.ts'
import type { AnswerBody, ClientMessage } from '../wire/websocket.ts'
import { checkSize, requireTopic } from './messages.ts'
import type { Subscriber } from './subscriptions.ts'

/** The most that a member may tell of itself, in bytes: everybody who joins gets it of everybody. */
const MAX_INFO_BYTES = 1024

/** The most members that a client is told at once. */
const MAX_LISTED = 1000

/** On which topics a client is a member. */
export class Joins {
  readonly #roster: Roster
  readonly #hub: Pick<Hub, 'presence' | 'rules'>
  readonly #subscriber: Subscriber
  readonly #most: number
  /** The rooms of the topics that it has joined. */
  readonly #joined = new Map<string, Room>()

  /** `most`: how many topics a client may join. */
  constructor(roster: Roster, hub: Pick<Hub, 'presence' | 'rules'>, subscriber: Subscriber, most: number) {
    this.#roster = roster
    this.#hub = hub
    this.#subscriber = subscriber
    this.#most = most
  }

  has(topic: string): boolean {
    return this.#joined.has(topic)
  }

  /**
   * Makes the client a member, and resolves with the members, itself first. Once more changes what it tells of itself, and
   * resolves with itself alone: it hears of the others. Null when its connection has ended meanwhile. Rejects with a
   * `Problem`, and with `BrokerUnavailable`. `writer`: what it counts by.
   */
  async add(topic: string, read: ClientMessage, writer: Writer): Promise<AnswerBody | null> {
    this.#check(topic)
    const member = { id: this.#subscriber.id, sub: this.#subscriber.grant.sub, info: this.#infoOf(read) }
    writer.take()
    const room = await this.#enter(topic, member)
    const { hasEnded } = this.#subscriber
    const isAgain = this.#joined.has(topic)
    if (hasEnded || isAgain) this.#hub.presence.release(room)
    if (hasEnded) {
      void this.#roster.leave(topic, member.id)
      return null
    }
    if (isAgain) return { members: [member] }
    this.#joined.set(topic, room)
    room.hearers.add(this.#subscriber)
    return this.#list(topic, [member])
  }

  /** These members, and as many others as may be told at once. */
  #list(topic: string, first: readonly Member[]): AnswerBody {
    const { id } = this.#subscriber
    const members = [...first, ...this.#roster.members(topic).filter(member => member.id !== id)]
    if (members.length <= MAX_LISTED) return { members }
    return { members: members.slice(0, MAX_LISTED), more: true }
  }

  #check(topic: string): void {
    requireTopic(topic)
    requireSubscribe(this.#subscriber.grant, [topic])
    this.#hub.rules.requirePresence(topic)
    if (!this.#joined.has(topic) && this.#joined.size >= this.#most)
      throw wrong('malformed', 'topic', `at most ${this.#most} can be joined on one connection`)
  }

  async #enter(topic: string, member: Member): Promise<Room> {
    const room = this.#hub.presence.hold(topic)
    try {
      await room.ready
      await this.#roster.join(topic, member)
      return room
    } catch (error) {
      this.#hub.presence.release(room)
      throw error
    }
  }

  /** Ends its membership. Resolves with the members that are left. Rejects with a `Problem` where it is none. */
  async remove(topic: string, writer: Writer): Promise<AnswerBody> {
    const room = this.#joined.get(topic)
    // what was joined before a rule forbade it can be left
    if (!room) this.#hub.rules.requirePresence(topic)
    if (!room) throw wrong('malformed', 'topic', `${JSON.stringify(topic)} was not joined`)
    writer.take()
    const left = this.#list(topic, [])
    this.#joined.delete(topic)
    this.#subscriber.leaveRoom(room)
    await this.#roster.leave(topic, this.#subscriber.id)
    return left
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

  /** What the client tells of itself, as compact JSON; null for nothing. Throws a `Problem`. */
  #infoOf(read: ClientMessage): string | null {
    if (read.members['info'] == null) return null
    // nobody knows who it is, and everybody would be told it
    if (this.#subscriber.grant instanceof Anonymous) throw wrong('forbidden', 'info', 'needs a token')
    const info = read.dataOf('info')
    if (typeof info !== 'string') throw wrong('malformed', 'info', 'must not be bytes')
    checkSize('info', info, MAX_INFO_BYTES)
    return info
  }
}
