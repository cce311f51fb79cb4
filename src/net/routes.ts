import type { IncomingMessage } from 'node:http'
import type { FastifyInstance } from 'fastify'
import Router from 'find-my-way'

/** What Fastify was made with. */
interface Options {
  readonly rewriteUrl?: (request: IncomingMessage) => string
  readonly routerOptions?: Partial<Record<(typeof MATCHING)[number], boolean | number>>
}

/** The options of a router that change what a path matches. */
const MATCHING = [
  'caseSensitive',
  'ignoreDuplicateSlashes',
  'ignoreTrailingSlash',
  'maxParamLength',
  'useSemicolonDelimiter'
] as const

/**
 * Routes of an app by their paths, each with a value. It is asked before a request is given to the app, of whose own router
 * one can't ask that.
 */
export class Routes<T> {
  readonly #app: FastifyInstance
  readonly #rewriteUrl: Options['rewriteUrl']
  readonly #router: Router.Instance<Router.HTTPVersion.V1>

  constructor(app: FastifyInstance) {
    const { rewriteUrl, routerOptions = {} } = optionsOf(app)
    this.#app = app
    this.#rewriteUrl = rewriteUrl
    this.#router = Router(Object.fromEntries(MATCHING.map(name => [name, routerOptions[name]])))
  }

  /** Adds a route, such as `/dashboards/:id` or `/events/*`. Of two with the same path the first one stays. */
  add(path: string, value: T): void {
    if (!this.#router.hasRoute('GET', path)) this.#router.on('GET', path, ignore, value)
  }

  /** The value of the route that a request is for. A `rewriteUrl` of the app is asked where its path leads. */
  find(request: IncomingMessage): T | undefined {
    const url = this.#rewriteUrl?.call(this.#app, request) ?? request.url
    // what is no text Fastify refuses later
    if (typeof url !== 'string') return undefined
    return (this.#router.find('GET', url)?.store ?? undefined) as T | undefined
  }
}

/** Fastify shows its options without their functions (`initialConfig`); it keeps all of them under a symbol. */
function optionsOf(app: FastifyInstance): Options {
  for (let each: object | null = app; each; each = Object.getPrototypeOf(each) as object | null) {
    const key = Object.getOwnPropertySymbols(each).find(
      ({ description }) => description === 'fastify.options'
    )
    if (key) return (each as Record<symbol, Options>)[key]!
  }
  return {}
}

function ignore(): void {}
