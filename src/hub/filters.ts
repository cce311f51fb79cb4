import type { EventLog } from '../broker/event-log.ts'
import { furthest, wildcardOf } from '../event.ts'
import { Audience, type AudienceHub, type AudienceKind } from './audience.ts'
import { Watch } from './watch.ts'

/** How long a filter stays warm after its last subscriber left, in milliseconds: that one is about to come back. */
const LINGER_MS = 60_000

/** What the filters need of their hub. */
export interface FiltersHub extends AudienceHub {
  readonly log: EventLog
  readonly settings: AudienceHub['settings'] & { readonly RING_SIZE: number }
  /** Times a broker's answer. */
  timed<T>(op: string, answer: Promise<T>): Promise<T>
}

/** The filters that somebody here listens to, or did a moment ago, and the audiences that listen to them. */
export class Filters {
  readonly #hub: FiltersHub
  readonly #watches = new Map<string, Watch>()
  readonly #audiences = new Map<string, Audience>()

  constructor(hub: FiltersHub) {
    this.#hub = hub
  }

  /** Who has a session, live or not. */
  get audiences(): Iterable<Audience> {
    return this.#audiences.values()
  }

  get watches(): Iterable<Watch> {
    return this.#watches.values()
  }

  get(filter: string): Watch | undefined {
    return this.#watches.get(filter)
  }

  /** What each filter has lost when events of these topics or filters are gone: those themselves, and their wildcards. */
  losses(topics: readonly string[]): Map<Watch, string[]> {
    const losses = new Map<Watch, string[]>()
    for (const topic of topics) {
      for (const filter of new Set([topic, wildcardOf(topic)])) {
        const watch = this.#watches.get(filter)
        if (watch) append(losses, watch, topic)
      }
    }
    return losses
  }

  /** Counts a session into the audience of its kind, which it makes where there is none. */
  attach(kind: AudienceKind): Audience {
    const filters = [...new Set(kind.filters)].sort()
    const key = keyOf(kind, filters)
    const audience = this.#audiences.get(key) ?? this.#begin(kind, filters, key)
    audience.size++
    return audience
  }

  /** Counts a session out. */
  detach(audience: Audience): void {
    if (--audience.size > 0) return
    this.#audiences.delete(audience.key)
    for (const watch of audience.watches) {
      watch.listeners.delete(audience)
      if (watch.listeners.size > 0) continue
      this.#hub.metrics.topics.dec()
      watch.linger = this.#hub.clock.after(LINGER_MS, () => this.#unwatch(watch))
    }
  }

  #begin(kind: AudienceKind, filters: readonly string[], key: string): Audience {
    const watches = filters.map(filter => this.#watch(filter))
    const { format, packing, rate, heartbeat, snapshot } = kind
    // no more of it: a subscription also has what belongs to its connection, and an audience may outlive that
    const own: AudienceKind = { filters, format, packing, rate, heartbeat, snapshot }
    const audience = new Audience(this.#hub, own, watches, key)
    this.#audiences.set(key, audience)
    for (const watch of watches) {
      if (watch.listeners.size === 0) this.#hub.metrics.topics.inc()
      watch.listeners.add(audience)
    }
    return audience
  }

  #watch(filter: string): Watch {
    const kept = this.#watches.get(filter)
    kept?.linger?.cancel()
    if (kept) return kept
    const { log, settings } = this.#hub
    const subscribed = this.#hub.timed('subscribe', log.subscribe(filter))
    // what was handed on before the answer came, no ring has kept
    const base = subscribed.then(position => furthest(position, this.#hub.position))
    const watch = new Watch(filter, settings.RING_SIZE, topic => log.shardOf(topic), base)
    watch.ready.catch(() => {
      if (this.#watches.get(filter) === watch) this.#watches.delete(filter)
    })
    this.#watches.set(filter, watch)
    return watch
  }

  #unwatch(watch: Watch): void {
    const { filter, listeners } = watch
    // another may have taken its place, if its subscription had failed
    if (listeners.size > 0 || this.#watches.get(filter) !== watch) return
    this.#watches.delete(filter)
    this.#hub.log.unsubscribe(filter)
  }
}

function keyOf({ format, packing, rate, heartbeat, snapshot }: AudienceKind, filters: readonly string[]) {
  return JSON.stringify([format.key, packing.key, rate, heartbeat, snapshot, filters])
}

function append<K, V>(lists: Map<K, V[]>, key: K, value: V): void {
  const list = lists.get(key)
  if (list) list.push(value)
  else lists.set(key, [value])
}
