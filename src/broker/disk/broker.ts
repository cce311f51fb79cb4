import type { Clock } from '../../clock.ts'
import { Memory } from '../../memory.ts'
import { Rules } from '../../rules/rules.ts'
import type { Broker, Health } from '../broker.ts'
import { LocalRoster } from '../embedded/roster.ts'
import type { Tally } from '../tally.ts'
import { DiskLog, type DiskObserver, type DiskSettings } from './log.ts'
import { Store } from './store.ts'

const SILENT: DiskObserver = { warn: () => {}, flushed: () => {} }

/** The embedded broker with its store on disk: this process is the only instance. */
export class DiskBroker implements Broker {
  readonly log: DiskLog
  readonly roster: LocalRoster
  /** There are no other instances whose counts could be added up. */
  readonly tally: Tally = { count: () => Promise.resolve(new Map<string, number>()) }
  readonly health: Health

  private constructor(log: DiskLog, memory: Memory) {
    this.log = log
    this.roster = new LocalRoster(memory)
    this.health = {
      get unusable() {
        return log.unusable
      },
      get unwritable() {
        return log.unwritable
      }
    }
  }

  /** Opens the store in a folder. Rejects with `StoreUnusable` and `StoreDamaged`. */
  static async open(
    folder: string,
    settings: DiskSettings,
    clock: Clock,
    memory: Memory = new Memory(Infinity),
    observer: DiskObserver = SILENT,
    rules: Rules = new Rules(settings)
  ): Promise<DiskBroker> {
    const store = await Store.open(folder)
    try {
      return new DiskBroker(await DiskLog.open(store, settings, clock, memory, observer, rules), memory)
    } catch (error) {
      await store.close()
      throw error
    }
  }

  async close(): Promise<void> {
    await this.log.close()
    this.roster.close()
  }
}
