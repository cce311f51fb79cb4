import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { requireAdmin } from '../../access/grant.ts'
import { parsePlace, type ConnectionPlace } from '../../admin/connections.ts'
import type { Operator } from '../../admin/operator.ts'
import { wrong, type Problem } from '../../problem.ts'
import type { Reads } from '../reads.ts'
import {
  clearTopic,
  disconnect,
  disconnectUser,
  drainInstance,
  listConnections,
  listGaps,
  listInstances,
  listTopics,
  showSettings
} from './admin-schemas.ts'

export interface AdminRoutesOptions {
  operator: Operator
  reads: Pick<Reads, 'ask'>
}

/** /admin/api: what who operates the server may know and do. Section 12 of the contract. */
export const adminRoutes: FastifyPluginAsyncTypebox<AdminRoutesOptions> = async (
  app,
  { operator, reads }
) => {
  app.addHook('onRequest', async ({ grant }) => requireAdmin(grant))

  app.get('/admin/api/instances', { schema: listInstances }, (request, reply) =>
    reads.ask(request, reply, () => operator.instances())
  )

  app.get('/admin/api/connections', { schema: listConnections }, (request, reply) => {
    const { transport, user, topic, state, after, limit = 100 } = request.query
    const query = { transport, user, topic, state, after: readPlace(after), limit }
    return reads.ask(request, reply, () => operator.connections(query))
  })

  app.get('/admin/api/topics', { schema: listTopics }, (request, reply) =>
    reads.ask(request, reply, () => operator.topics(request.query.limit ?? 100))
  )

  app.get('/admin/api/gaps', { schema: listGaps }, (request, reply) =>
    reads.ask(request, reply, () => operator.gaps())
  )

  app.get('/admin/api/settings', { schema: showSettings }, (request, reply) =>
    reads.ask(request, reply, () => operator.settings())
  )

  app.delete('/admin/api/connections/:id', { schema: disconnect }, ({ params, grant }) =>
    operator.disconnect(params.id, grant.sub)
  )

  app.delete('/admin/api/users/:sub/connections', { schema: disconnectUser }, ({ params, grant }) =>
    operator.disconnectUser(params.sub, grant.sub)
  )

  app.delete('/admin/api/topics/*', { schema: clearTopic }, ({ params, grant }) =>
    operator.clear(params['*'], grant.sub)
  )

  app.post('/admin/api/instances/:id/drain', { schema: drainInstance }, async ({ params, grant }, reply) => {
    const drained = await operator.drain(params.id, grant.sub)
    return reply.code(202).send(drained)
  })
}

function readPlace(text: string | undefined): ConnectionPlace | undefined {
  if (text === undefined) return undefined
  const place = parsePlace(text)
  if (!place) throw noPlace(text)
  return place
}

function noPlace(text: string): Problem {
  return wrong('malformed', 'after', `${JSON.stringify(text)} is not the "next" of a page`)
}
