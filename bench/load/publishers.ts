import { once } from 'node:events'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { BatchFormat, Dialog, Peer } from '../peer.ts'
import { TOPIC } from '../peers.ts'
import { dial, type Transport } from './dial.ts'
import { eventData } from './event.ts'

const HTTP = { answer: 'HTTP/1.1 ', stored: '2' }

/** Connections that publish. What is published in one go is pipelined: no request waits for the answer to another. */
export class Publishers {
  /** Events that were sent. */
  sent = 0
  readonly connections: readonly Publisher[]
  readonly #peer: Peer
  #next = 0

  private constructor(peer: Peer, connections: readonly Publisher[]) {
    this.#peer = peer
    this.connections = connections
  }

  static async connect(peer: Peer, port: number, count: number): Promise<Publishers> {
    // publishers use HTTP/1.1 also where subscribers use HTTP/2
    const transport = peer.transport === 'plain' ? 'plain' : 'tls'
    const connections = await Promise.all(
      Array.from({ length: count }, () => Publisher.connect(transport, port, peer.dialog))
    )
    return new Publishers(peer, connections)
  }

  /** Requests that were answered. */
  get answered(): number {
    return this.connections.reduce((sum, { answered }) => sum + answered, 0)
  }

  /** Publishes so many events, each on its own; over the connections in turn unless one is named. */
  publish(count = 1, topic?: string, connection = this.#inTurn()): void {
    let text = ''
    for (let index = 0; index < count; index++) text += this.#peer.publish(eventData(this.sent++), topic)
    connection.send(text, count)
  }

  /** Publishes so many events at once: as a batch where the server has that, else pipelined in one write. */
  publishBatch(
    count: number,
    topicOf: () => string = () => TOPIC,
    connection = this.#inTurn(),
    format: BatchFormat = 'json'
  ): void {
    const batch = this.#peer.publishBatch
    if (!batch) return this.publish(count, undefined, connection)
    const events = Array.from({ length: count }, () => ({ topic: topicOf(), data: eventData(this.sent++) }))
    connection.send(batch(events, format), 1)
  }

  /** Publishes evenly for so many seconds; when it was held up, it makes up for it. */
  async paced(perSecond: number, seconds: number, publish: () => void = () => this.publish()): Promise<void> {
    const started = performance.now()
    const total = Math.round(perSecond * seconds)
    for (let done = 0; done < total;) {
      const due = Math.min(total, Math.floor(((performance.now() - started) * perSecond) / 1000) + 1)
      for (; done < due; done++) publish()
      await sleep(Math.max(0, started + (done * 1000) / perSecond - performance.now()))
    }
    await sleep(Math.max(0, started + seconds * 1000 - performance.now()))
  }

  /** Waits until every request was answered. Throws when one was refused. */
  async settled(): Promise<void> {
    while (this.connections.some(each => each.underWay > 0 && !each.closed)) await sleep(5)
    const refused = this.connections.find(({ refusal }) => refusal !== '')
    if (refused) throw new Error(`a publish was refused: ${refused.refusal}`)
  }

  #inTurn(): Publisher {
    return this.connections[this.#next++ % this.connections.length]!
  }
}

export class Publisher {
  /** Requests that were sent, and that were answered. */
  requests = 0
  answered = 0
  /** What the last refused request was answered. */
  refusal = ''
  lastAnswer = ''
  /** Called when answers have come. */
  onAnswer: () => void = () => {}
  readonly #socket: Socket
  readonly #answer: Pick<Dialog, 'answer' | 'stored'>
  #rest = ''

  private constructor(socket: Socket, dialog: Dialog | undefined) {
    this.#socket = socket
    this.#answer = dialog ?? HTTP
    socket.on('error', () => {}) // 'close' follows, and then answers are missing
    socket.on('data', (bytes: Buffer) => this.#read(bytes.toString('latin1')))
  }

  static async connect(transport: Transport, port: number, dialog?: Dialog): Promise<Publisher> {
    const socket = dial(transport, { port })
    await once(socket, 'connect')
    if (dialog) {
      socket.write(dialog.opens)
      for (let head = ''; !head.includes(dialog.opened);)
        head += ((await once(socket, 'data')) as [Buffer])[0].toString('latin1')
    }
    return new Publisher(socket, dialog)
  }

  get underWay(): number {
    return this.requests - this.answered
  }

  get closed(): boolean {
    return this.#socket.destroyed
  }

  send(text: string, requests: number): void {
    this.requests += requests
    this.#socket.write(text, 'latin1')
  }

  #read(part: string): void {
    const text = this.#rest + part
    let read = 0
    const { answer, stored } = this.#answer
    for (let at = text.indexOf(answer); at >= 0; at = text.indexOf(answer, read)) {
      const after = at + answer.length
      if (text.length < after + stored.length) break
      this.answered++
      read = after
      if (!text.startsWith(stored, after)) this.refusal = text.slice(at, at + 1000)
    }
    this.lastAnswer = text
    this.#rest = text.slice(Math.max(read, text.length - answer.length - stored.length))
    this.onAnswer()
  }
}
