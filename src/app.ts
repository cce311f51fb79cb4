import { readFileSync } from 'node:fs'
import accepts from '@fastify/accepts'
import cors from '@fastify/cors'
import swagger from '@fastify/swagger'
import Fastify from 'fastify'
import type {
  FastifyBaseLogger,
  FastifyError,
  FastifyPluginAsync,
  FastifyReply,
  FastifyRequest
} from 'fastify'
import fastifyPlugin from 'fastify-plugin'
import { Type, type TSchema } from 'typebox'
import type { Broker } from './broker/broker.ts'
import type { Append } from './broker/event-log.ts'
import { BrokerUnavailable } from './broker/unavailable.ts'
import { LocalBroker } from './broker/local/broker.ts'
import { RedisBroker } from './broker/redis/broker.ts'
import { readRedisUrl } from './broker/redis/url.ts'
import { systemClock, type Clock } from './clock.ts'
import { ConfigError, hasKeys, readSettings, Settings } from './config.ts'
import { formatCursor, TYPE_PATTERN, type Data } from './event.ts'
import { Dashboards } from './feeds/dashboards.ts'
import { Demo } from './feeds/demo.ts'
import { Notifications } from './feeds/notifications.ts'
import { Tickers } from './feeds/tickers.ts'
import { guard, type AccessOptions, type Grant, type GrantOf } from './http/access.ts'
import { JsonInput, wrong } from './http/body.ts'
import { endUnread, StreamRequest, takeStreams } from './net/connection.ts'
import { dashboardsRoutes } from './http/routes/dashboards.ts'
import { describeApi } from './http/description.ts'
import { eventsRoutes } from './http/routes/events.ts'
import { Limits } from './http/limits.ts'
import { notificationsRoutes } from './http/routes/notifications.ts'
import { operationsRoutes } from './http/routes/operations.ts'
import { checkEvent, publishRoutes } from './http/routes/publish.ts'
import { Reads } from './http/reads.ts'
import type { ReadRequest } from './http/subscription.ts'
import { tickersRoutes } from './http/routes/tickers.ts'
import { websocketRoutes } from './websocket/endpoint.ts'
import { Hub } from './hub/hub.ts'
import { Metrics } from './metrics.ts'
import { Problem, problemDetails } from './problem.ts'
import { idOf, Publisher } from './publisher.ts'
import { Tokens } from './access/tokens.ts'

export { BrokerUnavailable, Problem, StreamRequest, type Grant, type GrantOf }

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string
}

/** What any system's buffer for a connection takes, in bytes. */
const SMALL_ANSWER = 16_384

/** What the plugin takes; everything has a default. */
export interface RingsideOptions {
  /** What every path begins with, such as `/live`. */
  prefix?: string
  settings?: PartialSettings
  /** The most streams at a time; `Infinity` for no limit. Default: `MAX_CONNECTIONS`, else none. */
  maxConnections?: number
  /** What /metrics answers, in the text exposition format of Prometheus. Default: the metrics of this instance. */
  scrape?: () => Promise<string>
  /** Also serve the live page, `/docs`, `/openapi.json`, and a 404 for every other path. Default: false. */
  pages?: boolean
  /** Finds out who asks and what they may, in place of tokens. What it throws is the answer. */
  grant?: GrantOf
  clock?: Clock
}

/** What to publish. */
export interface EventToPublish {
  /** The event's name; `message` when there is none. */
  readonly type?: string
  /** Text and bytes are kept as they are; anything else becomes compact JSON. */
  readonly data: unknown
  /** Seconds this event may be replayed. */
  readonly ttl?: number
  /** The same key again within 10 minutes stores nothing, and gives the first id. */
  readonly key?: string
}

/** A running instance, as `app.ringside`. */
export interface Ringside {
  readonly broker: Broker
  readonly hub: Hub
  readonly publisher: Publisher
  readonly metrics: Metrics
  /**
   * Resolves with the event's id once it is stored. Rejects with a `Problem` for what may not be published, and with
   * `BrokerUnavailable` when it may not have been stored.
   */
  publish(topic: string, event: EventToPublish): Promise<string>
  /** Takes no new streams and ends the open ones, spread over `DRAIN`; resolves when all are gone. */
  drain(): Promise<void>
}

declare module 'fastify' {
  interface FastifyInstance {
    ringside: Ringside
  }
}

/**
 * One instance of Ringside, as a Fastify plugin: the broker, the hub, and the routes over them. It never listens. What
 * the app around it gets is `app.ringside`; all else (routes, errors, parsers, CORS) stays inside.
 */
