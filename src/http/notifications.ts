import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import type { Settings } from '../config.ts'
import { formatCursor } from '../event.ts'
import { isUser, type Message, type Notifications } from '../feeds/notifications.ts'
import { readJsonBody, takeRawBodies, wrong } from './body.ts'
import { PublishHeaders } from './publish.ts'
import type { Reads } from './reads.ts'
import { malformed, ReadQuery } from './subscription.ts'

export interface NotificationsOptions {
  notifications: Notifications
  reads: Reads
  settings: Pick<Settings, 'MAX_EVENT_BYTES'>
}

const MAX_USERS = 1000

const Sent = Type.Object(
  {
    to: Type.Union([Type.String(), Type.Array(Type.String(), { minItems: 1, maxItems: MAX_USERS })]),
    title: Type.String({ minLength: 1 }),
    body: Type.Optional(Type.String()),
    url: Type.Optional(Type.String()),
    priority: Type.Optional(Type.Enum(['low', 'normal', 'high', 'urgent'])),
    tags: Type.Optional(Type.Array(Type.String())),
    ttl: Type.Optional(
      Type.Integer({ minimum: 1, maximum: 315_360_000, description: 'Seconds it may be shown' })
    )
  },
  { additionalProperties: false }
)

const Selected = Type.Union([
  Type.Object(
    { ids: Type.Array(Type.String(), { minItems: 1, maxItems: 1000 }) },
    { additionalProperties: false }
  ),
  Type.Object({ all: Type.Literal(true) }, { additionalProperties: false })
])

const User = Type.Object({
  user: Type.Optional(Type.String({ description: 'Whose they are, while no token says it' }))
})
const Unread = Type.Object({ unread: Type.Integer() })

/** POST and GET /notifications, and what marks and deletes them. Section 5 of the contract. */
export const notificationsRoutes: FastifyPluginAsyncTypebox<NotificationsOptions> = async (app, options) => {
  const { notifications, reads, settings } = options
  takeRawBodies(app)

  app.post(
    '/notifications',
    {
      bodyLimit: 2 * settings.MAX_EVENT_BYTES + MAX_USERS * 1024,
      schema: {
        headers: PublishHeaders,
        response: { 201: Type.Object({ ids: Type.Record(Type.String(), Type.String()) }) },
        tags: ['notifications']
      }
    },
    async ({ headers, body }, reply) => {
      const { to, ttl, priority = 'normal', ...rest } = readJsonBody(headers['content-type'], body).as(Sent)
      const users = [...new Set([to].flat())].map((user, index) =>
        checked(user, Array.isArray(to) ? `/to/${index}` : '/to')
      )
      const message: Message = { ...rest, priority }
      const size = Buffer.byteLength(JSON.stringify(message))
      if (size > settings.MAX_EVENT_BYTES) {
        throw wrong('too large', '', `it has ${size} bytes; at most ${settings.MAX_EVENT_BYTES} are allowed`)
      }
      const { ids, replayed } = await notifications.send(users, message, ttl, headers['idempotency-key'])
      if (replayed) reply.header('idempotent-replayed', 'true')
      return reply.code(201).send({ ids })
    }
  )

  app.route({
    method: ['GET', 'HEAD'],
    url: '/notifications',
    schema: {
      querystring: Type.Object({ ...User.properties, ...ReadQuery.properties }),
      tags: ['notifications']
    },
    handler: async (request, reply) => {
      const user = userOf(request.query)
      return reads.serve(request, reply, [`notifications/${user}`], {
        preface: async format => [
          format.note('unread', JSON.stringify({ unread: await notifications.unread(user) }))
        ],
        document: async () => {
          const { cursor, ...inbox } = await notifications.inbox(user)
          const position = formatCursor(cursor)
          return { text: JSON.stringify({ ...inbox, cursor: position }), cursor: position }
        }
      })
    }
  })

  app.post(
    '/notifications/read',
    {
      schema: {
        querystring: User,
        headers: PublishHeaders,
        response: { 200: Unread },
        tags: ['notifications']
      }
    },
    async ({ query, headers, body }) => {
      const selection = readJsonBody(headers['content-type'], body).as(Selected)
      return { unread: await notifications.markRead(userOf(query), selection) }
    }
  )

  app.post(
    '/notifications/:id/read',
    {
      schema: {
        params: Type.Object({ id: Type.String() }),
        querystring: User,
        response: { 200: Unread },
        tags: ['notifications']
      }
    },
    async ({ params, query }) => ({
      unread: await notifications.markRead(userOf(query), { ids: [params.id] }, true)
    })
  )

  app.delete(
    '/notifications/:id',
    {
      schema: {
        params: Type.Object({ id: Type.String() }),
        querystring: User,
        response: { 200: Unread },
        tags: ['notifications']
      }
    },
    async ({ params, query }) => ({ unread: await notifications.delete(userOf(query), params.id) })
  )
}

/** While no key is configured the query says who asks. */
function userOf({ user }: { user?: string }): string {
  if (user === undefined) throw malformed('user', 'is required: whose notifications')
  return checked(user, 'user')
}

function checked(user: string, path: string): string {
  if (isUser(user)) return user
  throw malformed(path, `${JSON.stringify(user)} is not one segment of a topic`)
}
