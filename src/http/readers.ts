import { Unwanted, type Asker } from '../asker.ts'
import { BrokerUnavailable } from '../broker/unavailable.ts'
import type { Clock } from '../clock.ts'
import type { Settings } from '../config.ts'
import { formatCursor, type Cursor } from '../event.ts'
import type { Place } from '../hub/connections.ts'
import type { Hub, Subscription } from '../hub/hub.ts'
import type { Session } from '../hub/session.ts'
import { MemoryFull } from '../memory.ts'
import type { Metrics } from '../metrics.ts'
import type { Answers } from '../net/answers.ts'
import { Denied, Problem } from '../problem.ts'
import type { Format, GoodbyeReason } from '../wire/format.ts'
import { gzipped, type Packing } from '../wire/packing.ts'
import { page } from '../wire/page.ts'
import { sse } from '../wire/sse.ts'
import { Farewells } from './farewells.ts'
import type { Excess, Limits } from './limits.ts'
import type { TurnedAway } from './turned-away.ts'
import { isFresh, type Caller, type ReadType, type Wish } from './wish.ts'

/** What serving readers takes. */
export interface ReadersOptions {
  hub: Hub
  metrics: Metrics
  clock: Clock
  settings: Pick<Settings, 'MAX_PAGE_BYTES' | 'MAX_TURNED_AWAY' | 'STALL_TIMEOUT'>
  turnedAway: Pick<TurnedAway, 'count'>
  limits: Pick<Limits, 'connect' | 'read'>
  /** What bounds the answers that are no streams. */
  answers: Pick<Answers, 'most' | 'mostBy'>
  /** Why no new connection can be served now; null when one can. */
  refusal(): GoodbyeReason | null
  /** The same for one that has its place. */
  closed(): GoodbyeReason | null
}

type Headers = Readonly<Record<string, string>>

/** The answer to a reader, whatever carries it. It asks on behalf of who takes it. */
export interface Answer extends Asker {
  /** How the bytes of a stream must be packed. */
  readonly packing: Packing
  /** Says these headers of whatever is answered, and the cursor that it starts from or goes up to. */
  head(headers: Headers, cursor?: string): void
  /** Releases a place once the last byte of the answer has left, or nobody takes it any more. */
  keep(place: Place): void
  /** Answers that there is nothing, and nothing will come. What it gives back is for the framework. */
  nothing(): unknown
  /**
   * Answers with this text, or with the head alone; `sent` is told how many bytes that is, as it goes out. What it gives back
   * is for the framework.
   */
  send(text?: string, sent?: (bytes: number) => void): unknown
  /** Answers with a stream, which a session writes, these frames first. */
  stream(session: Session, stallTimeout: number, preface: readonly Buffer[]): void
  /** Answers with a stream of these bytes alone; what it gives back ends that. */
  farewell(bytes: Buffer): () => void
  /** Leaves without an answer. */
  leave(): void
  /** Until `offClose` the listener is told once when the connection has closed. */
  onClose(listener: () => void): void
  offClose(listener: () => void): void
}

/** What is special about reading a feed. Each may reject with `Unwanted` once its reader has gone. */
export interface ReadSpecial {
  /** Where a stream starts that the client gave no start. */
  readonly fresh?: Pick<Subscription, 'rewind'>
  /** Begins with the state of the one topic. */
  readonly snapshot?: boolean
  /** What a stream begins with, once its start is known: frames. Rejects with `BrokerUnavailable`. */
  preface?(format: Format, start: Cursor, isFresh: boolean, asker: Asker): Promise<Buffer[]>
  /** Whether a stream can be had. Rejects with a `Problem` where there is nothing to read. */
  check?(asker: Asker): Promise<void>
  /** What JSON is answered instead of a page of events. Rejects as `check`, and with `BrokerUnavailable`. */
  document?(asker: Asker): Promise<JsonDocument>
}

/** JSON text in parts, and a cursor to go on from. */
export interface JsonDocument {
  readonly parts: readonly string[]
  readonly cursor: string
  readonly etag?: string
}

const NOTHING = Buffer.alloc(0)

/** Serves readers of any topics: as a stream of SSE or ndjson, or page by page. Section 3 of the contract. */
export class Readers {
  readonly #options: ReadersOptions
  readonly #farewells: Farewells

  constructor(options: ReadersOptions) {
    this.#options = options
    this.#farewells = new Farewells(options.clock, options.settings.MAX_TURNED_AWAY)
  }

  /**
   * Answers a reader. Gives back what the framework is to be given. Throws a `Problem` for whoever is turned away and can
   * be told so by a status.
   */
  async serve(wish: Wish, answer: Answer, special: ReadSpecial = {}): Promise<unknown> {
    try {
      if (wish.type === 'application/json') return await this.#serveOnce(wish, answer, special)
      await this.#serveStream(wish, answer, special)
    } catch (error) {
      // nobody waits for an answer any more
      if (!(error instanceof Unwanted)) throw error
      answer.leave()
    }
  }

