import cors from '@fastify/cors'
import type { FastifyInstance } from 'fastify'

/** Whether an origin is one of these: as they are, or with capitals or the port that its scheme has anyhow. */
export function isListed(origin: string, listed: readonly string[]): boolean {
  return listed.includes(plainOrigin(origin))
}

function plainOrigin(text: string): string {
  return /^https?:/i.test(text) && URL.canParse(text) ? new URL(text).origin : text
}

/** CORS for the pages of these origins; an app that has it for all of its routes has it for ours. */
export async function useCors(app: FastifyInstance, origins: readonly string[]): Promise<void> {
  if (!app.hasRequestDecorator('corsPreflightEnabled')) await app.register(cors, corsOptions(origins))
}

/**
 * Credentials only for listed origins: with `*` no browser sends any. Any header may be sent: what watches over a page
 * (tracing, for instance) adds headers that the page knows nothing of. Without `allowedHeaders` the preflight is answered
 * with those that it asks for.
 */
function corsOptions(origins: readonly string[]) {
  const any = origins.includes('*')
  const listed = [...origins]
  return {
    origin: any
      ? '*'
      : (origin: string | undefined, done: (error: null, allowed: string | string[]) => void) =>
          done(null, origin !== undefined && isListed(origin, origins) ? origin : listed),
    credentials: !any && origins.length > 0,
    methods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
    // as a list they would be joined for each answer
    exposedHeaders: 'ETag, Idempotent-Replayed, Retry-After, Ringside-Cursor, X-Request-Id',
    maxAge: 86_400,
    strictPreflight: false
  }
}
