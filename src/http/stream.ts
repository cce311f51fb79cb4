import accepts from '@fastify/accepts'
import { parse as parseDuration } from '@lukeed/ms'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type, type Static } from 'typebox'
import { BrokerUnavailable } from '../broker/broker.ts'
import type { Clock } from '../clock.ts'
import type { Settings } from '../config.ts'
import { formatCursor, isFilter } from '../event.ts'
import type { Hub, Subscription } from '../hub/hub.ts'
import type { Session } from '../hub/session.ts'
import type { Metrics } from '../metrics.ts'
import { Problem } from '../problem.ts'
import type { Framing, GoodbyeReason } from '../wire/format.ts'
import { sse } from '../wire/sse.ts'
import { framingOf, openConnection, takeStreams } from './connection.ts'

export interface StreamOptions {
  hub: Hub
  metrics: Metrics
  clock: Clock
  settings: Pick<Settings, 'MAX_TOPICS' | 'STALL_TIMEOUT'>
  /** The most streams at a time; `Infinity` for no limit. */
  maxConnections: number
  /** Why no new stream can be served now; null when one can. */
  closed(): GoodbyeReason | null
}

/** What a client may call its cursor in a query, besides `Last-Event-ID`; the first that is given counts. */
const CURSOR_NAMES = ['after', 'last_event_id', 'lastEventId', 'lastEventID', 'evs_last_event_id'] as const

// a cursor that can't be read is answered with a gap, never with a 400, so that its type is not checked
const Cursor = Type.Optional(
  Type.Unknown({ description: 'Start after this event id; the header Last-Event-ID wins' })
)

const Query = Type.Object({
  topic: Type.Optional(
    Type.Array(Type.String(), { description: 'A topic, or a wildcard such as tickers/*' })
  ),
  after: Cursor,
  last_event_id: Cursor,
  lastEventId: Cursor,
  lastEventID: Cursor,
  evs_last_event_id: Cursor,
  rewind: Type.Optional(
    Type.Integer({
      minimum: 0,
      maximum: 1000,
      description: 'Without a cursor: first the last N events of each topic'
    })
  ),
  since: Type.Optional(
    Type.String({
      description: 'Without a cursor: first everything since then; a duration such as 10m, or an ISO time'
    })
  ),
  rate: Type.Optional(
    Type.Number({
      minimum: 0.1,
      maximum: 100,
      description: 'At most so many events a second for each topic, the newest'
    })
  ),
  envelope: Type.Optional(
    Type.Boolean({ description: 'Whether the data of each event is the whole event as JSON' })
  ),
  heartbeat: Type.Optional(
    Type.Number({ minimum: 1, maximum: 300, description: 'A visible heartbeat every so many seconds' })
  )
})

const Params = Type.Object({ '*': Type.Optional(Type.String()) })

interface Route {
  Querystring: Static<typeof Query>
  Params: Static<typeof Params>
}

