import type { EventLog, Page, State } from '../broker/event-log.ts'
import type { Clock } from '../clock.ts'
import { comparePositions, covers, earlier, formatCursor, furthest, later } from '../event.ts'
import type { Cursor, Gap, GapReason, Position, StoredEvent } from '../event.ts'
import type { Metrics } from '../metrics.ts'
import { follow, frameOf, inOrder, type Audience, type Given } from './audience.ts'
import type { Session } from './session.ts'
import { horizonOf } from './start.ts'
import type { Watch } from './watch.ts'

/** How many events are read in one go, for each filter. */
const PAGE = 256

/** The most topics that a gap names one by one; past it, it names the filters. */
const NAMED_TOPICS = 100

/** What catching up needs of its hub. */
export interface CatchUpHub {
  readonly log: EventLog
  readonly clock: Clock
  readonly metrics: Metrics
  readonly position: Cursor
  readonly settings: { readonly RETRY: number; readonly RING_TTL: number; readonly SEND_BUFFER: number }
  /** Times a broker's answer. */
  timed<T>(op: string, answer: Promise<T>): Promise<T>
  /** A session has caught up with its audience, in whose hands it is from now on. */
  goLive(session: Session): void
  /** Its connection is full: it goes on once that has drained. */
  fallBehind(session: Session): void
}

/** What a client that polls is answered. */
export interface Reading {
  readonly events: readonly Given[]
  /** Where the client stands once it has these. */
  readonly cursor: Cursor
  readonly gap: Gap | null
  /** Whether there is more to read at once. */
  readonly more: boolean
}

type Source = 'memory' | 'broker'

/**
 * Brings sessions from their own cursor to their audience's: from the rings, and from the broker what those no longer
 * hold. Finds which gaps lie on the way.
 */
export class CatchUp {
  readonly #hub: CatchUpHub
  /** Who waits for this process to come as far as its cursor, or as its newest filter; and what it does then. */
  readonly #ahead = new Map<Session, () => void>()
  /** Sessions that wait for the broker's answer. */
  readonly #reading = new Set<Session>()
  /** Sessions that the broker gave no answer. */
  readonly #stranded = new Set<Session>()
  /** Equal reads under way are shared: for many clients that come back at once the broker is asked once. */
  readonly #reads = new Map<string, Promise<Page>>()

  constructor(hub: CatchUpHub) {
    this.#hub = hub
  }

