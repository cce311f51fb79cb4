// The login alone, with Ringside beside it: node examples/login/serve.js
import console from 'node:console'
import { randomBytes } from 'node:crypto'
import { env } from 'node:process'
import { fileURLToPath, URL } from 'node:url'
import fastifyStatic from '@fastify/static'
import Fastify from 'fastify'
import { ringside } from 'ringside-hub'
import { login } from './login.js'

const { PORT = 4001, TOKEN_SECONDS = 600 } = env

// here nobody but this program needs to know it; otherwise it is a setting
const secret = randomBytes(32).toString('hex')

const app = Fastify({ forceCloseConnections: true })

await app.register(ringside, {
  prefix: '/live',
  pages: true, // for /live/client.js
  settings: { JWT_SECRET: secret }
})

await app.register(login, {
  secret,
  seconds: Number(TOKEN_SECONDS),
  claims: user => ({ subscribe: [`rooms/${user}/*`] })
})

const pathOf = relative => fileURLToPath(new URL(relative, import.meta.url))
await app.register(fastifyStatic, { root: [pathOf('page'), pathOf('../start')] })

console.log(await app.listen({ host: '127.0.0.1', port: Number(PORT) }))
