import type { Clock } from '../../clock.ts'
import { IDEMPOTENCY_MS, type Cursor } from '../../event.ts'
import { Memory } from '../../memory.ts'
import type { Append, Appended } from '../event-log.ts'
import { fingerprint, keyHash } from '../fingerprint.ts'

/** What a key that was used takes, in bytes: measured. */
const KEY_BYTES = 350

/** The idempotency keys that were used within `IDEMPOTENCY_MS`, and what for. */
export class IdempotencyKeys {
  readonly #clock: Clock
  readonly #memory: Memory
  /** By the hash of the key, in the order in which they are forgotten. */
  readonly #used = new Map<string, KeyUse>()

  constructor(clock: Clock, memory: Memory = new Memory(Infinity)) {
    this.#clock = clock
    this.#memory = memory
  }

  /** How many bytes are taken by remembering what an event's key was used for. */
  static bytesOf({ key }: Pick<Append, 'key'>): number {
    return key === undefined ? 0 : KEY_BYTES
  }

  /** What an event's key was used for before: the same event, or another one. Undefined when it was not used. */
  check(append: Append): Extract<Appended, { outcome: 'replayed' | 'key reused' }> | undefined {
    const use = append.key === undefined ? undefined : this.#used.get(keyHash(append.key))
    if (!use) return undefined
    return use.print === fingerprint(append) ? { outcome: 'replayed', id: use.id } : { outcome: 'key reused' }
  }

  /** Remembers for what an event's key was used, and says how and under which hash; nothing when it has none. */
  use(append: Append, id: Cursor): (KeyUse & { readonly hash: string }) | undefined {
    if (append.key === undefined) return undefined
    const use = {
      hash: keyHash(append.key),
      id,
      print: fingerprint(append),
      until: this.#clock.now() + IDEMPOTENCY_MS
    }
    this.restore(use.hash, use)
    return use
  }

  /** Remembers a use that was kept elsewhere. Those that are forgotten first come first. */
  restore(hash: string, { id, print, until }: KeyUse): void {
    if (!this.#used.has(hash)) this.#memory.add('keys', KEY_BYTES)
    this.#used.set(hash, { id, print, until })
  }

  /** Forgets the keys whose time is over, and says the hashes of which. */
  forgetOld(): string[] {
    if (this.#used.size === 0) return []
    const now = this.#clock.now()
    const forgotten: string[] = []
    for (const [hash, { until }] of this.#used) {
      if (until > now) break
      this.#forget(hash)
      forgotten.push(hash)
    }
    return forgotten
  }

  clear(): void {
    for (const hash of this.#used.keys()) this.#forget(hash)
  }

  #forget(hash: string): void {
    this.#used.delete(hash)
    this.#memory.give('keys', KEY_BYTES)
  }
}

/** What a key was used for. */
export interface KeyUse {
  readonly id: Cursor
  readonly print: string
  /** When it is forgotten, in milliseconds since the epoch. */
  readonly until: number
}
