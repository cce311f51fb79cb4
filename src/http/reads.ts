import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { Unwanted, type Asker } from '../asker.ts'
import { requireSubscribe } from '../access/grant.ts'
import type { Settings } from '../config.ts'
import type { GoodbyeReason } from '../wire/format.ts'
import { ReplyAnswer, varyBy } from './answer.ts'
import { Readers, type ReadersOptions, type ReadSpecial } from './readers.ts'
import type { Agents } from './agents.ts'
import type { Limits } from './limits.ts'
import { MOST_WAIT_S } from './query.ts'
import { callerOf, Wishes, type ReadRequest } from './wish.ts'

/**
 * Where the app around bounds how long a handler may take, those that read may take so long besides what they wait: a poll
 * that is held does what it was asked for. It is for routes that are registered after this call.
 */
export function allowWaits(app: FastifyInstance): void {
  const { handlerTimeout = 0 } = app.initialConfig as { readonly handlerTimeout?: number }
  if (handlerTimeout === 0) return
  app.addHook('onRoute', route => {
    if (route.config?.stream) route.handlerTimeout = handlerTimeout + MOST_WAIT_S * 1000
  })
}

interface ReadsOptions extends ReadersOptions {
  readonly limits: Limits
  /** What clients say that they are. */
  readonly agents: Agents
  readonly settings: ReadersOptions['settings'] & Pick<Settings, 'COMPRESS'>
}

/** The door of all routes that read: asks whether the reader may, makes a wish of the request, and has it served. */
export class Reads {
  readonly #limits: Limits
  readonly #wishes: Wishes
  readonly #readers: Readers
  /** What in a request the answer depends on. */
  readonly #vary: string

  constructor(options: ReadsOptions) {
    const { limits, clock, hub, settings } = options
    this.#limits = limits
    this.#wishes = new Wishes(limits, clock, hub.rules, settings.COMPRESS, options.agents)
    this.#readers = new Readers(options)
    this.#vary = settings.COMPRESS ? 'Accept, Accept-Encoding' : 'Accept'
  }

  /**
   * Answers a request to read what these filters cover; what it resolves with is for the handler to return. Rejects with
   * `Denied` unless the client may read all of it, and with a `Problem` for what else is wrong with the request.
   */
  async serve(
    request: ReadRequest,
    reply: FastifyReply,
    filters: readonly string[],
    special: ReadSpecial = {}
  ): Promise<unknown> {
    requireSubscribe(request.grant, filters)
    varyBy(reply, this.#vary)
    const wish = this.#wishes.read(request, filters, special.document !== undefined)
    return this.#readers.serve(wish, new ReplyAnswer(reply), special)
  }

  /**
   * Counts a read that a route answers itself, and asks for that answer; leaves once who asks has gone. Throws a `Problem`
   * past the rate of the client.
   */
  async ask<T>(
    request: FastifyRequest,
    reply: FastifyReply,
    question: (asker: Asker) => Promise<T>
  ): Promise<T | undefined> {
    this.#limits.read(this.#limits.clientOf(request))
    const answer = new ReplyAnswer(reply)
    try {
      return await question(answer)
    } catch (error) {
      if (!(error instanceof Unwanted)) throw error
      answer.leave()
    }
  }

  /** The server closes: nobody who was turned away is kept any longer. */
  close(): void {
    this.#readers.close()
  }

  /** Turns away a reader of whom it can't be found out now who it is. Throws a `Problem` as `Readers.turnAway` does. */
  turnAway(request: ReadRequest, reply: FastifyReply, reason: GoodbyeReason): void {
    this.#readers.turnAway(callerOf(request), new ReplyAnswer(reply), reason)
  }
}
