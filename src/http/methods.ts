import type { FastifyInstance } from 'fastify'
import { Problem } from '../problem.ts'

/** What could be asked of a path; OPTIONS is the business of CORS. */
const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']

/**
 * Notes which methods the routes have that an app is given from now on. The function that it gives back answers every
 * other method on their paths: 405, and `Allow` (RFC 9110, section 15.5.6).
 */
export function noteMethods(app: FastifyInstance): () => void {
  const known = new Map<string, Set<string>>()
  app.addHook('onRoute', ({ method, routePath, prefix }) => {
    // what has a prefix of its own, such as the page of the description, knows its own methods
    if (prefix !== app.prefix) return
    const methods = known.get(routePath) ?? new Set()
    known.set(routePath, methods)
    for (const each of [method].flat()) methods.add(each)
  })
  return () => {
    // what answers every path there is knows none, and the page at the root may be asked for by two paths
    known.delete('/*')
    known.delete('/')
    for (const [path, methods] of [...known]) refuseOthers(app, path, [...methods].sort())
  }
}

function refuseOthers(app: FastifyInstance, url: string, allowed: readonly string[]): void {
  const others = METHODS.filter(method => !allowed.includes(method))
  if (others.length === 0) return
  const allow = allowed.join(', ')
  app.route({
    method: others,
    url,
    schema: { hide: true },
    config: { open: true },
    // before a body is read
    onRequest: async ({ method }, reply) => {
      reply.header('allow', allow)
      throw new Problem('method not allowed', `${method}: there is ${allow} here`)
    },
    handler: async () => undefined
  })
}
