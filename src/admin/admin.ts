import type { Broker } from '../broker/broker.ts'
import type { Timer } from '../clock.ts'
import type { Hub } from '../hub/hub.ts'
import { Exchange } from './exchange.ts'
import { LoopMeter } from './instance.ts'
import { Live } from './live.ts'
import { Operator, type ActLog } from './operator.ts'
import { RecentTrouble, type Refused } from './recent.ts'
import { Teller, type OwnInstance, type Question } from './teller.ts'

/** How often what happens is looked at, and told to who listens, in milliseconds. */
const TURN_MS = 1000

export interface AdminOptions {
  readonly own: OwnInstance
  readonly broker: Pick<Broker, 'log' | 'roster'>
  readonly hub: Pick<Hub, 'presence' | 'onGap'>
  readonly noteAct: ActLog
  /** Whether the store is one that other instances may share. */
  readonly isShared: boolean
  /** How often what was refused so far. */
  refused(): Promise<readonly Refused[]>
}

/** The operator's side of an instance: its parts, joined. */
export class Admin {
  readonly operator: Operator
  readonly #options: AdminOptions
  readonly #exchange: Exchange
  readonly #live: Live
  readonly #meter = new LoopMeter()
  readonly #trouble = new RecentTrouble()
  #timer: Timer | undefined

  constructor(options: AdminOptions) {
    const { own, broker, hub, noteAct } = options
    const { name, clock } = own
    const teller = new Teller(own, this.#meter, this.#trouble)
    this.#options = options
    this.#exchange = new Exchange({
      ...{ name, clock, roster: broker.roster, presence: hub.presence },
      listener: {
        answer: question => teller.answer(question as Question),
        hear: news => this.#live.hear(news)
      }
    })
    this.#live = new Live({ name, teller, clock, exchange: this.#exchange, log: broker.log, hub: own.hub })
    this.operator = new Operator({ exchange: this.#exchange, log: broker.log, noteAct })
    hub.onGap = (gap, transport, count) => this.#trouble.noteGap(gap, transport, count, clock.now())
  }

  /** Joins the other instances, where there may be any, and begins to look. */
  start(): void {
    if (this.#options.isShared) this.#exchange.start()
    this.#meter.start()
    this.#timer = this.#options.own.clock.after(TURN_MS, () => {
      void this.#turn().finally(() => this.#timer?.refresh())
    })
  }

  close(): void {
    this.#timer?.cancel()
    this.#timer = undefined
    this.#meter.stop()
    this.#exchange.close()
  }

  async #turn(): Promise<void> {
    const { own, refused } = this.#options
    this.#meter.turn()
    this.#trouble.noteRefused(await refused(), own.clock.now())
    this.#live.turn(this.#trouble.takeNews(own.clock.now()))
  }
}
