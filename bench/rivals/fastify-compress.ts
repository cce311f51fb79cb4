/**
 * `@fastify/compress` before streams. With the argument `sse` they are those of `@fastify/sse`; without it each is a stream of
 * Node's that is the payload of its reply, whose compressor is told to flush each write.
 */
import { PassThrough } from 'node:stream'
import { constants } from 'node:zlib'
import { PAGE } from './http-server.ts'
import { load } from './peer-package.ts'
import { frameOf, nextId } from './sse.ts'

interface Reply {
  header(name: string, value: string): Reply
  code(status: number): Reply
  send(payload?: unknown): unknown
  readonly sse: {
    keepAlive(): void
    onClose(callback: () => void): void
    send(event: { id: string; data: string }): Promise<void>
  }
}

interface App {
  register(plugin: unknown, options?: object): Promise<void>
  addContentTypeParser(type: string, options: { parseAs: 'string' }, parser: unknown): void
  get(path: string, options: object, handler: (request: unknown, reply: Reply) => unknown): void
  post(path: string, handler: (request: { body: string }, reply: Reply) => Promise<unknown>): void
  listen(options: { port: number; host: string }): Promise<string>
}

const { default: fastify } = load<{ default(): App }>('fastify')
const { default: compress } = load<{ default: unknown }>('@fastify/compress')
const { default: sse } = load<{ default: unknown }>('@fastify/sse')

const app = fastify()
await app.register(compress, {
  // by default it leaves streams of events alone
  customTypes: /^text\/event-stream/,
  threshold: 0,
  zlibOptions: { flush: constants.Z_SYNC_FLUSH }
})
await app.register(sse)

/** Each sends an event to one subscriber. */
const senders = new Set<(data: string) => void>()

if (process.argv[2] === 'sse') {
  app.get(
    '/events',
    { sse: { kind: 'only', heartbeat: false, serializer: (data: string) => data } },
    async (_request, { sse: stream }) => {
      stream.keepAlive()
      await stream.send({ id: nextId(), data: 'open' }) // its head goes out with its first event
      const sender = (data: string) => void stream.send({ id: nextId(), data })
      stream.onClose(() => senders.delete(sender))
      senders.add(sender)
    }
  )
} else {
  app.get('/events', {}, (_request, reply) => {
    const stream = new PassThrough()
    const sender = (data: string) => void stream.write(frameOf(data))
    stream.on('close', () => senders.delete(sender))
    stream.write(frameOf('open'))
    senders.add(sender)
    return reply.header('content-type', 'text/event-stream').header('cache-control', 'no-cache').send(stream)
  })
}
app.get('/', {}, async () => PAGE)
app.addContentTypeParser(
  'application/json',
  { parseAs: 'string' },
  (_request: unknown, body: string, done: (error: null, body: string) => void) => done(null, body)
)
app.post('/events', async ({ body }, reply) => {
  for (const send of senders) send(body)
  return reply.code(204).send()
})

const address = await app.listen({ port: 0, host: '127.0.0.1' })
console.log(`listening ${new URL(address).port}`)
