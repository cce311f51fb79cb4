/**
 * JSON text handled as text, so that what was published arrives as it was written: `JSON.parse` would round a number
 * of more than 15 digits. All functions take valid JSON.
 */

/** The same JSON without white space between its tokens. */
export function compactJson(text: string): string {
  if (isCompact(text)) return text
  const bytes = Buffer.from(text)
  let length = 0
  let isInString = false
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at]!
    if (byte <= SPACE && !isInString) continue
    bytes[length++] = byte
    if (byte === QUOTE) isInString = !isInString
    else if (byte === BACKSLASH) bytes[length++] = bytes[++at]!
  }
  return bytes.toString('utf8', 0, length)
}

function isCompact(text: string): boolean {
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === QUOTE) at = endOfString(text, at)
    else if (code <= SPACE) return false
  }
  return true
}

/** Whether every number in it is written again as it was, once `JSON.parse` has read it. */
export function hasPlainNumbers(text: string): boolean {
  return !/(?:\d\.?){16}|\d\.?\d*[eE]|\.\d*0(?!\d)|0\.0{6}|-0(?![.\d])/.test(text)
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

/** The texts of the items of an array; the array is compact. */
export function itemsOf(array: string): string[] {
  const items: string[] = []
  let start = 1
  walk(array, (mark, at, depth) => {
    if (depth !== 1 || (mark !== COMMA && mark !== CLOSE_ARRAY)) return
    if (at > start) items.push(array.slice(start, at))
    start = at + 1
  })
  return items
}

/** Visits the members of an object, each with where its value is. */
function visitMembers(object: string, visit: (key: string, start: number, end: number) => void): void {
  let key = ''
  let start = 0
  walk(object, (mark, at, depth) => {
    if (depth !== 1) return
    if (mark === COLON) {
      key = object.slice(start, at)
    } else if (mark === COMMA || mark === CLOSE_OBJECT) {
      if (key !== '') visit(textOf(key), start, at)
      key = ''
    }
    start = at + 1
  })
}

/** What a string of JSON says, which may have white space around it. */
function textOf(string: string): string {
  return string.includes('\\') ? (JSON.parse(string) as string) : string.trim().slice(1, -1)
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
 * Visits the brackets, colons and commas that are not in strings, as character codes, each with how deep it lies: the
 * outermost brackets at 1. It keeps nothing: text of many small tokens costs no more than any other.
 */
function walk(text: string, visit: (mark: number, at: number, depth: number) => void): void {
  let depth = 0
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === QUOTE) at = endOfString(text, at)
    else if (code === COLON || code === COMMA) visit(code, at, depth)
    else if (code === OPEN_ARRAY || code === OPEN_OBJECT) visit(code, at, ++depth)
    else if (code === CLOSE_ARRAY || code === CLOSE_OBJECT) visit(code, at, depth--)
  }
}

/** The quote that ends the string that begins here. */
function endOfString(text: string, start: number): number {
  let end = text.indexOf('"', start + 1)
  while (isEscaped(text, end)) end = text.indexOf('"', end + 1)
  return end
}

function isEscaped(text: string, at: number): boolean {
  let before = at
  while (text.charCodeAt(before - 1) === BACKSLASH) before--
  return (at - before) % 2 === 1
}

const SPACE = 0x20
const QUOTE = 0x22
const COMMA = 0x2c
const COLON = 0x3a
const OPEN_ARRAY = 0x5b
const BACKSLASH = 0x5c
const CLOSE_ARRAY = 0x5d
const OPEN_OBJECT = 0x7b
const CLOSE_OBJECT = 0x7d
