import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { requireSomePublish, requireUser } from '../../access/grant.ts'
import type { Settings } from '../../config.ts'
import { formatCursor } from '../../event.ts'
import { isUser, noLink, type Message, type Notifications } from '../../feeds/notifications.ts'
import { Problem, wrong } from '../../problem.ts'
import type { Part } from '../../publisher.ts'
import { readJsonBody } from '../body.ts'
import {
  Cursor,
  exampleEvent,
  ID,
  json,
  opening,
  READ_HEADERS,
  readProblems,
  REPLAYED,
  streams,
  writeProblems
} from '../description.ts'
import { KEY_REUSED, PublishHeaders } from './publish.ts'
import { ReadHeaders, ReadQuery } from '../query.ts'
import type { Reads } from '../reads.ts'

export interface NotificationsOptions {
  notifications: Notifications
  reads: Reads
  settings: Pick<Settings, 'MAX_EVENT_BYTES'>
}

const MAX_USERS = 1000

const MAX_TAGS = 1000

/** The longest name of a user, with what JSON has around it, in bytes. */
const USER_BYTES = 260

/** The longest list of ids of notifications, in bytes. */
const MAX_SELECTION_BYTES = 262_144

/** What a `url` is. */
const LINK = '`http:`, `https:` or relative, so that a page can link to it'

const Sent = Type.Object(
  {
    to: Type.Union([Type.String(), Type.Array(Type.String(), { minItems: 1, maxItems: MAX_USERS })]),
    title: Type.String({ minLength: 1 }),
    body: Type.Optional(Type.String()),
    url: Type.Optional(Type.String({ description: LINK })),
    priority: Type.Optional(Type.Enum(['low', 'normal', 'high', 'urgent'])),
    tags: Type.Optional(Type.Array(Type.String(), { maxItems: MAX_TAGS })),
    ttl: Type.Optional(
      Type.Integer({ minimum: 1, maximum: 315_360_000, description: 'Seconds it may be shown' })
    )
  },
  { $id: 'NewNotification', additionalProperties: false }
)

const Selected = Type.Union([
  Type.Object(
    { ids: Type.Array(Type.String(), { minItems: 1, maxItems: 1000 }) },
    { additionalProperties: false }
  ),
  Type.Object({ all: Type.Literal(true) }, { additionalProperties: false })
])

/** POST and GET /notifications, and what marks and deletes them. Section 5 of the contract. */
export const notificationsRoutes: FastifyPluginAsyncTypebox<NotificationsOptions> = async (app, options) => {
  const { notifications, reads, settings } = options

  app.post(
    '/notifications',
    {
      bodyLimit: 2 * settings.MAX_EVENT_BYTES + MAX_USERS * USER_BYTES,
      config: { bodyLimitBy: 'MAX_EVENT_BYTES' },
      schema: sendNotifications,
      // before the body is read
      onRequest: async ({ grant }) => requireSomePublish(grant)
    },
    async ({ headers, body, writer }, reply) => {
      const { to, ttl, priority = 'normal', ...rest } = readJsonBody(headers['content-type'], body).as(Sent)
      const pathOf = (index: number) => (Array.isArray(to) ? `/to/${index}` : '/to')
      const users = [...new Set([to].flat())].map((user, index) => checked(user, pathOf(index)))
      const message: Message = { ...rest, priority }
      const key = headers['idempotency-key']
      const nameOf = (_part: Part, index: number) => pathOf(index)
      const { ids, replayed } = await notifications.send(users, message, { ttl, key, writer, nameOf })
      if (replayed) reply.header('idempotent-replayed', 'true')
      reply.code(201)
      return { ids }
    }
  )

  app.route({
    method: ['GET', 'HEAD'],
    url: '/notifications',
    schema: readNotifications,
    config: { stream: 'named' },
    handler: async (request, reply) => {
      const user = userOf(request)
      return reads.serve(request, reply, [`notifications/${user}`], {
        preface: async (format, start, _isFresh, asker) => {
          const unread = JSON.stringify({ unread: await notifications.unread(user, asker) })
          return [format.note('unread', unread, formatCursor(start))]
        },
        document: async asker => {
          const { cursor, ...inbox } = await notifications.inbox(user, asker)
          const position = formatCursor(cursor)
          return { parts: [JSON.stringify({ ...inbox, cursor: position })], cursor: position }
        }
      })
    }
  })

  /** Before the body is read. */
  const own = {
    bodyLimit: MAX_SELECTION_BYTES,
    onRequest: async (request: FastifyRequest) => void userOf(request)
  }

  app.post('/notifications/read', { ...own, schema: markNotificationsRead }, async request => {
    const { headers, body, writer } = request
    const selection = readJsonBody(headers['content-type'], body).as(Selected)
    return { unread: await notifications.markRead(userOf(request), selection, { writer }) }
  })

  app.post('/notifications/:id/read', { ...own, schema: markNotificationRead }, async request => {
    const { params, writer } = request
    const marking = { strict: true, writer }
    return { unread: await notifications.markRead(userOf(request), { ids: [params.id] }, marking) }
  })

  app.delete('/notifications/:id', { ...own, schema: deleteNotification }, async request => ({
    unread: await notifications.delete(userOf(request), request.params.id, request.writer)
  }))
}

