/** What the API says of itself: what the schemas of its routes share. */
import { Type, type Static, type TSchema } from 'typebox'
import type { GapReason, Position, StoredEvent } from '../event.ts'
import { Problem, problemDetails, type ProblemDetails } from '../problem.ts'
import type { Format } from '../wire/format.ts'
import { ndjson } from '../wire/ndjson.ts'
import { sse } from '../wire/sse.ts'
import { tooManyConnections, tooManyStreams, tooManyWrites } from './limits.ts'

/** A body, or an answer's, by media type. An example is what it says it is: the tests ask the server. */
export type Content = Readonly<Record<string, { readonly schema: TSchema; readonly example?: unknown }>>

/** The headers of an answer, by name. */
type Headers = Readonly<
  Record<string, { readonly type: string; readonly enum?: readonly string[]; readonly description: string }>
>

declare module 'fastify' {
  interface FastifySchema {
    /** The body that a request has: said here, and read and checked by the handler alone. */
    requestBody?: Content
  }
}

// --- bodies ---

export function json<T extends TSchema>(schema: T, example: Static<T>) {
  return { 'application/json': { schema, example } }
}

/** Text of a media type that has no schema of its own. */
export function text(example: string, description: string) {
  return { schema: Type.Unsafe<unknown>(Type.String({ description })), example }
}

/** Any bytes: there is no example of them in JSON. */
export const BYTES = {
  schema: Type.Unsafe<unknown>(Type.String({ contentMediaType: 'application/octet-stream' }))
}

/** An answer without a body. */
export const NOTHING = { type: 'null' }

/** Where the streams of the examples start, and what comes on them. */
const START: Position = { ms: 1795415443568, seq: 0 }
const CURSOR = '1795415443568-0'
export const ID = '1795415443570-0'

/** The event of an example: its id is `ID`. */
export function exampleEvent(topic: string, type: string, data: object): StoredEvent {
  return { id: { ms: 1795415443570, seq: 0 }, shard: 0, topic, type, data: JSON.stringify(data), prev: START }
}

/** The streams that a reader can have: how each of them begins, written as it is written to readers. */
export function streams(begins: (format: Format) => readonly Buffer[]) {
  const example = (format: Format) => Buffer.concat(begins(format)).toString()
  return {
    'text/event-stream': text(
      example(sse(false)),
      'Server-Sent Events, without end; besides what was published: `cursor`, `gap`, `heartbeat`, `stale`, `goodbye`'
    ),
    'application/x-ndjson': text(
      example(ndjson),
      'An event a line, without end; a gap is the line `{"type":"gap",…}`, a heartbeat an empty line'
    )
  }
}

/** What a stream begins with: where it starts from. */
export function opening(format: Format): Buffer {
  return format.open(CURSOR, 2000)
}

export const Cursor = Type.String({
  $id: 'Cursor',
  description: 'An id seen as a position: everything up to here, on its topics, has reached whoever has it',
  pattern: '^[A-Za-z0-9._~-]{1,128}$'
})

const Event = Type.Object(
  {
    id: Cursor,
    topic: Type.String(),
    type: Type.String({ description: 'The name of the event; `message` when its publisher gave none' }),
    time: Type.Integer({ description: 'When the broker stored it, in milliseconds since the epoch' }),
    encoding: Type.Optional(Type.Literal('base64', { description: 'The data are bytes, as base64' })),
    data: Type.Unknown({ description: 'What was published: parsed, where it is JSON; else text' })
  },
  { $id: 'Event', description: 'An event in its envelope' }
)

const Gap = Type.Object(
  {
    reason: Type.Enum(['expired', 'unknown', 'lost'] satisfies GapReason[], {
      description: 'The ring has moved on; the cursor means nothing here; or the store lost what it held'
    }),
    topics: Type.Array(Type.String()),
    after: Type.String({ description: 'The cursor after which events are missing, as it was sent' })
  },
  { $id: 'Gap', description: "Events that can't be delivered any more" }
)

/** What those who poll are given. */
export const Page = Type.Object(
  {
    events: Type.Array(Event, { description: 'The oldest first' }),
    cursor: Cursor,
    gap: Type.Union([Gap, Type.Null()]),
    more: Type.Boolean({ description: 'Whether there is more to read at once, after `cursor`' }),
    ended: Type.Optional(
      Type.Literal(true, {
        description: 'Nothing comes any more: all topics have ended, by events up to `cursor`'
      })
    )
  },
  { $id: 'Page' }
)

// --- headers ---

/** Those of an answer that reads. */
export const READ_HEADERS = {
  'Ringside-Cursor': { type: 'string', description: 'Where the answer starts from, or what it goes up to' },
  'Cache-Control': { type: 'string', description: 'Nothing of it may be kept or changed on its way' },
  Vary: { type: 'string', description: '`Accept` and `Accept-Encoding`, besides what CORS needs' }
} satisfies Headers

