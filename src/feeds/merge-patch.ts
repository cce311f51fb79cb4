import { membersOf } from '../wire/json.ts'

/** A JSON value. */
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json }

/**
 * Applies a JSON Merge Patch (RFC 7396, section 2). Both are compact JSON as text, and so is the answer: every number stays
 * as it was written.
 */
export function mergePatch(target: string | undefined, patch: string): string {
  if (!isObjectText(patch)) return patch
  const members = target !== undefined && isObjectText(target) ? membersOf(target) : new Map<string, string>()
  for (const [name, value] of membersOf(patch)) {
    if (value === 'null') members.delete(name)
    else members.set(name, mergePatch(members.get(name), value))
  }
  return `{${Array.from(members, ([name, value]) => `${JSON.stringify(name)}:${value}`).join(',')}}`
}

function isObjectText(json: string): boolean {
  return json.startsWith('{')
}

export function isObject(value: unknown): value is { [name: string]: Json } {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