/** GET /events and GET /events/T: a stream of events. Section 3 of the contract. */
export const streamRoutes: FastifyPluginAsyncTypebox<StreamOptions> = async (app, options) => {
  const { hub, metrics, maxConnections } = options
  /** Streams whose start is being looked for. */
  let opening = 0
  await app.register(accepts)
  takeStreams(app)

  for (const url of ['/events', '/events/*']) {
    app.route<Route>({
      method: ['GET', 'HEAD'],
      url,
      schema: { querystring: Query, params: Params, tags: ['events'] },
      handler: serve
    })
  }

  async function serve(request: FastifyRequest<Route>, reply: FastifyReply): Promise<unknown> {
    reply.header('vary', [reply.getHeader('vary'), 'Accept'].flat().filter(Boolean).join(', '))
    if (!request.accepts().type(['text/event-stream'])) {
      throw new Problem(
        'not acceptable',
        `Accept: ${request.headers.accept}: the only type here is text/event-stream`
      )
    }
    const subscription = readSubscription(request, framingOf(reply), options)
    const turnedAway = hub.sessions.size + opening >= maxConnections ? 'full' : options.closed()
    if (turnedAway) return turnAway(request, reply, subscription, turnedAway)
    opening++
    const session = await hub
      .open(subscription)
      .catch(unlessUnavailable)
      .finally(() => opening--)
    if (!session) return turnAway(request, reply, subscription, 'unavailable')
    if (request.method === 'HEAD') {
      session.close('client')
      return reply.headers(headOf(session)).send()
    }
    if (session.state === 'closed')
      return turnAway(request, reply, subscription, options.closed() ?? 'shutdown')
    if (request.raw.destroyed || reply.raw.destroyed) {
      reply.hijack()
      return session.close('client')
    }
    const { socket } = reply.raw
    socket?.cork() // head and first events in one packet
    openConnection(reply, headOf(session)).serve(session, options.settings.STALL_TIMEOUT)
    socket?.uncork()
  }

  /**
   * Any status but 200 ends an EventSource for good. One that can't be served now is told so in a stream, keeps its
   * cursor and comes back; every other client gets a 503.
   */
  function turnAway(
    request: FastifyRequest,
    reply: FastifyReply,
    subscription: Subscription,
    reason: GoodbyeReason
  ): void {
    const { after, format } = subscription
    metrics.connectionsRejected.inc({ reason })
    const retry = hub.spread()
    if (!/\btext\/event-stream\b/i.test(request.headers.accept ?? '')) {
      const why = { full: 'all connections are taken', shutdown: 'the server is stopping' }[reason as string]
      throw new Problem('unavailable', why ?? 'the broker does not answer', [], Math.ceil(retry / 1000))
    }
    // an id must not break out of its line; a cursor that isn't one is better not repeated
    const cursor = after && /^[\w.~-]{1,128}$/.test(after) ? [format.open(after, retry)] : []
    const connection = openConnection(reply, STREAM_HEAD)
    if (request.method !== 'HEAD') connection.write(format.seal([...cursor, format.goodbye(reason, retry)]))
    connection.end()
  }
}

function readSubscription(
  request: FastifyRequest<Route>,
  framing: Framing,
  { clock, settings }: StreamOptions
): Subscription {
  const { query, params } = request
  const filters = [...(params['*'] ? [params['*']] : []), ...(query.topic ?? [])]
  if (filters.length === 0) throw malformed('topic', 'is required: what to subscribe to')
  if (filters.length > settings.MAX_TOPICS) {
    throw malformed('topic', `is given ${filters.length} times; at most ${settings.MAX_TOPICS} are allowed`)
  }
  for (const filter of filters) {
    if (!isFilter(filter))
      throw malformed('topic', `${JSON.stringify(filter)} is neither a topic nor a wildcard`)
  }
  const { rewind, rate, heartbeat, envelope = false } = query
  return {
    filters,
    format: sse(framing, envelope),
    after: readCursor(request),
    rewind,
    since: query.since === undefined ? undefined : readSince(query.since, clock),
    rate,
    heartbeat: heartbeat === undefined ? undefined : heartbeat * 1000
  }
}

function unlessUnavailable(error: unknown): null {
  if (error instanceof BrokerUnavailable) return null
  throw error
}

/** The header wins, because it is what a reconnecting EventSource sends. An empty one is none. */
function readCursor({ headers, query }: FastifyRequest<Route>): string | undefined {
  const given = [headers['last-event-id'], ...CURSOR_NAMES.map(name => query[name])].flat()
  return given.find((value): value is string => typeof value === 'string' && value !== '')
}

const DURATION = /^\d+(\.\d+)?(ms|s|m|h|d)$/
const ISO_TIME = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?)?$/

function readSince(text: string, clock: Clock): number {
  const ago = DURATION.test(text) ? parseDuration(text) : undefined
  const at = ago !== undefined ? clock.now() - ago : ISO_TIME.test(text) ? Date.parse(text) : NaN
  if (Number.isNaN(at))
    throw malformed('since', `${JSON.stringify(text)} is neither a duration nor an ISO time`)
  return at
}

function malformed(path: string, message: string): Problem {
  return new Problem('malformed', `${path} ${message}`, [{ path, message }])
}

// --- the connection ---

/** What every stream's head says. No `Content-Length`: it ends when the connection does. */
const STREAM_HEAD = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-transform',
  'x-accel-buffering': 'no'
}

function headOf(session: Session) {
  return { ...STREAM_HEAD, 'ringside-cursor': formatCursor(session.cursor) }
}
