import type { FastifyInstance } from 'fastify'
import type { Grant } from '../access/grant.ts'
import type { Writer } from '../publisher.ts'
import { isWrite } from './access.ts'
import type { Limits } from './limits.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Of a request that changes something: who asks for it. */
    writer: Write
  }
}

/** One write of a client: a request, or a message of a WebSocket. It counts once, whatever becomes of it. */
export class Write implements Writer {
  readonly grant: Grant
  readonly #client: string | null
  readonly #limits: Limits
  #isCounted = false

  constructor(limits: Limits, grant: Grant, client: string | null) {
    this.#limits = limits
    this.grant = grant
    this.#client = client
  }

  take(): void {
    if (this.#isCounted) return
    this.#isCounted = true
    this.#limits.write(this.#client)
  }

  /** To be called when it is answered. One that was refused before it was counted must count as well. */
  settle(): void {
    if (this.#isCounted) return
    this.#isCounted = true
    this.#limits.countWrite(this.#client)
  }
}

/**
 * Limits how much the clients of an app write. A client that is past its rate is refused before its body is read, and all
 * others have a `writer`, by which the publisher counts them.
 */
export function limitWrites(app: FastifyInstance, limits: Limits): void {
  app.decorateRequest('writer')
  app.addHook('onRequest', (request, _reply, done) => {
    if (!request.is404 && isWrite(request)) {
      const client = limits.clientOf(request)
      limits.requireWrites(client)
      request.writer = new Write(limits, request.grant, client)
    }
    done()
  })
  app.addHook('onSend', (request, _reply, _payload, done) => {
    // a request that was refused before, or reads, has none
    const { writer } = request as Partial<typeof request>
    writer?.settle()
    done()
  })
}
