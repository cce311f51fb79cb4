import { createHash } from 'node:crypto'
import type { Clock } from '../../clock.ts'
import { IDEMPOTENCY_MS, textBytes, type Cursor } from '../../event.ts'
import { Memory } from '../../memory.ts'
import type { Append, Appended } from '../event-log.ts'

/** What a key that was used takes besides itself, in bytes: measured. */
const KEY_BYTES = 300

/** The idempotency keys that were used within `IDEMPOTENCY_MS`, and what for. */
export class IdempotencyKeys {
  readonly #clock: Clock
  readonly #memory: Memory
  /** In the order in which they are forgotten. */
  readonly #used = new Map<string, KeyUse>()

  constructor(clock: Clock, memory: Memory = new Memory(Infinity)) {
    this.#clock = clock
    this.#memory = memory
  }

  /** How many bytes are taken by remembering what an event's key was used for. */
  static bytesOf({ key }: Pick<Append, 'key'>): number {
    return key === undefined ? 0 : KEY_BYTES + textBytes(key)
  }

  /** What an event's key was used for before: the same event, or another one. Undefined when it was not used. */
  check(append: Append): Extract<Appended, { outcome: 'replayed' | 'key reused' }> | undefined {
    const use = append.key === undefined ? undefined : this.#used.get(append.key)
    if (!use) return undefined
    return use.print === fingerprint(append) ? { outcome: 'replayed', id: use.id } : { outcome: 'key reused' }
  }

  /** Remembers for what an event's key was used, and says how; nothing when it has none. */
  use(append: Append, id: Cursor): KeyUse | undefined {
    if (append.key === undefined) return undefined
    const use = { id, print: fingerprint(append), until: this.#clock.now() + IDEMPOTENCY_MS }
    this.restore(append.key, use)
    return use
  }

  /** Remembers a use that was kept elsewhere. Those that are forgotten first come first. */
  restore(key: string, use: KeyUse): void {
    if (!this.#used.has(key)) this.#memory.add('keys', IdempotencyKeys.bytesOf({ key }))
    this.#used.set(key, use)
  }

  /** Forgets the keys whose time is over, and says which they were. */
  forgetOld(): string[] {
    const now = this.#clock.now()
    const forgotten: string[] = []
    for (const [key, { until }] of this.#used) {
      if (until > now) break
      this.#forget(key)
      forgotten.push(key)
    }
    return forgotten
  }

  clear(): void {
    for (const key of this.#used.keys()) this.#forget(key)
  }

  #forget(key: string): void {
    this.#used.delete(key)
    this.#memory.give('keys', IdempotencyKeys.bytesOf({ key }))
  }
}

/** What tells two events under one key apart, without keeping their data. */
function fingerprint({ topic, type, data }: Append): string {
  return createHash('sha256').update(`${topic}\n${type}\n`).update(data).digest('base64')
}

/** What a key was used for. */
export interface KeyUse {
  readonly id: Cursor
  readonly print: string
  /** When it is forgotten, in milliseconds since the epoch. */
  readonly until: number
}
