import { STATUS_CODES } from 'node:http'
import type { Http2SecureServer } from 'node:http2'
import { isIP, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { compile as compileProxies } from '@fastify/proxy-addr'
import closeWithGrace from 'close-with-grace'
import Fastify, { LogController, type ConnectionError, type FastifyInstance } from 'fastify'
import { answerProblem, ringside } from '../app.ts'
import { ConfigError, hasKeys, readSettings, type Settings } from '../config.ts'
import { endConnection } from '../net/ending.ts'
import { bound, boundsOf, type Bounds } from '../net/sockets.ts'
import { StreamRequest } from '../net/stream-request.ts'
import { Tls } from '../net/tls.ts'
import { problemDetails } from '../problem.ts'
import { isWorker, obey, scrapeAll, STOP_SIGNALS, supervise } from './workers.ts'

export type { Bounds }

/**
 * Connections that may wait until they are taken. When all clients of another instance come at once, the system lets those
 * beyond it wait for seconds, or resets them; it allows no more than net.core.somaxconn.
 */
const BACKLOG = 65_535

/** How long the last answers may take after the streams are gone, in milliseconds. */
const LAST_ANSWERS_MS = 2000

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
  bounds = boundsOf(settings, descriptorLimit())
): Promise<{ app: FastifyInstance; tls: Tls | null }> {
  requireLoopback(settings)
  const tls = settings.TLS_CERT ? new Tls(settings, { request: bounds.requestTimeout }) : null
  const secure = tls && { http2: true, http2SessionTimeout: 0, https: tls.options }
  const app = Fastify({
    ...((secure ?? { http: { IncomingMessage: StreamRequest } }) as object),
    requestTimeout: bounds.requestTimeout,
    trustProxy: trustProxy(settings.TRUST_PROXY),
    clientErrorHandler: answerClientError,
    logger: {
      level: settings.LOG_LEVEL,
      serializers: {
        // a URL may hold a token
        req: ({ method, url, ip }) => ({ method, path: url.split('?')[0], ip })
      }
    },
    // a stream's request ends when its connection does, hours later: neither line would help
    logController: new LogController({ disableRequestLogging: true }),
    frameworkErrors: answerProblem,
    forceCloseConnections: 'idle',
    // a stream that comes late is told goodbye, not 503
    return503OnClosing: false,
    routerOptions: { maxParamLength: 1024 },
    ajv: { customOptions: { coerceTypes: 'array', removeAdditional: false } }
  })
  bound(app, bounds)
  await app.register(ringside, {
    settings: { ...settings, DEMO: settings.DEMO ?? !hasKeys(settings) },
    maxConnections: bounds.maxConnections,
    ...(isWorker() && { scrape: scrapeAll }),
    pages: true
  })
  if (tls) {
    tls.guard(app.server as unknown as Http2SecureServer)
    app.addHook('preClose', async () => tls.retire())
  }
  return { app, tls }
}

/** Runs the server until it is told to stop. Ends the process: 0 after a signal, 1 when it can't start. */
export async function serve(env: Record<string, string | undefined>): Promise<void> {
  try {
    const settings = readSettings(env)
    if (settings.WORKERS > 1 && !isWorker()) return serveByWorkers(settings)
    const { app, tls } = await build(settings)
    process.on('SIGHUP', () => renew(app, tls))
    stopWithGrace(app, tls, settings)
    const address = await app.listen({ host: settings.HOST, port: settings.PORT, backlog: BACKLOG })
    if (!isWorker()) greet(address, settings)
  } catch (error) {
    // what the system refuses to listen on has a syscall and says it in a line
    const expected = error instanceof ConfigError || (error as NodeJS.ErrnoException).syscall
    console.error(expected ? `ringside: ${(error as Error).message}` : error)
    process.exit(1)
  }
}

/** One process for each worker, and this one over them. */
function serveByWorkers(settings: Settings): void {
  const { WORKERS, HOST, TLS_CERT } = settings
  supervise({
    count: WORKERS,
    stopTimeout: stopTimeout(settings) + LAST_ANSWERS_MS,
    // recorded prices that are fed by each of them would be fed several times
    environment: slot => (slot === 0 ? {} : { DEMO: 'false' }),
    started: port =>
      greet(`http${TLS_CERT ? 's' : ''}://${isIP(HOST) === 6 ? `[${HOST}]` : HOST}:${port}`, settings),
    log: message => console.error(`ringside: ${message}`)
  })
}

/** On SIGHUP: a certificate that can't be used is no reason to stop, and none to end what is open. */
function renew({ log }: FastifyInstance, tls: Tls | null): void {
  if (!tls) return log.info('SIGHUP: there is no certificate to read again')
  try {
    log.info(`SIGHUP: the certificate was read again; it is valid until ${tls.renew()}`)
  } catch (error) {
    log.error(`SIGHUP: the certificate stays as it was: ${(error as Error).message}`)
  }
}

