/** Attacks a server at full speed from a process of its own: `attacker.ts <attack> <port> <seconds> <tokens as JSON>`. */
import { randomBytes } from 'node:crypto'
import { Agent, request } from 'node:http'
import { connect } from 'node:net'
import WebSocket from 'ws'

/** Who attacks: one who may publish anything, and one who may publish nothing. */
export interface Tokens {
  readonly publisher: string
  readonly reader: string
}

const [, , attack = '', port = '', seconds = '', tokens = '{}'] = process.argv
const { publisher, reader } = JSON.parse(tokens) as Tokens
const end = Date.now() + Number(seconds) * 1000
const isOver = () => Date.now() >= end

const agent = new Agent({ keepAlive: true, maxSockets: 64 })
const JSON_TYPE = { 'content-type': 'application/json' }
const counts = new Map<string, number>()
let serial = 0

/** One request; what becomes of it is counted by its status. */
function ask(method: string, path: string, headers: Record<string, string> = {}, body?: string | Buffer) {
  return new Promise<void>(resolve => {
    const done = (what: string) => {
      counts.set(what, (counts.get(what) ?? 0) + 1)
      resolve()
    }
    const sent = request({ host: '127.0.0.1', port, method, path, headers, agent }, response => {
      response.on('close', () => done(String(response.statusCode)))
      response.resume()
    })
    sent.setTimeout(5000, () => sent.destroy())
    sent.on('error', () => done('error'))
    sent.end(body)
  })
}

const as = (token: string, more: Record<string, string> = {}) => ({
  authorization: `Bearer ${token}`,
  ...more
})
const read = (path: string) => ask('GET', path, { accept: 'application/json' })
const publish = (events: readonly object[]) =>
  ask('POST', '/events', as(publisher, JSON_TYPE), JSON.stringify(events))

/** Does something again and again, so many at a time. */
async function flood(width: number, act: (turn: number) => Promise<void>): Promise<void> {
  const lane = async () => {
    while (!isOver()) await act(serial++)
  }
  await Promise.all(Array.from({ length: width }, lane))
}

function rawSocket(text: string, reads: boolean): Promise<void> {
  return new Promise(resolve => {
    const socket = connect({ host: '127.0.0.1', port: Number(port) }, () => socket.write(text))
    if (reads) socket.resume()
    else socket.pause()
    socket.on('error', () => {})
    socket.on('close', () => resolve())
    setTimeout(() => socket.destroy(), 2000)
  })
}

const LARGE = 'x'.repeat(60_000)
const some = (count: number, make: (index: number) => object) =>
  Array.from({ length: count }, (_, at) => make(at))

/** A topic whose whole page is some 40 MB. */
async function publishBig(): Promise<void> {
  for (let batch = 0; batch < 6; batch++)
    await publish(some(110, () => ({ topic: 'public/big', data: LARGE })))
}

const ATTACKS: Record<string, () => Promise<void>> = {
  'polls of ever new topics': () =>
    flood(64, turn => read(`/events/public/${'p'.repeat(100)}${turn}?limit=1000`)),
  'streams of ever new topics': () =>
    flood(64, turn =>
      rawSocket(`GET /events/public/s${turn} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n`, true)
    ),
  'bodies of one who may publish nothing': () =>
    flood(16, () => ask('POST', '/events', as(reader, JSON_TYPE), Buffer.alloc(8 << 20, ' '))),
  'bodies that never end': () =>
    flood(64, () =>
      rawSocket(
        `POST /events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${publisher}\r\nContent-Type: application/json\r\n` +
          `Content-Length: 8000000\r\n\r\n[${' '.repeat(200_000)}`,
        true
      )
    ),
  'large events on ever new topics': () =>
    flood(16, turn =>
      ask('POST', `/events/public/l${turn}`, as(publisher, { 'content-type': 'text/plain' }), LARGE)
    ),
  'large batches': () =>
    flood(4, turn => publish(some(100, at => ({ topic: `public/b${turn}/${at}`, data: LARGE })))),
  'large pages': async () => {
    await publishBig()
    await flood(64, () => read('/events/public/big?since=1h&limit=1000'))
  },
  'large pages that nobody reads': async () => {
    await publishBig()
    const page =
      'GET /events/public/big?since=1h&limit=1000 HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n'
    await flood(64, () => rawSocket(page.repeat(50), false))
  },
  'ever new keys': () =>
    flood(16, turn =>
      ask('POST', '/events/public/k', as(publisher, { 'idempotency-key': `${turn}`.padEnd(255, 'k') }), 'x')
    ),
  'ever new topics': () =>
    flood(4, turn =>
      publish(some(1000, at => ({ topic: `public/${'t'.repeat(150)}${turn}.${at}`, data: 'x' })))
    ),
  'ever new states': () =>
    flood(16, turn =>
      ask(
        'PUT',
        `/dashboards/d${turn}`,
        as(publisher, JSON_TYPE),
        JSON.stringify({ x: LARGE.slice(0, 50_000) })
      )
    ),
  'ever new quotes': () =>
    flood(4, turn =>
      ask(
        'POST',
        '/tickers',
        as(publisher, JSON_TYPE),
        JSON.stringify(some(1000, at => ({ symbol: `S${turn}.${at}`, price: 1, note: 'x'.repeat(1000) })))
      )
    ),
  'inboxes of everybody': () =>
    flood(4, turn =>
      ask(
        'POST',
        '/notifications',
        as(publisher, JSON_TYPE),
        JSON.stringify({
          to: some(1000, () => ({})).map((_, at) => `u${turn}.${at}`),
          title: 't',
          body: 'x'.repeat(5000)
        })
      )
    ),
  'pages of a wide wildcard': () =>
    flood(32, () => read('/events?topic=public/*&since=1h&rate=1&limit=1000')),
  'heads that never end': () =>
    flood(500, () => rawSocket(`GET /events/public/a HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(12_000)}`, true)),
  'numbers in odd form': () =>
    flood(4, () =>
      ask('POST', '/events/public/n', as(publisher, JSON_TYPE), `[${'1e5,'.repeat(15_000)}1e5]`)
    ),
  'messages of WebSockets': () =>
    flood(
      16,
      turn =>
        new Promise<void>(resolve => {
          const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`, { headers: as(publisher) })
          const say = (message: object) => socket.readyState === 1 && socket.send(JSON.stringify(message))
          socket.on('error', () => {})
          socket.on('close', () => resolve())
          socket.on('open', () => {
            const topics = some(5000, () => ({})).map((_, at) => `public/w${turn}.${at}`)
            say({ op: 'subscribe', ref: 1, topics: topics.slice(0, 4000) })
            topics
              .slice(0, 100)
              .forEach((topic, ref) => say({ op: 'join', ref, topic, info: 'x'.repeat(1000) }))
            topics
              .slice(0, 100)
              .forEach((topic, ref) =>
                say({ op: 'publish', ref, topic, data: randomBytes(9000).toString('hex') })
              )
            setTimeout(() => socket.terminate(), 1000)
          })
        })
    )
}

await ATTACKS[attack]!()
console.log(JSON.stringify(Object.fromEntries(counts)))
process.exit()
