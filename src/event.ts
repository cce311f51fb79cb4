/**
 * The vocabulary that all parts share: topics and filters, ids and cursors, events and gaps, members and signals.
 * Pure functions and types; imports nothing.
 */

/** The longest topic or filter, in bytes of UTF-8. */
const MAX_TOPIC_BYTES = 256

/** The type of the event that ends its topic. */
export const END = 'end'

/** Event types that the server or EventSource itself uses; a publisher may not. */
export const RESERVED_TYPES: ReadonlySet<string> = new Set([
  'open',
  'error',
  'cursor',
  'gap',
  'goodbye',
  'snapshot',
  'heartbeat',
  'stale',
  END
])

/** What an event's `type` may be, as the source of a regular expression. */
export const TYPE_PATTERN = '^[A-Za-z0-9_.:-]{1,64}$'

/** What an idempotency key may be, as the source of a regular expression: visible characters. */
export const KEY_PATTERN = '^[!-~]{1,255}$'

// --- topics and filters ---

/**
 * A topic names what events are published on: 1 to 256 bytes of UTF-8, non-empty segments joined by `/`,
 * no control or format characters, no segment that is just `*`.
 */
export function isTopic(text: string): boolean {
  return isPath(text) && !(text.includes('*') && /(?:^|\/)\*(?:\/|$)/.test(text))
}

/** A filter is what a subscriber names: a topic, or one whose last segment is `*` (exactly one segment, any value). */
export function isFilter(text: string): boolean {
  return isPath(text) && !/(?:^|\/)\*\//.test(text)
}

function isPath(text: string): boolean {
  if (text.startsWith('/') || text.endsWith('/') || text.includes('//')) return false
  // looked at first: most are of ASCII alone, and that is quick to see
  if (/^[ -~]+$/.test(text)) return text.length <= MAX_TOPIC_BYTES
  // \p{Cs} is a lone surrogate: no UTF-8 can carry it
  return /^[^\p{Cc}\p{Cf}\p{Cs}]+$/u.test(text) && Buffer.byteLength(text) <= MAX_TOPIC_BYTES
}

/** True for a filter that can match more than one topic. */
export function isWildcard(filter: string): boolean {
  return filter === '*' || filter.endsWith('/*')
}

/** The only wildcard filter that matches this topic: its last segment replaced by `*`. */
export function wildcardOf(topic: string): string {
  return topic.slice(0, topic.lastIndexOf('/') + 1) + '*'
}

/** Whether a filter covers a topic. */
export function matches(filter: string, topic: string): boolean {
  return filter === topic || filter === wildcardOf(topic)
}

/**
 * What the topics begin with on which the server tells of itself: only who operates it reads them, and nobody else writes
 * there. No wildcard of other topics covers them, since a wildcard stands for a last segment.
 */
const OPERATOR = '$ringside'

/** Whether a topic, or all that a wildcard covers, is the operator's. */
export function isOperators(filter: string): boolean {
  // looked at first: it is asked of every event, and nearly none begins so
  return filter.startsWith('$') && (filter === OPERATOR || filter.startsWith(`${OPERATOR}/`))
}

/** The built-in feeds: the topics `<feed>/<name>` are written through them only. */
const FEEDS = ['tickers', 'dashboards', 'notifications'] as const

export type Feed = (typeof FEEDS)[number]

/** The feed that a topic belongs to. */
export function feedOf(topic: string): Feed | undefined {
  const end = topic.indexOf('/')
  const first = end === -1 ? topic : topic.slice(0, end)
  return FEEDS.find(feed => feed === first)
}

/**
 * What a token may be for, as segments: `*` is any one segment, `**` as the last one any number of them, also none.
 * All else is itself: there is no `*` inside a segment.
 */
export type Pattern = readonly string[]

/** Reads a pattern; undefined when it isn't one. */
export function parsePattern(text: string): Pattern | undefined {
  const segments = text.split('/')
  return isPath(text) && !segments.slice(0, -1).includes('**') ? segments : undefined
}

