import type { Clock, Timer } from '../clock.ts'
import { covers, type Cursor } from '../event.ts'
import type { Audience } from './audience.ts'
import type { Session } from './session.ts'

/** The sessions that can't read on at once, by what they wait for. Whoever can't proceed is not asked. */
export class Waiting {
  readonly #clock: Clock
  readonly #queues = new Map<Audience, Queue>()
  /** The broker's answer is under way. */
  readonly #reading = new Set<Session>()
  /** The broker gave no answer. */
  readonly #stranded = new Set<Session>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Everybody who waits. */
  get all(): Session[] {
    const waiting = [...this.#queues.values()].flatMap(({ waits }) => [...waits.keys()])
    return [...waiting, ...this.#reading, ...this.#stranded]
  }

  /** Waits for its audience to come as far as a cursor. */
  forCursor(session: Session, needs: Cursor, proceed: () => void): void {
    this.#queueOf(session.audience).waits.set(session, { needs, proceed, timer: null })
  }

  /** Waits for the next write of its conflated audience; at most so many milliseconds. */
  forWrite(session: Session, ms: number, proceed: () => void): void {
    const timer = this.#clock.after(ms, () => this.#take(session)?.proceed())
    this.#queueOf(session.audience).waits.set(session, { needs: null, proceed, timer })
  }

  /**
   * Waits for what is read for a session that catches up. Null when the broker gave no answer, which leaves the session
   * stranded until it is tried again; or when it catches up no longer.
   */
  async forAnswer<T>(session: Session, read: Promise<T>): Promise<T | null> {
    this.#reading.add(session)
    const answer = await read.catch(() => null)
    this.#reading.delete(session)
    if (session.state !== 'catching up') return null
    if (answer === null) this.#stranded.add(session)
    return answer
  }

  /** This process has come further: whose audience has come far enough proceeds. */
  moved(): void {
    for (const [audience, queue] of this.#queues) this.#proceed(audience, queue, false)
  }

  /** This conflated audience has written. */
  wrote(audience: Audience): void {
    const queue = this.#queues.get(audience)
    if (queue) this.#proceed(audience, queue, true)
  }

  /** Those whom the broker gave no answer: they are to be tried again, and wait no longer. */
  takeStranded(): Session[] {
    const stranded = [...this.#stranded]
    this.#stranded.clear()
    return stranded
  }

  /** A session waits no longer. */
  forget(session: Session): void {
    this.#reading.delete(session)
    this.#stranded.delete(session)
    // whoever awaits it sees that it has ended
    this.#take(session)?.proceed()
  }

  #proceed(audience: Audience, queue: Queue, hasWritten: boolean): void {
    const { cursor } = audience
    // who could not proceed at a cursor can't proceed at the same
    if (queue.checked === cursor && !hasWritten) return
    queue.checked = cursor
    const ready: Session[] = []
    for (const [session, { needs }] of queue.waits) {
      if (needs ? covers(cursor, needs) : hasWritten) ready.push(session)
    }
    for (const session of ready) this.#take(session)?.proceed()
  }

  #take(session: Session): Wait | undefined {
    const queue = this.#queues.get(session.audience)
    const wait = queue?.waits.get(session)
    if (!queue || !wait) return undefined
    wait.timer?.cancel()
    queue.waits.delete(session)
    if (queue.waits.size === 0) this.#queues.delete(session.audience)
    return wait
  }

  #queueOf(audience: Audience): Queue {
    let queue = this.#queues.get(audience)
    if (!queue) this.#queues.set(audience, (queue = { checked: null, waits: new Map() }))
    return queue
  }
}

interface Queue {
  /** Where the audience stood when it was last looked who can proceed. */
  checked: Cursor | null
  readonly waits: Map<Session, Wait>
}

interface Wait {
  /** How far its audience must have come; null for who waits for its write. */
  readonly needs: Cursor | null
  readonly timer: Timer | null
  proceed(): void
}
