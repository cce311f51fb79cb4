import calculateSlot from 'cluster-key-slot'
import { isWildcard } from '../../event.ts'

/** The shard of a topic: FNV-1a over its bytes. It is the same in every instance, and even for names that differ little. */
export function shardOf(topic: string, shards: number): number {
  if (shards === 1) return 0
  let hash = 0x811c9dc5
  for (const byte of Buffer.from(topic)) hash = Math.imul(hash ^ byte, 0x01000193)
  return (hash >>> 0) % shards
}

/** Those of some shards that hold topics of a filter: all of them for a wildcard. */
function shardsOf<Shard>(filter: string, shards: readonly Shard[]): readonly Shard[] {
  return isWildcard(filter) ? shards : [shards[shardOf(filter, shards.length)]!]
}

/** The hash tag of a shard, such that on a Cluster each shard lands in its own part of the slots, so on its own node. */
export function hashTag(shard: number, shards: number): string {
  const slots = 16_384
  for (let salt = 0; ; salt++) {
    const tag = salt === 0 ? `${shard}` : `${shard}.${salt}`
    if (Math.floor((calculateSlot(tag) * shards) / slots) === shard || shards === 1) return tag
  }
}

/** Begins something of a filter in all shards that hold its topics, or in none of them. */
export class AllOrNone<Shard> {
  readonly #shards: readonly Shard[]
  readonly #end: (shard: Shard, filter: string) => void
  /** The attempt that is under way for each filter. */
  readonly #attempts = new Map<string, object>()

  constructor(shards: readonly Shard[], end: (shard: Shard, filter: string) => void) {
    this.#shards = shards
    this.#end = end
  }

  /**
   * Resolves with what each shard has answered. When one of them rejects, it is ended in all, unless it was ended or
   * begun with anew since.
   */
  async begin<T>(filter: string, begin: (shard: Shard) => Promise<T>): Promise<T[]> {
    const attempt = {}
    this.#attempts.set(filter, attempt)
    const results = await Promise.allSettled(shardsOf(filter, this.#shards).map(begin))
    const failed = results.find(result => result.status === 'rejected')
    if (this.#attempts.get(filter) === attempt) {
      this.#attempts.delete(filter)
      if (failed) this.end(filter)
    }
    if (failed) throw failed.reason
    return results.map(result => (result as PromiseFulfilledResult<T>).value)
  }

  end(filter: string): void {
    this.#attempts.delete(filter)
    for (const shard of shardsOf(filter, this.#shards)) this.#end(shard, filter)
  }
}
