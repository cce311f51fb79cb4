#!/usr/bin/env bash
# undici 7.30.2 with `allowH2`: a graceful GOAWAY ends the event streams that are open.
#
# Expected (RFC 9113, section 6.8): a GOAWAY with NO_ERROR says up to which stream the server goes on; streams up to there may
# complete, and a server that is stopped or reloaded, as nginx is, lets the ones that are open live on. Node's own HTTP/2 client
# reads on.
# Seen: undici ends every request of the connection as soon as the GOAWAY has come, also those that it covers: the body of an
# event stream fails with `HTTP/2: "GOAWAY" frame received with code 0`, although the server goes on writing to it.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
printf '{"type":"module"}\n' >package.json
npm install --silent --no-audit --no-fund undici@7.30.2
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
  -keyout key.pem -out cert.pem 2>/dev/null

cat >check.js <<'JS'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, createSecureServer } from 'node:http2'
import { setTimeout as delay } from 'node:timers/promises'
import { Agent, fetch } from 'undici'

const server = createSecureServer({ key: readFileSync('key.pem'), cert: readFileSync('cert.pem') })
server.on('stream', async stream => {
  stream.on('error', () => {})
  stream.respond({ ':status': 200, 'content-type': 'text/event-stream' })
  stream.write('data: before\n\n')
  await delay(300)
  // no error, and this stream is covered
  stream.session?.goaway(0, stream.id)
  await delay(300)
  if (!stream.destroyed) stream.write('data: behind\n\n')
  await delay(300)
  if (!stream.destroyed) stream.end()
})
server.on('session', session => session.on('error', () => {}))
server.listen(0)
await once(server, 'listening')
const { port } = server.address()

async function byNode() {
  const session = connect(`https://localhost:${port}`, { rejectUnauthorized: false })
  session.on('error', () => {})
  const request = session.request({ ':path': '/' })
  let text = ''
  request.setEncoding('utf8').on('data', part => (text += part))
  const how = await Promise.race([once(request, 'end').then(() => 'ended'), once(request, 'error').then(([{ message }]) => message)])
  session.destroy()
  return { text, how }
}

async function byUndici() {
  const dispatcher = new Agent({ allowH2: true, connect: { rejectUnauthorized: false } })
  let text = ''
  let how = 'ended'
  try {
    const { body } = await fetch(`https://localhost:${port}/`, { dispatcher })
    for await (const part of body) text += Buffer.from(part).toString()
  } catch ({ message, cause }) {
    how = `${message} (${cause?.message})`
  }
  await dispatcher.destroy().catch(() => {})
  return { text, how }
}

const node = await byNode()
const undici = await byUndici()
console.log('node:http2', node)
console.log('undici    ', undici)
const isAsSeen = node.text.includes('behind') && !undici.text.includes('behind') && undici.text.includes('before')
console.log(isAsSeen ? 'as seen before' : 'CHANGED')
process.exit(isAsSeen ? 0 : 1)
JS
node check.js
