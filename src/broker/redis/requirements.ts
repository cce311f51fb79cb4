import type { ShardKeys } from './keys.ts'
import type { ReadStore } from './reads.ts'
import { refusal, refusalKind } from './refusals.ts'
import type { RosterCommands } from './roster-store.ts'
import type { TallyStore } from './tally.ts'
import { lacking, lackOf, Unfit } from './unavailable.ts'
import { eventArguments, readOutcomes, type PublishCommand } from './wire.ts'

/** The oldest version that has all that we need: exclusive ranges, and trimming by id. */
const OLDEST = [6, 2] as const

/** For how long what was tried out is kept where its removal fails, in milliseconds. */
const TRIED_MS = '10000'

/** What a server says that can't answer now, and may later: it loads, is a replica, or has not this slot. */
const PASSING =
  /LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|MOVED|TRYAGAIN|\bASK\b|BUSY|MISCONF|NOREPLICAS|NOAUTH|WRONGPASS|NOSCRIPT/

/** What is asked of Redis, by all who ask. */
export interface TriedStore extends ReadStore, RosterCommands, TallyStore {
  ringsideCheck(keys: number, ...args: string[]): Promise<string[]>
  ringsideTick(keys: number, ...args: string[]): Promise<unknown>
  ringsideAppend(keys: number, ...args: (string | Buffer)[]): Promise<string[]>
  del(...keys: string[]): Promise<unknown>
}

export interface RequirementsOptions {
  readonly keys: ShardKeys
  /** How keys are called that this instance alone tries things out on. */
  readonly trialKeys: ShardKeys
  /** The connection of now: it is another one once a Cluster is found. */
  store(): TriedStore
  /** How scripts announce. */
  publishCommand(): PublishCommand
  /** Is told, at most once, that nobody can say whether the store evicts keys. */
  unknown(error: Error): void
}

/** Tries on the real store of a shard what we need of it. Whatever it lacks is named by an `Unfit`. */
export class Requirements {
  readonly #options: RequirementsOptions
  #isUnknownTold = false

  constructor(options: RequirementsOptions) {
    this.#options = options
  }

  /**
   * Runs everything that is ever asked, on keys that only this instance uses. Resolves as `check` does. Rejects with
   * `Unfit`, or with what keeps the store from answering now.
   */
  async tryAll(): Promise<Error | null> {
    const refused = await this.check()
    const { publishCommand, store, trialKeys } = this.#options
    const trial = new Trial(store(), trialKeys, publishCommand())
    try {
      await trial.run(!refused)
    } finally {
      await trial.remove().catch(() => {}) // the store has gone away
    }
    return refused
  }

  /**
   * Asks for what may change while the store is used. Resolves with what it says instead of taking a write, or null where
   * it takes it. Rejects as `tryAll` does.
   */
  async check(): Promise<Error | null> {
    const { keys, publishCommand, store } = this.#options
    const answer = await named('check', store().ringsideCheck(1, keys.clock, publishCommand()))
    const [version, maxmemory, policy, refused, ranges] = answer as [string, string, string, string, string]
    requireVersion(version)
    if (ranges) throw lacking('takes no exclusive ranges of a stream', ranges)
    this.#requireNoEviction(maxmemory, policy)
    return refused ? refusal(`XADD: ${refused}`) : null
  }

  #requireNoEviction(maxmemory: string, policy: string): void {
    if (maxmemory !== '' && policy !== '') {
      if (maxmemory === '0' || policy === 'noeviction') return
      throw new Unfit(`may evict what is still to be read: maxmemory-policy is ${policy}; set noeviction`)
    }
    if (this.#isUnknownTold) return
    this.#isUnknownTold = true
    this.#options.unknown(new Error('does not say (INFO memory) whether it evicts keys: it must not'))
  }
}

/** All scripts, once each, on keys of their own. */
class Trial {
  readonly #store: TriedStore
  readonly #keys: ShardKeys
  readonly #publish: PublishCommand

  constructor(store: TriedStore, keys: ShardKeys, publish: PublishCommand) {
    this.#store = store
    this.#keys = keys
    this.#publish = publish
  }

