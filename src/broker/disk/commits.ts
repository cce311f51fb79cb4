import { setImmediate } from 'node:timers/promises'
import { comparePositions, type Position, type StoredEvent } from '../../event.ts'
import type { Append, Appended } from '../event-log.ts'
import { BrokerUnavailable } from '../unavailable.ts'
import type { Beginning, Call, Decisions, Group, Kept } from './decisions.ts'
import { Heads } from './heads.ts'

/** The most events of a group: who comes after them waits for the next one. */
const GROUP = 1000

/** So few are not worth two groups: what a commit costs besides its events is most of what it takes then. */
const FEW = 128

/** For how long a group may wait for more, in milliseconds. */
const GATHERING_MS = 2

/** Who is told of what has been stored. */
export interface CommitListener {
  /** These are stored, in the order of their ids, and every id up to `last` that was given. */
  committed(events: readonly StoredEvent[], last: Position): void
  /** They were flushed to the disk within so many milliseconds. */
  flushed(ms: number): void
  /** Nothing can be written any more. What was under way may be in the store, or not. */
  failed(error: unknown): void
}

/**
 * Stores events: those that come while others are being flushed go with one flush. Two groups are under way at a time: one
 * is being written while the next one is decided on, as if the first were stored. When the first fails, both do.
 */
export class Commits {
  readonly #kept: Kept
  readonly #decisions: Decisions
  readonly #isFlushed: boolean
  readonly #listener: CommitListener
  readonly #calls: Call[] = []
  readonly #jobs: Job[] = []
  #isRunning = false
  /** Why nothing can be written; null while it can. */
  #failure: Error | null = null
  #writing: Promise<void> = Promise.resolve()
  #underWay = 0

  /** `isFlushed`: whether an event must be flushed to the disk before it counts as stored. */
  constructor(kept: Kept, decisions: Decisions, isFlushed: boolean, listener: CommitListener) {
    this.#kept = kept
    this.#decisions = decisions
    this.#isFlushed = isFlushed
    this.#listener = listener
  }

  /** See `EventLog.append`. */
  append(appends: readonly Append[]): Promise<Appended[]> {
    return new Promise((resolve, reject) => {
      this.#calls.push({ appends, resolve, reject })
      this.#run()
    })
  }

  /**
   * Does something with the store while nothing else is written. Rejects with `BrokerUnavailable` where nothing can be
   * written, or when the writing fails.
   */
  exclusively(job: () => Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#jobs.push({ job, resolve, reject })
      this.#run()
    })
  }

  /**
   * Says that all ids from now on come after a position, if it is a later one and nothing is under way; else says nothing.
   */
  advance(position: Position): boolean {
    const { given } = this.#decisions
    if (this.#failure || this.#underWay > 0 || comparePositions(position, given) <= 0) return false
    this.#decisions.advance(position)
    return true
  }

  /** Begins anew, after the store has been opened again. */
  resume(beginning: Beginning): void {
    this.#decisions.resume(beginning)
    this.#failure = null
  }

  /** Resolves once nothing is being written any more. */
  async settle(): Promise<void> {
    await this.#writing
  }

  #run(): void {
    if (this.#isRunning) return
    this.#isRunning = true
    void this.#work()
  }

  async #work(): Promise<void> {
    while (this.#calls.length + this.#jobs.length > 0) {
      if (this.#failure) this.#refuse(this.#failure)
      else await this.#step().catch(error => this.#fail(error))
    }
    this.#kept.heads.trim()
    this.#isRunning = false
  }

  async #step(): Promise<void> {
    const [job] = this.#jobs
    if (job) {
      await this.#writing
      if (this.#failure) return
      this.#jobs.shift()
      return this.#do(job)
    }
    await this.#gather()
    const calls = this.#take()
    try {
      const heads = await this.#decisions.prepare(calls, () => this.#writing)
      this.#mustWrite()
      const group = this.#decisions.decide(calls, heads)
      this.#underWay++
      await this.#writing
      this.#mustWrite()
      this.#writing = this.#write(group)
    } catch (error) {
      const reason = this.#fail(error)
      for (const { reject } of calls) reject(reason)
    }
  }

  async #do({ job, resolve, reject }: Job): Promise<void> {
    try {
      await job()
      resolve()
    } catch (error) {
      reject(this.#fail(error))
    }
  }

  /** Waits for as long as each turn brings more: a commit costs much more than an event, where a flush is quick. */
  async #gather(): Promise<void> {
    const began = performance.now()
    for (let before = 0; before < this.#calls.length && this.#calls.length < GROUP;) {
      if (performance.now() - began > GATHERING_MS) return
      before = this.#calls.length
      await setImmediate()
    }
  }

  /** Takes half of what waits, unless that is few: one half can be decided on while the other is being written. */
  #take(): Call[] {
    const most = Math.min(GROUP, Math.max(FEW, this.#calls.length / 2))
    let events = 0
    let count = 0
    while (count < this.#calls.length && events < most) events += this.#calls[count++]!.appends.length
    return this.#calls.splice(0, count)
  }

  async #write(group: Group): Promise<void> {
    const { batch, events, answers, calls, isLasting } = group
    // an event that is not stored has nothing that could be lost
    const isFlushed = this.#isFlushed && isLasting
    const records = Array.from(group.changed, head => [head, Heads.record(head)] as const)
    const last = this.#decisions.given
    try {
      const began = performance.now()
      await this.#kept.store.write(batch, isFlushed)
      if (isFlushed) this.#listener.flushed(performance.now() - began)
    } catch (error) {
      const reason = this.#fail(error)
      for (const { reject } of calls) reject(reason)
      return
    }
    this.#underWay--
    for (const [{ name }, record] of records) this.#kept.topics.set(name, record)
    for (const head of group.used) head.groups--
    this.#listener.committed(events, last)
    for (const answer of answers) answer()
  }

  #mustWrite(): void {
    if (this.#failure) throw this.#failure
  }

  /** Nothing can be written any more. Says what those are told who wanted something stored. */
  #fail(error: unknown): Error {
    if (this.#failure) return this.#failure
    this.#failure = new BrokerUnavailable(reasonOf(error))
    this.#underWay = 0
    this.#listener.failed(error)
    return this.#failure
  }

  #refuse(reason: Error): void {
    for (const { reject } of [...this.#calls.splice(0), ...this.#jobs.splice(0)]) reject(reason)
  }
}

/** A job that must be alone with the store. */
interface Job {
  readonly job: () => Promise<void>
  readonly resolve: () => void
  readonly reject: (reason: unknown) => void
}

/** Why a write has failed, as a client is told. */
function reasonOf(error: unknown): string {
  const { message } = error as Error
  return /no space left|disk quota/i.test(message)
    ? 'the disk is full'
    : `the store can't be written: ${message}`
}
