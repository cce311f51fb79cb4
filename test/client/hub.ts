import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import { WebSocketServer, type WebSocket } from 'ws'
import { Inbox } from '../support/inbox.ts'

/** A message of either side. */
export interface Message extends Record<string, unknown> {
  readonly op: string
  readonly ref?: number
  readonly topic?: string
  readonly topics?: readonly string[]
  readonly type?: string
  readonly data?: unknown
  readonly key?: string
  readonly after?: string
}

/** What answers a message; undefined leaves it to the hub. */
export type Answer = (message: Message, connection: HubConnection) => void

export interface HubConnection {
  readonly socket: WebSocket
  readonly request: IncomingMessage
  readonly topics: Set<string>
  say(message: Message): void
}

/** A hub that speaks section 6 of the contract, as far as a client needs it: one process, one order, no wildcards. */
export class SmallHub {
  readonly url: string
  readonly connections: HubConnection[] = []
  /** Every message of every client. */
  readonly heard = new Inbox<Message>()
  readonly stored: Message[] = []
  /** Answers these operations instead of it. */
  readonly answers = new Map<string, Answer>()
  /** The status of those that are not let in; 0 for nobody. */
  refuses = (_request: IncomingMessage): number => 0

  constructor(url: string) {
    this.url = url
  }

  get last(): HubConnection {
    return this.connections.at(-1)!
  }

  accept(socket: WebSocket, request: IncomingMessage): void {
    const say = (message: Message) => socket.send(JSON.stringify(message))
    const connection: HubConnection = { socket, request, topics: new Set(), say }
    this.connections.push(connection)
    socket.on('error', () => {})
    socket.on('message', (bytes: Buffer) => {
      const message = JSON.parse(bytes.toString()) as Message
      this.heard.push(message)
      const answer = this.answers.get(message.op)
      if (answer) answer(message, connection)
      else this.do(message, connection)
    })
  }

  do(message: Message, { topics, say }: HubConnection): void {
    const { op, ref, topic = '', after } = message
    if (op === 'subscribe') {
      const from = after === undefined ? this.stored.length : Number(after.split('-')[0])
      say({ op: 'ok', ref: ref!, cursor: `${from}-0` })
      for (const name of message.topics!) topics.add(name)
      for (const event of this.stored.slice(from)) if (message.topics!.includes(event.topic!)) say(event)
    } else if (op === 'unsubscribe') {
      for (const name of message.topics!) topics.delete(name)
      say({ op: 'ok', ref: ref! })
    } else if (op === 'publish') {
      say({ op: 'ok', ref: ref!, id: this.store(message) })
    } else if (op === 'join')
      say({ op: 'ok', ref: ref!, members: [{ id: 'me', sub: null, info: message['info'] }] })
    else if (op === 'read') say({ op: 'ok', ref: ref!, unread: 3 })
    else say({ op: op === 'ping' ? 'pong' : 'ok', ref: ref!, ...(topic && { topic }) })
  }

  /** Stores an event, once for each key, and tells who listens. */
  store({ topic = '', type = 'message', data, key = '' }: Message): string {
    const known = key && this.stored.find(each => each.key === key)
    if (known) return known['id'] as string
    const id = `${this.stored.length + 1}-0`
    const event = { op: 'event', id, topic, type, time: 1, data, key }
    this.stored.push(event)
    for (const { topics, say } of this.connections) if (topics.has(topic)) say(event)
    return id
  }

  /** Breaks every connection, as a network does. */
  cut(): void {
    for (const { socket } of this.connections.splice(0)) socket.terminate()
  }
}

export async function startHub(t: Test): Promise<SmallHub> {
  const server = createServer((request, response) => {
    response.writeHead(hub.refuses(request) || 426, { 'content-type': 'application/json' })
    response.end(JSON.stringify({ detail: 'not for you' }))
  })
  const sockets = new WebSocketServer({ noServer: true })
  server.on('upgrade', (request, socket, head) => {
    const status = hub.refuses(request)
    if (status) return void socket.end(`HTTP/1.1 ${status} No\r\nConnection: close\r\n\r\n`)
    sockets.handleUpgrade(request, socket, head, each => hub.accept(each, request))
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const hub = new SmallHub(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  t.teardown(() => {
    hub.cut()
    server.close()
    server.closeAllConnections()
  })
  return hub
}
