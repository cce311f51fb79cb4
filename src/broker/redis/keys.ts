import { isWildcard } from '../../event.ts'

/** What comes in on a channel. */
export type ChannelKind = 'event' | 'tick' | 'loss' | 'members'

/** The first letter after the prefix of a channel's name, where what comes in on it is no event. */
const KINDS: ReadonlyMap<number | undefined, ChannelKind> = new Map([
  ['i'.charCodeAt(0), 'tick'],
  ['l'.charCodeAt(0), 'loss'],
  ['m'.charCodeAt(0), 'members']
])

/** How one shard's keys and channels are called. All of them have its hash tag, and so lie in one hash slot. */
export class ShardKeys {
  /** What every key and channel of the shard begins with. */
  readonly prefix: string
  readonly clock: string
  /** The channel on which every instance is told what the store has lost. */
  readonly losses: string
  readonly #prefixBytes: number

  constructor(keyPrefix: string, tag: string) {
    this.prefix = `${keyPrefix}{${tag}}:`
    this.clock = `${this.prefix}clock`
    this.losses = `${this.prefix}lost`
    this.#prefixBytes = Buffer.byteLength(this.prefix)
  }

  /** The stream with a topic's newest events. */
  ring(topic: string): string {
    return `${this.prefix}ring:${topic}`
  }

  /** The stream with the topics of a wildcard, by the ids of their events. */
  order(wildcard: string): string {
    return `${this.prefix}order:${wildcard}`
  }

  /** The hash with the last id of each topic of a wildcard. */
  last(wildcard: string): string {
    return `${this.prefix}last:${wildcard}`
  }

  /** The sorted set with the topics of a wildcard, by the milliseconds of their last id. */
  index(wildcard: string): string {
    return `${this.prefix}index:${wildcard}`
  }

  /** The hash with a topic's latest whole value and its version. */
  state(topic: string): string {
    return `${this.prefix}state:${topic}`
  }

  /** The set with the topics of a wildcard that have a state. */
  states(wildcard: string): string {
    return `${this.prefix}states:${wildcard}`
  }

  /** The channel on which the events of a filter are announced. */
  events(filter: string): string {
    return `${this.prefix}${isWildcard(filter) ? 'w' : 't'}:${filter}`
  }

  /** The channel on which one instance gets its own ticks. */
  ticks(instance: string): string {
    return `${this.prefix}i:${instance}`
  }

  /** What comes in on a channel. */
  kindOf(channel: Buffer): ChannelKind {
    return KINDS.get(channel[this.#prefixBytes]) ?? 'event'
  }

  /** The filter whose events are announced on a channel. */
  filterOf(channel: Buffer): string {
    return channel.toString('utf8', this.#prefixBytes + 2)
  }
}
