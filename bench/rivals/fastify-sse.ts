import { PAGE } from './http-server.ts'
import { load } from './peer-package.ts'
import { nextId } from './sse.ts'

interface Stream {
  keepAlive(): void
  onClose(callback: () => void): void
  send(event: { id: string; data: string }): Promise<void>
}

interface App {
  register(plugin: unknown): Promise<void>
  addContentTypeParser(type: string, options: { parseAs: 'string' }, parser: unknown): void
  get(
    path: string,
    options: object,
    handler: (request: unknown, reply: { sse: Stream }) => Promise<unknown>
  ): void
  post(
    path: string,
    handler: (
      request: { body: string },
      reply: { code(status: number): { send(): unknown } }
    ) => Promise<unknown>
  ): void
  listen(options: { port: number; host: string }): Promise<string>
}

const { default: fastify } = load<{ default(): App }>('fastify')
const { default: sse } = load<{ default: unknown }>('@fastify/sse')

const streams = new Set<Stream>()
const app = fastify()
await app.register(sse)

app.get(
  '/events',
  { sse: { kind: 'only', heartbeat: false, serializer: (data: string) => data } },
  async (_request, reply) => {
    const stream = reply.sse
    stream.keepAlive()
    await stream.send({ id: nextId(), data: 'open' }) // its head goes out with its first event
    stream.onClose(() => streams.delete(stream))
    streams.add(stream)
  }
)
app.get('/', {}, async () => PAGE)
app.addContentTypeParser(
  'application/json',
  { parseAs: 'string' },
  (_request: unknown, body: string, done: (error: null, body: string) => void) => done(null, body)
)
app.post('/events', async ({ body }, reply) => {
  const id = nextId()
  for (const stream of streams) void stream.send({ id, data: body })
  return reply.code(204).send()
})

const address = await app.listen({ port: 0, host: '127.0.0.1' })
console.log(`listening ${new URL(address).port}`)
