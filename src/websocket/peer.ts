import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import type { WebSocket } from '@fastify/websocket'
import type { FastifyBaseLogger } from 'fastify'
import { Type, type Static } from 'typebox'
import type { Roster } from '../broker/roster.ts'
import { BrokerUnavailable } from '../broker/unavailable.ts'
import type { Clock } from '../clock.ts'
import type { Settings } from '../config.ts'
import { formatCursor, isFilter, isTopic, isWildcard, TYPE_PATTERN, wildcardOf } from '../event.ts'
import type { Data } from '../event.ts'
import { isUser, type Notifications } from '../feeds/notifications.ts'
import type { Client, CloseReason, Connection, Place } from '../hub/connections.ts'
import type { Hub } from '../hub/hub.ts'
import type { Hearer, Notice, Room } from '../hub/presence.ts'
import type { Session } from '../hub/session.ts'
import type { Sink } from '../hub/sink.ts'
import type { Metrics } from '../metrics.ts'
import { Problem } from '../problem.ts'
import { idOf, type Publisher } from '../publisher.ts'
import type { GoodbyeReason } from '../wire/format.ts'
import { plain } from '../wire/packing.ts'
import { WireError } from '../wire/error.ts'
import { PING } from '../wire/websocket.ts'
import type { AnswerBody, ClientMessage, Ref, WebSocketFormat } from '../wire/websocket.ts'
import type { Grant } from '../http/access.ts'
import { JsonInput, wrong } from '../http/body.ts'
import { Allowance, type Limits } from '../http/limits.ts'
import { checkEvent } from '../http/routes/publish.ts'

/** What every WebSocket needs of the house. */
export interface PeerContext {
  readonly hub: Hub
  readonly roster: Roster
  readonly publisher: Publisher
  readonly notifications: Notifications
  readonly limits: Limits
  readonly metrics: Metrics
  readonly clock: Clock
  readonly log: FastifyBaseLogger
  readonly settings: Pick<
    Settings,
    'MAX_EVENT_BYTES' | 'MAX_TOPICS' | 'SEND_BUFFER' | 'STALL_TIMEOUT' | 'WS_MESSAGE_RATE'
  >
  /** The largest message, in bytes; `Infinity` for no limit. */
  readonly maxBytes: number
}

/** A WebSocket that was accepted, and what it was given. */
export interface Accepted {
  readonly ws: WebSocket
  readonly socket: Socket
  readonly format: WebSocketFormat
  readonly grant: Grant
  /** Whom it counts for; null for who has no limits. */
  readonly client: string | null
  readonly place: Place
}

/** The longest text that a client may call a message, in characters. */
const MAX_REF = 128

/** The most that a member may tell of itself, in bytes: everybody who joins gets it of everybody. */
const MAX_INFO_BYTES = 1024

/** How many messages may be under way; then no more are read until some are done. */
const MAX_UNDER_WAY = 128

/** How many bad messages, or messages past the rate, a client has in hand. It gets one back each second. */
const PATIENCE = 100

/** Why a connection is closed (RFC 6455, section 7.4.1; 4000 and up are ours). */
const CLOSE_CODES: Readonly<Record<GoodbyeReason, number>> = {
  shutdown: 1001,
  full: 1013,
  unavailable: 1013,
  expired: 4401,
  forbidden: 1008
}

const OPEN = 1

// --- the messages ---

/** What every message has; `ref` is looked at before all else. */
const message = { op: Type.String(), ref: Type.Unknown() }
const strict = { additionalProperties: false }

const Topics = Type.Array(Type.String(), { minItems: 1 })

