import type { Clock } from '../../clock.ts'
import type { Settings } from '../../config.ts'
import { Memory } from '../../memory.ts'
import { Rules } from '../../rules/rules.ts'
import type { Broker, Health } from '../broker.ts'
import type { Tally } from '../tally.ts'
import { LocalLog } from './log.ts'
import { LocalRoster } from '../embedded/roster.ts'

/** The embedded broker: this process is the only instance. */
export class LocalBroker implements Broker {
  readonly log: LocalLog
  readonly roster: LocalRoster
  /** There are no other instances whose counts could be added up. */
  readonly tally: Tally = { count: () => Promise.resolve(new Map<string, number>()) }

  readonly health: Health = { unusable: null, unwritable: null }

  /** `memory`: where all that it keeps is counted. */
  constructor(
    settings: Pick<Settings, 'RING_SIZE' | 'RING_TTL'>,
    clock: Clock,
    memory: Memory = new Memory(Infinity),
    rules: Rules = new Rules(settings)
  ) {
    this.log = new LocalLog(settings, clock, memory, rules)
    this.roster = new LocalRoster(memory)
  }

  close(): Promise<void> {
    this.log.close()
    this.roster.close()
    return Promise.resolve()
  }
}
