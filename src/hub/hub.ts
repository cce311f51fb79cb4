import type { Broker, BrokerListener, Page } from '../broker/broker.ts'
import type { Clock } from '../clock.ts'
import type { Settings } from '../config.ts'
import { comparePositions, covers, formatCursor, furthest, later, parseCursor, wildcardOf } from '../event.ts'
import type { Cursor, Gap, GapReason, Position, StoredEvent } from '../event.ts'
import type { Metrics } from '../metrics.ts'
import { Audience, frameOf, inOrder, type AudienceHub, type AudienceKind } from './audience.ts'
import { Session, type CloseReason, type SessionHub, type SessionStart } from './session.ts'
import { Watch } from './watch.ts'

/** How many events are read in one go, for each filter. */
const PAGE = 256

/** How long a filter stays warm after its last subscriber left, in milliseconds: that one is about to come back. */
const LINGER_MS = 60_000

/** How much of a cursor that nobody gave out is told back. */
const ECHO = 128

/** The most topics that a gap names one by one; past it, it names the filters. */
const NAMED_TOPICS = 100

/** What a subscriber asks for. */
export interface Subscription extends AudienceKind {
  /** The cursor to start after, as text. Where it is given, `rewind` and `since` count for nothing. */
  readonly after?: string | undefined
  /** First the last so many events of each topic. */
  readonly rewind?: number | undefined
  /** First everything since then, in milliseconds since the epoch. */
  readonly since?: number | undefined
}

/** What the hub takes from the configuration. */
export type HubSettings = Pick<Settings, 'HEARTBEAT' | 'RETRY' | 'RING_SIZE' | 'RING_TTL' | 'SEND_BUFFER'>

/**
 * Who listens in this process, and how far it has come. Events come in from the broker, go through the rings, and out
 * to the audiences; sessions are placed, caught up, and handed over to their audience.
 */
export class Hub implements BrokerListener, AudienceHub, SessionHub {
  readonly clock: Clock
  readonly metrics: Metrics
  readonly settings: HubSettings
  readonly sessions = new Set<Session>()
  readonly #broker: Broker
  readonly #watches = new Map<string, Watch>()
  readonly #audiences = new Map<string, Audience>()
  /** Sessions that wait for this process to come as far as their cursor, or as their newest filter. */
  readonly #ahead = new Set<Session>()
  /** Sessions that wait for the broker's answer. */
  readonly #reading = new Set<Session>()
  /** Sessions that the broker gave no answer. */
  readonly #stranded = new Set<Session>()
  /** Equal reads under way are shared: for many clients that come back at once the broker is asked once. */
  readonly #reads = new Map<string, Promise<Page>>()
  #incoming: Incoming[] = []
  #wasUp = false
  #position: Cursor

  constructor(broker: Broker, settings: HubSettings, clock: Clock, metrics: Metrics) {
    this.#broker = broker
    this.settings = settings
    this.clock = clock
    this.metrics = metrics
    this.#position = broker.birth
    this.#keepParkedAlive()
  }

  /** Everything up to here, of every filter that is watched, has been handed over in this process. */
  get position(): Cursor {
    return this.#position
  }

