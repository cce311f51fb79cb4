import { request, type ClientRequest, type IncomingMessage } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import { parseCursor, type Cursor } from '../../src/event.ts'
import { StrictParser, type Frame } from '../support/sse-parser.ts'
import type { Instance } from './instance.ts'
import type { Entry, Life } from './model.ts'
import type { Random } from './random.ts'

/** The longest that a subscriber of the run heeds a `retry:`, in milliseconds. */
const LONGEST_RETRY_MS = 500

export interface SubscriberOptions {
  readonly name: string
  readonly filters: readonly string[]
  readonly envelope: boolean
  readonly shards: number
  readonly random: Random
  /** Where to connect to now: any of the instances, running or not. */
  readonly instance: () => Instance
}

type Happening = Entry extends infer E ? (E extends Entry ? Omit<E, 'at'> : never) : never

/**
 * Reads a stream as an EventSource does, and keeps all that it is told. It drops its connection at random moments,
 * and comes back to any instance with its last id.
 */
export class Subscriber implements Life {
  readonly name: string
  readonly filters: readonly string[]
  readonly log: Entry[] = []
  /** How often it connected, and how often with a last id. */
  connects = 0
  resumes = 0
  /** It keeps its connection for as long as the server does. */
  steady = false
  readonly #options: SubscriberOptions
  #lastId = ''
  #retry = LONGEST_RETRY_MS
  #sent: ClientRequest | undefined
  #stopped = false

  constructor(options: SubscriberOptions) {
    this.#options = options
    this.name = options.name
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
  }

  /** Resolves when the connection has ended. */
  #connect(): Promise<void> {
    const { random, envelope, filters, instance } = this.#options
    const { port, name } = instance()
    const query = new URLSearchParams(filters.map((filter): [string, string] => ['topic', filter]))
    if (envelope) query.set('envelope', 'true')
    this.connects++
    if (this.#lastId !== '') this.resumes++
    this.#note({ kind: 'connect', instance: name, lastId: this.#lastId })
    return new Promise(resolve => {
      const sent = request({
        host: '127.0.0.1',
        port,
        path: `/events?${query.toString()}`,
        headers: {
          accept: 'text/event-stream',
          ...(this.#lastId !== '' && { 'last-event-id': this.#lastId })
        },
        agent: false
      })
      this.#sent = sent
      const drop = setTimeout(
        () => {
          if (!this.steady) sent.destroy()
        },
        random.whole(100, 15_000)
      )
      sent.on('response', response => this.#read(response, sent))
      sent.on('error', error => this.#note({ kind: 'end', how: error.message }))
      sent.on('close', () => {
        clearTimeout(drop)
        resolve()
      })
      sent.end()
    })
  }

  #read(response: IncomingMessage, sent: ClientRequest): void {
    this.#note({ kind: 'status', status: response.statusCode! })
    if (response.statusCode !== 200) {
      sent.destroy()
      return
    }
    const parser = new StrictParser()
    response.on('data', (chunk: Buffer) => {
      try {
        for (const frame of parser.push(chunk)) this.#take(frame)
      } catch (error) {
        this.#note({ kind: 'broken', why: (error as Error).message })
        sent.destroy()
      }
    })
    response.on('end', () => {
      try {
        parser.end()
        this.#note({ kind: 'end', how: 'by the server' })
      } catch (error) {
        this.#note({ kind: 'broken', why: (error as Error).message })
      }
    })
    response.on('error', error => this.#note({ kind: 'end', how: error.message }))
  }

  #take({ id, event, data, retry }: Frame): void {
    if (retry !== undefined) this.#retry = retry
    if (id !== undefined) this.#lastId = id
    if (data === undefined) {
      if (id !== undefined) this.#note({ kind: 'moved', id })
      return
    }
    const value = JSON.parse(data) as Record<string, unknown>
    if (event === 'gap') {
      this.#note({ kind: 'gap', reason: String(value['reason']), topics: value['topics'] as string[] })
    } else if (event === 'goodbye') {
      this.#note({ kind: 'goodbye', reason: String(value['reason']) })
    } else if (id === undefined) {
      this.#note({ kind: 'broken', why: `no id: ${event ?? 'message'} ${data}` })
    } else if (event === 'cursor') {
      this.#note({ kind: 'cursor', id })
    } else {
      this.#takeEvent(id, value)
    }
  }

  #takeEvent(id: string, value: Record<string, unknown>): void {
    const { topic, n } = (this.#options.envelope ? value['data'] : value) as { topic: string; n: number }
    this.#note({ kind: 'event', id, topic, n })
    if (this.#options.envelope && (value['id'] !== id || value['topic'] !== topic)) {
      this.#note({
        kind: 'broken',
        why: `the envelope of ${id} says ${String(value['id'])}, ${String(value['topic'])}`
      })
    }
  }

  #note(what: Happening): void {
    this.log.push({ at: Date.now(), ...what })
  }
}
