import { readFileSync } from 'node:fs'
import accepts from '@fastify/accepts'
import cors from '@fastify/cors'
import swagger from '@fastify/swagger'
import type {
  FastifyBaseLogger,
  FastifyError,
  FastifyPluginAsync,
  FastifyReply,
  FastifyRequest
} from 'fastify'
import { BrokerUnavailable, type Broker } from './broker/broker.ts'
import { MemoryBroker } from './broker/memory.ts'
import { RedisBroker } from './broker/redis.ts'
import { readRedisUrl } from './broker/redis-connection.ts'
import { systemClock, type Clock } from './clock.ts'
import type { Settings } from './config.ts'
import { Dashboards } from './feeds/dashboards.ts'
import { Demo } from './feeds/demo.ts'
import { Notifications } from './feeds/notifications.ts'
import { Tickers } from './feeds/tickers.ts'
import { takeStreams } from './http/connection.ts'
import { dashboardsRoutes } from './http/dashboards.ts'
import { eventsRoutes } from './http/events.ts'
import { notificationsRoutes } from './http/notifications.ts'
import { operationsRoutes } from './http/operations.ts'
import { publishRoutes } from './http/publish.ts'
import { Reads } from './http/reads.ts'
import { tickersRoutes } from './http/tickers.ts'
import { Hub } from './hub/hub.ts'
import { Metrics } from './metrics.ts'
import { Problem, problemDetails } from './problem.ts'
import { Publisher } from './publisher.ts'

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string
}

/** What the plugin needs. */
export interface RingsideOptions {
  settings: Settings
  /** The most streams at a time; `Infinity` for no limit. */
  maxConnections: number
  clock?: Clock
}

/** A running instance, as `app.ringside`. */
export interface Ringside {
  readonly broker: Broker
  readonly hub: Hub
  readonly publisher: Publisher
  readonly metrics: Metrics
  /** Takes no new streams and ends the open ones, spread over `DRAIN`; resolves when all are gone. */
  drain(): Promise<void>
}

declare module 'fastify' {
  interface FastifyInstance {
    ringside: Ringside
  }
}

/** One instance of Ringside, as a Fastify plugin: the broker, the hub, and the routes over them. It never listens. */
export const ringside: FastifyPluginAsync<RingsideOptions> = async (app, options) => {
  const { settings, maxConnections, clock = systemClock } = options
  const metrics = new Metrics(version)
  const broker = openBroker(settings, clock, app.log)
  const hub = new Hub(broker, settings, clock, metrics)
  const publisher = new Publisher(broker, metrics)
  const tickers = new Tickers(broker, publisher)
  const dashboards = new Dashboards(broker, publisher, settings.MAX_EVENT_BYTES)
  await broker.start(hub)

  let draining = false
  const drain = () => {
    draining = true
    return hub.drain(settings.DRAIN)
  }
  app.decorate('ringside', { broker, hub, publisher, metrics, drain })

  app.addHook('onSend', async (request, reply) => {
    // else a connection that was busy when the server stopped would keep it open
    if (draining && request.raw.httpVersionMajor === 1) reply.header('connection', 'close')
  })
  app.setErrorHandler(answerProblem)
  app.setNotFoundHandler((request, reply) =>
    sendProblem(reply, 404, `${request.method} ${pathOf(request)} is not here`)
  )

  await app.register(cors, corsOptions(settings.CORS_ORIGIN))
  await app.register(swagger, { openapi: { info: { title: 'Ringside', version } } })
  await app.register(accepts)
  takeStreams(app)
  const reads = new Reads({
    ...{ hub, metrics, clock, settings, maxConnections },
    closed: () => (draining ? 'shutdown' : broker.up ? null : 'unavailable')
  })
  await app.register(eventsRoutes, { reads, settings })
  await app.register(publishRoutes, { publisher, settings })
  await app.register(tickersRoutes, { tickers, reads, settings })
  await app.register(dashboardsRoutes, { dashboards, reads, settings })
  await app.register(notificationsRoutes, {
    notifications: new Notifications(broker, publisher, clock),
    reads,
    settings
  })
  await app.register(operationsRoutes, {
    metrics,
    unready: () => (draining ? 'the server is stopping' : broker.up ? null : 'the broker does not answer'),
    measure: () => metrics.topics.set(hub.watched)
  })

  if (settings.DEMO) {
    const demo = new Demo({
      publisher,
      tickers,
      dashboards,
      clock,
      log: app.log,
      connections: () => hub.sessions.size
    })
    demo.start()
    app.addHook('preClose', async () => demo.stop())
  }
  // what keeps the server open: see Fastify's order of closing
  app.addHook('preClose', () => hub.drain(0))
  app.addHook('onClose', () => broker.close())
}

function openBroker(settings: Settings, clock: Clock, log: FastifyBaseLogger): Broker {
  if (!settings.REDIS_URL) return new MemoryBroker(settings, clock)
  return new RedisBroker(readRedisUrl(settings.REDIS_URL), settings, clock, (stage, { message }) =>
    log.warn({ stage, reason: message }, 'Redis does not answer')
  )
}

/** Credentials only for listed origins: with `*` no browser sends any. */
function corsOptions(origins: readonly string[]) {
  const any = origins.includes('*')
  return {
    origin: any ? '*' : [...origins],
    credentials: !any && origins.length > 0,
    methods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
    allowedHeaders: ['Authorization', 'Content-Type', 'Idempotency-Key', 'If-Match', 'Last-Event-ID'],
    exposedHeaders: ['ETag', 'Idempotent-Replayed', 'Retry-After', 'Ringside-Cursor'],
    maxAge: 86_400,
    strictPreflight: false
  }
}

// --- errors ---

/** Answers whatever was thrown, as problem+json. */
export function answerProblem(
  error: FastifyError | Problem | BrokerUnavailable,
  request: FastifyRequest,
  reply: FastifyReply
): void {
  if (error instanceof BrokerUnavailable) {
    return void sendProblem(
      reply.header('retry-after', 1),
      503,
      `${error.message}; what was to be stored may not be`
    )
  }
  if (error instanceof Problem) {
    if (error.retryAfter !== undefined) reply.header('retry-after', error.retryAfter)
    return void sendProblem(reply, error.statusCode, error.message, error.errors)
  }
  if (error.validation) {
    const errors = error.validation.map(({ instancePath, message = 'is not allowed' }) => ({
      path: `${error.validationContext ?? ''}${instancePath}`,
      message
    }))
    return void sendProblem(reply, 400, error.message, errors)
  }
  const status = error.statusCode ?? 500
  if (status < 500) return void sendProblem(reply, status, error.message)
  request.log.error(error)
  sendProblem(reply, status, 'something went wrong here; the log has more')
}

function sendProblem(reply: FastifyReply, status: number, detail: string, errors?: Problem['errors']) {
  return reply
    .code(status)
    .serializer(JSON.stringify)
    .type('application/problem+json')
    .send(problemDetails(status, detail, errors))
}

/** Without the query, which may hold a token. */
function pathOf({ url }: FastifyRequest): string {
  return url.split('?')[0]!
}
