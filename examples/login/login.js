// A login for any Fastify app: app.register(login, { secret, claims }). It sets the cookie that streams bring, and renews it.
import { Buffer } from 'node:buffer'
import { randomUUID } from 'node:crypto'
import { parseCookie, stringifySetCookie } from 'cookie'
import { SignJWT } from 'jose'

/** Users by session. A real one is your framework's, with passwords that are hashed, and a limit to the attempts. */
const sessions = new Map()
const PASSWORDS = { alice: 'wonderland', bob: 'builder' }

const credentials = {
  type: 'object',
  required: ['user', 'password'],
  properties: { user: { type: 'string' }, password: { type: 'string' } }
}

/** Who asks: the user of the session that came as a cookie, if there is one. */
export function userOf(request) {
  return sessions.get(parseCookie(request.headers.cookie ?? '').session)
}

/**
 * POST /login with `{"user","password"}`, /token for the next token, /logout. `secret` is Ringside's JWT_SECRET,
 * `claims(user)` what the token's claim `ringside` says, and `seconds` how long a token is good.
 */
export async function login(app, { secret, claims, seconds = 600 }) {
  /** A short token for the streams: the session can be ended, and a token can't be taken back. */
  async function setToken(reply, user) {
    const token = await new SignJWT({ ringside: claims(user) })
      .setProtectedHeader({ alg: 'HS256' })
      .setSubject(user)
      .setExpirationTime(`${seconds}s`)
      .sign(Buffer.from(secret))
    setCookie(reply, 'ringside_token', token, seconds)
    return reply.send({ user, seconds })
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
    const user = userOf(request)
    return user === undefined ? reply.code(403).send({ detail: 'who are you?' }) : setToken(reply, user)
  })

  app.post('/logout', async (request, reply) => {
    sessions.delete(parseCookie(request.headers.cookie ?? '').session)
    setCookie(reply, 'session', '', 0)
    setCookie(reply, 'ringside_token', '', 0)
    return reply.code(204).send()
  })
}

function setCookie(reply, name, value, maxAge) {
  // `secure: true` as soon as there is TLS: then call the token's `__Host-ringside_token`
  const cookie = { name, value, maxAge, httpOnly: true, sameSite: 'lax', path: '/' }
  reply.header('set-cookie', stringifySetCookie(cookie))
}
