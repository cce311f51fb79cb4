import type { Append, Broker, State } from '../broker/broker.ts'
import type { Position } from '../event.ts'
import { Problem } from '../problem.ts'
import { idOf, type Publisher, type Source } from '../publisher.ts'
import { Turns, versionOf } from './feeds.ts'
import { mergePatch, type Json } from './merge-patch.ts'

/** How often a change is tried again when others were faster. Each time somebody's change was stored. */
const ATTEMPTS = 1000

/** A dashboard as it is: JSON of an object, and its version, which is a cursor on its topic. */
export interface Dashboard {
  readonly json: string
  readonly version: string
}

/** Whether a change may be made to what there is: what `If-Match` says, of its version; undefined where there is none. */
export type Precondition = (version: string | undefined) => boolean

/** Dashboards: a JSON object each, and its changes, on `dashboards/<id>`. */
export class Dashboards {
  readonly #broker: Broker
  readonly #publisher: Publisher
  readonly #maxBytes: number
  readonly #turns = new Turns()

  constructor(broker: Broker, publisher: Publisher, maxBytes: number) {
    this.#broker = broker
    this.#publisher = publisher
    this.#maxBytes = maxBytes
  }

  async get(id: string): Promise<Dashboard | null> {
    const state = await this.#broker.state(topicOf(id))
    return state && { json: state.value, version: this.#version(id, state.version) }
  }

  async list(): Promise<{ id: string; version: string }[]> {
    const topics = await this.#broker.topics('dashboards/*')
    const ids = topics.map(topic => topic.slice('dashboards/'.length)).sort()
    const found = await Promise.all(ids.map(async id => ({ id, dashboard: await this.get(id) })))
    return found.flatMap(({ id, dashboard }) => (dashboard ? [{ id, version: dashboard.version }] : []))
  }

  /** Replaces the whole object, or makes it. Throws a `Problem` (412, 413). */
  put(id: string, json: string, precondition?: Precondition, source: Source = 'dashboards') {
    return this.#change(id, precondition, source, () => ({ type: 'snapshot', data: json, value: json }))
  }

  /** Applies a merge patch. Concurrent ones are all applied, one after the other. Throws a `Problem` (404, 412, 413). */
  patch(id: string, patch: Json, precondition?: Precondition, source: Source = 'dashboards') {
    return this.#change(id, precondition, source, state => {
      if (!state) throw notThere(id)
      const value = JSON.stringify(mergePatch(JSON.parse(state.value) as Json, patch))
      return { type: 'patch', data: JSON.stringify(patch), value }
    })
  }

  /** Ends it. Throws a `Problem` (404, 412). */
  async delete(id: string, precondition?: Precondition): Promise<void> {
    await this.#change(id, precondition, 'dashboards', state => {
      if (!state) throw notThere(id)
      return { type: 'deleted', data: '{}', value: null }
    })
  }

  /** Reads, changes, and stores if it is still what was read; again when another was faster. */
  #change(id: string, precondition: Precondition | undefined, source: Source, change: Change) {
    const topic = topicOf(id)
    return this.#turns.run(topic, async () => {
      for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
        const state = await this.#broker.state(topic)
        const version = state ? this.#version(id, state.version) : undefined
        if (precondition && !precondition(version)) {
          throw new Problem(
            'precondition failed',
            `the dashboard ${id} has the version ${version ?? 'none: it is not there'}`
          )
        }
        const { type, data, value } = change(state)
        this.#checkSize(id, value ?? '')
        const append: Append = { topic, type, data, state: { value, version: state?.version ?? null } }
        const [appended] = await this.#publisher.publish([append], source)
        if (appended!.outcome !== 'conflict')
          return {
            created: !state,
            version: this.#version(id, idOf(appended!)[this.#broker.shardOf(topic)]!)
          }
      }
      throw new Problem('unavailable', `the dashboard ${id} changes too often`, [], 1)
    })
  }

  #checkSize(id: string, value: string): void {
    const size = Buffer.byteLength(value)
    if (size <= this.#maxBytes) return
    throw new Problem(
      'too large',
      `the dashboard ${id} would have ${size} bytes; at most ${this.#maxBytes} are allowed`
    )
  }

  #version(id: string, version: Position): string {
    return versionOf(this.#broker, topicOf(id), version)
  }
}

type Change = (state: State | null) => { type: string; data: string; value: string | null }

function topicOf(id: string): string {
  return `dashboards/${id}`
}

function notThere(id: string): Problem {
  return new Problem('not found', `there is no dashboard ${id}`)
}
