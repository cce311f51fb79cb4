import type { Static, TSchema } from 'typebox'
import { Value } from 'typebox/value'
import { Problem } from './problem.ts'
import { compactJson, elementsOf, hasPlainNumbers, memberOf } from './wire/json.ts'

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
