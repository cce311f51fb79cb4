import { stopIfGone, type Asker } from '../asker.ts'
import type { EventLog, EventLogListener } from '../broker/event-log.ts'
import type { Roster } from '../broker/roster.ts'
import type { Clock } from '../clock.ts'
import type { Settings } from '../config.ts'
import { comparePositions, covers, formatCursor, furthest, wildcardOf } from '../event.ts'
import type { Cursor, Gap, GapReason, Position, StoredEvent } from '../event.ts'
import { Memory } from '../memory.ts'
import type { BrokerOp, Metrics } from '../metrics.ts'
import { Rules } from '../rules/rules.ts'
import type { Format } from '../wire/format.ts'
import type { Audience, AudienceHub, AudienceKind } from './audience.ts'
import { CatchUp, type CatchUpHub } from './catch-up.ts'
import { Cleared } from './cleared.ts'
import { Histories } from './compressor.ts'
import { Connections } from './connections.ts'
import { isOver } from './ends.ts'
import { Filters, type FiltersHub } from './filters.ts'
import { Frames } from './frames.ts'
import { Polls, type PollAnswer } from './polls.ts'
import { Presence } from './presence.ts'
import { measureRings } from './ring-measures.ts'
import { Session, type SessionHub, type SessionOwner } from './session.ts'
import { SharedReads } from './shared-reads.ts'
import { Staleness } from './staleness.ts'
import { findStart, timeOf, type StartingPoint } from './start.ts'
import { Waiting } from './waiting.ts'
import type { Watch, WatchListener } from './watch.ts'

/** What a subscriber asks for. */
export interface Subscription extends AudienceKind, StartingPoint, SessionOwner {
  /** It takes one answer, and doesn't wait for it: its filters are not kept warm for it. */
  readonly brief?: boolean
}

/** What the hub takes from the configuration. */
export type HubSettings = Pick<Settings, 'HEARTBEAT' | 'RETRY' | 'RING_SIZE' | 'RING_TTL' | 'SEND_BUFFER'>

/**
 * Who listens in this process, and how far it has come. Events come in from the broker, go through the rings, and out
 * to the audiences; sessions are opened, caught up, and handed over to their audience.
 */
export class Hub implements EventLogListener, AudienceHub, CatchUpHub, FiltersHub, SessionHub {
  readonly log: EventLog
  readonly clock: Clock
  readonly memory: Memory
  readonly metrics: Metrics
  readonly settings: HubSettings
  /** What holds for each topic. */
  readonly rules: Rules
  readonly sessions = new Set<Session>()
  readonly connections: Connections
  /** Who here hears who is present, and the signals. */
  readonly presence: Presence
  readonly frames: Frames
  readonly histories: Histories
  readonly reads: SharedReads
  readonly staleness: Staleness
  /** The topics that an operator has cleared. */
  readonly cleared = new Cleared()
  readonly #filters: Filters
  readonly #waiting: Waiting
  readonly #catchUp: CatchUp
  readonly #polls: Polls
  #incoming: Incoming[] = []
  #position: Cursor
  /** Up to where the rings let go of what the log no longer holds. */
  #trimmedTo: Cursor
  #wasUp = false
  #isDown = false
  /** Is told when the broker, which was there before, does not answer, and when it does again. */
  onBroker: (isUp: boolean) => void = () => {}
  /** Is told of each gap that is told to sessions, and to how many. */
  onGap: (gap: Gap, transport: Format['transport'], count: number) => void = () => {}

  constructor(
    log: EventLog,
    roster: Roster,
    settings: HubSettings,
    clock: Clock,
    metrics: Metrics,
    memory: Memory = new Memory(Infinity),
    rules: Rules = new Rules(settings)
  ) {
    this.log = log
    this.rules = rules
    this.settings = settings
    this.clock = clock
    this.metrics = metrics
    this.memory = memory
    this.staleness = new Staleness(clock, this.sessions)
    this.#filters = new Filters(this)
    this.frames = new Frames(clock, memory)
    this.histories = new Histories(memory)
    this.connections = new Connections(clock, metrics, settings.RETRY)
    this.presence = new Presence(roster)
    this.#waiting = new Waiting(clock)
    this.reads = new SharedReads(this)
    this.#catchUp = new CatchUp(this, this.#waiting)
    this.#polls = new Polls(this, this.#waiting, this.#catchUp)
    this.#position = this.#trimmedTo = log.birth
    this.#keepWaitingAlive()
  }

  /** Everything up to here, of every filter that is watched, has been handed over in this process. */
  get position(): Cursor {
    return this.#position
  }

  /** Why these filters can't have another subscriber here, by the rules for their topics; null where they can. */
  fullOf(filters: readonly string[]): string | null {
    const full = this.#filters.fullOf(filters)
    return full
      ? `${JSON.stringify(full.filter)} has all the ${full.most} subscribers that it may have here`
      : null
  }

