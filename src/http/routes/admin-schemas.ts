/** What the operator's routes take and answer, as they are described. */
import { Type, type TSchema } from 'typebox'
import { noConnection, noInstance, noTopic } from '../../admin/operator.ts'
import { MEMORY_KINDS } from '../../memory.ts'
import { wrong } from '../../problem.ts'
import { json, NO_ORIGIN, NO_TOKEN, problems, UNAVAILABLE, type Example } from '../description.ts'

const Time = (description: string) =>
  Type.Integer({ description: `${description}, in milliseconds since the epoch` })
const Bytes = (description: string) => Type.Number({ description: `${description}, in bytes` })
const OrNull = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()])

const InstanceName = Type.Object(
  {
    id: Type.String({ description: 'Of this life of the process alone' }),
    host: Type.String(),
    pid: Type.Integer()
  },
  { $id: 'InstanceName' }
)

const unanswered = Type.Array(InstanceName, {
  description: 'Instances that did not answer in time: what is here does not tell of them'
})

const Counts = Type.Object({
  sse: Type.Integer(),
  ndjson: Type.Integer(),
  poll: Type.Integer(),
  ws: Type.Integer(),
  lagging: Type.Integer({ description: 'Too full to be fed live' }),
  conflated: Type.Integer({ description: 'With a rate' })
})

const Instance = Type.Object(
  {
    ...InstanceName.properties,
    worker: OrNull(Type.Integer({ description: 'Which of several processes on one port, from 0' })),
    version: Type.String(),
    node: Type.String(),
    started: Time('When'),
    unready: OrNull(Type.String({ description: "Why it can't serve" })),
    draining: Type.Boolean(),
    connections: Counts,
    topics: Type.Integer({ description: 'Topics and wildcards that are listened to' }),
    memory: Type.Object({
      limit: OrNull(Bytes('`MEMORY`')),
      held: Bytes('What clients make it hold'),
      kinds: Type.Record(Type.String(), Type.Number(), { description: 'The same by kind' }),
      rss: Bytes('What the process takes in all')
    }),
    eventLoop: Type.Object(
      { mean: Type.Number(), p99: Type.Number(), max: Type.Number() },
      { description: 'Its delay over the last second, in milliseconds' }
    ),
    store: Type.Object({
      kind: Type.Enum(['memory', 'disk', 'redis']),
      up: Type.Boolean(),
      unusable: OrNull(Type.String({ description: "Why it can't be used" })),
      unwritable: OrNull(Type.String({ description: 'Why nothing can be stored' }))
    })
  },
  { $id: 'Instance', description: 'How an instance does' }
)

const Connection = Type.Object(
  {
    id: Type.String(),
    instance: Type.String(),
    transport: Type.String(),
    user: OrNull(Type.String({ description: 'The `sub` of its token' })),
    address: OrNull(Type.String()),
    agent: OrNull(Type.String({ description: '`User-Agent`, cut short' })),
    since: Time('When it was opened'),
    topics: Type.Array(Type.String(), { description: 'Some of what it reads' }),
    topicCount: Type.Integer({ description: 'How many they are' }),
    lagging: Type.Boolean({ description: 'Whether it is too full to be fed live' }),
    lag: Type.Number({ description: 'How many milliseconds it is behind' }),
    backlog: Bytes('What waits in it'),
    rate: OrNull(Type.Number({ description: 'Conflated: at most so many events a second for each topic' }))
  },
  { $id: 'Connection' }
)

const Topic = Type.Object(
  {
    topic: Type.String({ description: 'A topic or a wildcard that is listened to' }),
    subscribers: Type.Integer({ description: 'Streams and subscriptions' }),
    rate: Type.Number({ description: 'Events a second, over the last ten seconds; 0 of what is ephemeral' }),
    events: Type.Integer({ description: 'How many are held for who resumes' }),
    bytes: Bytes('Their memory'),
    oldest: OrNull(Time('When the oldest of them was stored')),
    last: OrNull(Type.Object({ topic: Type.String(), type: Type.String(), time: Time('When it was stored') }))
  },
  { $id: 'TopicInUse' }
)

