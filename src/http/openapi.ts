/** What the API says of itself, as a whole (OpenAPI 3.1): how the schemas of its routes become the description. */
import type { FastifyDynamicSwaggerOptions, SwaggerTransform, SwaggerTransformObject } from '@fastify/swagger'
import type { Rule } from '../rules/rules.ts'

const ABOUT = `Live topics, with exact resume: whoever reads one is given each event after its cursor exactly once and in order, or told of a gap that says what is missing.

**Reading.** \`Accept\` chooses how: \`text/event-stream\` (also \`*/*\` or none), \`application/x-ndjson\`, or \`application/json\` for a page at a time. A stream begins with where it starts from. Each event's id is a cursor: an EventSource sends it back by itself, as \`Last-Event-ID\`, and misses nothing. On \`/docs\` “Execute” shows them as they come, until “Stop”.

**WebSocket.** \`GET /ws\` is for what needs two directions: subscribe with the same resume, publish with an acknowledgement, signals that are never stored, and who is present. Its subprotocols are \`ringside.v1.json\` (text, the default) and \`ringside.v1.cbor\` (binary). Each message of a client is an object with an \`op\` (\`subscribe\`, \`unsubscribe\`, \`publish\`, \`signal\`, \`join\`, \`leave\`, \`read\`, \`ping\`) and a \`ref\`, which the answer repeats: \`{"op":"subscribe","ref":1,"topics":["tickers/*"]}\`. The token and the \`Origin\` are checked on the upgrade request; without an upgrade it is 426. OpenAPI has no words for what comes after the handshake, so it is not among the operations; on \`/docs\` it is tried beneath this text.

**Errors** are \`application/problem+json\`. Any status but 200 ends a browser's EventSource for good. So when the server is full, stopping or without its broker, whoever accepts \`text/event-stream\` by name is given 200, a \`goodbye\` with the reason, and the end of the stream, and comes back by itself; everybody else gets 503 with \`Retry-After\`. The same goes for a client that is past a limit of its own, with 429. What can't be read as a request, or asks for nothing that is here, is answered in the same form with 400, 404, 408, 414 or 431.`

/**
 * How @fastify/swagger describes this API, whose paths all begin with `prefix`. A client finds the server where it found
 * the description: what a proxy has put before the path nobody here knows.
 */
export function describeApi(version: string, prefix: string): FastifyDynamicSwaggerOptions {
  return {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Ringside',
        version,
        summary: 'Live dashboards and notifications over Server-Sent Events',
        description: ABOUT,
        license: { name: 'MIT', identifier: 'MIT' }
      },
      tags: [
        { name: 'events', description: 'Read and publish on any topic' },
        { name: 'tickers', description: 'The latest quote of each symbol, on `tickers/<symbol>`' },
        {
          name: 'dashboards',
          description: 'JSON objects that are replaced or patched, on `dashboards/<id>`'
        },
        { name: 'notifications', description: 'An inbox for each user, on `notifications/<user>`' },
        {
          name: 'operator',
          description:
            'For who operates the server, with `"admin": true` in the token: all instances together'
        },
        { name: 'operations', description: 'Health, metrics, and this description' }
      ],
      components: {
        securitySchemes: {
          bearer: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' },
          cookie: { type: 'apiKey', in: 'cookie', name: 'ringside_token', description: 'A JWT' },
          query: {
            type: 'apiKey',
            in: 'query',
            name: 'token',
            description: 'A JWT, for an EventSource, which can send no header'
          }
        }
      },
      security: [{}, { bearer: [] }, { cookie: [] }, { query: [] }]
    },
    exposeHeadRoutes: true,
    convertConstToEnum: false,
    transform: route => describeRoute({ ...route, url: route.url.slice(prefix.length) }),
    transformObject: finish
  }
}

/** A route's schema as @fastify/swagger takes it. */
const describeRoute: SwaggerTransform = ({ schema, url, ...document }) => {
  if (!schema || schema.hide || !('openapiObject' in document)) return { schema, url }
  const components = document.openapiObject.components!.schemas! as Record<string, unknown>
  const { requestBody, params, querystring, headers, ...rest } = named(schema, components) as Described
  return {
    schema: {
      ...rest,
      ...(params && { params: parameters(params, name => (name === '*' ? 'topic' : name)) }),
      ...(querystring && { querystring: parameters(querystring) }),
      ...(headers && { headers: parameters(headers, headerName) }),
      // as a body of Fastify's it would lose its examples
      ...(requestBody && { [BODY]: { required: true, content: requestBody } })
    },
    url: url.replace(/\*$/, ':topic')
  }
}