function stopWithGrace(app: FastifyInstance, tls: Tls | null, settings: Settings): void {
  const skip = ['SIGHUP' as const, ...(isWorker() ? STOP_SIGNALS : [])]
  const { close } = closeWithGrace(
    { delay: stopTimeout(settings), logger: app.log, skip },
    async ({ err }) => {
      if (err) app.log.fatal(err)
      app.log.info(
        `stopping: ${app.ringside.hub.connections.size} connections end within ${settings.DRAIN} ms`
      )
      tls?.retire()
      await app.ringside.drain()
      // a connection that has not asked for anything yet would keep it open
      setTimeout(() => app.server.closeAllConnections?.(), LAST_ANSWERS_MS).unref()
      // so would a peer that doesn't read, or doesn't hang up: those end with the process
      await Promise.race([app.close(), delay(2 * LAST_ANSWERS_MS)])
    }
  )
  const { registry } = app.ringside.metrics
  if (isWorker()) obey({ stop: close, measure: () => registry.getMetricsAsJSON() })
}

function stopTimeout({ DRAIN }: Settings): number {
  return DRAIN + 3 * LAST_ANSWERS_MS
}

function greet(address: string, settings: Settings): void {
  const { WORKERS, MAX_CONNECTIONS } = settings
  const { maxConnections, maxSockets } = boundsOf(settings, descriptorLimit())
  const together = (most: number) => (most === Infinity ? 'any number of' : most * WORKERS)
  const header = hasKeys(settings) ? " -H 'Authorization: Bearer …'" : ''
  console.log(`
Ringside runs on ${address}, on ${settings.REDIS_URL ? 'Redis' : 'the embedded memory broker'}.

  ${access(settings).join('\n  ')}

  Look      ${address}/        the live page
            ${address}/docs    the API
  Listen    curl -N${header} '${address}/events?topic=hello'
  Publish   curl${header} -d 'Hello!' ${address}/events/hello
  Room      for ${together(maxConnections)} streams, and ${together(maxSockets)} sockets in all
`)
  if (maxConnections > maxSockets && maxConnections < Infinity) {
    console.error(
      `ringside: MAX_CONNECTIONS=${MAX_CONNECTIONS}: there are too few descriptors; raise ulimit -Hn`
    )
  }
}

/** Who may what, in lines. */
function access(settings: Settings): string[] {
  if (!hasKeys(settings)) {
    const loud = ['DEVELOPMENT MODE: no key is configured, so everyone may read and write everything.']
    return settings.INSECURE ? [...loud, 'INSECURE is set: that is everyone who reaches this address.'] : loud
  }
  const keys = (['JWT_SECRET', 'JWT_PUBLIC_KEY', 'JWKS_URL'] as const).filter(name => settings[name] !== '')
  const patterns = settings.ANONYMOUS_SUBSCRIBE
  return [
    `Tokens are checked with ${keys.join(', ')}.`,
    `Without a token ${patterns.length > 0 ? patterns.join(', ') : 'nothing'} may be read.`
  ]
}

function requireLoopback(settings: Settings): void {
  const { HOST, INSECURE } = settings
  const loopback = HOST === 'localhost' || HOST === '::1' || (isIP(HOST) === 4 && HOST.startsWith('127.'))
  if (loopback || INSECURE || hasKeys(settings)) return
  throw new ConfigError(
    `HOST=${HOST}: without a key everyone may do everything, so only a loopback address is allowed; set JWT_SECRET, JWT_PUBLIC_KEY or JWKS_URL; INSECURE=true overrides it`
  )
}

function trustProxy(text: string): boolean | string[] {
  if (text === 'true' || text === 'false') return text === 'true'
  const addresses = text.split(',').map(address => address.trim())
  try {
    compileProxies(addresses)
  } catch (error) {
    throw new ConfigError(
      `TRUST_PROXY=${text}: it must be true, false or a list of addresses: ${(error as Error).message}`
    )
  }
  return addresses
}

/** Answers what could not be read as HTTP. */
function answerClientError(error: ConnectionError, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy()
  const status = CLIENT_ERRORS[error.code] ?? 400
  const body = JSON.stringify(problemDetails(status, `the request can't be read: ${error.code}`))
  // an answer to HEAD has no content: what follows would be taken for the next one (RFC 9110, section 9.3.2). The bytes of
  // the request are a Buffer, whatever their type says
  const packet = error.rawPacket as unknown as Buffer | undefined
  const content = packet?.toString('latin1', 0, 5) === 'HEAD ' ? '' : body
  endConnection(
    socket,
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\n` +
      `Content-Type: application/problem+json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${content}`
  )
}

const CLIENT_ERRORS: Record<string, number> = { HPE_HEADER_OVERFLOW: 431, ERR_HTTP_REQUEST_TIMEOUT: 408 }

/** How many descriptors a process may have; `Infinity` where there is no limit. Node has raised it as far as it may. */
function descriptorLimit(): number {
  const report = process.report.getReport() as { userLimits?: { open_files?: { soft: number | string } } }
  return Number(report.userLimits?.open_files?.soft) || Infinity
}
