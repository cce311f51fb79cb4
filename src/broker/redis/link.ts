import type { Clock } from '../../clock.ts'
import { parsePosition } from '../../event.ts'
import type { Position } from '../../event.ts'
import { disconnected, Unfit, unavailable } from './unavailable.ts'
import { COMMAND_TIMEOUT_MS } from './wire.ts'

/** How often a tick is asked for. It comes back on the connection of the announcements, or that connection is dead. */
const TICK_MS = 1000

/** How long to wait before another connection is tried, in milliseconds; longer where the store can't be used as it is. */
const RETRY_MS = 250
const UNFIT_RETRY_MS = 1000

/** The node that announcements came from no longer has the shard's slot, and has let go of its channels. */
export class SlotMoved extends Error {
  override name = 'SlotMoved'
}

/** A connection on which messages come in. */
export interface LinkConnection {
  /** Resolves once Redis passes on what comes on these channels. Rejects when the connection is lost. */
  listen(channels: readonly string[]): Promise<void>
  unlisten(channel: string): void
  disconnect(): void
}

/** What a connection brings. */
export interface LinkConnectionListener {
  message(channel: Buffer, message: Buffer): void
  /** It is lost: with `SlotMoved` where another one can be had at once. */
  closed(error: Error): void
}

export interface LinkOptions {
  readonly clock: Clock
  /** Opens a connection; rejects when there is none to be had. */
  connect(listener: LinkConnectionListener): Promise<LinkConnection>
  /** What a new connection listens to, before the first tick is asked for. */
  channels(): string[]
  /** Asks Redis for a tick of this number on this connection; rejects when that isn't answered. */
  askForTick(number: number): Promise<void>
  readonly listener: LinkListener
}

/** Where a link leads. */
export interface LinkListener {
  message(channel: Buffer, message: Buffer): void
  /** A tick has come in: everything up to here was announced before it. */
  tick(position: Position): void
  /** A tick has come in and its question was answered. */
  ticked(): void
  /** Nothing comes in any more, until the next tick. */
  down(): void
  failed(error: Error): void
}

/**
 * The connection on which a shard's announcements come in: it is opened again whenever it is lost. Once a second it must
 * carry a tick, since a peer that is gone without a word never closes its connection.
 */
export class Link {
  readonly #options: LinkOptions
  #connection: LinkConnection | null = null
  #isClosed = false
  #tickNumber = 0
  /** Who waits for the next tick to be asked for. */
  readonly #waiters: Waiter[] = []
  #wake: () => void = () => {}
  #arrived: (position: Position) => void = () => {}

  constructor(options: LinkOptions) {
    this.#options = options
  }

  /** Connects, and keeps connected until `close`. */
  start(): void {
    void this.#stayConnected()
  }

  close(): void {
    this.#isClosed = true
    this.#wake()
    this.#connection?.disconnect()
    this.#rejectWaiters(disconnected())
  }

  /** Ends the connection: what it still brings doesn't count. Another one is opened soon. */
  giveUp(): void {
    const connection = this.#connection
    this.#connection = null
    this.#options.listener.down()
    connection?.disconnect()
  }

