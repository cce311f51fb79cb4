import type { Socket } from 'node:net'
import { direct, type Handle, type Waiter } from './direct.ts'

const NOTHING = Buffer.alloc(0)

/**
 * Writes to a socket, past its stream where that can be, and knows how much waits. Who else writes to the socket's stream
 * keeps the order. What the socket says of `drain` and `timeout` is to be passed on to it.
 */
export abstract class SocketWriter implements Waiter {
  protected readonly socket: Socket
  /** How long a peer may take nothing of what waits, in milliseconds; 0 for ever. */
  protected stallTimeout = 0
  /** Whether the socket has asked to wait: only then does it tell when it has drained. */
  #isFull = false
  readonly #handle: Handle | null
  /** Bytes that were written past the stream and that the kernel hasn't taken; and what of them waited when last asked. */
  #direct = 0
  #left = 0

  constructor(socket: Socket) {
    this.socket = socket
    this.#handle = direct?.handleOf(socket) ?? null
  }

  /** All that waited has gone. */
  protected abstract emptied(): void

  /** The peer has taken nothing for too long. */
  protected abstract stalled(): void

  /** Whether something waits. */
  get isFull(): boolean {
    return this.#isFull
  }

  /** How many bytes wait; zero until the socket has asked to wait. */
  get pending(): number {
    return this.#isFull ? this.socket.writableLength + this.#direct : 0
  }

  write(bytes: Buffer): void {
    const { socket } = this
    // what waits in the stream goes first
    if (this.#handle === null || this.#isFull || socket.writableLength > 0) {
      if (socket.write(bytes) || this.#isFull) return
    } else {
      const outcome = direct!.write(this.#handle, bytes, this)
      if (outcome === 'taken') return
      if (outcome === 'failed') return void socket.destroy()
      this.#direct = bytes.length
      this.#left = this.#handle.writeQueueSize
      socket.cork()
    }
    this.#isFull = true
    // it is a sign of life when a part of what waits goes out, so that the time only runs while something waits
    if (this.stallTimeout > 0) socket.setTimeout(this.stallTimeout)
  }

  written(status: number): void {
    const { socket } = this
    this.#direct = 0
    if (status < 0 || socket.destroyed) return void socket.destroy()
    socket.uncork()
    this.#settle()
  }

  /**
   * What was written meanwhile may still wait in the stream. The stream says by itself that it has drained only after it
   * held some KiB, so that it is asked by an empty write.
   */
  #settle(): void {
    const { socket } = this
    if (!this.#isFull || this.#direct > 0 || socket.writableNeedDrain || socket.writableEnded) return
    if (socket.writableLength === 0) return this.drained()
    socket.write(NOTHING, error => {
      if (!error) this.#settle()
    })
  }

  /** The socket's stream has drained. */
  drained(): void {
    this.#isFull = false
    this.socket.setTimeout(0)
    this.emptied()
  }

  /** Node saw nothing go out for the time that was set. It doesn't know of what was written past the stream. */
  timedOut(): void {
    // it was set for an earlier answer on the connection
    if (!this.#isFull) return void this.socket.setTimeout(0)
    const left = this.#direct > 0 ? this.#handle!.writeQueueSize : this.#left
    if (left === this.#left) return this.stalled()
    this.#left = left
    this.socket.setTimeout(this.stallTimeout)
  }
}