  /** The streams that wait for something else than their connection. */
  get parked(): Session[] {
    const all = [...this.#ahead.keys(), ...this.#reading, ...this.#stranded]
    return all.filter(({ isOpen, state }) => isOpen && state === 'catching up')
  }

  /** The broker answers again. */
  resume(): void {
    const stranded = [...this.#stranded]
    this.#stranded.clear()
    for (const session of stranded) this.serve(session)
  }

  /** This process has come further, or this audience has. */
  moved(audience?: Audience): void {
    for (const [session, proceed] of [...this.#ahead]) {
      if (audience && session.audience !== audience) continue
      this.#ahead.delete(session)
      proceed()
    }
  }

  forget(session: Session): void {
    for (const parked of [this.#ahead, this.#reading, this.#stranded]) parked.delete(session)
  }

  // --- streams ---

  /**
   * Brings a session to its audience's cursor and hands it over, or leaves it where it must wait: for its connection,
   * for this process, or for the broker. The hand-over is one synchronous step: nothing is awaited between "its cursor
   * is the audience's" and "it is in the audience".
   */
  serve(session: Session): void {
    while (session.state === 'catching up') {
      if (session.sink.pending > this.#hub.settings.SEND_BUFFER) return this.#hub.fallBehind(session)
      const pause = this.#pauseOf(session)
      if (pause > 0 && !(caughtUp(session) && this.#mayJoin(session)))
        return this.#waitForRate(session, pause)
      for (const gap of this.#breaks(session)) this.#tell(session, gap)
      if (session.state !== 'catching up') return
      if (session.needsSnapshot) return void this.#giveSnapshot(session)
      const reached = session.reached ?? session.cursor
      if (!this.#hasReached(session, reached)) {
        return void this.#ahead.set(session, () => this.serve(session))
      }
      const cold = this.#coldOf(session, reached)
      if (cold.length > 0) return void this.#readThenServe(session, cold, reached)
      this.#deliver(session, this.#held(session.watches, reached), 'memory')
      if (session.state === 'catching up' && caughtUp(session) && this.#mayJoin(session)) {
        const { audience, pacedUntil } = session
        // nobody has paced it for this one
        if (!audience.isLive && this.#pauseOf(session) > 0) audience.holdUntil(pacedUntil)
        this.#hub.goLive(session)
      }
    }
  }

  async #readThenServe(session: Session, cold: readonly Watch[], reached: Cursor): Promise<void> {
    this.#reading.add(session)
    // when the broker is away it says so, and again when it is back
    const pages = await this.#read(session, cold, reached).catch(() => null)
    this.#reading.delete(session)
    if (session.state !== 'catching up') return
    if (!pages) return void this.#stranded.add(session)
    // what the store has forgotten meanwhile is told before what it still has
    if (!this.#isBroken(session)) this.#deliver(session, pages, 'broker')
    this.serve(session)
  }

  /** Gives a session what these pages hold, up to where all of them are complete and its audience has come. */
  #deliver(session: Session, pages: readonly Page[], source: Source): void {
    const { events, bound, gap } = this.#take(session, pages)
    if (gap) this.#tell(session, gap)
    if (session.needsSnapshot || session.state !== 'catching up') return
    const { rate, snapshot } = session.audience.kind
    if (rate === undefined) return this.#give(session, events, bound, source)
    // patches can't be left out: the state has all of them in it
    if (snapshot && events.length > 0) return void (session.needsSnapshot = true)
    const newest = this.#conflate(session, events, bound)
    if (!newest) return
    this.#give(session, newest, bound, source)
    if (newest.length === 0) return
    this.#pace(session, rate)
  }

  #pace(session: Session, rate: number): void {
    session.pacedUntil = this.#hub.clock.now() + 1000 / rate
    if (!session.audience.isLive) session.audience.pace(rate)
  }

  /** How long the rate keeps a conflated session waiting, in milliseconds; never longer, also when the clock was set back. */
  #pauseOf({ audience, pacedUntil }: Session): number {
    const { rate } = audience.kind
    const left = pacedUntil - this.#hub.clock.now()
    return rate !== undefined && left > 0 && left <= 1000 / rate ? left : 0
  }

  /** Whether the audience's next write comes no sooner than the session's own rate allows. */
  #mayJoin(session: Session): boolean {
    const { audience, pacedUntil } = session
    return !audience.isLive || this.#pauseOf(session) === 0 || audience.nextWrite >= pacedUntil
  }

  /** Waits for the rate, and for the audience's next write: just after one, it can join. Unless there is none. */
  #waitForRate(session: Session, ms: number): void {
    const { audience } = session
    this.#ahead.set(session, () => this.serve(session))
    session.pacing ??= this.#hub.clock.after(audience.isLive ? ms + 1000 / audience.kind.rate! : ms, () => {
      session.pacing = null
      if (this.#ahead.delete(session)) this.serve(session)
    })
  }

  /** A topic's state, and a position: nothing that was stored up to there is missing in it. */
  async #stateOf(topic: string): Promise<{ position: Cursor; state: State | null }> {
    const position = await this.#hub.log.position()
    return { position, state: await this.#hub.log.state(topic) }
  }

  #tell(session: Session, gap: Gap): void {
    if (session.audience.kind.snapshot) session.needsSnapshot = true
    else this.#write(session, [session.format.gap(gap)])
  }

  /** The state of the session's topic, and from where the session goes on. */
  async #giveSnapshot(session: Session): Promise<void> {
    const { log, settings } = this.#hub
    const { format, watches } = session
    const topic = watches[0]!.filter
    this.#reading.add(session)
    const read = await this.#hub.timed('state', this.#stateOf(topic)).catch(() => null)
    this.#reading.delete(session)
    if (session.state !== 'catching up') return
    if (!read) return void this.#stranded.add(session)
    const { state } = read
    const shard = log.shardOf(topic)
    session.cursor = furthest(session.cursor, read.position)
    if (state) session.cursor = session.cursor.with(shard, later(session.cursor[shard]!, state.version))
    session.floors = null
    session.needsSnapshot = false
    const cursor = formatCursor(session.cursor)
    const where = session.isOpen
      ? format.keepAlive(cursor, session.audience.kind.filters)
      : format.open(cursor, settings.RETRY)
    session.isOpen = true
    this.#write(session, [
      state ? snapshotOf(session, topic, shard, state) : format.note('deleted', '{}'),
      where
    ])
    const { rate } = session.audience.kind
    if (rate !== undefined) this.#pace(session, rate)
    this.serve(session)
  }

