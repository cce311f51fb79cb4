import { parse as parseDuration } from '@lukeed/ms'
import type { FastifyRequest } from 'fastify'
import type { Clock } from '../clock.ts'
import type { Client } from '../hub/connections.ts'
import type { StartingPoint } from '../hub/start.ts'
import { Problem, wrong } from '../problem.ts'
import type { Rules } from '../rules/rules.ts'
import type { Format } from '../wire/format.ts'
import { ndjson } from '../wire/ndjson.ts'
import { wakeUp } from '../wire/page.ts'
import { sse } from '../wire/sse.ts'
import { namesStream } from './access.ts'
import type { Agents } from './agents.ts'
import type { Limits } from './limits.ts'
import type { ReadQuery } from './query.ts'

/** A request for something that can be read. */
export type ReadRequest = FastifyRequest<{ Querystring: ReadQuery }>

/** How a reader is answered: the types that `Accept` chooses from, the first when it leaves the choice. */
const READ_TYPES = ['text/event-stream', 'application/x-ndjson', 'application/json'] as const

export type ReadType = (typeof READ_TYPES)[number]

/** What has to be known of a reader who is turned away. */
export interface Caller {
  /** Whether it is an EventSource or like one: an error status would end it for good. */
  readonly needsStream: boolean
  /** Whether it asks for the head alone. */
  readonly isHead: boolean
  /** Its cursor, as text, whatever that is worth. */
  readonly after?: string | undefined
}

/** What a reader asks for, with all that its request says of it. Times are milliseconds. */
export interface Wish extends Caller, StartingPoint {
  /** Topics and wildcards that it may read. */
  readonly filters: readonly string[]
  readonly type: ReadType
  readonly format: Format
  /** Whether it is a stream that comes compressed by gzip. */
  readonly isCompressed: boolean
  /** At most so many events a second for each topic. */
  readonly rate: number | undefined
  /** Between two visible heartbeats; undefined for none. */
  readonly heartbeat: number | undefined
  /** Of a page: at most so many events. */
  readonly limit: number
  /** Of a page: how long to wait for the first event. */
  readonly wait: number
  /** Whom it counts for; null for who has no limits. */
  readonly client: string | null
  /** Who it is, and where it comes from. */
  readonly from: Client
  /** When it has to end, since the epoch; Infinity for never. */
  readonly expires: number
}

/** Events on a page whose reader doesn't say how many. */
const DEFAULT_LIMIT = 100

/** Turns requests into wishes. */
export class Wishes {
  readonly #limits: Pick<Limits, 'clientOf'>
  readonly #clock: Clock
  readonly #rules: Pick<Rules, 'rateOf'>
  readonly #compress: boolean
  readonly #agents: Pick<Agents, 'of'> | undefined

  /** `compress`: whether streams are compressed for those who can read that. */
  constructor(
    limits: Pick<Limits, 'clientOf'>,
    clock: Clock,
    rules: Pick<Rules, 'rateOf'>,
    compress: boolean,
    agents?: Pick<Agents, 'of'>
  ) {
    this.#agents = agents
    this.#rules = rules
    this.#limits = limits
    this.#clock = clock
    this.#compress = compress
  }

  /**
   * What a request to read these filters asks for; `hasDocument`: JSON is answered by a document, which starts nowhere.
   * Throws a `Problem` for what can't be read or had; a cursor always can.
   */
  read(request: ReadRequest, filters: readonly string[], hasDocument: boolean): Wish {
    const { query, headers, grant } = request
    const type = negotiate(request)
    const format = formatOf(type, query.envelope ?? false)
    const isStarted = type !== 'application/json' || !hasDocument
    return {
      filters,
      type,
      format,
      isCompressed: this.#compress && format.delivers && query.compress !== false && acceptsGzip(request),
      after: readCursor(request),
      rewind: query.rewind,
      since: query.since !== undefined && isStarted ? readSince(query.since, this.#clock) : undefined,
      // what is read page by page comes no faster than it is asked for
      rate: format.delivers ? this.#rules.rateOf(filters, query.rate) : query.rate,
      heartbeat: query.heartbeat === undefined || !format.delivers ? undefined : query.heartbeat * 1000,
      limit: query.limit ?? DEFAULT_LIMIT,
      wait: (query.wait ?? 0) * 1000,
      needsStream: namesStream(headers.accept),
      isHead: request.method === 'HEAD',
      client: this.#limits.clientOf(request),
      from: { user: grant.sub, address: request.ip, agent: this.#agents?.of(headers['user-agent']) },
      expires: grant.expires
    }
  }
}

/** Whether the reader leaves it to us where it starts. */
export function isFresh({ after, rewind, since }: StartingPoint): boolean {
  return after === undefined && rewind === undefined && since === undefined
}

/** What is known of a reader before it is known who it is. */
export function callerOf(request: ReadRequest): Caller {
  return {
    needsStream: namesStream(request.headers.accept),
    isHead: request.method === 'HEAD',
    after: readCursor(request)
  }
}

function negotiate(request: ReadRequest): ReadType {
  const { accept } = request.headers
  // what an EventSource asks for needs no choice
  if (accept === READ_TYPES[0]) return accept
  const type = request.accepts().type([...READ_TYPES])
  if (typeof type === 'string') return type as ReadType
  throw new Problem('not acceptable', `Accept: ${accept}: there is ${READ_TYPES.join(', ')}`)
}

/** Whether it can be answered in gzip, and rather is. Where it names no coding, none is meant. */
export function acceptsGzip(request: FastifyRequest): boolean {
  if (request.headers['accept-encoding'] === undefined) return false
  return request.accepts().encoding(['gzip', 'identity']) === 'gzip'
}

function formatOf(type: ReadType, enveloped: boolean): Format {
  if (type === 'application/json') return wakeUp
  return type === 'text/event-stream' ? sse(enveloped) : ndjson
}

// --- where it starts ---

/** What clients add when they reconnect, to a URL that may still hold the `after` of its first request. */
const ALIASES: ReadonlySet<string> = new Set([
  'last_event_id',
  'lastEventId',
  'lastEventID',
  'evs_last_event_id'
])

function readCursor({ headers, query }: Pick<ReadRequest, 'headers' | 'query'>): string | undefined {
  // the header wins, because it is what a reconnecting EventSource sends; an empty one is none
  const header = headers['last-event-id']
  if (typeof header === 'string' && header !== '') return header
  let cursor = lastText(query.after)
  for (const name in query) {
    if (ALIASES.has(name)) cursor = lastText(query[name as keyof ReadQuery]) ?? cursor
  }
  return cursor
}

/** A text; of one that was given more than once the last. An empty one is none. */
function lastText(value: unknown): string | undefined {
  if (Array.isArray(value)) return value.findLast(isText)
  return isText(value) ? value : undefined
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== ''
}

const DURATION = /^\d+(\.\d+)?(ms|s|m|h|d)$/
const ISO_TIME = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?)?$/

function readSince(text: string, clock: Clock): number {
  const ago = DURATION.test(text) ? (parseDuration(text) ?? 0) : undefined
  const at = ago !== undefined ? clock.now() - ago : ISO_TIME.test(text) ? Date.parse(text) : NaN
  if (!Number.isNaN(at)) return at
  throw wrong('malformed', 'since', `${JSON.stringify(text)} is neither a duration nor an ISO time`)
}
