import { StringDecoder } from 'node:string_decoder'
import type { ClientHttp2Session } from 'node:http2'
import type { Readable } from 'node:stream'
import { constants, createGunzip } from 'node:zlib'
import { parser } from '../../client/transports.ts'
import { Fault, LeftOut } from './faults.ts'
import { isRingside, type Answer, type Version, type Way } from './way.ts'

/** An event that came, and when, in milliseconds by the clock that measures. */
export interface Frame {
  readonly type: string
  readonly data: string
  readonly id: string | undefined
  readonly at: number
}

/** How to listen. */
export interface ListeningOptions {
  /** Of the request: `heartbeat=1`, for instance. */
  readonly query?: string
  /** Default: the way's. */
  readonly topic?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly version?: Version
  readonly session?: ClientHttp2Session
}

/** How long its first event may take then: it comes together with the head. */
const FIRST_MS = 2000

/** A stream, as it comes. */
export class Listening {
  readonly head: Pick<Answer, 'status' | 'headers'>
  /** When the head came, by the clock that measures. */
  readonly openedAt = performance.now()
  readonly frames: Frame[] = []
  /** When it ended by another will than ours, by the clock that measures. */
  endedAt: number | undefined
  readonly #body: Readable
  #isClosed = false
  readonly #waiting = new Set<() => void>()

  /**
   * Opens one; resolves with the head. Rejects where there is none, or it is no stream, and with `LeftOut` where Ringside
   * itself doesn't want to.
   */
  static async open(way: Way, options: ListeningOptions = {}): Promise<Listening> {
    const { query = '', topic, headers, ...rest } = options
    const answer = await way.openStream({
      path: way.eventsPath(query, topic),
      headers: { accept: 'text/event-stream', 'cache-control': 'no-cache', ...headers },
      ...rest
    })
    const type = answer.headers['content-type'] ?? ''
    if (answer.status === 200 && type.startsWith('text/event-stream')) return new Listening(answer)
    answer.body.destroy()
    if (isRingside(answer) && [429, 503].includes(answer.status))
      throw new LeftOut(`Ringside itself answers ${answer.status} now`)
    throw new Error(`a stream was answered ${answer.status}, ${type || 'without a type'}`)
  }

  private constructor({ body, ...head }: Answer) {
    this.head = head
    this.#body = body
    const parse = parser((type, data, id) => this.frames.push({ type, data, id, at: performance.now() }))
    const decoder = new StringDecoder('utf8')
    const plain = head.headers['content-encoding'] === 'gzip' ? unpacked(body) : body
    plain.on('data', (bytes: Buffer) => {
      parse(decoder.write(bytes))
      this.#wake()
    })
    for (const over of ['end', 'error', 'close']) {
      plain.on(over, () => {
        if (!this.#isClosed) this.endedAt ??= performance.now()
        this.#wake()
      })
    }
  }

  /**
   * Resolves with the first event. Rejects where none comes, and with `LeftOut` where Ringside has turned it away: it tells
   * an EventSource so in a stream.
   */
  async begin(): Promise<Frame> {
    const has = await this.until(() => this.frames.length > 0, FIRST_MS)
    this.checkServed()
    if (has) return this.frames[0]!
    throw new Fault(`a stream has begun, and nothing came on it for ${FIRST_MS / 1000} s`, 'buffering')
  }

  /** Throws `LeftOut` where Ringside has ended the stream, or turned it away: it says so. */
  checkServed(): void {
    const goodbye = this.frames.find(({ type }) => type === 'goodbye')
    if (goodbye) throw new LeftOut(`Ringside itself has ended a stream: ${goodbye.data}`)
  }

  /** Resolves with whether it became true in so many milliseconds, of what had come by then. */
  until(condition: () => boolean, ms: number): Promise<boolean> {
    return new Promise(resolve => {
      const look = () => {
        if (condition()) done(true)
        else if (this.endedAt !== undefined) done(false)
      }
      const timer = setTimeout(() => done(condition()), ms)
      const done = (answer: boolean) => {
        clearTimeout(timer)
        this.#waiting.delete(look)
        resolve(answer)
      }
      this.#waiting.add(look)
      look()
    })
  }

  close(): void {
    this.#isClosed = true
    this.#body.destroy()
  }

  #wake(): void {
    for (const look of [...this.#waiting]) look()
  }
}

/** What can be read of it is given at once. */
function unpacked(body: Readable): Readable {
  const gunzip = createGunzip({ flush: constants.Z_SYNC_FLUSH, finishFlush: constants.Z_SYNC_FLUSH })
  body.on('error', () => gunzip.destroy())
  body.on('close', () => gunzip.destroy())
  return body.pipe(gunzip)
}
