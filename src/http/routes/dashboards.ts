import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import { Type, type Static } from 'typebox'
import { requirePublish } from '../../access/grant.ts'
import type { Asker } from '../../asker.ts'
import type { Settings } from '../../config.ts'
import { isTopic } from '../../event.ts'
import { topicOf, type Dashboards, type Precondition } from '../../feeds/dashboards.ts'
import { isObject, type Json } from '../../feeds/merge-patch.ts'
import type { JsonInput } from '../../input.ts'
import { Problem, wrong } from '../../problem.ts'
import { readJsonBody } from '../body.ts'
import {
  Cursor,
  ETAG,
  exampleEvent,
  ID,
  json,
  NO_TOKEN,
  NOTHING,
  opening,
  problems,
  READ_HEADERS,
  readProblems,
  streams,
  UNAVAILABLE,
  writeProblems,
  type Content
} from '../description.ts'
import { ReadHeaders, ReadQuery } from '../query.ts'
import type { Reads } from '../reads.ts'

export interface DashboardsOptions {
  dashboards: Dashboards
  reads: Reads
  settings: Pick<Settings, 'MAX_EVENT_BYTES'>
}

/** What JSON may need more than what it becomes: white space and escapes. */
const OVERHEAD = 1024

/** How deep a dashboard may be nested. */
const MAX_DEPTH = 100

/** PUT, PATCH, GET and DELETE /dashboards/:id, GET /dashboards. Section 5 of the contract. */
export const dashboardsRoutes: FastifyPluginAsyncTypebox<DashboardsOptions> = async (app, options) => {
  const { dashboards, reads, settings } = options
  const bodyLimit = 2 * settings.MAX_EVENT_BYTES + OVERHEAD
  const config = { bodyLimitBy: 'MAX_EVENT_BYTES' }

  app.get('/dashboards', { schema: listDashboards }, (request, reply) =>
    reads.ask(request, reply, async asker => {
      const mayRead = (id: string) => request.grant.maySubscribe(topicOf(id))
      return { dashboards: await dashboards.list(mayRead, asker) }
    })
  )

  /** Before the body is read. */
  const mayChange = async ({ params, grant }: Pick<FastifyRequest<{ Params: Params }>, 'params' | 'grant'>) =>
    requirePublish(grant, [topicOf(checked(params.id))])

  app.put(
    '/dashboards/:id',
    { bodyLimit, config, schema: putDashboard, onRequest: mayChange },
    async ({ params: { id }, headers, body, writer }, reply) => {
      const json = readObject(readJsonBody(headers['content-type'], body))
      const by = { writer, precondition: precondition(headers['if-match']) }
      const { created, version } = await dashboards.put(id, json, by)
      reply.code(created ? 201 : 200).header('etag', `"${version}"`)
      return { id, version }
    }
  )

  app.patch(
    '/dashboards/:id',
    { bodyLimit, config, schema: patchDashboard, onRequest: mayChange },
    async ({ params: { id }, headers, body, writer }, reply) => {
      const patch = readObject(readJsonBody(headers['content-type'], body, 'application/merge-patch+json'))
      const by = { writer, precondition: precondition(headers['if-match']) }
      const { version } = await dashboards.patch(id, patch, by)
      reply.header('etag', `"${version}"`)
      return { id, version }
    }
  )

  app.delete(
    '/dashboards/:id',
    { bodyLimit, config, schema: deleteDashboard, onRequest: mayChange },
    async ({ params: { id }, headers, writer }, reply) => {
      await dashboards.delete(id, { writer, precondition: precondition(headers['if-match']) })
      return reply.code(204).send()
    }
  )

  app.route({
    method: ['GET', 'HEAD'],
    url: '/dashboards/:id',
    schema: readDashboard,
    config: { stream: 'named' },
    handler: async (request, reply) => {
      const id = checked(request.params.id)
      const find = async (asker: Asker) => {
        const dashboard = await dashboards.get(id, asker)
        if (!dashboard) throw new Problem('not found', `there is no dashboard ${id}`)
        return dashboard
      }
      return reads.serve(request, reply, [topicOf(id)], {
        snapshot: true,
        check: async asker => void (await find(asker)),
        document: async asker => {
          const { json, version } = await find(asker)
          const etag = `"${version}"`
          if (isKnown(request.headers['if-none-match'], etag)) reply.code(304)
          return { parts: [json], cursor: version, etag }
        }
      })
    }
  })
}

function checked(id: string): string {
  if (isTopic(`dashboards/${id}`) && !id.includes('/')) return id
  throw noSegment(id)
}

function noSegment(id: string): Problem {
  return wrong('malformed', 'id', `${JSON.stringify(id)} is not one segment of a topic`)
}

/** The body as compact JSON, with every number as it was written. */
function readObject(input: JsonInput): string {
  if (!isObject(input.value)) throw wrong('refused', '', 'a dashboard is a JSON object')
  checkTree(input.value, [], MAX_DEPTH)
  return input.json()
}

/** What can be merged and written again as it was: numbers that are finite, and no deeper than the stack. */
function checkTree(value: Json, path: string[], depth: number): void {
  if (typeof value === 'number' && !Number.isFinite(value))
    throw wrong('refused', path.map(name => `/${name}`).join(''), 'is not a finite number')
  if (typeof value !== 'object' || value === null) return
  if (depth === 0) throw wrong('refused', '', `a dashboard is nested no deeper than ${MAX_DEPTH}`)
  for (const [name, member] of Object.entries(value)) {
    path.push(name)
    checkTree(member, path, depth - 1)
    path.pop()
  }
}

