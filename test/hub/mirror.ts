import { comparePositions, covers, formatCursor, type Cursor } from '../../src/event.ts'
import type { Session } from '../../src/hub/session.ts'
import type { Frame } from '../support/sse-parser.ts'
import type { Logged } from './held-log.ts'
import { Connection, isAfter, type Model, type Moment, type Request } from './reader.ts'

/**
 * Mirrors the state of one topic, as a dashboard's page does: a snapshot, then each change. Whenever it is told an id,
 * what it has must be what the store had at that id.
 */
export class Mirror extends Connection {
  readonly #topic: string
  readonly #birth: Cursor
  /** The state, null when there is none; undefined when nothing has come yet. */
  #value: string | null | undefined
  #reached: Cursor | undefined
  /** Before this nothing is checked: it was told of an end that lies ahead of its cursor. */
  #ended: Logged | undefined

  /** `value` is what the client had when it came with a cursor. */
  constructor(model: Model, request: Request, value: string | null | undefined) {
    super(model, request)
    this.#topic = request.filters[0]!
    this.#birth = model.birth
    this.#value = value
  }

  override begin(session: Session, _: Moment): void {
    this.session = session
    session.start(this)
  }

  override finish(last: Cursor): void {
    if (this.session?.state !== 'live') throw new Error(`is ${this.session?.state} at the end`)
    this.#holds(last, 'the end')
  }

  protected override read(frame: Frame): void {
    if (frame.event === 'snapshot') this.#value = frame.data!
    else if (frame.event === 'deleted') this.#end()
    else if (frame.event === 'gap') throw new Error(`a gap, which a snapshot should answer: ${frame.data}`)
    else if (frame.event === undefined && frame.data !== undefined)
      this.#change(this.cursor(frame.id), frame.data)
    if (frame.event === 'heartbeat') {
      const { cursor } = JSON.parse(frame.data!) as { cursor: string }
      this.#holds(this.cursor(cursor), `a heartbeat at ${cursor}`)
    }
    if (frame.id === undefined) return
    const id = this.cursor(frame.id)
    if (this.#reached && !covers(id, this.#reached))
      throw new Error(`${frame.id} lies before ${formatCursor(this.#reached)}`)
    this.#reached = id
    this.#holds(id, `id ${frame.id}`)
  }

  /** There is no state, as of the last time that it ended: what came before that is still told, and changes nothing. */
  #end(): void {
    this.#value = null
    this.#ended = this.#last(({ value }) => value === null) ?? this.#ended
  }

  #change(at: Cursor, data: string): void {
    const event = this.model.log.find(logged => logged.topic === this.#topic && logged.data === data)
    const id = formatCursor(at)
    if (!event || comparePositions(event.id, at[event.shard]!) !== 0)
      throw new Error(`${id} is not what was stored`)
    if (!isAfter(event, this.#reached!)) throw new Error(`${id} comes after ${formatCursor(this.#reached!)}`)
    this.delivered++
    if (this.#ended && comparePositions(event.id, this.#ended.id) <= 0) return
    this.#is(stateOf(this.#last(({ id }) => comparePositions(id, event.id) < 0)), `before the change ${id}`)
    this.#value = stateOf(event)
  }

  #holds(cursor: Cursor, what: string): void {
    if (this.#ended && isAfter(this.#ended, cursor)) return
    this.#is(stateOf(this.#last(event => !isAfter(event, cursor))), what)
  }

  /** The last event of the topic, in this life of the store, of which that is true. */
  #last(is: (event: Logged) => boolean): Logged | undefined {
    const { birth, log } = this.model
    return log.findLast(event => event.topic === this.#topic && isAfter(event, birth) && is(event))
  }

  #is(value: string | null, what: string): void {
    // an emptied store takes its states along, which a live page is not told
    if (!covers(this.#birth, this.model.birth)) return
    if (this.#value !== value) throw new Error(`${what}: has the state ${this.#value}, not ${value}`)
  }
}

/** A topic's state once an event was stored. */
export function stateOf(event: Logged | undefined): string | null {
  return event?.value ?? null
}