/** The description, as far as it changes. */
export interface DescribedApi {
  readonly info?: { readonly description?: string }
}

/**
 * The description with the rules for topics that are in force: for programs as `x-ringside-topics`, with `ttl` in seconds,
 * and for people in its text.
 */
export function withRules<D extends DescribedApi>(document: D, list: readonly Rule[]): D {
  const topics = list.map(rule => (rule.ttl === undefined ? rule : { ...rule, ttl: rule.ttl / 1000 }))
  if (topics.length === 0) return { ...document, 'x-ringside-topics': topics }
  const lines = topics.map(rule => `- \`${JSON.stringify(rule)}\``).join('\n')
  const description = `${document.info?.description}\n\n**Topics** have rules here, of which the first that matches holds (\`ttl\` in seconds):\n\n${lines}`
  return { ...document, info: { ...document.info, description }, 'x-ringside-topics': topics }
}

/** Under which name a body goes through @fastify/swagger. */
const BODY = 'x-request-body'

/** The parts of a route's schema that are said in another way. */
interface Described {
  readonly params?: Members
  readonly querystring?: Members
  readonly headers?: Members
  readonly requestBody?: object
}

interface Members {
  readonly properties: Readonly<Record<string, object>>
}

/** Whatever holds schemas, with a reference instead of each that has a name of its own (`$id`): a component. */
function named(value: unknown, components: Record<string, unknown>): unknown {
  if (Array.isArray(value)) return value.map(each => named(each, components))
  if (typeof value !== 'object' || value === null) return value
  const { $id, ...rest } = value as Record<string, unknown>
  const copy = Object.fromEntries(
    Object.entries(rest).map(([name, member]) => [name, named(member, components)])
  )
  if (typeof $id !== 'string') return copy
  components[$id] = copy
  return { $ref: `#/components/schemas/${$id}` }
}

/** Parameters by the names that they are described with. What is not checked is text. */
function parameters(schema: Members, rename = (name: string) => name): Members {
  const members = Object.entries(schema.properties).map(([name, member]) => [
    rename(name),
    { type: 'string', ...member }
  ])
  return { ...schema, properties: Object.fromEntries(members) as Members['properties'] }
}

/** `last-event-id`, as Fastify checks it, is `Last-Event-ID`. */
function headerName(name: string): string {
  return name.replace(/\bid\b|\b[a-z]/g, letters => letters.toUpperCase())
}

interface Operation {
  readonly operationId: string
  readonly summary: string
  readonly responses: Readonly<Record<string, { readonly content?: object }>>
}

/** Where the paths begin, seen from `/openapi.json`. What must be absolute for @fastify/swagger is said after it. */
const SERVERS = [{ url: '.' }]

/** Puts the bodies in their place; HEAD is what GET is, without content (RFC 9110, section 9.3.2). */
const finish: SwaggerTransformObject = document => {
  if (!('openapiObject' in document)) throw new Error('there is only OpenAPI')
  const { openapiObject } = document
  const paths = openapiObject.paths as unknown as Record<string, Record<string, Operation>>
  for (const path of Object.values(paths)) {
    for (const [method, operation] of Object.entries(path)) {
      const { [BODY]: requestBody, ...rest } = operation as Operation & { [BODY]?: object }
      path[method] = requestBody ? { ...rest, ...{ requestBody } } : rest
    }
    if (path['head']) path['head'] = headOf(path['get']!)
  }
  return { ...openapiObject, servers: SERVERS }
}

function headOf({ operationId, summary, responses, ...rest }: Operation): Operation {
  const heads = Object.entries(responses).map(([status, { content: _content, ...head }]) => [status, head])
  return {
    ...rest,
    operationId: `${operationId}Head`,
    summary: `${summary}: the headers alone`,
    responses: Object.fromEntries(heads) as Operation['responses']
  }
}
