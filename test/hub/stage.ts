import { LocalRoster } from '../../src/broker/embedded/roster.ts'
import { formatCursor } from '../../src/event.ts'
import { Hub, type Subscription } from '../../src/hub/hub.ts'
import type { Session } from '../../src/hub/session.ts'
import type { Sink } from '../../src/hub/sink.ts'
import type { Memory } from '../../src/memory.ts'
import { Metrics } from '../../src/metrics.ts'
import { Rules, type Rule } from '../../src/rules/rules.ts'
import { wakeUp } from '../../src/wire/page.ts'
import { plain } from '../../src/wire/packing.ts'
import { sse } from '../../src/wire/sse.ts'
import { HeldClock } from '../support/clock.ts'
import { StrictParser, type Frame } from '../support/sse-parser.ts'
import { HeldLog } from './held-log.ts'

const metrics = new Metrics('test')

/** Where a session's bytes go: kept as they were written, and read. */
export class Probe implements Sink {
  pending = 0
  /** Whether what is written stays in the connection. */
  slow = false
  ended = false
  session!: Session
  readonly writes: Buffer[] = []
  readonly frames: Frame[] = []
  readonly #parser = new StrictParser()

  write(bytes: Buffer): void {
    this.writes.push(bytes)
    this.frames.push(...this.#parser.push(bytes))
    if (this.slow) this.pending += bytes.length
  }

  end(): void {
    this.ended = true
  }

  drain(): void {
    this.slow = false
    this.pending = 0
    this.session.drained()
  }

  /** The data of the events, in order. */
  get data(): string[] {
    return this.frames
      .filter(({ event, data, id }) => !event && data !== undefined && id)
      .map(({ data }) => data!)
  }

  /** What came besides events: `cursor 1-0`, `gap expired a`, `id 1-0`, `heartbeat 1-0`, `goodbye shutdown`. */
  get notes(): string[] {
    return this.frames.flatMap(({ event, data, id, retry }) => {
      if (event === undefined) return []
      // only what a stream begins with says when to come back
      if (event === 'cursor' && retry === undefined) return [`id ${id}`]
      const body = JSON.parse(data!) as { cursor?: string; reason?: string; topics?: string[] }
      return [[event, body.reason ?? body.cursor, ...(body.topics ? [body.topics.join()] : [])].join(' ')]
    })
  }

  /** Everything that came, in order: events by their data. */
  get told(): string[] {
    const notes = this.notes
    return this.frames.map(({ event, data }) =>
      event === undefined && data !== undefined ? data : notes.shift()!
    )
  }
}

/** A hub over a broker that is held, and what plays on it. */
export class Stage {
  readonly clock = new HeldClock()
  readonly log: HeldLog
  readonly hub: Hub
  readonly metrics = metrics
  #count = 0

  private constructor(settings: Partial<StageSettings>, memory?: Memory) {
    const all = { ...DEFAULTS, ...settings }
    this.log = new HeldLog(all, this.clock)
    this.hub = new Hub(
      this.log,
      new LocalRoster(),
      all,
      this.clock,
      metrics,
      memory,
      new Rules(all, all.rules)
    )
  }

  /** `memory`: what the hub counts in. */
  static async begin(settings: Partial<StageSettings> = {}, memory?: Memory): Promise<Stage> {
    const stage = new Stage(settings, memory)
    await stage.log.start(stage.hub)
    return stage
  }

  /** Stores events, whose data is counted up from 1, and answers with their ids. */
  async publish(...topics: string[]): Promise<string[]> {
    const results = await this.log.append(
      topics.map(topic => ({ topic, type: 'message', data: `${++this.#count}` }))
    )
    return results.map(result => {
      if (result.outcome !== 'stored') throw new Error(result.outcome)
      return formatCursor(result.id)
    })
  }

  /** What is on its way arrives. */
  flow(): Promise<void> {
    return this.log.flow()
  }

  /** Opens a stream, which starts as soon as the broker's answers are let through. */
  ask(
    filters: string | string[],
    subscription: Partial<Subscription> = {},
    probe = new Probe()
  ): Promise<Probe> {
    return this.hub
      .open({ format: sse(false), packing: plain, ...subscription, filters: [filters].flat() })
      .then(session => {
        probe.session = session
        session.start(probe)
        return probe
      })
  }

  /** The same, with all the answers that it needs. */
  async open(
    filters: string | string[],
    subscription: Partial<Subscription> = {},
    probe?: Probe
  ): Promise<Probe> {
    const asked = this.ask(filters, subscription, probe)
    asked.catch(() => {}) // whoever awaits it hears of it
    await this.flow()
    return asked
  }

  /** Asks for one page; with `wait`, held until there is something or the time is over. */
  async poll(
    filters: string | string[],
    { limit = 100, wait = 0, ...subscription }: Partial<Subscription> & { limit?: number; wait?: number } = {}
  ): Promise<Answer> {
    const session = await this.hub.open({
      ...subscription,
      format: wakeUp,
      packing: plain,
      filters: [filters].flat()
    })
    let reading = await this.hub.read(session, limit)
    if (wait > 0 && reading.events.length === 0 && !reading.gap) {
      await this.hub.wait(session, wait)
      reading = await this.hub.read(session, limit)
    }
    session.close('answered')
    const { events, gap, more, cursor } = reading
    return {
      data: events.map(({ event }) => String(event.data)),
      gap: gap && `${gap.reason} ${gap.topics.join()} after ${gap.after}`,
      more,
      cursor: formatCursor(cursor)
    }
  }

  /** The text of the position that the store has reached. */
  get last(): string {
    return formatCursor(this.log.last)
  }
}

/** What a client that polls is answered. */
export interface Answer {
  data: string[]
  gap: string | null
  more: boolean
  cursor: string
}

export interface StageSettings {
  HEARTBEAT: number
  RETRY: number
  RING_SIZE: number
  RING_TTL: number
  SEND_BUFFER: number
  rules?: readonly Rule[]
}

const DEFAULTS: StageSettings = {
  HEARTBEAT: 15_000,
  RETRY: 2000,
  RING_SIZE: 1000,
  RING_TTL: 86_400_000,
  SEND_BUFFER: 262_144
}