/** `If-None-Match` (RFC 9110, section 13.1.2): any, or one of these tags, weak or not. */
function isKnown(header: string | undefined, etag: string): boolean {
  return header?.trim() === '*' || (header?.match(/"[^"]*"/g) ?? ([] as string[])).includes(etag)
}

/** `If-Match` (RFC 9110, section 13.1.1): one of these versions, or any. */
function precondition(header: string | undefined): Precondition | undefined {
  if (header === undefined) return undefined
  if (header.trim() === '*') return version => version !== undefined
  // a weak tag never matches: the comparison is the strong one
  const versions = [...header.matchAll(/(?<!W\/)"([^"]*)"/g)].map(([, version]) => version)
  return version => version !== undefined && versions.includes(version)
}

// --- what comes in and goes out ---

const DASHBOARD = { title: 'Checkout', orders: 17 }
const PATCH = { orders: 18 }

type Params = Static<typeof Params>

const Params = Type.Object({
  id: Type.String({ description: 'One segment of a topic', examples: ['ops'] })
})
const WriteHeaders = Type.Object({
  'if-match': Type.Optional(
    Type.String({ description: 'Only if this is its version, as in its `ETag`; `*` for any' })
  )
})
const Version = Type.Object({ id: Type.String(), version: Cursor }, { $id: 'DashboardVersion' })
const Dashboard = Type.Record(Type.String(), Type.Unknown(), {
  $id: 'Dashboard',
  description: `Any object, nested no deeper than ${MAX_DEPTH}`
})

/** That a dashboard was written, and its version now. */
const written = (description: string) => ({
  description,
  headers: ETAG,
  content: json(Version, { id: 'ops', version: ID })
})

const BAD_ID = noSegment('*')
const NOT_THERE = new Problem('not found', 'there is no dashboard ops')
const CHANGED = new Problem('precondition failed', 'the dashboard ops is not there')
const TOO_LARGE = wrong(
  'too large',
  '',
  'the dashboard ops would have 61500 bytes; at most 61440 are allowed (MAX_EVENT_BYTES)'
)
const NO_OBJECT = wrong('refused', '', 'a dashboard is a JSON object')

const listDashboards = {
  operationId: 'listDashboards',
  summary: 'List the dashboards',
  tags: ['dashboards'],
  response: {
    200: {
      description: 'All of them, by their ids',
      content: json(Type.Object({ dashboards: Type.Array(Version) }), {
        dashboards: [{ id: 'ops', version: ID }]
      })
    },
    ...problems(NO_TOKEN, UNAVAILABLE)
  }
}

const putDashboard = {
  operationId: 'putDashboard',
  summary: 'Replace a dashboard, or make it',
  tags: ['dashboards'],
  params: Params,
  headers: WriteHeaders,
  requestBody: json(Dashboard, DASHBOARD),
  response: {
    200: written('It is replaced'),
    201: written('It is made'),
    ...writeProblems(
      BAD_ID,
      CHANGED,
      TOO_LARGE,
      new Problem('unsupported', 'Content-Type: text/plain: it must be application/json'),
      NO_OBJECT
    )
  }
}

const patchDashboard = {
  operationId: 'patchDashboard',
  summary: 'Change a dashboard',
  description:
    'By a JSON Merge Patch (RFC 7396). Without `If-Match` concurrent patches are all applied, one after the other.',
  tags: ['dashboards'],
  params: Params,
  headers: WriteHeaders,
  requestBody: {
    'application/merge-patch+json': { schema: Dashboard, example: PATCH },
    ...json(Dashboard, PATCH)
  } satisfies Content,
  response: {
    200: written('It is changed'),
    ...writeProblems(
      BAD_ID,
      NOT_THERE,
      CHANGED,
      TOO_LARGE,
      new Problem('unsupported', 'Content-Type: text/plain: it must be application/merge-patch+json'),
      NO_OBJECT
    )
  }
}

const deleteDashboard = {
  operationId: 'deleteDashboard',
  summary: 'End a dashboard',
  description: 'Its readers are told `deleted`.',
  tags: ['dashboards'],
  params: Params,
  headers: WriteHeaders,
  response: {
    204: { description: 'It is gone', ...NOTHING },
    ...writeProblems(BAD_ID, NOT_THERE, CHANGED)
  }
}

const readDashboard = {
  operationId: 'readDashboard',
  summary: 'Read a dashboard',
  description:
    'A stream begins with a `snapshot` and goes on with each `patch`. With a cursor that the ring still covers, such as the version of an `ETag`, it brings what was missed alone.',
  tags: ['dashboards'],
  params: Params,
  querystring: ReadQuery,
  headers: Type.Object({
    ...ReadHeaders.properties,
    'if-none-match': Type.Optional(
      Type.String({ description: 'JSON: only if none of these is its version, as in its `ETag`' })
    )
  }),
  response: {
    200: {
      description: 'The dashboard and its changes as they come, or as it is',
      headers: { ...READ_HEADERS, ...ETAG },
      content: {
        ...streams(format => [
          format.snapshot(exampleEvent('dashboards/ops', 'snapshot', DASHBOARD), ID),
          opening(format),
          format.event(exampleEvent('dashboards/ops', 'patch', PATCH), ID)
        ]),
        ...json(Dashboard, DASHBOARD)
      }
    },
    304: { description: 'It has not changed', headers: { ...READ_HEADERS, ...ETAG }, ...NOTHING },
    ...readProblems(BAD_ID, wrong('forbidden', 'topic', '"dashboards/ops" may not be read'), NOT_THERE)
  }
}
