import { addressOf, type State, type Why } from './reconnect.ts'
import { mayRead, Stream, type Listener, type Step, type StreamOptions } from './stream.ts'
import { Timer } from './timer.ts'

/** What the leader tells the other tabs: a step, and where it stands. */
interface Message extends Step {
  /** Grows from one leader to the next. */
  readonly epoch: number
  readonly state: State
  readonly why?: Why | undefined
}

/** What a new tab asks: where the leader is. */
type Question = 'where?'

/** What a tab tells a leader that it does not follow: the epoch that it knows. */
type Known = number

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
 *
 * The leader may be another user, where cookies say who it is: so a tab takes nothing from it before the server has let
 * this one read the same. And a page that goes into the back-forward cache does nothing any more, though it may come
 * back: it lets go of all that others would wait for.
 */
export class Tabs {
  cursor: string | undefined
  state: State = 'connecting'
  readonly #topics: readonly string[]
  readonly #options: StreamOptions
  readonly #listener: Listener
  readonly #name: string
  #channel!: BroadcastChannel
  /** Aborted when the page goes; undefined while it is gone. */
  #visit: AbortController | undefined
  readonly #closing = new AbortController()
  #stream: Stream | undefined
  #leads = false
  /** Whether another tab has come since this one is here: whoever leads has heard of all that are there. */
  #hasCompany = false
  /** Lets the lock go. */
  #resign: () => void = () => {}
  /** The leader that is followed. */
  #epoch = 0
  /** What was heard of it since this tab is out of step. */
  #heard: Message[] = []
  /** Undefined until the leader was heard. */
  #inStep: boolean | undefined
  /** Whether the server has let this tab read, since it is here. */
  #mayFollow = false
  readonly #alone = new Timer()

  constructor(topics: readonly string[], options: StreamOptions, listener: Listener) {
    this.#topics = topics
    this.#options = options
    this.#listener = listener
    this.cursor = options.after || undefined
    const { rate, rewind, since, types, token, headers, withCredentials } = options
    const { href } = addressOf('events', options.url)
    // whoever would be told something else has another leader
    this.#name = JSON.stringify([
      ...['ringside 2', href, [...topics].sort(), rate, rewind, since],
      ...[types, token, headers, withCredentials]
    ])
    this.#enter()
    const { signal } = this.#closing
    globalThis.addEventListener?.('pagehide', () => this.#leave(), { signal })
    globalThis.addEventListener?.('pageshow', () => this.#enter(), { signal })
  }

  get #isOver(): boolean {
    return this.state === 'ended' || this.state === 'closed'
  }

  /** Ends it for this tab; nothing more is told here. */
  close(): void {
    this.#end('closed')
  }

  #end(state: 'ended' | 'closed'): void {
    this.state = state
    this.#leave()
    this.#closing.abort()
  }

  // --- the page comes and goes ---

  #enter(): void {
    if (this.#visit) return
    const { signal } = (this.#visit = new AbortController())
    this.#become('connecting')
    this.#channel = new BroadcastChannel(this.#name)
    this.#channel.onmessage = ({ data }: MessageEvent<Message | Question | Known>) => this.#hear(data)
    this.#channel.postMessage('where?' satisfies Question)
    this.#expect(FOLLOW_MS)
    const turn = navigator.locks.request(this.#name, { signal }, () => this.#lead())
    turn.catch(() => {}) // gone before it has come
    void this.#prove(signal)
  }

  #leave(): void {
    this.#visit?.abort()
    this.#visit = undefined
    this.#alone.stop()
    this.#stream?.close()
    this.#stream = undefined
    this.#channel.close()
    this.#leads = this.#hasCompany = this.#mayFollow = false
    this.#inStep = undefined
    this.#heard = []
    this.#resign()
  }

  /** Asks whether this tab may read; if not, a stream of its own is told why. */
  async #prove(signal: AbortSignal): Promise<void> {
    const may = await mayRead(this.#topics, this.#options, signal).catch(() => false)
    if (signal.aborted) return
    this.#mayFollow ||= may
    if (!may) this.#expect(0)
    else if (this.#heard.length > 0) this.#follow()
  }

  // --- the leader ---

  /** Leads for as long as the promise is pending. */
  #lead(): Promise<void> | undefined {
    if (!this.#visit) return
    this.#alone.stop()
    this.#leads = true
    // greater than that of every leader before, as far as is known here: who knows better says so
    this.#epoch = Math.max(this.#epoch + 1, Date.now())
    this.#stream ??= this.#open()
    this.#say()
    return new Promise(resolve => (this.#resign = resolve))
  }

  /** A step, or where it stands. Nothing, to nobody: a tab that is alone would pay for each event. */
  #say(step: Step = { from: this.cursor, to: this.cursor }, why?: Why, state = this.state): void {
    if (!this.#leads || !this.#hasCompany) return
    this.#channel.postMessage({ ...step, epoch: this.#epoch, state, why } satisfies Message)
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
          this.#mayFollow = true
          this.#follow()
        },
        state: (state, why) => {
          if (state === 'closed') {
            this.close()
            return this.#listener.state(state, why)
          }
          // others are told before it leaves
          if (state === 'ended') this.#say(undefined, why, state)
          this.#become(state, why)
          this.#say(undefined, why)
        }
      }
    )
  }

  /** Serves itself, unless the leader is heard in time (milliseconds). */
  #expect(ms: number): void {
    this.#alone.start(ms, () => {
      this.#inStep = false
      this.#stream ??= this.#open()
    })
  }

  // --- the others ---

  #hear(said: Message | Question | Known): void {
    this.#hasCompany = true
    if (said === 'where?') return this.#say()
    if (typeof said === 'number') return this.#outdo(said)
    if (this.#leads) return
    // what a former leader has said may come late; or the clock of a new one was set back
    if (said.epoch < this.#epoch) return this.#channel.postMessage(this.#epoch satisfies Known)
    if (said.epoch > this.#epoch) this.#heard = []
    this.#epoch = said.epoch
    // who wants nothing of what was begins where the leader is
    const { rewind, since } = this.#options
    if (!rewind && !since && ['live', 'polling'].includes(said.state)) this.cursor ??= said.from
    this.#heard.push(said)
    if (this.#heard.length > KEPT) this.#heard.shift()
    this.#follow()
  }

  /** Another tab knows of a leader that this one would not outlive. */
  #outdo(epoch: Known): void {
    if (!this.#leads || epoch <= this.#epoch) return
    this.#epoch = epoch + 1
    this.#say()
  }

  /** Takes the leader's steps from where this tab is, if it is in step. */
  #follow(): void {
    if (!this.#visit || this.#leads || !this.#mayFollow) return
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
    for (let step = heard[next]; step && step.from === this.cursor && this.#visit; step = heard[++next]) {
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
    if (this.#isOver || (this.state === state && !why)) return
    if (state === 'ended') this.#end(state)
    else this.state = state
    this.#listener.state(state, why)
  }
}
