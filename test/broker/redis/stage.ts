/** What the parts of a shard ask for, in the test's hand: nothing is answered and nothing passes before it says so. */
import type { AppendStore } from '../../../src/broker/redis/appends.ts'
import { ShardKeys } from '../../../src/broker/redis/keys.ts'
import { EVENT_ARGUMENTS } from '../../../src/broker/redis/wire.ts'
import { Life } from '../../../src/broker/redis/life.ts'
import { formatPosition, type Position } from '../../../src/event.ts'

export const KEYS = new ShardKeys('p:', '0')
export const RING_TTL = 60_000

/** A position by its milliseconds. */
export function at(ms: number, seq = 0): Position {
  return { ms, seq }
}

/** The text of a position by its milliseconds. */
export function idAt(ms: number): string {
  return formatPosition(at(ms))
}

/** An announcement as the append script makes it. */
export function announcement(
  topic: string,
  ms: number,
  { prev = null, data = '', expires = '-' }: { prev?: number | null; data?: string; expires?: string } = {}
): Buffer {
  return Buffer.from(`${idAt(ms)} ${prev === null ? '-' : idAt(prev)} ${expires} t message ${topic}\n${data}`)
}

/** A life whose clock of ours stands still until `pass`. The store's clock says the same; null: it has said nothing. */
export class StagedLife extends Life {
  readonly births: string[]
  readonly #time: { now: number }

  constructor(now: number | null = 1_000_000) {
    const births: string[] = []
    const time = { now: now ?? 0 }
    super({ ringTtl: RING_TTL, onBirth: birth => births.push(birth), elapsed: () => time.now })
    this.births = births
    this.#time = time
    if (now !== null) this.noteClock(idAt(now))
  }

  pass(ms: number): void {
    this.#time.now += ms
  }
}

/** A call of the append script, as its arguments say it. */
export interface AppendCall {
  /** By the store's clock, in milliseconds. */
  readonly deadline: number
  readonly birth: string
  /** The checkpoints: `topic id`. */
  readonly checkpoints: readonly string[]
  /** What each append holds: how many events. */
  readonly counts: readonly number[]
  /** The data of the events. */
  readonly events: readonly (string | Buffer)[]
  answer(...answer: string[]): void
  fail(error: Error): void
}

/** A store that keeps the calls of the append script until the test answers them. */
export class StagedAppends implements AppendStore {
  readonly calls: AppendCall[] = []
  /** What was refused of one append alone. */
  readonly refusals: string[] = []

  refused({ message }: Error): void {
    this.refusals.push(message)
  }

  append(keys: number, args: (string | Buffer)[]): Promise<string[]> {
    const [, deadline, , , , , counts, birth, ...rest] = args.slice(keys).map(String)
    const rings = args.slice(1, keys).map(String)
    const events = args.slice(keys + 8 + 2 * rings.length)
    return new Promise((resolve, reject) => {
      this.calls.push({
        deadline: Number(deadline),
        birth: birth!,
        checkpoints: rings.map(
          (ring, index) => `${ring.slice(KEYS.ring('').length)} ${rest[2 * index]}-${rest[2 * index + 1]}`
        ),
        counts: counts === '' ? [] : counts!.split(' ').map(Number),
        events: events.filter((_, index) => index % EVENT_ARGUMENTS === 2),
        answer: (...answer) => resolve(answer),
        fail: reject
      })
    })
  }

  get last(): AppendCall {
    return this.calls.at(-1)!
  }

  /** Answers the last call: every event was stored, the first at this time, each at the next millisecond. */
  store(ms: number): void {
    const { answer, events } = this.last
    answer('ok', idAt(ms), ...events.flatMap((_, index) => ['stored', idAt(ms + index)]))
  }
}
