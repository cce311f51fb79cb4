import type { Clock } from '../../clock.ts'
import { formatPosition, IDEMPOTENCY_MS, isOperators, wildcardOf } from '../../event.ts'
import type { Position } from '../../event.ts'
import type { Rules } from '../../rules/rules.ts'
import { isNeverStored } from '../ephemeral.ts'
import { READER_LATENESS_MS } from '../event-log.ts'
import type { Checkpoint, Checkpoints } from './checkpoints.ts'
import type { ShardKeys } from './keys.ts'
import type { Life } from './life.ts'
import { refusal } from './refusals.ts'
import { disconnected, late, unavailable, type Unfit } from './unavailable.ts'
import { COMMAND_TIMEOUT_MS, eventArguments, positionArguments, readOutcomes } from './wire.ts'
import type { PublishCommand, Retention, ScriptOutcome, ShardAppend, ShardOutcome } from './wire.ts'

/**
 * How much sooner than we give up Redis must have begun to store, in milliseconds: an answer that it has sent may wait
 * until this process reads it.
 */
const LATE_MS = 500

/**
 * How much goes into one call of the append script, whichever is reached first: events, and bytes of data and states. What
 * one append has goes together, however much that is.
 */
const MAX_CALL_EVENTS = 500
const MAX_CALL_BYTES = 1_048_576

/**
 * How many bytes are in calls under way at most, besides a call that has more alone. Redis announces all events of a call
 * at once, on two channels each, and cuts an instance off for which more waits than `client-output-buffer-limit pubsub`
 * allows (32 MB at once, or 8 MB for 60 s). A batch of 8 MiB is 16 MiB for who listens to both channels, and with what is
 * under way beside it stays below 32 MB. Where much is under way, what comes next waits until this was answered and its
 * announcements have come in: an answer overtakes them, on its own connection.
 */
const MAX_BYTES_UNDER_WAY = 4 * MAX_CALL_BYTES

/** What storing asks of Redis. */
export interface AppendStore {
  /** Runs the append script on so many keys, and waits for replicas where that is asked for. */
  append(keys: number, args: (string | Buffer)[]): Promise<string[]>
  /** Takes what Redis has refused of one append alone. */
  refused(error: Error): void
  /** What makes it unusable; null where that is not known. */
  lack?(): Unfit | null
}

export interface AppendsOptions {
  readonly keys: ShardKeys
  readonly store: AppendStore
  readonly life: Life
  readonly checkpoints: Checkpoints
  readonly clock: Clock
  readonly rules: Pick<Rules, 'default' | 'list' | 'longest' | 'of' | 'over'>
  /** Whether a call waits for replicas. */
  readonly waits: boolean
  readonly publishCommand: () => PublishCommand
  /** Resolves once all that was announced before has come in here, or nothing comes in. */
  readonly announced: () => Promise<void>
  /** How far this instance has come: ids of a new life must lie beyond it. */
  readonly position: () => Position
}

/** Stores the events of one shard: those of one turn of the event loop together, in as few calls as they fit into. */
export class Appends {
  readonly #options: AppendsOptions
  readonly #queue: QueuedAppend[] = []
  /** Whether a call waits for replicas. */
  #isWaiting = false
  /** How many bytes are in calls under way. */
  #bytesUnderWay = 0
  /** Whether the queue waits until a call was answered. */
  #isHeldUp = false

  constructor(options: AppendsOptions) {
    this.#options = options
  }

  /** Stores events with all others of this turn. Rejects with `BrokerUnavailable`. */
  append(events: readonly ShardAppend[]): Promise<ShardOutcome[]> {
    const bytes = events.reduce((sum, append) => sum + bytesOf(append), 0)
    return new Promise((resolve, reject) => {
      if (this.#queue.push({ events, bytes, resolve, reject }) === 1)
        this.#options.clock.soon(() => this.#flush())
    })
  }

  /**
   * Verifies the checkpoints that no call has verified yet, where nothing is stored that would do so. While a call waits
   * for replicas, that one does. Nothing comes of a failure: the next tick tries again.
   */
  verify(): void {
    if (this.#options.checkpoints.isVerificationDue && !this.#isWaiting) void this.#store([])
  }

  #flush(): void {
    while (this.#queue.length > 0 && this.#mayCall()) void this.#store(this.#takeCall())
    this.#isHeldUp = this.#queue.length > 0
  }

  /** One call waits for replicas at a time: all that comes meanwhile goes into the next ones. */
  #mayCall(): boolean {
    const isRoom =
      this.#bytesUnderWay === 0 || this.#bytesUnderWay + this.#queue[0]!.bytes <= MAX_BYTES_UNDER_WAY
    return isRoom && !this.#isWaiting
  }

  /** Takes as much from the queue as goes into one call, and at least one append. */
  #takeCall(): QueuedAppend[] {
    let [taken, count, bytes] = [0, 0, 0]
    while (taken < this.#queue.length && count < MAX_CALL_EVENTS) {
      const next = this.#queue[taken]!
      bytes += next.bytes
      if (taken > 0 && bytes > MAX_CALL_BYTES) break
      count += next.events.length
      taken++
    }
    return this.#queue.splice(0, taken)
  }

