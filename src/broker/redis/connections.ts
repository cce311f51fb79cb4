import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { Cluster, type Redis, type Result } from 'ioredis'
import { Clients, type Report } from './open.ts'
import { ReadQueue } from './read-queue.ts'
import { Refusals, type RefusalsOptions } from './refusals.ts'
import type { RosterCommands } from './roster-store.ts'
import type { LinkConnectionListener } from './link.ts'
import { Subscriber } from './subscriber.ts'
import type { TallyStore } from './tally.ts'
import { unreplicated } from './unavailable.ts'
import type { RedisTarget } from './url.ts'
import { COMMAND_TIMEOUT_MS, type PublishCommand, type RangeAnswer } from './wire.ts'

declare module 'ioredis' {
  interface RedisCommander<Context> {
    ringsideAppend(keys: number, ...args: (string | Buffer)[]): Result<string[], Context>
    ringsideTick(keys: number, ...args: string[]): Result<TickAnswer, Context>
    ringsideCheck(keys: number, ...args: string[]): Result<string[], Context>
    ringsidePageBuffer(
      ...keysAndArgs: [clock: string, last: string, order: string, ...args: string[]]
    ): Result<RangeAnswer, Context>
    ringsideNewestBuffer(clock: string, index: string, ...args: string[]): Result<RangeAnswer, Context>
    ringsideRewind(keys: number, ...args: string[]): Result<string[], Context>
    ringsideStates(keys: number, ...args: string[]): Result<string[], Context>
    ringsideRangeBuffer(keys: number, ...args: string[]): Result<RangeAnswer, Context>
    ringsideRoster(clock: string, ...args: string[]): Result<string[], Context>
    ringsideMembers(keys: number, ...args: string[]): Result<(string | string[])[], Context>
    ringsideClear(...keysAndTopic: ClearArguments): Result<string, Context>
    ringsideTally(tally: string, ...args: string[]): Result<number, Context>
  }
}

const script = (name: string) => readFileSync(new URL(`lua/${name}.lua`, import.meta.url), 'utf8')

const scripts = {
  ringsideAppend: { lua: script('clock') + script('append') },
  ringsideTick: { lua: script('clock') + script('tick') },
  ringsideCheck: { lua: script('clock') + script('check') },
  ringsideRange: { lua: script('range') },
  ringsidePage: { lua: script('page'), numberOfKeys: 3 },
  ringsideNewest: { lua: script('newest'), numberOfKeys: 2 },
  ringsideRewind: { lua: script('rewind') },
  ringsideStates: { lua: script('states') },
  ringsideRoster: { lua: script('roster'), numberOfKeys: 1 },
  ringsideMembers: { lua: script('members') },
  ringsideClear: { lua: script('clear'), numberOfKeys: 4 },
  ringsideTally: { lua: script('tally'), numberOfKeys: 1 }
}

/** How Redis knows the append script. */
const APPEND_SHA = createHash('sha1').update(scripts.ringsideAppend.lua).digest('hex')

/** What the tick script returns. */
type TickAnswer = [id: string, birth: string, lost: string, now: string]

/** What the script takes that lets go of a topic: the names of its keys, and its own. */
type ClearArguments = [last: string, ring: string, state: string, states: string, topic: string]

/** The connections to Redis, and what is asked on them. What is sent while there is none fails at once. */
export class RedisConnections {
  /** What counting asks. */
  readonly tally: TallyStore
  /** What readers ask: however much that is, nothing else waits behind it. */
  readonly reads: ReadQueue
  /** What the roster asks. */
  readonly roster: RosterCommands
  readonly #clients: Clients
  readonly #refusals: Refusals
  readonly #waitReplicas: number
  /** Null until it is known. */
  #isSharded: boolean | null = null

  /**
   * `waitReplicas`: how many replicas must have what is stored before that is answered. `report` is told of faults, of
   * which it may pass on the first alone; `warn` is told what no fault hides; `count` counts what Redis refuses.
   */
  constructor(
    target: RedisTarget,
    waitReplicas: number,
    report: Report,
    warn: Report,
    count: RefusalsOptions['count'] = () => {}
  ) {
    this.#waitReplicas = waitReplicas
    // what may be held up has its own: waiting for replicas must not delay what is read
    this.#clients = new Clients({ target, scripts, appendsApart: waitReplicas > 0, report })
    const refusals = new Refusals({ count, warn })
    this.#refusals = refusals
    this.reads = new ReadQueue(
      () => this.#clients.reads,
      answer => refusals.watch('read', answer)
    )
    this.roster = this.#rosterCommands()
    this.tally = { ringsideTally: (...args) => this.commands.ringsideTally(...args) }
  }

  /** They are others once a server turns out to be a node of a Cluster. */
  get commands(): Redis | Cluster {
    return this.#clients.commands
  }

