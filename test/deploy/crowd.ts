/** Those who listen through a proxy: EventSources by the standard's rules, and WebSockets that come back. */
import { EventSource, type FetchLike } from 'eventsource'
import type { Test } from 'tap'
import { Agent, fetch } from 'undici'
import { WebSocket } from 'ws'
import { eventually } from '../support/inbox.ts'
import { http2Fetch } from './http2-fetch.ts'
import type { ReverseProxy } from './proxies.ts'

export const TOPIC = 'news'

/** How long a WebSocket waits before it comes back, in milliseconds. */
const BACK_MS = 1000

/** What somebody has got: the numbers that were published, and what went wrong. */
export interface Listener {
  readonly name: string
  readonly got: readonly number[]
  /** What must never be: a gap, an end for good. */
  readonly wrong: readonly string[]
  /** How often its connection has ended. */
  readonly ends: () => number
  readonly isOpen: () => boolean
  /** Goes for good. */
  readonly leave: () => void
}

export class Crowd {
  readonly sources: readonly Listener[]
  readonly sockets: readonly Listener[]

  constructor(sources: readonly Listener[], sockets: readonly Listener[]) {
    this.sources = sources
    this.sockets = sockets
  }

  get all(): readonly Listener[] {
    return [...this.sources, ...this.sockets]
  }

  /** Resolves once each of them has an event. */
  async has(number: number): Promise<void> {
    await eventually(
      () => this.all.filter(({ got }) => got.at(-1) === undefined || got.at(-1)! < number).map(told),
      behind => behind.length === 0,
      `all to have event ${number}`
    )
  }
}

/** How many there are: all in clear where the proxy knows no TLS. */
export const PEOPLE = { clear: 15, tls: 5, http2: 20, sockets: 4, secureSockets: 4 }

/** Connects all of them; resolves once they are open. They end with the test. */
export async function gather(t: Test, proxy: ReverseProxy, people = PEOPLE): Promise<Crowd> {
  const { clear, secure, ca, kind } = proxy
  const ways = {
    clear: http1Fetch(t, new Agent()),
    tls: http1Fetch(t, new Agent({ allowH2: false, connect: { ca } })),
    http2: http2Fetch(secure.url, ca, kind.streams)
  }
  t.teardown(() => ways.http2.close())
  const sources = [
    ...times(people.clear, index => openSource(t, `clear ${index}`, clear.url, ways.clear)),
    ...(kind.streams === 0
      ? []
      : [
          ...times(people.tls, index => openSource(t, `tls ${index}`, secure.url, ways.tls)),
          ...times(people.http2, index => openSource(t, `http2 ${index}`, secure.url, ways.http2.fetch))
        ])
  ]
  const sockets = [
    ...times(people.sockets, index => openSocket(t, `socket ${index}`, clear.url, {})),
    ...times(kind.streams > 0 ? people.secureSockets : 0, index =>
      openSocket(t, `secure socket ${index}`, secure.url, { ca })
    )
  ]
  const crowd = new Crowd(sources, sockets)
  await eventually(
    () => crowd.all.filter(({ isOpen }) => !isOpen()).map(told),
    closed => closed.length === 0,
    'all to be open'
  )
  return crowd
}

/** By undici, which takes streams compressed. */
function http1Fetch(t: Test, dispatcher: Agent): FetchLike {
  t.teardown(() => dispatcher.destroy())
  return (input, init) => {
    // what it is, the type leaves open
    const { headers, signal } = init as { headers: Record<string, string>; signal: AbortSignal }
    return fetch(input, { headers, signal, dispatcher })
  }
}

function openSource(t: Test, name: string, url: string, fetch: FetchLike): Listener {
  const got: number[] = []
  const wrong: string[] = []
  let ends = 0
  const source = new EventSource(`${url}/events?topic=${TOPIC}`, { fetch })
  t.teardown(() => source.close())
  source.addEventListener('message', ({ data }) => got.push(Number(data)))
  source.addEventListener('gap', ({ data }) => wrong.push(`gap ${String(data)}`))
  source.addEventListener('error', ({ code, message }) => {
    ends++
    if (source.readyState === source.CLOSED) wrong.push(`closed for good: ${code ?? ''} ${message ?? ''}`)
  })
  const leave = () => source.close()
  return { name, got, wrong, ends: () => ends, isOpen: () => source.readyState === source.OPEN, leave }
}

/** A page's own WebSocket: it says where its page is from. */
function openSocket(t: Test, name: string, url: string, { ca }: { ca?: Buffer }): Listener {
  const got: number[] = []
  const wrong: string[] = []
  let ends = 0
  let isOpen = false
  let cursor: string | undefined
  let socket: WebSocket
  let stopped = false
  const open = () => {
    socket = new WebSocket(`${url.replace('http', 'ws')}/ws`, { origin: url, ...(ca && { ca }) })
    socket.on('open', () =>
      socket.send(
        JSON.stringify({ op: 'subscribe', ref: 1, topics: [TOPIC], ...(cursor && { after: cursor }) })
      )
    )
    socket.on('message', (bytes: Buffer) => {
      const message = JSON.parse(bytes.toString()) as Record<string, unknown>
      if (message['op'] === 'event') got.push(Number(message['data']))
      if (message['op'] === 'ok') isOpen = true
      if (message['op'] === 'error') socket.close()
      if (message['op'] === 'gap') wrong.push(`gap ${bytes.toString()}`)
      cursor = (message['id'] ?? message['cursor'] ?? cursor) as string | undefined
    })
    socket.on('unexpected-response', (_request, { statusCode }) => {
      if (statusCode! < 500) wrong.push(`refused with ${statusCode}`)
      socket.terminate()
    })
    socket.on('error', () => {}) // 'close' follows
    socket.on('close', () => {
      ends++
      isOpen = false
      if (!stopped) setTimeout(open, BACK_MS)
    })
  }
  open()
  const leave = () => {
    stopped = true
    socket.terminate()
  }
  t.teardown(leave)
  return { name, got, wrong, ends: () => ends, isOpen: () => isOpen, leave }
}

function told({ name, got, wrong, ends, isOpen }: Listener): string {
  return `${name}: ${isOpen() ? 'open' : 'away'} at ${got.at(-1)}, ${ends()} ends; ${wrong.join(', ')}`
}

function times<T>(count: number, make: (index: number) => T): T[] {
  return Array.from({ length: count }, (_, index) => make(index))
}
