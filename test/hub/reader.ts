import {
  comparePositions,
  covers,
  formatCursor,
  furthest,
  isWildcard,
  parseCursor,
  type Cursor,
  type Position,
  isEphemeral
} from '../../src/event.ts'
import type { Session } from '../../src/hub/session.ts'
import type { Sink } from '../../src/hub/sink.ts'
import { Gunzip } from '../support/gunzip.ts'
import { StrictParser, type Frame } from '../support/sse-parser.ts'
import type { Logged } from './held-log.ts'

/** More bytes than any frame of these tests has. */
const LARGEST_FRAME = 300

/** What the server tells of itself. */
const OWN_TYPES = ['cursor', 'gap', 'heartbeat', 'goodbye', 'stale']

/** What a reader asked for. */
export interface Request {
  readonly filters: readonly string[]
  readonly after?: string | undefined
  readonly rewind?: number | undefined
  readonly since?: number | undefined
  readonly rate?: number | undefined
  readonly heartbeat?: number | undefined
  readonly enveloped: boolean
  readonly compressed?: boolean | undefined
  /** An answer as a whole, and no stream: its gap is of all of it. */
  readonly poll?: boolean | undefined
  /** Begins with the topic's state, and never hears of a gap. */
  readonly snapshot?: boolean | undefined
}

/** What the model of the store knows. */
export interface Model {
  readonly topics: readonly string[]
  readonly log: readonly Logged[]
  readonly settings: { readonly RING_SIZE: number; readonly RING_TTL: number; readonly SEND_BUFFER: number }
  readonly birth: Cursor
  readonly shards: number
  shardOf(topic: string): number
  /** The latest time that it ever was, in milliseconds since the epoch. */
  readonly latest: number
  readonly now: number
  readonly steppedBack: boolean
  /** How far the hub has come. */
  readonly position: Cursor
  /** Whether the store may forget a topic whose events it let go for want of room, and then tells of any that was alike. */
  readonly forgetful: boolean
  /** Whether the ring no longer holds an event. */
  gone(event: Logged): boolean
}

/** What was true at one moment. */
export interface Moment {
  /** The id that the store gave last. */
  readonly last: Cursor
  /** Up to where the hub had handed on. */
  readonly position: Cursor
  /** Where this life of the store began. */
  readonly birth: Cursor
  readonly now: number
  readonly latest: number
  readonly stored: number
}

/** One connection's reading end, which hands every frame to be judged as soon as it is written. */
export abstract class Connection implements Sink {
  pending = 0
  slow = false
  session: Session | undefined
  ended = false
  /** The ids of the frames that were written, as a client would remember them. */
  readonly ids: string[] = []
  /** How many of the ids lie in what the connection has taken. */
  taken = 0
  delivered = 0
  /** The first promise that was broken: a sink doesn't throw. */
  failure: Error | undefined
  request: Request
  protected readonly model: Model
  /** How many frames have come. */
  protected frames = 0
  readonly #parser = new StrictParser()
  readonly #gunzip: Gunzip | undefined
  #full = false
  /** What of the pending bytes is events, at least: gaps and heartbeats are written all the same. */
  #pendingEvents = 0

  constructor(model: Model, request: Request) {
    this.model = model
    this.request = request
    if (request.compressed) this.#gunzip = new Gunzip()
  }

  /** Reads an id, which must be written as ids are. */
  protected cursor(id: string | undefined): Cursor {
    const cursor = parseCursor(id ?? '', this.model.shards)
    if (!cursor || formatCursor(cursor) !== id) throw new Error(`no cursor: ${id}`)
    return cursor
  }

  /** The session is there: it starts to write. */
  abstract begin(session: Session, opened: Moment): void
  /** A frame that breaks a promise makes it throw. */
  protected abstract read(frame: Frame): void
  /** After everything was let through and drained: nothing may be outstanding. */
  abstract finish(last: Cursor): void

  write(bytes: Buffer): void {
    try {
      this.#take(this.#gunzip ? this.#gunzip.push(bytes) : bytes)
    } catch (error) {
      this.failure ??= error as Error
    }
  }

