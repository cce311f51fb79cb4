/** So many are kept: whoever tries a stream reads the newest, and a ticker must not fill the memory of its tab. */
export const KEPT = 50
/** So much is kept of the data of each, in characters. */
const DATA_KEPT = 2000
/** Between two drawings, in milliseconds, however much comes. */
const DRAW_MS = 200

/** The newest of what came, newest first, and how it goes on: `open`, `stopped` (from here), `ended` or `broken`. */
export class Received {
  rows = []
  count = 0
  state = 'open'
  reason = ''
  /** Another number whenever there is something to draw. */
  version = 0
  #listeners = new Set()
  #telling

  add({ type, id, data }) {
    const text = data.length > DATA_KEPT ? `${data.slice(0, DATA_KEPT)}…` : data
    this.rows.unshift({ number: ++this.count, at: Date.now(), type, id, data: text })
    if (this.rows.length > KEPT) this.rows.length = KEPT
    this.#telling ??= setTimeout(this.#tell, DRAW_MS)
  }

  /** It goes on no more. What came first holds. */
  end(state, reason = '') {
    if (this.state !== 'open') return
    Object.assign(this, { state, reason })
    this.#tell()
  }

  /** As React's `useSyncExternalStore` has it. */
  subscribe = listener => {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  readVersion = () => this.version

  #tell = () => {
    clearTimeout(this.#telling)
    this.#telling = undefined
    this.version++
    for (const listener of this.#listeners) listener()
  }
}
