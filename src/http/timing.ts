import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import type { HttpTimes, RouteTimes } from '../metrics/http.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** When it came, by the clock of `performance`, in milliseconds. */
    cameAt: number
  }

  interface FastifyContextConfig {
    /** Whether the route is counted by its name although no description has it. */
    isCounted?: boolean
    /** What is counted of the route. */
    times?: RouteTimes
  }
}

/** How paths are counted that are none of the API's: pages, and what is not here. */
const OTHER = 'other'

/**
 * Counts how the requests of an app are answered, by the patterns of the routes that are registered after this call. What
 * all paths begin with is left out, so that the metrics don't depend on where the app lies.
 *
 * An answer counts when it is made. To wait until it has left would keep each request for as long as a stream lives.
 *
 * Gives back what counts a request for what is not here, which has no route.
 */
export function timeRequests(app: FastifyInstance, times: HttpTimes): (request: FastifyRequest) => void {
  const others = times.of(OTHER, OTHER)
  const { length } = app.prefix.replace(/\/$/, '')
  app.decorateRequest('cameAt', 0)
  app.addHook('onRequest', (request, _reply, done) => {
    request.cameAt = performance.now()
    done()
  })
  app.addHook('onRoute', route => {
    const own = isCounted(route) ? times.of(methodOf(route), route.url.slice(length)) : others
    route.config = { ...route.config, times: own }
    // a hook of the route's own knows what to count: to look it up would cost each request more than all that is counted
    route.onSend = [route.onSend ?? []].flat().concat((request, reply, _payload, done) => {
      own.answered(reply.statusCode, secondsOf(request))
      done()
    })
  })
  return request => others.answered(404, secondsOf(request))
}

/** A stream, or a WebSocket, was begun with this status: such an answer goes past the framework. */
export function countBegun({ request }: Pick<FastifyReply, 'request'>, status: number): void {
  request.routeOptions.config.times?.answered(status, secondsOf(request))
}

function isCounted({ schema, config }: RouteOptions): boolean {
  return config?.isCounted === true || (schema !== undefined && !(schema as { hide?: boolean }).hide)
}

/** What is described has one method, besides HEAD where that is GET. */
function methodOf({ method }: RouteOptions): string {
  return [method].flat()[0]!
}

function secondsOf({ cameAt }: FastifyRequest): number {
  return (performance.now() - cameAt) / 1000
}