export const REPLAYED = {
  'Idempotent-Replayed': {
    type: 'string',
    enum: ['true'],
    description: 'The key was used before: nothing was stored, and the ids are the first ones'
  }
} satisfies Headers

export const ETAG = {
  ETag: {
    type: 'string',
    description: 'The version, in quotes: for `If-Match`, `If-None-Match`, and `after`'
  }
} satisfies Headers

const RETRY_AFTER = {
  'Retry-After': { type: 'integer', description: 'Seconds after which to try again' }
} satisfies Headers

const WWW_AUTHENTICATE = {
  'WWW-Authenticate': { type: 'string', description: 'What is wrong with the token (RFC 6750, section 3)' }
} satisfies Headers

// --- errors ---

/** What an error is, by status: see `ProblemKind`. */
const ERRORS: Readonly<Record<number, { readonly description: string; readonly headers?: Headers }>> = {
  400: { description: "It can't be read as what it says it is; `errors` says what is wrong, and where" },
  401: { description: 'There is no token, or a wrong one', headers: WWW_AUTHENTICATE },
  403: { description: 'Known, and not for this client' },
  404: { description: 'There is no such thing' },
  406: { description: 'Nothing that `Accept` names can be had of it' },
  409: { description: "It can't be done any more, whoever asks: the topic has ended" },
  412: { description: 'It is not in the state that `If-Match` expects' },
  413: { description: 'It is past a limit of size' },
  415: { description: "A media type that can't be taken here" },
  422: { description: 'Well-formed, and not allowed' },
  429: { description: 'Past a limit that each client has', headers: RETRY_AFTER },
  503: {
    description: 'Not now: the server is full, stopping, or without its broker or the keys that check tokens',
    headers: RETRY_AFTER
  }
}

const ProblemBody = Type.Object(
  {
    type: Type.Literal('about:blank', { description: 'The status says what kind it is' }),
    title: Type.String(),
    status: Type.Integer({ minimum: 400, maximum: 599 }),
    detail: Type.String({ description: 'What was wrong, in a sentence' }),
    errors: Type.Optional(
      Type.Array(
        Type.Object({
          path: Type.String({ description: 'A JSON Pointer, or the name of a parameter' }),
          message: Type.String()
        })
      )
    )
  },
  { $id: 'Problem', description: 'What went wrong (RFC 9457)' }
)

/** An example of an error: a `Problem`, or what one looks like. */
export type Example = Pick<Problem, 'statusCode' | 'message' | 'errors'>

// no handler sends one: it throws
const Thrown = Type.Unsafe<never>(ProblemBody)

export interface ErrorAnswer {
  readonly description: string
  readonly headers?: Headers
  readonly content: {
    readonly 'application/problem+json': {
      readonly schema: typeof Thrown
      readonly examples: Readonly<Record<string, { readonly value: ProblemDetails }>>
    }
  }
}

/** The errors that an operation can answer with, by these examples of them. */
export function problems(...examples: readonly Example[]): Readonly<Record<number, ErrorAnswer>> {
  const answers: Record<number, ErrorAnswer> = {}
  for (const { statusCode, message, errors } of examples) {
    const values = {
      ...answers[statusCode]?.content['application/problem+json'].examples,
      [message]: { value: problemDetails(statusCode, message, errors) }
    }
    const content = { 'application/problem+json': { schema: Thrown, examples: values } }
    answers[statusCode] = { ...ERRORS[statusCode]!, content }
  }
  return answers
}

/** What whoever has no token is told, where one is needed. */
export const NO_TOKEN = {
  statusCode: 401,
  message: 'a token is needed: Authorization: Bearer, the cookie ringside_token, or ?token=',
  errors: []
}

/** What a page of another origin is told, when it lets a browser write in its user's name. */
export const NO_ORIGIN = {
  statusCode: 403,
  message: 'with a cookie, Origin must show which page asks',
  errors: []
}

/** What whoever needs the broker is told while it is away. */
export const UNAVAILABLE = {
  statusCode: 503,
  message: 'no connection to Redis; what was to be stored may not be',
  errors: []
}

/** The errors of an operation that writes: these, and what every other can answer. */
export function writeProblems(...own: readonly Example[]) {
  return problems(NO_TOKEN, ...own, NO_ORIGIN, new Problem('too many', tooManyWrites(100)), UNAVAILABLE)
}

/** The errors of an operation that serves readers. */
export function readProblems(...own: readonly Example[]) {
  return problems(
    NO_TOKEN,
    {
      statusCode: 400,
      message: 'querystring/rewind must be >= 0',
      errors: [{ path: 'querystring/rewind', message: 'must be >= 0' }]
    },
    ...own,
    {
      statusCode: 406,
      message: 'Accept: text/html: there is text/event-stream, application/x-ndjson, application/json',
      errors: []
    },
    new Problem('too many', tooManyConnections(100)),
    new Problem('too many', tooManyStreams(20)),
    { statusCode: 503, message: 'the server is stopping', errors: [] }
  )
}
