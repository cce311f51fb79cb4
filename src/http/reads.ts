import type { FastifyReply } from 'fastify'
import { BrokerUnavailable } from '../broker/unavailable.ts'
import type { Clock } from '../clock.ts'
import type { Settings } from '../config.ts'
import { formatCursor, type Cursor } from '../event.ts'
import type { Hub, Subscription } from '../hub/hub.ts'
import type { Session } from '../hub/session.ts'
import type { StartingPoint } from '../hub/start.ts'
import type { Metrics } from '../metrics.ts'
import { Denied, Problem } from '../problem.ts'
import type { Format, GoodbyeReason } from '../wire/format.ts'
import { ndjson } from '../wire/ndjson.ts'
import { page, wakeUp } from '../wire/page.ts'
import { sse } from '../wire/sse.ts'
import { namesStream, requireSubscribe } from './access.ts'
import { isGone, openConnection, packingOf } from '../net/connection.ts'
import type { Excess, Limits } from './limits.ts'
import { readCursor, readStart, type ReadRequest } from './subscription.ts'

/** What serving readers takes. */
export interface ReadsOptions {
  hub: Hub
  metrics: Metrics
  clock: Clock
  settings: Pick<Settings, 'STALL_TIMEOUT'>
  limits: Limits
  /** Why no new connection can be served now; null when one can. */
  refusal(): GoodbyeReason | null
  /** The same for one that has its place. */
  closed(): GoodbyeReason | null
}

/** What is special about reading a feed. */
export interface ReadSpecial {
  /** Where a stream starts that the client gave no start. */
  readonly fresh?: Pick<Subscription, 'rewind'>
  /** Begins with the state of the one topic. */
  readonly snapshot?: boolean
  /** What a stream begins with, once its start is known: frames. Rejects with `BrokerUnavailable`. */
  preface?(format: Format, start: Cursor, isFresh: boolean): Promise<Buffer[]>
  /** What JSON is answered instead of a page of events: JSON text, and a cursor to go on from. */
  document?(): Promise<{ text: string; cursor: string; etag?: string }>
}

/** How a reader is answered: the types that `Accept` chooses from, the first when it leaves the choice. */
const TYPES = ['text/event-stream', 'application/x-ndjson', 'application/json'] as const
type ReadType = (typeof TYPES)[number]

const DEFAULT_LIMIT = 100

/** Serves readers of any topics: as a stream of SSE or ndjson, or page by page. Section 3 of the contract. */
export class Reads {
  readonly #options: ReadsOptions

  constructor(options: ReadsOptions) {
    this.#options = options
  }

