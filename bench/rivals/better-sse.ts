import type { IncomingMessage, ServerResponse } from 'node:http'
import { listen, serveHttp } from './http-server.ts'
import { load } from './peer-package.ts'
import { nextId } from './sse.ts'

interface BetterSse {
  createChannel(): {
    register(session: unknown): void
    broadcast(data: unknown, type: string, options: { eventId: string }): void
  }
  createSession(
    request: IncomingMessage,
    response: ServerResponse,
    options: { serializer(data: string): string; keepAlive: null }
  ): Promise<unknown>
}

const { createChannel, createSession } = load<BetterSse>('better-sse')
const channel = createChannel()
const options = { serializer: (data: string) => data, keepAlive: null }

const server = serveHttp(
  (request, response) => {
    void createSession(request, response, options).then(session => channel.register(session))
  },
  data => channel.broadcast(data, 'message', { eventId: nextId() })
)
listen(server)
