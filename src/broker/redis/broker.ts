import { randomUUID } from 'node:crypto'
import type { Clock } from '../../clock.ts'
import { Memory } from '../../memory.ts'
import { Rules } from '../../rules/rules.ts'
import type { Broker, Health } from '../broker.ts'
import { RedisConnections } from './connections.ts'
import { RedisLog } from './log.ts'
import type { Report } from './open.ts'
import type { RefusalsOptions } from './refusals.ts'
import { RedisRoster, RosterRelay } from './roster.ts'
import { RedisShard, type ShardSettings } from './shard.ts'
import { RedisTally } from './tally.ts'
import { isReason, lackOf, refusalWords, unavailable, Unfit } from './unavailable.ts'
import type { RedisTarget } from './url.ts'

/** Everything in Redis, so that any number of instances are one hub. */
export class RedisBroker implements Broker {
  readonly log: RedisLog
  readonly roster: RedisRoster
  readonly tally: RedisTally
  readonly #connections: RedisConnections
  readonly #shards: readonly RedisShard[]
  readonly #report: Report
  /** What was reported since the store answered last. */
  readonly #reported = new Set<string>()
  /** Why it can't be used, as far as is known since it answered last: what it lacks, or what went wrong. */
  #trouble: Error | null = null
  #isClosed = false

  /**
   * `report` is told what goes wrong: each reason once, until the store answers again. `countRefusal` counts what Redis
   * refuses, by what was asked and why. `memory` counts the members that are known here. `rules`: what holds for each topic.
   */
  constructor(
    target: RedisTarget,
    settings: ShardSettings,
    clock: Clock,
    report: Report,
    countRefusal?: RefusalsOptions['count'],
    memory = new Memory(Infinity),
    rules = new Rules(settings)
  ) {
    this.#report = report
    const reportFirst: Report = (stage, error) => this.#reportFirst(stage, error)
    const connections = new RedisConnections(
      target,
      settings.WAIT_REPLICAS,
      reportFirst,
      report,
      (op, kind) => {
        countRefusal?.(op, kind)
        if (kind === 'denied') for (const { fitness } of this.#shards) fitness.doubt()
      }
    )
    const instance = randomUUID()
    const rosterListener = new RosterRelay()
    const shared = { clock, connections, instance, memory, rosterListener, rules, settings, warn: report }
    const tellers = { report: reportFirst, unfit: (unfit: Unfit) => this.#reportUnfit(unfit) }
    const shards = Array.from(
      { length: settings.SHARDS },
      (_, shard) => new RedisShard({ shard, ...shared, ...tellers })
    )
    const prefixes = shards.map(({ keys }) => keys.prefix)
    this.#connections = connections
    this.#shards = shards
    this.log = new RedisLog(shards, () => this.#answers())
    this.roster = new RedisRoster(
      shards.map(({ roster }) => roster),
      rosterListener
    )
    this.tally = new RedisTally(connections.tally, prefixes, instance)
  }

  get health(): Health {
    const refusal = this.#shards.map(({ fitness }) => fitness.refusal).find(each => each !== null)
    return {
      unusable: this.#trouble && unavailable(this.#trouble).message,
      unwritable: refusal ? refusalWords(refusal) : null
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true
    for (const shard of this.#shards) shard.close()
    this.#connections.close()
  }

  /** Reports what goes wrong for the first time: what is tried again would fill the log until Redis is back. */
  #reportFirst(stage: string, error: Error): void {
    const lack = lackOf(error)
    if (lack) return this.#reportUnfit(lack)
    // the connection for announcements ends, and is tried again, for want of what is lacking
    if (stage !== 'commands' && this.#trouble instanceof Unfit) return
    this.#trouble = error
    if (this.#isClosed || this.#reported.has(error.message)) return
    if (this.#reported.size > 0 && !isReason(error)) return
    this.#reported.add(error.message)
    this.#report(stage, error)
  }

  /** Reports what the store lacks: once, in one line with the store's own words. */
  #reportUnfit(unfit: Unfit): void {
    const before = this.#trouble
    this.#trouble = unfit
    if (this.#isClosed || (before instanceof Unfit && before.message === unfit.message)) return
    const words = unfit.cause instanceof Error ? ` (${unfit.cause.message})` : ''
    this.#report('store', new Error(unfit.message + words))
  }

  #answers(): void {
    this.#reported.clear()
    this.#trouble = null
  }
}
