/**
 * JSON text handled as text, so that what was published arrives as it was written: `JSON.parse` would round a number
 * of more than 15 digits. All functions take valid JSON.
 */

/** The same JSON without white space between its tokens. */
export function compactJson(text: string): string {
  // strings are passed over whole
  return /\s/.test(text) ? text.replace(/("[^"\\]*(?:\\.[^"\\]*)*")|\s+/g, '$1') : text
}

/** Whether every number in it is written again as it was, once `JSON.parse` has read it. */
export function hasPlainNumbers(text: string): boolean {
  return !/\d{16}|\d\.?\d*[eE]|\.\d{15}|\.\d*0(?!\d)|-0(?![.\d])/.test(text)
}

/** The text of an object's member; that of the last one, as `JSON.parse` has it, when there are several. */
export function memberOf(object: string, name: string): string | undefined {
  let found: string | undefined
  visitMembers(object, (key, start, end) => {
    if (key === name) found = object.slice(start, end)
  })
  return found === undefined ? undefined : compactJson(found)
}

/** The texts of all members of an object by name, as `memberOf` answers; the object is compact. */
export function membersOf(object: string): Map<string, string> {
  const members = new Map<string, string>()
  visitMembers(object, (key, start, end) => members.set(key, object.slice(start, end)))
  return members
}

/** Visits the members of an object, each with where its value is. */
function visitMembers(object: string, visit: (key: string, start: number, end: number) => void): void {
  let key = ''
  let start = 0
  walk(object, (mark, at, depth) => {
    if (depth !== 1) return
    if (mark === ':') {
      key = object.slice(start, at)
    } else if (mark === ',' || mark === '}') {
      if (key !== '') visit(JSON.parse(key) as string, start, at)
      key = ''
    }
    start = at + 1
  })
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
