import { isWildcard, wildcardOf } from '../../event.ts'

/** A value for each topic, and which topics each wildcard covers. */
export class TopicIndex<Value> {
  readonly #values = new Map<string, Value>()
  /** The topics under each wildcard. */
  readonly #families = new Map<string, Set<string>>()

  get(topic: string): Value | undefined {
    return this.#values.get(topic)
  }

  /** All topics, with their values. A topic may be deleted while they are gone through. */
  get entries(): Iterable<[topic: string, value: Value]> {
    return this.#values
  }

  set(topic: string, value: Value): void {
    this.#values.set(topic, value)
    const family = wildcardOf(topic)
    const topics = this.#families.get(family) ?? new Set<string>()
    this.#families.set(family, topics.add(topic))
  }

  delete(topic: string): void {
    this.#values.delete(topic)
    const family = wildcardOf(topic)
    const topics = this.#families.get(family)
    topics?.delete(topic)
    if (topics?.size === 0) this.#families.delete(family)
  }

  /** The topics that a filter covers, with their values. */
  *matching(filter: string): Generator<[topic: string, value: Value]> {
    for (const topic of isWildcard(filter) ? (this.#families.get(filter) ?? []) : [filter]) {
      const value = this.#values.get(topic)
      if (value !== undefined) yield [topic, value]
    }
  }
}
