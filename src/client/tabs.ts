import { addressOf, type State, type Why } from './reconnect.ts'
import { Stream, type Listener, type Step, type StreamOptions } from './stream.ts'

/** What the leader tells the other tabs: a step, and where it stands. */
interface Message extends Step {
  /** Grows from one leader to the next. */
  readonly epoch: number
  readonly state: State
  readonly why?: Why | undefined
}

/** What a new tab asks: where the leader is. */
type Question = 'where?'

/** How long a tab waits for a leader that it could follow before it serves itself, in milliseconds. */
const FOLLOW_MS = 1000

/** How long the leader may be silent, in milliseconds, however often it has a heartbeat: a poll takes its time. */
const SILENCE_MS = 45_000

/** How many messages a tab keeps that is out of step. */
const KEPT = 1000

/**
 * One connection for all tabs with the same subscription. A Web Lock elects the leader: it holds the stream, and hands
 * every step on through a BroadcastChannel. A tab is in step when its cursor is the one that a step starts from: then it
 * takes the step. Cursors are opaque, so a tab can't know whether another one lies before or after its own: out of step
 * (it came with a cursor of its own, or missed something), it serves itself by a stream of its own, until its cursor is
 * one that the leader has passed since; what the leader has told after that is what it misses.
 */
export class Tabs {
  cursor: string | undefined
  state: State = 'connecting'
  readonly #topics: readonly string[]
  readonly #options: StreamOptions
  readonly #listener: Listener
  readonly #channel: BroadcastChannel
  readonly #closing = new AbortController()
  #stream: Stream | undefined
  #leads = false
  /** Lets the lock go. */
  #resign: () => void = () => {}
  /** The leader that is followed. */
  #epoch = 0
  /** What was heard of it since this tab is out of step. */
  #heard: Message[] = []
  /** Undefined until the leader was heard. */
  #inStep: boolean | undefined
  #alone: ReturnType<typeof setTimeout> | undefined

  constructor(topics: readonly string[], options: StreamOptions, listener: Listener) {
    this.#topics = topics
    this.#options = options
    this.#listener = listener
    this.cursor = options.after || undefined
    const { rate, rewind, since, types, token, headers, withCredentials } = options
    const { href } = addressOf('events', options.url)
    // whoever would be told something else has another leader
    const name = JSON.stringify([
      ...['ringside 1', href, [...topics].sort(), rate, rewind, since],
      ...[types, token, headers, withCredentials]
    ])
    this.#channel = new BroadcastChannel(name)
    this.#channel.onmessage = ({ data }: MessageEvent<Message | Question>) => this.#hear(data)
    this.#channel.postMessage('where?' satisfies Question)
    this.#expect(FOLLOW_MS)
    const turn = navigator.locks.request(name, { signal: this.#closing.signal }, () => this.#lead())
    turn.catch(() => {}) // closed before it has come
  }

  get #isClosed(): boolean {
    return this.state === 'closed'
  }

  /** Ends it for this tab; nothing more is told here. */
  close(): void {
    this.state = 'closed'
    clearTimeout(this.#alone)
    this.#stream?.close()
    this.#channel.close()
    this.#closing.abort()
    this.#resign()
  }

  // --- the leader ---

  /** Leads for as long as the promise is pending. */
  #lead(): Promise<void> | undefined {
    if (this.#isClosed) return
    clearTimeout(this.#alone)
    this.#leads = true
    // greater than that of every leader before, also where this tab has heard of none
    this.#epoch = Math.max(this.#epoch + 1, Date.now())
    this.#stream ??= this.#open()
    this.#say()
    return new Promise(resolve => (this.#resign = resolve))
  }

  /** A step, or where it stands. */
  #say(step: Step = { from: this.cursor, to: this.cursor }, why?: Why): void {
    if (!this.#leads || this.#isClosed) return
    this.#channel.postMessage({ ...step, epoch: this.#epoch, state: this.state, why } satisfies Message)
  }

  // --- a stream of its own ---

  #open(): Stream {
    const { cursor: after } = this
    this.#become('connecting')
    return new Stream(
      this.#topics,
      { ...this.#options, after },
      {
        step: step => {
          this.#say(step)
          this.#take(step)
          if (!this.#leads) this.#follow()
        },
        state: (state, why) => {
          if (state === 'closed') {
            this.close()
            return this.#listener.state(state, why)
          }
          this.#become(state, why)
          this.#say(undefined, why)
        }
      }
    )
  }

  /** Serves itself, unless the leader is heard in time (milliseconds). */
  #expect(ms: number): void {
    clearTimeout(this.#alone)
    this.#alone = setTimeout(() => {
      this.#inStep = false
      this.#stream ??= this.#open()
    }, ms)
  }

  // --- the others ---

  #hear(said: Message | Question): void {
    if (said === 'where?') return this.#say()
    // what a former leader has said may come late
    if (this.#leads || said.epoch < this.#epoch) return
    if (said.epoch > this.#epoch) this.#heard = []
    this.#epoch = said.epoch
    // who wants nothing of what was begins where the leader is
    const { rewind, since } = this.#options
    if (!rewind && !since && ['live', 'polling'].includes(said.state)) this.cursor ??= said.from
    this.#heard.push(said)
    if (this.#heard.length > KEPT) this.#heard.shift()
    this.#follow()
  }

  /** Takes the leader's steps from where this tab is, if it is in step. */
  #follow(): void {
    if (this.#isClosed) return
    const first = this.#heard.findIndex(({ from }) => from === this.cursor)
    if (first < 0 && this.#heard.at(-1)?.to !== this.cursor) {
      // it may be about to come to where this tab is, if both have followed the same one before
      if (this.#inStep !== false) this.#expect(this.#inStep ? FOLLOW_MS : 0)
      this.#inStep = false
      return
    }
    this.#inStep = true
    this.#stream?.close()
    this.#stream = undefined
    this.#expect(Math.max(SILENCE_MS, 2500 * (this.#options.heartbeat ?? 0)))
    const heard = this.#heard
    let next = first < 0 ? heard.length : first
    for (let step = heard[next]; step && step.from === this.cursor && !this.#isClosed; step = heard[++next]) {
      this.#take(step)
      this.#become(step.state, step.why)
    }
    this.#heard = heard.slice(next)
    // what follows doesn't follow: something was missed between
    if (this.#heard.length > 0) this.#follow()
  }

  // --- both ---

  #take(step: Step): void {
    this.cursor = step.to
    this.#listener.step(step)
  }

  #become(state: State, why?: Why): void {
    if (this.#isClosed || (this.state === state && !why)) return
    this.state = state
    this.#listener.state(state, why)
  }
}
