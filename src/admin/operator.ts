import type { EventLog } from '../broker/event-log.ts'
import { isOperators, isTopic } from '../event.ts'
import { Problem, wrong } from '../problem.ts'
import { comparePlaces, formatPlace, type ConnectionQuery, type ConnectionRow } from './connections.ts'
import type { Asked, Exchange, InstanceName } from './exchange.ts'
import type { InstanceReport } from './instance.ts'
import type { GapNote, RefusalNote } from './recent.ts'
import type { InForce } from './settings.ts'
import type { Answers, Question } from './teller.ts'
import { together, type TopicRow } from './watches.ts'

/** The most gaps, and the most refusals, that are told at once. */
const MOST_TROUBLE = 500

/** What every answer says: which instances it does not tell of, because they did not answer in time. */
export interface Unanswered {
  readonly unanswered: readonly InstanceName[]
}

/** Something that happened on an instance. */
type On<T> = T & { readonly instance: string }

/** Is told of each act, and of who did it. */
export type ActLog = (act: string, by: string | null, what: Readonly<Record<string, unknown>>) => void

export interface OperatorOptions {
  readonly exchange: Exchange
  readonly log: Pick<EventLog, 'clear'>
  readonly noteAct: ActLog
}

/** What who operates the server may know and do: of all instances together. */
export class Operator {
  readonly #options: OperatorOptions

  constructor(options: OperatorOptions) {
    this.#options = options
  }

  // --- what there is ---

  async instances(): Promise<Unanswered & { readonly instances: readonly InstanceReport[] }> {
    const { answers, unanswered } = await this.#ask({ what: 'instance' })
    const instances = answers.map(({ value }) => value).sort((a, b) => a.started - b.started)
    return { instances, unanswered }
  }

  /** A page of the connections, the oldest first. */
  async connections(query: ConnectionQuery): Promise<
    Unanswered & {
      readonly connections: readonly ConnectionRow[]
      /** How many there are on all pages. */
      readonly total: number
      /** What the next page comes after; null where there is none. */
      readonly next: string | null
    }
  > {
    const { limit } = query
    // one more says whether there is another page
    const question = { what: 'connections' as const, query: { ...query, limit: limit + 1 } }
    const { answers, unanswered } = await this.#ask(question)
    const all = answers.flatMap(({ value }) => value.rows).sort(comparePlaces)
    const connections = all.slice(0, limit)
    const last = connections.at(-1)
    const total = answers.reduce((sum, { value }) => sum + value.total, 0)
    return { connections, total, next: last && all.length > limit ? formatPlace(last) : null, unanswered }
  }

  /** The busiest of what is listened to. `total`: the most that any instance has. */
  async topics(
    limit: number
  ): Promise<Unanswered & { readonly topics: readonly TopicRow[]; readonly total: number }> {
    const { answers, unanswered } = await this.#ask({ what: 'topics', limit })
    const topics = together(answers.flatMap(({ value }) => value.rows))
    const total = Math.max(topics.length, ...answers.map(({ value }) => value.total))
    return { topics: topics.slice(0, limit), total, unanswered }
  }

  /** What went wrong for clients lately, the newest first. */
  async gaps(): Promise<
    Unanswered & { readonly gaps: readonly On<GapNote>[]; readonly refusals: readonly On<RefusalNote>[] }
  > {
    const { answers, unanswered } = await this.#ask({ what: 'gaps' })
    const of = <T extends { readonly time: number }>(
      take: (recent: Answers['gaps']) => readonly T[]
    ): On<T>[] =>
      answers
        .flatMap(({ instance, value }) => take(value).map(note => ({ instance: instance.id, ...note })))
        .sort((a, b) => b.time - a.time)
        .slice(0, MOST_TROUBLE)
    return { gaps: of(({ gaps }) => gaps), refusals: of(({ refusals }) => refusals), unanswered }
  }

  /** What is in force: once for all instances that have the same. */
  async settings(): Promise<
    Unanswered & { readonly inForce: readonly (InForce & { readonly instances: readonly string[] })[] }
  > {
    const { answers, unanswered } = await this.#ask({ what: 'settings' })
    const groups = new Map<string, InForce & { instances: string[] }>()
    for (const { instance, value } of answers) {
      const text = JSON.stringify(value)
      const known = groups.get(text)
      if (known) known.instances.push(instance.id)
      else groups.set(text, { instances: [instance.id], ...value })
    }
    return { inForce: [...groups.values()], unanswered }
  }

  // --- what can be done ---

  /** Ends a connection, in a way from which its client comes back. Rejects with a `Problem` where there is none. */
  async disconnect(id: string, by: string | null): Promise<{ readonly disconnected: number }> {
    const [instance = ''] = id.split('.')
    const disconnected = await this.#askOne(instance, { what: 'disconnect', id }, noConnection(id))
    if (disconnected === 0) throw noConnection(id)
    this.#options.noteAct('disconnect', by, { connection: id })
    return { disconnected }
  }

  /** The same of all connections of a user. Rejects with a `Problem` for a name that nobody can have. */
  async disconnectUser(
    user: string,
    by: string | null
  ): Promise<Unanswered & { readonly disconnected: number }> {
    if (user === '') throw new Problem('not found', 'nobody has an empty name')
    const { answers, unanswered } = await this.#ask({ what: 'disconnect', user })
    const disconnected = answers.reduce((sum, { value }) => sum + value, 0)
    this.#options.noteAct('disconnect user', by, { user, disconnected, unanswered })
    return { disconnected, unanswered }
  }

  /**
   * Lets go of all events of a topic and of its state: whoever has not had them is told a gap. Rejects with a `Problem` for
   * a topic that is none or not known, and with `BrokerUnavailable`.
   */
  async clear(topic: string, by: string | null): Promise<Unanswered & { readonly topic: string }> {
    if (!isTopic(topic)) throw wrong('malformed', 'topic', `${JSON.stringify(topic)} is not a topic`)
    const upTo = isOperators(topic) ? null : await this.#options.log.clear(topic)
    if (!upTo) throw noTopic(topic)
    const { unanswered } = await this.#ask({ what: 'clear', topic, upTo })
    this.#options.noteAct('clear topic', by, { topic, unanswered })
    return { topic, unanswered }
  }

  /** Drains an instance. Rejects with a `Problem` where there is none. */
  async drain(
    id: string,
    by: string | null
  ): Promise<{ readonly instance: string; readonly draining: true }> {
    const draining = await this.#askOne(id, { what: 'drain' }, noInstance(id))
    this.#options.noteAct('drain', by, { instance: id })
    return { instance: id, draining }
  }

  #ask<Q extends Question>(question: Q): Promise<Asked<Answers[Q['what']]>> {
    return this.#options.exchange.ask(question)
  }

  /** The answer of one instance. Rejects with `missing` where there is no such instance. */
  async #askOne<Q extends Question>(id: string, question: Q, missing: Problem): Promise<Answers[Q['what']]> {
    const { answers, unanswered } = await this.#options.exchange.ask<Answers[Q['what']]>(question, id)
    const [answer] = answers
    if (answer) return answer.value
    if (unanswered.length === 0) throw missing
    throw new Problem('unavailable', `the instance ${id} does not answer`, [], 1)
  }
}

export function noConnection(id: string): Problem {
  return new Problem('not found', `there is no connection ${JSON.stringify(id)}`)
}

export function noInstance(id: string): Problem {
  return new Problem('not found', `there is no instance ${JSON.stringify(id)}`)
}

export function noTopic(topic: string): Problem {
  return new Problem('not found', `nothing is known of the topic ${JSON.stringify(topic)}`)
}
