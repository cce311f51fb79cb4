import type { Memory, Reliever } from '../memory.ts'
import { History } from '../wire/gzip.ts'
import type { Packing, Piece } from '../wire/packing.ts'
import { Sum } from '../wire/sum.ts'

/** The part of the budget for memory that histories may have. */
const SHARE = 1 / 16

/** An audience with so many streams always has one, if there is room; of smaller ones so many have at most. */
const MANY = 64
const SMALL_ONES = 256

/** What takes memory only where there is a history. */
const NOBODY = new Set<CompressedStream>()

/** A stream of an audience. */
export interface CompressedStream {
  /** Of all that it was given; null where it isn't compressed. */
  readonly sum: Sum | null
}

/**
 * Compresses what the live streams of an audience are given, once for all of them, by what they were given before: a history
 * that all of them have. A stream that comes in between, or is given something of its own, stands apart: it can be given what
 * refers to nothing before it. The history begins anew once it is full and somebody stands apart: from there on all are
 * together again.
 */
export class Compressor {
  readonly #packing: Packing
  readonly #histories: Histories
  #history: History | null = null
  /** What was given since it began, or rested: writes times streams. */
  #given = 0
  /** Of all that was given to the live streams. */
  readonly #sum = new Sum()
  #apart = NOBODY

  constructor(packing: Packing, histories: Histories) {
    this.#packing = packing
    this.#histories = histories
  }

  /** Those that can't be given what `pack` made. */
  get apart(): ReadonlySet<CompressedStream> {
    return this.#apart
  }

  /** A stream is given what all are given, from now on. */
  add(stream: CompressedStream): void {
    stream.sum!.follow(this.#sum)
    if (this.#history && !this.#history.isEmpty) this.#apart.add(stream)
  }

  /** One that was added is not any more. */
  delete(stream: CompressedStream): void {
    stream.sum!.leave(this.#sum)
    this.#apart.delete(stream)
  }

  /** A stream, whether it was added or not, was given something of its own. */
  gaveOwn(stream: CompressedStream, sum: Sum): void {
    const isAdded = stream.sum!.follows
    if (isAdded) this.delete(stream)
    stream.sum!.append(sum)
    if (isAdded) this.add(stream)
  }

  /** What so many streams are given together, less those apart. It belongs to their sums once it `gave` it. */
  pack(frames: readonly Buffer[], streams: number): Piece {
    const history = this.#history ?? this.#begin(streams)
    if (!history) return this.#packing.pack(frames)
    if (this.#apart.size === streams || (this.#apart.size > 0 && history.isFull)) {
      history.clear()
      this.#apart.clear()
    }
    return this.#packing.gzip!.pack(frames, history)
  }

  #begin(streams: number): History | null {
    this.#given += streams
    if (this.#given < this.#histories.enough) return null
    this.#history = this.#histories.begin(this, streams)
    if (this.#history) this.#apart = new Set()
    return this.#history
  }

  /** All streams that are still here were given it. */
  gave(sum: Sum): void {
    this.#sum.append(sum)
  }

  /** Nothing is given for a while to so many streams. */
  rest(streams: number): void {
    this.#given = 0
    if (streams < this.#histories.enough) this.drop()
  }

  /** Lets the history go, so that all are together. */
  drop(): void {
    if (!this.#history) return
    this.#given = 0
    this.#history = null
    this.#apart = NOBODY
    this.#histories.end(this)
  }
}

/** The histories of all audiences, in the one budget for memory: whoever has none left compresses less. */
export class Histories implements Reliever {
  /**
   * From so many on that an audience has given to its streams without a rest, writes times streams, it has a history; with so
   * many streams it also does while it rests. One that has few streams and is seldom written to, such as that of a user's
   * notifications, has none: that would save nothing, and cost memory and time.
   */
  enough = 64
  readonly #memory: Memory
  readonly #limit: number
  /** Whose they are, the one first that has had it for longest. */
  readonly #owners = new Set<Compressor>()

  constructor(memory: Memory) {
    this.#memory = memory
    this.#limit = memory.limit * SHARE
    memory.onShortage(this)
  }

  /** Null where there is no room, or where one event would be compressed for too many small audiences in one turn. */
  begin(owner: Compressor, streams: number): History | null {
    const { bytes } = History
    if (streams < MANY && this.#owners.size >= SMALL_ONES) return null
    if (this.spare + bytes > this.#limit || this.#memory.sum + bytes > this.#memory.limit) return null
    this.#owners.add(owner)
    this.#memory.add('histories', bytes)
    return new History()
  }

  end(owner: Compressor): void {
    if (this.#owners.delete(owner)) this.#memory.give('histories', History.bytes)
  }

  get spare(): number {
    return this.#owners.size * History.bytes
  }

  relieve(bytes: number): void {
    const enough = this.spare - bytes
    for (const owner of this.#owners) {
      if (this.spare <= enough) return
      owner.drop()
    }
  }
}
