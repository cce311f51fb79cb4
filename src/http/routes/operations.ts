import { fileURLToPath } from 'node:url'
import fastifyStatic from '@fastify/static'
import fastifySwaggerUi, { type FastifySwaggerUiOptions } from '@fastify/swagger-ui'
import type { FastifyPluginAsync } from 'fastify'
import { Type } from 'typebox'
import { Problem } from '../../problem.ts'
import type { Rules } from '../../rules/rules.ts'
import { json, problems, text } from '../description.ts'
import { withRules, type DescribedApi } from '../openapi.ts'
import { pageFiles, scriptOfDocs, styleOf } from './pages.ts'

export interface OperationsOptions {
  /** Why the server can't serve now; null while it can. */
  unready(): string | null
  /** Why nothing can be stored while all else goes on; null where it can. */
  unwritable(): string | null
  /** What /metrics answers: the text exposition format. */
  scrape(): Promise<string>
  /** Whether the live page and the description of the API are served as well. */
  pages: boolean
  /** What holds for topics. */
  rules: Rules
}

/** The text exposition format of Prometheus. */
const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

/** The documentation, as plain text. */
const DOCUMENTS = fileURLToPath(new URL('../../../docs', import.meta.url))

/** A page loads nothing from elsewhere, runs nothing that stands in it, and nobody frames it. */
const PAGE_POLICY = {
  'default-src': "'none'",
  'script-src': "'self'",
  'style-src': "'self'",
  'img-src': "'self'",
  'connect-src': "'self'",
  'base-uri': "'none'",
  'form-action': "'none'",
  'frame-ancestors': "'none'"
}

/** Swagger UI besides has pictures in its styles, and styles in its logo. */
const DOCS_POLICY = {
  ...PAGE_POLICY,
  'style-src': "'self' 'sha256-RL3ie0nH+Lzz2YNqQN83mnU0J1ot4QL7b99vMdIX99w='",
  'img-src': "'self' data:"
}

const PAGE_HEADERS = {
  'content-security-policy': Object.entries(PAGE_POLICY)
    .map(directive => directive.join(' '))
    .join('; ')
}

/** What the scripts of that page define. */
interface DocsScripts {
  readonly SwaggerUIBundle: { readonly plugins: { DownloadUrl(system: unknown): object } }
  readonly ringside?: { streams(system: unknown): object }
}

/**
 * Swagger UI. It would find its files and the server by absolute paths, which a prefix or a proxy makes wrong; so all is
 * said relative to `/docs/`.
 */
const docsOf = (rules: Rules): FastifySwaggerUiOptions => ({
  routePrefix: '/docs',
  staticCSP: DOCS_POLICY,
  theme: {
    title: 'Ringside: API',
    css: [{ filename: 'api.css', content: styleOf('api') }],
    js: [{ filename: 'api.js', content: scriptOfDocs() }]
  },
  uiHooks: {
    onRequest: (request, reply, next) => {
      const where = relativeToDocs(request.url)
      if (where === null) next()
      else reply.redirect(where)
    }
  },
  transformSpecification: description => ({
    ...withRules(description as DescribedApi, rules.list),
    servers: [{ url: '..' }]
  }),
  // the browser runs these, where the scripts before have put what they name
  uiConfig: {
    plugins: [
      system => (globalThis as unknown as DocsScripts).SwaggerUIBundle.plugins.DownloadUrl(system),
      // nothing where it was not built
      system => (globalThis as unknown as DocsScripts).ringside?.streams(system) ?? {}
    ]
  }
})

/** Where the page is, seen from another path that it can be asked for by; null for the page and all else. */
function relativeToDocs(url: string): string | null {
  if (/\/docs(\?.*)?$/i.test(url)) return 'docs/'
  if (/\/docs\/\?/i.test(url)) return './'
  return /\/static\/index\.html(\?.*)?$/i.test(url) ? '../' : null
}

/**
 * For operators: health, metrics, the description of the API, the client library and the live page. Sections 8 and 9
 * of the contract.
 */
export const operationsRoutes: FastifyPluginAsync<OperationsOptions> = async (
  app,
  { unready, unwritable, scrape, pages, rules }
) => {
  // who may see them is for what stands in front to say
  app.addHook('onRoute', route => {
    route.config = { ...route.config, open: true }
  })

  app.get('/livez', { schema: live }, async () => ({ status: 'ok' }))

  app.get('/readyz', { schema: ready }, async () => {
    const reason = unready()
    if (reason) throw new Problem('unavailable', reason, [], 1)
    const refusal = unwritable()
    return refusal === null ? { status: 'ok', write: true } : { status: 'ok', write: false, reason: refusal }
  })

  app.get('/metrics', { schema: measured }, async (_request, reply) =>
    reply.type(METRICS_TYPE).send(await scrape())
  )

  if (!pages) return
  app.addHook('onRequest', async (_request, reply) => {
    reply.headers(PAGE_HEADERS)
  })
  app.get('/openapi.json', { schema: described }, async () => withRules(app.swagger(), rules.list))
  await app.register(fastifySwaggerUi, docsOf(rules))

  await app.register(pageFiles)
  await app.register(fastifyStatic, {
    root: DOCUMENTS,
    prefix: '/docs/',
    wildcard: false,
    decorateReply: false
  })
}

// --- what goes out ---

const OK = json(Type.Object({ status: Type.Literal('ok') }), { status: 'ok' })

const READY = json(
  Type.Object({
    status: Type.Literal('ok'),
    write: Type.Boolean({ description: 'Whether events can be stored; readers are served all the same' }),
    reason: Type.Optional(Type.String({ description: 'Why they can not' }))
  }),
  { status: 'ok', write: true }
)

// neither a probe nor a scraper has a token
const operation = { tags: ['operations'], security: [] }

const live = {
  ...operation,
  operationId: 'live',
  summary: 'Whether the process runs',
  response: { 200: { description: 'It does', content: OK } }
}

const ready = {
  ...operation,
  operationId: 'ready',
  summary: 'Whether it can serve',
  response: {
    200: { description: 'It can: the broker answers, and it is not stopping', content: READY },
    ...problems(new Problem('unavailable', 'the server is stopping', [], 1))
  }
}

const measured = {
  ...operation,
  operationId: 'metrics',
  summary: 'Metrics for Prometheus',
  response: {
    200: {
      description: 'All of them',
      content: {
        'text/plain': text(
          '# HELP ringside_topics Topics and wildcards with a subscriber here\n# TYPE ringside_topics gauge\nringside_topics 3\n',
          'The text exposition format'
        )
      }
    }
  }
}

const described = {
  ...operation,
  operationId: 'describe',
  summary: 'This description',
  response: {
    200: {
      description: 'OpenAPI 3.1',
      content: json(Type.Object({ openapi: Type.String() }), { openapi: '3.1.0' })
    }
  }
}
