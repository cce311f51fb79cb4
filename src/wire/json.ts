/**
 * JSON text handled as text, so that what was published arrives as it was written: `JSON.parse` would round a number
 * of more than 15 digits. All functions take valid JSON.
 */

/** The same JSON without white space between its tokens. */
export function compactJson(text: string): string {
  // strings are passed over whole
  return /\s/.test(text) ? text.replace(/("[^"\\]*(?:\\.[^"\\]*)*")|\s+/g, '$1') : text
}

/** Whether `JSON.parse` keeps every number in it. */
export function hasPlainNumbers(text: string): boolean {
  return !/\d{16}|\d\.?\d*[eE]|\.\d{15}/.test(text)
}

/** The text of an object's member; that of the last one, as `JSON.parse` has it, when there are several. */
export function memberOf(object: string, name: string): string | undefined {
  let key = ''
  let start = 0
  let found: string | undefined
  walk(object, (mark, at, depth) => {
    if (depth !== 1) return
    if (mark === ':') {
      key = object.slice(start, at)
    } else if (mark === ',' || mark === '}') {
      if (key !== '' && JSON.parse(key) === name) found = object.slice(start, at)
      key = ''
    }
    start = at + 1
  })
  return found === undefined ? undefined : compactJson(found)
}

/** How deeply arrays and objects lie in each other. */
export function depthOf(text: string): number {
  let deepest = 0
  walk(text, (_mark, _at, depth) => {
    deepest = Math.max(deepest, depth)
  })
  return deepest
}

/**
 * Visits the brackets, colons and commas that are not in strings, each with how deep it lies: the outermost brackets at 1.
 * It keeps nothing: text of many small tokens costs no more than any other.
 */
function walk(text: string, visit: (mark: string, at: number, depth: number) => void): void {
  const marks = /["[\]{},:]/g
  let depth = 0
  for (let found = marks.exec(text); found; found = marks.exec(text)) {
    const [mark] = found
    if (mark === '"') {
      marks.lastIndex = endOfString(text, found.index)
      continue
    }
    if (mark === '[' || mark === '{') depth++
    visit(mark, found.index, depth)
    if (mark === ']' || mark === '}') depth--
  }
}

/** Behind the string that begins here. */
function endOfString(text: string, start: number): number {
  let end = text.indexOf('"', start + 1)
  while (isEscaped(text, end)) end = text.indexOf('"', end + 1)
  return end + 1
}

function isEscaped(text: string, at: number): boolean {
  let before = at
  while (text[before - 1] === '\\') before--
  return (at - before) % 2 === 1
}
