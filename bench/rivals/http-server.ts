import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export const PAGE = 'a page\n'

/**
 * A server for streams on GET /events; what is POSTed is published, and answered once that is done; everything else is a
 * page.
 */
export function serveHttp(
  subscribe: (request: IncomingMessage, response: ServerResponse) => void,
  publish: (data: string) => Promise<void> | void
): Server {
  return createServer((request, response) => {
    if (request.method === 'POST') {
      let body = ''
      request.setEncoding('latin1')
      request.on('data', (part: string) => (body += part))
      request.on('end', () => {
        const stored = publish(body)
        if (stored) void stored.then(() => response.writeHead(204).end())
        else response.writeHead(204).end()
      })
    } else if (request.url?.startsWith('/events')) {
      subscribe(request, response)
    } else {
      response.end(PAGE)
    }
  })
}

/** Listens on a free port and says which. */
export function listen(server: Server): void {
  server.listen(0, '127.0.0.1', () => console.log(`listening ${(server.address() as AddressInfo).port}`))
}
