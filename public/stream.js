/** How long a stream may be silent before it counts as dead: three of the heartbeats that it asks for. */
export const HEARTBEAT_S = 5
export const SILENCE_MS = 3 * HEARTBEAT_S * 1000

/** How long to wait after an answer that ends an EventSource for good, such as a proxy's 502. */
const REFUSED_MS = 10_000

/** What the server says about the stream itself. */
const OWN_TYPES = ['cursor', 'gap', 'goodbye', 'heartbeat']

/**
 * An EventSource that always knows where it is. The browser's own reconnect sends `Last-Event-ID`, but a new
 * EventSource starts without one: so the last id is kept here and sent as `after`.
 *
 * `state`: connecting → open → dropped (until `until`, because of `reason`) → resuming → open …
 */
export class ResumingStream {
  state = 'connecting'
  lastEventId = ''
  reason = ''
  until = 0
  #query
  #types
  #listener
  #source
  #returning
  #deadline = Infinity

  /**
   * `query`: of /events, without a cursor. `types`: the event types to listen for.
   * Nothing happens before `open`. `listener`: `event(type, data, id)`, `opened()`, `gap(gap)`, `changed()`.
   */
  constructor(query, types, listener) {
    this.#query = query
    this.#types = types
    this.#listener = listener
    setInterval(() => this.#check(), 500)
  }

  /** Opens the stream, or opens it anew where it stopped. */
  open() {
    this.#source?.close()
    clearTimeout(this.#returning)
    const after = this.lastEventId ? [['after', this.lastEventId]] : []
    const query = new URLSearchParams([...this.#query, ['heartbeat', HEARTBEAT_S], ...after])
    this.#source = new EventSource(`events?${query}`)
    this.#deadline = Date.now() + SILENCE_MS
    for (const type of [...OWN_TYPES, ...this.#types]) {
      this.#source.addEventListener(type, event => this.#receive(event))
    }
    this.#source.addEventListener('error', () => this.#failed())
    this.#become(this.lastEventId ? 'resuming' : 'connecting')
  }

  /** Closes the stream, and opens it anew after so many milliseconds. */
  drop(reason, ms) {
    this.#source.close()
    clearTimeout(this.#returning)
    this.#deadline = Infinity
    this.#returning = setTimeout(() => this.open(), ms)
    this.#become('dropped', reason, ms)
  }

  #receive({ type, data, lastEventId }) {
    this.#deadline = Date.now() + SILENCE_MS
    // an event without an id of its own has that of the one before it
    if (lastEventId) this.lastEventId = lastEventId
    if (!OWN_TYPES.includes(type)) return this.#listener.event(type, data, lastEventId)
    const said = JSON.parse(data)
    if (type === 'cursor') {
      this.#become('open')
      this.#listener.opened()
    } else if (type === 'gap') {
      this.#listener.gap(said)
    } else if (type === 'heartbeat') {
      // a quiet stream's cursor stays young
      if (said.cursor) this.lastEventId = said.cursor
      this.#listener.changed()
    } else {
      // the browser comes back by itself, when the server asked it to
      this.#deadline += said.retry
      this.#become('dropped', `The server said goodbye (${said.reason})`, said.retry)
    }
  }

  #failed() {
    if (this.#source.readyState === EventSource.CLOSED) this.drop('The server refused the stream', REFUSED_MS)
    else if (this.state !== 'dropped') this.#become('resuming')
  }

  #check() {
    const now = Date.now()
    // a connection that died without a word looks open for ever
    if (now > this.#deadline) return this.open()
    if (this.state !== 'dropped') return
    if (now >= this.until) this.#become('resuming')
    else this.#listener.changed()
  }

  #become(state, reason = '', ms = 0) {
    this.state = state
    this.reason = reason
    this.until = Date.now() + ms
    this.#listener.changed()
  }
}
