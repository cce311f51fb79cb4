import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import type { Settings } from '../config.ts'
import { comparePositions, formatCursor } from '../event.ts'
import { SYMBOL_PATTERN, tickerFilters, type NewQuote, type Tickers } from '../feeds/tickers.ts'
import { Problem } from '../problem.ts'
import { readJsonBody, takeRawBodies, wrong, type JsonInput } from './body.ts'
import { PublishHeaders } from './publish.ts'
import type { Reads } from './reads.ts'
import { malformed, ReadQuery } from './subscription.ts'

export interface TickersOptions {
  tickers: Tickers
  reads: Reads
  settings: Pick<Settings, 'MAX_EVENT_BYTES' | 'MAX_TOPICS'>
}

const MAX_QUOTES = 1000

const Quote = Type.Object({ symbol: Type.String({ pattern: SYMBOL_PATTERN }), price: Type.Number() })

/** POST /tickers and GET /tickers. Section 5 of the contract. */
export const tickersRoutes: FastifyPluginAsyncTypebox<TickersOptions> = async (app, options) => {
  const { tickers, reads, settings } = options
  takeRawBodies(app)

  app.post(
    '/tickers',
    {
      bodyLimit: MAX_QUOTES * 2 * settings.MAX_EVENT_BYTES,
      schema: {
        headers: PublishHeaders,
        response: { 201: Type.Object({ ids: Type.Array(Type.String()) }) },
        tags: ['tickers']
      }
    },
    async ({ headers, body }, reply) => {
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
        return key === undefined ? quote : { ...quote, key: `${key}\n${index}` }
      })
      const { ids, replayed } = await tickers.publish(quotes)
      if (replayed) reply.header('idempotent-replayed', 'true')
      return reply.code(201).send({ ids })
    }
  )

  function readQuote(item: JsonInput, path: string): NewQuote {
    const { symbol, price } = item.as(Quote, path)
    // a number such as 1e400 is valid JSON
    if (!Number.isFinite(price)) throw wrong('refused', `${path}/price`, 'is not a finite number')
    const json = item.json()
    const size = Buffer.byteLength(json)
    if (size <= settings.MAX_EVENT_BYTES) return { symbol, json }
    throw wrong('too large', path, `has ${size} bytes; at most ${settings.MAX_EVENT_BYTES} are allowed`)
  }

  app.route({
    method: ['GET', 'HEAD'],
    url: '/tickers',
    schema: {
      querystring: Type.Object({
        symbols: Type.String({ minLength: 1, description: 'Symbols, separated by commas, or * for all' }),
        ...ReadQuery.properties
      }),
      tags: ['tickers']
    },
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
