import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Session } from '../hub/session.ts'
import { LAST_CHUNK } from '../wire/packing.ts'
import { endConnection } from './ending.ts'
import type { StreamSink } from './sink.ts'
import { SocketWriter } from './socket-writer.ts'

/** The sink of each socket, so that its listeners need no closure of their own. */
const sinks = new Map<Socket, SocketSink>()

/** A stream on a socket that Node has let go of. It is all that is kept of the connection. */
export class SocketSink extends SocketWriter implements StreamSink {
  #session: Session | undefined

  constructor(response: ServerResponse) {
    const socket = response.socket!
    response.detachSocket(socket)
    super(socket)
  }

  end(): void {
    endConnection(this.socket, LAST_CHUNK)
  }

  serve(session: Session, stallTimeout: number, preface?: readonly Buffer[]): void {
    const { socket } = this
    if (socket.destroyed || socket.readableEnded) {
      session.close('client')
      return void socket.destroy()
    }
    this.#session = session
    this.stallTimeout = stallTimeout
    sinks.set(socket, this)
    socket.setTimeout(0) // an older one doesn't know of what is written past the stream
    socket.on('close', onClose).on('drain', onDrain).on('timeout', onTimeout).on('end', onEnd)
    socket.resume() // what a client still sends is of no interest
    session.start(this, preface)
  }

  protected emptied(): void {
    this.#session?.drained()
  }

  protected stalled(): void {
    this.close('stalled')
  }

  close(reason: 'client' | 'stalled'): void {
    sinks.delete(this.socket)
    this.#session?.close(reason)
    this.socket.destroy()
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
