import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { requirePublish, requireSomePublish } from '../../access/grant.ts'
import type { Settings } from '../../config.ts'
import { comparePositions, formatCursor } from '../../event.ts'
import { SYMBOL_PATTERN, tickerFilters, topicOf, type NewQuote, type Tickers } from '../../feeds/tickers.ts'
import { readJson } from '../../input.ts'
import { Problem, wrong } from '../../problem.ts'
import type { Part } from '../../publisher.ts'
import { Turn } from '../../turn.ts'
import { isArray, readArray, tooLargeItem, type BatchItem } from '../batch.ts'
import { bytesOf, requireJson, utf8 } from '../body.ts'
import {
  Cursor,
  exampleEvent,
  ID,
  json,
  NOTHING,
  opening,
  READ_HEADERS,
  readProblems,
  streams,
  writeProblems
} from '../description.ts'
import { KEY_REUSED, PublishHeaders, STORED } from './publish.ts'
import { ReadHeaders, ReadQuery } from '../query.ts'
import { tooLarge } from '../readers.ts'
import type { Reads } from '../reads.ts'

export interface TickersOptions {
  tickers: Tickers
  reads: Reads
  settings: Pick<Settings, 'MAX_EVENT_BYTES' | 'MAX_BATCH_BYTES' | 'MAX_TOPICS'>
}

const MAX_QUOTES = 1000

/** What a quote may need more than what it becomes: white space and escapes. */
const OVERHEAD = 1024

const Quote = Type.Object(
  { symbol: Type.String({ pattern: SYMBOL_PATTERN }), price: Type.Number() },
  { $id: 'Quote', description: 'Other members are kept as they are' }
)

/** POST /tickers and GET /tickers. Section 5 of the contract. */
export const tickersRoutes: FastifyPluginAsyncTypebox<TickersOptions> = async (app, options) => {
  const { tickers, reads, settings } = options
  const itemBytes = 2 * settings.MAX_EVENT_BYTES + OVERHEAD

  app.post(
    '/tickers',
    {
      bodyLimit: settings.MAX_BATCH_BYTES,
      config: { bodyLimitBy: 'MAX_BATCH_BYTES' },
      schema: publishQuotes,
      // before the body is read
      onRequest: async ({ grant }) => requireSomePublish(grant)
    },
    async ({ headers, body, writer }, reply) => {
      const isMany = isArray(body)
      const key = headers['idempotency-key']
      const read = (item: BatchItem, index: number): NewQuote => {
        const quote = readQuote(item)
        return key === undefined ? quote : { key: `${key}\n${index}`, ...quote }
      }
      requireJson(headers['content-type'])
      const quotes = isMany
        ? await readArray(body, { items: MAX_QUOTES, itemBytes }, read)
        : [read(readOne(body, itemBytes), 0)]
      const pathOf = (index: number) => (isMany ? `/${index}` : '')
      // the topic comes from the symbol, and the data is all of the quote
      const nameOf = (part: Part, index: number) => pathOf(index) + (part === 'topic' ? '/symbol' : '')
      const { ids, replayed } = await tickers.publish(quotes, { writer, nameOf })
      if (replayed) reply.header('idempotent-replayed', 'true')
      reply.code(201)
      return { ids }
    }
  )

  app.delete(
    '/tickers/:symbol',
    {
      schema: deleteQuote,
      onRequest: async ({ params: { symbol }, grant }) => {
        if (!isSymbol(symbol)) throw noSymbol('symbol', symbol)
        requirePublish(grant, [topicOf(symbol)])
      }
    },
    async ({ params: { symbol }, writer }, reply) => {
      await tickers.delete(symbol, { writer })
      return reply.code(204).send()
    }
  )

  app.route({
    method: ['GET', 'HEAD'],
    url: '/tickers',
    schema: readQuotes,
    config: { stream: 'named' },
    handler: async (request, reply) => {
      const symbols = request.query.symbols.split(',')
      if (symbols.length > settings.MAX_TOPICS) {
        const message = `${symbols.length} are named; at most ${settings.MAX_TOPICS} are allowed`
        throw wrong('malformed', 'symbols', message)
      }
      const unknown = symbols.find(symbol => symbol !== '*' && !isSymbol(symbol))
      if (unknown !== undefined) throw noSymbol('symbols', unknown)
      const filters = tickerFilters(symbols)
      return reads.serve(request, reply, filters, {
        // the latest of each symbol: from its ring, and where that has run out, from its state
        fresh: { rewind: 1 },
        preface: async (format, start, isFresh, asker) => {
          if (!isFresh) return []
          const { quotes } = await tickers.latest(filters, asker)
          const older = quotes.filter(({ position, shard }) => comparePositions(position, start[shard]!) <= 0)
          const frames = await new Turn(asker).map(older, ({ topic, json, position, shard, id }) =>
            format.event({ id: position, shard, topic, type: 'quote', data: json, prev: null }, id)
          )
          // their ids must not stay the client's cursor
          return frames.length > 0 ? [...frames, format.keepAlive(formatCursor(start), filters)] : []
        },
        document: async asker => {
          const { quotes, cursor } = await tickers.latest(filters, asker)
          const list = await new Turn(asker).map(quotes, quote =>
            quote === quotes[0] ? quote.json : `,${quote.json}`
          )
          const position = formatCursor(cursor)
          return { parts: ['{"quotes":[', ...list, `],"cursor":"${position}"}`], cursor: position }
        }
      })
    }
  })
}

/** The body as the only item. Throws a `Problem` for more bytes than an item may have. */
function readOne(body: unknown, most: number): BatchItem {
  const { length } = bytesOf(body)
  if (length > most) throw tooLargeItem('', length, most)
  return { input: readJson(utf8(body)), path: '' }
}

function readQuote({ input, path }: BatchItem): NewQuote {
  // a price such as 1e400 is valid JSON, and no number to the schema
  const { symbol } = input.as(Quote, path)
  return { symbol, json: input.json() }
}

function isSymbol(text: string): boolean {
  return new RegExp(SYMBOL_PATTERN).test(text)
}

/** `path` is what names it. */
function noSymbol(path: string, text: string): Problem {
  return wrong('malformed', path, `${JSON.stringify(text)} is not a symbol`)
}

// --- what comes in and goes out ---

const NO_NUMBER = new Problem('malformed', '/price must be number', [
  { path: '/price', message: 'must be number' }
])

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
      NO_NUMBER,
      wrong('too large', '', 'a quote of 61500 bytes; at most 61440 are allowed (MAX_EVENT_BYTES)'),
      new Problem('unsupported', 'Content-Type: text/plain: it must be application/json'),
      KEY_REUSED
    )
  }
}

const deleteQuote = {
  operationId: 'deleteQuote',
  summary: 'End a ticker',
  description: 'It has no latest quote until the next one. Its readers are told `deleted`.',
  tags: ['tickers'],
  params: Type.Object({ symbol: Type.String({ description: 'As in its quotes', examples: ['AAPL'] }) }),
  response: {
    204: { description: 'It is gone', ...NOTHING },
    ...writeProblems(noSymbol('symbol', '*'), new Problem('not found', 'there is no quote of AAPL'))
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
      noSymbol('symbols', 'A/B'),
      wrong('forbidden', 'topic', '"tickers/AAPL" may not be read'),
      tooLarge(150_042, 122_880, 'MEMORY')
    )
  }
}
