import { WebSocket } from 'ws'
import { ok, wrong, type Check, type Outcome } from './check.ts'
import { LeftOut } from './faults.ts'
import type { Way } from './way.ts'

/** How long an answer may take, in milliseconds. */
const ANSWER_MS = 4000

/** What a server says on a WebSocket. */
export type Said = Readonly<Record<string, unknown>> & { readonly op: string }

/** How a handshake was refused. */
class Refused extends Error {
  readonly status: number

  constructor(status: number) {
    super(`the handshake was answered ${status}`)
    this.status = status
  }
}

/** A WebSocket to the server, and what was said on it. */
export class Talk {
  readonly #socket: WebSocket
  readonly #said: Said[] = []
  /** When it ended by another will than ours, by the clock that measures, and with which close code. */
  ended: { readonly at: number; readonly code: number } | undefined
  #wake: () => void = () => {}

  /** Opens one as a page of this origin would. */
  static async open(way: Way, origin: string): Promise<Talk> {
    const { token, ca } = way.options
    const address = way.address('ws')
    address.protocol = way.isSecure ? 'wss:' : 'ws:'
    const socket = new WebSocket(address, 'ringside.v1.json', {
      origin,
      handshakeTimeout: ANSWER_MS,
      ...(token !== undefined && { headers: { authorization: `Bearer ${token}` } }),
      ...(ca && { ca })
    })
    way.onClose(() => socket.terminate())
    const talk = new Talk(socket)
    await new Promise<void>((resolve, reject) => {
      socket.on('open', resolve)
      socket.on('unexpected-response', (request, response) => {
        reject(new Refused(response.statusCode ?? 0))
        request.destroy()
      })
      socket.on('error', reject)
      socket.on('close', () => reject(new Error('it was cut before it was open')))
    })
    return talk
  }

  private constructor(socket: WebSocket) {
    this.#socket = socket
    socket.on('message', data => {
      this.#said.push(JSON.parse((data as Buffer).toString()) as Said)
      this.#wake()
    })
    socket.on('close', code => {
      this.ended ??= { at: performance.now(), code }
      this.#wake()
    })
  }

  /** Sends a message; resolves with its answer. */
  async ask(op: string, more: Readonly<Record<string, unknown>> = {}): Promise<Said> {
    this.#socket.send(JSON.stringify({ op, ref: op, ...more }))
    const answer = await this.hear(said => said['ref'] === op)
    if (answer) return answer
    throw new Error(`it is open, and a message was not answered within ${ANSWER_MS / 1000} s`)
  }

  /** Resolves with what was said, or is within so many milliseconds; else with undefined. */
  hear(isIt: (said: Said) => boolean, ms = ANSWER_MS): Promise<Said | undefined> {
    return new Promise(resolve => {
      const done = () => {
        clearTimeout(timer)
        this.#wake = () => {}
        resolve(this.#said.find(isIt))
      }
      const timer = setTimeout(done, ms)
      this.#wake = () => {
        if (this.ended || this.#said.some(isIt)) done()
      }
      this.#wake()
    })
  }

  /** Cuts it, as a client that loses its network. */
  cut(): void {
    this.#socket.terminate()
  }
}

/** Whether a page of the server's own origin can open a WebSocket, and one of the page that is named. */
export const websocket: Check = {
  name: 'WebSocket',
  needs: [],
  async run(way) {
    for (const origin of [way.origin, way.options.pageOrigin]) {
      const fault = origin === undefined ? undefined : await faultOf(way, origin)
      if (fault) return fault
    }
    return ok(`a page of ${way.options.pageOrigin ?? way.origin} can open one, and it answers`)
  }
}

async function faultOf(way: Way, origin: string): Promise<Outcome | undefined> {
  try {
    const talk = await Talk.open(way, origin)
    await talk.ask('ping').finally(() => talk.cut())
    return undefined
  } catch (error) {
    if (!(error instanceof Refused)) throw error
    const { status } = error
    if (status === 401) throw new LeftOut('Ringside asks for a token', { cause: error })
    if (status === 403 && origin !== way.origin)
      return wrong(`a page of ${origin} is refused (403): CORS_ORIGIN has another`, 'origins')
    if (status === 403)
      return wrong(`Ringside doesn't know that a page of ${origin} is its own, and answers 403`, 'origin')
    return wrong(`/ws is answered ${status}: the upgrade to WebSocket doesn't come through`, 'websocket')
  }
}
