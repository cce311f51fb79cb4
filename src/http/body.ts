import type { FastifyInstance } from 'fastify'
import type { Static, TSchema } from 'typebox'
import { Value } from 'typebox/value'
import { Problem, type ProblemKind } from '../problem.ts'
import { compactJson, elementsOf, hasPlainNumbers, memberOf } from '../wire/json.ts'

/** Makes bodies arrive as bytes, whatever their type: they are stored as they came. */
export function takeRawBodies(app: FastifyInstance): void {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
  // HTTP/2 frames its bodies itself: without a type Fastify would not look for one
  app.addHook('onRequest', async ({ raw }) => {
    if (raw.httpVersionMajor === 2 && raw.method !== 'GET') raw.headers['content-type'] ??= 'text/plain'
  })
}

/** JSON that came in: its value, and its text where the value doesn't keep all of it. */
export class JsonInput {
  readonly value: unknown
  readonly #text: () => string
  /** Whether the text can be made again from the value. */
  readonly #exact: boolean

  constructor(value: unknown, text: () => string, exact: boolean) {
    this.value = value
    this.#text = text
    this.#exact = exact
  }

  /** Compact JSON, with every number as it was written. */
  json(): string {
    return stringify(this.value, this.#exact) ?? compactJson(this.#text())
  }

  /** The same of an object's member. */
  memberJson(name: string): string {
    const value = (this.value as Record<string, unknown>)[name]
    return stringify(value, this.#exact) ?? memberOf(this.#text(), name)!
  }

  /** The value, if it is what a schema says. Throws a `Problem` that names what isn't; `path` leads to the value. */
  as<T extends TSchema>(schema: T, path = ''): Static<T> {
    if (Value.Check(schema, this.value)) return this.value
    const errors = [...Value.Errors(schema, this.value)].map(({ instancePath, message }) => ({
      path: `${path}${instancePath}`,
      message
    }))
    throw new Problem(
      'malformed',
      errors.map(({ path, message }) => `${path} ${message}`.trim()).join('; '),
      errors
    )
  }

  /** The elements of an array. */
  elements(): JsonInput[] {
    let texts: string[] | undefined
    const textOf = (index: number) => (texts ??= elementsOf(this.#text()))[index]!
    return (this.value as unknown[]).map(
      (value, index) => new JsonInput(value, () => textOf(index), this.#exact)
    )
  }
}

/** Undefined for what only its text keeps: numbers that were rounded, nesting deeper than the stack. */
function stringify(value: unknown, exact: boolean): string | undefined {
  try {
    return exact ? JSON.stringify(value) : undefined
  } catch {
    return undefined
  }
}

/** Reads a body as JSON; `what` names it. Throws a `Problem`. */
export function readJson(text: string, what = 'the body'): JsonInput {
  try {
    return new JsonInput(JSON.parse(text), () => text, hasPlainNumbers(text))
  } catch (error) {
    throw new Problem('malformed', `${what} is not JSON: ${(error as Error).message}`)
  }
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

/** Something in an input that is wrong; the path of the whole of it is empty. */
export function wrong(kind: ProblemKind, path: string, message: string): Problem {
  return new Problem(kind, path === '' ? message : `${path}: ${message}`, [{ path, message }])
}
