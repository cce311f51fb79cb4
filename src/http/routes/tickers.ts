import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import type { Settings } from '../../config.ts'
import { comparePositions, formatCursor } from '../../event.ts'
import { SYMBOL_PATTERN, tickerFilters, type NewQuote, type Tickers } from '../../feeds/tickers.ts'
import { Problem } from '../../problem.ts'
import { requirePublish } from '../access.ts'
import { readJsonBody, takeRawBodies, wrong, type JsonInput } from '../body.ts'
import {
  Cursor,
  exampleEvent,
  ID,
  json,
  opening,
  READ_HEADERS,
  readProblems,
  streams,
  writeProblems
} from '../description.ts'
import { KEY_REUSED, PublishHeaders, STORED } from './publish.ts'
import type { Reads } from '../reads.ts'
import { malformed, ReadHeaders, ReadQuery } from '../subscription.ts'

export interface TickersOptions {
  tickers: Tickers
  reads: Reads
  settings: Pick<Settings, 'MAX_EVENT_BYTES' | 'MAX_TOPICS'>
}

const MAX_QUOTES = 1000

const Quote = Type.Object(
  { symbol: Type.String({ pattern: SYMBOL_PATTERN }), price: Type.Number() },
  { $id: 'Quote', description: 'Other members are kept as they are' }
)

/** POST /tickers and GET /tickers. Section 5 of the contract. */
export const tickersRoutes: FastifyPluginAsyncTypebox<TickersOptions> = async (app, options) => {
  const { tickers, reads, settings } = options
  takeRawBodies(app)

  app.post(
    '/tickers',
    { bodyLimit: MAX_QUOTES * 2 * settings.MAX_EVENT_BYTES, schema: publishQuotes },
    async ({ headers, body, grant }, reply) => {
      const input = readJsonBody(headers['content-type'], body)
      const items = Array.isArray(input.value) ? input.elements() : [input]
      if (items.length === 0 || items.length > MAX_QUOTES) {
        throw new Problem(
          'malformed',
          `1 to ${MAX_QUOTES} quotes can be sent at once, these are ${items.length}`
        )
      }
      const key = headers['idempotency-key']
      const quotes = items.map((item, index): NewQuote => {
        const quote = readQuote(item, Array.isArray(input.value) ? `/${index}` : '')
        return key === undefined ? quote : { key: `${key}\n${index}`, ...quote }
      })
      requirePublish(
        grant,
        quotes.map(({ symbol }) => `tickers/${symbol}`),
        index => (Array.isArray(input.value) ? `/${index}/symbol` : '/symbol')
      )
      const { ids, replayed } = await tickers.publish(quotes)
      if (replayed) reply.header('idempotent-replayed', 'true')
      reply.code(201)
      return { ids }
    }
  )

  function readQuote(item: JsonInput, path: string): NewQuote {
    // a price such as 1e400 is valid JSON, and no number to the schema
    const { symbol } = item.as(Quote, path)
    const json = item.json()
    const size = Buffer.byteLength(json)
    if (size <= settings.MAX_EVENT_BYTES) return { symbol, json }
    throw wrong(
      'too large',
      path,
      `a quote of ${size} bytes; at most ${settings.MAX_EVENT_BYTES} are allowed`
    )
  }

  app.route({
    method: ['GET', 'HEAD'],
    url: '/tickers',
    schema: readQuotes,
    handler: async (request, reply) => {
      const symbols = request.query.symbols.split(',')
      if (symbols.length > settings.MAX_TOPICS) {
        throw malformed(
          'symbols',
          `names ${symbols.length} symbols; at most ${settings.MAX_TOPICS} are allowed`
        )
      }
      const unknown = symbols.find(symbol => symbol !== '*' && !new RegExp(SYMBOL_PATTERN).test(symbol))
      if (unknown !== undefined) throw malformed('symbols', `${JSON.stringify(unknown)} is not a symbol`)
      const filters = tickerFilters(symbols)
      return reads.serve(request, reply, filters, {
        // the latest of each symbol: from its ring, and where that has run out, from its state
        fresh: { rewind: 1 },
        preface: async (format, start, isFresh) => {
          if (!isFresh) return []
          const { quotes } = await tickers.latest(filters)
          const older = quotes.filter(({ position, shard }) => comparePositions(position, start[shard]!) <= 0)
          const frames = older.map(({ topic, json, position, shard, id }) =>
            format.event({ id: position, shard, topic, type: 'quote', data: json, prev: null }, id)
          )
          // their ids must not stay the client's cursor
          return frames.length > 0 ? [...frames, format.keepAlive(formatCursor(start), filters)] : []
        },
        document: async () => {
          const { quotes, cursor } = await tickers.latest(filters)
          const text = `{"quotes":[${quotes.map(({ json }) => json).join(',')}],"cursor":${JSON.stringify(formatCursor(cursor))}}`
          return { text, cursor: formatCursor(cursor) }
        }
      })
    }
  })
}

// --- what comes in and goes out ---

const QUOTE = { symbol: 'AAPL', price: 189.25 }

const publishQuotes = {
  operationId: 'publishQuotes',
  summary: 'Publish quotes',
  description: 'Each becomes a `quote` on `tickers/<symbol>`, and is the latest one until the next.',
  tags: ['tickers'],
  headers: PublishHeaders,
  requestBody: json(Type.Union([Quote, Type.Array(Quote, { minItems: 1, maxItems: MAX_QUOTES })]), QUOTE),
  response: {
    201: STORED,
    ...writeProblems(
      malformed('/price', 'must be number'),
      wrong('too large', '', 'a quote of 61500 bytes; at most 61440 are allowed'),
      new Problem('unsupported', 'Content-Type: text/plain: it must be application/json'),
      KEY_REUSED
    )
  }
}

const readQuotes = {
  operationId: 'readQuotes',
  summary: 'Read quotes',
  description:
    'A stream begins with the latest quote of each symbol, with its own id, and goes on live. With a cursor it goes on after that.',
  tags: ['tickers'],
  querystring: Type.Object({
    symbols: Type.String({
      minLength: 1,
      description: 'Symbols, separated by commas, or `*` for all',
      examples: ['AAPL,MSFT']
    }),
    ...ReadQuery.properties
  }),
  headers: ReadHeaders,
  response: {
    200: {
      description: 'The quotes as they come, or the latest of each symbol',
      headers: READ_HEADERS,
      content: {
        ...streams(format => [
          opening(format),
          format.event(exampleEvent('tickers/AAPL', 'quote', QUOTE), ID)
        ]),
        ...json(Type.Object({ quotes: Type.Array(Quote), cursor: Cursor }, { $id: 'Quotes' }), {
          quotes: [QUOTE],
          cursor: ID
        })
      }
    },
    ...readProblems(
      malformed('symbols', '"A/B" is not a symbol'),
      wrong('forbidden', 'topic', '"tickers/AAPL" may not be read')
    )
  }
}
