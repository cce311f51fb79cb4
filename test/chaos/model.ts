/** What subscribers were told, checked against what publishers were promised. Pure: no clock, no network. */
import {
  comparePositions,
  formatPosition,
  isWildcard,
  matches,
  parseCursor,
  type Position
} from '../../src/event.ts'

/** An event that a publisher got a 201 for. Publishers number the events of each topic. */
export interface Acknowledged {
  readonly topic: string
  readonly n: number
  readonly id: string
}

/** How a subscriber reads: as an EventSource, line by line, page by page, or over a WebSocket. */
export type Transport = 'sse' | 'ndjson' | 'poll' | 'ws'

/** One thing that happened to a subscriber; `at`: when, in milliseconds since the epoch. */
export type Entry = { readonly at: number } & (
  | { readonly kind: 'connect'; readonly instance: string; readonly lastId: string }
  /** `retryAfter`: the header, as it came. */
  | { readonly kind: 'status'; readonly status: number; readonly retryAfter?: string }
  /** WebSocket: what was asked for can't be done. */
  | { readonly kind: 'refused'; readonly code: string }
  | { readonly kind: 'cursor'; readonly id: string }
  | { readonly kind: 'event'; readonly id: string; readonly topic: string; readonly n: number }
  | { readonly kind: 'gap'; readonly reason: string; readonly topics: readonly string[] }
  /** An id that comes without an event: a block of nothing else, or where a page ends. */
  | { readonly kind: 'moved'; readonly id: string }
  | { readonly kind: 'goodbye'; readonly reason: string }
  | { readonly kind: 'broken'; readonly why: string }
  | { readonly kind: 'end'; readonly how: string }
)

type Status = Extract<Entry, { kind: 'status' }>

/** A subscriber's whole life. */
export interface Life {
  readonly name: string
  readonly transport: Transport
  readonly filters: readonly string[]
  readonly log: readonly Entry[]
}

/** A time in which the store forgot what it held: a flush, or a failover. In milliseconds since the epoch. */
export interface Forgetting {
  readonly from: number
  readonly to: number
}

export interface Observed {
  readonly shards: number
  readonly acknowledged: readonly Acknowledged[]
  readonly lives: readonly Life[]
  /** What the store holds in the end; `id` is the id of the stream's entry. */
  readonly stored: readonly Acknowledged[]
  readonly forgettings: readonly Forgetting[]
  /** Whether an event counts as stored although no replica has it. */
  readonly hasty: boolean
}

/**
 * How long after a failover everybody must have heard of what was lost, in milliseconds. A node that was away and
 * comes back may still say yes; those who follow its successor hear of that only once the one who had the yes has told.
 */
const LATE_MS = 10_000

/** What must not be. */
export const FAULTS = [
  'lost without a gap',
  'duplicated',
  'out of order',
  'stored twice',
  'wrong cursor',
  'wrong status',
  'strange'
] as const

export type Fault = (typeof FAULTS)[number]

/** One thing that must not be, and where in the life it shows. */
export interface Violation {
  readonly fault: Fault
  readonly life: string
  readonly index: number
  readonly text: string
}

export interface Verdict {
  readonly violations: readonly Violation[]
  /** Events that reached a subscriber. */
  readonly delivered: Readonly<Record<Transport, number>>
  readonly gaps: Readonly<Record<string, number>>
  /** Gaps that no missing event was found for, by reason. */
  readonly needless: Readonly<Record<string, number>>
  /** Events that did not reach a subscriber, which was told of it. */
  readonly announced: number
  /** Events that were stored a second time after the store had forgotten them. */
  readonly storedAgain: number
}

interface Published extends Acknowledged {
  readonly position: Position
}

export function check(observed: Observed): Verdict {
  const checker = new Checker(observed)
  for (const life of observed.lives) checker.checkLife(life)
  checker.checkCopies()
  return checker.verdict()
}

class Checker {
  readonly #observed: Observed
  readonly #acknowledged: readonly Published[]
  readonly #violations: Violation[] = []
  readonly #gaps: Record<string, number> = {}
  /** Where each event was seen to lie: by topic and number, the positions. */
  readonly #copies = new Map<string, Map<string, { position: Position; life: string; index: number }>>()
  readonly #delivered = { sse: 0, ndjson: 0, poll: 0, ws: 0 }
  readonly #needless: Record<string, number> = {}
  #announced = 0
  #storedAgain = 0

