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
  /** Answers, other than streams, that their clients have not taken yet. */
  'answers'
] as const

export type MemoryKind = (typeof MEMORY_KINDS)[number]

/** There is no room for what was asked for. Nothing was stored of it. A client is told 503 and may try again. */
export class MemoryFull extends Error {
  override name = 'MemoryFull'

  constructor(kind: MemoryKind) {
    super(`MEMORY is full: there is no room for more ${kind}`)
  }
}

/**
 * The one budget for the memory of an instance: whatever grows by what clients do counts here, in bytes, by its kind. See
 * **Memory** in section 8 of the contract. The sizes are what things are estimated to take, with their objects.
 */
export class Memory {
  /** The most that all kinds may have together, in bytes. */
  readonly limit: number
  readonly #held = Object.fromEntries(MEMORY_KINDS.map(kind => [kind, 0])) as Record<MemoryKind, number>
  #sum = 0
  /** Lets go of what can be had again or done without; says how many bytes that was. */
  readonly #relievers: ((bytes: number) => void)[] = []

  constructor(limit: number) {
    this.limit = limit
  }

  /** How many bytes of a kind are held. */
  held(kind: MemoryKind): number {
    return this.#held[kind]
  }

  /** How many bytes of all kinds are held. */
  get sum(): number {
    return this.#sum
  }

  /**
   * Counts bytes of a kind. Where there is no room for them, what can be let go is let go first: see `relieve`. Throws
   * `MemoryFull`, and counts nothing, where that is not enough.
   */
  take(kind: MemoryKind, bytes: number): void {
    if (!this.#makeRoom(bytes)) throw new MemoryFull(kind)
    this.add(kind, bytes)
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

  /**
   * Registers who can make room: it is called with how many bytes are wanted, and gives back (`give`) as many, or as many as
   * it can. The first that was registered is asked first.
   */
  onShortage(relieve: (bytes: number) => void): void {
    this.#relievers.push(relieve)
  }

  #makeRoom(bytes: number): boolean {
    for (const relieve of this.#relievers) {
      const wanted = this.#sum + bytes - this.limit
      if (wanted <= 0) return true
      relieve(wanted)
    }
    return this.#sum + bytes <= this.limit
  }
}

/** Half of what V8 lets its heap grow to, or of what the container allows, whichever is less; in bytes. */
export function defaultMemory(): number {
  // without a container this says 0, or more than any machine has
  const container = process.constrainedMemory() || Infinity
  return Math.floor(Math.min(getHeapStatistics().heap_size_limit, container) / 2)
}
