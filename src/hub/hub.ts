import type { EventLog, EventLogListener } from '../broker/event-log.ts'
import type { Roster } from '../broker/roster.ts'
import type { Clock, Timer } from '../clock.ts'
import type { Settings } from '../config.ts'
import { comparePositions, formatCursor, furthest, wildcardOf } from '../event.ts'
import type { Cursor, GapReason, StoredEvent } from '../event.ts'
import type { Metrics } from '../metrics.ts'
import { Audience, type AudienceHub, type AudienceKind } from './audience.ts'
import { CatchUp, type CatchUpHub, type Reading } from './catch-up.ts'
import { Presence } from './presence.ts'
import { Session, type CloseReason, type Connection, type Place, type SessionHub } from './session.ts'
import { findStart, type StartingPoint } from './start.ts'
import { Watch } from './watch.ts'

/** How long a filter stays warm after its last subscriber left, in milliseconds: that one is about to come back. */
const LINGER_MS = 60_000

/** How often a drain looks whom to say goodbye to, in milliseconds. */
const DRAIN_STEP_MS = 50

/** How often it is looked whose time has run out, at least, in milliseconds: the time of day may be set. */
const EXPIRY_MS = 60_000

/** What a subscriber asks for. */
export interface Subscription extends AudienceKind, StartingPoint {
  /** When it has to end, in milliseconds since the epoch; never where there is none. */
  readonly expires?: number | undefined
  /** The connection that it is a part of, which has entered; without it the session is a connection of its own. */
  readonly connection?: Connection | undefined
  /** What a connection of its own was given: released when the session has ended, or can't be opened. */
  readonly place?: Place | undefined
}

/** What the hub takes from the configuration. */
export type HubSettings = Pick<Settings, 'HEARTBEAT' | 'RETRY' | 'RING_SIZE' | 'RING_TTL' | 'SEND_BUFFER'>

/**
 * Who listens in this process, and how far it has come. Events come in from the broker, go through the rings, and out
 * to the audiences; sessions are opened, caught up, and handed over to their audience.
 */
export class Hub implements EventLogListener, AudienceHub, CatchUpHub, SessionHub {
  readonly log: EventLog
  readonly clock: Clock
  readonly metrics: Metrics
  readonly settings: HubSettings
  readonly sessions = new Set<Session>()
  readonly connections = new Set<Connection>()
  /** Who here hears who is present, and the signals. */
  readonly presence: Presence
  readonly #catchUp = new CatchUp(this)
  readonly #watches = new Map<string, Watch>()
  readonly #audiences = new Map<string, Audience>()
  /** Connections that are too full to be fed live, with how many of their sessions wait for that. */
  readonly #lagging = new Map<Connection, number>()
  /** Connections whose start is being looked for. */
  #opening = 0
  #incoming: Incoming[] = []
  /** When it is looked next whose time has run out, in milliseconds since the epoch. */
  #expiry = Infinity
  #expiring: Timer | undefined
  #position: Cursor
  #wasUp = false

  constructor(log: EventLog, roster: Roster, settings: HubSettings, clock: Clock, metrics: Metrics) {
    this.log = log
    this.settings = settings
    this.clock = clock
    this.metrics = metrics
    this.presence = new Presence(roster)
    this.#position = log.birth
    this.#keepParkedAlive()
  }

  /** Everything up to here, of every filter that is watched, has been handed over in this process. */
  get position(): Cursor {
    return this.#position
  }

  // --- sessions come ---

  /**
   * Finds where a subscription starts. The session is not written to before its `start`; it must be closed also when
   * it never starts. Rejects with `BrokerUnavailable`.
   */
  async open(subscription: Subscription): Promise<Session> {
    const { connection, expires, place } = subscription
    const audience = this.#attach(subscription)
    if (!connection) this.#opening++
    try {
      await Promise.all(audience.watches.map(watch => watch.ready))
      const start = await findStart(this, audience, subscription)
      const session = new Session(this, { connection, expires, place, ...start })
      this.sessions.add(session)
      if (!connection) this.enter(session)
      if (session.gap) this.metrics.gaps.inc({ reason: session.gap.reason })
      return session
    } catch (error) {
      this.#detach(audience)
      place?.release()
      throw error
    } finally {
      if (!connection) this.#opening--
    }
  }