  #take(bytes: Buffer): void {
    if (this.ended) throw new Error('written to after its end')
    const { SEND_BUFFER } = this.model.settings
    const full = this.#pendingEvents > SEND_BUFFER
    if (this.slow) this.pending += bytes.length
    if (this.pending > SEND_BUFFER) this.#full = true
    for (const frame of this.#parser.push(bytes)) {
      if (!OWN_TYPES.includes(frame.event ?? '')) {
        if (full) throw new Error('fed although its connection is full')
        if (this.slow) this.#pendingEvents += frame.data!.length
      }
      this.frames++
      this.read(frame)
      if (frame.id !== undefined) this.ids.push(frame.id)
    }
    this.#parser.end()
    if (this.frames > 2 && bytes.length > SEND_BUFFER + LARGEST_FRAME)
      throw new Error(`${bytes.length} bytes in one write`)
    if (!this.slow) this.taken = this.ids.length
  }

  end(): void {
    this.ended = true
  }

  /** The connection takes some of what waits in it. */
  drain(bytes = Infinity): void {
    this.pending = Math.max(0, this.pending - bytes)
    this.#pendingEvents = Math.min(this.#pendingEvents, this.pending)
    if (this.pending > 0) return
    this.taken = this.ids.length
    if (!this.#full) return
    this.#full = false
    this.session?.drained()
  }
}

/**
 * Holds every frame against the promise: a client may drop after any of them, and come back with the last id before.
 */
export class Reader extends Connection {
  readonly #asked: Moment
  #opened!: Moment
  #start: Cursor = []
  #reached: Cursor | undefined
  #unknown = false
  /** A cursor older than any ring: the gap must be what comes next. */
  #mustTellOld = false
  /** Up to where a new life of the store need not be told: it began within the stream, which goes on live. */
  #restarted: Cursor | undefined
  #asksForAll = false
  /** `rewind` and `since`: what the rings no longer held when the stream began. */
  readonly #goneBefore = new Set<Logged>()
  /** Topics that a gap was announced for since their last event. */
  readonly #gapped = new Set<string>()
  /** Conflated: the last event of each topic, and when it came. */
  readonly #newest = new Map<string, Position>()
  readonly #times = new Map<string, number[]>()

  constructor(model: Model, request: Request, asked: Moment) {
    super(model, request)
    this.#asked = asked
  }

