import { fileURLToPath } from 'node:url'
import fastifyStatic from '@fastify/static'
import fastifySwaggerUi from '@fastify/swagger-ui'
import type { FastifyPluginAsync } from 'fastify'
import type { Metrics } from '../metrics.ts'
import { Problem } from '../problem.ts'

export interface OperationsOptions {
  metrics: Metrics
  /** Why the server can't serve now; null while it can. */
  unready(): string | null
  /** Brings what is only known when asked into the metrics. */
  measure(): void
  /** Whether the live page and the description of the API are served as well. */
  pages: boolean
}

const PUBLIC = fileURLToPath(new URL('../../public', import.meta.url))
const CHART = fileURLToPath(new URL('.', import.meta.resolve('uplot')))

/** For operators: health, metrics, the description of the API, and the live page. Sections 8 and 9 of the contract. */
export const operationsRoutes: FastifyPluginAsync<OperationsOptions> = async (
  app,
  { metrics, unready, measure, pages }
) => {
  app.get('/livez', { schema: { tags: ['operations'] } }, async () => ({ status: 'ok' }))

  app.get('/readyz', { schema: { tags: ['operations'] } }, async () => {
    const reason = unready()
    if (reason) throw new Problem('unavailable', reason, [], 1)
    return { status: 'ok' }
  })

  app.get('/metrics', { schema: { tags: ['operations'] } }, async (_request, reply) => {
    measure()
    return reply.type(metrics.registry.contentType).send(await metrics.registry.metrics())
  })

  if (!pages) return
  app.get('/openapi.json', { schema: { hide: true } }, async () => app.swagger())
  await app.register(fastifySwaggerUi, { routePrefix: '/docs' })

  await app.register(fastifyStatic, { root: PUBLIC, wildcard: false })
  await app.register(fastifyStatic, { root: CHART, prefix: '/chart/', wildcard: false, decorateReply: false })
}