function userOf({ grant }: Pick<FastifyRequest, 'grant'>): string {
  return checked(requireUser(grant), 'user')
}

function checked(user: string, path: string): string {
  if (isUser(user)) return user
  throw noSegment(path, user)
}

function noSegment(path: string, user: string): Problem {
  return wrong('malformed', path, `${JSON.stringify(user)} is not one segment of a topic`)
}

// --- what comes in and goes out ---

const SENT = { title: 'Disk full', body: 'db-1 has 1 % left', tags: ['db'], priority: 'high' as const }

const Notification = Type.Object(
  {
    title: Type.String(),
    body: Type.Optional(Type.String()),
    url: Type.Optional(Type.String({ description: LINK })),
    priority: Sent.properties.priority,
    tags: Sent.properties.tags,
    id: Cursor,
    time: Type.Integer({ description: 'When it was sent, in milliseconds since the epoch' }),
    read: Type.Boolean()
  },
  { $id: 'Notification' }
)
const Inbox = Type.Object(
  {
    notifications: Type.Array(Notification, { description: 'The newest first' }),
    unread: Type.Integer(),
    cursor: Cursor
  },
  { $id: 'Inbox' }
)
const Unread = Type.Object({ unread: Type.Integer() }, { $id: 'Unread' })

const User = Type.Object({
  user: Type.Optional(Type.String({ description: 'Whose they are, while no token says it' }))
})
const Params = Type.Object({ id: Type.String({ description: 'The id of a notification', examples: [ID] }) })

const NO_USER = wrong('malformed', 'user', 'it must say whose notifications')
const NOT_THERE = new Problem('not found', `there is no notification ${ID}`)
const NO_JSON = new Problem('unsupported', 'Content-Type: text/plain: it must be application/json')

const sendNotifications = {
  operationId: 'sendNotifications',
  summary: 'Send a notification',
  description: 'To one user or to many; each has an id of their own for it.',
  tags: ['notifications'],
  headers: PublishHeaders,
  requestBody: json(Sent, { to: ['alice', 'bob'], ...SENT }),
  response: {
    201: {
      description: 'It is stored for all of them',
      headers: REPLAYED,
      content: json(Type.Object({ ids: Type.Record(Type.String(), Cursor) }), {
        ids: { alice: ID, bob: ID }
      })
    },
    ...writeProblems(
      noSegment('/to', 'a/b'),
      noLink(),
      wrong('too large', '', 'a notification of 61500 bytes; at most 61440 are allowed (MAX_EVENT_BYTES)'),
      NO_JSON,
      KEY_REUSED
    )
  }
}

const readNotifications = {
  operationId: 'readNotifications',
  summary: 'Read the notifications of a user',
  description:
    'A stream begins with how many are `unread`, and goes on with each `notification` as it comes, and with what was `read` and `deleted`, so that other tabs and devices follow. These name notifications by the `id` that the inbox has: it is the event’s own or, with several shards, that in its data.',
  tags: ['notifications'],
  querystring: Type.Object({ ...User.properties, ...ReadQuery.properties }),
  headers: ReadHeaders,
  response: {
    200: {
      description: 'The notifications as they come, or the inbox',
      headers: READ_HEADERS,
      content: {
        ...streams(format => [
          opening(format),
          format.note('unread', '{"unread":0}', ID),
          format.event(exampleEvent('notifications/alice', 'notification', SENT), ID)
        ]),
        ...json(Inbox, {
          notifications: [{ ...SENT, id: ID, time: 1795415443570, read: false }],
          unread: 1,
          cursor: ID
        })
      }
    },
    ...readProblems(NO_USER, wrong('forbidden', 'sub', 'only a user has notifications'))
  }
}

/** How many are unread after a change. */
const UNREAD = { description: 'It is done', content: json(Unread, { unread: 0 }) }

const markNotificationsRead = {
  operationId: 'markNotificationsRead',
  summary: 'Mark notifications as read',
  description: 'Some, or all of them. What is not there counts for nothing.',
  tags: ['notifications'],
  querystring: User,
  requestBody: json(Selected, { ids: [ID] }),
  response: {
    200: UNREAD,
    ...writeProblems(
      NO_USER,
      wrong('too large', '', 'the body has 262145 bytes or more; at most 262144 are allowed'),
      NO_JSON
    )
  }
}

const markNotificationRead = {
  operationId: 'markNotificationRead',
  summary: 'Mark a notification as read',
  tags: ['notifications'],
  params: Params,
  querystring: User,
  response: { 200: UNREAD, ...writeProblems(NO_USER, NOT_THERE) }
}

const deleteNotification = {
  operationId: 'deleteNotification',
  summary: 'Delete a notification',
  tags: ['notifications'],
  params: Params,
  querystring: User,
  response: { 200: UNREAD, ...writeProblems(NO_USER, NOT_THERE) }
}