  override begin(session: Session, opened: Moment): void {
    this.session = session
    this.open(opened)
    session.start(this)
    if (!this.#reached) this.failure ??= new Error('no cursor event')
  }

  /** Without a session: somebody else writes. */
  open(opened: Moment): void {
    const { rewind, since, after } = this.request
    const { RING_TTL } = this.model.settings
    this.#opened = opened
    if (after) return
    if (rewind) this.#forgiveGone()
    // who asks for about all that is kept gets what is kept by the time that it is read
    this.#asksForAll = !rewind && since !== undefined && since < opened.latest - RING_TTL * 0.99
  }

  override finish(last: Cursor): void {
    if (!this.#reached) throw new Error('never started')
    if (this.session?.state !== 'live') throw new Error(`is ${this.session?.state} at the end`)
    if (this.request.rate === undefined) return this.#holdsUpTo(last, 'the end')
    for (const topic of this.#topics()) {
      const newest = this.model.log.findLast(event => event.topic === topic)
      if (!newest || !isAfter(newest, this.#start) || this.#over(newest)) continue
      const got = this.#newest.get(topic)
      if (!got || comparePositions(got, newest.id) !== 0)
        throw new Error(`ends without the newest of ${topic}, ${text(newest.id)}`)
    }
  }

  protected override read(frame: Frame): void {
    if (frame.event === 'cursor' && this.#reached) this.#readKeepAlive(frame)
    else if (frame.event === 'cursor') this.#readCursor(frame)
    else if (frame.event === 'gap') this.#readGap(JSON.parse(frame.data!) as Gap)
    else if (!this.#reached) throw new Error(`before the cursor event: ${JSON.stringify(frame)}`)
    else if (frame.event === 'heartbeat') this.#readHeartbeat(frame)
    else if (frame.event === 'goodbye') return
    else if (frame.event === 'stale') this.#truthOf(this.cursor(frame.id), `stale at ${frame.id}`)
    else this.#readEvent(frame)
  }

  #readCursor({ id, data, retry }: Frame): void {
    if (retry === undefined || data !== JSON.stringify({ cursor: id }))
      throw new Error(`a wrong cursor event: ${id} ${data}`)
    const start = this.cursor(id)
    this.#checkStart(start, id!)
    this.#start = start
    this.#reached = start
  }

  #checkStart(start: Cursor, id: string): void {
    const { after, rewind, since, rate } = this.request
    const { birth, settings } = this.model
    const { position, stored } = this.#asked
    const { last, latest } = this.#opened
    if (!covers(start, this.#asked.birth) && !after)
      throw new Error(`starts at ${id}, before the birth of the store`)
    if (!after || this.#unknown) {
      if (!covers(last, start)) throw new Error(`starts at ${id}, in the future`)
      if (after || (!rewind && since === undefined)) {
        if (!covers(start, position))
          throw new Error(`a fresh start at ${id}, before ${formatCursor(position)}`)
        return
      }
    }
    if (after) {
      if (this.#unknown) return
      const own = this.#ownShards()
      const theirs = this.cursor(after)
      if (
        own.length === start.length
          ? id !== after
          : own.some(shard => comparePositions(start[shard]!, theirs[shard]!))
      )
        throw new Error(`starts at ${id} and not at its own cursor ${after}`)
      const isOlder = (than: number) => own.some(shard => start[shard]!.ms < than - settings.RING_TTL)
      if (!covers(last, start)) throw new Error(`took ${after}, which is from the future`)
      const isOfAnother = own.some(shard => comparePositions(start[shard]!, birth[shard]!) < 0)
      if (isOfAnother && !isOlder(latest)) throw new Error(`took ${after}, which is of another life`)
      this.#mustTellOld = isOlder(Math.max(...position.map(({ ms }) => ms))) && rate === undefined
      return
    }
    for (const event of this.model.log.slice(0, stored)) {
      if (!this.#wants(event.topic) || isAfter(event, start) || this.#over(event)) continue
      // of what is about to go, `since` need not bring the last
      const held = event.id.ms >= latest - settings.RING_TTL * 0.99
      const asked = rewind
        ? this.#isOfLast(event, rewind, this.#opened.stored)
        : held && event.id.ms >= since!
      if (asked) throw new Error(`starts at ${id}, after ${text(event.id)}, which was asked for`)
    }
    if (!rewind && start.some(({ ms }, shard) => ms < Math.min(since! - 1, position[shard]!.ms)))
      throw new Error(`starts at ${id}, before ${since}`)
  }

  #readGap({ reason, topics, after }: Gap): void {
    this.#fresh()
    if (reason === 'unknown' && this.#reached) {
      const cursor = this.cursor(after)
      this.#truthOf(cursor, `a gap after ${after}`)
      this.#mustTellOld = false
      if (covers(cursor, this.model.birth)) throw new Error(`${after} is not unknown`)
      if (topics.join() !== this.#filters) throw new Error(`an unknown gap of ${topics.join()}`)
      this.#restarted = furthest(this.model.position, this.model.birth)
      return
    }
    if (reason === 'unknown') {
      if (this.frames > 1 || after !== this.request.after?.slice(0, 128))
        throw new Error(`an unknown gap out of place, after ${after}`)
      if (topics.join() !== this.#filters) throw new Error(`an unknown gap of ${topics.join()}`)
      const cursor = parseCursor(after, this.model.shards)
      const isOut = (shard: number) =>
        comparePositions(cursor![shard]!, this.#asked.last[shard]!) > 0 ||
        comparePositions(cursor![shard]!, this.model.birth[shard]!) < 0
      if (cursor && !this.#ownShards().some(isOut)) throw new Error(`${after} is not unknown`)
      this.#unknown = true
      if (this.request.poll) for (const topic of this.#topics()) this.#gapped.add(topic)
      return
    }
    if (reason !== 'expired') throw new Error(`nothing was ${reason}`)
    if (this.request.rate !== undefined) throw new Error('a conflated reader was told of a gap')
    const cursor = this.cursor(after)
    // the client's own is told back as it was sent, shards of no concern included
    if (after !== this.request.after) this.#truthOf(cursor, `a gap after ${after}`)
    this.#mustTellOld = false
    const old = cursor.some(({ ms }) => ms < this.model.latest - this.model.settings.RING_TTL)
    for (const named of topics) {
      const lost = this.model.log.some(
        event =>
          (fits(named, event.topic) || this.model.forgetful) &&
          isAfter(event, cursor) &&
          this.model.gone(event)
      )
      if (!lost && !old) throw new Error(`a gap of ${named} after ${after}, but nothing is gone`)
      const concerned = this.#topics().filter(topic => fits(named, topic))
      if (concerned.length === 0 && !this.request.filters.includes(named))
        throw new Error(`a gap of ${named}, which was not asked for`)
      for (const topic of concerned) this.#gapped.add(topic)
    }
  }

  #readHeartbeat({ id, data }: Frame): void {
    const { cursor } = JSON.parse(data!) as { cursor: string }
    if (id !== cursor) throw new Error(`a heartbeat at ${cursor} has the id ${id}`)
    this.#fresh()
    this.#truthOf(this.cursor(cursor), `a heartbeat at ${cursor}`)
  }

  #readKeepAlive({ id, data, retry }: Frame): void {
    if (retry !== undefined || data !== JSON.stringify({ cursor: id }))
      throw new Error(`a wrong cursor event: ${id} ${data}`)
    const cursor = this.cursor(id)
    this.#fresh()
    this.#truthOf(cursor, `a heartbeat at ${id}`)
    this.#reached = cursor
  }

  #readEvent({ id, data }: Frame): void {
    this.#fresh()
    const at = this.cursor(id)
    // with several shards the id is a position in all of them, so that the data says which event it is
    const event = this.model.log.find(
      ({ id, shard, data: stored }) =>
        comparePositions(id, at[shard]!) === 0 && stored === dataOf(data!, this.request.enveloped)
    )
    if (!event) throw new Error(`${id} was never stored`)
    const envelope = this.request.enveloped
      ? (JSON.parse(data!) as { id: string; topic: string; data: unknown })
      : undefined
    const told = envelope ? JSON.stringify(envelope.data) : data
    if (told !== event.data) throw new Error(`${id} has the data ${told} and not ${event.data}`)
    if (envelope && (envelope.id !== id || envelope.topic !== event.topic))
      throw new Error(`a wrong envelope: ${data}`)
    if (!this.#wants(event.topic)) throw new Error(`${id} of ${event.topic} was not asked for`)
    if (isEphemeral(event) && this.request.poll) throw new Error(`${id} is for nobody who polls`)
    if (!isAfter(event, this.#reached!) || !covers(at, this.#reached!))
      throw new Error(`${id} comes after ${formatCursor(this.#reached!)}: twice, or out of order`)
    // a conflated one may still wait to be written live
    const replayed = !isAfter(event, this.#opened.position) && this.request.rate === undefined
    if (
      replayed &&
      !this.model.steppedBack &&
      event.expires !== undefined &&
      event.expires <= this.#opened.now
    ) {
      throw new Error(`${id} had run out`)
    }
    const { rewind, after } = this.request
    if (
      rewind &&
      !after &&
      !isAfter(event, this.#asked.position) &&
      !this.#isOfLast(event, rewind, this.#asked.stored, this.#opened.latest)
    ) {
      throw new Error(`${id} is not of the last ${rewind}`)
    }
    if (this.request.rate === undefined) this.#holdsUpTo(at, `event ${id}`, event)
    else this.#truthOfNewest(at, `event ${id}`, event)
    this.#reached = at
    this.delivered++
    if (!this.request.poll) this.#gapped.delete(event.topic)
    if (this.request.rate !== undefined) this.#checkRate(event, this.request.rate)
  }

  #fresh(): void {
    if (this.#unknown && !this.#reached) throw new Error('something between the unknown gap and the cursor')
  }

  #truthOf(cursor: Cursor, what: string): void {
    if (this.request.poll && what.startsWith('a gap')) return
    if (!this.#reached) throw new Error(`${what}, before the cursor event`)
    if (!covers(cursor, this.#reached)) throw new Error(`${what} lies before ${formatCursor(this.#reached)}`)
    if (this.request.rate === undefined) this.#holdsUpTo(cursor, what)
    else this.#truthOfNewest(cursor, what)
  }

  /** Every event up to there has arrived, but for `arriving`, or is known to be lost. */
  #holdsUpTo(cursor: Cursor, what: string, arriving?: Logged): void {
    if (this.#asksForAll && !covers(this.#start, cursor)) {
      this.#asksForAll = false
      this.#forgiveGone()
    }
    if (this.#mustTellOld && !what.startsWith('a gap'))
      throw new Error(`${what}, but no gap for a cursor older than any ring`)
    for (const event of this.model.log) {
      if (event === arriving || !isAfter(event, this.#reached!) || isAfter(event, cursor)) continue
      if (!this.#wants(event.topic) || this.#ranOut(event) || this.#passedOver(event)) continue
      if (this.#restarted && !isAfter(event, this.#restarted)) continue
      if (this.#gapped.has(event.topic) && this.model.gone(event)) continue
      throw new Error(`${what}, but ${text(event.id)} of ${event.topic} has not come, and no gap`)
    }
  }

  /** Of every topic the newest event up to there has arrived, or a newer one will. */
  #truthOfNewest(cursor: Cursor, what: string, arriving?: Logged): void {
    for (const topic of this.#topics()) {
      const newest = this.model.log.findLast(event => event.topic === topic)
      if (!newest || newest === arriving || isAfter(newest, cursor) || !isAfter(newest, this.#start)) continue
      if (this.#over(newest) || this.#passedOver(newest)) continue
      const got = this.#newest.get(topic)
      if (!got || comparePositions(got, newest.id) < 0)
        throw new Error(`${what}, but the newest of ${topic}, ${text(newest.id)}, has not come`)
    }
  }

  #checkRate({ id, topic }: Logged, rate: number): void {
    this.#newest.set(topic, id)
    const times = this.#times.get(topic) ?? []
    this.#times.set(topic, times)
    const now = this.model.now
    times.push(now)
    const second = times.filter(time => time > now - 1000).length
    if (second > rate && !this.model.steppedBack)
      throw new Error(`${second} events of ${topic} within a second, at a rate of ${rate}`)
  }

  #forgiveGone(): void {
    for (const event of this.model.log) if (this.model.gone(event)) this.#goneBefore.add(event)
  }

  #ranOut({ expires = Infinity }: Logged): boolean {
    return expires <= this.model.latest
  }

  #over(event: Logged): boolean {
    if (this.#restarted && !isAfter(event, this.#restarted)) return true
    return this.#ranOut(event) || this.model.gone(event)
  }

  /** Whether `rewind` or `since` need not bring it: it was not among the last ones of its topic, or not held, at the start. */
  #passedOver(event: Logged): boolean {
    const { rewind, after } = this.request
    if (this.#goneBefore.has(event)) return true
    return !!rewind && !after && !this.#isOfLast(event, rewind, this.#opened.stored)
  }

  /**
   * Whether an event is among the last ones of its topic, when so many events were stored; of those that had not run out by
   * a time.
   */
  #isOfLast(event: Logged, count: number, stored: number, time = -Infinity): boolean {
    const later = this.model.log
      .slice(0, stored)
      .filter(({ topic, id }) => topic === event.topic && comparePositions(id, event.id) > 0)
      .filter(({ expires = Infinity }) => expires > time)
    return later.length < count
  }

  get #filters(): string {
    return [...new Set(this.request.filters)].sort().join()
  }

  /** The shards that its topics can be in. */
  #ownShards(): number[] {
    const { filters } = this.request
    if (filters.some(isWildcard)) return this.model.birth.map((_, shard) => shard)
    return [...new Set(filters.map(filter => this.model.shardOf(filter)))]
  }

  #topics(): string[] {
    return this.model.topics.filter(topic => this.#wants(topic))
  }

  #wants(topic: string): boolean {
    return this.request.filters.some(filter => fits(filter, topic))
  }
}

interface Gap {
  reason: string
  topics: string[]
  after: string
}

/** The data of an event, as it was published. */
function dataOf(data: string, enveloped: boolean): string {
  return enveloped ? JSON.stringify((JSON.parse(data) as { data: unknown }).data) : data
}

/** Whether a filter covers a topic. */
function fits(filter: string, topic: string): boolean {
  if (filter === topic) return true
  if (filter === '*') return !topic.includes('/')
  return (
    filter.endsWith('/*') &&
    topic.startsWith(filter.slice(0, -1)) &&
    !topic.slice(filter.length - 1).includes('/')
  )
}

/** Whether an event comes after a cursor. */
export function isAfter({ id, shard }: Logged, cursor: Cursor): boolean {
  return comparePositions(id, cursor[shard]!) > 0
}

function text({ ms, seq }: Position): string {
  return `${ms}-${seq}`
}