  /** The filters that somebody listens to here, or did a moment ago. */
  get watches(): Iterable<Watch> {
    return this.#filters.watches
  }

  /** How many streams and subscriptions listen here to a filter, or to the wildcard that covers it. */
  subscribersOf(filter: string): number {
    return this.#filters.subscribersOf(filter)
  }

  /** What the rings of what is listened to here hold, by feed. */
  measureRings() {
    return measureRings(this.#filters.watches, this.rules.default.ttl, timeOf(this))
  }

  // --- sessions come and go ---

  /**
   * Finds where a subscription starts. The session is not written to before its `start`; it must be closed also when
   * it never starts. Once `asker` has gone no more is read for it. Rejects with `BrokerUnavailable`, `MemoryFull` and
   * `Unwanted`; the place is released then.
   */
  async open(subscription: Subscription, asker?: Asker): Promise<Session> {
    const { connection, place } = subscription
    const audience = this.#attach(subscription)
    if (!connection) this.connections.opening()
    try {
      await Promise.all(audience.watches.map(watch => watch.ready))
      stopIfGone(asker)
      const start = await findStart(this, audience, subscription, asker)
      const session = new Session(this, audience, start, subscription)
      this.sessions.add(session)
      if (!connection) this.connections.enter(session)
      if (session.gap) this.noteGap(session.gap, session.transport)
      if (start.resumes) this.#countReconnect(session.transport)
      return session
    } catch (error) {
      this.#filters.detach(audience)
      place?.release()
      throw error
    } finally {
      if (!connection) this.connections.opened()
    }
  }

  /** A poll comes with a cursor each time. */
  #countReconnect(transport: Session['transport']): void {
    if (transport !== 'poll') this.metrics.reconnects.inc({ transport })
  }

