import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { Value } from 'typebox/value'
import type { Append, Appended } from '../broker/broker.ts'
import type { Settings } from '../config.ts'
import { formatCursor, isTopic, RESERVED_TYPES, TYPE_PATTERN, type Cursor, type Data } from '../event.ts'
import { Problem } from '../problem.ts'
import type { Publisher } from '../publisher.ts'
import { compactJson, elementsOf, hasPlainNumbers, memberOf } from '../wire/json.ts'

export interface PublishOptions {
  publisher: Publisher
  settings: Pick<Settings, 'MAX_EVENT_BYTES'>
}

const MAX_BATCH = 1000

/** What JSON may need more than what it becomes: white space, escapes, and the names of a batch's members. */
const OVERHEAD = 1024

/** Data that was published: as what it came, and how it is kept. */
const MEDIA_TYPES: Record<string, (bytes: Buffer) => Data> = {
  'application/json': json,
  'text/plain': utf8,
  'application/x-www-form-urlencoded': utf8, // what `curl -d` says by default
  '': utf8,
  'application/octet-stream': bytes => bytes
}

const TTL = Type.Integer({
  minimum: 1,
  maximum: 315_360_000,
  description: 'Seconds this event may be replayed'
})
const EventType = Type.String({
  pattern: TYPE_PATTERN,
  description: 'The event type; message when there is none'
})
const Headers = Type.Object({
  'content-type': Type.Optional(Type.String()),
  'idempotency-key': Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 255,
      description: 'The same key again within 10 minutes stores nothing'
    })
  )
})
const Item = Type.Object({
  topic: Type.String(),
  type: Type.Optional(EventType),
  data: Type.Unknown(),
  ttl: Type.Optional(TTL)
})

/** POST /events/T and POST /events. Section 4 of the contract. */
export const publishRoutes: FastifyPluginAsyncTypebox<PublishOptions> = async (
  app,
  { publisher, settings }
) => {
  const { MAX_EVENT_BYTES } = settings

  // bodies are stored as they came, so they arrive here as bytes
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))

  // HTTP/2 frames its bodies itself: without a type Fastify would not look for one
  app.addHook('onRequest', async ({ raw }) => {
    if (raw.httpVersionMajor === 2 && raw.method === 'POST') raw.headers['content-type'] ??= 'text/plain'
  })

  app.post(
    '/events/*',
    {
      bodyLimit: 2 * MAX_EVENT_BYTES + OVERHEAD,
      schema: {
        params: Type.Object({ '*': Type.String({ description: 'The topic' }) }),
        querystring: Type.Object({ type: Type.Optional(EventType), ttl: Type.Optional(TTL) }),
        headers: Headers,
        response: { 201: Type.Object({ id: Type.String(), topic: Type.String() }) },
        tags: ['events']
      }
    },
    async ({ params, query, headers, body }, reply) => {
      const topic = params['*']
      const data = readData(headers['content-type'], body as Buffer | undefined)
      const event = {
        topic,
        type: query.type ?? 'message',
        data,
        ...(query.ttl !== undefined && { ttl: query.ttl })
      }
      check(event, MAX_EVENT_BYTES)
      const key = headers['idempotency-key']
      const [appended] = await publisher.publish([key === undefined ? event : { ...event, key }], 'events')
      if (appended!.outcome === 'replayed') reply.header('idempotent-replayed', 'true')
      return reply.code(201).send({ id: formatCursor(idOf(appended!)), topic })
    }
  )

  app.post(
    '/events',
    {
      bodyLimit: MAX_BATCH * (2 * MAX_EVENT_BYTES + OVERHEAD),
      schema: {
        headers: Headers,
        response: { 201: Type.Object({ ids: Type.Array(Type.String()) }) },
        tags: ['events']
      }
    },
    async ({ headers, body }, reply) => {
      const items = readBatch(headers['content-type'], body as Buffer | undefined)
      const exact = hasPlainNumbers((body as Buffer).toString('latin1'))
      const key = headers['idempotency-key']
      const events = items.map((item, index) => {
        const event = readItem(item, exact, index)
        check(event, MAX_EVENT_BYTES, index)
        return key === undefined ? event : { ...event, key: `${key}\n${index}` }
      })
      const appended = await publisher.publish(events, 'events')
      const refused = appended.findIndex(({ outcome }) => outcome === 'key reused')
      if (refused >= 0) throw keyReused(` (item ${refused})`)
      const ids = appended.map(each => formatCursor(idOf(each)))
      if (appended.every(({ outcome }) => outcome === 'replayed')) reply.header('idempotent-replayed', 'true')
      return reply.code(201).send({ ids })
    }
  )
}

