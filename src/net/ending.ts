import type { Socket } from 'node:net'

/** How long a peer may take to close its side after ours was ended, in milliseconds. */
export const LINGER_MS = 3000

/** Ends a connection, with these bytes last, at the latest after `LINGER_MS`: a peer may never end its side. */
export function endConnection(socket: Socket, last = ''): void {
  socket.end(last)
  const timer = setTimeout(() => socket.destroy(), LINGER_MS).unref()
  socket.once('close', () => clearTimeout(timer))
}
