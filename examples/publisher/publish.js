// node publish.js TOPIC TEXT
import console from 'node:console'
import { randomUUID } from 'node:crypto'
import process from 'node:process'

const [topic, text] = process.argv.slice(2)
const hub = process.env.RINGSIDE_URL ?? 'http://127.0.0.1:3000'

const answer = await globalThis.fetch(`${hub}/events/${topic.split('/').map(encodeURIComponent).join('/')}`, {
  method: 'POST',
  headers: { 'content-type': 'text/plain', 'idempotency-key': randomUUID() },
  body: text
})
console.log(await answer.text())
if (!answer.ok) process.exitCode = 1