/** Whether an event may be stored. In a batch, what is wrong is named with its index. */
function check({ topic, type, data }: Append, maxBytes: number, index?: number): void {
  const at = (name: string) => (index === undefined ? name : `/${index}/${name}`)
  if (!isTopic(topic)) {
    throw wrong(
      'malformed',
      at('topic'),
      `${JSON.stringify(topic)} is not a topic: segments joined by /, none empty or *`
    )
  }
  if (RESERVED_TYPES.has(type)) throw wrong('refused', at('type'), `${type} is reserved for the server`)
  const size = Buffer.byteLength(data)
  if (size > maxBytes) {
    throw wrong('too large', at('data'), `has ${size} bytes; at most ${maxBytes} are allowed`)
  }
}

function idOf(appended: Appended): Cursor {
  if ('id' in appended) return appended.id
  throw keyReused()
}

function keyReused(which = ''): Problem {
  return wrong('refused', 'Idempotency-Key', `was used before for another event${which}`)
}

function wrong(kind: 'malformed' | 'refused' | 'too large', path: string, message: string): Problem {
  return new Problem(kind, `${path}: ${message}`, [{ path, message }])
}

// --- bodies ---

function readData(contentType: string | undefined, body: Buffer | undefined): Data {
  const mediaType = mediaTypeOf(contentType)
  const read = MEDIA_TYPES[mediaType]
  if (!read) {
    const allowed = Object.keys(MEDIA_TYPES).filter(Boolean).join(', ')
    throw new Problem('unsupported', `Content-Type: ${contentType}: allowed are ${allowed}`)
  }
  return read(body ?? Buffer.alloc(0))
}

/** An event of a batch: as a value, and as the text it came as. */
interface BatchItem {
  readonly value: unknown
  readonly text: () => string
}

function json(bytes: Buffer): string {
  const text = utf8(bytes)
  parse(text, 'the body')
  return compactJson(text)
}

function readBatch(contentType: string | undefined, body: Buffer = Buffer.alloc(0)): BatchItem[] {
  const mediaType = mediaTypeOf(contentType)
  const read = { 'application/json': readArray, 'application/x-ndjson': readLines }[mediaType]
  if (!read) {
    throw new Problem(
      'unsupported',
      `Content-Type: ${contentType}: a batch is application/json or application/x-ndjson`
    )
  }
  const items = read(utf8(body))
  if (items.length === 0 || items.length > MAX_BATCH) {
    throw new Problem('malformed', `a batch has 1 to ${MAX_BATCH} events, this one has ${items.length}`)
  }
  return items
}

function readArray(text: string): BatchItem[] {
  const values = parse(text, 'the body')
  if (!Array.isArray(values)) throw new Problem('malformed', 'a batch is a JSON array of events')
  let elements: string[] | undefined
  return values.map((value, index) => ({ value, text: () => (elements ??= elementsOf(text))[index]! }))
}

function readLines(text: string): BatchItem[] {
  const lines = text.split(/\r?\n/).filter(line => line.trim() !== '')
  return lines.map((line, index) => ({ value: parse(line, `/${index}`), text: () => line }))
}

function readItem({ value, text }: BatchItem, exact: boolean, index: number): Append {
  if (!Value.Check(Item, value)) {
    const errors = [...Value.Errors(Item, value)].map(({ instancePath, message }) => ({
      path: `/${index}${instancePath}`,
      message
    }))
    throw new Problem('malformed', errors.map(({ path, message }) => `${path} ${message}`).join('; '), errors)
  }
  const { topic, type = 'message', data, ttl } = value
  return {
    topic,
    type,
    data: stringify(data, exact) ?? memberOf(text(), 'data')!,
    ...(ttl !== undefined && { ttl })
  }
}

/** Undefined for what only its text keeps: numbers that were rounded, nesting deeper than the stack. */
function stringify(data: unknown, exact: boolean): string | undefined {
  try {
    return exact ? JSON.stringify(data) : undefined
  } catch {
    return undefined
  }
}

function parse(text: string, what: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new Problem('malformed', `${what} is not JSON: ${(error as Error).message}`, [])
  }
}

function mediaTypeOf(contentType = ''): string {
  return contentType.split(';')[0]!.trim().toLowerCase()
}

/** Throws a `Problem` for what is no UTF-8. A byte order mark is data like any other. */
function utf8(bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw new Problem('malformed', 'the body is not UTF-8')
  }
}
