import { RingsideError } from './error.ts'
import type { Said } from './messages.ts'

/** How many requests may be without an answer at a time: what has waited for a connection must not look like a flood. */
const WINDOW = 16

/** How many may wait for their turn. */
const WAITING = 1000

/** How long nothing is sent when the server says that it was too much, in milliseconds. */
const HOLD_MS = 1000

/** How long a publish may be sent again with its key, in milliseconds: the server remembers it for 10 minutes. */
const KEY_MS = 9 * 60_000

/** Whether a request is sent again: `never`, for as long as this connection lives, or `always`. */
type Again = 'never' | 'here' | 'always'

interface Request {
  readonly text: string
  readonly again: Again
  readonly done: (said: Said) => void
  readonly failed: (error: RingsideError) => void
  isSent: boolean
  /** Tells for how many milliseconds it has been sent; undefined for never. */
  age: (() => number) | undefined
}

/**
 * Tells how many milliseconds have passed: at least so many as either clock says. The one that measures may stand still
 * while the machine sleeps, and the time of day may be set back; too much does no harm here, and too little does.
 */
function stopwatch(): () => number {
  const [measured, day] = [performance.now(), Date.now()]
  return () => Math.max(performance.now() - measured, Date.now() - day)
}

/** What lasts longer than a connection: somebody may wait until the server has taken it for the first time. */
export interface Lasting {
  settle: ((error?: RingsideError) => void) | undefined
}

/** What is asked of the server, and has no answer yet. */
export class Requests {
  /** In the order in which they are to be sent. */
  readonly #requests = new Map<number, Request>()
  #socket: WebSocket | undefined
  #isClosed = false
  #ref = 0
  /** How many requests may be without an answer; fewer once that was too much for the server. */
  #window = WINDOW
  /** Runs while nothing is to be sent, because it was too much. */
  #hold: ReturnType<typeof setTimeout> | undefined

  get isConnected(): boolean {
    return this.#socket !== undefined
  }

  /** There is a connection. `first` asks for what comes before all that waits. */
  begin(socket: WebSocket, first: () => void): void {
    const waiting = [...this.#requests]
    this.#requests.clear()
    this.#window = WINDOW
    this.#socket = socket
    first()
    for (const [ref, request] of waiting) this.#requests.set(ref, request)
    this.#send()
  }

  /** The connection is lost. What is not sent again fails. */
  lose(): void {
    this.#socket = undefined
    clearTimeout(this.#hold)
    this.#hold = undefined
    for (const [ref, request] of this.#requests) {
      request.isSent = false
      if (request.again === 'here') this.#requests.delete(ref)
      if (request.again === 'never')
        this.#fail(ref, new RingsideError('unavailable', 'the connection was lost'))
    }
  }

  /** Everything fails with this, and what is asked from now on with `closed`. */
  close(error: RingsideError): void {
    this.#isClosed = true
    for (const ref of [...this.#requests.keys()]) this.#fail(ref, error)
    clearTimeout(this.#hold)
  }

  /** Resolves with the answer; rejects with a `RingsideError`. */
  ask(message: object, again: Again): Promise<Said> {
    return new Promise((resolve, reject) => this.request(message, again, resolve, reject))
  }

  /** Asks for the end of something that ends with the connection as well. */
  giveUp(message: object): Promise<void> {
    return new Promise((resolve, reject) => {
      const failed = (error: RingsideError) => (error.code === 'unavailable' ? resolve() : reject(error))
      this.request(message, 'never', () => resolve(), failed)
    })
  }

  /** Begins something that lasts; resolves once it is settled. */
  taken(lasting: Lasting, begin: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#isClosed) throw new RingsideError('closed', 'the connection is closed')
      lasting.settle = error => (error ? reject(error) : resolve())
      begin()
    })
  }

  /** `done` is called in the turn of the answer: what comes right after it already belongs to what it has begun. */
  request(message: object, again: Again, done: Request['done'], failed: Request['failed']): void {
    const refuse = (code: string, why: string) => failed(new RingsideError(code, why))
    if (this.#isClosed) return refuse('closed', 'the connection is closed')
    if (again === 'never' && !this.#socket) return refuse('unavailable', 'there is no connection')
    if (this.#requests.size >= WAITING) return refuse('unavailable', 'too much waits already')
    const ref = ++this.#ref
    const text = JSON.stringify({ ...message, ref })
    this.#requests.set(ref, { text, again, done, failed, isSent: false, age: undefined })
    this.#send()
  }

  /** The server has said something that may be an answer. */
  receive(said: Said): void {
    const { ref = 0, op } = said
    const request = this.#requests.get(ref)
    if (!request) return
    if (op === 'error') return this.#refused(ref, request, said)
    this.#requests.delete(ref)
    request.done(said)
    this.#send()
  }

  /** A message was too big for the server: it must be the biggest of those without an answer, and would be again. */
  failBiggest(why: string): void {
    const sent = [...this.#requests].filter(([, { isSent }]) => isSent)
    const [biggest] = sent.sort(([, one], [, other]) => other.text.length - one.text.length)
    if (biggest) this.#fail(biggest[0], new RingsideError('too_large', why))
  }

  /** Sends what waits, in its order, as far as it may. */
  #send(): void {
    if (!this.#socket || this.#hold) return
    let window = this.#window
    for (const [ref, request] of this.#requests) {
      if (window-- === 0) return
      if (request.isSent) continue
      if (request.age && request.age() > KEY_MS) {
        this.#fail(ref, new RingsideError('unavailable', 'there was no answer in time'))
        continue
      }
      request.isSent = true
      request.age ??= stopwatch()
      this.#socket.send(request.text)
    }
  }

  #fail(ref: number, error: RingsideError): void {
    const request = this.#requests.get(ref)
    this.#requests.delete(ref)
    request?.failed(error)
  }

  #refused(ref: number, request: Request, { code, message }: Said): void {
    if (request.again === 'never' || (code !== 'rate_limited' && code !== 'unavailable')) {
      this.#fail(ref, new RingsideError(code, message))
      return this.#send()
    }
    request.isSent = false
    if (this.#hold) return
    this.#window = Math.ceil(this.#window / 2)
    this.#hold = setTimeout(() => {
      this.#hold = undefined
      this.#send()
    }, HOLD_MS)
  }
}
