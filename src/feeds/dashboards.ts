import { stopIfGone, type Asker } from '../asker.ts'
import type { EventLog, State } from '../broker/event-log.ts'
import type { Position } from '../event.ts'
import { Problem } from '../problem.ts'
import { idOf, type Publication, type Publisher } from '../publisher.ts'
import { Shared } from '../shared.ts'
import { Turn } from '../turn.ts'
import { Changes, versionOf, type Change } from './feeds.ts'
import { mergePatch } from './merge-patch.ts'

/** A dashboard as it is: JSON of an object, and its version, which is a cursor on its topic. */
export interface Dashboard {
  readonly json: string
  readonly version: string
}

/** Whether a change may be made to what there is: what `If-Match` says, of its version; undefined where there is none. */
export type Precondition = (version: string | undefined) => boolean

/** Who changes a dashboard, and on which condition. */
export interface WriteOptions extends Partial<Pick<Publication, 'source' | 'writer'>> {
  readonly precondition?: Precondition | undefined
}

/** Dashboards: a JSON object each, and its changes, on `dashboards/<id>`. */
export class Dashboards {
  readonly #log: EventLog
  readonly #publisher: Publisher
  readonly #changes: Changes
  readonly #states = new Shared<State | null>()
  readonly #topics = new Shared<readonly string[]>()
  readonly #versions = new Shared<ReadonlyMap<string, Position>>()

  constructor(log: EventLog, publisher: Publisher) {
    this.#log = log
    this.#publisher = publisher
    this.#changes = new Changes(log)
  }

  /** Null for one that isn't there. Rejects with `BrokerUnavailable`, and with `Unwanted` once `asker` has gone. */
  async get(id: string, asker?: Asker): Promise<Dashboard | null> {
    const topic = topicOf(id)
    const state = await this.#states.read(topic, askers => this.#log.state(topic, askers), asker)
    return state && { json: state.value, version: this.#version(id, state.version) }
  }

  /** All of them that are `wanted`, by id. Rejects as `get` does. */
  async list(wanted: (id: string) => boolean, asker?: Asker): Promise<{ id: string; version: string }[]> {
    const all = await this.#topics.read('', askers => this.#log.topics(topicOf('*'), askers), asker)
    const turn = new Turn(asker)
    const isWanted = await turn.map(all, topic => wanted(nameOf(topic)))
    const topics = await turn.sort(
      all.filter((_, index) => isWanted[index]),
      (a, b) => (a < b ? -1 : 1)
    )
    stopIfGone(asker)
    const readVersions = (askers: Asker) => this.#log.versions(topics, askers)
    const versions = await this.#versions.read(topics.join(' '), readVersions, asker)
    const there = topics.filter(topic => versions.has(topic))
    return turn.map(there, topic => ({
      id: nameOf(topic),
      version: versionOf(this.#log, topic, versions.get(topic)!)
    }))
  }

  /** Replaces the whole object, or makes it. Rejects with a `Problem` (412, 413), and as `Publisher.admit` throws. */
  put(id: string, json: string, options: WriteOptions = {}) {
    return this.#change(id, options, () => ({ type: 'snapshot', data: json, value: json }))
  }

  /**
   * Applies a merge patch, an object as compact JSON. Concurrent ones are all applied, one after the other. Rejects as
   * `put`, and with 404.
   */
  patch(id: string, patch: string, options: WriteOptions = {}) {
    return this.#change(id, options, state => {
      if (!state) throw notThere(id)
      return { type: 'patch', data: patch, value: mergePatch(state.value, patch) }
    })
  }

  /** Ends it. Rejects as `patch` does. */
  async delete(id: string, options: WriteOptions = {}): Promise<void> {
    await this.#change(id, options, state => {
      if (!state) throw notThere(id)
      return { type: 'deleted', data: '{}', value: null }
    })
  }

  async #change(
    id: string,
    { precondition, source = 'dashboards', writer }: WriteOptions,
    decide: (state: State | null) => Change
  ): Promise<{ created: boolean; version: string }> {
    const topic = topicOf(id)
    const admitted = this.#publisher.admit([topic], { feed: 'dashboards', source, writer })
    let created = false
    const appended = await this.#changes.apply(topic, admitted, state => {
      this.#check(id, precondition, state)
      created = state === null
      const change = decide(state)
      const size = Buffer.byteLength(change.value ?? '')
      this.#publisher.checkSize(topic, size, () => '', `the dashboard ${id} would have`)
      return change
    })
    return { created, version: this.#version(id, idOf(appended!)[this.#log.shardOf(topic)]!) }
  }

  #check(id: string, precondition: Precondition | undefined, state: State | null): void {
    const version = state ? this.#version(id, state.version) : undefined
    if (!precondition || precondition(version)) return
    const has = version === undefined ? 'is not there' : `has the version ${version}`
    throw new Problem('precondition failed', `the dashboard ${id} ${has}`)
  }

  #version(id: string, version: Position): string {
    return versionOf(this.#log, topicOf(id), version)
  }
}

/** The topic of a dashboard. */
export function topicOf(id: string): string {
  return `dashboards/${id}`
}

function nameOf(topic: string): string {
  return topic.slice(topicOf('').length)
}

function notThere(id: string): Problem {
  return new Problem('not found', `there is no dashboard ${id}`)
}
