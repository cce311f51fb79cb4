/**
 * JSON text handled as text, so that what was published arrives as it was written: `JSON.parse` would round a number
 * of more than 15 digits. All functions take valid JSON.
 */

/** The same JSON without white space between its tokens. */
export function compactJson(text: string): string {
  return /\s/.test(text) ? tokens(text).join('') : text
}

/** Whether `JSON.parse` keeps every number in it. */
export function hasPlainNumbers(text: string): boolean {
  return !/\d{16}|\d\.?\d*[eE]|\.\d{15}/.test(text)
}

/** The text of each element of an array. */
export function elementsOf(array: string): string[] {
  return partsOf(array).map(({ value }) => value)
}

/** The text of an object's member; that of the last one, as `JSON.parse` has it, when there are several. */
export function memberOf(object: string, name: string): string | undefined {
  return partsOf(object).findLast(({ key }) => key !== undefined && JSON.parse(key) === name)?.value
}

/** What lies between the outermost brackets, at their commas. */
function partsOf(text: string): { key: string | undefined; value: string }[] {
  const parts: { key: string | undefined; value: string }[] = []
  let depth = 0
  let key: string | undefined
  let value = ''
  for (const token of tokens(text)) {
    if ((token === ']' || token === '}') && --depth === 0) break
    if (depth === 1 && token === ',') {
      parts.push({ key, value })
      key = undefined
      value = ''
    } else if (depth === 1 && token === ':') {
      key = value
      value = ''
    } else if (depth > 0) {
      value += token
    }
    if (token === '[' || token === '{') depth++
  }
  return value === '' ? parts : [...parts, { key, value }]
}

function tokens(text: string): string[] {
  return text.match(/"(?:[^"\\]|\\.)*"|[[\]{},:]|[^\s"[\]{},:]+/g) ?? []
}

/** How deeply arrays and objects lie in each other. */
export function depthOf(text: string): number {
  let depth = 0
  let deepest = 0
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{}]/g)) {
    if (token === '[' || token === '{') deepest = Math.max(deepest, ++depth)
    else if (token === ']' || token === '}') depth--
  }
  return deepest
}
