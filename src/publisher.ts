import { Developer, requirePublish, type Grant } from './access/grant.ts'
import type { Append, Appended, EventLog } from './broker/event-log.ts'
import type { Clock } from './clock.ts'
import { END, feedOf, isOperators, isTopic, RESERVED_TYPES, type Cursor, type Feed } from './event.ts'
import type { Metrics } from './metrics.ts'
import { Denied, wrong, type Problem } from './problem.ts'
import type { Rules } from './rules/rules.ts'

/** Which part of the server an event came through, as the metrics label it. */
export type Source = 'events' | Feed | 'demo'

/** The parts of an event that may be wrong. */
export type Part = 'topic' | 'type' | 'data' | 'key'

/** What a part of an event is called in what was sent. It is asked for only where something is wrong with it. */
type PathOf = (part: Part) => string

/** Who publishes, in one request or message, however many events it has. */
export interface Writer {
  readonly grant: Grant
  /**
   * Counts the request or message against the rate of its client, once, as so many writes. Throws a `Problem` past the rate.
   */
  take(count?: number): void
}

/** How events come in. */
export interface Publication {
  readonly source: Source
  /** The feed that writes them. Without one they are on topics that belong to no feed. */
  readonly feed?: Feed | undefined
  /** Who publishes them; without one it is the program itself, which may do everything and has no rate. */
  readonly writer?: Writer | undefined
  /** Whether the topics are the writer's own, such as their inbox: changing that takes no right to publish. */
  readonly isOwner?: boolean | undefined
  /** As how many writes it counts; one where this is not given. */
  readonly writes?: number | undefined
  /** Whether each of them ends its topic: then all are of the type `end`. */
  readonly ends?: boolean | undefined
  /** What a part of an event is called in what was sent; its own name where this is not given. */
  readonly nameOf?: ((part: Part, index: number) => string) | undefined
}

/** What came through the door: it may be stored. */
export interface Admitted {
  /**
   * Resolves once all events are stored, with what became of each, in order. Rejects with `BrokerUnavailable`, and with a
   * `Problem` when a key was used before for another event, or a topic has ended.
   */
  append(events: readonly Append[]): Promise<Appended[]>
}

/**
 * The one door for what is published, whoever publishes it. Four things happen in this order: the events are checked,
 * their writer is asked for the right to publish them, the write is counted against the rate of the writer's client, and
 * the log stores them.
 */
export class Publisher {
  readonly #log: EventLog
  readonly #metrics: Metrics
  readonly #maxBytes: number
  readonly #clock: Pick<Clock, 'now'>
  readonly #rules: Pick<Rules, 'of'> | undefined

  /** `maxBytes`: the most that the data of an event may have, on topics whose rule doesn't say less. */
  constructor(
    log: EventLog,
    metrics: Metrics,
    maxBytes: number,
    clock: Pick<Clock, 'now'>,
    rules?: Pick<Rules, 'of'>
  ) {
    this.#rules = rules
    this.#clock = clock
    this.#log = log
    this.#metrics = metrics
    this.#maxBytes = maxBytes
  }

  /** All four. Rejects with a `Problem` for what may not be published, and as `Admitted.append` does. */
  async publish(events: readonly Append[], publication: Publication): Promise<Appended[]> {
    for (let index = 0; index < events.length; index++) this.#check(events[index]!, index, publication)
    const topics = events.map(({ topic }) => topic)
    return await this.#admit(topics, publication).append(events)
  }