const note = {
  instance: Type.String(),
  time: Time('In which second'),
  reason: Type.String(),
  count: Type.Integer({ description: 'How often within that second' })
}

const INSTANCE = { id: '9f86d081884c', host: 'web-1', pid: 17 }
const SINCE = 1795415443568

const instance = {
  ...INSTANCE,
  ...{ worker: null, version: '1.0.0', node: 'v20.20.0', started: SINCE, unready: null, draining: false },
  connections: { sse: 2, ndjson: 0, poll: 0, ws: 1, lagging: 0, conflated: 1 },
  topics: 2,
  memory: {
    ...{ limit: 2 ** 30, held: 4096, rss: 2 ** 27 },
    kinds: Object.fromEntries(MEMORY_KINDS.map(kind => [kind, kind === 'events' ? 4096 : 0]))
  },
  eventLoop: { mean: 0.1, p99: 0.4, max: 1.2 },
  store: { kind: 'redis' as const, up: true, unusable: null, unwritable: null }
}

const connection = {
  ...{ id: '9f86d081884c.1', instance: INSTANCE.id, transport: 'sse', user: 'alice' },
  ...{ address: '192.0.2.1', agent: 'curl/8.0', since: SINCE, topics: ['tickers/*'], topicCount: 1 },
  ...{ lagging: false, lag: 0, backlog: 0, rate: null }
}

const topic = {
  ...{ topic: 'tickers/*', subscribers: 2, rate: 6, events: 1000, bytes: 350_000, oldest: SINCE },
  last: { topic: 'tickers/AAPL', type: 'quote', time: SINCE }
}

const FORBIDDEN = wrong(
  'forbidden',
  'ringside.admin',
  'this is for who operates the server: the token must claim "admin": true'
)

const limit = Type.Optional(
  Type.Integer({ minimum: 1, maximum: 200, default: 100, description: 'At most so many' })
)

function operation<T extends TSchema>(
  operationId: string,
  summary: string,
  answer: {
    readonly description: string
    readonly content: ReturnType<typeof json<T>>
    readonly status?: number
  },
  ...own: Example[]
) {
  const { status = 200, ...said } = answer
  return {
    tags: ['operator'],
    operationId,
    summary,
    response: { [status]: said, ...problems(NO_TOKEN, FORBIDDEN, ...own) }
  }
}

export const listInstances = operation('listInstances', 'How all instances do', {
  description: 'Those that share the store',
  content: json(Type.Object({ instances: Type.Array(Instance), unanswered }), {
    instances: [instance],
    unanswered: []
  })
})

export const listConnections = {
  ...operation(
    'listConnections',
    'Connections of all instances',
    {
      description: 'A page of them, the oldest first',
      content: json(
        Type.Object({
          connections: Type.Array(Connection),
          total: Type.Integer({ description: 'How many there are on all pages' }),
          next: OrNull(Type.String({ description: 'What to send as `after` for the next page' })),
          unanswered
        }),
        { connections: [connection], total: 1, next: null, unanswered: [] }
      )
    },
    wrong('malformed', 'after', '"x" is not the "next" of a page')
  ),
  querystring: Type.Object({
    transport: Type.Optional(Type.Enum(['sse', 'ndjson', 'poll', 'ws'], { description: 'Only these' })),
    user: Type.Optional(Type.String({ description: 'Only those of this `sub`' })),
    topic: Type.Optional(
      Type.String({ description: 'Only those that read this topic, by its name or by a wildcard' })
    ),
    state: Type.Optional(
      Type.Enum(['lagging', 'conflated'], {
        description: 'Only those that are too full to be fed live, or that have a rate'
      })
    ),
    after: Type.Optional(Type.String({ description: 'The `next` of the page before' })),
    limit
  })
}

export const listTopics = {
  ...operation('listTopics', 'The busiest of what is listened to', {
    description: 'Of all instances together',
    content: json(
      Type.Object({
        topics: Type.Array(Topic, { description: 'The busiest first' }),
        total: Type.Integer({ description: 'How many are listened to, on the instance that has most' }),
        unanswered
      }),
      { topics: [topic], total: 1, unanswered: [] }
    )
  }),
  querystring: Type.Object({ limit })
}