  /** Counts a connection in. */
  enter(connection: Connection): void {
    const { transport } = connection
    this.connections.add(connection)
    this.metrics.connections.inc({ transport })
    this.metrics.connectionsOpened.inc({ transport })
    this.#expireAt(connection.expires)
  }

  /** Counts a connection out that has entered. */
  exit(connection: Connection, reason: CloseReason): void {
    const { transport, since, place } = connection
    if (!this.connections.delete(connection)) return
    place?.release()
    this.metrics.connections.dec({ transport })
    this.metrics.connectionsClosed.inc({ transport, reason })
    this.metrics.connectionDuration.observe({ transport }, (this.clock.now() - since) / 1000)
  }

  /** How many places are taken: by connections, and by those that are being opened. */
  get taken(): number {
    return this.connections.size + this.#opening
  }

  start(session: Session, preface: readonly Buffer[], opening?: Buffer): void {
    const { format, gap, sink } = session
    session.state = 'catching up'
    // where a snapshot is due it comes first, so that whoever drops before it gets another
    if (!session.needsSnapshot) {
      const frames = [opening ?? format.open(formatCursor(session.cursor), this.settings.RETRY)]
      // an unknown cursor is replaced by that frame, so that whoever drops before it must be told again
      if (gap?.reason === 'unknown') frames.unshift(format.gap(gap))
      else if (gap) frames.push(format.gap(gap))
      session.isOpen = true
      sink.write(session.audience.pack([...frames, ...preface]))
    }
    this.#catchUp.serve(session)
  }

  /**
   * Reads at most `limit` events for a session that was not started, and moves it past them: for polling. Rejects
   * with `BrokerUnavailable`.
   */
  read(session: Session, limit: number): Promise<Reading> {
    return this.#catchUp.read(session, limit)
  }

  /** Resolves once something has come for a session that was not started, or after `ms` milliseconds. */
  wait(session: Session, ms: number): Promise<void> {
    return this.#catchUp.wait(session, ms)
  }

  // --- sessions fall behind, and go ---

  goLive(session: Session): void {
    this.#noteOutcome(session)
    session.floors = null
    session.reached = null
    session.state = 'live'
    session.audience.add(session)
  }

  lag(session: Session, cursor: Cursor): void {
    session.cursor = cursor
    session.audience.delete(session)
    this.fallBehind(session)
  }

  fallBehind(session: Session): void {
    session.reached = null
    session.newest = null
    session.state = 'lagging'
    const count = this.#lagging.get(session.connection) ?? 0
    this.#lagging.set(session.connection, count + 1)
    if (count === 0) this.metrics.lagging.inc()
  }

