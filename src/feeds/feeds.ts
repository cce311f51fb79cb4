import type { Broker } from '../broker/broker.ts'
import { formatCursor, type Position } from '../event.ts'

/** The built-in feeds: whose topics, `<feed>/<name>`, are written through them only. */
export const FEEDS = ['tickers', 'dashboards', 'notifications'] as const

export type Feed = (typeof FEEDS)[number]

/** The feed that a topic belongs to. */
export function feedOf(topic: string): Feed | undefined {
  return FEEDS.find(feed => topic === feed || topic.startsWith(`${feed}/`))
}

/**
 * The version of a topic's state, as text: a cursor for that topic. What it says of other shards is only that they are
 * as far as this.
 */
export function versionOf(
  broker: Pick<Broker, 'shards' | 'shardOf'>,
  topic: string,
  version: Position
): string {
  const shard = broker.shardOf(topic)
  return formatCursor(
    Array.from({ length: broker.shards }, (_, at) => (at === shard ? version : { ms: version.ms, seq: 0 }))
  )
}

/** Runs what changes one thing after what was begun before on it, so that they don't race each other here. */
export class Turns {
  readonly #last = new Map<string, Promise<unknown>>()

  run<T>(name: string, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(name) ?? Promise.resolve()
    const turn = before.then(work, work)
    const settled = turn.then(
      () => {},
      () => {}
    )
    this.#last.set(name, settled)
    void settled.then(() => {
      if (this.#last.get(name) === settled) this.#last.delete(name)
    })
    return turn
  }
}
