import console from 'node:console'
import { env } from 'node:process'
import Fastify from 'fastify'
import { Problem, ringside, StreamRequest } from 'ringside-hub'

// StreamRequest is optional: it saves memory for each open stream
const app = Fastify({ http: { IncomingMessage: StreamRequest } })

await app.register(ringside, {
  prefix: '/live',
  settings: { RING_SIZE: 100, RING_TTL: '1h', ...(env.REDIS_URL && { REDIS_URL: env.REDIS_URL }) },
  // the shop knows its people; without this, or a key in the settings, everyone may do everything
  grant: async (request, reply) => {
    if (request.headers.authorization !== 'Bearer letmein') {
      reply.header('www-authenticate', 'Bearer')
      throw new Problem('unauthorized', 'who are you?')
    }
    return { sub: 'alice', maySubscribe: () => true, mayPublish: () => false, expires: Infinity }
  }
})

const order = {
  type: 'object',
  required: ['item'],
  properties: { item: { type: 'string' } }
}

app.post('/orders', { schema: { body: order } }, async (request, reply) => {
  const id = await app.ringside.publish('orders', { type: 'order', data: request.body })
  return reply.code(201).send({ id })
})

console.log(await app.listen({ host: '127.0.0.1', port: Number(env.PORT ?? 4000) }))
