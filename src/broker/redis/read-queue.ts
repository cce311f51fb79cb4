import { stopIfGone, type Asker } from '../../asker.ts'
import type { ReadStore, StoppableStore } from './reads.ts'
import type { RosterReads } from './roster-store.ts'
import type { RangeAnswer } from './wire.ts'

/**
 * How many questions of an instance are under way at a time. Redis does one thing after the other, for all instances: it
 * is to come to the next append, tick or lease after a few of ours, however many readers wait here.
 */
const UNDER_WAY = 8

/** Asks what readers want to know, on a connection of their own: a few questions at a time, in the order that they come. */
export class ReadQueue implements StoppableStore, RosterReads {
  readonly #client: () => ReadStore & RosterReads
  readonly #watch: <T>(answer: Promise<T>) => Promise<T>
  readonly #places: Places
  readonly #asker: Asker | undefined

  /** `client` is whom to ask now; `watch` is shown each answer. */
  constructor(
    client: () => ReadStore & RosterReads,
    watch: <T>(answer: Promise<T>) => Promise<T>,
    places = new Places(),
    asker?: Asker
  ) {
    this.#client = client
    this.#watch = watch
    this.#places = places
    this.#asker = asker
  }

  /** The same queue for one who may go. */
  until(asker: Asker): ReadQueue {
    return new ReadQueue(this.#client, this.#watch, this.#places, asker)
  }

  ringsidePageBuffer(clock: string, last: string, order: string, ...args: string[]): Promise<RangeAnswer> {
    return this.#ask(() => this.#client().ringsidePageBuffer(clock, last, order, ...args))
  }

  ringsideRangeBuffer(keys: number, ...args: string[]): Promise<RangeAnswer> {
    return this.#ask(() => this.#client().ringsideRangeBuffer(keys, ...args))
  }

  ringsideNewestBuffer(clock: string, index: string, ...args: string[]): Promise<RangeAnswer> {
    return this.#ask(() => this.#client().ringsideNewestBuffer(clock, index, ...args))
  }

  ringsideRewind(keys: number, ...args: string[]): Promise<string[]> {
    return this.#ask(() => this.#client().ringsideRewind(keys, ...args))
  }

  ringsideStates(keys: number, ...args: string[]): Promise<string[]> {
    return this.#ask(() => this.#client().ringsideStates(keys, ...args))
  }

  ringsideMembers(keys: number, ...args: string[]): Promise<(string | string[])[]> {
    return this.#ask(() => this.#client().ringsideMembers(keys, ...args))
  }

  hmget(key: string, ...fields: string[]): Promise<(string | null)[]> {
    return this.#ask(() => this.#client().hmget(key, ...fields))
  }

  smembers(key: string): Promise<string[]> {
    return this.#ask(() => this.#client().smembers(key))
  }

  zrangebyscore(key: string, min: number, max: '+inf'): Promise<string[]> {
    return this.#ask(() => this.#client().zrangebyscore(key, min, max))
  }

  async #ask<T>(ask: () => Promise<T>): Promise<T> {
    await this.#places.take()
    try {
      stopIfGone(this.#asker)
      return await this.#watch(ask())
    } finally {
      this.#places.giveBack()
    }
  }
}

/** The places of the questions that are under way. */
class Places {
  #taken = 0
  /** Who waits, and begins when it is called. */
  readonly #waiting: (() => void)[] = []

  /** Resolves once there is one. */
  take(): Promise<void> | void {
    if (this.#taken === UNDER_WAY) return new Promise(resolve => this.#waiting.push(resolve))
    this.#taken++
  }

  giveBack(): void {
    // whoever comes next takes its place
    const next = this.#waiting.shift()
    if (next) next()
    else this.#taken--
  }
}
