import type { Append } from '../../src/broker/event-log.ts'
import { LocalRoster } from '../../src/broker/embedded/roster.ts'
import { Hub } from '../../src/hub/hub.ts'
import { Memory } from '../../src/memory.ts'
import { Metrics } from '../../src/metrics.ts'
import {
  comparePositions,
  covers,
  formatCursor,
  isEphemeral,
  parseCursor,
  type Cursor
} from '../../src/event.ts'
import { Rules } from '../../src/rules/rules.ts'
import { wakeUp } from '../../src/wire/page.ts'
import { gzipped, plain } from '../../src/wire/packing.ts'
import { sse } from '../../src/wire/sse.ts'
import { HeldClock, settled } from '../support/clock.ts'
import { HeldLog, squeeze, type Logged } from './held-log.ts'
import { Mirror, stateOf } from './mirror.ts'
import { Reader, isAfter, type Connection, type Model, type Moment, type Request } from './reader.ts'

export const TOPICS = ['a', 'b', 's/x', 's/y', 's/z', 's/live']

/** Events of the last one are never stored: whoever isn't live may miss them, and no gap is told. */
const RULES = [{ match: 's/live', ephemeral: true }]

/** A topic with a state, which changes with each event. */
export const DOCUMENT = 'd/1'

/** What may happen. Numbers choose among what there is, modulo its count. */
export type Command =
  | { do: 'publish'; batches: { topic: number; ttl?: number | undefined }[]; times: number }
  | {
      do: 'connect'
      client: number
      filters: string[]
      start: Start
      rate: number
      enveloped: boolean
      compressed: boolean
      slow: boolean
      twin: boolean
    }
  | {
      do: 'poll'
      client: number
      filters: string[]
      start: Start
      rate: number
      limit: number
      wait: number
      again: boolean
    }
  | {
      do: 'mirror'
      client: number
      after: number | undefined
      rate: number
      compressed: boolean
      slow: boolean
    }
  | { do: 'change'; times: number; remove: boolean }
  | { do: 'drop'; client: number; lost: number }
  | { do: 'resume'; client: number }
  | { do: 'narrow'; client: number; keep: number }
  | { do: 'slow'; client: number }
  | { do: 'drain'; client: number; bytes: number }
  | { do: 'deliver'; count: number; twice: boolean; shard: number }
  | { do: 'release'; index: number }
  | { do: 'refuse'; index: number }
  | { do: 'early'; early: boolean }
  | { do: 'turn' }
  | { do: 'advance'; ms: number }
  | { do: 'step back'; ms: number }
  | { do: 'squeeze'; who: 'store' | 'hub'; part: number }
  | { do: 'cut' }
  | { do: 'down' }
  | { do: 'restore' }
  | { do: 'begin anew' }
  | { do: 'flow' }

export type Start =
  | { at: 'fresh' }
  | { at: 'rewind'; count: number }
  | { at: 'since'; ago: number }
  | { at: 'seen'; index: number }
  | { at: 'near'; index: number; by: number }
  | { at: 'text'; text: string }

export interface WorldSettings {
  RING_SIZE: number
  RING_TTL: number
  SEND_BUFFER: number
  pageLimit: number
  shards: number
  /** What the store may hold of each shard, and what the hub may hold, in bytes. */
  memory?: { store: number; hub: number }
}

/** One for all: it listens to the process. */
const metrics = new Metrics('test')

/** Where a client that is not connected has come. */
class Client {
  cursor: string | undefined
  request: Request | undefined
  reader: Connection | undefined
  opening = false
  dropped = false
}

/** A hub, its broker and its clients, with every frame held against the model. */
export class World implements Model {
  readonly topics = TOPICS
  readonly clock = new HeldClock()
  readonly held: HeldLog
  readonly hub: Hub
  readonly settings
  readonly clients = Array.from({ length: 4 }, () => new Client())
  readonly pollers = Array.from({ length: 2 }, () => new Client())
  /** Every id that anybody ever saw. */
  readonly seen: string[] = []
  steppedBack = false
  readonly forgetful: boolean
  readonly #memory: Memory
  delivered = 0
  gaps = 0
  #latest = 0
  /** What the client before asked for: one audience is to have several sessions. */
  #kind: Request | undefined
  #failure: Error | null = null

