import { readFileSync } from 'node:fs'
import accepts from '@fastify/accepts'
import swagger from '@fastify/swagger'
import type { FastifyBaseLogger, FastifyInstance, FastifyPluginAsync, FastifyPluginCallback } from 'fastify'
import fastifyPlugin from 'fastify-plugin'
import type { Grant } from './access/grant.ts'
import { Tokens } from './access/tokens.ts'
import { Admin } from './admin/admin.ts'
import { ownName } from './admin/instance.ts'
import type { Broker } from './broker/broker.ts'
import { DiskBroker } from './broker/disk/broker.ts'
import { StoreDamaged } from './broker/disk/damaged.ts'
import { StoreUnusable } from './broker/disk/store.ts'
import { LocalBroker } from './broker/local/broker.ts'
import { RedisBroker } from './broker/redis/broker.ts'
import { redisTarget } from './broker/redis/url.ts'
import { BrokerUnavailable } from './broker/unavailable.ts'
import { stoppable, systemClock, type Clock } from './clock.ts'
import { ConfigError, hasKeys, resolveSettings, type PartialSettings, type Settings } from './config.ts'
import { Dashboards } from './feeds/dashboards.ts'
import { Demo, type DemoOptions } from './feeds/demo.ts'
import { Notifications } from './feeds/notifications.ts'
import { Tickers } from './feeds/tickers.ts'
import { guard, type AccessOptions, type GrantOf } from './http/access.ts'
import { Agents } from './http/agents.ts'
import { takeRawBodies } from './http/body.ts'
import { compressAnswers } from './http/compression.ts'
import { useCors } from './http/cors.ts'
import { guardAnswers } from './http/headers.ts'
import { answerLoopbackHosts, refuseSecondHost } from './http/hosts.ts'
import { Limits } from './http/limits.ts'
import { describeApi } from './http/openapi.ts'
import { noteMethods } from './http/methods.ts'
import { Notices } from './http/notices.ts'
import { answerNotFound, answerProblem, failureOf } from './http/problems.ts'
import { allowWaits, Reads } from './http/reads.ts'
import { adminRoutes } from './http/routes/admin.ts'
import { dashboardsRoutes } from './http/routes/dashboards.ts'
import { eventsRoutes } from './http/routes/events.ts'
import { notificationsRoutes } from './http/routes/notifications.ts'
import { operationsRoutes } from './http/routes/operations.ts'
import { publishRoutes } from './http/routes/publish.ts'
import { tickersRoutes } from './http/routes/tickers.ts'
import { useOwnCompilers } from './http/schemas.ts'
import { timeRequests } from './http/timing.ts'
import { TurnedAway } from './http/turned-away.ts'
import type { ReadRequest } from './http/wish.ts'
import { limitWrites } from './http/writes.ts'
import { Hub } from './hub/hub.ts'
import { defaultMemory, Memory } from './memory.ts'
import { Metrics } from './metrics.ts'
import { Answers, boundAnswers } from './net/answers.ts'
import { StreamRequest, takeStreams } from './net/stream-request.ts'
import { Problem } from './problem.ts'
import { publishEvent, type EventToPublish } from './program.ts'
import { Publisher } from './publisher.ts'
import { readRules, renewRules } from './rules/file.ts'
import type { Rules } from './rules/rules.ts'
import { maxMessage, websocketRoutes } from './websocket/endpoint.ts'

export { answerProblem, BrokerUnavailable, Problem, StreamRequest }
export type { EventToPublish, Grant, GrantOf }

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string
}

/** What the plugin takes; everything has a default. */
export interface RingsideOptions {
  /** What every path begins with, such as `/live`. */
  prefix?: string
  settings?: PartialSettings
  /** The most streams at a time; `Infinity` for no limit. Default: `MAX_CONNECTIONS`, else none. */
  maxConnections?: number
  /** What /metrics answers, in the text exposition format of Prometheus. Default: the metrics of this instance. */
  scrape?: () => Promise<string>
  /** Which of several processes on one port this one is, from 0: a label of a few metrics. Default: 0. */
  worker?: number
  /** Also serve the live page, `/docs`, `/openapi.json`, and a 404 for every other path. Default: false. */
  pages?: boolean
  /** Finds out who asks and what they may, in place of tokens. What it throws is the answer. */
  grant?: GrantOf
  clock?: Clock
}

