import type { Clock } from '../clock.ts'
import type { Settings } from '../config.ts'
import type { Position } from '../event.ts'
import type { Hub } from '../hub/hub.ts'
import type { Memory } from '../memory.ts'
import type { Rules } from '../rules/rules.ts'
import { ConnectionList, type ConnectionPart, type ConnectionQuery } from './connections.ts'
import {
  memoryReport,
  processReport,
  type InstanceReport,
  type LoopMeter,
  type StoreReport
} from './instance.ts'
import type { InstanceName } from './exchange.ts'
import type { Recent, RecentTrouble } from './recent.ts'
import { inForce, type InForce } from './settings.ts'
import { busiest, type TopicPart } from './watches.ts'

/** What an instance can be asked, and what can be asked of it. */
export type Question =
  | { readonly what: 'instance' }
  | { readonly what: 'connections'; readonly query: ConnectionQuery }
  | { readonly what: 'topics'; readonly limit: number }
  | { readonly what: 'gaps' }
  | { readonly what: 'settings' }
  | { readonly what: 'disconnect'; readonly id?: string; readonly user?: string }
  | { readonly what: 'clear'; readonly topic: string; readonly upTo: Position }
  | { readonly what: 'drain' }

/** What each is answered with. */
export interface Answers {
  readonly instance: InstanceReport
  readonly connections: ConnectionPart
  readonly topics: TopicPart
  readonly gaps: Recent
  readonly settings: InForce
  /** How many connections were ended. */
  readonly disconnect: number
  readonly clear: true
  readonly drain: true
}

/** The instance that is told of: views of its parts. */
export interface OwnInstance {
  readonly name: InstanceName
  readonly version: string
  /** Which of several processes on one port it is, from 0; null where it is alone. */
  readonly worker: number | null
  readonly hub: Pick<Hub, 'clear' | 'connections' | 'position' | 'subscribersOf' | 'watches'>
  readonly memory: Memory
  readonly settings: Settings
  readonly rules: Pick<Rules, 'list'>
  readonly clock: Clock
  store(): StoreReport
  /** Why it can't serve; null where it can. */
  unready(): string | null
  isDraining(): boolean
  /** Takes no new streams, and ends the open ones. */
  drain(): void
}

/** What an instance tells of itself, and does when it is told to. It knows nothing of the others. */
export class Teller {
  readonly #own: OwnInstance
  readonly #meter: Pick<LoopMeter, 'last'>
  readonly #trouble: Pick<RecentTrouble, 'all'>
  readonly #connections: ConnectionList

  constructor(own: OwnInstance, meter: Pick<LoopMeter, 'last'>, trouble: Pick<RecentTrouble, 'all'>) {
    this.#own = own
    this.#meter = meter
    this.#trouble = trouble
    this.#connections = new ConnectionList(own.name.id, own.hub.connections, () => own.hub.position)
  }

  /** Resolves with what is answered: see `Answers`. Rejects for what an instance of another version may ask. */
  answer(question: Question): Promise<Answers[Question['what']]> {
    switch (question.what) {
      case 'instance':
        return this.report()
      case 'connections':
        return this.#connections.find(question.query)
      case 'topics':
        return this.busiest(question.limit)
      case 'gaps':
        return Promise.resolve(this.#trouble.all)
      case 'settings':
        return Promise.resolve(inForce(this.#own.settings, this.#own.rules.list))
      case 'disconnect':
        return this.#connections.disconnect(question)
      case 'clear':
        this.#own.hub.clear(question.topic, question.upTo)
        return Promise.resolve(true)
      case 'drain':
        this.#own.drain()
        return Promise.resolve(true)
      default:
        return notKnown(question)
    }
  }

  async report(): Promise<InstanceReport> {
    const { name, version, worker, hub, memory } = this.#own
    return {
      ...name,
      ...{ worker, version, ...processReport() },
      unready: this.#own.unready(),
      draining: this.#own.isDraining(),
      connections: await this.#connections.count(),
      topics: [...hub.watches].length,
      memory: memoryReport(memory),
      eventLoop: this.#meter.last,
      store: this.#own.store()
    }
  }

  busiest(limit: number): Promise<TopicPart> {
    return busiest(this.#own.hub.watches, limit, this.#own.clock.now())
  }
}

function notKnown(question: never): Promise<never> {
  return Promise.reject(new Error(`nothing is known of the question ${JSON.stringify(question)}`))
}
