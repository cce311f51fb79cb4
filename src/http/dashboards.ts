import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import type { Settings } from '../config.ts'
import { isTopic } from '../event.ts'
import type { Dashboards, Precondition } from '../feeds/dashboards.ts'
import { isObject, type Json } from '../feeds/merge-patch.ts'
import { Problem } from '../problem.ts'
import { readJsonBody, takeRawBodies, wrong, type JsonInput } from './body.ts'
import type { Reads } from './reads.ts'
import { malformed, ReadQuery } from './subscription.ts'

export interface DashboardsOptions {
  dashboards: Dashboards
  reads: Reads
  settings: Pick<Settings, 'MAX_EVENT_BYTES'>
}

/** How deep a dashboard may be nested. */
const MAX_DEPTH = 100

const Params = Type.Object({ id: Type.String({ description: 'One segment of a topic' }) })
const WriteHeaders = Type.Object({
  'content-type': Type.Optional(Type.String()),
  'if-match': Type.Optional(Type.String({ description: 'Only if this is its version; * for any' }))
})
const Version = Type.Object({ id: Type.String(), version: Type.String() })

/** PUT, PATCH, GET and DELETE /dashboards/:id, GET /dashboards. Section 5 of the contract. */
export const dashboardsRoutes: FastifyPluginAsyncTypebox<DashboardsOptions> = async (app, options) => {
  const { dashboards, reads, settings } = options
  const bodyLimit = 4 * settings.MAX_EVENT_BYTES
  takeRawBodies(app)

  app.get(
    '/dashboards',
    { schema: { response: { 200: Type.Object({ dashboards: Type.Array(Version) }) }, tags: ['dashboards'] } },
    async () => ({ dashboards: await dashboards.list() })
  )

  app.put(
    '/dashboards/:id',
    {
      bodyLimit,
      schema: {
        params: Params,
        headers: WriteHeaders,
        response: { 200: Version, 201: Version },
        tags: ['dashboards']
      }
    },
    async ({ params, headers, body }, reply) => {
      const value = readObject(readJsonBody(headers['content-type'], body))
      const id = checked(params.id)
      const { created, version } = await dashboards.put(
        id,
        JSON.stringify(value),
        precondition(headers['if-match'])
      )
      return reply
        .code(created ? 201 : 200)
        .header('etag', `"${version}"`)
        .send({ id, version })
    }
  )

  app.patch(
    '/dashboards/:id',
    {
      bodyLimit,
      schema: { params: Params, headers: WriteHeaders, response: { 200: Version }, tags: ['dashboards'] }
    },
    async ({ params, headers, body }, reply) => {
      const value = readObject(readJsonBody(headers['content-type'], body, 'application/merge-patch+json'))
      const id = checked(params.id)
      const { version } = await dashboards.patch(id, value, precondition(headers['if-match']))
      return reply.header('etag', `"${version}"`).send({ id, version })
    }
  )

  app.delete(
    '/dashboards/:id',
    { schema: { params: Params, headers: WriteHeaders, tags: ['dashboards'] } },
    async ({ params, headers }, reply) => {
      await dashboards.delete(checked(params.id), precondition(headers['if-match']))
      return reply.code(204).send()
    }
  )

  app.route({
    method: ['GET', 'HEAD'],
    url: '/dashboards/:id',
    schema: { params: Params, querystring: ReadQuery, tags: ['dashboards'] },
    handler: async (request, reply) => {
      const id = checked(request.params.id)
      const dashboard = await dashboards.get(id)
      if (!dashboard) throw new Problem('not found', `there is no dashboard ${id}`)
      return reads.serve(request, reply, [`dashboards/${id}`], {
        snapshot: true,
        document: async () => {
          const etag = `"${dashboard.version}"`
          if (isKnown(request.headers['if-none-match'], etag)) reply.code(304)
          return { text: dashboard.json, cursor: dashboard.version, etag }
        }
      })
    }
  })
}

function checked(id: string): string {
  if (isTopic(`dashboards/${id}`) && !id.includes('/')) return id
  throw malformed('id', `${JSON.stringify(id)} is not one segment of a topic`)
}

function readObject(input: JsonInput): { [name: string]: Json } {
  if (!isObject(input.value)) throw wrong('refused', '', 'a dashboard is a JSON object')
  checkTree(input.value, '', MAX_DEPTH)
  return input.value
}

/** What can be merged and written again as it was: numbers that are finite, and no deeper than the stack. */
function checkTree(value: Json, path: string, depth: number): void {
  if (typeof value === 'number' && !Number.isFinite(value))
    throw wrong('refused', path, 'is not a finite number')
  if (typeof value !== 'object' || value === null) return
  if (depth === 0) throw wrong('refused', '', `a dashboard is nested no deeper than ${MAX_DEPTH}`)
  for (const [name, member] of Object.entries(value)) checkTree(member, `${path}/${name}`, depth - 1)
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
