import type { Redis } from 'ioredis'
import type { Settings } from '../../config.ts'
import { comparePositions, earlier, formatPosition, later, parsePosition, wildcardOf } from '../../event.ts'
import type { Position, StoredEvent } from '../../event.ts'
import { READER_LATENESS_MS } from '../event-log.ts'
import { readLines, TransferFailed, Wrong, wrongLine, type Life, type Line } from '../transfer.ts'
import { ShardKeys } from './keys.ts'
import { ZERO } from './life.ts'
import { Clients } from './open.ts'
import { hashTag } from './sharding.ts'
import { redisTarget } from './url.ts'
import { eventHead, readEntry, type RangeEntry } from './wire.ts'

/** How many keys are looked for, topics asked for, and events of a topic read at a time: at first, and where it has more. */
const KEYS_A_SCAN = 1000
const TOPICS_A_CALL = 50
const FIRST_EVENTS = 20
const MORE_EVENTS = 100

/** How much is written at a time: commands, and bytes. */
const COMMANDS_A_CALL = 1000
const BYTES_A_CALL = 1_048_576

/** What the clock is while a store is being filled: no instance can begin a life there. */
const UNDER_WAY = 'an import is under way, or was broken off'

export type TransferSettings = Parameters<typeof redisTarget>[0] &
  Pick<Settings, 'KEY_PREFIX' | 'RING_TTL' | 'SHARDS'>

/** A connection to the server that has a store, and how things are called there. */
interface Place {
  readonly redis: Redis
  readonly keys: ShardKeys
}

/** Does something with a store. Throws `TransferFailed` where it can't be moved, or what keeps Redis from being asked. */
async function open({ KEY_PREFIX, SHARDS, ...settings }: TransferSettings): Promise<Place> {
  if (SHARDS > 1)
    throw new TransferFailed(
      `SHARDS=${SHARDS}: a store of several shards can't be moved, its cursors are of another shape`
    )
  let reason: Error | undefined
  const report = (_stage: string, error: Error) => (reason ??= error)
  const clients = new Clients({ target: redisTarget(settings), scripts: {}, appendsApart: false, report })
  try {
    await clients.ready()
    const keys = new ShardKeys(KEY_PREFIX, hashTag(0, 1), clients.database)
    return { keys, redis: await clients.subscriber(keys.clock) }
  } catch (error) {
    throw reason ?? error
  } finally {
    clients.close()
  }
}

/** The keys that begin in some way, some at a time; one may come twice. */
async function* keysFrom(redis: Redis, beginning: string): AsyncGenerator<string[]> {
  const pattern = `${beginning.replace(/[\\*?[\]]/g, '\\$&')}*`
  let cursor = '0'
  do {
    const [next, found] = await redis.scan(cursor, 'MATCH', pattern, 'COUNT', KEYS_A_SCAN)
    cursor = next
    if (found.length > 0) yield found
  } while (cursor !== '0')
}

// --- from Redis ---

/**
 * All lines of a store as of now, some at a time: the events that are stored meanwhile are not among them. A state that is
 * changed meanwhile comes as it is then, and the end says that readers may have lost something. Throws `TransferFailed`, and
 * what Redis says.
 */
export async function* exportRedis(settings: TransferSettings): AsyncGenerator<Line[]> {
  const place = await open(settings)
  try {
    yield* new Reading(place).lines()
  } finally {
    place.redis.disconnect()
  }
}

/** A topic as it was at the time of the export, and the first of its events. */
interface TopicThen {
  readonly topic: string
  readonly last: Position
  readonly state: { readonly value: string; readonly version: Position } | null
  readonly events: readonly StoredEvent[]
}

class Reading {
  readonly #redis: Redis
  readonly #keys: ShardKeys
  /** The time of the export: nothing that comes after it counts. */
  #then: Position = ZERO
  #lost: Position = ZERO
  #count = 0

  constructor({ redis, keys }: Place) {
    this.#redis = redis
    this.#keys = keys
  }