  #check({ topic, type, data, key }: Append, index: number, publication: Publication): void {
    const { feed, ends = false, nameOf = ownName } = publication
    const pathOf: PathOf = part => nameOf(part, index)
    checkTopic(topic, feed, pathOf)
    checkKey(key, pathOf)
    // a feed has types of its own, and its own limits for what it makes of what was sent
    if (feed !== undefined) return
    if (ends) this.#checkMayEnd(topic, pathOf)
    else checkType(type, pathOf)
    this.checkSize(topic, Buffer.byteLength(data), pathOf)
  }

  /**
   * The first three, for a feed that can make its events only once it has read what is stored. Throws a `Problem` for what
   * may not be published.
   */
  admit(topics: readonly string[], publication: Publication): Admitted {
    const { feed, nameOf = ownName } = publication
    for (const [index, topic] of topics.entries()) checkTopic(topic, feed, part => nameOf(part, index))
    return this.#admit(topics, publication)
  }

  /**
   * Throws a `Problem` for more bytes than the data of an event on a topic may have. `says` begins the sentence about
   * them.
   */
  checkSize(topic: string, bytes: number, pathOf: PathOf, says = 'has'): void {
    const rule = this.#rules?.of(topic)
    const most = rule?.maxEventBytes ?? this.#maxBytes
    if (bytes <= most) return
    const by = rule?.maxEventBytes === undefined ? 'MAX_EVENT_BYTES' : `TOPICS, ${rule.match}`
    throw wrong('too large', pathOf('data'), `${says} ${bytes} bytes; at most ${most} are allowed (${by})`)
  }

  #checkMayEnd(topic: string, pathOf: PathOf): void {
    const rule = this.#rules?.of(topic)
    if (!rule?.ephemeral) return
    throw wrong(
      'refused',
      pathOf('topic'),
      `${topic} can't end: its events are not stored (TOPICS, ${rule.match})`
    )
  }

  #admit(topics: readonly string[], publication: Publication): Admitted {
    const { source, writer, isOwner = false, writes, nameOf = ownName } = publication
    if (writer && !isOwner) requirePublish(writer.grant, topics, index => nameOf('topic', index))
    // a body may take longer to come than its token lasts
    if (writer && writer.grant.expires <= this.#clock.now())
      throw new Denied('expired', 'the token has run out')
    writer?.take(writes)
    const owner = ownerOf(writer)
    return { append: events => this.#append(events, source, owner, nameOf) }
  }

  async #append(
    events: readonly Append[],
    source: Source,
    owner: string | null,
    nameOf: NonNullable<Publication['nameOf']>
  ): Promise<Appended[]> {
    const started = performance.now()
    try {
      const appended = await this.#log.append(events.map(event => ownKey(event, owner)))
      const reused = appended.findIndex(({ outcome }) => outcome === 'key reused')
      if (reused >= 0) throw keyReused(events.length > 1 ? ` (item ${reused})` : '')
      const ended = appended.findIndex(({ outcome }) => outcome === 'ended')
      if (ended >= 0) throw wrong('conflict', nameOf('topic', ended), `${events[ended]!.topic} has ended`)
      const stored = appended.filter(({ outcome }) => outcome === 'stored').length
      this.#metrics.eventsPublished.inc({ feed: source }, stored)
      return appended
    } finally {
      this.#metrics.brokerSeconds.observe({ op: 'append' }, (performance.now() - started) / 1000)
    }
  }
}

/** Whose idempotency keys a writer's are: the user's; null for everybody who has no token, and for the program. */
function ownerOf(writer: Writer | undefined): string | null {
  // while there are no tokens, a user is whatever the query says
  return writer === undefined || writer.grant instanceof Developer ? null : writer.grant.sub
}

/** An event with a key that belongs to a user and a topic: others may use the same for theirs. */
function ownKey(event: Append, owner: string | null): Append {
  if (event.key === undefined) return event
  return { ...event, key: JSON.stringify([owner, event.topic, event.key]) }
}

/** The id of an event that was stored, now or before. */
export function idOf(appended: Appended): Cursor {
  if ('id' in appended) return appended.id
  throw new Error(`an event was not stored: ${appended.outcome}`)
}

/** Throws a `Problem` unless events may be stored on a topic; `feed` is the feed that writes them. */
export function checkTopic(topic: string, feed?: Feed, pathOf: PathOf = part => part): void {
  if (!isTopic(topic)) {
    const rule = 'segments joined by /, none empty or *'
    throw wrong('malformed', pathOf('topic'), `${JSON.stringify(topic)} is not a topic: ${rule}`)
  }
  if (isOperators(topic)) throw wrong('forbidden', pathOf('topic'), `${topic} is written by the server alone`)
  const owner = feedOf(topic)
  if (owner !== feed && owner !== undefined)
    throw wrong('forbidden', pathOf('topic'), `${topic} is written through /${owner} only`)
}

/** Throws a `Problem` for what an event can't be given that ends its topic. */
export function checkEnd({
  type,
  ttl
}: {
  readonly type?: string | undefined
  readonly ttl?: number | undefined
}): void {
  if (type !== undefined && type !== END)
    throw wrong('refused', 'type', `an event that ends its topic is of the type ${END}`)
  if (ttl !== undefined)
    throw wrong('refused', 'ttl', 'an event that ends its topic has none: it goes away with its ring')
}

function checkType(type: string, pathOf: PathOf): void {
  if (RESERVED_TYPES.has(type)) throw wrong('refused', pathOf('type'), `${type} is reserved for the server`)
}

/** Only what UTF-8 can carry tells two keys apart in a store. */
function checkKey(key: string | undefined, pathOf: PathOf): void {
  if (key !== undefined && /\p{Cs}/u.test(key))
    throw wrong('malformed', pathOf('key'), 'holds half a surrogate pair: it is no text')
}

function ownName(part: Part): string {
  return part
}

function keyReused(which: string): Problem {
  return wrong('refused', 'Idempotency-Key', `was used before for another event${which}`)
}
