import type { Server } from 'node:http'
import { listen, serveHttp } from './http-server.ts'
import { load } from './peer-package.ts'

interface Ws {
  WebSocketServer: new (options: { server: Server; path: string }) => {
    readonly clients: Set<{ send(data: Buffer, options: { binary: boolean }): void }>
  }
}

const { WebSocketServer } = load<Ws>('ws')
const server = serveHttp(
  (_request, response) => response.writeHead(426).end(),
  data => {
    const bytes = Buffer.from(data, 'latin1')
    for (const client of sockets.clients) client.send(bytes, { binary: false })
  }
)
const sockets = new WebSocketServer({ server, path: '/events' })
listen(server)
