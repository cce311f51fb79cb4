import type { FastifyRequest } from 'fastify'

/** Who asks, and what they may. */
export interface Grant {
  /** The user; null for nobody known. */
  readonly sub: string | null
  maySubscribe(filter: string): boolean
  mayPublish(topic: string): boolean
  /** When it runs out, in milliseconds since the epoch; Infinity for never. */
  readonly expires: number
}

/** What a request may. While no key is configured that is everything, and the query says who asks. */
export function grantOf({ query }: FastifyRequest): Grant {
  const { user } = query as { user?: string }
  return { sub: user ?? null, maySubscribe: () => true, mayPublish: () => true, expires: Infinity }
}
