/**
 * Applies a JSON Merge Patch (RFC 7396) and returns the result; what it is given stays as it was.
 * By way of a map, so that a member called `__proto__` is one like any other.
 */
export function mergePatch(target, patch) {
  if (!isObject(patch)) return patch
  const members = new Map(isObject(target) ? Object.entries(target) : [])
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) members.delete(name)
    else members.set(name, mergePatch(members.get(name), value))
  }
  return Object.fromEntries(members)
}

function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
