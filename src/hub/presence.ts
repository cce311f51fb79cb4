import type { Roster, RosterListener } from '../broker/roster.ts'
import type { Member, Signal } from '../event.ts'
import type { TwoWayFormat } from '../wire/format.ts'

/** What a connection hears besides events: who comes and goes, and signals. */
export type Notice = 'presence' | 'signal'

/** A connection that hears who is present, and signals. */
export interface Hearer {
  readonly id: string
  readonly format: TwoWayFormat
  /** Whether it is to get this, which comes for a filter: a topic may be covered by two that it is in a room of. */
  hears(what: Notice, filter: string, topic: string): boolean
  /** Takes a frame; a signal is dropped where the connection is full. */
  tell(what: Notice, frame: Buffer): void
}

/** The hearers of what happens on the topics of one filter. */
export interface Room {
  readonly filter: string
  /** Resolves once the broker hands over what happens there. Rejects with `BrokerUnavailable`. */
  readonly ready: Promise<void>
  readonly hearers: Set<Hearer>
  /** What takes the signals themselves: parts of this instance, which are no clients. */
  readonly ears: Set<(signal: Signal) => void>
}

/** Who here hears who comes and goes on which topics, and what is signalled there. None of it is stored. */
export class Presence implements RosterListener {
  readonly #roster: Roster
  readonly #rooms = new Map<string, Held>()

  constructor(roster: Roster) {
    this.#roster = roster
    roster.listen(this)
  }

  /** The room of a filter, kept for as long as somebody holds it. Whoever is among its hearers once it's `ready` hears all. */
  hold(filter: string): Room {
    const room = this.#rooms.get(filter) ?? this.#open(filter)
    room.holders++
    return room
  }

  /** Ends what `hold` began. */
  release({ filter }: Room): void {
    const room = this.#rooms.get(filter)
    if (!room || --room.holders > 0) return
    this.#rooms.delete(filter)
    this.#roster.unfollow(filter)
  }

  #open(filter: string): Held {
    const room: Held = {
      filter,
      ready: this.#roster.follow(filter),
      hearers: new Set(),
      ears: new Set(),
      holders: 0
    }
    this.#rooms.set(filter, room)
    room.ready.catch(() => {})
    return room
  }

  joined(filter: string, topic: string, member: Member): void {
    this.#tell('presence', filter, topic, member.id, format => format.joined(topic, member))
  }

  left(filter: string, topic: string, member: Member): void {
    this.#tell('presence', filter, topic, member.id, format => format.left(topic, member))
  }

  signalled(filter: string, signal: Signal): void {
    for (const ear of this.#rooms.get(filter)?.ears ?? []) ear(signal)
    this.#tell('signal', filter, signal.topic, signal.sender, format => format.signal(signal))
  }

  /** Tells all hearers of a room but the one that it comes from; what they get is made once for each format. */
  #tell(
    what: Notice,
    filter: string,
    topic: string,
    from: string,
    encode: (format: TwoWayFormat) => Buffer
  ): void {
    const frames = new Map<TwoWayFormat, Buffer>()
    for (const hearer of this.#rooms.get(filter)?.hearers ?? []) {
      const { format, id } = hearer
      if (id === from || !hearer.hears(what, filter, topic)) continue
      let frame = frames.get(format)
      if (!frame) frames.set(format, (frame = encode(format)))
      hearer.tell(what, frame)
    }
  }
}

interface Held extends Room {
  holders: number
}
