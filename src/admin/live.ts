import type { EventLog } from '../broker/event-log.ts'
import type { Clock } from '../clock.ts'
import type { Exchange, InstanceName } from './exchange.ts'
import type { Recent } from './recent.ts'
import type { Teller } from './teller.ts'
import { LIVE, type LiveTopic } from './topics.ts'

/** For how long an instance tells what another one has said is listened to, in milliseconds: that says it each second. */
const WANTED_MS = 5000

/** How many of the busiest topics are told. */
const BUSIEST = 20

const TOPICS = Object.keys(LIVE) as LiveTopic[]

export interface LiveOptions {
  readonly name: InstanceName
  readonly teller: Pick<Teller, 'report' | 'busiest'>
  readonly exchange: Pick<Exchange, 'tell'>
  readonly log: Pick<EventLog, 'append'>
  readonly hub: { subscribersOf(filter: string): number }
  readonly clock: Pick<Clock, 'now'>
}

/**
 * Tells on topics what happens on this instance, once a second for as long as anybody listens, on whichever instance. An
 * instance with listeners says so to the others each second.
 */
export class Live {
  readonly #options: LiveOptions
  /** Until when each topic is wanted, in milliseconds since the epoch. */
  readonly #wanted = new Map<LiveTopic, number>()
  #isTelling = false

  constructor(options: LiveOptions) {
    this.#options = options
  }

  /** Another instance says which topics are listened to there. */
  hear(news: unknown): void {
    const { listening } = news as { readonly listening: readonly LiveTopic[] }
    for (const topic of TOPICS) if (listening.includes(topic)) this.#want(topic)
  }

  /** A second is over; `news`: what went wrong in it. */
  turn(news: Recent): void {
    const listening = TOPICS.filter(topic => this.#options.hub.subscribersOf(LIVE[topic]) > 0)
    for (const topic of listening) this.#want(topic)
    if (listening.length > 0) this.#options.exchange.tell({ listening })
    if (TOPICS.some(topic => this.#isWanted(topic)) && !this.#isTelling) void this.#tell(news)
  }

  #want(topic: LiveTopic): void {
    this.#wanted.set(topic, this.#options.clock.now() + WANTED_MS)
  }

  #isWanted(topic: LiveTopic): boolean {
    return (this.#wanted.get(topic) ?? 0) > this.#options.clock.now()
  }

  /** Never rejects: what can't be told is told in a second. */
  async #tell(news: Recent): Promise<void> {
    this.#isTelling = true
    try {
      const told = await this.#told(news)
      const events = TOPICS.filter(topic => this.#isWanted(topic) && told[topic]).map(topic => ({
        topic: LIVE[topic],
        type: topic,
        data: JSON.stringify(told[topic])
      }))
      if (events.length > 0) await this.#options.log.append(events)
    } catch {
      // the store is away, and its streams say so
    }
    this.#isTelling = false
  }

  /** What there is to tell on each topic that is wanted; null for nothing. */
  async #told({ gaps, refusals }: Recent): Promise<Partial<Record<LiveTopic, object | null>>> {
    const { name, teller } = this.#options
    const instance = name.id
    const report = await teller.report()
    return {
      instances: report,
      connections: { instance, ...report.connections },
      topics: this.#isWanted('topics') ? { instance, ...(await teller.busiest(BUSIEST)) } : null,
      gaps: gaps.length + refusals.length > 0 ? { instance, gaps, refusals } : null
    }
  }
}
