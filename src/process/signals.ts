import { setTimeout as delay } from 'node:timers/promises'
import closeWithGrace from 'close-with-grace'
import type { FastifyInstance } from 'fastify'
import type { Settings } from '../config.ts'
import type { Tls } from '../net/tls.ts'
import { STOP_SIGNALS } from './messages.ts'
import { isWorker, obey } from './worker.ts'

/** How long the last answers may take after the streams are gone, in milliseconds. */
export const LAST_ANSWERS_MS = 2000

/** How long a process may take to stop, in milliseconds. */
export function stopTimeout({ DRAIN }: Settings): number {
  return DRAIN + 3 * LAST_ANSWERS_MS
}

/**
 * Reads the certificate and the rules for topics again on SIGHUP. What can't be used is no reason to stop, and none to end
 * what is open: then what was goes on.
 */
export function renewOnHangup({ log, ringside }: FastifyInstance, tls: Tls | null): void {
  process.on('SIGHUP', () => {
    try {
      const rules = ringside.renewRules()
      if (rules !== null) log.info(`SIGHUP: the rules for topics were read again; there are ${rules}`)
    } catch (error) {
      log.error(`SIGHUP: the rules for topics stay as they were: ${(error as Error).message}`)
    }
    if (!tls) return log.info('SIGHUP: there is no certificate to read again')
    try {
      log.info(`SIGHUP: the certificate was read again; it is valid until ${tls.renew()}`)
    } catch (error) {
      log.error(`SIGHUP: the certificate stays as it was: ${(error as Error).message}`)
    }
  })
}

/**
 * Ends the process in good order: on a signal, or a worker when its supervisor says so, with 0; after an error that nobody
 * has caught with 1.
 */
export function stopWithGrace(app: FastifyInstance, tls: Tls | null, settings: Settings): void {
  let lastWords = async () => {}
  const skip = ['SIGHUP' as const, ...(isWorker() ? STOP_SIGNALS : [])]
  const { close } = closeWithGrace(
    { delay: stopTimeout(settings), logger: app.log, skip },
    async ({ err }) => {
      if (err) app.log.fatal(err)
      app.log.info(
        `stopping: ${app.ringside.hub.connections.size} connections end within ${settings.DRAIN} ms`
      )
      await closeInOrder(app, tls)
      await lastWords()
      app.log.info('stopped')
    }
  )
  if (!isWorker()) return
  // Nothing in front can leave out one of several processes on a port: it ends, and another one takes its place.
  app.ringside.onDrained = () => void close()
  const { metrics } = app.ringside
  lastWords = obey({
    stop: close,
    measure: () => metrics.registry.getMetricsAsJSON(),
    count: () => metrics.counts()
  })
}

async function closeInOrder(app: FastifyInstance, tls: Tls | null): Promise<void> {
  tls?.retire()
  await app.ringside.drain()
  // a connection that has not asked for anything yet would keep it open
  setTimeout(() => app.server.closeAllConnections?.(), LAST_ANSWERS_MS).unref()
  // so would a peer that doesn't read, or doesn't hang up: those end with the process
  await Promise.race([app.close(), delay(2 * LAST_ANSWERS_MS)])
}
