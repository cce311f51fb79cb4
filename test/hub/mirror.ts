import type { Position } from '../../src/event.ts'
import type { Session } from '../../src/hub/session.ts'
import type { Frame } from '../support/sse-parser.ts'
import type { Logged } from './held-broker.ts'
import { Connection, compare, position, text, type Model, type Moment, type Request } from './reader.ts'

/**
 * Mirrors the state of one topic, as a dashboard's page does: a snapshot, then each change. Whenever it is told an id,
 * what it has must be what the store had at that id.
 */
export class Mirror extends Connection {
  readonly #topic: string
  readonly #birth: Position
  /** The state, null when there is none; undefined when nothing has come yet. */
  #value: string | null | undefined
  #reached: Position = { ms: 0, seq: 0 }
  /** Before this nothing is checked: it was told of an end that lies ahead of its cursor. */
  #ended: Position = { ms: 0, seq: 0 }

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

  override finish(last: Position): void {
    if (this.session?.state !== 'live') throw new Error(`is ${this.session?.state} at the end`)
    this.#holds(last, 'the end')
  }

  protected override read(frame: Frame): void {
    if (frame.event === 'snapshot') this.#value = frame.data!
    else if (frame.event === 'deleted') this.#end()
    else if (frame.event === 'gap') throw new Error(`a gap, which a snapshot should answer: ${frame.data}`)
    else if (frame.event === undefined && frame.data !== undefined)
      this.#change(position(frame.id), frame.data)
    if (frame.event === 'heartbeat') {
      const { cursor } = JSON.parse(frame.data!) as { cursor: string }
      this.#holds(position(cursor), `a heartbeat at ${cursor}`)
    }
    if (frame.id === undefined) return
    const id = position(frame.id)
    if (compare(id, this.#reached) < 0) throw new Error(`${frame.id} lies before ${text(this.#reached)}`)
    this.#reached = id
    this.#holds(id, `id ${frame.id}`)
  }

  /** There is no state, as of the last time that it ended: what came before that is still told, and changes nothing. */
  #end(): void {
    this.#value = null
    const ended = this.#last((_, value) => value === null)
    if (ended) this.#ended = ended.id
  }

  #change(id: Position, data: string): void {
    const event = this.model.log.find(logged => compare(logged.id, id) === 0)
    if (event?.topic !== this.#topic || event.data !== data)
      throw new Error(`${text(id)} is not what was stored`)
    if (compare(id, this.#reached) <= 0) throw new Error(`${text(id)} comes after ${text(this.#reached)}`)
    this.delivered++
    if (compare(id, this.#ended) <= 0) return
    this.#is(stateOf(this.#last(id => compare(id, event.id) < 0)), `before the change ${text(id)}`)
    this.#value = stateOf(event)
  }

  #holds(cursor: Position, what: string): void {
    if (compare(cursor, this.#ended) < 0) return
    this.#is(stateOf(this.#last(id => compare(id, cursor) <= 0)), what)
  }

  /** The last event of the topic, in this life of the store, of which that is true. */
  #last(is: (id: Position, value: Logged['value']) => boolean): Logged | undefined {
    const { birth, log } = this.model
    return log.findLast(
      ({ topic, id, value }) => topic === this.#topic && compare(id, birth) > 0 && is(id, value)
    )
  }

  #is(value: string | null, what: string): void {
    // an emptied store takes its states along, which a live page is not told
    if (compare(this.model.birth, this.#birth) > 0) return
    if (this.#value !== value) throw new Error(`${what}: has the state ${this.#value}, not ${value}`)
  }
}

/** A topic's state once an event was stored. */
export function stateOf(event: Logged | undefined): string | null {
  return event?.value ?? null
}
