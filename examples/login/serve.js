// A login that sets the cookie for streams, and renews it: node examples/login/serve.js
import { Buffer } from 'node:buffer'
import console from 'node:console'
import { randomBytes, randomUUID } from 'node:crypto'
import { env } from 'node:process'
import { fileURLToPath, URL } from 'node:url'
import fastifyStatic from '@fastify/static'
import { parseCookie, stringifySetCookie } from 'cookie'
import Fastify from 'fastify'
import { SignJWT } from 'jose'
import { ringside } from 'ringside-hub'

const { PORT = 4001, TOKEN_SECONDS = 600 } = env

// here nobody but this program needs to know it; otherwise it is a setting
const secret = randomBytes(32).toString('hex')

const app = Fastify({ forceCloseConnections: true })

await app.register(ringside, {
  prefix: '/live',
  pages: true, // for /live/client.js
  settings: { JWT_SECRET: secret }
})

/** Users by session. A real one is your framework's, with passwords that are hashed, and a limit to the attempts. */
const sessions = new Map()
const PASSWORDS = { alice: 'wonderland', bob: 'builder' }

function setCookie(reply, name, value, maxAge) {
  // `secure: true` as soon as there is TLS: then call the token's `__Host-ringside_token`
  const cookie = { name, value, maxAge, httpOnly: true, sameSite: 'lax', path: '/' }
  reply.header('set-cookie', stringifySetCookie(cookie))
}

/** A short token for the streams: the session can be ended, and a token can't be taken back. */
async function setToken(reply, user) {
  const token = await new SignJWT({ ringside: { subscribe: [`rooms/${user}/*`] } })
    .setProtectedHeader({ alg: 'HS256' })
    .setSubject(user)
    .setExpirationTime(`${TOKEN_SECONDS}s`)
    .sign(Buffer.from(secret))
  setCookie(reply, 'ringside_token', token, Number(TOKEN_SECONDS))
  return reply.send({ user, seconds: Number(TOKEN_SECONDS) })
}

const credentials = {
  type: 'object',
  required: ['user', 'password'],
  properties: { user: { type: 'string' }, password: { type: 'string' } }
}

app.post('/login', { schema: { body: credentials } }, async (request, reply) => {
  const { user, password } = request.body
  if (!Object.hasOwn(PASSWORDS, user) || PASSWORDS[user] !== password)
    return reply.code(403).send({ detail: 'no such user, or another password' })
  const session = randomUUID()
  sessions.set(session, user)
  setCookie(reply, 'session', session, 86_400)
  return setToken(reply, user)
})

app.post('/token', async (request, reply) => {
  const user = sessions.get(parseCookie(request.headers.cookie ?? '').session)
  return user === undefined ? reply.code(403).send({ detail: 'who are you?' }) : setToken(reply, user)
})

app.post('/logout', async (request, reply) => {
  sessions.delete(parseCookie(request.headers.cookie ?? '').session)
  setCookie(reply, 'session', '', 0)
  setCookie(reply, 'ringside_token', '', 0)
  return reply.code(204).send()
})

const pathOf = relative => fileURLToPath(new URL(relative, import.meta.url))
await app.register(fastifyStatic, { root: [pathOf('page'), pathOf('../start')] })

console.log(await app.listen({ host: '127.0.0.1', port: Number(PORT) }))
