// A job that takes its time, on the server. It publishes how far it is, and its last event ends its topic.
import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { userOf } from '../login/login.js'

/** The most rows of a job, fewer than a ring holds; and how long each takes, in milliseconds. */
const MOST_ROWS = 500
const ROW_MS = 50

/** POST /jobs begins one: `{"rows"}`. Answers at once, with its id. */
export async function jobs(app) {
  app.post('/jobs', async (request, reply) => {
    if (userOf(request) === undefined) return reply.code(403).send({ detail: 'who are you?' })
    const rows = Math.min(MOST_ROWS, Number(request.body?.rows) || 100)
    const id = randomUUID()
    run(app.ringside, `jobs/${id}`, rows).catch(error => app.log.error(error))
    return reply.code(202).send({ id })
  })
}

async function run(ringside, topic, rows) {
  await ringside.publish(topic, { type: 'begun', data: { rows } })
  for (let row = 1; row <= rows; row++) {
    await delay(ROW_MS)
    await ringside.publish(topic, {
      type: 'row',
      data: { row, price: Math.round(Math.random() * 1000) / 10 }
    })
  }
  await ringside.publish(topic, { data: { rows, isDone: true }, end: true })
}