  /** `isWriting`: also those that need room, and rights to write. */
  async run(isWriting: boolean): Promise<void> {
    const { clock } = this.#keys
    const args = [this.#publish, 'try', '1', '0', '0', '0', '0', '0-0']
    await named('tick', this.#store.ringsideTick(1, clock, ...args))
    if (isWriting) await this.#write()
    await this.#read()
  }

  async #write(): Promise<void> {
    const store = this.#store
    const answer = await named('append', store.ringsideAppend(1, ...this.#appendArguments()))
    const failed = readOutcomes(answer).find(outcome => outcome.outcome === 'failed')
    if (failed) await named('append', Promise.reject(refusal(failed.reason)))
    for (const text of ['null', '']) {
      const args = [this.#keys.prefix, this.#publish, 'try', TRIED_MS, TRIED_MS, '1', '0', 'try/1', 'x', text]
      await named('roster', store.ringsideRoster(this.#keys.clock, ...args))
    }
    await named('tally', store.ringsideTally(this.#tally, 'try', '1', TRIED_MS))
  }

  #appendArguments(): (string | Buffer)[] {
    const state = { value: '{}', version: null }
    const event = { topic: 'try/1', type: 'message', data: '{}', ttl: 1 }
    const events = [
      { event: { ...event, key: 'try', state }, print: 'try' },
      { event: { ...event, topic: 'try/2' }, print: '' }
    ]
    const limits = [String(Number.MAX_SAFE_INTEGER), '0', '1', `${TRIED_MS} ${TRIED_MS}`, '1']
    return [
      this.#keys.clock,
      this.#publish,
      ...limits,
      '1 1',
      '0-0',
      ...events.flatMap(event => eventArguments(event))
    ]
  }

  async #read(): Promise<void> {
    const { clock, index, last, order, ring, state } = this.#names()
    const store = this.#store
    await Promise.all([
      named('range', store.ringsideRangeBuffer(3, clock, last, ring, '1', 'try/1', '0-0')),
      named('page', store.ringsidePageBuffer(clock, last, order, this.#keys.ring(''), '0-0', '1')),
      named(
        'newest',
        store.ringsideNewestBuffer(clock, index, this.#keys.ring(''), '0-0', '0-0', '1', 'try/1')
      ),
      named('rewind', store.ringsideRewind(1, ring, '1', '1', '0', '0-0')),
      named('states', store.ringsideStates(1, state, 'value', '1')),
      named('members', store.ringsideMembers(2, clock, `${this.#keys.prefix}members:try/1`))
    ])
  }

  #names() {
    const { clock } = this.#keys
    const wildcard = ['index', 'last', 'order'] as const
    const [index, last, order] = wildcard.map(name => this.#keys[name]('try/*')) as [string, string, string]
    return { clock, index, last, order, ring: this.#keys.ring('try/1'), state: this.#keys.state('try/1') }
  }

  get #tally(): string {
    return `${this.#keys.prefix}t:try`
  }

  /** Most would go away by itself. */
  async remove(): Promise<void> {
    const others = ['members:try/1', 'present:try/*', 'joined:try', 'instances'].map(
      name => this.#keys.prefix + name
    )
    const states = [this.#keys.states('try/*'), this.#keys.ring('try/2'), this.#tally]
    await this.#store.del(...Object.values(this.#names()), ...states, ...others)
  }
}

/** The answer of a script. What shows that the store can't run it becomes an `Unfit` that names it. */
async function named<T>(script: string, answer: Promise<T>): Promise<T> {
  try {
    return await answer
  } catch (error) {
    throw lackOf(error as Error) ?? brokenScript(script, error as Error)
  }
}

function brokenScript(script: string, error: Error): Error {
  const kind = refusalKind(error)
  if (!kind || kind === 'full' || PASSING.test(error.message)) return error
  const what = kind === 'denied' ? 'does not let its user run' : 'can not run'
  return lacking(`${what} the script ${script}.lua`, error.message)
}

/** A server that doesn't say its version is judged by what it can do. */
function requireVersion(version: string): void {
  const [major, minor] = version.split('.').map(Number)
  if (!major || major > OLDEST[0] || (major === OLDEST[0] && (minor ?? 0) >= OLDEST[1])) return
  throw new Unfit(`is too old: it is version ${version}, and ${OLDEST.join('.')} is needed`)
}
