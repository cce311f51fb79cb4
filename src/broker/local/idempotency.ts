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
  readonly #used = new Map<string, Use>()

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

  /** Remembers for what an event's key was used; nothing when it has none. */
  use(append: Append, id: Cursor): void {
    if (append.key === undefined) return
    const until = this.#clock.now() + IDEMPOTENCY_MS
    if (!this.#used.has(append.key)) this.#memory.add('keys', IdempotencyKeys.bytesOf(append))
    this.#used.set(append.key, { id, print: fingerprint(append), until })
  }

  /** Forgets the keys whose time is over. */
  forgetOld(): void {
    const now = this.#clock.now()
    for (const [key, { until }] of this.#used) {
      if (until > now) break
      this.#used.delete(key)
      this.#memory.give('keys', IdempotencyKeys.bytesOf({ key }))
    }
  }
}

/** What tells two events under one key apart, without keeping their data. */
function fingerprint({ topic, type, data }: Append): string {
  return createHash('sha256').update(`${topic}\n${type}\n`).update(data).digest('base64')
}

interface Use {
  readonly id: Cursor
  readonly print: string
  /** When it is forgotten, in milliseconds since the epoch. */
  readonly until: number
}
