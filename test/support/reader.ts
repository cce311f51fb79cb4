import { request, type ClientRequest, type IncomingMessage, type OutgoingHttpHeaders } from 'node:http'
import type { Test } from 'tap'
import type { Address } from './app.ts'
import { bodyOf } from './gunzip.ts'
import { Inbox, inTime } from './inbox.ts'
import { StrictParser, type Frame } from './sse-parser.ts'

/** What the server makes itself; all else was published. */
const OWN = new Set(['cursor', 'gap', 'goodbye', 'heartbeat', 'stale'])

/** A subscriber that keeps everything it is told, and takes nothing that is not exactly as it should be. */
export class Reader {
  readonly response: IncomingMessage
  readonly frames = new Inbox<Frame>()
  /** How many bytes of the stream have come; of one that is compressed, of its text. */
  bytes = 0
  readonly #request: ClientRequest
  #ended: (how: 'whole' | 'cut') => void = () => {}
  /** `whole`: the answer came to its end. */
  readonly ended = new Promise<'whole' | 'cut'>(resolve => (this.#ended = resolve))

  constructor(sent: ClientRequest, response: IncomingMessage) {
    this.#request = sent
    this.response = response
    const parser = new StrictParser()
    const body = bodyOf(response)
    body.on('data', (chunk: Buffer) => {
      this.bytes += chunk.length
      try {
        for (const frame of parser.push(chunk)) this.frames.push(frame)
      } catch (error) {
        this.#fail(error)
      }
    })
    body.on('end', () => {
      try {
        parser.end()
        this.#end('whole')
      } catch (error) {
        this.#fail(error)
      }
    })
    body.on('error', () => this.#end('cut'))
    body.on('close', () => this.#end('cut'))
  }

  get status(): number {
    return this.response.statusCode!
  }

  /** What was published, of what has come. */
  get messages(): Frame[] {
    return this.frames.all.filter(({ data, event }) => data !== undefined && !OWN.has(event ?? ''))
  }

  /** The next frame, whatever it is. */
  next(): Promise<Frame> {
    return this.frames.next('the next frame')
  }

  /** The first `count` published events, once they are there. */
  async until(count: number): Promise<Frame[]> {
    await this.frames.until(() => this.messages.length >= count, `${count} events`)
    return this.messages.slice(0, count)
  }

  /** The first frame of a type. */
  async first(type: string): Promise<Frame> {
    const find = () => this.frames.all.find(({ event }) => event === type)
    await this.frames.until(() => find() !== undefined, `a ${type}`)
    return find()!
  }

  /** All data that was published, until the stream ends by the server's will. */
  async whole(): Promise<Frame[]> {
    const how = await inTime(this.ended, 'the end of the stream', () => this.frames.all.slice(-5))
    if (how !== 'whole') throw new Error('the stream was cut')
    return this.frames.all
  }

  /** Takes nothing from the network any more. */
  pause(): void {
    this.response.pause()
    this.response.socket.pause()
  }

  resume(): void {
    this.response.socket.resume()
    this.response.resume()
  }

  close(): void {
    this.#request.destroy()
  }

  #fail(error: unknown): void {
    this.frames.end(String(error))
    this.close()
  }

  #end(how: 'whole' | 'cut'): void {
    this.#ended(how)
    this.frames.end(`the stream has ended (${how})`)
  }
}

/** Subscribes over HTTP/1.1 with these headers alone. Resolves with the head of the answer. */
export function subscribe(
  t: Test,
  { port }: Pick<Address, 'port'>,
  path: string,
  headers: OutgoingHttpHeaders = { accept: 'text/event-stream' }
): Promise<Reader> {
  const opened = new Promise<Reader>((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, path, headers, agent: false })
    t.teardown(() => sent.destroy())
    sent.on('response', response => resolve(new Reader(sent, response)))
    sent.on('error', reject)
    sent.end()
  })
  return inTime(opened, `an answer to ${path}`)
}

/** Subscribes, and takes the `cursor` event with which every stream begins. */
export async function listen(
  t: Test,
  server: Pick<Address, 'port'>,
  path: string,
  headers?: OutgoingHttpHeaders
): Promise<Reader & { readonly cursor: string }> {
  const reader = await subscribe(t, server, path, headers)
  const { id, event } = await reader.next()
  if (event !== 'cursor' || id === undefined) throw new Error(`a stream that begins with ${event}`)
  return Object.assign(reader, { cursor: id })
}
