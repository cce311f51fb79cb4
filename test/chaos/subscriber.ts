import { Agent, request, type ClientRequest, type IncomingMessage } from 'node:http'
import type { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { parseCursor, type Cursor } from '../../src/event.ts'
import { bodyOf, isGarbled } from '../support/gunzip.ts'
import type { Instance } from './instance.ts'
import type { Entry, Life, Transport } from './model.ts'
import type { Random } from './random.ts'
import { readings, SocketReading, type Happening, type Reading } from './readers.ts'

/** The longest that a subscriber of the run heeds when to come back, in milliseconds. */
const LONGEST_RETRY_MS = 500

export interface SubscriberOptions {
  readonly name: string
  readonly transport: Transport
  readonly filters: readonly string[]
  readonly envelope: boolean
  readonly shards: number
  readonly random: Random
  /** Where to connect to now: any of the instances, running or not. */
  readonly instance: () => Instance
}

/**
 * Reads in one of the ways that there are, and keeps all that it is told. It drops its connection at random moments,
 * and comes back to any instance with its last id.
 */
export class Subscriber implements Life {
  readonly name: string
  readonly transport: Transport
  readonly filters: readonly string[]
  readonly log: Entry[] = []
  /** How often it connected, and how often with a last id. */
  connects = 0
  resumes = 0
  /** How often it was told by a status to come back. */
  refusals = 0
  /** It keeps its connection for as long as the server does. */
  steady = false
  readonly #options: SubscriberOptions
  readonly #agent = new Agent({ keepAlive: true })
  #lastId = ''
  #retry = LONGEST_RETRY_MS
  #sent: { destroy(): void } | undefined
  /** What is read of the last answer. */
  #body: Readable | undefined
  #stopped = false

  constructor(options: SubscriberOptions) {
    this.#options = options
    this.name = options.name
    this.transport = options.transport
    this.filters = options.filters
  }

  /** How far it has come; null before its first id. */
  get cursor(): Cursor | null {
    return parseCursor(this.#lastId, this.#options.shards) ?? null
  }

  /** Runs until `stop`. */
  async run(): Promise<void> {
    const { random } = this.#options
    while (!this.#stopped) {
      await this.#connect()
      if (this.#stopped) return
      // now and then one is away for longer
      const away = random.chance(0.05) ? random.whole(1000, 6000) : 0
      await delay(Math.min(this.#retry, LONGEST_RETRY_MS) * random.next() + (this.steady ? 0 : away))
    }
  }

  stop(): void {
    this.#stopped = true
    this.#sent?.destroy()
    this.#agent.destroy()
  }

  /** Resolves when the answer, or the connection, has ended. */
  #connect(): Promise<void> {
    const { transport, instance } = this.#options
    const { port, name } = instance()
    this.connects++
    if (this.#lastId !== '') this.resumes++
    this.#note({ kind: 'connect', instance: name, lastId: this.#lastId })
    return transport === 'ws' ? this.#converse(port) : this.#request(port, transport)
  }

  #request(port: number, transport: Exclude<Transport, 'ws'>): Promise<void> {
    const { random, envelope, filters } = this.#options
    const reading = new readings[transport]({ lastId: this.#lastId, envelope, random })
    const query = new URLSearchParams([
      ...filters.map((filter): [string, string] => ['topic', filter]),
      ...Object.entries(reading.query)
    ])
    return new Promise(resolve => {
      const path = `/events?${query.toString()}`
      const sent = request({ host: '127.0.0.1', port, path, headers: reading.headers, agent: this.#agent })
      this.#sent = sent
      const drop = after(reading.patience, () => {
        if (!this.steady) sent.destroy()
      })
      const late = after(reading.deadline, () => {
        this.#note({ kind: 'broken', why: `no answer in ${reading.deadline} ms` })
        sent.destroy()
      })
      sent.on('response', response => this.#read(response, reading, sent))
      sent.on('error', error => this.#note({ kind: 'end', how: error.message }))
      const close = () => {
        clearTimeout(drop)
        clearTimeout(late)
        this.#retry = reading.retry ?? this.#retry
        resolve()
      }
      sent.on('close', () => {
        // what was compressed is read a little later
        if (this.#body && !this.#body.closed) this.#body.on('close', close)
        else close()
      })
      sent.end()
    })
  }

  #converse(port: number): Promise<void> {
    const { random, filters } = this.#options
    const reading = new SocketReading({ lastId: this.#lastId, random })
    return new Promise(resolve => {
      const ws = new WebSocket(`ws://127.0.0.1:${port}/ws`, reading.protocol, { perMessageDeflate: false })
      this.#sent = { destroy: () => ws.terminate() }
      const drop = after(reading.patience, () => {
        if (!this.steady) ws.terminate()
      })
      ws.on('open', () => ws.send(reading.request(filters)))
      ws.on('unexpected-response', (_sent, { statusCode: status, headers }) => {
        this.#noteStatus(status!, headers['retry-after'])
        ws.terminate()
      })
      ws.on('message', (bytes: Buffer, isBinary: boolean) => {
        if (ws.readyState !== WebSocket.OPEN) return
        this.#take(
          () => {
            const happenings = reading.push(bytes, isBinary)
            if (happenings.some(({ kind }) => kind === 'refused')) ws.close()
            return happenings
          },
          () => ws.terminate()
        )
      })
      ws.on('error', (error: Error & { code?: string }) => {
        const isWrong = error.code?.startsWith('WS_ERR') === true
        this.#note(isWrong ? { kind: 'broken', why: error.message } : { kind: 'end', how: error.message })
      })
      ws.on('close', code => {
        clearTimeout(drop)
        this.#note({ kind: 'end', how: `closed with ${code}` })
        this.#retry = LONGEST_RETRY_MS
        resolve()
      })
    })
  }

  #read(response: IncomingMessage, reading: Reading, sent: ClientRequest): void {
    const { statusCode: status, headers } = response
    this.#noteStatus(status!, headers['retry-after'])
    if (status !== 200) {
      sent.destroy()
      return
    }
    const take = (happenings: () => Iterable<Happening>) => this.#take(happenings, () => sent.destroy())
    take(() => reading.begin(headers['ringside-cursor'] as string | undefined))
    const body = bodyOf(response)
    this.#body = body
    body.on('data', (chunk: Buffer) => take(() => reading.push(chunk)))
    body.on('end', () => {
      take(() => reading.end())
      this.#note({ kind: 'end', how: 'by the server' })
    })
    body.on('error', error =>
      this.#note(
        isGarbled(error) ? { kind: 'broken', why: error.message } : { kind: 'end', how: error.message }
      )
    )
  }

  #noteStatus(status: number, retryAfter: string | undefined): void {
    this.#note({ kind: 'status', status, ...(retryAfter !== undefined && { retryAfter }) })
    if (status === 200) return
    this.refusals++
    this.#retry = Number(retryAfter ?? 0) * 1000
  }

  /** Notes what is told, up to what can't be understood. */
  #take(happenings: () => Iterable<Happening>, giveUp: () => void): void {
    try {
      for (const happening of happenings()) this.#note(happening)
    } catch (error) {
      this.#note({ kind: 'broken', why: (error as Error).message })
      giveUp()
    }
  }

  #note(what: Happening): void {
    if ('id' in what) this.#lastId = what.id
    this.log.push({ at: Date.now(), ...what })
  }
}

function after(ms: number | null, callback: () => void): NodeJS.Timeout | undefined {
  return ms === null ? undefined : setTimeout(callback, ms)
}
