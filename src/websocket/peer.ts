import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import type { WebSocket } from '@fastify/websocket'
import type { FastifyBaseLogger } from 'fastify'
import type { Grant } from '../access/grant.ts'
import type { Clock } from '../clock.ts'
import type { Settings } from '../config.ts'
import { holdBody } from '../http/body.ts'
import type { Limits } from '../http/limits.ts'
import { failureOf } from '../http/problems.ts'
import { Allowance } from '../http/rates.ts'
import { ClientWriter } from '../http/writes.ts'
import type { Client, CloseReason, Place, Reading } from '../hub/connections.ts'
import type { Hub } from '../hub/hub.ts'
import type { Notice, Room } from '../hub/presence.ts'
import { JsonInput } from '../input.ts'
import type { Memory } from '../memory.ts'
import type { Metrics } from '../metrics.ts'
import { SocketWriter } from '../net/socket-writer.ts'
import { Denied } from '../problem.ts'
import { Round } from '../round.ts'
import type { GoodbyeReason } from '../wire/format.ts'
import { WireError } from '../wire/error.ts'
import { PING } from '../wire/websocket.ts'
import type { AnswerBody, ClientMessage, Ref, WebSocketFormat } from '../wire/websocket.ts'
import { Joins } from './joins.ts'
import {
  CLOSE_CODES,
  codeOf,
  goodbyeText,
  Join,
  Leave,
  opOf,
  OPS,
  Ping,
  Publish,
  RateLimited,
  Read,
  refOf,
  SendSignal,
  Subscribe,
  Unsubscribe,
  type Op
} from './messages.ts'
import { Sending, type SendingContext } from './sending.ts'
import { Subscriptions, type Subscriber } from './subscriptions.ts'

/** What every WebSocket takes of its instance. */
export interface PeerContext extends SendingContext {
  readonly hub: Hub
  readonly metrics: Metrics
  readonly clock: Clock
  readonly logger: FastifyBaseLogger
  readonly limits: Limits
  readonly memory: Memory
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
  /** Where it comes from. */
  readonly address: string
  /** What it says that it is. */
  readonly agent: string | null
  readonly place: Place
}

/** What a message that counts as a write asks for. */
type Write = (writer: ClientWriter) => Promise<AnswerBody | null>

/** How many messages may be under way; then no more are read until some are done. */
const MAX_UNDER_WAY = 128

/** How many bad messages, or messages past the rate, a client has in hand. It gets one back each second. */
const PATIENCE = 100

const OPEN = 1

/** What all WebSockets ask for. */
const round = new Round()

/** One WebSocket: what its client asks for, what it hears, and how it ends. Section 6 of the contract. */
export class Peer implements Subscriber {
  readonly id = randomBytes(12).toString('base64url')
  readonly transport = 'ws'
  readonly since: number
  readonly expires: number
  readonly format: WebSocketFormat
  readonly place: Place
  readonly client: Client
  readonly grant: Grant
  hasEnded = false
  readonly #context: PeerContext
  readonly #ws: WebSocket
  readonly #onEnd: () => void
  readonly #subscriptions: Subscriptions
  readonly #joins: Joins
  readonly #sending: Sending
  /** Whom its writes count for; null for who has no limits. */
  readonly #limited: string | null
  readonly #messages: Allowance | null
  readonly #patience: Allowance
  /** What changes what it hears, and is not done yet. */
  #turn: Promise<void> | null = null
  #underWay = 0
  readonly #writer: PeerWriter
  /** Whether a ping was sent and no pong has come. */
  #awaitsPong = false