  async #serveStream(wish: Wish, answer: Answer, special: ReadSpecial): Promise<unknown> {
    if (special.check) await special.check(answer)
    const place = this.#takePlace(wish, answer)
    const session = place && (await this.#open(wish, answer, special, place))
    if (!session) return
    const cursor = formatCursor(session.cursor)
    if (this.#options.hub.isOver(session)) return sendNothing(answer, session, cursor)
    if (wish.isHead) return sendHead(wish, answer, session, cursor)
    const preface = special.preface ? await this.#preface(session, special, isFresh(wish), answer) : []
    if (!preface) return this.turnAway(wish, answer, 'unavailable')
    // the preface may have taken its time
    if (!this.#canBegin(session, wish, answer)) return
    answer.head(headOf(wish), cursor)
    answer.stream(session, this.#options.settings.STALL_TIMEOUT, preface)
  }

  /** Answers with a page or a document, which has its place until its last byte has left. */
  async #serveOnce(wish: Wish, answer: Answer, special: ReadSpecial): Promise<unknown> {
    this.#options.limits.read(wish.client)
    const place = this.#takePlace(wish, answer, special)
    if (!place) return
    answer.keep(place)
    if (special.document) return this.#sendDocument(answer, await special.document(answer))
    const session = await this.#open(wish, answer, special)
    if (!session) return
    const cursor = formatCursor(session.cursor)
    return wish.isHead
      ? sendHead(wish, answer, session, cursor)
      : this.#sendPage(wish, answer, session, cursor)
  }

  /** Null for a reader who was turned away. A document opens nothing, so that a server that is full has it as well. */
  #takePlace(wish: Wish, answer: Answer, { document }: ReadSpecial = {}): Place | null {
    const { hub, limits, refusal } = this.#options
    const reason = document ? null : refusal()
    if (reason) return this.#turnAway(wish, answer, reason)
    const full = wish.format.delivers ? hub.fullOf(wish.filters) : null
    if (full) return this.#turnAway(wish, answer, { limit: 'topic_subscribers', detail: full })
    const place = limits.connect(wish.client, wish.format.delivers)
    return 'limit' in place ? this.#turnAway(wish, answer, place) : place
  }

  /** Null for a reader who was turned away, or has gone. */
  async #open(
    wish: Wish,
    answer: Answer,
    { fresh, snapshot }: ReadSpecial,
    place?: Place
  ): Promise<Session | null> {
    try {
      const session = await this.#options.hub.open(
        {
          filters: wish.filters,
          format: wish.format,
          packing: wish.isCompressed ? gzipped(answer.packing) : answer.packing,
          rate: wish.rate,
          heartbeat: wish.heartbeat,
          snapshot,
          after: wish.after,
          rewind: fresh && isFresh(wish) ? fresh.rewind : wish.rewind,
          since: wish.since,
          expires: wish.expires,
          client: wish.from,
          brief: wish.isHead || (wish.type === 'application/json' && wish.wait === 0),
          place
        },
        answer
      )
      return this.#canBegin(session, wish, answer) ? session : null
    } catch (error) {
      if (answer.isGone) {
        answer.leave()
        return null
      }
      if (error instanceof BrokerUnavailable || (error instanceof MemoryFull && wish.needsStream))
        return this.#turnAway(wish, answer, 'unavailable')
      throw error
    }
  }

  /**
   * Whether a session that has not begun still can. Otherwise its reader is answered here: a drain may not know it, its
   * time may have run out, or nobody may be there any more.
   */
  #canBegin(session: Session, wish: Wish, answer: Answer): boolean {
    const reason = this.#endOf(session)
    if (reason) {
      session.close(reason)
      this.turnAway(wish, answer, reason)
      return false
    }
    if (!answer.isGone) return true
    answer.leave()
    session.close('client')
    return false
  }

  #endOf({ state, expires }: Session): GoodbyeReason | null {
    const isOver = expires <= this.#options.clock.now()
    return this.#options.closed() ?? (isOver ? 'expired' : state === 'closed' ? 'shutdown' : null)
  }

  /** Null when the broker doesn't answer; the session is closed then. */
  async #preface(
    session: Session,
    special: ReadSpecial,
    fresh: boolean,
    asker: Asker
  ): Promise<Buffer[] | null> {
    try {
      return await special.preface!(session.format, session.cursor, fresh, asker)
    } catch (error) {
      session.close(asker.isGone ? 'client' : 'unavailable')
      if (error instanceof BrokerUnavailable) return null
      throw error
    }
  }

  /** One page; with `wait`, held until there is something or the time is over. */
  async #sendPage(
    { type, limit, wait }: Wish,
    answer: Answer,
    session: Session,
    cursor: string
  ): Promise<unknown> {
    const { hub, metrics } = this.#options
    const read = () => hub.read(session, limit, this.#pageBytes)
    answer.head(HEADS[type], cursor)
    const onClose = () => session.close('client')
    answer.onClose(onClose)
    try {
      let reading = await read()
      const isEmpty = reading.events.length === 0 && !reading.gap
      // it may have been ended while it was read for
      if (wait > 0 && isEmpty && !reading.ended && !isClosed(session)) {
        await hub.wait(session, wait)
        if (!isClosed(session)) reading = await read()
      }
      const events = reading.events.map(({ event, cursor }) => ({ event, id: formatCursor(cursor) }))
      const body = page(events, { ...reading, cursor: formatCursor(reading.cursor) })
      metrics.eventsDelivered.inc({ transport: 'poll' }, events.length)
      return answer.send(body, bytes => metrics.bytesSent.inc({ transport: 'poll' }, bytes))
    } finally {
      answer.offClose(onClose)
      session.close('answered')
    }
  }

  /** As text an event may be some times as long as its data. */
  get #pageBytes(): number {
    const { answers, settings } = this.#options
    return Math.max(1, Math.min(settings.MAX_PAGE_BYTES, answers.most / 8))
  }

  /** A document has no pages: one that is too large can't be had. */
  #sendDocument(answer: Answer, { parts, cursor, etag }: JsonDocument): unknown {
    const { most, mostBy } = this.#options.answers
    const bytes = parts.reduce((sum, part) => sum + Buffer.byteLength(part), 0)
    if (bytes > most) throw tooLarge(bytes, most, mostBy)
    if (etag !== undefined) answer.head({ etag })
    answer.head(HEADS['application/json'], cursor)
    return answer.send(parts.join(''))
  }

  /** The server closes: nobody who was turned away is kept any longer. */
  close(): void {
    this.#farewells.close()
  }

  #turnAway(caller: Caller, answer: Answer, refusal: GoodbyeReason | Excess): null {
    this.turnAway(caller, answer, refusal)
    return null
  }

  /**
   * Any status but 200 ends an EventSource for good. So one that can't be served now is told so in a stream, keeps its
   * cursor and comes back; every other client gets a 503, or a 429 for a limit of its own, by the `Problem` that is thrown.
   */
  turnAway(caller: Caller, answer: Answer, refusal: GoodbyeReason | Excess): void {
    const { hub, turnedAway } = this.#options
    const excess = typeof refusal === 'string' ? null : refusal
    const reason = typeof refusal === 'string' ? refusal : 'full'
    turnedAway.count(excess?.limit ?? reason)
    const retry = hub.connections.spread(excess?.window)
    if (!caller.needsStream) throw rejection(reason, excess, Math.ceil(retry / 1000))
    const frames = farewellOf(caller.after, reason, retry)
    answer.head(HEADS['text/event-stream'])
    const end = answer.farewell(caller.isHead ? NOTHING : answer.packing.pack(frames).bytes)
    if (caller.isHead) end()
    else this.#farewells.add(end)
  }
}

