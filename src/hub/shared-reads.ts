import { stopIfGone, type Asker } from '../asker.ts'
import type { EventLog, Page, State } from '../broker/event-log.ts'
import { covers, formatCursor, furthest, type Cursor, type Position } from '../event.ts'
import type { Memory } from '../memory.ts'
import type { BrokerOp } from '../metrics.ts'
import { Question, Shared } from '../shared.ts'
import type { Piece } from '../wire/packing.ts'
import type { Watch } from './watch.ts'

/** How many events are read in one go, for each filter. */
export const PAGE = 256

/** What reading needs of the hub. */
export interface ReadsHub {
  readonly log: EventLog
  readonly memory: Memory
  /** Everything up to here has been handed over in this process. */
  readonly position: Cursor
  /** Times a broker's answer. */
  timed<T>(op: BrokerOp, answer: Promise<T>): Promise<T>
}

/** A topic's state as it was read. */
export interface Snapshot {
  /** Nothing that was stored up to here is missing in the state. */
  readonly position: Cursor
  /** Null where the topic has none. */
  readonly state: State | null
  /** What it was written as so far, for all who get the same bytes. */
  readonly pieces: Map<string, Piece>
}

/**
 * Equal reads under way are shared: for many clients that come back at once the broker is asked once. Once all who wait for
 * one have gone it is given up, and rejects with `Unwanted`.
 */
export class SharedReads {
  readonly #hub: ReadsHub
  readonly #rewinds = new Shared<ReadonlyMap<string, Position>>()
  readonly #pages = new Map<string, Question<Page>>()
  readonly #snapshots = new Map<string, { readonly asOf: Cursor; readonly read: Question<Snapshot> }>()

  constructor(hub: ReadsHub) {
    this.#hub = hub
  }

  /** A page of a filter's events after a cursor, which its rings take in as well. Rejects with `BrokerUnavailable`. */
  range(watch: Watch, after: Cursor, asker?: Asker): Promise<Page> {
    const name = `${watch.filter} ${formatCursor(after)}`
    return this.#shared(name, asker, askers => this.#readRange(watch, after, askers))
  }

  /** A page of the newest events of a filter's topics, where they come after a cursor. Rejects with `BrokerUnavailable`. */
  newest(watch: Watch, after: Cursor, asker?: Asker): Promise<Page> {
    const name = `newest ${watch.filter} ${formatCursor(after)}`
    return this.#shared(name, asker, askers => this.#readNewest(watch, after, askers))
  }

  /**
   * For each topic of a filter: the position just before its `count`th last event. A topic that begins while this is read
   * must not be passed over by who comes later, so that they share the next one. Rejects with `BrokerUnavailable`.
   */
  rewind({ filter }: Watch, count: number, asker?: Asker): Promise<ReadonlyMap<string, Position>> {
    const { log } = this.#hub
    const ask = (askers: Asker) => this.#hub.timed('rewind', log.rewind(filter, count, askers))
    return this.#rewinds.read(`${count} ${filter}`, ask, asker)
  }

  #shared(key: string, asker: Asker | undefined, ask: (askers: Asker) => Promise<Page>): Promise<Page> {
    const shared = this.#pages.get(key)
    if (shared && !shared.isGone) return shared.join(asker)
    const read: Question<Page> = new Question(askers =>
      ask(askers).finally(() => {
        if (this.#pages.get(key) === read) this.#pages.delete(key)
      })
    )
    this.#pages.set(key, read)
    return read.join(asker)
  }

  async #readNewest(watch: Watch, after: Cursor, askers: Asker): Promise<Page> {
    const page = await this.#hub.timed('newest', this.#hub.log.newest(watch.filter, after, PAGE, askers))
    watch.learn(page.events)
    return page
  }

  async #readRange(watch: Watch, after: Cursor, askers: Asker): Promise<Page> {
    const { filter, era } = watch
    const page = await this.#hub.timed('range', this.#hub.log.range(filter, after, PAGE, askers))
    watch.learn(page.events)
    // those who come a moment later shall not have to ask again; unless it began anew meanwhile
    if (watch.era === era) watch.extend(after, page)
    this.#hub.memory.settle()
    return page
  }

  /**
   * A topic's state, for who has come as far as a cursor: nothing up to there is missing in it. Rejects with
   * `BrokerUnavailable`.
   */
  snapshot(topic: string, cursor: Cursor, asker?: Asker): Promise<Snapshot> {
    // what was asked for in another life of the store, or before it lost events, says nothing of now
    const { birth, lost } = this.#hub.log
    const key = `${topic} ${formatCursor(birth)} ${formatCursor(lost)}`
    const shared = this.#snapshots.get(key)
    // one that was asked for earlier may have been answered before what this one has already
    if (shared && !shared.read.isGone && covers(shared.asOf, cursor)) return shared.read.join(asker)
    const read: Question<Snapshot> = new Question(askers =>
      this.#hub.timed('state', this.#readSnapshot(topic, askers)).finally(() => {
        if (this.#snapshots.get(key)?.read === read) this.#snapshots.delete(key)
      })
    )
    this.#snapshots.set(key, { asOf: furthest(this.#hub.position, cursor), read })
    return read.join(asker)
  }

  /** The position is asked for first: what is stored between the two is in the state, and comes after the position. */
  async #readSnapshot(topic: string, askers: Asker): Promise<Snapshot> {
    const position = await this.#hub.log.position()
    stopIfGone(askers)
    return { position, state: await this.#hub.log.state(topic, askers), pieces: new Map() }
  }
}
