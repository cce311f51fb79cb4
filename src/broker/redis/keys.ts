import { isWildcard } from '../../event.ts'

/** What comes in on a channel. */
export type ChannelKind = 'event' | 'tick' | 'loss' | 'members'

/** The first letter after the prefix of a channel's name, where what comes in on it is no event. */
const KINDS: ReadonlyMap<number | undefined, ChannelKind> = new Map([
  ['i'.charCodeAt(0), 'tick'],
  ['l'.charCodeAt(0), 'loss'],
  ['m'.charCodeAt(0), 'members']
])

/**
 * How one shard's keys and channels are called. All of them have its hash tag, and so lie in one hash slot. Pub/sub knows no
 * databases: the channels of one that is not 0 have its number in their names.
 */
export class ShardKeys {
  /** What every key of the shard begins with. */
  readonly prefix: string
  /** What every channel of the shard begins with. */
  readonly channels: string
  readonly clock: string
  /** The channel on which every instance is told what the store has lost. */
  readonly losses: string
  readonly #channelBytes: number

  /** `database`: its number. */
  constructor(keyPrefix: string, tag: string, database = 0) {
    this.prefix = `${keyPrefix}{${tag}}:`
    this.channels = `${keyPrefix}{${tag}}${databaseName(database)}:`
    this.clock = `${this.prefix}clock`
    this.losses = `${this.channels}lost`
    this.#channelBytes = Buffer.byteLength(this.channels)
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

  /** The hash with the id of the event that has ended each topic of a wildcard, of those that have ended. */
  ended(wildcard: string): string {
    return `${this.prefix}ended:${wildcard}`
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
    return `${this.channels}${isWildcard(filter) ? 'w' : 't'}:${filter}`
  }

  /** The channel on which one instance gets its own ticks. */
  ticks(instance: string): string {
    return `${this.channels}i:${instance}`
  }

  /** The channel on which members and signals of a filter are announced. */
  members(filter: string): string {
    return `${this.channels}m:${filter}`
  }

  /** What comes in on a channel. */
  kindOf(channel: Buffer): ChannelKind {
    return KINDS.get(channel[this.#channelBytes]) ?? 'event'
  }

  /** The filter whose events are announced on a channel. */
  filterOf(channel: Buffer): string {
    return channel.toString('utf8', this.#channelBytes + 2)
  }
}

/** What the channels of a database have in their names; '' of 0, which is where a Cluster has all. */
function databaseName(database: number): string {
  return database === 0 ? '' : `@${database}`
}