/** A document is larger than an answer may be; `by`: the setting that says so, if one does. */
export function tooLarge(bytes: number, most: number, by: string | undefined): Problem {
  const setting = by === undefined ? '' : ` (${by})`
  return new Problem('refused', `this is ${bytes} bytes; at most ${most} can be read at once${setting}`)
}

function isClosed({ state }: Session): boolean {
  return state === 'closed'
}

/** How whoever is turned away is told so by a status. */
function rejection(reason: GoodbyeReason, excess: Excess | null, retryAfter: number): Problem {
  // what all have of it together is none of its own limits
  const kind = excess?.limit === 'topic_subscribers' ? 'unavailable' : 'too many'
  if (excess) return new Problem(kind, excess.detail, [], retryAfter)
  if (reason === 'expired') return new Denied('expired', 'the token has run out')
  const why = { full: 'all connections are taken', shutdown: 'the server is stopping' }[reason as string]
  return new Problem('unavailable', why ?? 'the broker does not answer', [], retryAfter)
}

/** How it is told in a stream: its own cursor again, and why. */
function farewellOf(after: string | undefined, reason: GoodbyeReason, retry: number): Buffer[] {
  const format = sse(false)
  // an id must not break out of its line; a cursor that isn't one is better not repeated
  if (!after || !/^[\w.~-]{1,128}$/.test(after)) return [format.goodbye(reason, retry)]
  return [format.open(after, retry), format.goodbye(reason, retry, after)]
}

function sendHead(wish: Wish, answer: Answer, session: Session, cursor: string): unknown {
  session.close('client')
  answer.head(headOf(wish), cursor)
  return answer.send()
}

/** All topics have ended, and the reader has had it all: a 204 tells an EventSource not to come back. */
function sendNothing(answer: Answer, session: Session, cursor: string): unknown {
  session.close('ended')
  answer.head({ 'cache-control': 'no-cache' }, cursor)
  return answer.nothing()
}

/** What the head says. A stream has no `Content-Length`: it ends when the connection does. */
const STREAM_HEAD = { 'cache-control': 'no-cache, no-transform', 'x-accel-buffering': 'no' }
const HEADS: Record<ReadType, Headers> = {
  'text/event-stream': { 'content-type': 'text/event-stream; charset=utf-8', ...STREAM_HEAD },
  'application/x-ndjson': { 'content-type': 'application/x-ndjson; charset=utf-8', ...STREAM_HEAD },
  'application/json': { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-cache' }
}

function headOf({ type, isCompressed }: Wish): Headers {
  return isCompressed ? { ...HEADS[type], 'content-encoding': 'gzip' } : HEADS[type]
}