  /** How many filters somebody listens to. */
  get watched(): number {
    let count = 0
    for (const watch of this.#watches.values()) if (watch.audiences.size > 0) count++
    return count
  }

  // --- sessions come ---

  /**
   * Finds where a subscription starts. The session is not written to before its `start`; it must be closed also when
   * it never starts. Rejects with `BrokerUnavailable`.
   */
  async open(subscription: Subscription): Promise<Session> {
    const audience = this.#attach(subscription)
    try {
      await Promise.all(audience.watches.map(watch => watch.ready))
      const session = new Session(this, await this.#place(audience, subscription))
      this.sessions.add(session)
      return session
    } catch (error) {
      this.#detach(audience)
      throw error
    }
  }

  start(session: Session): void {
    const { format, gap, sink } = session
    const { transport } = format
    this.metrics.connections.inc({ transport })
    this.metrics.connectionsOpened.inc({ transport })
    session.state = 'catching up'
    const frames = [format.open(formatCursor(session.cursor), this.settings.RETRY)]
    // an unknown cursor is replaced by the next frame, so that whoever drops before it must be told again
    if (gap?.reason === 'unknown') frames.unshift(format.gap(gap))
    else if (gap) frames.push(format.gap(gap))
    if (gap) this.metrics.gaps.inc({ reason: gap.reason })
    sink.write(format.seal(frames))
    if (session.stale) session.cursor = furthest(session.cursor, this.#broker.birth)
    this.#serve(session)
  }

  async #place(audience: Audience, { after, rewind, since }: Subscription): Promise<SessionStart> {
    const now = furthest(this.#position, ...audience.watches.map(watch => watch.base))
    const start = { audience, cursor: now, gap: null, stale: false, resumes: false, floors: null }
    if (after) return { ...start, resumes: true, ...(await this.#judge(after, now, audience)) }
    if (rewind) return { ...start, ...(await this.#rewound(audience, rewind, now)) }
    if (since !== undefined) {
      const from = { ms: Math.max(since, now[0]!.ms - this.settings.RING_TTL) - 1, seq: 0 }
      return {
        ...start,
        cursor: this.#broker.birth.map((birth, shard) => earlier(later(birth, from), now[shard]!))
      }
    }
    return start
  }

  /** What a client's cursor is worth. Only the broker may say that one is from the future. */
  async #judge(after: string, now: Cursor, { kind }: Audience): Promise<Partial<SessionStart>> {
    const cursor = parseCursor(after, this.#broker.shards)
    const gap = (reason: GapReason): Gap => ({ reason, topics: kind.filters, after: after.slice(0, ECHO) })
    if (!cursor) return { gap: gap('unknown') }
    const ahead = !covers(now, cursor) && !covers(await this.#broker.position(), cursor)
    if (ahead) return { gap: gap('unknown') }
    // whatever is found: what was there may have gone without a trace
    const horizon = now[0]!.ms - this.settings.RING_TTL
    if (cursor.some(({ ms }) => ms < horizon)) {
      return { cursor, gap: kind.rate === undefined ? gap('expired') : null, stale: true }
    }
    return covers(cursor, this.#broker.birth) ? { cursor } : { gap: gap('unknown') }
  }

  /** Starts before the earliest of the last events of each topic; what lies before each topic's own is passed over. */
  async #rewound({ watches }: Audience, count: number, now: Cursor): Promise<Partial<SessionStart>> {
    const found = await Promise.all(
      watches.map(({ filter }) => this.#timed('rewind', this.#broker.rewind(filter, count)))
    )
    const floors = new Map(found.flatMap(starts => [...starts]))
    if (floors.size === 0) return {}
    const cursor = now.map((position, shard) =>
      [...floors]
        .filter(([topic]) => this.#broker.shardOf(topic) === shard)
        .reduce((least, [, start]) => earlier(least, start), position)
    )
    return { cursor, floors }
  }

  // --- sessions catch up ---

  resume(session: Session): void {
    session.state = 'catching up'
    this.metrics.lagging.dec()
    this.#serve(session)
  }

  /**
   * Brings a session to its audience's cursor and hands it over, or leaves it where it must wait: for its connection,
   * for this process, or for the broker. The hand-over is one synchronous step: nothing is awaited between "its cursor
   * is the audience's" and "it is in the audience".
   */
  #serve(session: Session): void {
    const { audience, watches } = session
    while (session.state === 'catching up') {
      if (session.sink.pending > this.settings.SEND_BUFFER) return this.#putAside(session)
      if (!covers(session.cursor, this.#broker.birth)) this.#restart(session)
      this.#tellLosses(session)
      const reached = session.reached ?? session.cursor
      // what a new filter's events were before its base, the stream of events doesn't tell
      const needed = furthest(reached, ...watches.map(watch => watch.base))
      if (!covers(audience.cursor, needed)) return void this.#ahead.add(session)
      for (const watch of watches) watch.dropBefore(this.clock.now() - this.settings.RING_TTL)
      const cold = watches.filter(watch => !watch.holdsAfter(reached))
      if (cold.length > 0) return void this.#readFor(session, cold, reached)
      const position = this.#position
      const pages = watches.map(watch => watch.after(reached, PAGE, position))
      this.#deliver(session, pages, 'memory')
      if (session.state === 'catching up' && caughtUp(session)) this.#handOver(session)
    }
  }

  #handOver(session: Session): void {
    this.#noteOutcome(session)
    session.floors = null
    session.reached = null
    session.state = 'live'
    session.audience.add(session)
  }

  async #readFor(session: Session, cold: readonly Watch[], reached: Cursor): Promise<void> {
    this.#reading.add(session)
    // when the broker is away it says so, and again when it is back
    const read = await Promise.all(cold.map(({ filter }) => this.#range(filter, reached))).catch(() => null)
    this.#reading.delete(session)
    if (session.state !== 'catching up') return
    if (!read) return void this.#stranded.add(session)
    const warm = session.watches.filter(watch => !cold.includes(watch))
    // unless a ring has moved on meanwhile: then all is read again
    if (warm.every(watch => watch.holdsAfter(reached))) {
      const held = warm.map(watch => watch.after(reached, PAGE, this.#position))
      this.#deliver(session, [...read, ...held], 'broker')
    }
    this.#serve(session)
  }

  /** Gives a session what these pages hold, up to where all of them are complete and its audience has come. */
  #deliver(session: Session, pages: readonly Page[], source: 'memory' | 'broker'): void {
    const from = session.reached ?? session.cursor
    const bound = pages.reduce(
      (least, { end }) => least.map((p, shard) => earlier(p, end[shard]!)),
      session.audience.cursor
    )
    this.#announceLosses(session, pages)
    const now = this.clock.now()
    const events = merge(pages).filter(({ id, shard, topic, expires = Infinity }) => {
      const floor = session.floors?.get(topic) ?? from[shard]!
      return expires > now && comparePositions(id, floor) > 0 && comparePositions(id, bound[shard]!) <= 0
    })
    if (session.audience.kind.rate === undefined) this.#give(session, events, bound, source)
    else this.#conflate(session, events, bound, source)
  }

  #announceLosses(session: Session, pages: readonly Page[]): void {
    const lost: string[] = []
    for (const { gaps } of pages) {
      for (const [topic, last] of gaps) {
        const floor = session.floors?.get(topic)
        if (floor && comparePositions(last, floor) <= 0) continue
        session.floors = (session.floors ?? new Map<string, Position>()).set(topic, last)
        lost.push(topic)
      }
    }
    // a cursor older than any ring was answered with a gap for all topics before
    const announced = session.stale || session.audience.kind.rate !== undefined
    session.stale = false
    if (lost.length > 0 && !announced) this.#announce(session, 'expired', lost)
  }

  /** The store began anew: nothing leads from the session's cursor to what comes. */
  #restart(session: Session): void {
    this.#announce(session, 'unknown', session.audience.kind.filters)
    session.cursor = furthest(this.#position, this.#broker.birth)
    session.reached = null
    session.newest = null
  }

  /** The store has forgotten events: whether any came after the session's cursor, nobody can tell. */
  #tellLosses(session: Session): void {
    const { lost } = this.#broker
    if (covers(furthest(session.cursor, session.told ?? session.cursor), lost)) return
    this.#announce(session, 'lost', session.audience.kind.filters)
    session.told = lost
  }

  #announce(session: Session, reason: GapReason, topics: readonly string[]): void {
    const named = topics.length > NAMED_TOPICS ? session.audience.kind.filters : topics
    const gap = { reason, topics: named, after: formatCursor(session.cursor) }
    if (session.outcome) session.outcome = 'gap'
    this.metrics.gaps.inc({ reason })
    this.#write(session, [session.format.gap(gap)])
  }

  /** Conflated: keeps the newest of each topic until the session has caught up. */
  #conflate(
    session: Session,
    events: readonly StoredEvent[],
    bound: Cursor,
    source: 'memory' | 'broker'
  ): void {
    const kept = (session.newest ??= new Map<string, StoredEvent>())
    for (const event of events) kept.set(event.topic, event)
    session.reached = bound
    if (!caughtUp(session)) return
    const newest = inOrder(kept.values(), session.cursor).map(({ event }) => event)
    session.newest = null
    session.reached = null
    this.#give(session, newest, bound, source)
  }

  /** Writes events in pieces of about `SEND_BUFFER`; what the connection doesn't take now is read again later. */
  #give(session: Session, events: readonly StoredEvent[], bound: Cursor, source: 'memory' | 'broker'): void {
    const { format, sink } = session
    const { SEND_BUFFER } = this.settings
    let cursor = session.cursor
    let frames: Buffer[] = []
    let size = 0
    for (const event of events) {
      if (size > 0 && sink.pending + size > SEND_BUFFER) {
        this.#giveFrames(session, frames, cursor, source)
        frames = []
        size = 0
        if (sink.pending > SEND_BUFFER) return
      }
      cursor = cursor.with(event.shard, event.id)
      const frame = frameOf(format, event, cursor)
      frames.push(frame)
      size += frame.length
    }
    if (frames.length > 0) this.#giveFrames(session, frames, bound, source)
    session.cursor = bound
  }

  #giveFrames(
    session: Session,
    frames: readonly Buffer[],
    cursor: Cursor,
    source: 'memory' | 'broker'
  ): void {
    this.#write(session, frames)
    session.cursor = cursor
    if (session.outcome === 'live') session.outcome = 'replayed'
    this.metrics.replayedEvents.inc({ source }, frames.length)
    this.metrics.eventsDelivered.inc({ transport: session.format.transport }, frames.length)
  }

  #write({ format, sink }: Session, frames: readonly Buffer[]): void {
    const bytes = format.seal(frames)
    this.metrics.bytesSent.inc({ transport: format.transport }, bytes.length)
    sink.write(bytes)
  }

  #range(filter: string, after: Cursor): Promise<Page> {
    const key = `${filter} ${formatCursor(after)}`
    const shared = this.#reads.get(key)
    if (shared) return shared
    const read = this.#timed('range', this.#broker.range(filter, after, PAGE)).finally(() =>
      this.#reads.delete(key)
    )
    this.#reads.set(key, read)
    return read
  }

  // --- sessions fall behind, and go ---

  lag(session: Session, cursor: Cursor): void {
    session.cursor = cursor
    session.audience.delete(session)
    this.#putAside(session)
  }

  #putAside(session: Session): void {
    session.reached = null
    session.newest = null
    session.state = 'lagging'
    this.metrics.lagging.inc()
  }

  leave(session: Session, reason: CloseReason): void {
    const { audience, state } = session
    this.#noteOutcome(session)
    session.state = 'closed'
    this.sessions.delete(session)
    audience.delete(session)
    for (const parked of [this.#ahead, this.#reading, this.#stranded]) parked.delete(session)
    if (state === 'lagging') this.metrics.lagging.dec()
    this.#detach(audience)
    if (state === 'opened') return
    const { transport } = session.format
    this.metrics.connections.dec({ transport })
    this.metrics.connectionsClosed.inc({ transport, reason })
    this.metrics.connectionDuration.observe({ transport }, (this.clock.now() - session.since) / 1000)
  }

  #noteOutcome(session: Session): void {
    if (session.outcome) this.metrics.resumes.inc({ outcome: session.outcome })
    session.outcome = null
  }

  /** How long a client that is sent away shall wait, in milliseconds: at random, so that about a thousand a second come back. */
  spread(): number {
    const { RETRY } = this.settings
    return Math.round(RETRY + Math.random() * Math.max(RETRY, this.sessions.size))
  }

  /** Says goodbye to every session, spread over `ms` milliseconds; resolves when all are gone. */
  drain(ms: number): Promise<void> {
    const sessions = [...this.sessions].sort(() => Math.random() - 0.5)
    const started = this.clock.now()
    const total = sessions.length
    return new Promise(resolve => {
      const step = () => {
        const due = ms > 0 ? Math.ceil((total * (this.clock.now() - started)) / ms) : total
        while (sessions.length > 0 && total - sessions.length <= due)
          sessions.pop()!.goodbye('shutdown', this.spread())
        if (sessions.length === 0) resolve()
        else this.clock.after(Math.min(50, ms / total), step)
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
    const stranded = [...this.#stranded]
    this.#stranded.clear()
    for (const session of stranded) this.#serve(session)
  }

  moved(audience: Audience): void {
    this.#serveAhead(session => session.audience === audience)
  }

  #serveAhead(which: (session: Session) => boolean): void {
    for (const session of [...this.#ahead].filter(which)) {
      this.#ahead.delete(session)
      this.#serve(session)
    }
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
    this.#serveAhead(() => true)
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
      for (const audience of watch.audiences)
        if (audience.queue(event, this.#position, before)) touched.add(audience)
    }
  }

  /** Every live session reads on at its own cursor: that shows what was missed, and what can't be had. */
  #handOnJump(position: Cursor, touched: Set<Audience>): void {
    for (const audience of touched) audience.flush()
    touched.clear()
    const released = [...this.#audiences.values()].flatMap(audience => audience.release())
    this.#position = furthest(this.#position, position)
    for (const watch of this.#watches.values()) if (watch.base.length > 0) watch.reset(this.#position)
    for (const session of released) this.#serve(session)
  }

  #handOnGap(reason: GapReason, topics: readonly string[]): void {
    const after = formatCursor(this.#position)
    const concerned = new Map<Audience, string[]>()
    for (const topic of topics) {
      for (const watch of this.#watches.values()) {
        if (!watch.concerns(topic) || watch.base.length === 0) continue
        watch.reset(this.#position)
        for (const audience of watch.audiences)
          concerned.set(audience, [...(concerned.get(audience) ?? []), topic])
      }
    }
    for (const [audience, lost] of concerned) audience.announce({ reason, topics: lost, after })
  }

  // --- filters and audiences ---

  #attach(kind: AudienceKind): Audience {
    const filters = [...new Set(kind.filters)].sort()
    const key = JSON.stringify([kind.format.key, kind.rate, kind.heartbeat, filters])
    let audience = this.#audiences.get(key)
    if (!audience) {
      audience = new Audience(
        this,
        { ...kind, filters },
        filters.map(filter => this.#watch(filter)),
        key
      )
      this.#audiences.set(key, audience)
      for (const watch of audience.watches) watch.audiences.add(audience)
    }
    audience.size++
    return audience
  }

  #detach(audience: Audience): void {
    if (--audience.size > 0) return
    this.#audiences.delete(audience.key)
    for (const watch of audience.watches) {
      watch.audiences.delete(audience)
      if (watch.audiences.size === 0) watch.linger = this.clock.after(LINGER_MS, () => this.#unwatch(watch))
    }
  }

  #watch(filter: string): Watch {
    const known = this.#watches.get(filter)
    known?.linger?.cancel()
    if (known) return known
    const subscribed = this.#timed('subscribe', this.#broker.subscribe(filter))
    const watch = new Watch(filter, this.settings.RING_SIZE, subscribed)
    watch.ready.catch(() => this.#watches.delete(filter))
    this.#watches.set(filter, watch)
    return watch
  }

  #unwatch({ filter }: Watch): void {
    this.#watches.delete(filter)
    this.#broker.unsubscribe(filter)
  }

  async #timed<T>(op: string, answer: Promise<T>): Promise<T> {
    const end = this.metrics.brokerSeconds.startTimer({ op })
    try {
      return await answer
    } finally {
      end()
    }
  }

  /** A connection whose session waits must not fall silent: it is told its own cursor. */
  #keepParkedAlive(): void {
    const timer = this.clock.after(this.settings.HEARTBEAT, () => {
      for (const session of [...this.#ahead, ...this.#reading, ...this.#stranded]) {
        this.#write(session, [session.format.keepAlive(formatCursor(session.cursor))])
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

function earlier(a: Position, b: Position): Position {
  return comparePositions(a, b) <= 0 ? a : b
}

function caughtUp({ audience, cursor, reached }: Session): boolean {
  return covers(reached ?? cursor, audience.cursor)
}

/** The events of all pages in the order of their ids, each once. */
function merge(pages: readonly Page[]): readonly StoredEvent[] {
  if (pages.length === 1 && pages[0]!.end.length === 1) return pages[0]!.events
  return pages
    .flatMap(page => page.events)
    .sort((a, b) => comparePositions(a.id, b.id) || a.shard - b.shard)
    .filter((event, index, all) => index === 0 || !sameEvent(event, all[index - 1]!))
}

function sameEvent(a: StoredEvent, b: StoredEvent): boolean {
  return a.shard === b.shard && comparePositions(a.id, b.id) === 0
}