  async #store(call: readonly QueuedAppend[]): Promise<void> {
    const bytes = call.reduce((sum, append) => sum + append.bytes, 0)
    this.#isWaiting = this.#options.waits
    this.#bytesUnderWay += bytes
    try {
      const outcomes = await this.#verifyAndStore(call)
      let index = 0
      for (const append of call) this.#settle(append, outcomes.slice(index, (index += append.events.length)))
    } catch (error) {
      for (const { reject } of call) reject(unavailable(error))
    }
    this.#isWaiting = false
    if (this.#bytesUnderWay > MAX_CALL_BYTES) {
      this.#goOn()
      await this.#options.announced()
    }
    this.#bytesUnderWay -= bytes
    this.#goOn()
  }

  #goOn(): void {
    if (this.#isHeldUp) this.#flush()
  }

  /** Tells whoever asked what became of it. */
  #settle({ resolve, reject }: QueuedAppend, outcomes: readonly ScriptOutcome[]): void {
    const failed = outcomes.find(each => each.outcome === 'failed')
    if (!failed) return resolve(outcomes as ShardOutcome[])
    const error = refusal(failed.reason)
    this.#options.store.refused(error)
    reject(unavailable(error))
  }

  async #verifyAndStore(call: readonly QueuedAppend[]): Promise<ScriptOutcome[]> {
    const { checkpoints } = this.#options
    const verification = checkpoints.begin()
    try {
      const outcomes = readOutcomes(await this.#callInTime(call, verification.asked))
      checkpoints.verified(verification, checkpointOf(call, outcomes))
      return outcomes
    } finally {
      checkpoints.end(verification)
    }
  }

  /**
   * Calls the script, which refuses to store anything once its clock is past our deadline: what is answered 503 for want
   * of an answer must not be stored later. When it was refused because that clock has been set forward, and not because
   * it took long, the deadline was a wrong one, and the call is made once more.
   */
  async #callInTime(call: readonly QueuedAppend[], asked: readonly Checkpoint[]): Promise<string[]> {
    const { life } = this.#options
    const deadline = life.elapsed() + COMMAND_TIMEOUT_MS - LATE_MS
    let answer = await this.#call(call, asked, deadline)
    life.noteClock(answer[1]!)
    if (answer[0] === 'late' && life.elapsed() < deadline) {
      answer = await this.#call(call, asked, deadline)
      life.noteClock(answer[1]!)
    }
    if (answer[0] === 'late') throw late()
    return answer
  }

  /** Calls the append script; `deadline` is by our own clock. */
  #call(call: readonly QueuedAppend[], asked: readonly Checkpoint[], deadline: number): Promise<string[]> {
    const { keys, life, position, publishCommand, rules, store } = this.#options
    const storeDeadline = life.storeTime(deadline)
    // before the first tick
    if (storeDeadline === null) throw store.lack?.() ?? disconnected()
    const args: (string | Buffer)[] = [
      keys.clock,
      ...asked.map(({ topic }) => keys.ring(topic)),
      publishCommand(),
      String(Math.round(storeDeadline)),
      String(position().ms),
      String(rules.default.ring),
      `${rules.default.ttl + READER_LATENESS_MS} ${rules.longest + READER_LATENESS_MS}`,
      String(IDEMPOTENCY_MS),
      call.map(({ events }) => events.length).join(' '),
      formatPosition(life.birth),
      ...asked.flatMap(({ id }) => positionArguments(id))
    ]
    for (const { events } of call)
      for (const event of events) args.push(...eventArguments(event, this.#retention(event)))
    return store.append(1 + asked.length, args)
  }

  /** For how long what of an event is kept; undefined where that is as the call says. */
  #retention({ event }: ShardAppend): Retention | undefined {
    const { rules } = this.#options
    const { ring, ttl, stateTtl } = rules.of(event.topic)
    if (rules.list.length === 0 && !isOperators(event.topic)) return undefined
    const most = rules.over(wildcardOf(event.topic)).ring
    return {
      ring: isNeverStored(event, rules) ? 0 : ring,
      ...{ most, ringMs: ttl + READER_LATENESS_MS, stateMs: stateTtl }
    }
  }
}

interface QueuedAppend {
  readonly events: readonly ShardAppend[]
  /** Those of its data and states. */
  readonly bytes: number
  readonly resolve: (outcomes: ShardOutcome[]) => void
  readonly reject: (error: Error) => void
}

function bytesOf({ event: { data, state } }: ShardAppend): number {
  return Buffer.byteLength(data) + Buffer.byteLength(state?.value ?? '')
}

/**
 * The checkpoint that a call makes: the event that it stored last, else the last one that had been stored before. None of
 * those that are never stored: the store would seem to have lost it.
 */
function checkpointOf(call: readonly QueuedAppend[], outcomes: readonly ScriptOutcome[]): Checkpoint | null {
  const isKept = (outcome: ScriptOutcome, kind: 'stored' | 'replayed') =>
    outcome.outcome === kind && !('isEphemeral' in outcome)
  const stored = outcomes.findLastIndex(outcome => isKept(outcome, 'stored'))
  const index = stored < 0 ? outcomes.findLastIndex(outcome => isKept(outcome, 'replayed')) : stored
  const found = outcomes[index]
  if (!found || !('id' in found)) return null
  return { topic: call.flatMap(({ events }) => events)[index]!.event.topic, id: found.id }
}
