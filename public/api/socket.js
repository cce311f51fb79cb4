import { Received } from './received.js'

/** Asked of an empty field, for a beginning. */
export const EXAMPLE = '{"op":"subscribe","ref":1,"topics":["tickers/*"]}'

/** A connection to `/ws`, and what went and came on it. A browser lets no page send a header with it. */
export class Socket {
  received = new Received()
  #socket

  constructor(token) {
    const url = new URL('../ws', location.href)
    url.protocol = url.protocol.replace('http', 'ws')
    if (token) url.searchParams.set('token', token)
    this.#socket = new WebSocket(url, 'ringside.v1.json')
    let isOpen = false
    this.#socket.addEventListener('open', () => {
      isOpen = true
      this.#note('', 'connected')
    })
    this.#socket.addEventListener('message', ({ data }) => this.#note('from the server', data))
    this.#socket.addEventListener('close', ({ code, reason }) => {
      if (isOpen) this.received.end('ended', `${code} ${reason}`.trim())
      else this.received.end('broken', 'the server refused it, or can’t be reached; it may want a token')
    })
  }

  send(text) {
    if (this.#socket.readyState !== WebSocket.OPEN) return
    this.#socket.send(text)
    this.#note('to the server', text)
  }

  stop() {
    this.received.end('stopped')
    this.#socket.close()
  }

  #note(type, data) {
    this.received.add({ type, id: '', data })
  }
}
