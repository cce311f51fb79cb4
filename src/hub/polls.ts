import type { Page } from '../broker/event-log.ts'
import { covers, type Cursor, type Gap } from '../event.ts'
import type { CatchUp, CatchUpHub } from './catch-up.ts'
import { follow, type Delivery } from './delivery.ts'
import { isOver } from './ends.ts'
import { isBroken, takeBreaks } from './gaps.ts'
import {
  coldOf,
  heldPages,
  isCaughtUp,
  neededBy,
  readNewest,
  readPages,
  takePages,
  type Taken
} from './pages.ts'
import type { Session } from './session.ts'
import type { Waiting } from './waiting.ts'

/** What a client that polls is answered. */
export interface PollAnswer {
  readonly events: readonly Delivery[]
  /** Where the client stands once it has these. */
  readonly cursor: Cursor
  readonly gap: Gap | null
  /** Whether there is more to read at once. */
  readonly more: boolean
  /** Whether nothing comes any more: all topics have ended, and these are the last of their events. */
  readonly ended: boolean
}

/** Reads for those who poll: their sessions are opened, and not started. */
export class Polls {
  readonly #hub: CatchUpHub
  readonly #waiting: Waiting
  readonly #catchUp: CatchUp

  constructor(hub: CatchUpHub, waiting: Waiting, catchUp: CatchUp) {
    this.#hub = hub
    this.#waiting = waiting
    this.#catchUp = catchUp
  }

  /**
   * Reads at most `limit` events for a session, no more once these have `mostBytes`, and moves it past them. Rejects with
   * `BrokerUnavailable`.
   */
  async read(session: Session, limit: number, mostBytes = Infinity): Promise<PollAnswer> {
    const { progress } = session
    let found: readonly Delivery[] = []
    let count = 0
    let gap = session.gap
    while (session.state !== 'closed') {
      // what comes after a break is for the next page, where its gap is told first
      if (found.length > 0 && isBroken(this.#hub, session)) break
      gap = takeBreaks(this.#hub, session).at(-1) ?? gap
      const pages = await this.#nextPages(session).catch(unlessGone(session))
      if (!pages || isBroken(this.#hub, session)) continue
      const taken = takePages(this.#hub, session, pages)
      if (taken.gap && (found.length > 0 || (gap && gap.reason !== taken.gap.reason))) break
      if (taken.gap) gap = join(gap, taken.gap)
      found = [...withoutSuperseded(session, found, taken), ...deliveriesOf(session, taken)]
      const page = fitting(found, limit, mostBytes)
      count = page.count
      if (page.isFull || isCaughtUp(session)) break
    }
    const events = found.slice(0, count)
    const more = found.length > count || !isCaughtUp(session)
    if (found.length > count) progress.moveTo(events.at(-1)!.cursor)
    const { cursor } = progress
    return { events, cursor, gap, more, ended: !more && isOver(this.#hub, session.watches, cursor) }
  }

  /** What comes next; null when it had to wait for this process to come as far as its cursor. */
  async #nextPages(session: Session): Promise<readonly Page[] | null> {
    const { audience, progress, watches } = session
    const needs = neededBy(session)
    if (!covers(audience.cursor, needs)) {
      await new Promise<void>(resolve => this.#waiting.forCursor(session, needs, resolve))
      return null
    }
    if (audience.outlivesLosses) return readNewest(this.#hub.reads, session)
    const cold = coldOf(this.#hub, session)
    if (cold.length === 0) return heldPages(this.#hub, watches, progress.reached)
    return readPages(this.#hub, this.#hub.reads, session, cold)
  }

  /** Resolves once something has come for a session, or after `ms` milliseconds. It stands where it stood. */
  wait(session: Session, ms: number): Promise<void> {
    const before = session.progress.copy()
    return new Promise(resolve => {
      let isAwake = false
      const wake = (): void => {
        if (isAwake) return
        isAwake = true
        timer.cancel()
        if (session.state !== 'closed') {
          session.putBack(before)
          this.#waiting.forget(session)
        }
        resolve()
      }
      session.listen({ pending: 0, write: ({ length }) => void (length > 0 && wake()), end: wake })
      const timer = this.#hub.clock.after(ms, wake)
      this.#catchUp.serve(session)
    })
  }
}

/** Takes what a read fails with; throws it on unless the session has ended, which wants nothing any more. */
function unlessGone(session: Session): (error: unknown) => null {
  return error => {
    if (!session.isGone) throw error
    return null
  }
}

/** What a session is answered of these events, which moves it past them. */
function deliveriesOf(session: Session, { events, bound }: Taken): Delivery[] {
  const { progress } = session
  const { cursor } = progress
  progress.moveTo(bound)
  return follow(cursor, events)
}

/** What was found before; of a conflated session less what it is given something newer of now. */
function withoutSuperseded(
  { audience }: Session,
  found: readonly Delivery[],
  { events }: Taken
): readonly Delivery[] {
  if (audience.kind.rate === undefined || found.length === 0) return found
  const topics = new Set(events.map(({ topic }) => topic))
  return found.filter(({ event }) => !topics.has(event.topic))
}

/** How many of these go on a page of so many events and bytes, and whether there is no room for another one. */
function fitting(
  found: readonly Delivery[],
  limit: number,
  mostBytes: number
): { count: number; isFull: boolean } {
  let count = 0
  let bytes = 0
  while (count < Math.min(found.length, limit) && bytes < mostBytes) bytes += bytesOf(found[count++]!)
  return { count, isFull: count >= limit || bytes >= mostBytes }
}

/** What an event has on a page, about: its text may be longer there, as JSON or base64. */
function bytesOf({ event: { topic, data } }: Delivery): number {
  return topic.length + (typeof data === 'string' ? Buffer.byteLength(data) : data.length)
}

/** One gap for both. */
function join(gap: Gap | null, other: Gap): Gap {
  if (!gap) return other
  return { reason: gap.reason, topics: [...new Set([...gap.topics, ...other.topics])], after: gap.after }
}
