import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { requirePublish, requireSomePublish } from '../../access/grant.ts'
import type { Append } from '../../broker/event-log.ts'
import type { Settings } from '../../config.ts'
import { END, formatCursor, KEY_PATTERN, TYPE_PATTERN, type Data } from '../../event.ts'
import { readJson } from '../../input.ts'
import { Problem, wrong } from '../../problem.ts'
import { checkEnd, checkTopic, idOf, type Part, type Publisher } from '../../publisher.ts'
import { compactJson } from '../../wire/json.ts'
import { readBatch, type BatchItem } from '../batch.ts'
import { bytesOf, mediaTypeOf, utf8 } from '../body.ts'
import { BYTES, Cursor, ID, json, REPLAYED, text, writeProblems } from '../description.ts'

export interface PublishOptions {
  publisher: Publisher
  settings: Pick<Settings, 'MAX_EVENT_BYTES' | 'MAX_BATCH_BYTES'>
}

/** The most events of a batch. */
const MAX_BATCH = 1000

/** What JSON may need more than what it becomes: white space, escapes, and the names of a batch's members. */
const OVERHEAD = 1024

/** Data that was published: as what it came, and how it is kept. */
const MEDIA_TYPES: Record<string, (bytes: Buffer) => Data> = {
  'application/json': bytes => {
    const text = utf8(bytes)
    readJson(text)
    return compactJson(text)
  },
  'text/plain': utf8,
  'application/x-www-form-urlencoded': utf8, // what `curl -d` says by default
  '': utf8,
  'application/octet-stream': bytes => bytes
}

const ALLOWED = Object.keys(MEDIA_TYPES).filter(Boolean).join(', ')

const TTL = Type.Integer({
  minimum: 1,
  maximum: 315_360_000,
  description: 'Seconds this event may be replayed'
})
const EventType = Type.String({
  pattern: TYPE_PATTERN,
  description: 'The event type; message when there is none'
})

/** The headers of a request that publishes. */
export const PublishHeaders = Type.Object({
  'idempotency-key': Type.Optional(
    Type.String({
      pattern: KEY_PATTERN,
      description:
        'Visible characters. The same key again within 10 minutes, by the same user to the same topic, stores nothing'
    })
  )
})

const Item = Type.Object(
  {
    topic: Type.String(),
    type: Type.Optional(EventType),
    data: Type.Unknown(),
    ttl: Type.Optional(TTL)
  },
  { $id: 'NewEvent' }
)

/** POST /events/T and POST /events. Section 4 of the contract. */
export const publishRoutes: FastifyPluginAsyncTypebox<PublishOptions> = async (
  app,
  { publisher, settings }
) => {
  const { MAX_EVENT_BYTES, MAX_BATCH_BYTES } = settings
  const itemBytes = 2 * MAX_EVENT_BYTES + OVERHEAD

  app.post(
    '/events/*',
    {
      bodyLimit: itemBytes,
      config: { bodyLimitBy: 'MAX_EVENT_BYTES' },
      schema: publishOne,
      // before the body is read
      onRequest: ({ params, grant }, _reply, done) => {
        const topic = params['*']
        checkTopic(topic)
        requirePublish(grant, [topic])
        done()
      }
    },
    async ({ params, query, headers, body, writer }, reply) => {
      const topic = params['*']
      const { type, ttl, end: ends } = query
      if (ends) checkEnd(query)
      const key = headers['idempotency-key']
      const event = {
        topic,
        type: ends ? END : (type ?? 'message'),
        data: readData(headers['content-type'], body),
        ...(ttl !== undefined && { ttl }),
        ...(key !== undefined && { key })
      }
      const [appended] = await publisher.publish([event], { source: 'events', writer, ends })
      if (appended!.outcome === 'replayed') reply.header('idempotent-replayed', 'true')
      reply.code(201)
      return { id: formatCursor(idOf(appended!)), topic }
    }
  )

  app.post(
    '/events',
    {
      bodyLimit: MAX_BATCH_BYTES,
      config: { bodyLimitBy: 'MAX_BATCH_BYTES' },
      schema: publishBatch,
      onRequest: ({ grant }, _reply, done) => {
        requireSomePublish(grant)
        done()
      }
    },
    async ({ headers, body, writer }, reply) => {
      const key = headers['idempotency-key']
      const limits = { items: MAX_BATCH, itemBytes }
      const events = await readBatch(headers['content-type'], body, limits, (item, index) => {
        const event = readItem(item)
        // no header can hold what stands between
        return key === undefined ? event : { key: `${key}\n${index}`, ...event }
      })
      const nameOf = (part: Part, index: number) => `/${index}/${part}`
      const appended = await publisher.publish(events, { source: 'events', writer, nameOf })
      const ids = appended.map(each => formatCursor(idOf(each)))
      if (appended.every(({ outcome }) => outcome === 'replayed')) reply.header('idempotent-replayed', 'true')
      reply.code(201)
      return { ids }
    }
  )
}

