// Serves the examples that are pages, with Ringside under /live: npm run examples
import console from 'node:console'
import { randomBytes } from 'node:crypto'
import { env } from 'node:process'
import { fileURLToPath, URL } from 'node:url'
import fastifyStatic from '@fastify/static'
import Fastify from 'fastify'
import { ringside } from 'ringside-hub'
import { jobs } from './job/run.js'
import { login } from './login/login.js'
import { scripts } from './react/bundle.js'

const pathOf = relative => fileURLToPath(new URL(relative, import.meta.url))

const { JWT_SECRET = randomBytes(32).toString('hex'), PORT = 4000, REDIS_URL } = env

const app = Fastify({ forceCloseConnections: true })

await app.register(ringside, {
  prefix: '/live',
  pages: true, // for /live/client.js; what is bundled imports 'ringside-hub/client' instead
  settings: { MAX_EVENT_BYTES: '1 MiB', JWT_SECRET, ...(REDIS_URL && { REDIS_URL }) }
})

/** What everybody who is signed in may write: here a page publishes by itself. */
const SHARED = ['rooms/*', 'documents/*', 'boards/*', 'orders']

await app.register(login, {
  secret: JWT_SECRET,
  // one's own notifications need no claim
  claims: () => ({
    subscribe: [...SHARED, 'tickers/*', 'jobs/*'],
    publish: [...SHARED, 'notifications/*']
  })
})

const folders = {
  '/': ['start'],
  '/login/': ['login/page'],
  '/chat/': ['chat'],
  '/bell/': ['bell'],
  '/document/': ['document'],
  '/cursors/': ['cursors'],
  '/dashboard/': ['dashboard'],
  '/job/': ['job'],
  '/react/': ['react'],
  // for the document's import map
  '/modules/': ['../node_modules/yjs/dist', '../node_modules/lib0']
}
for (const [prefix, roots] of Object.entries(folders)) {
  await app.register(fastifyStatic, { root: roots.map(pathOf), prefix, redirect: true, decorateReply: false })
}

await app.register(jobs)
await app.register(scripts)

console.log(await app.listen({ host: '127.0.0.1', port: Number(PORT) }))
