import type { Server as HttpServer } from 'node:http'
import { listen, serveHttp } from './http-server.ts'
import { load } from './peer-package.ts'

interface SocketIo {
  Server: new (
    server: HttpServer,
    options: { transports: string[]; serveClient: boolean; pingInterval: number }
  ) => { emit(name: string, data: string): void }
}

const { Server } = load<SocketIo>('socket.io')
const server = serveHttp(
  (_request, response) => response.writeHead(426).end(),
  data => io.emit('event', data)
)
// no pings while it is measured: the load doesn't answer them
const io = new Server(server, { transports: ['websocket'], serveClient: false, pingInterval: 3_600_000 })
listen(server)