  /** Rejects when there is no connection, or it is lost meanwhile. */
  async listen(channel: string): Promise<void> {
    if (!this.#connection) throw disconnected()
    await this.#connection.listen([channel])
  }

  unlisten(channel: string): void {
    this.#connection?.unlisten(channel)
  }

  /**
   * Resolves with the position of a tick that is asked for from now on. It is asked for at once, unless one is under
   * way. Rejects with `BrokerUnavailable`.
   */
  nextTick(): Promise<Position> {
    if (this.#isClosed) return Promise.reject(disconnected())
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject })
      this.#wake()
    })
  }

  /** Takes what came on the channel of this instance's ticks: the number and the position. */
  receiveTick(message: string): void {
    const [number, id] = message.split(' ')
    if (number !== String(this.#tickNumber)) return
    const position = parsePosition(id!)!
    this.#options.listener.tick(position)
    this.#arrived(position)
  }

  async #stayConnected(): Promise<void> {
    while (!this.#isClosed) {
      const error = await this.#useOneConnection().catch((error: Error) => error)
      if (!this.#isClosed) this.#options.listener.failed(error)
      this.giveUp()
      this.#wake() // from the pause between two ticks
      this.#rejectWaiters(disconnected())
      if (!this.#isClosed && !(error instanceof SlotMoved))
        await this.#pause(error instanceof Unfit ? UNFIT_RETRY_MS : RETRY_MS)
    }
  }

  /** Runs for as long as one connection lives. Resolves with why it ended, or rejects with that. */
  async #useOneConnection(): Promise<Error> {
    const { channels, connect, listener } = this.#options
    const end = new End()
    let isCurrent = () => false
    const connection = await connect({
      message: (channel, message) => {
        if (isCurrent()) listener.message(channel, message)
      },
      closed: error => {
        end.come(error)
        if (isCurrent()) this.giveUp()
      }
    })
    isCurrent = () => this.#connection === connection
    this.#connection = connection
    if (this.#isClosed) throw disconnected()
    await end.before(connection.listen(channels()))
    await this.#serveWaiters(end).catch(error => {
      throw error instanceof TickLost
        ? new Unfit('passes on nothing that a script publishes', { cause: error })
        : error
    })
    for (;;) {
      if (this.#waiters.length === 0) await end.before(this.#pause(TICK_MS))
      await this.#serveWaiters(end)
    }
  }

  /** Asks for one tick, for all who wait for one. */
  async #serveWaiters(end: End): Promise<void> {
    const waiters = this.#waiters.splice(0)
    try {
      const position = await end.before(this.#tick())
      for (const { resolve } of waiters) resolve(position)
    } catch (error) {
      for (const { reject } of waiters) reject(unavailable(error))
      throw error
    }
  }

  /** Asks for the position and waits until it comes in where the announcements do. */
  async #tick(): Promise<Position> {
    const { askForTick, listener } = this.#options
    const arrival = this.#arrival()
    await askForTick(++this.#tickNumber)
    const position = await arrival
    listener.ticked()
    return position
  }

  #arrival(): Promise<Position> {
    const arrival = new Promise<Position>((resolve, reject) => {
      const timer = this.#options.clock.after(COMMAND_TIMEOUT_MS, () =>
        reject(new TickLost(`a tick timed out: it did not come back in ${COMMAND_TIMEOUT_MS} ms`))
      )
      this.#arrived = position => {
        timer.cancel()
        resolve(position)
      }
    })
    arrival.catch(() => {}) // the question may fail before it
    return arrival
  }

  #pause(ms: number): Promise<void> {
    return new Promise(resolve => {
      const timer = this.#options.clock.after(ms, resolve)
      this.#wake = () => {
        timer.cancel()
        resolve()
      }
    })
  }

  #rejectWaiters(error: Error): void {
    for (const { reject } of this.#waiters.splice(0)) reject(error)
  }
}

/** Redis has said that it announced a tick, and it has not come in. */
class TickLost extends Error {
  override name = 'TickLost'
}

interface Waiter {
  readonly resolve: (position: Position) => void
  readonly reject: (error: Error) => void
}

/**
 * The end of something that lives long, and that is waited for again and again. It is no promise: one that stays
 * pending keeps every reaction to it, so that each `Promise.race` with it would leave something behind.
 */
class End {
  #error: Error | null = null
  #reject: (error: Error) => void = () => {}

  come(error: Error): void {
    this.#error ??= error
    this.#reject(this.#error)
  }

  /** Settles as a promise does, or rejects when the end comes first. One at a time. */
  before<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#reject = reject
      promise.then(resolve, reject)
      if (this.#error) reject(this.#error)
    })
  }
}
