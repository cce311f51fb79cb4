import type { Static, TSchema } from 'typebox'
import { Compile, type Validator } from 'typebox/compile'
import { Problem } from './problem.ts'
import { compactJson, hasPlainNumbers, memberOf } from './wire/json.ts'

/** JSON that came in: its value, and its text where the value doesn't keep all of it. */
export class JsonInput {
  readonly value: unknown
  readonly #text: string | undefined

  /** `text`: what the value was read from; without it, all that it is made of is in the value. */
  constructor(value: unknown, text?: string) {
    this.value = value
    this.#text = text
  }

  /** Compact JSON, with every number as it was written. */
  json(): string {
    const text = this.#text
    if (text === undefined) return JSON.stringify(this.value)
    return (hasPlainNumbers(text) ? stringify(this.value) : undefined) ?? compactJson(text)
  }

  /** The same of an object's member. */
  memberJson(name: string): string {
    const value = (this.value as Record<string, unknown>)[name]
    const text = this.#text === undefined ? undefined : memberOf(this.#text, name)
    if (text === undefined) return JSON.stringify(value)
    // what is escaped mostly becomes shorter
    return (text.includes('\\') && hasPlainNumbers(text) ? stringify(value) : undefined) ?? text
  }

  /** The value, if it is what a schema says. Throws a `Problem` that names what isn't; `path` leads to the value. */
  as<T extends TSchema>(schema: T, path = ''): Static<T> {
    const lists = withShortLists(this.value)
    // what was left out is looked at by no schema
    const validator = validatorOf(schema)
    if (validator.Check(lists)) return this.value as Static<T>
    const errors = validator.Errors(withFewMembers(lists)).map(({ instancePath, message }) => ({
      path: `${path}${instancePath}`,
      message
    }))
    throw new Problem(
      'malformed',
      errors.map(({ path, message }) => `${path} ${message}`.trim()).join('; '),
      errors
    )
  }
}

/** What checks by a schema: made once, as code where the process may make code of text. */
const validators = new WeakMap<TSchema, Validator>()

function validatorOf(schema: TSchema): Validator {
  let validator = validators.get(schema)
  if (!validator) validators.set(schema, (validator = Compile(schema)))
  return validator
}

/**
 * How many items and members are looked at, and one more: every schema that looks into a list allows fewer, so that a list
 * that was cut is too long all the same. Looking at a million takes seconds.
 */
const MOST = 10_000

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function withShortLists(value: unknown): unknown {
  if (!isObject(value)) return shortened(value)
  if (!hasLongList(value)) return value
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, shortened(member)]))
}

function hasLongList(object: Record<string, unknown>): boolean {
  for (const name in object) if (isLong(object[name])) return true
  return false
}

function shortened(value: unknown): unknown {
  return isLong(value) ? value.slice(0, MOST + 1) : value
}

function isLong(value: unknown): value is unknown[] {
  return Array.isArray(value) && value.length > MOST
}

function withFewMembers(value: unknown): unknown {
  if (!isObject(value)) return value
  const names = Object.keys(value)
  if (names.length <= MOST) return value
  return Object.fromEntries(names.slice(0, MOST + 1).map(name => [name, value[name]]))
}

/** Undefined for what is nested more deeply than the stack. */
function stringify(value: unknown): string | undefined {
  try {
    return JSON.stringify(value)
  } catch {
    return undefined
  }
}

/** Reads a body as JSON; `what` names it. Throws a `Problem`. */
export function readJson(text: string, what = 'the body'): JsonInput {
  try {
    return new JsonInput(JSON.parse(text), text)
  } catch (error) {
    throw new Problem('malformed', `${what} is not JSON: ${(error as Error).message}`)
  }
}