  constructor({ pageLimit, shards, memory, ...settings }: WorldSettings) {
    this.settings = { ...settings, HEARTBEAT: 3000, RETRY: 2000, rules: RULES }
    this.forgetful = memory !== undefined
    this.#memory = new Memory(memory?.hub ?? Infinity)
    this.held = new HeldLog(this.settings, this.clock, shards, memory?.store)
    this.held.pageLimit = pageLimit
    this.hub = new Hub(
      this.held,
      new LocalRoster(),
      this.settings,
      this.clock,
      metrics,
      this.#memory,
      new Rules(settings, RULES)
    )
    this.hub.histories.enough = 3 // what happens here is over soon
  }

  // --- the model ---

  get log() {
    return this.held.stored
  }

  get birth() {
    return this.held.birth
  }

  get shards(): number {
    return this.held.shards
  }

  shardOf(topic: string): number {
    return this.held.shardOf(topic)
  }

  get position() {
    return this.hub.position
  }

  get now(): number {
    return this.clock.now()
  }

  get latest(): number {
    return (this.#latest = Math.max(this.#latest, this.clock.now()))
  }

  gone(event: Logged): boolean {
    const { id, topic } = event
    if (isEphemeral(event)) return false
    if (id.ms < this.latest - this.settings.RING_TTL || !isAfter(event, this.birth)) return true
    if (this.held.hasDropped(event)) return true
    const later = this.log.filter(other => other.topic === topic && comparePositions(other.id, id) > 0)
    return later.length >= this.settings.RING_SIZE
  }

  get moment(): Moment {
    const { now, latest, birth } = this
    return {
      now,
      latest,
      birth,
      last: this.held.last,
      position: this.hub.position,
      stored: this.log.length
    }
  }

  // --- what happens ---

  async run(commands: readonly Command[]): Promise<void> {
    await this.held.start(this.hub)
    try {
      for (const command of commands) {
        await this.#do(command)
        await settled()
        this.#check()
      }
      await this.#finish()
    } finally {
      this.held.close()
    }
  }

  async #do(command: Command): Promise<void> {
    switch (command.do) {
      case 'publish': {
        for (let time = 0; time < command.times; time++) {
          await this.#publish(
            command.batches.map(({ topic, ttl }) => ({ topic: TOPICS[topic % TOPICS.length]!, ttl }))
          )
        }
        return
      }
      case 'connect':
        return this.#connect(command)
      case 'poll': {
        const client = this.pollers[command.client]!
        if (client.opening) return
        const { filters, rate } = command
        const next = client.request && client.cursor !== undefined && command.again
        if (next)
          return this.#poll(
            client,
            { ...client.request!, after: client.cursor, rewind: undefined, since: undefined },
            command
          )
        client.cursor = undefined
        const request = {
          filters,
          enveloped: true,
          poll: true,
          ...this.#startOf(command.start),
          ...(rate > 0 && { rate })
        }
        return this.#poll(client, request, command)
      }
      case 'mirror': {
        const client = this.clients[command.client]!
        if (client.reader || client.opening) return
        client.cursor = command.after === undefined ? undefined : this.#ownId(command.after)
        const after = client.cursor === undefined ? {} : { after: client.cursor }
        const rate = command.rate > 0 ? { rate: command.rate } : {}
        const { compressed } = command
        return this.#open(
          client,
          { filters: [DOCUMENT], snapshot: true, enveloped: false, compressed, ...after, ...rate },
          command.slow
        )
      }
      case 'change': {
        for (let time = 0; time < command.times; time++) {
          await this.#change(command.remove && time === command.times - 1)
        }
        return
      }
      case 'drop':
        return this.#drop(this.clients[command.client]!, command.lost)
      case 'resume': {
        const client = this.clients[command.client]!
        if (client.reader || client.opening || !client.request) return
        const { rewind, since, ...request } = client.request
        return this.#open(
          client,
          client.cursor === undefined ? client.request : { ...request, after: client.cursor }
        )
      }
      case 'narrow':
        return this.#narrow(this.clients[command.client]!, command.keep)
      case 'slow': {
        const { reader } = this.clients[command.client]!
        if (reader) reader.slow = true
        return
      }
      case 'drain':
        return this.clients[command.client]!.reader?.drain(command.bytes)
      case 'deliver':
        return this.held.deliver(command.count, command.twice, command.shard % this.shards)
      case 'release':
        return this.held.release(command.index)
      case 'refuse':
        return this.held.refuse(command.index)
      case 'early':
        this.held.askEarly = command.early
        return
      case 'turn':
        return this.clock.turn()
      case 'advance':
        return this.#advance(command.ms)
      case 'step back':
        this.steppedBack = true
        void this.latest
        return this.clock.stepBack(command.ms)
      case 'squeeze':
        if (command.who === 'store') return this.held.squeeze(command.part)
        return squeeze(this.#memory, command.part)
      case 'cut':
        return this.held.cut()
      case 'down':
        return this.held.down()
      case 'restore':
        return this.held.restore()
      case 'begin anew':
        if (this.held.last.some(({ ms }) => this.clock.now() <= ms)) return
        return this.held.beginAnew()
      case 'flow':
        return this.held.flow()
    }
  }

  async #publish(items: { topic: string; ttl?: number | undefined }[]): Promise<void> {
    const events = items.map(({ topic, ttl }, index): Append => ({
      topic,
      type: 'message',
      data: String(this.log.length + index),
      ...(ttl !== undefined && { ttl })
    }))
    for (const result of await this.held.append(events)) {
      if (result.outcome === 'stored') this.seen.push(formatCursor(result.id))
    }
  }

  async #change(remove: boolean): Promise<void> {
    const data = String(this.log.length)
    const state = { value: remove ? null : data }
    const [result] = await this.held.append([{ topic: DOCUMENT, type: 'message', data, state }])
    if (result?.outcome === 'stored') this.seen.push(formatCursor(result.id))
  }

  #connect({
    client: index,
    filters,
    start,
    rate,
    enveloped,
    compressed,
    slow,
    twin
  }: Extract<Command, { do: 'connect' }>): void {
    const client = this.clients[index]!
    if (client.reader || client.opening) return
    client.cursor = undefined
    if (!twin || !this.#kind)
      this.#kind = { filters, enveloped, compressed, ...(rate > 0 && { rate }), heartbeat: 5000 }
    this.#open(client, { ...this.#kind, ...this.#startOf(start) }, slow)
  }

  #startOf(start: Start): Pick<Request, 'after' | 'rewind' | 'since'> {
    switch (start.at) {
      case 'fresh':
        return {}
      case 'rewind':
        return { rewind: start.count }
      case 'since':
        return { since: this.clock.now() - start.ago }
      case 'seen':
        return { after: this.#anyId(start.index) }
      case 'near': {
        const cursor = this.#read(this.#anyId(start.index))
        const shard = start.index % this.shards
        const { ms, seq } = cursor[shard]!
        return { after: formatCursor(cursor.with(shard, { ms: ms + start.by, seq })) }
      }
      case 'text':
        return { after: start.text }
    }
  }

  /** An id of this life of the store: a mirror can't have had the state of another one. */
  #ownId(index: number): string {
    const id = this.#anyId(index)
    return covers(this.#read(id), this.birth) ? id : formatCursor(this.birth)
  }

  /** What a mirror has that came as far as a cursor. */
  #valueAt(cursor: string | undefined): string | null | undefined {
    if (cursor === undefined) return undefined
    const at = this.#read(cursor)
    return stateOf(
      this.log.findLast(
        event => event.topic === DOCUMENT && isAfter(event, this.birth) && !isAfter(event, at)
      )
    )
  }

  #read(id: string): Cursor {
    return parseCursor(id, this.shards)!
  }

  #anyId(index: number): string {
    return this.seen.at(-1 - (index % Math.max(1, this.seen.length))) ?? formatCursor(this.birth)
  }

  #open(client: Client, request: Request, slow = false): void {
    const { filters, enveloped, compressed, ...rest } = request
    client.opening = true
    client.dropped = false
    client.request = request
    const reader = request.snapshot
      ? new Mirror(this, request, this.#valueAt(request.after))
      : new Reader(this, request, this.moment)
    reader.slow = slow
    const opening = async () => {
      try {
        const packing = compressed ? gzipped(plain) : plain
        const session = await this.hub.open({ filters, format: sse(enveloped), packing, ...rest })
        client.opening = false
        if (client.dropped) return session.close('client')
        client.reader = reader
        reader.begin(session, this.moment)
      } catch (error) {
        client.opening = false
        if ((error as Error).name !== 'BrokerUnavailable') this.#failure ??= error as Error
        else client.cursor ??= request.after
      }
    }
    void opening()
  }

  /** Asks for one answer, and reads it as if it had been written to a stream. */
  #poll(client: Client, request: Request, { limit, wait }: { limit: number; wait: number }): void {
    const { filters, rate, after, rewind, since } = request
    client.opening = true
    client.request = request
    const reader = new Reader(this, request, this.moment)
    const format = sse(true)
    const poll = async () => {
      try {
        const session = await this.hub.open({
          filters,
          rate,
          after,
          rewind,
          since,
          format: wakeUp,
          packing: plain
        })
        const start = formatCursor(session.cursor)
        reader.open(this.moment)
        const { gap } = session
        if (gap?.reason === 'unknown') reader.write(format.gap(gap))
        reader.write(format.open(start, 0))
        let reading = await this.hub.read(session, limit)
        if (wait > 0 && reading.events.length === 0 && !reading.gap) {
          await this.hub.wait(session, wait)
          reading = await this.hub.read(session, limit)
        }
        if (reading.gap && (reading.gap.reason !== 'unknown' || gap?.reason !== 'unknown'))
          reader.write(format.gap(reading.gap))
        for (const { event, cursor } of reading.events)
          reader.write(format.event(event, formatCursor(cursor)))
        client.cursor = formatCursor(reading.cursor)
        reader.write(format.keepAlive(client.cursor, []))
        session.close('answered')
      } catch (error) {
        if ((error as Error).name !== 'BrokerUnavailable') this.#failure ??= error as Error
      }
      client.opening = false
      if (reader.failure)
        this.#failure ??= new Error(`a poll ${JSON.stringify(request)}: ${reader.failure.message}`)
      this.#note(reader)
    }
    void poll()
  }

  /** A client gives up some of its filters: it keeps those whose bits are set. */
  #narrow(client: Client, keep: number): void {
    const { reader, request } = client
    if (!reader || !request || request.snapshot) return
    const filters = [...new Set(request.filters)].filter((_, index) => keep & (1 << index))
    if (filters.length === 0) return
    // what is written from now on is for these alone
    client.request = reader.request = { ...request, filters }
    reader.session = this.hub.narrow(reader.session!, filters)
  }

  /** The connection ends; the client saw all that the connection took, less what the network lost. */
  #drop(client: Client, lost: number): void {
    client.dropped = true
    const { reader } = client
    if (!reader) return
    this.#check()
    reader.session!.close('client')
    client.reader = undefined
    this.#note(reader)
    const { ids, taken, request } = reader
    const count = Math.max(0, taken - lost)
    client.cursor = count > 0 ? ids[count - 1] : request.after
  }

  #note(reader: Connection): void {
    this.seen.push(...reader.ids.filter(id => !this.seen.includes(id)))
    this.delivered += reader.delivered
  }

  async #advance(ms: number): Promise<void> {
    await this.clock.advance(ms)
    void this.latest
  }

  async #settle(): Promise<void> {
    for (let round = 0; round < 3; round++) {
      await this.held.flow()
      for (const { reader } of this.clients) {
        if (!reader) continue
        reader.slow = false
        reader.drain()
      }
      await this.#advance(1000)
    }
    await this.held.flow()
    // the shortest rate is over, and what is read then is answered before it is too old
    for (let round = 0; round < 2; round++) {
      await this.#advance(200)
      await this.held.flow()
    }
  }

  async #finish(): Promise<void> {
    this.held.restore()
    await this.#settle()
    for (const topic of TOPICS) await this.#publish([{ topic }])
    await this.#change(false)
    await this.#settle()
    this.#check()
    if (this.pollers.some(({ opening }) => opening)) throw new Error('a poll was never answered')
    const { last } = this.held
    for (const [index, { reader, opening }] of this.clients.entries()) {
      if (opening) throw new Error(`client ${index} never got an answer`)
      try {
        reader?.finish(last)
      } catch (error) {
        const who = `client ${index} (${JSON.stringify(reader?.request)})`
        throw new Error(`${who} ${(error as Error).message}`, { cause: error })
      }
      if (reader) this.#note(reader)
    }
  }

  #check(): void {
    if (this.#failure) throw this.#failure
    for (const [index, { reader }] of this.clients.entries()) {
      if (reader?.failure)
        throw new Error(`client ${index} ${JSON.stringify(reader.request)}: ${reader.failure.message}`)
    }
  }
}
