import { readFileSync } from 'node:fs'
import { STATUS_CODES } from 'node:http'
import { isIP, type Socket } from 'node:net'
import { createSecureContext } from 'node:tls'
import { compile as compileProxies } from '@fastify/proxy-addr'
import closeWithGrace from 'close-with-grace'
import Fastify, { LogController, type ConnectionError, type FastifyInstance } from 'fastify'
import { answerProblem, ringside } from './app.ts'
import { ConfigError, readSettings, type Settings } from './config.ts'
import { StreamRequest } from './http/connection.ts'
import { problemDetails } from './problem.ts'

/** File descriptors that are kept for what is no stream: Redis, files, publishers, scrapes. */
const RESERVED_DESCRIPTORS = 1000

/** How long the last answers may take after the streams are gone, in milliseconds. */
const LAST_ANSWERS_MS = 2000

/** Builds the server: Fastify with Ringside on it. It doesn't listen yet. Throws a `ConfigError`. */
export async function createServer(settings: Settings): Promise<FastifyInstance> {
  requireLoopback(settings)
  const app = Fastify({
    ...(settings.TLS_CERT ? (tlsOptions(settings) as object) : { http: { IncomingMessage: StreamRequest } }),
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
  await app.register(ringside, {
    settings: { ...settings, DEMO: settings.DEMO ?? true },
    maxConnections: maxConnections(settings),
    pages: true
  })
  return app
}

/** Runs the server until it is told to stop. Ends the process: 0 after a signal, 1 when it can't start. */
export async function serve(env: Record<string, string | undefined>): Promise<void> {
  try {
    const settings = readSettings(env)
    const app = await createServer(settings)
    closeWithGrace({ delay: settings.DRAIN + 2 * LAST_ANSWERS_MS, logger: app.log }, async ({ err }) => {
      if (err) app.log.fatal(err)
      app.log.info(
        `stopping: ${app.ringside.hub.connections.size} connections end within ${settings.DRAIN} ms`
      )
      await app.ringside.drain()
      // a connection that has not asked for anything yet would keep it open
      setTimeout(() => app.server.closeAllConnections?.(), LAST_ANSWERS_MS).unref()
      await app.close()
    })
    const address = await app.listen({ host: settings.HOST, port: settings.PORT })
    greet(address, settings)
  } catch (error) {
    // what the system refuses to listen on has a syscall and says it in a line
    const expected = error instanceof ConfigError || (error as NodeJS.ErrnoException).syscall
    console.error(expected ? `ringside: ${(error as Error).message}` : error)
    process.exit(1)
  }
}

function greet(address: string, { INSECURE, REDIS_URL }: Settings): void {
  console.log(`
Ringside runs on ${address}, on ${REDIS_URL ? 'Redis' : 'the embedded memory broker'}.

  DEVELOPMENT MODE: no key is configured, so everyone may read and write everything.${
    INSECURE ? '\n  INSECURE is set: that is everyone who reaches this address.' : ''
  }

  Look      ${address}/        the live page
            ${address}/docs    the API
  Listen    curl -N '${address}/events?topic=hello'
  Publish   curl -d 'Hello!' ${address}/events/hello
`)
}

function requireLoopback({ HOST, INSECURE }: Settings): void {
  const loopback = HOST === 'localhost' || HOST === '::1' || (isIP(HOST) === 4 && HOST.startsWith('127.'))
  if (loopback || INSECURE) return
  throw new ConfigError(
    `HOST=${HOST}: without a key everyone may do everything, so only a loopback address is allowed; INSECURE=true overrides it`
  )
}

function tlsOptions({ TLS_CERT, TLS_KEY }: Settings) {
  const pair = { cert: pem('TLS_CERT', TLS_CERT), key: pem('TLS_KEY', TLS_KEY) }
  try {
    createSecureContext(pair)
  } catch (error) {
    throw new ConfigError(
      `TLS_CERT=${TLS_CERT}, TLS_KEY=${TLS_KEY}: no pair of PEM files: ${(error as Error).message}`
    )
  }
  return { http2: true, https: { allowHTTP1: true, ...pair } }
}

function pem(name: string, file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (error) {
    throw new ConfigError(`${name}=${file}: can't be read: ${(error as Error).message}`)
  }
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
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\n` +
      `Content-Type: application/problem+json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`
  )
}

const CLIENT_ERRORS: Record<string, number> = { HPE_HEADER_OVERFLOW: 431, ERR_HTTP_REQUEST_TIMEOUT: 408 }

/** What was set, or what the descriptors allow, less a reserve. */
function maxConnections({ MAX_CONNECTIONS }: Settings): number {
  if (MAX_CONNECTIONS !== undefined) return MAX_CONNECTIONS || Infinity
  const report = process.report.getReport() as { userLimits?: { open_files?: { soft: number | string } } }
  const descriptors = Number(report.userLimits?.open_files?.soft)
  return descriptors > 0 ? Math.max(descriptors - RESERVED_DESCRIPTORS, Math.ceil(descriptors / 2)) : Infinity
}
