import { getHeapStatistics } from 'node:v8'

/** What clients can make the process hold. */
export const MEMORY_KINDS = [
  /** Events that are kept to be replayed, and the frames that were made of them. */
  'events',
  /** The newest whole values of topics. */
  'states',
  /** Idempotency keys. */
  'keys',
  /** What is remembered of a topic besides its events. */
  'topics',
  /** Filters that somebody listens to, or did a moment ago. */
  'filters',
  /** Members of topics. */
  'members',
  /** Bodies of requests and messages that are being read. */
  'bodies',
  /** What audiences were written last, by which what comes next is compressed. */
  'histories',
  /** Answers, other than streams, that their clients have not taken yet. */
  'answers'
] as const

export type MemoryKind = (typeof MEMORY_KINDS)[number]

/** The most of the budget that one kind may have, where that is not all of it: what can't be let go leaves room for the rest. */
const SHARES: Partial<Record<MemoryKind, number>> = {
  states: 1 / 2,
  keys: 1 / 4,
  filters: 1 / 4,
  members: 1 / 4
}

/**
 * The part of the budget that is kept free for answers: whatever else is held, everybody must be able to read. Small answers
 * may have as much again.
 */
export const ANSWERS_PART = 1 / 8

/** The parts of kinds that are counted whether there is room or not: whoever does so asks for it before. */
const PARTS: Partial<Record<MemoryKind, number>> = { bodies: 1 / 8, answers: ANSWERS_PART }

/** Bytes that are wanted, by kind. */
export type Needs = Readonly<Partial<Record<MemoryKind, number>>>

/** Holds what can be had again or done without. */
export interface Reliever {
  /** How many bytes it could let go. */
  readonly spare: number
  /** Gives back (`give`) at least so many bytes, or all that it could. */
  relieve(bytes: number): void
}

/** There is no room for what was asked for. Nothing was stored of it. A client is told 503 and may try again. */
export class MemoryFull extends Error {
  override name = 'MemoryFull'

  /** `limit`: the setting that bounds it. */
  constructor(kind: MemoryKind, limit = 'MEMORY') {
    super(`${limit} is full: there is no room for more ${kind}`)
  }
}

/**
 * The one budget for the memory of an instance: whatever grows by what clients do counts here, in bytes, by its kind. See
 * **Memory** in section 8 of the contract. The sizes are what things are estimated to take, with their objects.
 */
export class Memory {
  /** The most that all kinds may have together, in bytes. */
  readonly limit: number
  /** The most that all but answers may have, in bytes. */
  readonly #most: number
  readonly #held = Object.fromEntries(MEMORY_KINDS.map(kind => [kind, 0])) as Record<MemoryKind, number>
  #sum = 0
  /** Whoever is asked first comes first. */
  readonly #relievers: Reliever[] = []

  constructor(limit: number) {
    this.limit = limit
    this.#most = limit * (1 - ANSWERS_PART)
  }

  /** How many bytes of a kind are held. */
  held(kind: MemoryKind): number {
    return this.#held[kind]
  }

  /** How many bytes of a kind may be held, where no other kind takes them. */
  limitOf(kind: MemoryKind): number {
    const part = SHARES[kind] ?? PARTS[kind]
    return part === undefined ? this.#most : this.limit * part
  }

  /** How many bytes of all kinds are held. */
  get sum(): number {
    return this.#sum
  }

  /** Counts bytes of a kind. Throws `MemoryFull`, and counts nothing, where there is no room for them: see `makeRoom`. */
  take(kind: MemoryKind, bytes: number): void {
    if (!this.#hasRoom(kind, bytes)) this.makeRoom({ [kind]: bytes })
    this.add(kind, bytes)
  }

  /**
   * Sees to it that there is room for so much, and counts nothing of it yet. What can be let go is let go, as much as is
   * needed. Throws `MemoryFull`, and lets nothing go, where that would not be enough.
   */
  makeRoom(needs: Needs): void {
    let bytes = 0
    let kind: MemoryKind
    for (kind in needs) {
      const part = needs[kind]
      if (!part) continue
      if (!this.#isInShare(kind, part)) throw new MemoryFull(kind)
      bytes += part
    }
    if (this.#kept + bytes <= this.#most) return
    const spare = this.#relievers.reduce((sum, reliever) => sum + reliever.spare, 0)
    if (this.#kept + bytes - spare > this.#most) throw new MemoryFull(largest(needs))
    this.#relieve(bytes)
  }

  /** Counts bytes of a kind, whether there is room or not: of what is there already, and can't be refused. */
  add(kind: MemoryKind, bytes: number): void {
    this.#held[kind] += bytes
    this.#sum += bytes
  }

  /** Bytes of a kind are held no longer. */
  give(kind: MemoryKind, bytes: number): void {
    this.add(kind, -bytes)
  }

  /** Lets go of what can be let go until what was added without being asked for has room. */
  settle(): void {
    if (this.#kept > this.#most) this.#relieve(0)
  }

  /** Registers who can make room. Who was registered last is asked first: what is nearer to the clients is had again sooner. */
  onShortage(reliever: Reliever): void {
    this.#relievers.unshift(reliever)
  }

  /** What all kinds hold but answers, in bytes. */
  get #kept(): number {
    return this.#sum - this.#held.answers
  }

  #isInShare(kind: MemoryKind, bytes: number): boolean {
    const share = SHARES[kind]
    return share === undefined || this.#held[kind] + bytes <= this.limit * share
  }

  #hasRoom(kind: MemoryKind, bytes: number): boolean {
    return this.#kept + bytes <= this.#most && this.#isInShare(kind, bytes)
  }

  #relieve(bytes: number): void {
    for (const reliever of this.#relievers) {
      const wanted = this.#kept + bytes - this.#most
      if (wanted <= 0) return
      reliever.relieve(wanted)
    }
  }
}

function largest(needs: Needs): MemoryKind {
  return MEMORY_KINDS.reduce((a, b) => ((needs[b] ?? 0) > (needs[a] ?? 0) ? b : a))
}

/** What V8 reserves for young objects, in bytes: three semi-spaces of 16 MiB. Nothing that is kept stays there. */
const YOUNG_BYTES = 48 * 1024 * 1024

/**
 * Half of what V8 lets what is kept grow to, or of what the container allows, whichever is less; in bytes. `container`: 0, or
 * more than any machine has, where there is none.
 */
export function defaultMemory(container = 0): number {
  const kept = getHeapStatistics().heap_size_limit - YOUNG_BYTES
  return Math.floor(Math.min(kept, container || Infinity) / 2)
}
