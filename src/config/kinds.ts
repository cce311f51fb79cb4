/** The kinds of settings: what is allowed, as a message says it (`allowed`), and what the program makes of the text. */
import { parse as parseDuration } from '@lukeed/ms'
import { parse as parseBytes } from 'bytes'
import { Type } from 'typebox'

/** A key of HMAC with SHA-256 has at least the size of its hash (RFC 7518, section 3.2). */
const SECRET_BYTES = 32

/** A duration such as `15s`, `24h`, `500ms`, or bare seconds; in milliseconds once decoded. `least`: the shortest one. */
export function Duration(fallback: string | undefined, description: string, least = '0', most = '365d') {
  const type = Type.String({
    ...(fallback !== undefined && { default: fallback }),
    description,
    pattern: '^[0-9]+(\\.[0-9]+)? ?(ms|s|m|h|d)?$',
    allowed: `a duration such as 500ms, 15s, 10m or 24h (a bare number: seconds), from ${least} to ${most}`
  })
  return Type.Decode(type, text => within(milliseconds(text), milliseconds(least), milliseconds(most)))
}

/** A size such as `256 KiB` or `65536`; in bytes once decoded. `least` and `most`: the smallest and the largest one. */
export function Size(fallback: string | undefined, description: string, least: string, most = '1 GiB') {
  const type = Type.String({
    ...(fallback !== undefined && { default: fallback }),
    description,
    pattern: '^[0-9]+ ?([kKmMgG]i?[bB]|[bB])?$',
    allowed: `a size such as 65536, 256 KiB or 1 MiB, from ${least} to ${most}`
  })
  return Type.Decode(type, text => within(sizeOf(text), sizeOf(least), sizeOf(most)))
}

/** When what is stored is flushed: at each commit, when the system does, or so many milliseconds later at most. */
export function Flushing(description: string) {
  const type = Type.String({
    default: 'commit',
    description,
    pattern: '^(commit|off|[0-9]+(\\.[0-9]+)? ?(ms|s|m|h)?)$',
    allowed: 'commit, off, or a duration such as 250ms, from 1ms to 1h'
  })
  return Type.Decode(type, text =>
    text === 'commit' || text === 'off' ? text : within(milliseconds(text), 1, 3_600_000)
  )
}

export function List(description: string) {
  const type = Type.String({
    default: '',
    description,
    allowed: 'a list, separated by commas, without quotes'
  })
  return Type.Decode(type, itemsOf)
}

/** Throws for quotes around an item: nothing would ever match it. */
function itemsOf(text: string): string[] {
  const items = text
    .split(',')
    .map(item => item.trim())
    .filter(item => item !== '')
  if (items.some(item => /^["'`]|["'`]$/.test(item))) throw new RangeError()
  return items
}

/** `null` is the origin of every page in a sandbox, whoever made it. */
export function Origins(description: string) {
  const allowed =
    'a list of origins such as https://app.example, separated by commas, without path, quotes or *.; or * alone; null is none'
  return Type.Decode(Type.String({ default: '', description, allowed }), text => {
    const items = itemsOf(text)
    if (items.includes('*')) within(items.length, 1, 1)
    return items.map(item => (item === '*' ? item : readOrigin(item)))
  })
}

/** No page comes from these, though `URL` takes them for addresses with a host. */
const NO_PAGES = new Set(['file:', 'ftp:', 'ws:', 'wss:'])

/**
 * An origin as a browser says it: in lower case, without a slash or the port that its scheme has anyhow. Apps and extensions
 * have schemes of their own (`capacitor://localhost`), for which `URL` tells no origin. Throws.
 */
function readOrigin(text: string): string {
  const { protocol, host, href } = new URL(text)
  const origin = `${protocol}//${host}`
  // what else a URL can hold would never be in an `Origin`
  if (NO_PAGES.has(protocol) || host === '' || ![origin, `${origin}/`].includes(href) || text.includes('*'))
    throw new RangeError()
  return origin.toLowerCase()
}

/** A text that no message repeats. */
export function Secret(description: string) {
  const type = Type.String({
    default: '',
    description,
    secret: true,
    allowed: `at least ${SECRET_BYTES} bytes of text`
  })
  return Type.Decode(type, text => {
    if (text !== '') within(Buffer.byteLength(text), SECRET_BYTES, Infinity)
    return text
  })
}

export function PemFile(description: string) {
  return Type.String({ default: '', description, allowed: 'a file (PEM)' })
}

export function Whole(fallback: number, minimum: number, maximum: number, description: string) {
  return Type.Integer({
    default: fallback,
    minimum,
    maximum,
    description,
    allowed: `a whole number from ${minimum} to ${maximum}`
  })
}

export function Flag(fallback: boolean, description: string) {
  return Type.Boolean({ default: fallback, description, allowed: 'true or false' })
}

function milliseconds(text: string): number {
  // of a zero the parser makes nothing
  return /[a-z]$/.test(text) ? (parseDuration(text) ?? 0) : Number(text) * 1000
}

function sizeOf(text: string): number {
  return parseBytes(text.replace(/i/i, ''))!
}

function within(value: number, least: number, most: number): number {
  if (value < least || value > most) throw new RangeError()
  return value
}