  async *lines(): AsyncGenerator<Line[]> {
    yield this.#counted([await this.#head()])
    for (const wildcard of await this.#families()) {
      const topics = await this.#topicsOf(wildcard)
      for (let from = 0; from < topics.length; from += TOPICS_A_CALL) {
        for (const found of await this.#read(topics.slice(from, from + TOPICS_A_CALL)))
          for await (const lines of this.#topicLines(found)) yield this.#counted(lines)
      }
    }
    for await (const lines of this.#keyLines()) yield this.#counted(lines)
    yield [{ kind: 'end', lines: this.#count, lost: this.#lost }]
  }

  #counted(lines: Line[]): Line[] {
    this.#count += lines.length
    return lines
  }

  async #head(): Promise<Line> {
    const { clock, prefix } = this.#keys
    const [ms, seq, begun, lost] = await this.#redis.hmget(clock, 'ms', 'seq', 'birth', 'lost')
    const birth = parsePosition(begun ?? '')
    if (!ms || !birth) throw new TransferFailed(`there is no store: no key ${prefix}clock`)
    this.#then = { ms: Number(ms), seq: Number(seq) }
    this.#lost = parsePosition(lost ?? '') ?? ZERO
    return { kind: 'head', birth, lost: this.#lost, position: this.#then }
  }

  /** The wildcards that have topics. */
  async #families(): Promise<Set<string>> {
    const kinds = [this.#keys.last(''), this.#keys.states('')]
    const families = new Set<string>()
    for (const kind of kinds)
      for await (const names of keysFrom(this.#redis, kind))
        for (const name of names) families.add(name.slice(kind.length))
    return families
  }

  async #topicsOf(wildcard: string): Promise<string[]> {
    const [known, withState] = await Promise.all([
      this.#redis.hkeys(this.#keys.last(wildcard)),
      this.#redis.smembers(this.#keys.states(wildcard))
    ])
    return [...new Set([...known, ...withState])].filter(topic => topic !== '')
  }

  /** Those of some topics that were there then. */
  async #read(topics: readonly string[]): Promise<TopicThen[]> {
    return (await Promise.all(topics.map(topic => this.#readTopic(topic)))).filter(each => each !== null)
  }

  async #readTopic(topic: string): Promise<TopicThen | null> {
    const [lastId, [value, versionId], events] = await Promise.all([
      this.#redis.hget(this.#keys.last(wildcardOf(topic)), topic),
      this.#redis.hmget(this.#keys.state(topic), 'value', 'version'),
      this.#events(topic, '-', FIRST_EVENTS)
    ])
    const version = parsePosition(versionId ?? '')
    // a topic of which nothing but the state is remembered
    const known = parsePosition(lastId ?? '') ?? version
    const last = known && (this.#isThen(known) ? known : await this.#lastThen(topic))
    if (!last) return null
    const state = version && value != null ? { value, version: this.#versionThen(version, last) } : null
    return { topic, last, state, events }
  }

  #isThen(position: Position): boolean {
    return comparePositions(position, this.#then) <= 0
  }

  /** The last event that a topic had then, where it has had others since; null where it had none. */
  async #lastThen(topic: string): Promise<Position | null> {
    const ring = this.#keys.ring(topic)
    const [[newest], [oldest]] = await Promise.all([
      this.#redis.xrevrange(ring, formatPosition(this.#then), '-', 'COUNT', 1),
      this.#redis.xrange(ring, '-', '+', 'COUNT', 1)
    ])
    if (newest) return parsePosition(newest[0])!
    const before = oldest?.[1][1]?.split(' ')[0]
    if (before === '-') return null
    // all that it had then is gone
    return earlier(parsePosition(before ?? '') ?? this.#then, this.#then)
  }

  #versionThen(version: Position, last: Position): Position {
    if (this.#isThen(version)) return version
    this.#lost = later(this.#lost, this.#then)
    return last
  }

  async #events(topic: string, from: string, limit: number): Promise<StoredEvent[]> {
    const end = formatPosition(this.#then)
    const entries = await this.#redis.xrangeBuffer(this.#keys.ring(topic), from, end, 'COUNT', limit)
    return (entries as RangeEntry[]).map(entry => readEntry(entry, topic, 0))
  }

  async *#topicLines({ topic, last, state, events }: TopicThen): AsyncGenerator<Line[]> {
    yield [{ kind: 'topic', topic, last }, ...(state ? [{ kind: 'state', topic, state } as const] : [])]
    let before: Position | null = null
    let asked = FIRST_EVENTS
    for (let some = events; some.length > 0;) {
      const first = some[0]!.prev
      if (before && (!first || comparePositions(first, before) !== 0)) throw torn(topic)
      yield some.map(event => ({ kind: 'event', event }))
      before = some.at(-1)!.id
      if (some.length < asked) break
      asked = MORE_EVENTS
      some = await this.#events(topic, `(${formatPosition(before)}`, asked)
    }
    if (before && comparePositions(before, last) !== 0) throw torn(topic)
  }

  async *#keyLines(): AsyncGenerator<Line[]> {
    const beginning = `${this.#keys.prefix}key:`
    for await (const names of keysFrom(this.#redis, beginning)) {
      const [[seconds, micros], values, left] = await Promise.all([
        this.#redis.time() as Promise<[number, number]>,
        this.#redis.mget(names),
        Promise.all(names.map(name => this.#redis.pttl(name)))
      ])
      const now = Number(seconds) * 1000 + Math.floor(Number(micros) / 1000)
      yield names.flatMap((name, index): Line[] => {
        const [idText, print] = values[index]?.split(' ') ?? []
        const id = parsePosition(idText ?? '')
        if (!id || !print || !this.#isThen(id) || left[index]! < 0) return []
        const use = { id, print, until: now + left[index]! }
        return [{ kind: 'key', hash: name.slice(beginning.length), use }]
      })
    }
  }
}

function torn(topic: string): TransferFailed {
  return new TransferFailed(
    `events of topic ${topic} were dropped while it was read: try again, or stop the instances`
  )
}

// --- to Redis ---

/**
 * Fills a store, which must be empty, with what some lines say. When anything is wrong nothing is left in it, and until the
 * end has come no instance can use it. Throws `TransferFailed`, and what Redis says.
 */
export async function importRedis(
  settings: TransferSettings,
  chunks: AsyncIterable<Uint8Array>
): Promise<void> {
  const place = await open(settings)
  try {
    await begin(place, settings.KEY_PREFIX)
    const evicted = await evictedKeys(place.redis)
    const writing = new Writing(place, settings.RING_TTL + READER_LATENESS_MS, evicted)
    await fill(writing, chunks).catch(async error => {
      await undo(place)
      throw error
    })
  } finally {
    place.redis.disconnect()
  }
}

/** Takes an empty store for this import alone. */
async function begin({ redis, keys }: Place, prefix: string): Promise<void> {
  if ((await redis.type(keys.clock)) === 'string')
    throw new TransferFailed(`${UNDER_WAY}: delete all keys that begin with ${keys.prefix}, and try again`)
  for await (const [name] of keysFrom(redis, `${prefix}{`))
    throw new TransferFailed(`there is something in it already, such as the key ${name}; see KEY_PREFIX`)
  if (!(await redis.set(keys.clock, UNDER_WAY, 'NX')))
    throw new TransferFailed('something else has begun to use it just now')
}

/** Deletes what was written: the clock last, which kept others away. */
async function undo({ redis, keys }: Place): Promise<void> {
  for await (const names of keysFrom(redis, keys.prefix)) {
    const others = names.filter(name => name !== keys.clock)
    if (others.length > 0) await redis.unlink(others)
  }
  await redis.del(keys.clock)
}

/** What the check script keeps of how many keys the server has evicted; undefined where nobody may ask. */
async function evictedKeys(redis: Redis): Promise<string | undefined> {
  const info = await redis.info().catch(() => '')
  const [, run] = /^run_id:(\w+)/m.exec(info) ?? []
  const [, count] = /^evicted_keys:(\d+)/m.exec(info) ?? []
  return run && count && `${run} ${count}`
}

async function fill(writing: Writing, chunks: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const lines of readLines(chunks)) {
    for (const [number, line] of lines) {
      writing.take(number, line)
      if (writing.isMuch) await writing.flush()
    }
  }
  await writing.finish()
}

/** Writes what lines say, some at a time. What says that it is a store comes last. */
class Writing {
  readonly #redis: Redis
  readonly #keys: ShardKeys
  readonly #ttl: number
  readonly #evicted: string | undefined
  /** What is to be written, with the number of its line. */
  #commands: (readonly [number: number, ...command: [string, ...(string | number | Buffer)[]]])[] = []
  #bytes = 0
  #life: Life = { birth: ZERO, lost: ZERO }
  #position: Position = ZERO
  /** The last event of the topic whose lines come. */
  #last: Position = ZERO

  /** `ttl`: how long what is known of a topic is kept, in milliseconds; `evicted`: see `evictedKeys`. */
  constructor({ redis, keys }: Place, ttl: number, evicted: string | undefined) {
    this.#redis = redis
    this.#keys = keys
    this.#ttl = ttl
    this.#evicted = evicted
  }

  get isMuch(): boolean {
    return this.#commands.length >= COMMANDS_A_CALL || this.#bytes >= BYTES_A_CALL
  }

  take(number: number, line: Line): void {
    switch (line.kind) {
      case 'head':
        this.#life = line
        this.#position = line.position
        return
      case 'topic':
        return this.#takeTopic(number, line.topic, line.last)
      case 'state':
        return this.#takeState(number, line)
      case 'event':
        return this.#takeEvent(number, line.event)
      case 'key':
        return this.#takeKey(number, line)
      case 'forgotten':
        // Redis forgets no topic before its time: here it is told as a loss
        return this.#lose(line.upTo)
      case 'end':
        return this.#lose(line.lost)
    }
  }

  /** Makes a store of it, in one step. */
  async finish(): Promise<void> {
    await this.flush()
    const { ms, seq } = this.#position
    const { birth, lost } = this.#life
    const fields: Record<string, string | number> = {
      ...{ ms, seq, ordered: formatPosition(this.#position), birth: formatPosition(birth) },
      ...(comparePositions(lost, ZERO) > 0 && { lost: formatPosition(lost) }),
      ...(this.#evicted && { evicted: this.#evicted })
    }
    const { clock } = this.#keys
    const answers = await this.#redis.multi().del(clock).hset(clock, fields).exec()
    for (const [error] of answers ?? []) if (error) throw error
  }

  #lose(upTo: Position): void {
    const { birth, lost } = this.#life
    if (comparePositions(upTo, birth) > 0) this.#life = { birth, lost: later(lost, upTo) }
  }

  #takeTopic(number: number, topic: string, last: Position): void {
    const [names, index] = [this.#keys.last(wildcardOf(topic)), this.#keys.index(wildcardOf(topic))]
    this.#add(number, 'HSETNX', names, topic, formatPosition(last))
    this.#add(number, 'ZADD', index, last.ms, topic)
    for (const key of [names, index]) this.#add(number, 'PEXPIRE', key, this.#ttl)
    this.#last = last
  }

  #takeState(number: number, { topic, state }: Extract<Line, { kind: 'state' }>): void {
    const version = formatPosition(state.version)
    this.#add(number, 'HSET', this.#keys.state(topic), 'value', state.value, 'version', version)
    this.#add(number, 'SADD', this.#keys.states(wildcardOf(topic)), topic)
  }

  /** The family gets no order: an instance begins one with the next event, and looks at each topic for those before it. */
  #takeEvent(number: number, event: StoredEvent): void {
    const ring = this.#keys.ring(event.topic)
    const data = typeof event.data === 'string' ? event.data : Buffer.from(event.data)
    this.#add(number, 'XADD', ring, formatPosition(event.id), 'h', eventHead(event), 'd', data)
    if (comparePositions(event.id, this.#last) === 0)
      this.#add(number, 'PEXPIREAT', ring, event.id.ms + this.#ttl)
  }

  #takeKey(number: number, { hash, use: { id, print, until } }: Extract<Line, { kind: 'key' }>): void {
    const key = `${this.#keys.prefix}key:${hash}`
    this.#add(number, 'SET', key, `${formatPosition(id)} ${print}`)
    this.#add(number, 'PEXPIREAT', key, until)
  }

  #add(number: number, ...command: [string, ...(string | number | Buffer)[]]): void {
    this.#commands.push([number, ...command])
    for (const part of command) this.#bytes += typeof part === 'number' ? 8 : part.length
  }

  async flush(): Promise<void> {
    const commands = this.#commands
    this.#commands = []
    this.#bytes = 0
    const asked = commands.map(([, name, ...args]) => this.#redis.call(name, ...args))
    const answers = await Promise.allSettled(asked)
    answers.forEach((answer, index) => {
      const [number, name] = commands[index]!
      if (answer.status === 'rejected') throw answer.reason
      if (name === 'HSETNX' && answer.value === 0)
        throw wrongLine(number, new Wrong('its topic was there before'))
    })
  }
}