/** Whether one of these patterns covers a topic, or all topics of a filter. */
export function permits(patterns: readonly Pattern[], filter: string): boolean {
  const segments = filter.split('/')
  return patterns.some(pattern => {
    const open = pattern.at(-1) === '**'
    const fixed = open ? pattern.slice(0, -1) : pattern
    if (open ? segments.length < fixed.length : segments.length !== fixed.length) return false
    return fixed.every((segment, index) => segment === '*' || segment === segments[index])
  })
}

// --- ids and cursors ---

/** An event's place in its shard, given by the broker: milliseconds since the epoch and a counter within them. */
export interface Position {
  readonly ms: number
  readonly seq: number
}

/**
 * How far somebody has come: one position for each shard. Everything up to here, on its topics, has reached it.
 * An event's id, seen as a cursor, is the text of one.
 */
export type Cursor = readonly Position[]

/** Negative, zero or positive, as `a` lies before, at or after `b` in their shard. */
export function comparePositions(a: Position, b: Position): number {
  return a.ms - b.ms || a.seq - b.seq
}

/** The later of two positions. */
export function later(a: Position, b: Position): Position {
  return comparePositions(a, b) >= 0 ? a : b
}

/** The earlier of two positions. */
export function earlier(a: Position, b: Position): Position {
  return comparePositions(a, b) <= 0 ? a : b
}

/** True when `a` has come at least as far as `b` in every shard. */
export function covers(a: Cursor, b: Cursor): boolean {
  return a.every((position, shard) => comparePositions(position, b[shard]!) >= 0)
}

/** The furthest that any of these cursors has come, shard by shard. */
export function furthest(first: Cursor, ...rest: readonly Cursor[]): Cursor {
  return rest.reduce((a, b) => a.map((position, shard) => later(position, b[shard]!)), first)
}

/** `<ms>-<seq>`, as in a Redis Stream. */
export function formatPosition(position: Position): string {
  return `${position.ms}-${position.seq}`
}

/** Reads what `formatPosition` wrote; undefined when it isn't that. Fifteen digits: what a number holds exactly. */
export function parsePosition(text: string): Position | undefined {
  const match = /^(\d{1,15})-(\d{1,15})$/.exec(text)
  return match ? { ms: Number(match[1]), seq: Number(match[2]) } : undefined
}

/**
 * The text of a cursor, fit for an `id:` line and a `Last-Event-ID` header. With one shard it is the position itself;
 * with several a vector: the newest `ms`, then for each shard by how much its own is older, and its `seq` unless that
 * is 0, all in base 36: `mihd4x2q~0-3~4~1c-1`.
 */
export function formatCursor(cursor: Cursor): string {
  if (cursor.length === 1) return formatPosition(cursor[0]!)
  const newest = Math.max(...cursor.map(({ ms }) => ms))
  const parts = cursor.map(
    ({ ms, seq }) => (newest - ms).toString(36) + (seq > 0 ? `-${seq.toString(36)}` : '')
  )
  return [newest.toString(36), ...parts].join('~')
}

/** Reads what `formatCursor` wrote, for a broker of so many shards; undefined when it isn't that. */
export function parseCursor(text: string, shards: number): Cursor | undefined {
  if (shards === 1) {
    const position = parsePosition(text)
    return position && [position]
  }
  if (!/^[0-9a-z]{1,9}(~[0-9a-z]{1,9}(-[0-9a-z]{1,9})?)+$/.test(text)) return undefined
  const [newest, ...parts] = text.split('~')
  const positions = parts.map(part => {
    const [older, seq = '0'] = part.split('-')
    return { ms: parseInt(newest!, 36) - parseInt(older!, 36), seq: parseInt(seq, 36) }
  })
  return positions.length === shards && positions.every(({ ms }) => ms >= 0) ? positions : undefined
}

