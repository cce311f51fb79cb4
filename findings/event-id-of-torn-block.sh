#!/usr/bin/env bash
# eventsource 2.0.2, @microsoft/fetch-event-source 2.0.1 and extended-eventsource 2.1.0: the id of a block that was torn counts.
#
# Expected (WHATWG HTML, "Server-sent events", interpreting an event stream): an `id:` line only fills a buffer. The last event
# id changes when the block is dispatched, at its empty line; a block that the end of the stream has cut is discarded, its id
# too. So a client comes back with the id of the last event that its program got.
# Seen: these three take the id when they read its line. Where the `id:` line stands first in its block, as most servers write
# it, and the connection ends before the block's empty line, they come back with the id of an event that their program never
# got, and a server that answers exactly what came after that id never sends it. With the `id:` line last in the block nothing
# but the empty line can be missing. eventsource 4.1.1 does it as the standard says.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
printf '{"type":"module"}\n' >package.json
npm install --silent --no-audit --no-fund @microsoft/fetch-event-source@2.0.1 extended-eventsource@2.1.0 \
  eventsource@2.0.2 eventsource4@npm:eventsource@4.1.1

cat >check.js <<'JS'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { fetchEventSource } from '@microsoft/fetch-event-source'
import { EventSource as Extended } from 'extended-eventsource'
import EventSource2 from 'eventsource'
import { EventSource as EventSource4 } from 'eventsource4'

// what these expect of a page
globalThis.window = globalThis
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} }

const clients = {
  'eventsource 4': (url, take) => {
    const source = new EventSource4(url)
    source.onmessage = take
    return () => source.close()
  },
  'eventsource 2': (url, take) => {
    const source = new EventSource2(url)
    source.onmessage = take
    return () => source.close()
  },
  'extended-eventsource': (url, take) => {
    const source = new Extended(url)
    source.onmessage = take
    return () => source.close()
  },
  'fetch-event-source': (url, take) => {
    const end = new AbortController()
    fetchEventSource(url, { signal: end.signal, onmessage: take, openWhenHidden: true }).catch(() => {})
    return () => end.abort()
  }
}

/** What a client has taken, and with which id it comes back, when a connection ended within the block of its second event. */
async function comesBack(connect) {
  const taken = []
  let requests = 0
  let found
  const back = new Promise(resolve => (found = resolve))
  const server = createServer((request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    requests += 1
    if (requests > 1) return found(request.headers['last-event-id'])
    response.write('retry: 50\nid: 1\ndata: one\n\n')
    response.write('id: 2\nda', () => setTimeout(() => response.destroy(), 100))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const close = connect(`http://127.0.0.1:${server.address().port}/`, ({ data }) => taken.push(data))
  const timeout = setTimeout(() => found('never'), 8000)
  const id = await back
  clearTimeout(timeout)
  close()
  server.closeAllConnections()
  server.close()
  return { taken: taken.filter(Boolean), id }
}

const expected = { 'eventsource 4': '1', 'eventsource 2': '2', 'extended-eventsource': '2', 'fetch-event-source': '2' }
let isAsSeen = true
for (const [name, connect] of Object.entries(clients)) {
  const { taken, id } = await comesBack(connect)
  console.log(`${name}: took ${taken.join(', ')}; comes back with the id ${id}`)
  isAsSeen &&= taken.join() === 'one' && id === expected[name]
}
console.log(isAsSeen ? 'as seen before' : 'CHANGED')
process.exit(isAsSeen ? 0 : 1)
JS
# extended-eventsource writes why it reconnects to standard error
node check.js 2>/dev/null
