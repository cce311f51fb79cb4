import type { Redis } from 'ioredis'
import { comparePositions, END, formatPosition, later, wildcardOf } from '../../event.ts'
import type { Position, StoredEvent } from '../../event.ts'
import type { Rules } from '../../rules/rules.ts'
import { READER_LATENESS_MS } from '../event-log.ts'
import { Wrong, wrongLine, type Life, type Line } from '../transfer.ts'
import type { ShardKeys } from './keys.ts'
import { ZERO } from './life.ts'
import type { Place } from './store-reading.ts'
import { eventHead } from './wire.ts'

/** How much is written at a time: commands, and bytes. */
const COMMANDS_A_CALL = 1000
const BYTES_A_CALL = 1_048_576

/** For how long things are kept. */
export type TransferRules = Pick<Rules, 'longest' | 'of'>

/** Writes what lines say, some at a time. What says that it is a store comes last. */
export class StoreFilling {
  readonly #redis: Redis
  readonly #keys: ShardKeys
  readonly #rules: TransferRules
  readonly #evicted: string | undefined
  /** What is to be written, with the number of its line. */
  #commands: (readonly [number: number, ...command: [string, ...(string | number | Buffer)[]]])[] = []
  #bytes = 0
  #life: Life = { birth: ZERO, lost: ZERO }
  #position: Position = ZERO
  /** The last event of the topic whose lines come. */
  #last: Position = ZERO

  /** `rules`: for how long things are kept; `evicted`: see `evictedKeys`. */
  constructor({ redis, keys }: Place, rules: TransferRules, evicted: string | undefined) {
    this.#redis = redis
    this.#keys = keys
    this.#rules = rules
    this.#evicted = evicted
  }

  /** For how long what is known of the topics of a wildcard is kept, in milliseconds. */
  get #familyMs(): number {
    return this.#rules.longest + READER_LATENESS_MS
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
    for (const key of [names, index]) this.#add(number, 'PEXPIRE', key, this.#familyMs)
    this.#last = last
  }

  #takeState(number: number, { topic, state }: Extract<Line, { kind: 'state' }>): void {
    const version = formatPosition(state.version)
    this.#add(number, 'HSET', this.#keys.state(topic), 'value', state.value, 'version', version)
    const { stateTtl } = this.#rules.of(topic)
    if (stateTtl !== Infinity)
      this.#add(number, 'PEXPIREAT', this.#keys.state(topic), this.#last.ms + stateTtl)
    this.#add(number, 'SADD', this.#keys.states(wildcardOf(topic)), topic)
  }

  /** The family gets no order: an instance begins one with the next event, and looks at each topic for those before it. */
  #takeEvent(number: number, event: StoredEvent): void {
    const ring = this.#keys.ring(event.topic)
    const data = typeof event.data === 'string' ? event.data : Buffer.from(event.data)
    this.#add(number, 'XADD', ring, formatPosition(event.id), 'h', eventHead(event), 'd', data)
    if (comparePositions(event.id, this.#last) !== 0) return
    this.#add(number, 'PEXPIREAT', ring, event.id.ms + this.#rules.of(event.topic).ttl + READER_LATENESS_MS)
    if (event.type !== END) return
    const ends = this.#keys.ended(wildcardOf(event.topic))
    this.#add(number, 'HSET', ends, event.topic, formatPosition(event.id))
    this.#add(number, 'PEXPIRE', ends, this.#familyMs)
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
