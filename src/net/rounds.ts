import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { Http2ServerRequest } from 'node:http2'
import { Round } from '../round.ts'

type OnRequest = (this: Server, request: IncomingMessage, response: ServerResponse) => void

/** Has those who listen to the requests of a server now, hear of all that come in a turn of the event loop at its end. */
export function serveInRounds(server: Server): void {
  const round = new Round()
  for (const listener of server.listeners('request') as OnRequest[]) {
    server.off('request', listener)
    server.on('request', (request: IncomingMessage, response: ServerResponse) =>
      round.add(() => {
        // whoever has gone meanwhile would never be known to have gone
        if (!isGone(request)) listener.call(server, request, response)
      })
    )
  }
}

function isGone(request: IncomingMessage | Http2ServerRequest): boolean {
  return request instanceof Http2ServerRequest ? request.stream.destroyed : request.socket.destroyed
}
