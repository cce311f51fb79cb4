import { isWildcard, wildcardOf } from '../../event.ts'

/** A value for each topic, and which topics each wildcard covers. */
export class TopicIndex<Value> {
  readonly #values = new Map<string, Value>()
  /** The topics that each wildcard covers; none is empty. */
  readonly #covered = new Map<string, Set<string>>()

  get(topic: string): Value | undefined {
    return this.#values.get(topic)
  }

  /** All topics with their values. A topic may be deleted during the iteration. */
  get entries(): Iterable<[topic: string, value: Value]> {
    return this.#values
  }

  set(topic: string, value: Value): void {
    this.#values.set(topic, value)
    const wildcard = wildcardOf(topic)
    const topics = this.#covered.get(wildcard) ?? new Set<string>()
    this.#covered.set(wildcard, topics.add(topic))
  }

  delete(topic: string): void {
    this.#values.delete(topic)
    const wildcard = wildcardOf(topic)
    const topics = this.#covered.get(wildcard)
    topics?.delete(topic)
    if (topics?.size === 0) this.#covered.delete(wildcard)
  }

  /** The topics that a filter covers, with their values. */
  *matching(filter: string): Generator<[topic: string, value: Value]> {
    for (const topic of this.#topicsOf(filter)) yield [topic, this.#values.get(topic)!]
  }

  #topicsOf(filter: string): Iterable<string> {
    if (isWildcard(filter)) return this.#covered.get(filter) ?? []
    return this.#values.has(filter) ? [filter] : []
  }
}