  #attach(subscription: Subscription): Audience {
    try {
      return this.#filters.attach(subscription, subscription.brief)
    } catch (error) {
      subscription.place?.release()
      throw error
    }
  }

  begin(session: Session, preface: readonly Buffer[], opening?: Buffer): void {
    const { cursor, format, gap, progress } = session
    // where a snapshot is due it comes first, so that whoever drops before it gets another
    if (!progress.needsSnapshot) {
      const at = formatCursor(cursor)
      const frames = [opening ?? format.open(at, this.settings.RETRY)]
      // an unknown cursor is replaced by that frame, so that whoever drops before it must be told again
      if (gap?.reason === 'unknown') frames.unshift(format.gap(gap))
      else if (gap) frames.push(format.gap(gap, at))
      session.begun()
      session.write([...frames, ...preface])
      this.staleness.note(session)
    }
    this.serve(session)
  }

  serve(session: Session): void {
    this.#catchUp.serve(session)
  }

  /**
   * Reads at most `limit` events for a session that was not started, no more once these have `mostBytes`, and moves it
   * past them: for polling. Rejects with `BrokerUnavailable`.
   */
  read(session: Session, limit: number, mostBytes?: number): Promise<PollAnswer> {
    return this.#polls.read(session, limit, mostBytes)
  }

  /** Resolves once something has come for a session that was not started, or after `ms` milliseconds. */
  wait(session: Session, ms: number): Promise<void> {
    return this.#polls.wait(session, ms)
  }

  /** Whether nothing comes any more for a session that was opened: all its topics have ended, and it has come past that. */
  isOver({ gap, watches, cursor }: Session): boolean {
    return gap === null && isOver(this, watches, cursor)
  }

  /**
   * Gives up some filters of a session that was started: what is left goes on exactly where it stood, in the session that
   * takes its place.
   */
  narrow(session: Session, filters: readonly string[]): Session {
    const next = session.succeed(this.#filters.attach({ ...session.audience.kind, filters }))
    this.sessions.add(next)
    this.staleness.succeed(session, next)
    this.serve(next)
    return next
  }

  leave(session: Session): void {
    this.sessions.delete(session)
    this.#waiting.forget(session)
    this.staleness.forget(session)
    this.#filters.detach(session.audience)
  }

  // --- events come ---

  event(event: StoredEvent): void {
    this.#receive({ event })
  }

  tick(position: Cursor): void {
    this.#receive({ position })
  }

  jump(jump: Cursor): void {
    this.#receive({ jump })
  }

  gap(reason: GapReason, topics: readonly string[]): void {
    this.#receive({ gap: { reason, topics } })
  }

  up(up: boolean): void {
    this.metrics.brokerUp.set(up ? 1 : 0)
    if (!up) return this.#down()
    // a log also says that it answers again where a single question had failed: that is no recovery
    if (this.#isDown && this.#wasUp) {
      this.metrics.brokerRecoveries.inc()
      this.onBroker(true)
    }
    this.#isDown = false
    this.#wasUp = true
    this.#catchUp.retry()
    this.#receive({ isBack: true })
  }

  #down(): void {
    if (!this.#isDown && this.#wasUp) this.onBroker(false)
    this.#isDown = true
    this.staleness.begin()
  }

  wrote(audience: Audience): void {
    this.#waiting.wrote(audience)
  }

  /** What comes in one go is handed on together: one write for each session. */
  #receive(incoming: Incoming): void {
    if (this.#incoming.push(incoming) === 1) this.clock.soon(() => this.#handOn())
  }

  #handOn(): void {
    const incoming = this.#incoming
    this.#incoming = []
    const touched = new Set<WatchListener>()
    let isTicked = false
    for (const { event, position, gap, jump, isBack } of incoming) {
      if (event) this.#handOnEvent(event, touched)
      else if (jump) this.#handOnJump(jump, touched)
      else if (gap) this.#handOnGap(gap.reason, gap.topics)
      else if (isBack && !this.#isDown) this.staleness.end()
      else if (position) {
        this.#position = furthest(this.#position, position)
        if (!this.#isDown) this.staleness.heard()
        isTicked = true
      }
    }
    for (const listener of touched) listener.flush()
    this.#trim(isTicked)
    this.#waiting.moved()
    // the log answers again, or never was away: a single answer may fail
    if (isTicked) this.#catchUp.retry()
  }

  /** The rings let go of what the log no longer holds, or of what is too old; and of more where memory is short. */
  #trim(isTicked: boolean): void {
    const { heldAfter } = this.log
    if (isTicked && (!heldAfter || this.rules.list.length > 0)) this.#filters.expire(timeOf(this))
    if (heldAfter && !covers(this.#trimmedTo, heldAfter)) {
      this.#trimmedTo = heldAfter
      this.#filters.dropTo(heldAfter)
    }
    this.memory.settle()
  }

  #handOnEvent(event: StoredEvent, touched: Set<WatchListener>): void {
    const before = this.#position
    // it may have been announced to its topic and to its wildcard: by id it is taken once
    if (comparePositions(event.id, before[event.shard]!) <= 0) return
    this.#position = before.with(event.shard, event.id)
    for (const filter of [event.topic, wildcardOf(event.topic)]) {
      const watch = this.#filters.get(filter)
      if (!watch) continue
      watch.push(event)
      for (const listener of watch.listeners) {
        if (listener.queue(event, this.#position, before)) touched.add(listener)
      }
    }
  }

  /** Every live session reads on at its own cursor: that shows what was missed, and what can't be had. */
  #handOnJump(position: Cursor, touched: Set<WatchListener>): void {
    for (const listener of touched) listener.flush()
    touched.clear()
    const released = [...this.#filters.audiences].flatMap(audience => audience.release())
    this.#position = furthest(this.#position, position)
    for (const watch of this.#filters.watches) watch.reset(this.#position)
    this.#filters.giveUpWarm()
    for (const session of released) session.readOn()
  }

  #handOnGap(reason: GapReason, topics: readonly string[]): void {
    const after = formatCursor(this.#position)
    const concerned = new Map<WatchListener, Set<string>>()
    for (const [watch, lost] of this.#filters.losses(topics)) {
      watch.reset(this.#position)
      for (const listener of watch.listeners) {
        const all = concerned.get(listener) ?? new Set()
        concerned.set(listener, all)
        for (const topic of lost) all.add(topic)
      }
    }
    for (const [listener, lost] of concerned) listener.announce({ reason, topics: [...lost], after })
  }

  /** The log has let go of all events of a topic up to a position: so do the rings, and who listens is told. */
  clear(topic: string, upTo: Position): void {
    this.cleared.add(topic, upTo)
    this.#filters.get(topic)?.dropTo(this.#position)
    this.gap('lost', [topic])
  }

  noteGap(gap: Gap, transport: Format['transport'], count = 1): void {
    this.metrics.gaps.inc({ reason: gap.reason }, count)
    this.onGap(gap, transport, count)
  }

  async timed<T>(op: BrokerOp, answer: Promise<T>): Promise<T> {
    const started = performance.now()
    try {
      return await answer
    } finally {
      this.metrics.brokerSeconds.observe({ op }, (performance.now() - started) / 1000)
    }
  }

  /** A connection whose session waits must not fall silent: it is told its own cursor. */
  #keepWaitingAlive(): void {
    const timer = this.clock.after(this.settings.HEARTBEAT, () => {
      for (const session of this.#waiting.all) {
        const { cursor, filters, format, isBegun, state } = session
        if (!isBegun || state !== 'catching up' || this.staleness.isStale) continue
        session.write([format.keepAlive(formatCursor(cursor), filters)])
      }
      if (this.staleness.isStale) this.staleness.repeat()
      timer.refresh()
    })
  }
}

interface Incoming {
  readonly event?: StoredEvent
  readonly position?: Cursor
  readonly jump?: Cursor
  /** The broker is back. */
  readonly isBack?: true
  readonly gap?: { readonly reason: GapReason; readonly topics: readonly string[] }
}
