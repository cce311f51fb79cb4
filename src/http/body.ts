import type { FastifyInstance } from 'fastify'
import { readJson, type JsonInput } from '../input.ts'
import { Problem } from '../problem.ts'

/** Makes bodies arrive as bytes, whatever their type: they are stored as they came. */
export function takeRawBodies(app: FastifyInstance): void {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
  // HTTP/2 frames its bodies itself: without a type Fastify would not look for one
  app.addHook('onRequest', async ({ raw }) => {
    if (raw.httpVersionMajor === 2 && raw.method !== 'GET') raw.headers['content-type'] ??= 'text/plain'
  })
}

/** Reads a body of JSON or of another media type that is JSON. Throws a `Problem`. */
export function readJsonBody(
  contentType: string | undefined,
  body: unknown,
  mediaType = 'application/json'
): JsonInput {
  const given = mediaTypeOf(contentType)
  if (given !== mediaType && given !== 'application/json') {
    throw new Problem('unsupported', `Content-Type: ${contentType}: it must be ${mediaType}`)
  }
  return readJson(utf8(body))
}

export function mediaTypeOf(contentType = ''): string {
  return contentType.split(';')[0]!.trim().toLowerCase()
}

/** Throws a `Problem` for what is no UTF-8. A byte order mark is data like any other. */
export function utf8(body: unknown): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(
      (body as Buffer | undefined) ?? Buffer.alloc(0)
    )
  } catch {
    throw new Problem('malformed', 'the body is not UTF-8')
  }
}