export const listGaps = operation('listGaps', 'Recent gaps and refusals, with their reasons', {
  description: 'The newest first; those of one second and kind are one',
  content: json(
    Type.Object({
      gaps: Type.Array(
        Type.Object({
          ...note,
          transport: Type.String(),
          topics: Type.Array(Type.String(), { description: 'Some of them' }),
          topicCount: Type.Integer({ description: 'How many they are' })
        })
      ),
      refusals: Type.Array(
        Type.Object({
          ...note,
          what: Type.Enum(['connection', 'access', 'write', 'read'], {
            description: 'A stream, a token or an origin, a write, or a read'
          })
        })
      ),
      unanswered
    }),
    {
      gaps: [
        {
          ...{ instance: INSTANCE.id, time: SINCE, reason: 'expired', count: 3 },
          ...{ transport: 'sse', topics: ['tickers/AAPL'], topicCount: 1 }
        }
      ],
      refusals: [{ instance: INSTANCE.id, time: SINCE, what: 'access', reason: 'expired', count: 1 }],
      unanswered: []
    }
  )
})

export const showSettings = operation('showSettings', 'Settings and rules in force', {
  description: 'Once for all instances that have the same; no secret is told, `***` stands for it',
  content: json(
    Type.Object({
      inForce: Type.Array(
        Type.Object({
          instances: Type.Array(Type.String()),
          settings: Type.Record(Type.String(), Type.Unknown(), {
            description: 'By their names; durations in milliseconds, sizes in bytes'
          }),
          rules: Type.Array(Type.Record(Type.String(), Type.Unknown()), {
            description: 'Those of `TOPICS`, in their order'
          })
        })
      ),
      unanswered
    }),
    {
      inForce: [
        {
          instances: [INSTANCE.id],
          settings: { RING_SIZE: 1000, JWT_SECRET: '***', REDIS_URL: 'redis://***@10.0.0.5:6379' },
          rules: [{ match: 'chat/**', ring: 5000 }]
        }
      ],
      unanswered: []
    }
  )
})

const Disconnected = Type.Object({
  disconnected: Type.Integer({ description: 'How many connections were ended' })
})

const GOODBYE =
  'Their clients are told `goodbye` and come back with their cursors, if their tokens still hold'

export const disconnect = {
  ...operation(
    'disconnect',
    'End a connection',
    { description: GOODBYE, content: json(Disconnected, { disconnected: 1 }) },
    NO_ORIGIN,
    noConnection('x.1')
  ),
  params: Type.Object({
    id: Type.String({ description: 'As the list of connections has it', examples: [connection.id] })
  })
}

export const disconnectUser = {
  ...operation(
    'disconnectUser',
    'End all connections of a user',
    {
      description: GOODBYE,
      content: json(Type.Object({ ...Disconnected.properties, unanswered }), {
        disconnected: 2,
        unanswered: []
      })
    },
    NO_ORIGIN
  ),
  params: Type.Object({ sub: Type.String({ description: 'The `sub` of its tokens', examples: ['alice'] }) })
}

export const clearTopic = {
  ...operation(
    'clearTopic',
    'Delete what is held of a topic',
    {
      description: 'Its events and its state are gone; readers are told a gap, `lost`',
      content: json(Type.Object({ topic: Type.String(), unanswered }), { topic: 'jobs/17', unanswered: [] })
    },
    NO_ORIGIN,
    wrong('malformed', 'topic', '"a//b" is not a topic'),
    noTopic('jobs/18'),
    UNAVAILABLE
  ),
  params: Type.Object({ '*': Type.String({ description: 'A topic', examples: ['jobs/17'] }) })
}

export const drainInstance = {
  ...operation(
    'drainInstance',
    'Drain an instance',
    {
      status: 202,
      description: 'It is not ready any more, takes no new streams, and ends the open ones over `DRAIN`',
      content: json(Type.Object({ instance: Type.String(), draining: Type.Literal(true) }), {
        instance: INSTANCE.id,
        draining: true
      })
    },
    NO_ORIGIN,
    noInstance('x')
  ),
  params: Type.Object({
    id: Type.String({ description: 'As the list of instances has it', examples: [INSTANCE.id] })
  })
}
