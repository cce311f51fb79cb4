import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import type { Settings } from '../config.ts'
import { isFilter } from '../event.ts'
import type { Reads } from './reads.ts'
import { malformed, ReadQuery } from './subscription.ts'

export interface EventsOptions {
  reads: Reads
  settings: Pick<Settings, 'MAX_TOPICS'>
}

const Topics = Type.Optional(
  Type.Array(Type.String(), { description: 'A topic, or a wildcard such as tickers/*' })
)

/** GET /events and GET /events/T. Section 3 of the contract. */
export const eventsRoutes: FastifyPluginAsyncTypebox<EventsOptions> = async (app, { reads, settings }) => {
  const querystring = Type.Object({ topic: Topics, ...ReadQuery.properties })

  app.route({
    method: ['GET', 'HEAD'],
    url: '/events',
    schema: { querystring, tags: ['events'] },
    handler: (request, reply) => reads.serve(request, reply, filters(request.query.topic))
  })

  app.route({
    method: ['GET', 'HEAD'],
    url: '/events/*',
    schema: { querystring, params: Type.Object({ '*': Type.String() }), tags: ['events'] },
    handler: (request, reply) =>
      reads.serve(request, reply, filters([request.params['*'], ...(request.query.topic ?? [])]))
  })

  function filters(given: readonly string[] = []): readonly string[] {
    if (given.length === 0) throw malformed('topic', 'is required: what to subscribe to')
    if (given.length > settings.MAX_TOPICS) {
      throw malformed('topic', `is given ${given.length} times; at most ${settings.MAX_TOPICS} are allowed`)
    }
    const wrong = given.find(filter => !isFilter(filter))
    if (wrong !== undefined)
      throw malformed('topic', `${JSON.stringify(wrong)} is neither a topic nor a wildcard`)
    return given
  }
}
