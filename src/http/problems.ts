import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { BrokerUnavailable } from '../broker/unavailable.ts'
import { MemoryFull } from '../memory.ts'
import type { Failure } from '../metrics.ts'
import { Problem, problemDetails } from '../problem.ts'
import { WireError } from '../wire/error.ts'

/** Answers whatever was thrown, as problem+json. */
export function answerProblem(
  error: FastifyError | Problem | BrokerUnavailable | MemoryFull,
  request: FastifyRequest,
  reply: FastifyReply
): void {
  if (error instanceof BrokerUnavailable) {
    return void sendProblem(
      reply.header('retry-after', 1),
      503,
      `${error.message}; what was to be stored may not be`
    )
  }
  if (error instanceof MemoryFull) return void sendProblem(reply.header('retry-after', 1), 503, error.message)
  if (error instanceof Problem) {
    if (error.retryAfter !== undefined) reply.header('retry-after', error.retryAfter)
    return void sendProblem(reply, error.statusCode, error.message, error.errors)
  }
  answerError(error, request, reply)
}

/** Why a write came to nothing, by the statuses that it is answered with; what is not here was malformed. */
const FAILURES: Readonly<Record<number, Failure>> = {
  401: 'unauthorized',
  403: 'forbidden',
  404: 'not_found',
  409: 'conflict',
  412: 'conflict',
  413: 'too_large',
  415: 'unsupported',
  422: 'refused',
  429: 'rate',
  500: 'error',
  503: 'unavailable'
}

/** Why a write came to nothing that has thrown this. */
export function failureOf(error: unknown): Failure {
  if (error instanceof BrokerUnavailable) return 'unavailable'
  if (error instanceof MemoryFull) return 'memory'
  if (error instanceof WireError || (error as FastifyError).validation) return 'malformed'
  return FAILURES[(error as FastifyError).statusCode ?? 500] ?? 'malformed'
}

/** Answers an error of Fastify's, or one that nobody has foreseen. */
function answerError(error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  if (error.validation) {
    const errors = error.validation.map(({ instancePath, message = 'is not allowed' }) => ({
      path: `${error.validationContext ?? ''}${instancePath}`,
      message
    }))
    return void sendProblem(reply, 400, error.message, errors)
  }
  // its own message repeats the query
  if (error.code === 'FST_ERR_BAD_URL')
    return void sendProblem(reply, 400, `${pathOf(request)} is not a path: its % codes are not UTF-8`)
  if (error.code === 'FST_ERR_HANDLER_TIMEOUT')
    return void sendProblem(reply.header('retry-after', 1), 503, 'this took longer than the server allows')
  const status = error.statusCode ?? 500
  if (status < 500) return void sendProblem(reply, status, error.message)
  request.log.error(error)
  sendProblem(reply, status, 'something went wrong here; the log has more')
}

/** Answers what an app has no route for; `count` is told of each such request. */
export function answerNotFound(app: FastifyInstance, count: (request: FastifyRequest) => void): void {
  app.setNotFoundHandler((request, reply) => {
    count(request)
    return sendProblem(reply, 404, `${request.method} ${pathOf(request)} is not here`)
  })
}

function sendProblem(reply: FastifyReply, status: number, detail: string, errors?: Problem['errors']) {
  return (
    reply
      .code(status)
      // of the answer that this one stands for
      .removeHeader('content-encoding')
      .header('x-request-id', reply.request.id)
      .serializer(JSON.stringify)
      .type('application/problem+json')
      .send(problemDetails(status, detail, errors))
  )
}

/** Without the query, which may hold a token. */
function pathOf({ url }: FastifyRequest): string {
  return url.split('?')[0]!
}
