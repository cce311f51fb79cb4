import { parse as parseDuration } from '@lukeed/ms'
import type { FastifyRequest } from 'fastify'
import { Type, type Static } from 'typebox'
import type { Clock } from '../clock.ts'
import { Problem } from '../problem.ts'

/** What a client may call its cursor in a query, besides `Last-Event-ID`; the first that is given counts. */
const CURSOR_NAMES = ['after', 'last_event_id', 'lastEventId', 'lastEventID', 'evs_last_event_id'] as const

// a cursor that can't be read is answered with a gap, never with a 400, so that its type is not checked
const Cursor = Type.Optional(
  Type.Unknown({ description: 'Start after this event id; the header Last-Event-ID wins' })
)
const Alias = Type.Optional(Type.Unknown({ description: 'The same as `after`, as some clients call it' }))

/** How a client wants to read, whatever it reads. Section 3 of the contract. */
export const ReadQuery = Type.Object({
  after: Cursor,
  last_event_id: Alias,
  lastEventId: Alias,
  lastEventID: Alias,
  evs_last_event_id: Alias,
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
  ),
  limit: Type.Optional(
    Type.Integer({ minimum: 1, maximum: 1000, default: 100, description: 'JSON: at most so many events' })
  ),
  wait: Type.Optional(
    Type.Number({ minimum: 1, maximum: 60, description: 'JSON: wait so many seconds for the first event' })
  )
})

/** The headers of whoever reads. */
export const ReadHeaders = Type.Object({
  'last-event-id': Type.Optional(
    Type.String({ description: 'Start after this event id; what an EventSource sends when it reconnects' })
  )
})

export type ReadQuery = Static<typeof ReadQuery>

/** A request for something that can be read. */
export type ReadRequest = FastifyRequest<{ Querystring: ReadQuery }>

/** The client's cursor, whatever it is worth. */
export function readCursor({ headers, query }: Pick<ReadRequest, 'headers' | 'query'>): string | undefined {
  // the header wins, because it is what a reconnecting EventSource sends; an empty one is none
  const header = headers['last-event-id']
  if (typeof header === 'string' && header !== '') return header
  for (const name of CURSOR_NAMES) {
    const given = query[name]
    if (given === undefined) continue
    const text = [given].flat().find(value => typeof value === 'string' && value !== '')
    if (text !== undefined) return text as string
  }
  return undefined
}

/** Where the client wants to start. Throws a `Problem` for what can't be read; a cursor always can. */
export function readStart(request: ReadRequest, clock: Clock) {
  const { query } = request
  return {
    after: readCursor(request),
    rewind: query.rewind,
    since: query.since === undefined ? undefined : readSince(query.since, clock)
  }
}

const DURATION = /^\d+(\.\d+)?(ms|s|m|h|d)$/
const ISO_TIME = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?)?$/

function readSince(text: string, clock: Clock): number {
  const ago = DURATION.test(text) ? (parseDuration(text) ?? 0) : undefined
  const at = ago !== undefined ? clock.now() - ago : ISO_TIME.test(text) ? Date.parse(text) : NaN
  if (!Number.isNaN(at)) return at
  throw malformed('since', `${JSON.stringify(text)} is neither a duration nor an ISO time`)
}

/** A parameter that is wrong. */
export function malformed(path: string, message: string): Problem {
  return new Problem('malformed', `${path} ${message}`, [{ path, message }])
}
