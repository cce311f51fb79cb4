import type { ServerResponse } from 'node:http'
import { listen, serveHttp } from './http-server.ts'
import { frameOf, STREAM_HEAD } from './sse.ts'

const subscribers = new Set<ServerResponse>()

function onClose(this: ServerResponse): void {
  subscribers.delete(this)
}

function send(data: string): void {
  const bytes = Buffer.from(frameOf(data), 'latin1')
  for (const response of subscribers) response.write(bytes)
}

const server = serveHttp(
  (_request, response) => {
    response.writeHead(200, STREAM_HEAD)
    response.flushHeaders()
    response.on('close', onClose)
    subscribers.add(response)
  },
  data => {
    const value: unknown = JSON.parse(data)
    if (Array.isArray(value)) for (const each of value) send(JSON.stringify(each))
    else send(data)
  }
)
listen(server)
