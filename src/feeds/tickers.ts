import { stopIfGone, type Asker } from '../asker.ts'
import type { EventLog, State } from '../broker/event-log.ts'
import { comparePositions, formatCursor, type Cursor, type Position } from '../event.ts'
import { Problem } from '../problem.ts'
import { idOf, type Publication, type Publisher } from '../publisher.ts'
import { Shared } from '../shared.ts'
import { Turn } from '../turn.ts'
import { Changes, versionOf } from './feeds.ts'

/** What a symbol may be, as the source of a regular expression. */
export const SYMBOL_PATTERN = '^[A-Za-z0-9._:^=-]{1,32}$'

/** A quote that is to be published: JSON of an object with its symbol and price. */
export interface NewQuote {
  readonly symbol: string
  readonly json: string
  readonly key?: string
}

/** The latest quote of a symbol. */
export interface Quote {
  readonly topic: string
  readonly json: string
  /** The id of its event. */
  readonly id: string
  readonly position: Position
  readonly shard: number
}

/** The latest quotes by age, and a cursor after which nothing newer is missing. */
export interface LatestQuotes {
  readonly quotes: readonly Quote[]
  readonly cursor: Cursor
}

/** Tickers: the latest value of each symbol, and its changes, on `tickers/<symbol>`. */
export class Tickers {
  readonly #log: EventLog
  readonly #publisher: Publisher
  readonly #changes: Changes
  readonly #latest = new Shared<LatestQuotes>()

  constructor(log: EventLog, publisher: Publisher) {
    this.#log = log
    this.#publisher = publisher
    this.#changes = new Changes(log)
  }

  /**
   * Resolves with the ids of the quotes, in order, and whether all were stored before under their keys. Rejects as
   * `Publisher.publish` does.
   */
  async publish(
    quotes: readonly NewQuote[],
    { source = 'tickers', writer, nameOf }: Partial<Publication> = {}
  ): Promise<{ ids: string[]; replayed: boolean }> {
    for (const [index, { symbol, json }] of quotes.entries())
      this.#publisher.checkSize(
        topicOf(symbol),
        Buffer.byteLength(json),
        part => nameOf?.(part, index) ?? '',
        'a quote of'
      )
    const events = quotes.map(({ symbol, json, key }) => ({
      topic: topicOf(symbol),
      type: 'quote',
      data: json,
      state: { value: json },
      ...(key !== undefined && { key })
    }))
    const appended = await this.#publisher.publish(events, { feed: 'tickers', source, writer, nameOf })
    return {
      ids: appended.map(each => formatCursor(idOf(each))),
      replayed: appended.every(({ outcome }) => outcome === 'replayed')
    }
  }

  /**
   * Ends a symbol: it has no latest quote until the next one. Rejects with a `Problem` (404) for one that has none, and as
   * `Publisher.admit` throws.
   */
  async delete(symbol: string, { writer }: Pick<Publication, 'writer'> = {}): Promise<void> {
    const topic = topicOf(symbol)
    const admitted = this.#publisher.admit([topic], { feed: 'tickers', source: 'tickers', writer })
    await this.#changes.apply(topic, admitted, state => {
      if (!state) throw new Problem('not found', `there is no quote of ${symbol}`)
      return { type: 'deleted', data: JSON.stringify({ symbol }), value: null }
    })
  }

  /** The latest quotes that filters cover. Rejects with `BrokerUnavailable`, and with `Unwanted` once `asker` has gone. */
  latest(filters: readonly string[], asker?: Asker): Promise<LatestQuotes> {
    return this.#latest.read(filters.join(' '), askers => this.#readLatest(filters, askers), asker)
  }

  async #readLatest(filters: readonly string[], askers: Asker): Promise<LatestQuotes> {
    const cursor = await this.#log.position()
    stopIfGone(askers)
    const found = await Promise.all(filters.map(filter => this.#log.topics(filter, askers)))
    stopIfGone(askers)
    const topics = found.length === 1 ? found[0]! : [...new Set(found.flat())]
    const states = await this.#log.states(topics, askers)
    const turn = new Turn(askers)
    const quotes = await turn.map(states, ([topic, state]) => this.#quoteOf(topic, state))
    return { quotes: await turn.sort(quotes, (a, b) => comparePositions(a.position, b.position)), cursor }
  }

  #quoteOf(topic: string, { value, version }: State): Quote {
    const shard = this.#log.shardOf(topic)
    return { topic, json: value, id: versionOf(this.#log, topic, version), position: version, shard }
  }
}

/** The filters of symbols; of all where one of them is `*`. */
export function tickerFilters(symbols: readonly string[]): string[] {
  return symbols.includes('*') ? ['tickers/*'] : symbols.map(topicOf)
}

/** The topic of a symbol. */
export function topicOf(symbol: string): string {
  return `tickers/${symbol}`
}