  /** Whether channels live on the node of their slot. Known from the first `subscriber` on. */
  get isSharded(): boolean {
    return this.#isSharded ?? false
  }

  /** The number of the database. */
  get database(): number {
    return this.#clients.database
  }

  /** How scripts announce. */
  get publishCommand(): PublishCommand {
    if (this.database > 0) return `PUBLISH @${this.database}`
    return this.isSharded ? 'SPUBLISH' : 'PUBLISH'
  }

  /** Runs the append script on so many keys. With `waitReplicas` it rejects where too few of them have what it stored. */
  append(keys: number, args: (string | Buffer)[]): Promise<string[]> {
    const appended =
      this.#waitReplicas > 0 ? this.#appendAndWait(keys, args) : this.commands.ringsideAppend(keys, ...args)
    return this.#refusals.watch('append', appended)
  }

  /** Runs the script that lets go of a topic; its last id. */
  clear(...keysAndTopic: ClearArguments): Promise<string> {
    return this.#refusals.watch('append', this.commands.ringsideClear(...keysAndTopic))
  }

  /** Tells the log what Redis would refuse to store, although nobody has asked for that. */
  wouldRefuse(error: Error): void {
    this.#refusals.tell('append', error)
  }

  /** Takes what Redis refuses of one append, while others of its call are stored. */
  refused(error: Error): void {
    this.#refusals.note('append', error)
  }

  /** Runs the tick script on so many keys. */
  tick(keys: number, ...args: string[]): Promise<TickAnswer> {
    return this.#refusals.watch('tick', this.commands.ringsideTick(keys, ...args))
  }

  #rosterCommands(): RosterCommands {
    const { reads } = this
    const watch = <T>(answer: Promise<T>) => this.#refusals.watch('presence', answer)
    return {
      ringsideRoster: (clock, ...args) => watch(this.commands.ringsideRoster(clock, ...args)),
      publish: (channel, message) => watch(this.commands.publish(channel, message)),
      spublish: (channel, message) => watch(this.commands.spublish(channel, message)),
      ringsideMembers: (keys, ...args) => reads.ringsideMembers(keys, ...args),
      smembers: key => reads.smembers(key)
    }
  }

  async #appendAndWait(
    keys: number,
    args: (string | Buffer)[],
    { isKnown = true, isRetry = false } = {}
  ): Promise<string[]> {
    const pipeline = this.#clients.appends.pipeline()
    // Not as a command of ioredis: where the server has forgotten the script, that one would run behind WAIT, which then
    // answers for what was stored before.
    if (isKnown) pipeline.evalsha(APPEND_SHA, keys, ...args)
    else pipeline.eval(scripts.ringsideAppend.lua, keys, ...args)
    pipeline.wait(this.#waitReplicas, COMMAND_TIMEOUT_MS / 2)
    const [appended, waited] = (await pipeline.exec()) ?? []
    const refusal = appended?.[0]?.message ?? ''
    if (isKnown && refusal.startsWith('NOSCRIPT'))
      return this.#appendAndWait(keys, args, { isKnown: false, isRetry })
    if (!isRetry && refusal.startsWith('MOVED')) {
      await this.#refresh()
      return this.#appendAndWait(keys, args, { isKnown, isRetry: true })
    }
    if (appended?.[0]) throw appended[0]
    if (waited?.[0]) throw waited[0]
    if (Number(waited?.[1] ?? 0) < this.#waitReplicas) throw unreplicated()
    return appended![1] as string[]
  }

  /** A connected subscriber, on the node that a key belongs to. It doesn't reconnect: whoever uses it opens another. */
  async subscriber(key: string, listener: LinkConnectionListener): Promise<Subscriber> {
    await this.#clients.ready()
    this.#isSharded = this.#clients.isCluster && (this.#isSharded ?? (await this.#shardsPubSub()))
    const redis = await this.#clients.subscriber(key)
    return new Subscriber(redis, this.isSharded, listener, error => this.#refusals.note('listen', error))
  }

  /** Gives up the connections for commands, and opens others. */
  replace(): void {
    this.#clients.replace()
  }

  close(): void {
    this.#clients.close()
  }

  /** Looks up anew which node serves which slot: a pipeline that is told so doesn't. */
  #refresh(): Promise<void> {
    const client = this.#clients.appends
    if (!(client instanceof Cluster)) return Promise.resolve()
    return new Promise(resolve => client.refreshSlotsCache(() => resolve()))
  }

  /** Whether the servers of a Cluster shard their pub/sub. */
  async #shardsPubSub(): Promise<boolean> {
    const info = await this.commands.info('server')
    return Number(/redis_version:(\d+)/.exec(info)?.[1]) >= 7
  }
}