  constructor(context: PeerContext, accepted: Accepted, onEnd: () => void) {
    const { clock, settings, hub, roster } = context
    const { ws, socket, format, grant, client, address, agent, place } = accepted
    this.#context = context
    this.#ws = ws
    this.format = format
    this.grant = grant
    this.place = place
    this.client = { user: grant.sub, address, agent }
    this.#onEnd = onEnd
    this.since = clock.now()
    this.expires = grant.expires
    const takeRead = () => context.limits.read(client)
    this.#subscriptions = new Subscriptions(hub, this, settings.MAX_TOPICS, takeRead)
    this.#joins = new Joins(roster, hub, this, settings.MAX_TOPICS)
    this.#sending = new Sending(context, this)
    this.#limited = client
    const rate = settings.WS_MESSAGE_RATE
    this.#messages = rate > 0 && client !== null ? new Allowance(rate, rate, clock) : null
    this.#patience = new Allowance(1, PATIENCE, clock)
    ws.on('message', (bytes: Buffer, isBinary: boolean) => this.#receive(bytes, isBinary))
    ws.on('ping', () => this.#takeControl())
    ws.on('pong', () => this.#takePong())
    ws.on('close', () => this.#end('client'))
    // the close frame has gone out by now
    ws.on('error', (error: Error & { code?: string }) =>
      this.#end(error.code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH' ? 'too large' : 'protocol')
    )
    this.#writer = new PeerWriter(socket, settings.STALL_TIMEOUT, {
      emptied: () => this.#drained(),
      stalled: () => this.#end('stalled')
    })
    hub.connections.enter(this)
  }

  get readings(): readonly Reading[] {
    return this.#subscriptions.readings
  }

  /** What it has subscribed to. */
  get filters(): readonly string[] {
    return this.#subscriptions.filters
  }

  // --- what it is told ---

  get pending(): number {
    return this.#writer.pending
  }

  /**
   * Frames go to the socket as they are. What `ws` writes itself goes there as well: at once and whole, since nothing is
   * compressed.
   */
  write(bytes: Buffer): void {
    // after a close frame there is nothing more (RFC 6455, section 5.5.1)
    if (this.hasEnded || this.#ws.readyState !== OPEN || bytes.length === 0) return
    const wasFull = this.#writer.isFull
    this.#writer.write(bytes)
    if (this.#writer.isFull && !wasFull) this.#regulate()
  }

  #drained(): void {
    this.#regulate()
    this.#subscriptions.drained()
  }

  /**
   * Stops reading while the connection is full: answers would pile up, and a message would count as a sign of life of a
   * client that takes nothing. Also stops while too much is under way.
   */
  #regulate(): void {
    if (this.hasEnded) return
    if (this.#writer.isFull || this.#underWay >= MAX_UNDER_WAY) this.#ws.pause()
    else if (this.#ws.isPaused) this.#ws.resume()
  }

  hears(what: Notice, filter: string, topic: string): boolean {
    // who has joined a topic hears in its own room who comes and goes, and signals are for who has subscribed
    if (what === 'signal') return this.#subscriptions.has(filter)
    return filter === topic || !this.#joins.has(topic)
  }

  tell(what: Notice, frame: Buffer): void {
    const { SEND_BUFFER } = this.#context.settings
    if (what === 'signal' && this.pending > SEND_BUFFER) return
    // it would hold members for present who have gone; when it comes back it joins anew, and gets all of them
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
    if (this.hasEnded) return
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
      this.#begin(op, ref, read, bytes.length)
    } catch (error) {
      this.#fail(ref, error)
    }
    metrics.wsMessages.inc({ op: op ?? 'unknown' })
  }

  /** Does what is asked for, after those of the earlier messages that change what the client hears. */
  #begin(op: Op, ref: Ref, read: ClientMessage, size: number): void {
    const { memory } = this.#context
    holdBody(memory, size)
    const act = () => this.#act(op, ref, read, size)
    const done = (this.#turn ?? round.end()).then(act).then(
      body => {
        if (body) this.#answer(op === 'ping' ? 'pong' : 'ok', ref, body)
      },
      (error: unknown) => this.#fail(ref, error)
    )
    this.#underWay++
    this.#regulate()
    if (OPS[op].changes) this.#turn = done
    void done.then(() => {
      memory.give('bodies', size)
      this.#underWay--
      this.#regulate()
      if (this.#turn === done) this.#turn = null
    })
  }

  /** Resolves with the answer; null where there is none any more, or it was given. */
  async #act(op: Op, ref: Ref, read: ClientMessage, size: number): Promise<AnswerBody | null> {
    if (this.hasEnded) return null
    const input = new JsonInput(read.members)
    const writing = (act: Write) => this.#write(size, act)
    switch (op) {
      case 'subscribe':
        await this.#subscriptions.add(ref, input.as(Subscribe))
        return null
      case 'unsubscribe':
        this.#subscriptions.remove(input.as(Unsubscribe).topics)
        return {}
      case 'publish':
        return writing(writer => this.#sending.publish(input.as(Publish), read, writer))
      case 'signal':
        return writing(writer => this.#sending.signal(input.as(SendSignal), read, writer))
      case 'join':
        return writing(writer => this.#joins.add(input.as(Join).topic, read, writer))
      case 'leave':
        return writing(writer => this.#joins.remove(input.as(Leave).topic, writer))
      case 'read':
        return writing(writer => this.#sending.markRead(input.as(Read), writer))
      case 'ping':
        input.as(Ping)
        return {}
    }
  }

  /** Does what counts as a write of so many bytes, whatever becomes of it. */
  async #write(size: number, act: Write): Promise<AnswerBody | null> {
    const writer = new ClientWriter(this.#context.limits, this.grant, this.#limited)
    try {
      writer.takeBytes(size)
      return await act(writer)
    } catch (error) {
      this.#context.metrics.writesFailed.inc({ reason: failureOf(error) })
      throw error
    } finally {
      writer.settle()
    }
  }

  /** The client may still hear what happens there for another reason. */
  leaveRoom(room: Room): void {
    const { filter, hearers } = room
    if (!this.#subscriptions.has(filter) && !this.#joins.has(filter)) hearers.delete(this)
    this.#context.hub.presence.release(room)
  }

  /** Answers what was wrong. The connection stays open, unless too many of its messages were wrong. */
  #fail(ref: Ref, error: unknown): void {
    if (this.hasEnded) return
    const { logger, metrics } = this.#context
    const code = codeOf(error)
    if (code === null) logger.error(error)
    if (error instanceof Denied) {
      metrics.authFailures.inc({ reason: error.reason })
      // its connection was to be ended at any moment: who has another token then says it again
      if (error.reason === 'expired') return this.goodbye('expired', this.#context.hub.connections.spread())
    }
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
    // no pong can come while nothing is read; a connection that stays full ends by its time-out
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
    if (this.hasEnded || this.#messages?.take() !== false || this.#patience.take()) return
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
    if (this.hasEnded) return
    this.hasEnded = true
    this.#subscriptions.end()
    this.#joins.end()
    this.#context.hub.connections.exit(this, reason)
    this.#onEnd()
    if (code === undefined) return this.#ws.terminate()
    this.#ws.resume() // else its own close frame would not be read
    this.#ws.close(code, text)
  }
}

/** Writes to the socket of a peer, and tells it what becomes of that. */
class PeerWriter extends SocketWriter {
  protected readonly emptied: () => void
  protected readonly stalled: () => void

  constructor(socket: Socket, stallTimeout: number, peer: { emptied(): void; stalled(): void }) {
    super(socket)
    this.stallTimeout = stallTimeout
    this.emptied = peer.emptied
    this.stalled = peer.stalled
    socket.on('drain', () => this.drained()).on('timeout', () => this.timedOut())
  }
}

/** Closes a connection that can't be taken; `retry` in milliseconds. */
export function turnAway(ws: WebSocket, reason: GoodbyeReason, retry: number): void {
  ws.on('error', ignore) // 'close' follows
  ws.close(CLOSE_CODES[reason], goodbyeText(reason, retry))
}

function ignore(): void {}