  /** Writes events in pieces of about `SEND_BUFFER`; what the connection doesn't take now is read again later. */
  #give(session: Session, events: readonly StoredEvent[], bound: Cursor, source: Source): void {
    const { format, sink } = session
    const { SEND_BUFFER } = this.#hub.settings
    let cursor = session.cursor
    let frames: Buffer[] = []
    let size = 0
    for (const event of events) {
      if (size > 0 && sink.pending + size > SEND_BUFFER) {
        this.#giveFrames(session, frames, cursor, source)
        frames = []
        size = 0
        if (sink.pending > SEND_BUFFER || session.state !== 'catching up') return
      }
      cursor = cursor.with(event.shard, event.id)
      const frame = frameOf(format, event, cursor)
      frames.push(frame)
      size += frame.length
    }
    if (frames.length > 0) this.#giveFrames(session, frames, bound, source)
    else session.cursor = bound
  }

  #giveFrames(session: Session, frames: readonly Buffer[], cursor: Cursor, source: Source): void {
    const { delivers, transport } = session.format
    session.cursor = cursor
    this.#write(session, frames)
    if (!delivers) return
    if (session.outcome === 'live') session.outcome = 'replayed'
    this.#hub.metrics.replayedEvents.inc({ source }, frames.length)
    this.#hub.metrics.eventsDelivered.inc({ transport }, frames.length)
  }

  #write({ audience, format, sink }: Session, frames: readonly Buffer[]): void {
    const bytes = audience.pack(frames)
    if (format.delivers) this.#hub.metrics.bytesSent.inc({ transport: format.transport }, bytes.length)
    sink.write(bytes)
  }

  // --- polls ---

  /**
   * Reads at most `limit` events for a session that was opened and not started, and moves it past them. Rejects with
   * `BrokerUnavailable`.
   */
  async read(session: Session, limit: number): Promise<Reading> {
    const found: Given[] = []
    let gap = session.gap
    for (;;) {
      // what comes after a break is for the next page, where its gap is told first
      if (found.length > 0 && this.#isBroken(session)) break
      gap = this.#breaks(session).at(-1) ?? gap
      const reached = session.reached ?? session.cursor
      if (!this.#hasReached(session, reached)) {
        await new Promise<void>(resolve => this.#ahead.set(session, resolve))
        continue
      }
      const cold = this.#coldOf(session, reached)
      const pages =
        cold.length > 0 ? await this.#read(session, cold, reached) : this.#held(session.watches, reached)
      if (this.#isBroken(session)) continue
      const taken = this.#take(session, pages)
      if (taken.gap && (found.length > 0 || (gap && gap.reason !== taken.gap.reason))) break
      if (taken.gap)
        gap = { ...(gap ?? taken.gap), topics: [...new Set([...(gap?.topics ?? []), ...taken.gap.topics])] }
      found.push(...this.#takeForPage(session, taken.events, taken.bound))
      if (found.length >= limit || caughtUp(session)) break
    }
    const events = found.slice(0, limit)
    const more = found.length > limit || !caughtUp(session)
    if (found.length > limit) session.cursor = events.at(-1)!.cursor
    return { events, cursor: session.cursor, gap, more }
  }

  #takeForPage(session: Session, events: readonly StoredEvent[], bound: Cursor): Given[] {
    const from = session.cursor
    const conflated = session.audience.kind.rate !== undefined
    const given = conflated ? this.#conflate(session, events, bound) : events
    if (given === null) return []
    session.cursor = bound
    return follow(from, given)
  }

  /** Resolves once something has come for a session that polls, or after `ms`. It stands where it stood. */
  wait(session: Session, ms: number): Promise<void> {
    const { cursor, told, stale, pacedUntil } = session
    const floors = session.floors && new Map(session.floors)
    return new Promise(resolve => {
      const wake = (): void => {
        timer.cancel()
        if (session.state !== 'closed') {
          session.audience.delete(session)
          this.forget(session)
          Object.assign(session, {
            state: 'opened',
            cursor,
            told,
            pacedUntil,
            stale,
            floors,
            reached: null,
            newest: null
          })
        }
        resolve()
      }
      const timer = this.#hub.clock.after(ms, wake)
      session.sink = { pending: 0, write: ({ length }) => void (length > 0 && wake()), end: wake }
      session.state = 'catching up'
      this.serve(session)
    })
  }

  // --- reading ---

  /** Whether this process has come as far as a cursor, and as every filter's base: before it, no announcement tells. */
  #hasReached({ audience, watches }: Session, reached: Cursor): boolean {
    return covers(audience.cursor, furthest(reached, ...watches.map(watch => watch.base)))
  }

  /** The filters whose rings don't hold everything after a cursor; what is too old to be read leaves them first. */
  #coldOf({ watches }: Session, reached: Cursor): Watch[] {
    const horizon = horizonOf(this.#hub)
    for (const watch of watches) watch.dropBefore(horizon)
    return watches.filter(watch => !watch.holdsAfter(reached))
  }

  #held(watches: readonly Watch[], reached: Cursor): Page[] {
    return watches.map(watch => watch.after(reached, PAGE, this.#hub.position))
  }

  /** A page of each filter: from the broker where its rings don't reach back so far. */
  async #read({ watches }: Session, cold: readonly Watch[], reached: Cursor): Promise<Page[]> {
    const read = await Promise.all(cold.map(watch => this.#range(watch, reached)))
    const warm = watches.filter(watch => !cold.includes(watch))
    // unless a ring has moved on meanwhile: then nothing is complete, and all is read again
    if (warm.every(watch => watch.holdsAfter(reached))) return [...read, ...this.#held(warm, reached)]
    return [{ events: [], end: reached, gaps: new Map() }]
  }

  #range(watch: Watch, after: Cursor): Promise<Page> {
    const key = `${watch.filter} ${formatCursor(after)}`
    const shared = this.#reads.get(key)
    if (shared) return shared
    const read = this.#readRange(watch, after).finally(() => this.#reads.delete(key))
    this.#reads.set(key, read)
    return read
  }

  async #readRange(watch: Watch, after: Cursor): Promise<Page> {
    const { filter, era } = watch
    const page = await this.#hub.timed('range', this.#hub.log.range(filter, after, PAGE))
    // those who come a moment later shall not have to ask again; unless it began anew meanwhile
    if (watch.era === era) watch.extend(after, page)
    return page
  }

  /** What of these pages a session is to get, up to where all of them are complete and its audience has come. */
  #take(session: Session, pages: readonly Page[]) {
    const from = session.reached ?? session.cursor
    const bound = pages.reduce<Cursor>(
      (least, { end }) => least.map((position, shard) => earlier(position, end[shard]!)),
      session.audience.cursor
    )
    const now = this.#hub.clock.now()
    const gap = this.#lossesOf(session, pages, from)
    const events = merge(pages).filter(({ id, shard, topic, expires = Infinity }) => {
      const floor = later(session.floors?.get(topic) ?? from[shard]!, from[shard]!)
      return expires > now && comparePositions(id, floor) > 0 && comparePositions(id, bound[shard]!) <= 0
    })
    return { events, bound, gap }
  }

  /** Keeps the newest of each topic until the session has caught up; then they are what it gets. */
  #conflate(session: Session, events: readonly StoredEvent[], bound: Cursor): StoredEvent[] | null {
    const kept = (session.newest ??= new Map<string, StoredEvent>())
    for (const event of events) kept.set(event.topic, event)
    session.reached = bound
    if (!caughtUp(session)) return null
    session.newest = null
    session.reached = null
    return inOrder(kept.values())
  }

  // --- gaps ---

  #isBroken({ cursor, stale, told }: Session): boolean {
    const { birth, lost } = this.#hub.log
    return (!stale && !covers(cursor, birth)) || !covers(furthest(cursor, told ?? cursor), lost)
  }

  /** What breaks the way from the session's cursor: the store began anew, or has forgotten events. */
  #breaks(session: Session): Gap[] {
    const { birth, lost } = this.#hub.log
    const gaps: Gap[] = []
    if (session.stale) {
      session.cursor = furthest(session.cursor, birth)
    } else if (!covers(session.cursor, birth)) {
      gaps.push(this.#note(session, 'unknown', session.audience.kind.filters))
      session.cursor = furthest(session.cursor, birth)
      session.reached = null
      session.newest = null
    }
    // whether any of the forgotten ones came after the session's cursor, nobody can tell
    if (!covers(furthest(session.cursor, session.told ?? session.cursor), lost)) {
      gaps.push(this.#note(session, 'lost', session.audience.kind.filters))
      session.told = lost
    }
    return gaps
  }

  #lossesOf(session: Session, pages: readonly Page[], from: Cursor): Gap | null {
    const lost: string[] = []
    // who has waited that long may have missed what left no trace
    const { filters, rate } = session.audience.kind
    const tooOld = !session.stale && from.some(({ ms }) => ms < horizonOf(this.#hub))
    for (const { gaps } of pages) {
      for (const [topic, last] of gaps) {
        const floor = session.floors?.get(topic)
        if (floor && comparePositions(last, floor) <= 0) continue
        session.floors = (session.floors ?? new Map<string, Position>()).set(topic, last)
        lost.push(topic)
      }
    }
    // a cursor older than any ring was answered with a gap for all topics before
    const announced = session.stale || rate !== undefined
    session.stale = false
    if (announced || (lost.length === 0 && !tooOld)) return null
    return this.#note(session, 'expired', tooOld ? filters : lost)
  }

  #note(session: Session, reason: GapReason, topics: readonly string[]): Gap {
    const named = topics.length > NAMED_TOPICS ? session.audience.kind.filters : topics
    if (session.outcome) session.outcome = 'gap'
    this.#hub.metrics.gaps.inc({ reason })
    return { reason, topics: named, after: formatCursor(session.cursor) }
  }
}

/** A state as the event that made it, whatever that one's type was. */
function snapshotOf(
  { cursor, format }: Session,
  topic: string,
  shard: number,
  { value, version }: State
): Buffer {
  const event = { id: version, shard, topic, type: 'snapshot', data: value, prev: null }
  return format.snapshot(event, formatCursor(cursor))
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