export const ringside = fastifyPlugin<RingsideOptions>(
  async (app, options) => {
    const { prefix = '', maxConnections, scrape, pages = false, grant } = options
    const { clock, stop } = stoppable(options.clock ?? systemClock)
    const settings = resolveSettings(options.settings)
    // a key that is none is told before anything is started
    const accessBy = grant ?? (hasKeys(settings) ? new Tokens(settings, clock, app.log) : 'development')
    const metrics = new Metrics(version)
    const broker = openBroker(settings, clock, app.log)
    const hub = new Hub(broker.log, broker.roster, settings, clock, metrics)
    const publisher = new Publisher(broker.log, metrics)
    await broker.log.start(hub)
    let draining = false
    const instance: Ringside = {
      ...{ broker, hub, publisher, metrics },
      publish: async (topic, event) => {
        const [appended] = await publisher.publish([toAppend(topic, event, settings)], 'events')
        return formatCursor(idOf(appended!))
      },
      drain: () => {
        draining = true
        return hub.connections.drain(settings.DRAIN)
      }
    }
    app.decorate('ringside', instance)
    app.addHook('onClose', async () => {
      await broker.close()
      stop()
    })
    await app.register(rooms, {
      // ends in a slash, so that what CORS has under /live is not also under /livestock
      prefix: prefix.replace(/\/*$/, '/'),
      ...{ instance, settings, clock, pages, accessBy },
      maxConnections: maxConnections ?? (settings.MAX_CONNECTIONS || Infinity),
      scrape: scrape ?? (() => metrics.registry.metrics()),
      draining: () => draining
    })
  },
  { name: 'ringside-hub', fastify: '5.x' }
)

interface RoomsOptions {
  instance: Ringside
  settings: Settings
  clock: Clock
  pages: boolean
  accessBy: AccessOptions['by']
  maxConnections: number
  scrape(): Promise<string>
  draining(): boolean
}

/** Everything that the app around must not see. */
const rooms: FastifyPluginAsync<RoomsOptions> = async (app, options) => {
  const { instance, settings, clock, pages, accessBy, maxConnections, scrape, draining } = options
  const { broker, hub, publisher, metrics } = instance
  const tickers = new Tickers(broker.log, publisher)
  const dashboards = new Dashboards(broker.log, publisher, settings.MAX_EVENT_BYTES)

  // what the app around has set for its own schemas and errors is not for ours
  app.setValidatorCompiler(await ownValidatorCompiler())
  app.setSerializerCompiler(() => data => JSON.stringify(data))
  app.setSchemaErrorFormatter(
    (errors, part) =>
      new Error(errors.map(({ instancePath, message }) => `${part}${instancePath} ${message}`).join(', '))
  )
  app.setErrorHandler(answerProblem)
  app.addHook('onSend', async (request, reply, payload) => {
    // else a connection that was busy when the server stopped would keep it open
    if (draining() && request.raw.httpVersionMajor === 1) reply.header('connection', 'close')
    if (!isTakenWhole(request, payload)) endUnread(reply, settings.STALL_TIMEOUT)
  })
  // an app that has CORS for all of its routes has it for ours
  if (!app.hasRequestDecorator('corsPreflightEnabled')) {
    await app.register(cors, corsOptions(settings.CORS_ORIGIN))
  }
  const closed = () => (draining() ? 'shutdown' : broker.log.up ? null : 'unavailable')
  const refusal = () => (hub.connections.taken >= maxConnections ? 'full' : closed())
  const limits = new Limits({
    tally: broker.tally,
    settings,
    clock,
    metrics,
    development: accessBy === 'development'
  })
  const reads = new Reads({ hub, metrics, clock, settings, limits, refusal, closed })
  // after CORS: a preflight carries nothing that shows who asks
  guard(app, {
    ...{ by: accessBy, settings, metrics },
    turnAway: (request, reply) => reads.turnAway(request as ReadRequest, reply, 'unavailable')
  })
  // after who asks: a user counts as one client wherever they are
  limits.limitWrites(app)
  await app.register(accepts)
  if (pages) {
    app.setNotFoundHandler((request, reply) =>
      sendProblem(reply, 404, `${request.method} ${pathOf(request)} is not here`)
    )
    await app.register(swagger, describeApi(version))
  }
  takeStreams(app)

  const notifications = new Notifications(broker.log, publisher, clock)
  await app.register(eventsRoutes, { reads, settings })
  await app.register(publishRoutes, { publisher, settings })
  await app.register(tickersRoutes, { tickers, reads, settings })
  await app.register(dashboardsRoutes, { dashboards, reads, settings })
  await app.register(notificationsRoutes, { notifications, reads, settings })
  await app.register(websocketRoutes, {
    ...{ hub, publisher, notifications, metrics, clock, settings, limits, refusal },
    roster: broker.roster
  })
  await app.register(operationsRoutes, {
    ...{ scrape, pages },
    unready: () =>
      draining() ? 'the server is stopping' : broker.log.up ? null : 'the broker does not answer'
  })

  if (settings.DEMO) {
    const demo = new Demo({
      publisher,
      tickers,
      dashboards,
      clock,
      log: app.log,
      connections: () => hub.connections.size
    })
    demo.start()
    app.addHook('preClose', async () => demo.stop())
  }
  // what keeps the server open: see Fastify's order of closing
  app.addHook('preClose', () => hub.connections.drain(0))
}

/** Whether an answer leaves us at once, whoever reads it: not by HTTP/2, where the peer says how much it takes. */
function isTakenWhole({ raw }: FastifyRequest, payload: unknown): boolean {
  if (raw.httpVersionMajor === 2) return false
  if (typeof payload !== 'string' && !Buffer.isBuffer(payload)) return payload == null
  return payload.length <= SMALL_ANSWER
}

/** A clock, and what makes its timers run out in silence: else what starts itself over would outlive the app. */
function stoppable(clock: Clock): { clock: Clock; stop: () => void } {
  let stopped = false
  return {
    clock: {
      now: () => clock.now(),
      after: (ms, callback) => clock.after(ms, () => !stopped && callback()),
      soon: callback => clock.soon(callback)
    },
    stop: () => (stopped = true)
  }
}

/** Fastify's own, whatever the app around has set: a query's `topic=a` is also a list of one. */
async function ownValidatorCompiler() {
  const app = Fastify({ ajv: { customOptions: { coerceTypes: 'array', removeAdditional: false } } })
  // it is made for the first route that has a schema
  app.get('/', { schema: { querystring: {} } }, async () => '')
  await app.ready()
  const compiler = app.validatorCompiler!
  await app.close()
  return compiler
}

function openBroker(settings: Settings, clock: Clock, log: FastifyBaseLogger): Broker {
  if (!settings.REDIS_URL) return new LocalBroker(settings, clock)
  return new RedisBroker(readRedisUrl(settings.REDIS_URL), settings, clock, (stage, { message }) =>
    log.warn({ stage }, `Redis: ${message}`)
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

// --- settings ---

/**
 * Settings by the names of their environment variables: as text, as they would stand there (`'1h'`), or as the program
 * uses them (milliseconds, bytes, booleans, lists).
 */
export type PartialSettings = { readonly [Name in keyof Settings]?: Settings[Name] | string | undefined }

/** All settings: the given ones, and the defaults. Reads no environment. Throws a `ConfigError`. */
export function resolveSettings(partial: PartialSettings = {}): Settings {
  const unknown = Object.keys(partial).find(name => !(name in Settings.properties))
  if (unknown !== undefined) throw new ConfigError(`${unknown}: there is no such setting`)
  return readSettings(
    Object.fromEntries(
      Object.entries(partial).map(([name, value]) => [
        name,
        textOf(Settings.properties[name as keyof Settings], value)
      ])
    )
  )
}

/** A setting as its environment variable would have it. */
function textOf(schema: TSchema, value: PartialSettings[keyof Settings]): string | undefined {
  if (value === undefined || typeof value === 'string') return value
  // as text, a bare number is seconds
  const isDuration = 'pattern' in schema && new RegExp(schema.pattern as string).test('1ms')
  return isDuration && value !== 0 ? `${value}ms` : String(value)
}

// --- publishing from the program ---

const Published = Type.Object({
  type: Type.Optional(Type.String({ pattern: TYPE_PATTERN })),
  ttl: Type.Optional(Type.Integer({ minimum: 1, maximum: 315_360_000 })),
  key: Type.Optional(Type.String({ minLength: 1, maxLength: 255 }))
})

/** The event as the broker takes it. Throws a `Problem` where a publisher over HTTP would be refused. */
function toAppend(topic: string, event: EventToPublish, { MAX_EVENT_BYTES }: Settings): Append {
  const { type = 'message', ttl, key } = new JsonInput(event, () => '', true).as(Published)
  const append = {
    topic,
    type,
    data: toData(event.data),
    ...(ttl !== undefined && { ttl }),
    ...(key !== undefined && { key })
  }
  checkEvent(append, MAX_EVENT_BYTES)
  return append
}

function toData(value: unknown): Data {
  if (typeof value === 'string') return value
  // a copy: whose the bytes are may use them again
  if (value instanceof Uint8Array) return Buffer.from(value)
  try {
    const json = JSON.stringify(value) as string | undefined
    if (json !== undefined) return json
  } catch (error) {
    throw wrong('malformed', 'data', `is not JSON: ${(error as Error).message}`)
  }
  throw wrong('malformed', 'data', `is not JSON: ${typeof value}`)
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
  // its own message repeats the query
  if (error.code === 'FST_ERR_BAD_URL')
    return void sendProblem(reply, 400, `${pathOf(request)} is not a path: its % codes are not UTF-8`)
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
