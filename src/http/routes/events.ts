import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import type { Settings } from '../../config.ts'
import { isFilter } from '../../event.ts'
import { wrong, type Problem } from '../../problem.ts'
import {
  exampleEvent,
  ID,
  json,
  NOTHING,
  opening,
  Page,
  READ_HEADERS,
  readProblems,
  streams
} from '../description.ts'
import { ReadHeaders, ReadQuery } from '../query.ts'
import type { Reads } from '../reads.ts'

export interface EventsOptions {
  reads: Reads
  settings: Pick<Settings, 'MAX_TOPICS'>
}

/** GET /events and GET /events/T. Section 3 of the contract. */
export const eventsRoutes: FastifyPluginAsyncTypebox<EventsOptions> = async (app, { reads, settings }) => {
  app.route({
    method: ['GET', 'HEAD'],
    url: '/events',
    schema: readTopics,
    config: { stream: 'default' },
    // before the schema is asked, whose words are none for people
    preValidation: async ({ query }) => {
      if (!('topic' in query)) throw NO_TOPIC
    },
    handler: (request, reply) => reads.serve(request, reply, filters(request.query.topic))
  })

  app.route({
    method: ['GET', 'HEAD'],
    url: '/events/*',
    schema: readTopic,
    config: { stream: 'default' },
    handler: (request, reply) =>
      reads.serve(request, reply, filters([request.params['*'], ...(request.query.topic ?? [])]))
  })

  function filters(given: readonly string[]): readonly string[] {
    if (given.length > settings.MAX_TOPICS) {
      const message = `it is given ${given.length} times; at most ${settings.MAX_TOPICS} are allowed`
      throw wrong('malformed', 'topic', message)
    }
    const bad = given.find(filter => !isFilter(filter))
    if (bad !== undefined) throw noFilter(bad)
    return given
  }
}

const NO_TOPIC = wrong('malformed', 'topic', 'it is required: what to subscribe to')

function noFilter(text: string): Problem {
  return wrong('malformed', 'topic', `${JSON.stringify(text)} is neither a topic nor a wildcard`)
}

// --- what comes in and goes out ---

const QUOTE = exampleEvent('tickers/AAPL', 'quote', { symbol: 'AAPL', price: 189.25 })

const DENIED = wrong('forbidden', 'topic', '"tickers/AAPL" may not be read')

const reading = {
  tags: ['events'],
  headers: ReadHeaders,
  response: {
    200: {
      description: 'The events as they come, or a page of them',
      headers: READ_HEADERS,
      content: {
        ...streams(format => [opening(format), format.event(QUOTE, ID)]),
        ...json(Page, {
          events: [
            {
              ...{ id: ID, topic: 'tickers/AAPL', type: 'quote', time: 1795415443570 },
              data: { symbol: 'AAPL', price: 189.25 }
            }
          ],
          cursor: ID,
          gap: null,
          more: false
        })
      }
    },
    204: {
      description:
        'Instead of a stream: all topics have ended, and the cursor lies past that. An EventSource does not come back',
      headers: READ_HEADERS,
      ...NOTHING
    }
  }
}

const readTopics = {
  ...reading,
  operationId: 'readTopics',
  summary: 'Read topics',
  querystring: Type.Object({
    topic: Type.Array(Type.String(), {
      description: 'A topic, or a wildcard such as `tickers/*`; one or more',
      examples: [['tickers/AAPL']]
    }),
    ...ReadQuery.properties
  }),
  response: {
    ...reading.response,
    ...readProblems(NO_TOPIC, DENIED)
  }
}

const readTopic = {
  ...reading,
  operationId: 'readTopic',
  summary: 'Read a topic',
  querystring: Type.Object({
    topic: Type.Optional(
      Type.Array(Type.String(), { description: 'More of them: topics, or wildcards such as `tickers/*`' })
    ),
    ...ReadQuery.properties
  }),
  params: Type.Object({
    '*': Type.String({ description: 'A topic, or a wildcard', examples: ['tickers/AAPL'] })
  }),
  response: {
    ...reading.response,
    ...readProblems(noFilter('a//b'), DENIED)
  }
}
