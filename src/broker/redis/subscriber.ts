import type { Redis } from 'ioredis'
import { SlotMoved, type LinkConnection, type LinkConnectionListener } from './link.ts'
import { lackOf } from './unavailable.ts'

/** How many channels go into one command. */
const CHANNELS_A_CALL = 1000

/** A connection of ioredis that subscribes, to sharded channels or to plain ones. */
export class Subscriber implements LinkConnection {
  readonly #redis: Redis
  readonly #isSharded: boolean
  readonly #refused: (error: Error) => void

  /** `redis` is connected. `refused` is told why channels can't be listened to. */
  constructor(
    redis: Redis,
    isSharded: boolean,
    listener: LinkConnectionListener,
    refused: (error: Error) => void
  ) {
    this.#redis = redis
    this.#isSharded = isSharded
    this.#refused = refused
    redis.on(isSharded ? 'smessageBuffer' : 'messageBuffer', listener.message)
    redis.once('close', () => listener.closed(new Error('connection closed')))
    redis.once('moved', () => listener.closed(new SlotMoved('the slot has moved')))
  }

  async listen(channels: readonly string[]): Promise<void> {
    for (let from = 0; from < channels.length; from += CHANNELS_A_CALL) {
      const some = channels.slice(from, from + CHANNELS_A_CALL)
      await this.#subscribe(some).catch((error: Error) => {
        this.#refused(error)
        throw lackOf(error) ?? error
      })
    }
  }

  #subscribe(channels: readonly string[]): Promise<unknown> {
    return this.#isSharded ? this.#redis.ssubscribe(...channels) : this.#redis.subscribe(...channels)
  }

  unlisten(channel: string): void {
    const done = this.#isSharded ? this.#redis.sunsubscribe(channel) : this.#redis.unsubscribe(channel)
    done.catch(() => {}) // the connection is being replaced
  }

  disconnect(): void {
    this.#redis.disconnect()
  }
}
