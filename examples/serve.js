// Serves the examples that are pages, with Ringside under /live: npm run examples
import console from 'node:console'
import { env } from 'node:process'
import { fileURLToPath, URL } from 'node:url'
import fastifyStatic from '@fastify/static'
import Fastify from 'fastify'
import { ringside } from 'ringside-hub'
import { jobs } from './job/run.js'

const pathOf = relative => fileURLToPath(new URL(relative, import.meta.url))

const { JWT_SECRET, PORT = 4000, REDIS_URL } = env

const app = Fastify({ forceCloseConnections: true })

await app.register(ringside, {
  prefix: '/live',
  pages: true, // for /live/client.js; what is bundled imports 'ringside-hub/client' instead
  // without `grant` or a key in the settings everyone may do everything: good for loopback, and for nothing else
  settings: { MAX_EVENT_BYTES: '1 MiB', ...(JWT_SECRET && { JWT_SECRET }), ...(REDIS_URL && { REDIS_URL }) }
})

const folders = {
  '/': ['start'],
  '/chat/': ['chat'],
  '/bell/': ['bell'],
  '/document/': ['document'],
  '/cursors/': ['cursors'],
  '/dashboard/': ['dashboard'],
  '/job/': ['job'],
  // for the document's import map
  '/modules/': ['../node_modules/yjs/dist', '../node_modules/lib0']
}
for (const [prefix, roots] of Object.entries(folders)) {
  await app.register(fastifyStatic, { root: roots.map(pathOf), prefix, redirect: true, decorateReply: false })
}

await app.register(jobs)

console.log(await app.listen({ host: '127.0.0.1', port: Number(PORT) }))
