/** What clients of a WebSocket can ask for, and what they are told when it goes wrong. */
import { Type, type Static } from 'typebox'
import { BrokerUnavailable } from '../broker/unavailable.ts'
import { isTopic, TYPE_PATTERN, type Data } from '../event.ts'
import { MemoryFull } from '../memory.ts'
import { Problem, wrong } from '../problem.ts'
import type { GoodbyeReason } from '../wire/format.ts'
import { WireError } from '../wire/error.ts'
import type { ClientMessage, Ref } from '../wire/websocket.ts'

/** The longest text that a client may call a message, in characters. */
const MAX_REF = 128

// --- what they can ask for ---

/** What every message has; `ref` is looked at before all else. */
const message = { op: Type.String(), ref: Type.Unknown() }
const strict = { additionalProperties: false }

const Topics = Type.Array(Type.String(), { minItems: 1 })

export const Subscribe = Type.Object(
  {
    ...message,
    topics: Topics,
    after: Type.Optional(Type.Union([Type.String(), Type.Null()])),
    rewind: Type.Optional(Type.Integer({ minimum: 0, maximum: 1000 })),
    rate: Type.Optional(Type.Number({ minimum: 0.1, maximum: 100 }))
  },
  strict
)
export type Subscribe = Static<typeof Subscribe>

export const Unsubscribe = Type.Object({ ...message, topics: Topics }, strict)
export type Unsubscribe = Static<typeof Unsubscribe>

export const Publish = Type.Object(
  {
    ...message,
    topic: Type.String(),
    type: Type.Optional(Type.String({ pattern: TYPE_PATTERN })),
    data: Type.Unknown(),
    key: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
    ttl: Type.Optional(Type.Integer({ minimum: 1, maximum: 315_360_000 }))
  },
  strict
)
export type Publish = Static<typeof Publish>

export const SendSignal = Type.Object({ ...message, topic: Type.String(), data: Type.Unknown() }, strict)
export type SendSignal = Static<typeof SendSignal>

export const Join = Type.Object(
  { ...message, topic: Type.String(), info: Type.Optional(Type.Unknown()) },
  strict
)
export type Join = Static<typeof Join>

export const Leave = Type.Object({ ...message, topic: Type.String() }, strict)
export type Leave = Static<typeof Leave>

export const Read = Type.Object(
  { ...message, ids: Type.Array(Type.String(), { minItems: 1, maxItems: 1000 }) },
  strict
)
export type Read = Static<typeof Read>

export const Ping = Type.Object(message, strict)

/** All of it. What changes what a client hears is done in order, and holds up what comes after it. */
export const OPS = {
  subscribe: { changes: true },
  unsubscribe: { changes: true },
  join: { changes: true },
  leave: { changes: true },
  publish: { changes: false },
  signal: { changes: false },
  read: { changes: false },
  ping: { changes: false }
} as const

export type Op = keyof typeof OPS

/** What a client calls its message. Throws a `WireError`. */
export function refOf({ members: { ref } }: ClientMessage): Ref {
  if (typeof ref === 'string' && ref.length <= MAX_REF) return ref
  if (typeof ref === 'number' && Number.isSafeInteger(ref)) return ref
  throw new WireError(`ref: must be a whole number, or text of at most ${MAX_REF} characters`)
}

/** What it asks for. Throws a `WireError`. */
export function opOf({ members: { op } }: ClientMessage): Op {
  if (typeof op === 'string' && Object.hasOwn(OPS, op)) return op as Op
  throw new WireError(`op: must be one of ${Object.keys(OPS).join(', ')}`)
}

/** Throws a `Problem` unless this is a topic. */
export function requireTopic(topic: string): void {
  if (!isTopic(topic)) throw wrong('malformed', 'topic', `${JSON.stringify(topic)} is not a topic`)
}

/** Throws a `Problem` for more than so many bytes. */
export function checkSize(path: string, data: Data, most: number): void {
  const size = Buffer.byteLength(data)
  if (size > most) throw wrong('too large', path, `has ${size} bytes; at most ${most} are allowed`)
}

// --- what they are told ---

/** A message past the rate of its connection. */
export class RateLimited extends Error {
  constructor(rate: number) {
    super(`at most ${rate} messages a second are allowed`)
  }
}

/** The code of a problem, by its status; `bad_request` for all others. */
const CODES: Readonly<Record<number, string>> = {
  401: 'forbidden',
  403: 'forbidden',
  413: 'too_large',
  429: 'rate_limited',
  503: 'unavailable'
}

/** The code of an error that a client is told of; null when the error is ours. */
export function codeOf(error: unknown): string | null {
  if (error instanceof BrokerUnavailable || error instanceof MemoryFull) return 'unavailable'
  if (error instanceof RateLimited) return 'rate_limited'
  if (error instanceof WireError) return 'bad_request'
  if (!(error instanceof Problem)) return null
  return CODES[error.statusCode] ?? 'bad_request'
}

/** Why a connection is closed (RFC 6455, section 7.4.1; 4000 and up are ours). */
export const CLOSE_CODES: Readonly<Record<GoodbyeReason, number>> = {
  shutdown: 1001,
  full: 1013,
  unavailable: 1013,
  expired: 4401,
  forbidden: 1008
}

/** The text of a close frame, the same as in the `goodbye` of a stream; `retry` in milliseconds. */
export function goodbyeText(reason: GoodbyeReason, retry?: number): string {
  return JSON.stringify({ reason, retry })
}
