import type { Test } from 'tap'
import type { Broker } from '../../../src/broker/broker.ts'
import type { Appended, EventLog, EventLogListener, Page } from '../../../src/broker/event-log.ts'
import type { Roster, RosterListener } from '../../../src/broker/roster.ts'
import { comparePositions, covers, later } from '../../../src/event.ts'
import type { Cursor, Member, Position, Signal, StoredEvent } from '../../../src/event.ts'
import { Inbox } from '../../support/inbox.ts'
import type { MakeSubject, Subject, SubjectSettings } from './subject.ts'

const SETTINGS: SubjectSettings = { RING_SIZE: 100, RING_TTL: 3_600_000 }

/** A subject's broker, started and up; it is closed when the test ends. */
export async function begin(
  t: Test,
  make: MakeSubject,
  settings: Partial<SubjectSettings> = {}
): Promise<Bench> {
  const subject = await make(t, { ...SETTINGS, ...settings })
  return start(t, subject, subject.broker)
}

async function start(t: Test, subject: Subject, broker: Broker): Promise<Bench> {
  const bench = new Bench(subject, broker)
  t.teardown(() => broker.close())
  await bench.start()
  return bench
}

/** The broker of one instance with its listener, and what the tests ask of both. */
export class Bench implements EventLogListener, RosterListener {
  readonly subject: Subject
  readonly broker: Broker
  readonly log: EventLog
  readonly roster: Roster
  readonly inbox = new Inbox<StoredEvent>()
  readonly ticks = new Inbox<Cursor>()
  /** Who came and went: `filter: topic +id info`. */
  readonly heard = new Inbox<string>()
  readonly signals = new Inbox<{ filter: string; signal: Signal }>()
  calls = 0
  readonly #ups = new Inbox<boolean>()
  #count = 0

  constructor(subject: Subject, broker: Broker) {
    this.subject = subject
    this.broker = broker
    this.log = broker.log
    this.roster = broker.roster
  }

  /** What the instance is after a restart. This bench is closed. */
  async restart(t: Test): Promise<Bench> {
    await this.broker.close()
    return start(t, this.subject, await this.subject.restart())
  }

  /** Another instance over the same store; undefined where this one is the only one. */
  async another(t: Test): Promise<Bench | undefined> {
    const broker = await this.subject.another?.()
    return broker && start(t, this.subject, broker)
  }

  async start(): Promise<void> {
    this.roster.listen(this)
    await this.log.start(this)
    await this.#ups.until(() => this.log.up, 'a broker that is up')
    // its birth is known for sure once it has answered
    await this.log.position()
  }

  // --- the listener ---

  event(event: StoredEvent): void {
    this.calls++
    this.inbox.push(event)
  }

  tick(position: Cursor): void {
    this.calls++
    this.ticks.push(position)
  }

  jump(position: Cursor): void {
    this.calls++
    this.ticks.push(position)
  }

  gap(): void {
    this.calls++
    throw new Error('nothing was lost')
  }

  up(up: boolean): void {
    this.#ups.push(up)
  }

  joined(filter: string, topic: string, { id, info }: Member): void {
    this.calls++
    this.heard.push(`${filter}: ${topic} +${id} ${info}`)
  }

  left(filter: string, topic: string, { id, info }: Member): void {
    this.calls++
    this.heard.push(`${filter}: ${topic} -${id} ${info}`)
  }

  signalled(filter: string, signal: Signal): void {
    this.calls++
    this.signals.push({ filter, signal })
  }

  // --- the questions ---

  pass(ms: number): Promise<void> {
    return this.subject.pass(ms)
  }

  /** Resolves once the time of now is known here, on every shard. */
  async ticked(): Promise<void> {
    if (this.subject.isHeld) return
    const { ms } = await this.append('the/time')
    const isNow = (cursor: Cursor) => cursor.every(position => position.ms >= ms)
    for (let left = 100; left > 0 && !this.ticks.all.some(isNow); left--) await this.pass(50)
  }

  async subscribe(filter: string): Promise<Cursor> {
    return (await this.log.subscribe(filter)).position
  }

  shardOf(topic: string): number {
    return this.log.shardOf(topic)
  }

  /** Picks a topic's part of a cursor. */
  shard(topic: string): (cursor: Cursor) => Position {
    return cursor => cursor[this.shardOf(topic)]!
  }

  async append(topic: string): Promise<Position> {
    return (await this.appendAll([topic]))[0]!
  }

  async appendAll(topics: readonly string[]): Promise<Position[]> {
    const events = topics.map(topic => ({ topic, type: 'message', data: String(this.#count++) }))
    return idsOf(await this.log.append(events)).map((id, index) => id[this.shardOf(topics[index]!)]!)
  }

  idOf(topic: string, appended: Appended): Position {
    return idsOf([appended])[0]![this.shardOf(topic)]!
  }

  /** The cursor of somebody who has come so far on a topic, and has seen nothing else. */
  at(topic: string, position: Position): Cursor {
    return this.log.birth.with(this.shardOf(topic), position)
  }

  /** The later of a cursor and a position on a topic. */
  ahead(topic: string, cursor: Cursor, position: Position): Cursor {
    return cursor.with(this.shardOf(topic), later(cursor[this.shardOf(topic)]!, position))
  }

  /** Whether a cursor has come as far as another in a topic's shard. */
  reaches(cursor: Cursor, other: Cursor, topic: string): boolean {
    return comparePositions(this.shard(topic)(cursor), this.shard(topic)(other)) >= 0
  }

  range(filter: string, after: Cursor = this.log.birth, limit = 1000): Promise<Page> {
    return this.log.range(filter, after, limit)
  }

  /** Everything of a filter, by pages; each must be complete up to its end, and hold no more of a shard than was asked for. */
  async pages(filter: string, limit: number): Promise<StoredEvent[]> {
    const found: StoredEvent[] = []
    const stored = await this.log.position()
    let cursor: Cursor = this.log.birth
    for (let page = 0; page < 1000; page++) {
      const { events, end } = await this.log.range(filter, cursor, limit)
      for (let shard = 0; shard < this.log.shards; shard++) {
        const { length } = events.filter(event => event.shard === shard)
        if (length > limit) throw new Error(`${length} events of a shard instead of ${limit}`)
      }
      found.push(...events)
      if (!covers(end, cursor)) throw new Error('a page that ends before it begins')
      for (const { id, shard } of events) {
        if (comparePositions(id, end[shard]!) > 0) throw new Error('an event after the end of its page')
        if (comparePositions(id, cursor[shard]!) <= 0) throw new Error('an event from before the cursor')
      }
      cursor = end
      if (stored.every((position, shard) => comparePositions(end[shard]!, position) >= 0)) return found
      // an exact filter knows of its own shard alone
      const own = this.shardOf(filter)
      if (!filter.endsWith('*') && comparePositions(end[own]!, stored[own]!) >= 0) return found
    }
    throw new Error('the pages never end')
  }
}

/** The ids that were given, as cursors. Throws where something wasn't stored. */
export function idsOf(appended: readonly Appended[]): Cursor[] {
  return appended.map(result => {
    if (!('id' in result)) throw new Error(`not stored: ${result.outcome}`)
    return result.id
  })
}

/** What became of each. */
export function outcomes(appended: readonly Appended[]): string[] {
  return appended.map(({ outcome }) => outcome)
}