const Subscribe = Type.Object(
  {
    ...message,
    topics: Topics,
    after: Type.Optional(Type.Union([Type.String(), Type.Null()])),
    rewind: Type.Optional(Type.Integer({ minimum: 0, maximum: 1000 })),
    rate: Type.Optional(Type.Number({ minimum: 0.1, maximum: 100 }))
  },
  strict
)
const Unsubscribe = Type.Object({ ...message, topics: Topics }, strict)
const Publish = Type.Object(
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
const SendSignal = Type.Object({ ...message, topic: Type.String(), data: Type.Unknown() }, strict)
const Join = Type.Object({ ...message, topic: Type.String(), info: Type.Optional(Type.Unknown()) }, strict)
const Leave = Type.Object({ ...message, topic: Type.String() }, strict)
const Read = Type.Object(
  { ...message, ids: Type.Array(Type.String(), { minItems: 1, maxItems: 1000 }) },
  strict
)
const Ping = Type.Object(message, strict)

/** What a client can ask for. Those that change what it hears are done one after the other, and hold up what comes after. */
const OPS = {
  subscribe: { changes: true },
  unsubscribe: { changes: true },
  join: { changes: true },
  leave: { changes: true },
  publish: { changes: false },
  signal: { changes: false },
  read: { changes: false },
  ping: { changes: false }
} as const

type Op = keyof typeof OPS

// --- a connection ---

/** One WebSocket: what its client asks for, what it hears, and how it ends. Section 6 of the contract. */
export class Peer implements Connection, Sink, Hearer {
  readonly id = randomBytes(12).toString('base64url')
  readonly transport = 'ws'
  readonly since: number
  readonly expires: number
  readonly format: WebSocketFormat
  readonly place: Place
  readonly client: Client
  readonly #context: PeerContext
  readonly #socket: Socket
  readonly #ws: WebSocket
  readonly #grant: Grant
  readonly #client: string | null
  readonly #onEnd: () => void
  /** By filter; one for several filters that were asked for together. */
  readonly #subscriptions = new Map<string, Subscribed>()
  /** The rooms of the topics that it has joined. */
  readonly #joined = new Map<string, Room>()
  readonly #messages: Allowance | null
  readonly #patience: Allowance
  /** What changes what it hears, and is not done yet. */
  #turn: Promise<void> | null = null
  #underWay = 0
  /** Whether its connection has not taken all that was written. */
  #isFull = false
  /** Whether a ping was sent and no pong has come. */
  #awaitsPong = false
  #hasEnded = false

  constructor(context: PeerContext, accepted: Accepted, onEnd: () => void) {
    const { clock, settings } = context
    const { ws, socket, format, grant, client, place } = accepted
    this.#context = context
    this.#ws = ws
    this.#socket = socket
    this.format = format
    this.#grant = grant
    this.#client = client
    this.place = place
    this.client = { user: grant.sub, address: socket.remoteAddress ?? null }
    this.#onEnd = onEnd
    this.since = clock.now()
    this.expires = grant.expires
    const rate = settings.WS_MESSAGE_RATE
    this.#messages = rate > 0 ? new Allowance(rate, rate, clock) : null
    this.#patience = new Allowance(1, PATIENCE, clock)
    ws.on('message', (bytes: Buffer, isBinary: boolean) => this.#receive(bytes, isBinary))
    ws.on('ping', () => this.#takeControl())
    ws.on('pong', () => this.#takePong())
    ws.on('close', () => this.#end('client'))
    // the close frame has gone out by now
    ws.on('error', (error: Error & { code?: string }) =>
      this.#end(error.code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH' ? 'too large' : 'protocol')
    )
    socket.on('drain', () => this.#drained())
    socket.on('timeout', () => this.#end('stalled'))
    context.hub.connections.enter(this)
  }

  get filters(): readonly string[] {
    return [...this.#subscriptions.keys()]
  }

  // --- what it is told ---

  /** Nothing, until the socket has asked to wait: only then does it tell when it has drained. */
  get pending(): number {
    return this.#socket.writableNeedDrain ? this.#socket.writableLength : 0
  }

  /** Frames go to the socket as they are; what `ws` writes itself goes there as well, at once and whole, for want of compression. */
  write(bytes: Buffer): void {
    // after a close frame there is nothing more (RFC 6455, section 5.5.1)
    if (this.#hasEnded || this.#ws.readyState !== OPEN || bytes.length === 0) return
    if (this.#socket.write(bytes) || this.#isFull) return
    this.#isFull = true
    this.#socket.setTimeout(this.#context.settings.STALL_TIMEOUT)
    this.#regulate()
  }

  #drained(): void {
    this.#isFull = false
    this.#socket.setTimeout(0)
    this.#regulate()
    for (const { session } of new Set(this.#subscriptions.values())) session.drained()
  }

  /**
   * Reads nothing while the connection is full, so that answers can't pile up, and no message counts as a sign of life of
   * one that takes nothing; nor while too much is under way.
   */
  #regulate(): void {
    if (this.#hasEnded) return
    if (this.#isFull || this.#underWay >= MAX_UNDER_WAY) this.#ws.pause()
    else if (this.#ws.isPaused) this.#ws.resume()
  }

  hears(what: Notice, filter: string, topic: string): boolean {
    // who has joined a topic hears in its own room who comes and goes, and signals are for who has subscribed
    if (what === 'signal') return this.#subscriptions.has(filter)
    return filter === topic || !this.#joined.has(topic)
  }

  tell(what: Notice, frame: Buffer): void {
    const { SEND_BUFFER } = this.#context.settings
    if (what === 'signal' && this.pending > SEND_BUFFER) return
    // what it holds to be true must not become wrong: it joins anew when it comes back
    if (this.pending > 2 * SEND_BUFFER) return this.#end('stalled', 1013, 'reads too slowly')
    this.#give(frame)
  }

  #give(frame: Buffer): void {
    this.#context.metrics.bytesSent.inc({ transport: 'ws' }, frame.length)
    this.write(frame)
  }

  #answer(op: string, ref: Ref, body: AnswerBody = {}): void {
    this.#give(this.format.answer(op, ref, body))
  }

  // --- what it asks for ---

  #receive(bytes: Buffer, isBinary: boolean): void {
    if (this.#hasEnded) return
    const { maxBytes, metrics, settings } = this.#context
    if (bytes.length > maxBytes) return this.#end('too large', 1009, `at most ${maxBytes} bytes are allowed`)
    let ref: Ref = null
    let op: Op | undefined
    try {
      if (isBinary !== this.format.isBinary) {
        throw new WireError(`${this.format.protocol} has ${isBinary ? 'text' : 'binary'} messages`)
      }
      const read = this.format.read(bytes)
      ref = refOf(read)
      op = opOf(read)
      if (this.#messages?.take() === false) throw new RateLimited(settings.WS_MESSAGE_RATE)
      this.#begin(op, ref, read)
    } catch (error) {
      this.#fail(ref, error)
    }
    metrics.wsMessages.inc({ op: op ?? 'unknown' })
  }

  /** Does what is asked for; after what was asked for before, and changes what is heard. */
  #begin(op: Op, ref: Ref, read: ClientMessage): void {
    const act = () => this.#act(op, ref, read)
    const done = (this.#turn ? this.#turn.then(act) : act()).then(
      body => {
        if (body) this.#answer(op === 'ping' ? 'pong' : 'ok', ref, body)
      },
      (error: unknown) => this.#fail(ref, error)
    )
    this.#underWay++
    this.#regulate()
    if (OPS[op].changes) this.#turn = done
    void done.then(() => {
      this.#underWay--
      this.#regulate()
      if (this.#turn === done) this.#turn = null
    })
  }

  /** Resolves with the answer; null where there is none any more, or it was given. */
  async #act(op: Op, ref: Ref, read: ClientMessage): Promise<AnswerBody | null> {
    if (this.#hasEnded) return null
    const input = new JsonInput(read.members, () => '', true)
    switch (op) {
      case 'subscribe':
        return this.#subscribe(ref, input.as(Subscribe))
      case 'unsubscribe':
        return this.#unsubscribe(input.as(Unsubscribe))
      case 'publish':
        return this.#publish(input.as(Publish), read)
      case 'signal':
        return this.#signal(input.as(SendSignal), read)
      case 'join':
        return this.#join(input.as(Join), read)
      case 'leave':
        return this.#leave(input.as(Leave))
      case 'read':
        return this.#markRead(input.as(Read))
      case 'ping':
        input.as(Ping)
        return {}
    }
  }

  async #subscribe(ref: Ref, { topics, after, rewind, rate }: Static<typeof Subscribe>): Promise<null> {
    const { hub } = this.#context
    const filters = [...new Set(topics)]
    this.#checkFilters(filters)
    const rooms = filters.map(filter => hub.presence.hold(filter))
    const opened = hub.open({
      after: after || undefined,
      ...{ filters, format: this.format, packing: plain, rate, rewind, connection: this }
    })
    try {
      const [session] = await Promise.all([opened, ...rooms.map(({ ready }) => ready)])
      if (this.#hasEnded) throw new Error('it has ended meanwhile')
      const subscribed: Subscribed = { session, rooms: new Map(rooms.map(room => [room.filter, room])) }
      for (const room of rooms) {
        room.hearers.add(this)
        this.#subscriptions.set(room.filter, subscribed)
      }
      session.start(this, [], this.format.answer('ok', ref, { cursor: formatCursor(session.cursor) }))
      return null
    } catch (error) {
      void opened.then(session => session.close('client'), ignore)
      for (const room of rooms) hub.presence.release(room)
      throw error
    }
  }

  /** An event must not come twice, so that what covers the same topics is one subscription. */
  #checkFilters(filters: readonly string[]): void {
    const { MAX_TOPICS } = this.#context.settings
    for (const filter of filters) {
      if (!isFilter(filter))
        throw wrong('malformed', 'topics', `${JSON.stringify(filter)} is neither a topic nor a wildcard`)
      if (!this.#grant.maySubscribe(filter)) throw wrong('forbidden', 'topics', `you may not read ${filter}`)
      const other = [...this.#subscriptions.keys()].find(held => overlap(held, filter))
      if (other !== undefined)
        throw wrong('malformed', 'topics', `${filter} overlaps with ${other}, which is subscribed already`)
    }
    const count = this.#subscriptions.size + filters.length
    if (count > MAX_TOPICS) {
      const message = `this would make ${count} on this connection; at most ${MAX_TOPICS} are allowed`
      throw wrong('malformed', 'topics', message)
    }
  }

  async #unsubscribe({ topics }: Static<typeof Unsubscribe>): Promise<AnswerBody> {
    const unknown = topics.find(filter => !this.#subscriptions.has(filter))
    if (unknown !== undefined)
      throw wrong('malformed', 'topics', `${JSON.stringify(unknown)} is not subscribed`)
    const given = new Set(topics)
    for (const subscribed of new Set(topics.map(filter => this.#subscriptions.get(filter)!))) {
      const { rooms, session } = subscribed
      for (const [filter, room] of rooms) {
        if (!given.has(filter)) continue
        rooms.delete(filter)
        this.#subscriptions.delete(filter)
        this.#leaveRoom(room)
      }
      if (rooms.size === 0) session.close('client')
      else subscribed.session = this.#context.hub.narrow(session, [...rooms.keys()])
    }
    return {}
  }

  async #publish(
    { topic, type = 'message', key, ttl }: Static<typeof Publish>,
    read: ClientMessage
  ): Promise<AnswerBody> {
    const { publisher, settings, limits } = this.#context
    const event = {
      topic,
      type,
      data: read.dataOf('data'),
      ...(key !== undefined && { key }),
      ...(ttl !== undefined && { ttl })
    }
    checkEvent(event, settings.MAX_EVENT_BYTES)
    this.#checkMayPublish(topic)
    limits.write(this.#client)
    const [appended] = await publisher.publish([event], 'events')
    return { id: formatCursor(idOf(appended!)) }
  }

  async #signal({ topic }: Static<typeof SendSignal>, read: ClientMessage): Promise<AnswerBody> {
    const { roster, settings } = this.#context
    checkTopic(topic)
    const data = read.dataOf('data')
    checkSize('data', data, settings.MAX_EVENT_BYTES)
    this.#checkMayPublish(topic)
    await roster.signal({ topic, sender: this.id, from: this.#grant.sub ?? this.id, data })
    return {}
  }

  #checkMayPublish(topic: string): void {
    if (!this.#grant.mayPublish(topic)) throw wrong('forbidden', 'topic', `you may not publish on ${topic}`)
  }

  /** Once more tells other things of it. Its own part of the members comes first. */
  async #join({ topic }: Static<typeof Join>, read: ClientMessage): Promise<AnswerBody> {
    const { hub, roster, settings } = this.#context
    checkTopic(topic)
    if (!this.#grant.maySubscribe(topic)) throw wrong('forbidden', 'topic', `you may not read ${topic}`)
    if (!this.#joined.has(topic) && this.#joined.size >= settings.MAX_TOPICS) {
      throw wrong('malformed', 'topic', `at most ${settings.MAX_TOPICS} can be joined on one connection`)
    }
    const info = read.members['info'] == null ? null : read.dataOf('info')
    if (info !== null && typeof info !== 'string') throw wrong('malformed', 'info', 'must not be bytes')
    checkSize('info', info ?? '', MAX_INFO_BYTES)
    const room = hub.presence.hold(topic)
    try {
      await room.ready
      await roster.join(topic, { id: this.id, sub: this.#grant.sub, info })
    } catch (error) {
      hub.presence.release(room)
      throw error
    }
    if (this.#hasEnded || this.#joined.has(topic)) hub.presence.release(room)
    if (this.#hasEnded) {
      void roster.leave(topic, this.id)
      return {}
    }
    this.#joined.set(topic, room)
    room.hearers.add(this)
    const members = roster.members(topic)
    const own = members.filter(({ id }) => id === this.id)
    return { members: [...own, ...members.filter(({ id }) => id !== this.id)] }
  }

  async #leave({ topic }: Static<typeof Leave>): Promise<AnswerBody> {
    const { roster } = this.#context
    const room = this.#joined.get(topic)
    if (!room) throw wrong('malformed', 'topic', `${JSON.stringify(topic)} was not joined`)
    const members = roster.members(topic).filter(({ id }) => id !== this.id)
    this.#joined.delete(topic)
    this.#leaveRoom(room)
    await roster.leave(topic, this.id)
    return { members }
  }

  /** It may hear what happens there for another reason still. */
  #leaveRoom(room: Room): void {
    const { filter, hearers } = room
    if (!this.#subscriptions.has(filter) && !this.#joined.has(filter)) hearers.delete(this)
    this.#context.hub.presence.release(room)
  }

  async #markRead({ ids }: Static<typeof Read>): Promise<AnswerBody> {
    const { sub } = this.#grant
    if (sub === null) throw new Problem('forbidden', 'nobody is known whose notifications these are')
    if (!isUser(sub)) throw new Problem('forbidden', `${JSON.stringify(sub)} is not one segment of a topic`)
    const { notifications, limits } = this.#context
    limits.write(this.#client)
    return { unread: await notifications.markRead(sub, { ids }) }
  }

  /** Says what was wrong. The connection stays, unless there is no end of it. */
  #fail(ref: Ref, error: unknown): void {
    if (this.#hasEnded) return
    const code = codeOf(error)
    if (code === null) this.#context.log.error(error)
    this.#answer('error', ref, {
      code: code ?? 'unavailable',
      message: code === null ? 'something went wrong here; the log has more' : (error as Error).message
    })
    if (code !== null && code !== 'unavailable' && !this.#patience.take()) {
      this.#end('policy', 1008, code === 'rate_limited' ? 'too many messages' : 'too many bad messages')
    }
  }

  // --- whether it is there, and how it ends ---

  /** Asks for a sign of life. One that has given none since the last time is ended. */
  ping(): void {
    // while nothing is read no pong can come: what is full ends by its time-out
    if (this.#ws.isPaused) return
    if (this.#awaitsPong) return this.#end('unresponsive')
    this.#awaitsPong = true
    this.write(PING)
  }

  #takePong(): void {
    if (!this.#awaitsPong) this.#takeControl()
    this.#awaitsPong = false
  }

  /** Pings, and pongs that nobody asked for, count as messages: each costs as much. */
  #takeControl(): void {
    if (this.#hasEnded || this.#messages?.take() !== false || this.#patience.take()) return
    this.#end('policy', 1008, 'too many messages')
  }

  goodbye(reason: GoodbyeReason, retry?: number): void {
    this.#end(reason, CLOSE_CODES[reason], goodbyeText(reason, retry))
  }

  end(): void {
    this.goodbye('shutdown')
  }

  /** Closes with a code and a text of at most 123 bytes; at once without one. */
  #end(reason: CloseReason, code?: number, text?: string): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    const { hub, roster } = this.#context
    const subscriptions = new Set(this.#subscriptions.values())
    const joined = [...this.#joined]
    this.#subscriptions.clear()
    this.#joined.clear()
    for (const { session } of subscriptions) session.close('client')
    for (const room of [...subscriptions].flatMap(({ rooms }) => [...rooms.values()])) this.#leaveRoom(room)
    for (const [topic, room] of joined) {
      this.#leaveRoom(room)
      void roster.leave(topic, this.id)
    }
    hub.connections.exit(this, reason)
    this.#onEnd()
    if (code === undefined) return this.#ws.terminate()
    this.#ws.resume() // else its own close frame would not be read
    this.#ws.close(code, text)
  }
}

/** Closes a connection that can't be taken; `retry` in milliseconds. */
export function turnAway(ws: WebSocket, reason: GoodbyeReason, retry: number): void {
  ws.on('error', ignore) // 'close' follows
  ws.close(CLOSE_CODES[reason], goodbyeText(reason, retry))
}

/** The same as in the `goodbye` of a stream. */
function goodbyeText(reason: GoodbyeReason, retry?: number): string {
  return JSON.stringify({ reason, retry })
}

/** What was asked for together. */
interface Subscribed {
  session: Session
  readonly rooms: Map<string, Room>
}

class RateLimited extends Error {
  constructor(rate: number) {
    super(`at most ${rate} messages a second are allowed`)
  }
}

/** The code of a problem, by its status; `bad_request` for all others. */
const CODES: Readonly<Record<number, string>> = {
  403: 'forbidden',
  413: 'too_large',
  429: 'rate_limited',
  503: 'unavailable'
}

/** What a client is told is wrong; null when it is ours. */
function codeOf(error: unknown): string | null {
  if (error instanceof BrokerUnavailable) return 'unavailable'
  if (error instanceof RateLimited) return 'rate_limited'
  if (error instanceof WireError) return 'bad_request'
  if (!(error instanceof Problem)) return null
  return CODES[error.statusCode] ?? 'bad_request'
}

function refOf({ members: { ref } }: ClientMessage): Ref {
  if (typeof ref === 'string' && ref.length <= MAX_REF) return ref
  if (typeof ref === 'number' && Number.isSafeInteger(ref)) return ref
  throw new WireError(`ref: must be a whole number, or text of at most ${MAX_REF} characters`)
}

function opOf({ members: { op } }: ClientMessage): Op {
  if (typeof op === 'string' && Object.hasOwn(OPS, op)) return op as Op
  throw new WireError(`op: must be one of ${Object.keys(OPS).join(', ')}`)
}

function checkTopic(topic: string): void {
  if (!isTopic(topic)) throw wrong('malformed', 'topic', `${JSON.stringify(topic)} is not a topic`)
}

function checkSize(path: string, data: Data, most: number): void {
  const size = Buffer.byteLength(data)
  if (size > most) throw wrong('too large', path, `has ${size} bytes; at most ${most} are allowed`)
}

/** Whether there can be a topic that both cover. */
function overlap(a: string, b: string): boolean {
  return a === b || (isWildcard(a) && wildcardOf(b) === a) || (isWildcard(b) && wildcardOf(a) === b)
}

function ignore(): void {}
