import { decode, encode } from 'cborg'
import type { Test } from 'tap'
import { WebSocket, type ClientOptions } from 'ws'
import type { Address } from './app.ts'
import { Inbox, inTime } from './inbox.ts'

/** A message as a client sees it, whichever subprotocol it came by. */
export type Message = Record<string, unknown> & { readonly op: string; readonly ref?: unknown }

/** How a connection ended. */
export interface Closed {
  readonly code: number
  readonly reason: string
}

export type Protocol = 'ringside.v1.json' | 'ringside.v1.cbor'

export interface Dial extends ClientOptions {
  readonly path?: string
  readonly scheme?: 'ws' | 'wss'
  /** Which subprotocols are asked for; none by default. */
  readonly protocols?: readonly string[]
}

/** A client of GET /ws that keeps everything it is told. */
export class WsClient {
  readonly ws: WebSocket
  readonly messages = new Inbox<Message>()
  readonly #closed: Promise<Closed>
  #ref = 0

  constructor(ws: WebSocket) {
    this.ws = ws
    ws.on('message', (bytes: Buffer, isBinary: boolean) => {
      if (isBinary !== this.isCbor) this.messages.end(`a ${isBinary ? 'binary' : 'text'} message`)
      else this.messages.push((isBinary ? decode(bytes) : JSON.parse(bytes.toString())) as Message)
    })
    this.#closed = new Promise(resolve =>
      ws.on('close', (code, reason) => {
        this.messages.end(`the connection has ended (${code} ${reason.toString()})`)
        resolve({ code, reason: reason.toString() })
      })
    )
    ws.on('error', () => {}) // 'close' follows
  }

  get isCbor(): boolean {
    return this.ws.protocol === 'ringside.v1.cbor'
  }

  /** Sends a message, and nothing else with it. */
  send(message: object): void {
    this.ws.send(this.isCbor ? encode(message) : JSON.stringify(message))
  }

  /** Sends a message with a ref of its own, and resolves with its answer, whatever that says. */
  async ask(op: string, message: object = {}): Promise<Message> {
    const ref = ++this.#ref
    this.send({ op, ref, ...message })
    return this.answer(ref)
  }

  /** The same for one that is to go well. */
  async do(op: string, message: object = {}): Promise<Message> {
    const answer = await this.ask(op, message)
    if (answer.op === 'error') throw new Error(`${op}: ${JSON.stringify(answer)}`)
    return answer
  }

  /** The answer to a message. */
  async answer(ref: unknown): Promise<Message> {
    const find = () =>
      this.messages.all.find(each => each.ref === ref && ['ok', 'error', 'pong'].includes(each.op))
    await this.messages.until(() => find() !== undefined, `the answer to ${String(ref)}`)
    return find()!
  }

  /** What came that is no answer. */
  get told(): Message[] {
    return this.messages.all.filter(({ op }) => !['ok', 'error', 'pong', 'cursor'].includes(op))
  }

  get events(): Message[] {
    return this.messages.all.filter(({ op }) => op === 'event')
  }

  /** The first `count` events, once they are there. */
  async until(count: number): Promise<Message[]> {
    await this.messages.until(() => this.events.length >= count, `${count} events`)
    return this.events.slice(0, count)
  }

  /** The first message of a kind that matches. */
  async first(op: string, matches: (message: Message) => boolean = () => true): Promise<Message> {
    const find = () => this.messages.all.find(message => message.op === op && matches(message))
    await this.messages.until(() => find() !== undefined, `a message ${op}`)
    return find()!
  }

  get closed(): Promise<Closed> {
    return inTime(this.#closed, 'the end of the connection', () => this.messages.all.slice(-5))
  }

  /** Takes nothing from the network any more. */
  pause(): void {
    this.ws.pause()
  }

  resume(): void {
    this.ws.resume()
  }

  close(): void {
    this.ws.close()
  }
}

/** Connects; resolves once the connection is open. */
export async function connect(
  t: Test,
  { port }: Pick<Address, 'port'>,
  { path = '/ws', scheme = 'ws', protocols = [], ...options }: Dial = {}
): Promise<WsClient> {
  const ws = new WebSocket(`${scheme}://127.0.0.1:${port}${path}`, [...protocols], {
    perMessageDeflate: false,
    ...options
  })
  t.teardown(() => ws.terminate())
  const client = new WsClient(ws)
  await inTime(
    new Promise<void>((resolve, reject) => {
      ws.on('open', resolve)
      ws.on('error', reject)
    }),
    'an open WebSocket'
  )
  return client
}
