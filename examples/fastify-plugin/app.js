import console from 'node:console'
import { env } from 'node:process'
import Fastify from 'fastify'
import { ringside, StreamRequest } from 'ringside-hub'

// StreamRequest is optional: it saves memory for each open stream
const app = Fastify({ http: { IncomingMessage: StreamRequest } })

await app.register(ringside, {
  prefix: '/live',
  settings: { RING_SIZE: 100, RING_TTL: '1h', ...(env.REDIS_URL && { REDIS_URL: env.REDIS_URL }) },
  // Ringside has no keys yet: whoever passes here may read and write everything
  onRequest: async (request, reply) => {
    if (request.headers.authorization !== 'Bearer letmein') {
      return reply.code(401).header('www-authenticate', 'Bearer').send({ error: 'who are you?' })
    }
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
