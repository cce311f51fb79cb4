import type { Socket } from 'node:net'

/**
 * Breaks a connection as a network does: with a RST. One that is being ended is only destroyed: Node would keep it for
 * ever where it is reset before the FIN has left, and neither say that it has closed nor let the process end.
 */
export function reset(socket: Socket): void {
  if (socket.writableEnded) socket.destroy()
  else socket.resetAndDestroy()
}