// --- events and gaps ---

/** How long an idempotency key is remembered, in milliseconds. */
export const IDEMPOTENCY_MS = 600_000

/** What was published: UTF-8 text, most often compact JSON, or bytes. */
export type Data = string | Uint8Array

/** An event as the broker stored it, or handed it over without. */
export interface StoredEvent {
  readonly id: Position
  readonly shard: number
  readonly topic: string
  /** The `event:` name; `message` when the publisher gave none. */
  readonly type: string
  readonly data: Data
  /** The id of the event before it on its topic, whatever has become of that one; null for the topic's first. */
  readonly prev: Position | null
  /** Milliseconds since the epoch after which it is no longer replayed; 0 of one that never is: see `isEphemeral`. */
  readonly expires?: number
  /** What `eventBytes` says of it, where it was counted as it was made. */
  readonly bytes?: number
  /** What it was encoded as a moment ago, the latest first: see hub/frames.ts, which fills and empties it. */
  encodings?: Encoding | undefined
}

/** Whether an event is for whoever is live as it comes: it is stored nowhere, no ring holds it, and nobody misses it. */
export function isEphemeral({ expires }: Pick<StoredEvent, 'expires'>): boolean {
  return expires === 0
}

/** An event as one format has it. */
export interface Encoding {
  /** The format; compared, and never looked into. */
  readonly format: object
  readonly frame: Buffer
  readonly next: Encoding | undefined
}

/**
 * What an event takes besides its texts, in bytes: its objects, its places in rings and orders. Measured on Node 20; what
 * is estimated by it is held against the heap in test/broker/local-memory.test.ts.
 */
const EVENT_BYTES = 300

/** What bytes take besides themselves. */
const BYTES_BYTES = 200

/** About how many bytes of memory an event takes, with its objects and without its topic's name. */
export function eventBytes({ type, data, bytes }: Pick<StoredEvent, 'type' | 'data' | 'bytes'>): number {
  // a type is ASCII
  return bytes ?? EVENT_BYTES + type.length + dataBytes(data)
}

function dataBytes(data: Data): number {
  return typeof data === 'string' ? textBytes(data) : BYTES_BYTES + data.byteLength
}

/** The most bytes of memory that a text takes: one for each character where all are ASCII, else two. */
export function textBytes(text: string): number {
  return Buffer.byteLength(text) === text.length ? text.length : 2 * text.length
}

/** A position from which this event is the next on its topic, and as young as the event itself. */
export function justBefore({ id: { ms, seq }, prev }: Pick<StoredEvent, 'id' | 'prev'>): Position {
  const before = seq > 0 ? { ms, seq: seq - 1 } : { ms: ms - 1, seq: 0 }
  return prev ? later(prev, before) : before
}

/**
 * Why a subscriber is told that events are missing: they are older than what is kept (`expired`), its cursor is none of
 * this store's (`unknown`), or the store has lost them (`lost`).
 */
export type GapReason = 'expired' | 'unknown' | 'lost'

/** Events after a cursor that can't be delivered any more. Announced before any later event of its topics. */
export interface Gap {
  readonly reason: GapReason
  readonly topics: readonly string[]
  /** The cursor as its owner sent it, or as it was written to its owner. */
  readonly after: string
}

// --- members and signals ---

/** Somebody who is present on a topic: one connection. */
export interface Member {
  /** Of this connection alone: letters, digits, `-` and `_`. */
  readonly id: string
  /** The user; null for nobody known. */
  readonly sub: string | null
  /** What the connection tells of itself, as compact JSON; null when it tells nothing. */
  readonly info: string | null
}

/** What one connection tells the others on a topic. It is never stored and has no id. */
export interface Signal {
  readonly topic: string
  /** The id of the sender's connection, which doesn't get it itself. */
  readonly sender: string
  /** The user who sends it; null for nobody known. */
  readonly from: string | null
  readonly data: Data
}