  #readsOn({ connection }: Session): void {
    const count = this.#lagging.get(connection)!
    if (count > 1) return void this.#lagging.set(connection, count - 1)
    this.#lagging.delete(connection)
    this.metrics.lagging.dec()
  }

  resume(session: Session): void {
    session.state = 'catching up'
    this.#readsOn(session)
    this.#catchUp.serve(session)
  }

  leave(session: Session, reason: CloseReason): void {
    this.#close(session)
    if (session.connection === session) this.exit(session, reason)
  }

  /**
   * Gives up some filters of a session that was started: what is left goes on exactly where it stood, in the session that
   * takes its place.
   */
  narrow(session: Session, filters: readonly string[]): Session {
    if (session.state === 'live') session.audience.release(session)
    const next = session.successor(this.#attach({ ...session.audience.kind, filters }))
    const { state } = session
    session.outcome = null // the other one's is counted
    this.#close(session)
    this.sessions.add(next)
    if (state === 'lagging') {
      this.fallBehind(next)
    } else {
      next.state = 'catching up'
      this.#catchUp.serve(next)
    }
    return next
  }

  #close(session: Session): void {
    const { audience, state } = session
    this.#noteOutcome(session)
    session.state = 'closed'
    this.sessions.delete(session)
    audience.delete(session)
    this.#catchUp.forget(session)
    if (state === 'lagging') this.#readsOn(session)
    this.#detach(audience)
  }

  /** One timer for all connections, at most once a second: it is for the first whose time runs out. */
  #expireAt(expires: number): void {
    const due = Math.ceil(expires / 1000) * 1000
    if (!(due < this.#expiry)) return
    this.#expiry = due
    this.#expiring?.cancel()
    const ms = Math.max(0, due - this.clock.now())
    this.#expiring = this.clock.after(Math.min(ms, EXPIRY_MS), () => this.#expire())
  }

  #expire(): void {
    const now = this.clock.now()
    let next = Infinity
    for (const connection of this.connections) {
      if (connection.expires <= now) connection.goodbye('expired', this.spread())
      else if (connection.expires < next) next = connection.expires
    }
    this.#expiry = Infinity
    this.#expireAt(next)
  }

  #noteOutcome(session: Session): void {
    if (session.outcome) this.metrics.resumes.inc({ outcome: session.outcome })
    session.outcome = null
  }

  /**
   * How long a client that is sent away shall wait, in milliseconds: at random, so that all of them come back over
   * `window` milliseconds; without it about a thousand a second do.
   */
  spread(window = this.connections.size): number {
    const { RETRY } = this.settings
    return Math.round(RETRY + Math.random() * Math.max(RETRY, window))
  }

  /** Says goodbye to every connection, spread over `ms` milliseconds; resolves when all are gone. */
  drain(ms: number): Promise<void> {
    const connections = [...this.connections].sort(() => Math.random() - 0.5)
    const started = this.clock.now()
    const total = connections.length
    return new Promise(resolve => {
      const step = () => {
        const due = ms > 0 ? Math.ceil((total * (this.clock.now() - started)) / ms) : total
        while (connections.length > 0 && total - connections.length <= due) {
          connections.pop()!.goodbye('shutdown', this.spread())
        }
        if (connections.length === 0) resolve()
        else this.clock.after(Math.min(DRAIN_STEP_MS, ms / total), step)
      }
      step()
    })
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
    if (!up) return
    if (this.#wasUp) this.metrics.brokerRecoveries.inc()
    this.#wasUp = true
    this.#catchUp.resume()
  }

  moved(audience: Audience): void {
    this.#catchUp.moved(audience)
  }

  /** What comes in one turn of the event loop is handed on together: one write for each session. */
  #receive(incoming: Incoming): void {
    if (this.#incoming.push(incoming) === 1) this.clock.soon(() => this.#handOn())
  }

  #handOn(): void {
    const incoming = this.#incoming
    this.#incoming = []
    const touched = new Set<Audience>()
    for (const { event, position, gap, jump } of incoming) {
      if (event) this.#handOnEvent(event, touched)
      else if (jump) this.#handOnJump(jump, touched)
      else if (gap) this.#handOnGap(gap.reason, gap.topics)
      else if (position) this.#position = furthest(this.#position, position)
    }
    for (const audience of touched) audience.flush()
    this.#catchUp.moved()
  }

  #handOnEvent(event: StoredEvent, touched: Set<Audience>): void {
    const before = this.#position
    // it may have been announced to its topic and to its wildcard: by id it is taken once
    if (comparePositions(event.id, before[event.shard]!) <= 0) return
    this.#position = before.with(event.shard, event.id)
    for (const filter of [event.topic, wildcardOf(event.topic)]) {
      const watch = this.#watches.get(filter)
      if (!watch) continue
      watch.push(event)
      for (const audience of watch.audiences) {
        if (audience.queue(event, this.#position, before)) touched.add(audience)
      }
    }
  }

  /** Every live session reads on at its own cursor: that shows what was missed, and what can't be had. */
  #handOnJump(position: Cursor, touched: Set<Audience>): void {
    for (const audience of touched) audience.flush()
    touched.clear()
    const released = [...this.#audiences.values()].flatMap(audience => audience.release())
    this.#position = furthest(this.#position, position)
    for (const watch of this.#watches.values()) watch.reset(this.#position)
    for (const session of released) this.#catchUp.serve(session)
  }

  #handOnGap(reason: GapReason, topics: readonly string[]): void {
    const after = formatCursor(this.#position)
    const concerned = new Map<Audience, Set<string>>()
    for (const topic of topics) {
      for (const watch of this.#watches.values()) {
        if (!watch.concerns(topic)) continue
        watch.reset(this.#position)
        for (const audience of watch.audiences) {
          concerned.set(audience, (concerned.get(audience) ?? new Set<string>()).add(topic))
        }
      }
    }
    for (const [audience, lost] of concerned) {
      if (!audience.kind.snapshot) audience.announce({ reason, topics: [...lost], after })
      else this.renew(audience)
    }
  }

  renew(audience: Audience): void {
    if (audience.kind.rate === undefined) audience.flush()
    for (const session of audience.release()) {
      session.needsSnapshot = true
      this.#catchUp.serve(session)
    }
  }

  // --- filters and audiences ---

  #attach(kind: AudienceKind): Audience {
    const filters = [...new Set(kind.filters)].sort()
    const key = JSON.stringify([
      kind.format.key,
      kind.packing.key,
      kind.rate,
      kind.heartbeat,
      kind.snapshot,
      filters
    ])
    let audience = this.#audiences.get(key)
    if (!audience) {
      const watches = filters.map(filter => this.#watch(filter))
      audience = new Audience(this, { ...kind, filters }, watches, key)
      this.#audiences.set(key, audience)
      for (const watch of watches) {
        if (watch.audiences.size === 0) this.metrics.topics.inc()
        watch.audiences.add(audience)
      }
    }
    audience.size++
    return audience
  }

  #detach(audience: Audience): void {
    if (--audience.size > 0) return
    this.#audiences.delete(audience.key)
    for (const watch of audience.watches) {
      watch.audiences.delete(audience)
      if (watch.audiences.size > 0) continue
      this.metrics.topics.dec()
      watch.linger = this.clock.after(LINGER_MS, () => this.#unwatch(watch))
    }
  }

  #watch(filter: string): Watch {
    const known = this.#watches.get(filter)
    known?.linger?.cancel()
    if (known) return known
    const subscribed = this.timed('subscribe', this.log.subscribe(filter))
    // what was handed on before the answer came, no ring has kept
    const base = subscribed.then(position => furthest(position, this.#position))
    const watch = new Watch(filter, this.settings.RING_SIZE, topic => this.log.shardOf(topic), base)
    watch.ready.catch(() => {
      if (this.#watches.get(filter) === watch) this.#watches.delete(filter)
    })
    this.#watches.set(filter, watch)
    return watch
  }

  #unwatch(watch: Watch): void {
    const { filter, audiences } = watch
    // another may have taken its place, if its subscription had failed
    if (audiences.size > 0 || this.#watches.get(filter) !== watch) return
    this.#watches.delete(filter)
    this.log.unsubscribe(filter)
  }

  async timed<T>(op: string, answer: Promise<T>): Promise<T> {
    const started = performance.now()
    try {
      return await answer
    } finally {
      this.metrics.brokerSeconds.observe({ op }, (performance.now() - started) / 1000)
    }
  }

  /** A connection whose session waits must not fall silent: it is told its own cursor. */
  #keepParkedAlive(): void {
    const timer = this.clock.after(this.settings.HEARTBEAT, () => {
      for (const { audience, cursor, format, sink } of this.#catchUp.parked) {
        sink.write(audience.pack([format.keepAlive(formatCursor(cursor), audience.kind.filters)]))
      }
      timer.refresh()
    })
  }
}

interface Incoming {
  readonly event?: StoredEvent
  readonly position?: Cursor
  readonly jump?: Cursor
  readonly gap?: { readonly reason: GapReason; readonly topics: readonly string[] }
}