  constructor(observed: Observed) {
    this.#observed = observed
    this.#acknowledged = observed.acknowledged.map(event => ({
      ...event,
      position: this.#ownPosition(event)
    }))
    for (const event of this.#acknowledged) this.#noteCopy(event, event.position, 'the answer', -1)
    for (const event of observed.stored) {
      const [position] = parseCursor(event.id, 1)!
      this.#noteCopy(event, position!, 'the store', -1)
    }
  }

  checkLife(life: Life): void {
    const { log } = life
    const fault = (which: Fault, index: number, text: string) =>
      this.#violations.push({ fault: which, life: life.name, index, text })
    /** By topic, where its events stand in the log. */
    const events = new Map<string, { position: Position; index: number }[]>()
    const seen = new Set<string>()
    const last: (Position | undefined)[] = []
    let first: readonly Position[] | undefined
    let lastId = ''
    let known: string | null = null
    for (const [index, entry] of log.entries()) {
      if (entry.kind === 'connect') {
        if (entry.lastId !== lastId) throw new Error(`${life.name} does not send its last id at ${index}`)
        known = lastId === '' ? null : lastId
      } else if (entry.kind === 'status') {
        if (!isRight(life.transport, entry)) fault('wrong status', index, `answered with ${entry.status}`)
      } else if (entry.kind === 'refused') {
        if (entry.code !== 'unavailable') fault('wrong status', index, `refused as ${entry.code}`)
      } else if (entry.kind === 'broken') {
        fault('strange', index, entry.why)
      } else if (entry.kind === 'gap') {
        this.#gaps[entry.reason] = (this.#gaps[entry.reason] ?? 0) + 1
        if (entry.reason === 'unknown') {
          known = null
          last.length = 0
        }
        if (
          !entry.topics.every(topic =>
            life.filters.some(filter => filter === topic || matches(filter, topic))
          )
        ) {
          fault('strange', index, `a gap for ${entry.topics.join(', ')}, which it did not ask for`)
        }
      }
      if (!('id' in entry)) continue
      const cursor = parseCursor(entry.id, this.#observed.shards)
      if (!cursor) {
        fault('strange', index, `not an id: ${entry.id}`)
        continue
      }
      lastId = entry.id
      first ??= cursor
      if (entry.kind === 'cursor' && known !== null && !this.#isSameFor(life.filters, known, entry.id)) {
        fault('wrong cursor', index, `resumed after ${known}, was told ${entry.id}`)
      }
      if (entry.kind === 'event') {
        const shard = this.#shardOf(entry.topic)
        const position = cursor[shard]!
        const key = `${entry.topic} ${formatPosition(position)}`
        const of = events.get(entry.topic) ?? []
        events.set(entry.topic, of)
        if (seen.has(key)) fault('duplicated', index, `${entry.topic} #${entry.n} came before`)
        else if (last[shard] && comparePositions(position, last[shard]) <= 0) {
          fault('out of order', index, `${entry.topic} #${entry.n} after ${formatPosition(last[shard])}`)
        }
        if (!seen.has(key)) {
          this.#delivered[life.transport]++
          of.push({ position, index })
          this.#noteCopy(entry, position, life.name, index)
        }
        seen.add(key)
        if (!life.filters.some(filter => matches(filter, entry.topic))) {
          fault('strange', index, `${entry.topic} is nothing that it asked for`)
        }
      }
      const own = entry.kind === 'event' ? this.#shardOf(entry.topic) : -1
      if (
        cursor.some(
          (position, shard) => shard !== own && last[shard] && comparePositions(position, last[shard]) < 0
        )
      ) {
        fault('wrong cursor', index, `moved back to ${entry.id}`)
      }
      cursor.forEach((position, shard) => {
        if (!last[shard] || comparePositions(position, last[shard]) > 0) last[shard] = position
      })
    }
    if (first) this.#checkLosses(life, first, seen, events, fault)
  }

  #checkLosses(
    life: Life,
    first: readonly Position[],
    seen: ReadonlySet<string>,
    events: ReadonlyMap<string, readonly { position: Position; index: number }[]>,
    fault: (which: Fault, index: number, text: string) => void
  ): void {
    const { log, filters } = life
    const gaps = log.flatMap((entry, index) => (entry.kind === 'gap' ? [{ ...entry, index }] : []))
    const needed = new Set<number>()
    for (const { topic, n, position } of this.#acknowledged) {
      if (!filters.some(filter => matches(filter, topic))) continue
      if (comparePositions(position, first[this.#shardOf(topic)]!) <= 0) continue
      if (seen.has(`${topic} ${formatPosition(position)}`)) continue
      const others = events.get(topic) ?? []
      const before = others.findLast(other => comparePositions(other.position, position) < 0)?.index ?? -1
      const after = others.find(other => comparePositions(other.position, position) > 0)?.index ?? log.length
      const gap = gaps.find(
        ({ index, at, topics, reason }) =>
          ((index > before && index < after) || (reason === 'lost' && this.#isOfFailover(position, at))) &&
          // what was not yet stored then it can't be about
          at >= position.ms &&
          topics.some(named => named === topic || matches(named, topic))
      )
      if (gap) {
        this.#announced++
        needed.add(gap.index)
      } else {
        const text = `${topic} #${n} ${formatPosition(position)} between the entries ${before} and ${after}`
        fault('lost without a gap', Math.min(after, log.length - 1), text)
      }
    }
    for (const { index, reason } of gaps) {
      if (!needed.has(index)) this.#needless[reason] = (this.#needless[reason] ?? 0) + 1
    }
  }

  /**
   * Whether a loss of this time may be told at that one, wherever the subscriber is: late, or already when it has yet
   * to read what came before it.
   */
  #isOfFailover({ ms }: Position, at: number): boolean {
    const { hasty, forgettings } = this.#observed
    return hasty && forgettings.some(({ from, to }) => ms >= from && ms <= to && at <= to + LATE_MS)
  }

  /** An event lies in one place, unless the store forgot the first, and with it the key of the publisher. */
  checkCopies(): void {
    for (const [event, copies] of this.#copies) {
      const sorted = [...copies.values()].sort((a, b) => comparePositions(a.position, b.position))
      for (const [index, { position, life, index: at }] of sorted.entries()) {
        const earlier = sorted[index - 1]
        if (!earlier) continue
        const forgotten = this.#observed.forgettings.some(
          ({ from, to }) => earlier.position.ms <= to && position.ms >= from
        )
        if (forgotten) this.#storedAgain++
        else {
          const text = `${event} at ${formatPosition(earlier.position)} (${earlier.life}) and ${formatPosition(position)}`
          this.#violations.push({ fault: 'stored twice', life, index: at, text })
        }
      }
    }
  }

  verdict(): Verdict {
    return {
      violations: this.#violations,
      delivered: this.#delivered,
      gaps: this.#gaps,
      needless: this.#needless,
      announced: this.#announced,
      storedAgain: this.#storedAgain
    }
  }

  #noteCopy(
    { topic, n }: { topic: string; n: number },
    position: Position,
    life: string,
    index: number
  ): void {
    const key = `${topic} #${n}`
    let copies = this.#copies.get(key)
    if (!copies) {
      copies = new Map()
      this.#copies.set(key, copies)
    }
    const at = formatPosition(position)
    if (!copies.has(at)) copies.set(at, { position, life, index })
  }

  #ownPosition({ topic, id }: Acknowledged): Position {
    const cursor = parseCursor(id, this.#observed.shards)
    if (!cursor) throw new Error(`an event was answered with ${id}, which is no id`)
    return cursor[this.#shardOf(topic)]!
  }

  /** Whether two cursors say the same of the shards that the filters' topics are in: of others a wrong one is mended. */
  #isSameFor(filters: readonly string[], a: string, b: string): boolean {
    const { shards } = this.#observed
    const [one, other] = [parseCursor(a, shards), parseCursor(b, shards)]
    if (!one || !other || filters.some(isWildcard)) return a === b
    return filters
      .map(filter => this.#shardOf(filter))
      .every(shard => comparePositions(one[shard]!, other[shard]!) === 0)
  }

  #shardOf(topic: string): number {
    return shardOf(topic, this.#observed.shards)
  }
}

/** An EventSource can't be told by a status to come back; everybody else can, and is told when. */
function isRight(transport: Transport, { status, retryAfter = '' }: Status): boolean {
  if (status === 200) return true
  return transport !== 'sse' && (status === 503 || status === 429) && /^\d+$/.test(retryAfter)
}

/** FNV-1a over the topic's bytes: which part of an id is an event's own. */
export function shardOf(topic: string, shards: number): number {
  if (shards === 1) return 0
  let hash = 0x811c9dc5
  for (const byte of Buffer.from(topic)) hash = Math.imul(hash ^ byte, 0x01000193)
  return (hash >>> 0) % shards
}
