import type { Append, Appended, EventLog, State } from '../broker/event-log.ts'
import { formatCursor, type Position } from '../event.ts'
import { Problem } from '../problem.ts'
import type { Admitted } from '../publisher.ts'

/**
 * The version of a topic's state, as text: a cursor for that topic. What it says of other shards is only that they are
 * as far as this.
 */
export function versionOf(
  log: Pick<EventLog, 'shards' | 'shardOf'>,
  topic: string,
  version: Position
): string {
  const shard = log.shardOf(topic)
  return formatCursor(
    Array.from({ length: log.shards }, (_, at) => (at === shard ? version : { ms: version.ms, seq: 0 }))
  )
}

/** How often a change is tried again when another instance was faster. Each time somebody's change was stored. */
const ATTEMPTS = 1000

/** An event, and its topic's state after it; null: it has none any more. */
export interface Change extends Omit<Append, 'topic' | 'state'> {
  readonly value: string | null
}

/** Changes of states: all are applied, one after the other, none lost. */
export class Changes {
  readonly #log: EventLog
  /** What was begun last on each topic: the next one waits for it, so that they don't race each other here. */
  readonly #last = new Map<string, Promise<unknown>>()

  constructor(log: EventLog) {
    this.#log = log
  }

  /**
   * Reads a topic's state, lets `decide` change it (null: leave it), and stores that if it is still what was read; if
   * not, all over again. `admitted`: what the publisher let in for this topic. Rejects with what `decide` throws, and as
   * `Admitted.append` does.
   */
  apply(
    topic: string,
    admitted: Admitted,
    decide: (state: State | null) => Change | null
  ): Promise<Appended | null> {
    const before = this.#last.get(topic) ?? Promise.resolve()
    const change = before.then(() => this.#apply(topic, admitted, decide))
    const settled = change.then(ignore, ignore)
    this.#last.set(topic, settled)
    void settled.then(() => {
      if (this.#last.get(topic) === settled) this.#last.delete(topic)
    })
    return change
  }

  async #apply(topic: string, admitted: Admitted, decide: (state: State | null) => Change | null) {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const state = await this.#log.state(topic)
      const change = decide(state)
      if (!change) return null
      const { value, ...event } = change
      const append = { topic, ...event, state: { value, version: state?.version ?? null } }
      const [appended] = await admitted.append([append])
      if (appended!.outcome !== 'conflict') return appended!
    }
    throw new Problem('unavailable', `${topic} changes too often`, [], 1)
  }
}

function ignore(): void {}
