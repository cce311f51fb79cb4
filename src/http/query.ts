import { Type, type Static } from 'typebox'

/** The longest that a page waits for its first event, in seconds. */
export const MOST_WAIT_S = 60

// a cursor that can't be read is answered with a gap, never with a 400, so that its type is not checked
const Cursor = Type.Optional(
  Type.Unknown({ description: 'Start after this event id; the header Last-Event-ID wins' })
)
const Alias = Type.Optional(
  Type.Unknown({ description: 'What some clients add when they reconnect; it wins over `after`' })
)

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
  compress: Type.Optional(
    Type.Boolean({
      description: 'Whether the answer may be compressed, if the client accepts gzip; default: true'
    })
  ),
  heartbeat: Type.Optional(
    Type.Number({ minimum: 1, maximum: 300, description: 'A visible heartbeat every so many seconds' })
  ),
  limit: Type.Optional(
    Type.Integer({ minimum: 1, maximum: 1000, default: 100, description: 'JSON: at most so many events' })
  ),
  wait: Type.Optional(
    Type.Number({
      minimum: 1,
      maximum: MOST_WAIT_S,
      description: 'JSON: wait so many seconds for the first event'
    })
  )
})

/** The headers of whoever reads. */
export const ReadHeaders = Type.Object({
  'last-event-id': Type.Optional(
    Type.String({ description: 'Start after this event id; what an EventSource sends when it reconnects' })
  )
})

export type ReadQuery = Static<typeof ReadQuery>
