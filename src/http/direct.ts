import { Socket } from 'node:net'

/**
 * Writing to a TCP socket past Node's streams, which take a twentieth of what a delivery costs. What this asks of Node is
 * no part of its documented interface: where it isn't as it is in Node 20 to 24, `direct` is null, and the streams are
 * used for everything.
 */
export interface Direct {
  /** The socket's handle; null where only its stream can be written to: of TLS, or of a socket that was destroyed. */
  handleOf(socket: Socket): Handle | null
  /**
   * Gives bytes to the kernel, in order behind all that waits in the handle; not to be called while any wait in the
   * socket's stream. `waits`: `waiter` is told when they have gone. `failed`: the connection is broken.
   */
  write(handle: Handle, bytes: Buffer, waiter: Waiter): 'taken' | 'waits' | 'failed'
}

/** What libuv has of a socket. */
export interface Handle {
  /** Bytes that the kernel hasn't taken yet. */
  readonly writeQueueSize: number
  writeBuffer(request: WriteRequest, bytes: Buffer): number
}

/** Who waits for bytes that the kernel didn't take at once. */
export interface Waiter {
  /** They have gone; with a status below zero, they never will. */
  written(status: number): void
}

interface WriteRequest {
  /** Keeps the bytes where they are until they have gone. */
  buffer?: Buffer
  waiter?: Waiter
  oncomplete: (status: number) => void
}

interface StreamBinding {
  readonly WriteWrap: new () => WriteRequest
  readonly streamBaseState: ArrayLike<number>
  readonly kLastWriteWasAsync: number
}

export const direct: Direct | null = load()

function load(): Direct | null {
  const node = process as { binding?: (name: string) => Partial<StreamBinding> }
  let found: Partial<StreamBinding> | undefined
  try {
    found = node.binding?.('stream_wrap')
  } catch {
    // a Node that doesn't give it away any more
  }
  const { WriteWrap, streamBaseState: state, kLastWriteWasAsync: wasAsync } = found ?? {}
  if (!WriteWrap || !state || wasAsync === undefined || !(wasAsync in state)) return null
  // a request that the kernel took at once was not used and serves again
  let spare = new WriteWrap()
  return {
    handleOf(socket) {
      const { _handle: handle } = socket as { _handle?: Partial<Handle> | null }
      const isPlain = Object.getPrototypeOf(socket) === Socket.prototype
      return isPlain && handle?.writeBuffer && handle.writeQueueSize !== undefined ? (handle as Handle) : null
    },
    write(handle, bytes, waiter) {
      if (handle.writeBuffer(spare, bytes) !== 0) return 'failed'
      if (state[wasAsync] === 0) return 'taken'
      const request = spare
      request.buffer = bytes
      request.waiter = waiter
      request.oncomplete = onComplete
      spare = new WriteWrap()
      return 'waits'
    }
  }
}

function onComplete(this: WriteRequest, status: number): void {
  this.waiter!.written(status)
}
