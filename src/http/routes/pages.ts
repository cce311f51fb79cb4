import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import fastifyStatic from '@fastify/static'
import type { FastifyPluginAsync } from 'fastify'

/** The pages with all that they load, and the client library, as they were built: compressed, too. */
const SITE = fileURLToPath(new URL('../../../dist/public', import.meta.url))
const CLIENT = fileURLToPath(new URL('../../../dist/client/hosted', import.meta.url))
const DOCS_SCRIPT = fileURLToPath(new URL('../../../dist/docs/api.js', import.meta.url))

/** What has a hash of its content in its name is right for ever; all else is asked for again, by its ETag. */
const FOR_EVER = 'public, max-age=31536000, immutable'
const ASK_AGAIN = 'no-cache'

/** The files of the pages and the client library. */
export const pageFiles: FastifyPluginAsync = async app => {
  app.addHook('onRequest', async (request, reply) => {
    const isVersioned = request.routeOptions.url?.includes('/assets/') ?? false
    reply.header('cache-control', isVersioned ? FOR_EVER : ASK_AGAIN)
    // beside what CORS has said
    reply.header('vary', [reply.getHeader('vary'), 'accept-encoding'].filter(Boolean).join(', '))
  })
  await app.register(fastifyStatic, {
    root: SITE,
    wildcard: false,
    cacheControl: false,
    preCompressed: true,
    globIgnore: ['**/*.br', '**/*.gz']
  })
  // a page is also found by its bare name
  const files = existsSync(SITE) ? readdirSync(SITE) : []
  for (const file of files.filter(name => name.endsWith('.html') && name !== 'index.html')) {
    app.get(`/${file.slice(0, -'.html'.length)}`, { schema: { hide: true } }, (_request, reply) =>
      reply.sendFile(file)
    )
  }
  for (const name of ['client.js', 'client-socket.js'].flatMap(name => [name, `${name}.map`])) {
    app.get(`/${name}`, { schema: { hide: true } }, (_request, reply) => reply.sendFile(name, CLIENT))
  }
}

/** The script of the page of the API as it was built; empty where nothing was built. */
export function scriptOfDocs(): string {
  return existsSync(DOCS_SCRIPT) ? readFileSync(DOCS_SCRIPT, 'utf8') : ''
}

/** A style of the pages as it was built, for a page that is none of them; empty where nothing was built. */
export function styleOf(name: string): string {
  const assets = join(SITE, 'assets')
  const file =
    existsSync(assets) &&
    readdirSync(assets).find(each => each.startsWith(`${name}-`) && each.endsWith('.css'))
  return file ? readFileSync(join(assets, file), 'utf8') : ''
}
