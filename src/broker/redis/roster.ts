import type { Member, Signal } from '../../event.ts'
import type { Roster, RosterListener } from '../roster.ts'
import type { ShardRoster } from './shard-roster.ts'
import { AllOrNone, shardOf } from './sharding.ts'

/** The roster in Redis: the members of each topic are kept in the topic's shard. */
export class RedisRoster implements Roster {
  readonly #shards: readonly ShardRoster[]
  readonly #relay: RosterRelay
  readonly #follows: AllOrNone<ShardRoster>

  /** `relay` is where the shards hand over. */
  constructor(shards: readonly ShardRoster[], relay: RosterRelay) {
    this.#shards = shards
    this.#relay = relay
    this.#follows = new AllOrNone(shards, (shard, filter) => shard.unfollow(filter))
  }

  listen(listener: RosterListener): void {
    this.#relay.listen(listener)
  }

  async follow(filter: string): Promise<void> {
    await this.#follows.begin(filter, shard => shard.follow(filter))
  }

  unfollow(filter: string): void {
    this.#follows.end(filter)
  }

  members(topic: string): readonly Member[] {
    return this.#shardOf(topic).members(topic)
  }

  join(topic: string, member: Member): Promise<void> {
    return this.#shardOf(topic).join(topic, member)
  }

  leave(topic: string, id: string): Promise<void> {
    return this.#shardOf(topic).leave(topic, id)
  }

  signal(signal: Signal): Promise<void> {
    return this.#shardOf(signal.topic).signal(signal)
  }

  #shardOf(topic: string): ShardRoster {
    return this.#shards[shardOf(topic, this.#shards.length)]!
  }
}

/** Passes on what the shards hand over: they are made before anybody listens. */
export class RosterRelay implements RosterListener {
  #listener!: RosterListener

  listen(listener: RosterListener): void {
    this.#listener = listener
  }

  joined(filter: string, topic: string, member: Member): void {
    this.#listener.joined(filter, topic, member)
  }

  left(filter: string, topic: string, member: Member): void {
    this.#listener.left(filter, topic, member)
  }

  signalled(filter: string, signal: Signal): void {
    this.#listener.signalled(filter, signal)
  }
}
