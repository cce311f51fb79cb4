/** A JSON value. */
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json }

/** Applies a JSON Merge Patch (RFC 7396, section 2). The target is left as it is. */
export function mergePatch(target: Json | undefined, patch: Json): Json {
  if (!isObject(patch)) return patch
  const members = new Map(isObject(target) ? Object.entries(target) : [])
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) members.delete(name)
    else members.set(name, mergePatch(members.get(name), value))
  }
  // defines its members, so that one named __proto__ is a member like any other
  return Object.fromEntries(members)
}

export function isObject(value: unknown): value is { [name: string]: Json } {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
