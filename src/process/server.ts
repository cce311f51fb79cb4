import type { Http2SecureServer } from 'node:http2'
import { isIP } from 'node:net'
import { inspect } from 'node:util'
import Fastify, { LogController, type FastifyInstance } from 'fastify'
import { answerProblem, ringside } from '../app.ts'
import { ConfigError, hasKeys, readSettings, type Settings } from '../config.ts'
import { defaultMemory } from '../memory.ts'
import { serveInRounds } from '../net/rounds.ts'
import { bound, boundsOf, type Bounds } from '../net/sockets.ts'
import { StreamRequest } from '../net/stream-request.ts'
import { Tls } from '../net/tls.ts'
import { collectSoonerWhenFull } from './collection.ts'
import { exemptAddresses, requireLoopback, trustedProxies } from './exposure.ts'
import { greet } from './greeting.ts'
import { addressesOf, listenOn } from './listening.ts'
import { loggerOf, warn } from './log.ts'
import { LAST_ANSWERS_MS, renewOnHangup, stopTimeout, stopWithGrace } from './signals.ts'
import { supervise } from './supervisor.ts'
import { answerUnreadable } from './unreadable.ts'
import { fail, isWorker, scrapeAll, slotEnvironment, workerSlot } from './worker.ts'

/** Runs the server until it is told to stop. Ends the process: 0 after a signal, 1 when it can't start. */
export async function serve(env: Record<string, string | undefined>): Promise<void> {
  try {
    const settings = completed(readSettings(env))
    if (settings.WORKERS > 1 && !isWorker()) serveByWorkers(settings)
    else await serveAlone(settings)
  } catch (error) {
    // what the system refuses to listen on has a syscall and says it in a line
    const expected = error instanceof ConfigError || (error as NodeJS.ErrnoException).syscall
    const why = expected ? (error as Error).message : inspect(error)
    // of all workers, which have the same settings, the supervisor says it once
    if (isWorker()) await fail(why)
    else console.error(expected ? `ringside: ${why}` : why)
    process.exit(1)
  }
}

/** In this process: the only one, or a worker. */
async function serveAlone(settings: Settings): Promise<void> {
  const bounds = systemBounds(settings)
  const { app, tls } = await build(settings, bounds)
  renewOnHangup(app, tls)
  stopWithGrace(app, tls, settings)
  collectSoonerWhenFull()
  const address = await listenOn(app, await addressesOf(settings.HOST), settings.PORT)
  if (!isWorker()) greet(address, settings, bounds)
}

/** In a process for each worker, with this one over them. */
function serveByWorkers(settings: Settings): void {
  const { WORKERS, HOST, TLS_CERT } = settings
  const origin = `http${TLS_CERT ? 's' : ''}://${isIP(HOST) === 6 ? `[${HOST}]` : HOST}`
  let hasStarted = false
  supervise({
    count: WORKERS,
    stopTimeout: stopTimeout(settings) + LAST_ANSWERS_MS,
    // recorded prices that are fed by each of them would be fed several times
    environment: slot => ({ ...slotEnvironment(slot), ...(slot > 0 && { DEMO: 'false' }) }),
    started: port => {
      hasStarted = true
      greet(`${origin}:${port}`, settings, systemBounds(settings))
    },
    // what keeps it from starting is for whoever starts it
    warn: message => (hasStarted ? warn(message) : console.error(`ringside: ${message}`))
  })
}

/**
 * Builds the server: Fastify with Ringside on it, held to what the settings and the system allow, or to other bounds. It
 * doesn't listen yet. Throws a `ConfigError`.
 */
export async function createServer(settings: Settings, bounds?: Bounds): Promise<FastifyInstance> {
  return (await build(settings, bounds)).app
}

/** The server, and its TLS where it has any. */
async function build(
  settings: Settings,
  bounds = systemBounds(settings)
): Promise<{ app: FastifyInstance; tls: Tls | null }> {
  requireLoopback(settings)
  const tls = settings.TLS_CERT ? new Tls(settings, { request: bounds.requestTimeout }) : null
  const app = fastifyFor(settings, bounds, tls)
  serveInRounds(app.server)
  bound(app, bounds, exemptAddresses(settings))
  await app.register(ringside, {
    settings: completed(settings),
    maxConnections: bounds.maxConnections,
    ...(isWorker() && { scrape: scrapeAll, worker: workerSlot() }),
    pages: true
  })
  if (tls) {
    tls.guard(app.server as unknown as Http2SecureServer)
    app.ringside.metrics.watch({ certificateExpires: () => tls.expires })
    app.addHook('preClose', async () => tls.retire())
  }
  return { app, tls }
}

/** Settings whose defaults depend on others, or on the machine. */
function completed(settings: Settings): Settings {
  const { DEMO = !hasKeys(settings), MEMORY = defaultMemory(process.constrainedMemory()) } = settings
  return { ...settings, DEMO, MEMORY }
}

function fastifyFor(settings: Settings, { requestTimeout }: Bounds, tls: Tls | null): FastifyInstance {
  const secure = tls && { http2: true, http2SessionTimeout: 0, https: tls.options }
  return Fastify({
    ...((secure ?? { http: { IncomingMessage: StreamRequest } }) as object),
    requestTimeout,
    // a store on a slow disk takes its time to open
    pluginTimeout: 0,
    trustProxy: trustedProxies(settings.TRUST_PROXY),
    clientErrorHandler: answerUnreadable,
    logger: loggerOf(settings),
    // a stream's request ends when its connection does, hours later: neither line would help
    logController: new LogController({ disableRequestLogging: true }),
    frameworkErrors: answerProblem,
    forceCloseConnections: 'idle',
    // a stream that comes late is told goodbye, not 503
    return503OnClosing: false,
    routerOptions: { maxParamLength: 1024 },
    ajv: { customOptions: { coerceTypes: 'array', removeAdditional: false } }
  })
}

/** What the settings and the system allow. Node has raised the limit of descriptors as far as it may. */
function systemBounds(settings: Settings): Bounds {
  const report = process.report.getReport() as { userLimits?: { open_files?: { soft: number | string } } }
  // streams may have as much as MEMORY has by default: the other half
  return boundsOf(
    settings,
    Number(report.userLimits?.open_files?.soft) || Infinity,
    defaultMemory(process.constrainedMemory())
  )
}
