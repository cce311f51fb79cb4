import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Session } from '../hub/session.ts'
import { LAST_CHUNK } from '../wire/packing.ts'
import { direct, type Handle, type Waiter } from './direct.ts'
import { endConnection } from './ending.ts'
import type { StreamSink } from './sink.ts'

const NOTHING = Buffer.alloc(0)

/** The sink of each socket, so that its listeners need no closure of their own. */
const sinks = new Map<Socket, SocketSink>()

/** A stream on a socket that Node has let go of. It is all that is kept of the connection. */
export class SocketSink implements StreamSink, Waiter {
  readonly #socket: Socket
  #session: Session | undefined
  #stallTimeout = 0
  /** Whether the socket has asked to wait: only then does it tell when it has drained. */
  #isFull = false
  readonly #handle: Handle | null
  /** Bytes that were written past the stream and that the kernel hasn't taken; and what of them waited when last asked. */
  #direct = 0
  #left = 0

  constructor(response: ServerResponse) {
    const socket = response.socket!
    response.detachSocket(socket)
    this.#socket = socket
    this.#handle = direct?.handleOf(socket) ?? null
  }

  get pending(): number {
    return this.#isFull ? this.#socket.writableLength + this.#direct : 0
  }

  write(bytes: Buffer): void {
    const socket = this.#socket
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
    if (this.#stallTimeout > 0) socket.setTimeout(this.#stallTimeout)
  }

  written(status: number): void {
    const socket = this.#socket
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
    const socket = this.#socket
    if (!this.#isFull || this.#direct > 0 || socket.writableNeedDrain || socket.writableEnded) return
    if (socket.writableLength === 0) return this.drained()
    socket.write(NOTHING, error => {
      if (!error) this.#settle()
    })
  }

  end(): void {
    endConnection(this.#socket, LAST_CHUNK)
  }

  serve(session: Session, stallTimeout: number, preface?: readonly Buffer[]): void {
    const socket = this.#socket
    if (socket.destroyed || socket.readableEnded) {
      session.close('client')
      return void socket.destroy()
    }
    this.#session = session
    this.#stallTimeout = stallTimeout
    sinks.set(socket, this)
    socket.setTimeout(0) // an older one doesn't know of what is written past the stream
    socket.on('close', onClose).on('drain', onDrain).on('timeout', onTimeout).on('end', onEnd)
    socket.resume() // what a client still sends is of no interest
    session.start(this, preface)
  }

  drained(): void {
    this.#isFull = false
    this.#socket.setTimeout(0)
    this.#session?.drained()
  }

  /** Node saw nothing go out for the time that was set. It doesn't know of what was written past the stream. */
  timedOut(): void {
    // it was set for an earlier answer on the connection
    if (!this.#isFull) return void this.#socket.setTimeout(0)
    const left = this.#direct > 0 ? this.#handle!.writeQueueSize : this.#left
    if (left === this.#left) return this.close('stalled')
    this.#left = left
    this.#socket.setTimeout(this.#stallTimeout)
  }

  close(reason: 'client' | 'stalled'): void {
    sinks.delete(this.#socket)
    this.#session?.close(reason)
    this.#socket.destroy()
  }
}

function onClose(this: Socket): void {
  sinks.get(this)?.close('client')
}

function onEnd(this: Socket): void {
  sinks.get(this)?.close('client')
}

function onDrain(this: Socket): void {
  sinks.get(this)?.drained()
}

function onTimeout(this: Socket): void {
  sinks.get(this)?.timedOut()
}
