import { Socket } from 'node:net'

/**
 * Writing to a TCP socket past Node's streams, which take a twentieth of what a delivery costs. What this asks of Node is
 * no part of its documented interface: where it isn't as it is in Node 20 to 24, `direct` is null, and the streams are
 * used for everything.
 */
export interface Direct {
  /**
   * The socket's handle; null where only its stream can be written to: of TLS, of a socket that was destroyed, and of one
   * whose `write` is somebody else's, who would miss what goes past it.
   */
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
  const node = process as { noDeprecation?: boolean; binding?: (name: string) => Partial<StreamBinding> }
  const { noDeprecation = false } = node
  let found: Partial<StreamBinding> | undefined
  try {
    // where `--pending-deprecation` is given, a warning would be all that its user could do about it
    node.noDeprecation = true
    found = node.binding?.('stream_wrap')
  } catch {
    // a Node that doesn't give it away any more
  } finally {
    node.noDeprecation = noDeprecation
  }
  const { WriteWrap, streamBaseState: state, kLastWriteWasAsync: wasAsync } = found ?? {}
  if (!WriteWrap || !state || wasAsync === undefined || !(wasAsync in state)) return null
  // a request that the kernel took at once was not used and serves again
  let spare = new WriteWrap()
  const { write } = Socket.prototype
  return {
    handleOf(socket) {
      const { _handle: handle } = socket as { _handle?: Partial<Handle> | null }
      const isPlain = Object.getPrototypeOf(socket) === Socket.prototype && socket.write === write
      return isPlain && handle?.writeBuffer && handle.writeQueueSize !== undefined ? (handle as Handle) : null
    },
    write(handle, bytes, waiter) {
      const request = spare
      const failed = handle.writeBuffer(request, bytes) !== 0
      if (!failed && state[wasAsync] === 0) return 'taken'
      spare = new WriteWrap()
      if (failed) return 'failed'
      request.buffer = bytes
      request.waiter = waiter
      request.oncomplete = onComplete
      return 'waits'
    }
  }
}

function onComplete(this: WriteRequest, status: number): void {
  this.waiter!.written(status)
}
