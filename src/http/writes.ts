import type { FastifyInstance } from 'fastify'
import type { Grant } from '../access/grant.ts'
import type { Metrics } from '../metrics.ts'
import type { Writer } from '../publisher.ts'
import { isWrite } from './access.ts'
import type { Limits } from './limits.ts'
import { failureOf } from './problems.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Of a request that changes something: who asks for it. */
    writer: ClientWriter
  }
}

/** One write of a client: a request, or a message of a WebSocket. It counts, whatever becomes of it. */
export class ClientWriter implements Writer {
  readonly grant: Grant
  readonly #client: string | null
  readonly #limits: Limits
  #counted = 0

  constructor(limits: Limits, grant: Grant, client: string | null) {
    this.#limits = limits
    this.grant = grant
    this.#client = client
  }

  take(count = 1): void {
    const more = count - this.#counted
    if (more <= 0) return
    this.#counted = count
    this.#limits.write(this.#client, more)
  }

  /** Counts bytes of it. Throws a `Problem` past the rate. */
  takeBytes(bytes: number): void {
    this.#limits.writeBytes(this.#client, bytes)
  }

  /** To be called when a message is answered. One that was refused before it was counted must count as well. */
  settle(): void {
    if (this.#counted > 0) return
    this.#counted = 1
    this.#limits.countWrite(this.#client)
  }
}

/**
 * Limits how much the clients of an app write. A request that changes something has a `writer`, and is counted before its
 * body is read: who is past the rate must not make the server hold and parse bodies.
 */
export function limitWrites(
  app: FastifyInstance,
  limits: Limits,
  metrics: Pick<Metrics, 'writesFailed'>
): void {
  app.decorateRequest('writer')
  app.addHook('onError', (request, _reply, error, done) => {
    if (isWrite(request) && !request.is404) metrics.writesFailed.inc({ reason: failureOf(error) })
    done()
  })
  app.addHook('onRequest', (request, _reply, done) => {
    // there is none where nobody was asked: of what is open to everybody, or not here
    const { grant }: { grant?: Grant } = request
    if (grant && isWrite(request)) {
      request.writer = new ClientWriter(limits, grant, limits.clientOf(request))
      request.writer.take()
    }
    done()
  })
}