function readData(contentType: string | undefined, body: unknown): Data {
  const read = MEDIA_TYPES[mediaTypeOf(contentType)]
  if (read) return read(bytesOf(body))
  throw new Problem('unsupported', `Content-Type: ${contentType}: allowed are ${ALLOWED}`)
}

function readItem({ input, path }: BatchItem): Append {
  const { topic, type = 'message', ttl } = input.as(Item, path)
  return { topic, type, data: input.memberJson('data'), ...(ttl !== undefined && { ttl }) }
}

// --- what comes in and goes out ---

const Ids = Type.Object({ ids: Type.Array(Cursor, { description: 'In the order of what was sent' }) })

/** What is answered to several events. */
export const STORED = {
  description: 'All are stored',
  headers: REPLAYED,
  content: json(Ids, { ids: [ID] })
}

/** What is wrong with a key that was used before. */
export const KEY_REUSED = wrong('refused', 'Idempotency-Key', 'was used before for another event')

const publishOne = {
  operationId: 'publish',
  summary: 'Publish an event',
  description:
    'JSON is stored compact, text as it is, and bytes as bytes, which streams carry as base64. A 503 means that it is not known to be stored: with an `Idempotency-Key` it is safe to try again. On a topic that is ephemeral by its rule (`x-ringside-topics`) it is handed to whoever is live, and never stored.',
  tags: ['events'],
  params: Type.Object({ '*': Type.String({ description: 'A topic', examples: ['orders'] }) }),
  querystring: Type.Object({
    type: Type.Optional(EventType),
    ttl: Type.Optional(TTL),
    end: Type.Optional(
      Type.Boolean({
        description:
          'Whether this is the last event of the topic: of the type `end`, whereupon streams of topics that have all ended are closed. The topic may begin anew once this event is held no longer'
      })
    )
  }),
  headers: PublishHeaders,
  requestBody: {
    ...json(Type.Unknown(), { order: 17, state: 'paid' }),
    'text/plain': text('Hello!', 'Any text; so is a body without a type'),
    'application/x-www-form-urlencoded': text('Hello!', 'Any text: what `curl -d` calls it'),
    'application/octet-stream': BYTES
  },
  response: {
    201: {
      description: 'It is stored',
      headers: REPLAYED,
      content: json(Type.Object({ id: Cursor, topic: Type.String() }), { id: ID, topic: 'orders' })
    },
    ...writeProblems(
      wrong('malformed', 'topic', '"a//b" is not a topic: segments joined by /, none empty or *'),
      wrong('forbidden', 'topic', 'tickers/AAPL is written through /tickers only'),
      wrong('too large', 'data', 'has 61441 bytes; at most 61440 are allowed (MAX_EVENT_BYTES)'),
      new Problem('unsupported', `Content-Type: text/html: allowed are ${ALLOWED}`),
      wrong('conflict', 'topic', 'jobs/17 has ended'),
      wrong('refused', 'type', 'cursor is reserved for the server'),
      wrong('refused', 'type', 'an event that ends its topic is of the type end'),
      KEY_REUSED
    )
  }
}

const publishBatch = {
  operationId: 'publishBatch',
  summary: 'Publish a batch',
  description:
    'All of it is checked before any of it is stored: a bad event refuses the batch, with its index. An `Idempotency-Key` covers each event of it.',
  tags: ['events'],
  headers: PublishHeaders,
  requestBody: {
    ...json(Type.Array(Item, { minItems: 1, maxItems: MAX_BATCH }), [
      { topic: 'orders', type: 'paid', data: { order: 17 } }
    ]),
    'application/x-ndjson': text(
      '{"topic":"orders","type":"paid","data":{"order":17}}\n',
      'An event a line, as in the array'
    )
  },
  response: {
    201: STORED,
    ...writeProblems(
      wrong('malformed', '/0/topic', '"a//b" is not a topic: segments joined by /, none empty or *'),
      wrong('forbidden', '/0/topic', 'tickers/AAPL is written through /tickers only'),
      wrong('too large', '/0/data', 'has 61441 bytes; at most 61440 are allowed (MAX_EVENT_BYTES)'),
      new Problem(
        'unsupported',
        'Content-Type: text/plain: a batch is application/json or application/x-ndjson'
      ),
      wrong('conflict', '/0/topic', 'jobs/17 has ended'),
      wrong('refused', '/0/type', 'cursor is reserved for the server')
    )
  }
}
