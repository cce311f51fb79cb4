import { createHash } from 'node:crypto'
import { TALLY_MS, type Tally } from '../tally.ts'
import { shardOf } from './sharding.ts'

/** What counting asks of Redis. */
export interface TallyStore {
  /** Tells how much one of those who are counted did on an instance; the answer is how much on all others. */
  ringsideTally(key: string, instance: string, count: string, ms: string): Promise<number>
}

/** The tally in Redis: a hash for each of those who are counted, spread over the shards. */
export class RedisTally implements Tally {
  readonly #store: TallyStore
  readonly #prefixes: readonly string[]
  readonly #instance: string

  /** `prefixes`: what the keys of each shard begin with. */
  constructor(store: TallyStore, prefixes: readonly string[], instance: string) {
    this.#store = store
    this.#prefixes = prefixes
    this.#instance = instance
  }

  async count(counts: ReadonlyMap<string, number>): Promise<Map<string, number>> {
    const others = new Map<string, number>()
    const calls = [...counts].map(async ([name, count]) => {
      const args = [this.#instance, `${count}`, `${TALLY_MS}`] as const
      others.set(name, await this.#store.ringsideTally(this.#keyOf(name), ...args))
    })
    // what can't be had is tried again soon
    await Promise.allSettled(calls)
    return others
  }

  #keyOf(name: string): string {
    // a name may be of any length, and nobody's business
    const digest = createHash('sha256').update(name).digest('base64url')
    return `${this.#prefixes[shardOf(name, this.#prefixes.length)]!}t:${digest}`
  }
}
