/**
 * The values that labels take. Each metric is told all of them as it is made, so that it is there with 0 from the start:
 * `increase()` of Prometheus sees nothing of a series whose first value is 1.
 */

export const TRANSPORTS = ['sse', 'ndjson', 'poll', 'ws'] as const

/** Those that stay open, and so are opened again. */
export const LASTING = ['sse', 'ndjson', 'ws'] as const

/** Why connections ended. */
export const CLOSED = [
  ...['client', 'stalled', 'answered', 'ended', 'unresponsive', 'protocol', 'too large', 'policy'],
  ...['shutdown', 'full', 'unavailable', 'expired', 'forbidden']
] as const satisfies readonly string[]

/** Why connections were turned away. */
export const REJECTED = [
  'full',
  'sockets',
  'idle_sockets',
  'client_connections',
  'client_rate',
  'topic_subscribers',
  'unavailable',
  'shutdown',
  'expired',
  'forbidden'
] as const

export type Rejection = (typeof REJECTED)[number]

/** Through which part of the server events were published. */
export const SOURCES = ['events', 'tickers', 'dashboards', 'notifications', 'demo'] as const

/** To which feed topics belong; `events` has all that belong to none. */
export const FEEDS = ['events', 'tickers', 'dashboards', 'notifications'] as const

/** Why a write came to nothing: what was wrong with it, who may not, or what it met here. */
export const FAILURES = [
  'malformed',
  'unauthorized',
  'forbidden',
  'not_found',
  'conflict',
  'too_large',
  'unsupported',
  'refused',
  'rate',
  'unavailable',
  'memory',
  'error'
] as const

export type Failure = (typeof FAILURES)[number]

export const OUTCOMES = ['live', 'replayed', 'gap'] as const
export const REPLAYED_FROM = ['memory', 'broker'] as const
export const GAPS = ['expired', 'unknown', 'lost'] as const

/** What brokers are asked for by the hub and the publisher. */
export const BROKER_OPS = ['append', 'subscribe', 'range', 'newest', 'rewind', 'state'] as const

export type BrokerOp = (typeof BROKER_OPS)[number]

/** What a broker may refuse, and why. */
export const REFUSED_OPS = ['append', 'tick', 'listen', 'read', 'presence'] as const
export const REFUSALS = ['full', 'denied', 'other'] as const

export const DENIALS = [
  'missing',
  'too_large',
  'malformed',
  'algorithm',
  'key',
  'signature',
  'unavailable',
  'expired',
  'early',
  'audience',
  'issuer',
  'claims',
  'forbidden',
  'origin'
] as const

/** What WebSocket clients ask for; `unknown` is what could not be read. */
export const WS_OPS = [
  'subscribe',
  'unsubscribe',
  'join',
  'leave',
  'publish',
  'signal',
  'read',
  'ping',
  'unknown'
] as const

/** The classes of HTTP statuses. */
export const STATUSES = ['1xx', '2xx', '3xx', '4xx', '5xx'] as const

/** The rates that each client has, and the largest that it may send or get. */
export const RATES = ['connects', 'reads', 'writes', 'messages'] as const
export const SIZES = ['event', 'batch', 'page', 'message'] as const