/** A running instance, as `app.ringside`. */
export interface Ringside {
  readonly broker: Broker
  readonly hub: Hub
  readonly publisher: Publisher
  readonly memory: Memory
  readonly metrics: Metrics
  /** Where clients that are turned away are counted. */
  readonly turnedAway: TurnedAway
  /**
   * Resolves with the event's id once it is stored. Rejects with a `Problem` for what may not be published, and with
   * `BrokerUnavailable` when it may not have been stored.
   */
  publish(topic: string, event: EventToPublish): Promise<string>
  /**
   * Reads the rules for topics again, and says how many hold now; null where the settings name none. Throws a `ConfigError`
   * for what can't be used: then those of before go on.
   */
  renewRules(): number | null
  /** Takes no new streams and ends the open ones, spread over `DRAIN`; resolves when all are gone. */
  drain(): Promise<void>
  /** Called once an operator has drained it by the API. */
  onDrained: () => void
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
export const ringside: FastifyPluginCallback<RingsideOptions> = fastifyPlugin<RingsideOptions>(
  async (app, options) => {
    const { prefix = '', scrape, worker, pages = false, grant } = options
    const { clock, stop } = stoppable(options.clock ?? systemClock)
    const settings = resolveSettings(options.settings)
    // a key that is none is told before anything is started
    const accessBy = grant ?? (hasKeys(settings) ? new Tokens(settings, clock, app.log) : 'development')
    const rules = readRules(settings)
    const memory = new Memory(settings.MEMORY ?? defaultMemory())
    const metrics = new Metrics(version, memory, worker)
    const broker = await openBroker({ settings, clock, memory, metrics, log: app.log, rules })
    const hub = new Hub(broker.log, broker.roster, settings, clock, metrics, memory, rules)
    const publisher = new Publisher(broker.log, metrics, settings.MAX_EVENT_BYTES, clock, rules)
    await broker.log.start(hub)
    hub.onBroker = sayBroker(app.log, clock)
    const notices = new Notices(clock)
    const turnedAway = new TurnedAway(metrics, notices, app.log)
    const maxConnections = options.maxConnections ?? (settings.MAX_CONNECTIONS || Infinity)
    metrics.limit(limitsOf(settings, maxConnections))
    let draining = false
    const instance: Ringside = {
      ...{ broker, hub, publisher, memory, metrics, turnedAway },
      renewRules: () => {
        renewRules(rules, settings)
        return settings.TOPICS === '' ? null : rules.list.length
      },
      publish: async (topic, event) => {
        try {
          return await publishEvent(publisher, topic, event)
        } catch (error) {
          metrics.writesFailed.inc({ reason: failureOf(error) })
          throw error
        }
      },
      drain: () => {
        draining = true
        return hub.connections.drain(settings.DRAIN)
      },
      onDrained: () => {}
    }
    app.decorate('ringside', instance)
    app.addHook('onClose', async () => {
      await broker.close()
      stop()
    })
    await app.register(api, {
      // ends in a slash, so that what CORS has under /live is not also under /livestock
      prefix: prefix.replace(/\/*$/, '/'),
      ...{ instance, settings, clock, notices, pages, accessBy, maxConnections, worker },
      scrape: scrape ?? (() => metrics.registry.metrics()),
      draining: () => draining
    })
  },
  { name: 'ringside-hub', fastify: '5.x' }
)

interface ApiOptions {
  instance: Ringside
  settings: Settings
  clock: Clock
  notices: Notices
  pages: boolean
  accessBy: AccessOptions['by']
  maxConnections: number
  worker: number | undefined
  scrape(): Promise<string>
  draining(): boolean
}

/** All that is served. The app around must see none of it. */
const api: FastifyPluginAsync<ApiOptions> = async (app, options) => {
  const { instance, settings, clock, notices, pages, accessBy, maxConnections, scrape, draining } = options
  const { worker = null } = options
  const { broker, hub, publisher, memory, metrics, turnedAway } = instance
  const { log, roster, tally } = broker
  const closed = () => (draining() ? 'shutdown' : log.up ? null : 'unavailable')
  const refusal = () => (hub.connections.taken >= maxConnections ? 'full' : closed())
  const limits = new Limits({ tally, settings, clock, metrics, development: accessBy === 'development' })
  const answers = new Answers(memory, clock, settings.STALL_TIMEOUT)
  const agents = new Agents()
  const reads = new Reads({
    hub,
    metrics,
    clock,
    settings,
    limits,
    agents,
    answers,
    turnedAway,
    refusal,
    closed
  })
  const tickers = new Tickers(log, publisher)
  const dashboards = new Dashboards(log, publisher)
  const notifications = new Notifications(log, publisher, clock)

  await useOwnCompilers(app)
  const countNotFound = timeRequests(app, metrics.http)
  app.setErrorHandler(answerProblem)
  if (pages) answerNotFound(app, countNotFound)
  // before they are bounded: what counts is what goes out
  if (settings.COMPRESS) compressAnswers(app, memory)
  boundAnswers(app, answers, settings.STALL_TIMEOUT, draining)
  guardAnswers(app)
  refuseSecondHost(app)
  if (accessBy === 'development' && !settings.INSECURE) answerLoopbackHosts(app)
  await useCors(app, settings.CORS_ORIGIN)
  // after CORS: a preflight carries nothing that shows who asks
  guard(app, {
    ...{ by: accessBy, settings, metrics, notices, rules: hub.rules },
    turnAway: (request, reply) => reads.turnAway(request as ReadRequest, reply, 'unavailable')
  })
  // after who asks: a user counts as one client wherever they are
  limitWrites(app, limits, metrics)
  takeRawBodies(app, memory)
  await app.register(accepts)
  if (pages) await app.register(swagger, describeApi(version, app.prefix.replace(/\/$/, '')))
  takeStreams(app)
  allowWaits(app)

  const refuseOtherMethods = noteMethods(app)
  await app.register(eventsRoutes, { reads, settings })
  await app.register(publishRoutes, { publisher, settings })
  await app.register(tickersRoutes, { tickers, reads, settings })
  await app.register(dashboardsRoutes, { dashboards, reads, settings })
  await app.register(notificationsRoutes, { notifications, reads, settings })
  await app.register(websocketRoutes, {
    ...{ hub, roster, publisher, notifications, memory, metrics, clock, settings, limits },
    ...{ agents, turnedAway, refusal }
  })
  const reasons = { shutdown: 'the server is stopping', unavailable: 'the broker does not answer' }
  const unready = () => {
    const reason = closed()
    if (reason === 'unavailable') return broker.health.unusable ?? reasons[reason]
    return reason && reasons[reason]
  }
  const unwritable = () => broker.health.unwritable
  metrics.watch({
    ready: () => unready() === null,
    writable: () => unready() === null && unwritable() === null,
    draining,
    connections: () => hub.connections.size,
    keysFetched: () => (accessBy instanceof Tokens ? accessBy.keysFetched : null),
    rings: () => hub.measureRings()
  })
  const admin = new Admin({
    own: {
      ...{ name: ownName(), version, worker, hub, memory, settings, rules: hub.rules, clock, unready },
      isDraining: draining,
      drain: () => void instance.drain().then(() => instance.onDrained()),
      store: () => ({ kind: storeKind(settings), up: log.up, ...broker.health })
    },
    ...{ broker, hub, isShared: settings.REDIS_URL !== '' },
    refused: () => metrics.refused(),
    noteAct: (act, by, what) => app.log.info({ act, by, ...what }, `operator: ${act}`)
  })
  admin.start()
  await app.register(adminRoutes, { operator: admin.operator, reads })
  await app.register(operationsRoutes, { scrape, pages, unready, unwritable, rules: hub.rules })
  refuseOtherMethods()

  if (settings.DEMO) {
    await runDemo(app, {
      publisher,
      tickers,
      dashboards,
      notifications,
      clock,
      logger: app.log,
      connections: () => hub.connections.size
    })
  }
  // what keeps the server open: see Fastify's order of closing
  app.addHook('preClose', async () => reads.close())
  app.addHook('preClose', async () => admin.close())
  app.addHook('preClose', () => hub.connections.drain(0))
}

/** What turns clients away here. `connections`: the most of them; Infinity for no limit. */
function limitsOf(settings: Settings, connections: number): Parameters<Metrics['limit']>[0] {
  const { MAX_CONNECTIONS_PER_CLIENT, CONNECT_RATE, READ_RATE, WRITE_RATE, WRITE_BYTES } = settings
  const { MAX_EVENT_BYTES, MAX_BATCH_BYTES, MAX_PAGE_BYTES, MAX_TOPICS, WS_MESSAGE_RATE } = settings
  return {
    connections,
    clientConnections: MAX_CONNECTIONS_PER_CLIENT,
    rates: { connects: CONNECT_RATE, reads: READ_RATE, writes: WRITE_RATE, messages: WS_MESSAGE_RATE },
    writeBytes: WRITE_BYTES,
    sizes: {
      ...{ event: MAX_EVENT_BYTES, batch: MAX_BATCH_BYTES, page: MAX_PAGE_BYTES },
      message: maxMessage(settings)
    },
    topics: MAX_TOPICS
  }
}

function storeKind({ DATA_DIR, REDIS_URL }: Settings): 'memory' | 'disk' | 'redis' {
  if (DATA_DIR) return 'disk'
  return REDIS_URL ? 'redis' : 'memory'
}

/** Tells the log when the broker goes away, and when it is back. */
function sayBroker(log: FastifyBaseLogger, clock: Clock): (isUp: boolean) => void {
  let since = 0
  return isUp => {
    if (!isUp) {
      since = clock.now()
      return log.warn('the broker does not answer: what is published is answered 503, streams stay open')
    }
    const seconds = (clock.now() - since) / 1000
    log.warn({ seconds }, `the broker answers again, after ${seconds} s`)
  }
}

/** What a broker is made of. */
interface BrokerParts {
  readonly settings: Settings
  readonly clock: Clock
  readonly memory: Memory
  readonly metrics: Metrics
  readonly log: FastifyBaseLogger
  readonly rules: Rules
}

/** Throws a `ConfigError` where the store on disk can't be used. */
async function openBroker(parts: BrokerParts): Promise<Broker> {
  const { settings, clock, memory, metrics, log, rules } = parts
  if (settings.DATA_DIR) return openDisk(parts)
  if (!settings.REDIS_URL) return new LocalBroker(settings, clock, memory, rules)
  return new RedisBroker(
    redisTarget(settings),
    settings,
    clock,
    (stage, { message }) => log.warn({ stage }, `Redis: ${message}`),
    (op, kind) => metrics.brokerRefusals.inc({ op, kind }),
    memory,
    rules
  )
}

async function openDisk({ settings, clock, memory, metrics, log, rules }: BrokerParts): Promise<DiskBroker> {
  const { DATA_DIR } = settings
  const observer = {
    warn: (message: string) => log.warn(`the store in ${DATA_DIR}: ${message}`),
    flushed: (ms: number) => metrics.storeFlushSeconds.observe(ms / 1000)
  }
  try {
    const broker = await DiskBroker.open(DATA_DIR, settings, clock, memory, observer, rules)
    const limit = settings.MAX_STORE_BYTES
    metrics.watch({ store: async () => ({ ...(await broker.log.measure()), limit }) })
    return broker
  } catch (error) {
    if (error instanceof StoreUnusable) throw new ConfigError(`DATA_DIR=${DATA_DIR}: ${error.message}`)
    if (!(error instanceof StoreDamaged)) throw error
    throw new ConfigError(
      `DATA_DIR=${DATA_DIR}: it is damaged: ${error.message}; see \`ringside store check\``
    )
  }
}

/** Feeds the demo's topics until the app closes. */
async function runDemo(app: FastifyInstance, options: DemoOptions): Promise<void> {
  const demo = await Demo.open(options)
  demo.start()
  app.addHook('preClose', async () => demo.stop())
}
