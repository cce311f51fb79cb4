import type { FastifyInstance } from 'fastify'

/**
 * What a browser shall not do with any answer: take it for another type than it says, or tell another server which address
 * it came from, which may hold a token. (WHATWG Fetch, section 3.7; W3C Referrer Policy, section 4.1.)
 */
const GUARDS = { 'x-content-type-options': 'nosniff', 'referrer-policy': 'no-referrer' }

/** Says these headers on every answer. */
export function guardAnswers(app: FastifyInstance): void {
  app.addHook('onRequest', (_request, reply, done) => {
    reply.headers(GUARDS)
    done()
  })
}