  /** Answers a request to read what these filters cover. Throws `Denied` unless the client may. */
  async serve(
    request: ReadRequest,
    reply: FastifyReply,
    filters: readonly string[],
    special: ReadSpecial = {}
  ): Promise<unknown> {
    const { limits, refusal, settings } = this.#options
    requireSubscribe(request.grant, filters)
    const type = negotiate(request, reply)
    if (type === 'application/json' && special.document)
      return this.#answerDocument(reply, await special.document())
    const format = formatOf(type, request.query.envelope ?? false)
    const start = readStart(request, this.#options.clock)
    const refused = refusal()
    if (refused) return this.turnAway(request, reply, refused)
    const place = limits.connect(limits.clientOf(request), format.delivers)
    if ('limit' in place) return this.turnAway(request, reply, place)
    const session = await this.#open({
      ...this.#subscription(request, filters, format, start, special),
      ...{ packing: packingOf(reply), place }
    })
    if (!session) return this.turnAway(request, reply, 'unavailable')
    const head = headOf(type, formatCursor(session.cursor))
    const late = this.#ended(session)
    if (late) return this.#refuse(request, reply, session, late)
    if (request.method === 'HEAD') {
      session.close('client')
      return reply.headers(head).send()
    }
    if (isGone(reply)) return this.#leave(reply, session)
    if (type === 'application/json') return this.#answerPage(request, reply.headers(head), session)
    const preface = await this.#preface(session, special, isFresh(start))
    if (!preface) return this.turnAway(request, reply, 'unavailable')
    const tooLate = this.#ended(session)
    if (tooLate) return this.#refuse(request, reply, session, tooLate)
    if (isGone(reply)) return this.#leave(reply, session)
    const { socket } = reply.raw
    socket?.cork() // head and first events in one packet
    openConnection(reply.headers(head)).serve(session, settings.STALL_TIMEOUT, preface)
    socket?.uncork()
  }

  #subscription(
    request: ReadRequest,
    filters: readonly string[],
    format: Format,
    start: StartingPoint,
    { fresh, snapshot }: ReadSpecial
  ): Omit<Subscription, 'packing'> {
    const { rate, heartbeat } = request.query
    return {
      filters,
      format,
      rate,
      expires: request.grant.expires,
      heartbeat: heartbeat === undefined || !format.delivers ? undefined : heartbeat * 1000,
      ...(snapshot && { snapshot }),
      ...start,
      ...(isFresh(start) && fresh)
    }
  }

  /** Null when the broker doesn't answer; the session is closed then. */
  async #preface(session: Session, special: ReadSpecial, fresh: boolean): Promise<Buffer[] | null> {
    if (!special.preface) return []
    try {
      return await special.preface(session.format, session.cursor, fresh)
    } catch (error) {
      session.close('unavailable')
      if (error instanceof BrokerUnavailable) return null
      throw error
    }
  }

  #answerDocument(
    reply: FastifyReply,
    { text, cursor, etag }: { text: string; cursor: string; etag?: string }
  ) {
    if (etag !== undefined) reply.header('etag', etag)
    return reply.headers(headOf('application/json', cursor)).send(text)
  }

  async #open(subscription: Subscription): Promise<Session | null> {
    try {
      return await this.#options.hub.open(subscription)
    } catch (error) {
      if (error instanceof BrokerUnavailable) return null
      throw error
    }
  }

  /** One page; with `wait`, held until there is something or the time is over. */
  async #answerPage(request: ReadRequest, reply: FastifyReply, session: Session): Promise<unknown> {
    const { hub, metrics } = this.#options
    const { limit = DEFAULT_LIMIT, wait = 0 } = request.query
    const onClose = () => session.close('client')
    request.raw.socket.once('close', onClose)
    try {
      let reading = await hub.read(session, limit)
      if (wait > 0 && reading.events.length === 0 && !reading.gap) {
        await hub.wait(session, wait * 1000)
        if (session.state !== 'closed') reading = await hub.read(session, limit)
      }
      const events = reading.events.map(({ event, cursor }) => ({ event, id: formatCursor(cursor) }))
      const body = page(events, formatCursor(reading.cursor), reading.gap, reading.more)
      metrics.eventsDelivered.inc({ transport: 'poll' }, events.length)
      metrics.bytesSent.inc({ transport: 'poll' }, Buffer.byteLength(body))
      return reply.send(body)
    } finally {
      request.raw.socket.off('close', onClose)
      session.close('answered')
    }
  }

  /** Why a session that has not begun can't begin any more: a drain may not know it, or its time has run out. */
  #ended({ state, expires }: Session): GoodbyeReason | null {
    const isOver = expires <= this.#options.clock.now()
    return this.#options.closed() ?? (isOver ? 'expired' : state === 'closed' ? 'shutdown' : null)
  }

  #refuse(request: ReadRequest, reply: FastifyReply, session: Session, reason: GoodbyeReason): void {
    session.close(reason)
    this.turnAway(request, reply, reason)
  }

  /** Whoever has gone needs no answer. */
  #leave(reply: FastifyReply, session: Session): void {
    reply.hijack()
    session.close('client')
    reply.raw.destroy() // of a peer that has only ended its side
  }

  /**
   * Any status but 200 ends an EventSource for good. One that can't be served now is told so in a stream, keeps its
   * cursor and comes back; every other client gets a 503, or a 429 for a limit of its own.
   */
  turnAway(request: ReadRequest, reply: FastifyReply, refusal: GoodbyeReason | Excess): void {
    const { hub, metrics } = this.#options
    const excess = typeof refusal === 'string' ? null : refusal
    const reason = typeof refusal === 'string' ? refusal : 'full'
    metrics.connectionsRejected.inc({ reason: excess?.limit ?? reason })
    const retry = hub.connections.spread(excess?.window)
    if (!namesStream(request.headers.accept)) {
      const retryAfter = Math.ceil(retry / 1000)
      if (excess) throw new Problem('too many', excess.detail, [], retryAfter)
      if (reason === 'expired') throw new Denied('expired', 'the token has run out')
      const why = { full: 'all connections are taken', shutdown: 'the server is stopping' }[reason as string]
      throw new Problem('unavailable', why ?? 'the broker does not answer', [], retryAfter)
    }
    const after = readCursor(request)
    const format = sse(false)
    const packing = packingOf(reply)
    // an id must not break out of its line; a cursor that isn't one is better not repeated
    const cursor = after && /^[\w.~-]{1,128}$/.test(after) ? [format.open(after, retry)] : []
    const connection = openConnection(reply.headers(HEADS['text/event-stream']))
    if (request.method !== 'HEAD') connection.write(packing.pack([...cursor, format.goodbye(reason, retry)]))
    connection.end()
  }
}

/** Whether the client leaves it to us where it starts. */
function isFresh({ after, rewind, since }: StartingPoint): boolean {
  return after === undefined && rewind === undefined && since === undefined
}

function negotiate(request: ReadRequest, reply: FastifyReply): ReadType {
  reply.header('vary', [reply.getHeader('vary'), 'Accept'].flat().filter(Boolean).join(', '))
  const { accept } = request.headers
  // what an EventSource asks for needs no choice
  const type = accept === TYPES[0] ? accept : request.accepts().type([...TYPES])
  if (typeof type === 'string') return type as ReadType
  throw new Problem('not acceptable', `Accept: ${accept}: there is ${TYPES.join(', ')}`)
}

function formatOf(type: ReadType, enveloped: boolean): Format {
  if (type === 'application/json') return wakeUp
  return type === 'text/event-stream' ? sse(enveloped) : ndjson
}

/** What the head says. A stream has no `Content-Length`: it ends when the connection does. */
const STREAM_HEAD = { 'cache-control': 'no-cache, no-transform', 'x-accel-buffering': 'no' }
const HEADS: Record<ReadType, Record<string, string>> = {
  'text/event-stream': { 'content-type': 'text/event-stream; charset=utf-8', ...STREAM_HEAD },
  'application/x-ndjson': { 'content-type': 'application/x-ndjson; charset=utf-8', ...STREAM_HEAD },
  'application/json': { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-cache' }
}

function headOf(type: ReadType, cursor: string): Record<string, string> {
  return { 'ringside-cursor': cursor, ...HEADS[type] }
}
