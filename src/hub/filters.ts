import type { EventLog } from '../broker/event-log.ts'
import { furthest, textBytes, wildcardOf, type Cursor } from '../event.ts'
import type { Memory, Reliever } from '../memory.ts'
import type { BrokerOp } from '../metrics.ts'
import type { Rules } from '../rules/rules.ts'
import { Audience, type AudienceHub, type AudienceKind } from './audience.ts'
import { Watch } from './watch.ts'

/** How long a filter stays warm after its last subscriber left, in milliseconds: that one is about to come back. */
const LINGER_MS = 60_000

/** How many filters stay warm at most: past it, the one that has had no subscriber for longest is given up. */
const MOST_WARM = 1000

/** What a filter takes besides its name and its events, with its audience, in bytes: measured. */
const FILTER_BYTES = 3000

/** What the filters need of their hub. */
export interface FiltersHub extends AudienceHub {
  readonly memory: Memory
  readonly log: EventLog
  readonly rules: Rules
  /** Times a broker's answer. */
  timed<T>(op: BrokerOp, answer: Promise<T>): Promise<T>
}

/** The filters that somebody here listens to, or did a moment ago, and the audiences that listen to them. */
export class Filters implements Reliever {
  readonly #hub: FiltersHub
  readonly #watches = new Map<string, Watch>()
  readonly #audiences = new Map<string, Audience>()
  /** Those that are kept warm, the one first that has had no subscriber for longest. */
  readonly #warm = new Set<Watch>()
  /** Bytes of events that are held by the rings alone, and of the filters that are kept warm. */
  #spare = 0

  constructor(hub: FiltersHub) {
    this.#hub = hub
    hub.memory.onShortage(this)
    hub.rules.onChange(() => this.#resize())
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

  /** The first of some filters that can't have another subscriber here, and how many it may have; undefined for none. */
  fullOf(filters: readonly string[]): { filter: string; most: number } | undefined {
    for (const filter of filters) {
      const most = this.#hub.rules.mostSubscribers(filter)
      if (most !== Infinity && this.subscribersOf(filter) >= most) return { filter, most }
    }
    return undefined
  }

  /** How many streams and subscriptions listen to a filter: who listens to a wildcard listens to each of its topics. */
  subscribersOf(filter: string): number {
    const names = new Set([filter, wildcardOf(filter)])
    return [...names].reduce((sum, name) => sum + (this.#watches.get(name)?.subscribers ?? 0), 0)
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

  /**
   * Counts a session into the audience of its kind, which it makes where there is none. A `brief` session takes one answer:
   * it leaves no filter warm. Throws `MemoryFull` where there is no room for its filters.
   */
  attach(kind: AudienceKind, brief = false): Audience {
    const filters = kind.filters.length === 1 ? kind.filters : [...new Set(kind.filters)].sort()
    const key = keyOf(kind, filters)
    const audience = this.#audiences.get(key) ?? this.#begin(kind, filters, key)
    audience.size++
    if (!brief) for (const watch of audience.watches) watch.isWarm = true
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
      this.#leave(watch)
    }
  }

  /** Lets go of what is too old by a time, in milliseconds since the epoch. */
  expire(now: number): void {
    for (const watch of this.#watches.values()) this.#expireOf(watch, now)
  }

  #expireOf(watch: Watch, now: number): void {
    watch.dropBefore(now - this.#hub.rules.over(watch.filter).shortest)
  }

  #resize(): void {
    for (const watch of this.#watches.values()) watch.resize(this.#hub.rules.over(watch.filter).ring)
  }

  /** Lets go of events up to a position. */
  dropTo(position: Cursor): void {
    for (const watch of this.#watches.values()) watch.dropTo(position)
  }

  /** Gives up the filters that nobody listens to: of what they missed, nobody would read whether their topics have ended. */
  giveUpWarm(): void {
    for (const watch of this.#warm) this.#unwatch(watch)
  }

  get spare(): number {
    return this.#spare
  }

  /** Gives up filters that are kept warm; then the older events of the rings, which are read from the broker again. */
  relieve(bytes: number): void {
    const { memory } = this.#hub
    const enough = memory.sum - bytes
    for (const watch of this.#warm) {
      if (memory.sum <= enough) return
      this.#unwatch(watch)
    }
    while (memory.sum > enough && this.#spare > 0) {
      for (const watch of this.#watches.values()) if (memory.sum > enough) watch.halve()
    }
  }

  #begin(kind: AudienceKind, filters: readonly string[], key: string): Audience {
    const watches = this.#watchAll(filters)
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

  #watchAll(filters: readonly string[]): Watch[] {
    const watches: Watch[] = []
    try {
      for (const filter of filters) watches.push(this.#watch(filter))
      return watches
    } catch (error) {
      for (const watch of watches) if (watch.listeners.size === 0) this.#leave(watch)
      throw error
    }
  }

  #watch(filter: string): Watch {
    const kept = this.#watches.get(filter)
    if (kept) {
      this.#cool(kept)
      return kept
    }
    const { log, memory, rules } = this.#hub
    memory.take('filters', bytesOf(filter))
    const subscribed = this.#hub.timed('subscribe', log.subscribe(filter))
    // what was handed on before the answer came, no ring has kept
    const begun = subscribed.then(({ position, end }) => ({
      position: furthest(position, this.#hub.position),
      end
    }))
    const watch = new Watch(
      filter,
      rules.over(filter).ring,
      topic => log.shardOf(topic),
      begun,
      bytes => this.#count(bytes)
    )
    watch.ready.catch(() => this.#remove(watch))
    this.#watches.set(filter, watch)
    return watch
  }

  /** Nobody listens to a filter any more: it is kept warm, if somebody may come back. */
  #leave(watch: Watch): void {
    if (!watch.isWarm) return this.#unwatch(watch)
    watch.linger = this.#hub.clock.after(LINGER_MS, () => this.#unwatch(watch))
    this.#warm.add(watch)
    this.#spare += bytesOf(watch.filter)
    const [longest] = this.#warm
    if (this.#warm.size > MOST_WARM) this.#unwatch(longest!)
  }

  /** A filter is no longer among those that are kept warm. */
  #cool(watch: Watch): void {
    watch.linger?.cancel()
    if (this.#warm.delete(watch)) this.#spare -= bytesOf(watch.filter)
  }

  #unwatch(watch: Watch): void {
    if (this.#remove(watch)) this.#hub.log.unsubscribe(watch.filter)
  }

  /** False where another has taken its place, as its subscription had failed. */
  #remove(watch: Watch): boolean {
    const { filter } = watch
    this.#cool(watch)
    if (this.#watches.get(filter) !== watch) return false
    this.#watches.delete(filter)
    this.#hub.memory.give('filters', bytesOf(filter))
    watch.end()
    return true
  }

  /** Counts events that the rings hold, unless they are the log's own: then it has counted them. */
  #count(bytes: number): void {
    if (this.#hub.log.heldAfter) return
    this.#hub.memory.add('events', bytes)
    this.#spare += bytes
  }
}

function keyOf({ format, packing, rate, heartbeat, snapshot }: AudienceKind, filters: readonly string[]) {
  // nothing of it holds a line end
  return `${format.key}\n${packing.key}\n${rate}\n${heartbeat}\n${snapshot}\n${filters.join('\n')}`
}

function bytesOf(filter: string): number {
  return FILTER_BYTES + textBytes(filter)
}

function append<K, V>(lists: Map<K, V[]>, key: K, value: V): void {
  const list = lists.get(key)
  if (list) list.push(value)
  else lists.set(key, [value])
}
