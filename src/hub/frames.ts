import type { Clock } from '../clock.ts'
import { formatCursor, type Cursor, type StoredEvent } from '../event.ts'
import type { Memory, Reliever } from '../memory.ts'
import type { Format } from '../wire/format.ts'

/** How long a frame is kept at least, in milliseconds; twice as long at most. */
const KEPT_MS = 1000

/** What a frame takes besides its bytes. */
const FRAME_BYTES = 200

/** The part of the budget for memory that frames may have. */
const SHARE = 1 / 16

/**
 * The frames that were made of events a moment ago: whoever is given the same event in the same format at about the same
 * time gets the same bytes. They are kept with their events, for as long as a burst lasts and no longer: each format
 * makes another copy of the event.
 */
export class Frames implements Reliever {
  readonly #clock: Clock
  readonly #memory: Memory
  readonly #limit: number
  /** The events that have frames, in the order in which they were given their first. */
  readonly #events: StoredEvent[] = []
  /** How many of them had frames when it was last looked which are old. */
  #old = 0
  #bytes = 0
  #isTicking = false

  constructor(clock: Clock, memory: Memory) {
    this.#clock = clock
    this.#memory = memory
    this.#limit = memory.limit * SHARE
    memory.onShortage(this)
  }

  /** An event's frame. With one shard its id is everybody's cursor, so that it is made once and kept for the others. */
  of(format: Format, event: StoredEvent, cursor: Cursor): Buffer {
    if (cursor.length > 1) return format.event(event, formatCursor(cursor))
    let encoding = event.encodings
    while (encoding && encoding.format !== format) encoding = encoding.next
    if (encoding) return encoding.frame
    const frame = format.event(event, formatCursor(cursor))
    this.#keep(format, event, frame)
    return frame
  }

  #keep(format: Format, event: StoredEvent, frame: Buffer): void {
    const bytes = frame.length + FRAME_BYTES
    if (this.#bytes + bytes > this.#limit) this.#drop(this.#old)
    // those who read the same one after the other are served best by what is kept already
    if (this.#bytes + bytes > this.#limit) return
    if (!event.encodings) this.#events.push(event)
    event.encodings = { format, frame, next: event.encodings }
    this.#count(bytes)
    if (this.#isTicking) return
    this.#isTicking = true
    this.#clock.after(KEPT_MS, () => this.#tick())
  }

  get spare(): number {
    return this.#bytes
  }

  /** Lets all of them go: they are soon made again. */
  relieve(): void {
    this.#drop(this.#events.length)
  }

  /** What was old already is dropped, what is there now is old. */
  #tick(): void {
    this.#drop(this.#old)
    this.#old = this.#events.length
    this.#isTicking = this.#old > 0
    if (this.#isTicking) this.#clock.after(KEPT_MS, () => this.#tick())
  }

  /** Drops the frames of those that have had them for longest. */
  #drop(count: number): void {
    let bytes = 0
    for (const event of this.#events.splice(0, count)) {
      for (let { encodings } = event; encodings; encodings = encodings.next)
        bytes += encodings.frame.length + FRAME_BYTES
      event.encodings = undefined
    }
    this.#old = Math.max(0, this.#old - count)
    this.#count(-bytes)
  }

  #count(bytes: number): void {
    this.#bytes += bytes
    this.#memory.add('events', bytes)
  }
}
