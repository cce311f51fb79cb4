import { END, later, wildcardOf, type Position, type StoredEvent } from '../../event.ts'
import {
  inSteps,
  readLines,
  TransferFailed,
  Wrong,
  wrongLine,
  type Line,
  type TopicFacts
} from '../transfer.ts'
import { lastCommit, newMeta, readMeta, writeMeta, type Meta } from './load.ts'
import { allOf, forgottenKey, idempotencyKey, nameIn, POSITION, Positions } from './records.ts'
import { openEvent, openKey, openPosition, openState, openTopic, stateKey, topicKey } from './records.ts'
import { sealKey, sealPosition, sealState, sealTopic, type TopicRecord } from './records.ts'
import { putEvent, type Places } from './puts.ts'
import { Store, type Batch } from './store.ts'

/** How many records are written at a time; and after how many bytes they are. */
const STEP = 1000
const BYTES = 1024 * 1024

// --- from the disk ---

/**
 * All lines of a store that is not in use, some at a time. Throws `StoreUnusable`, and `StoreDamaged` as soon as it meets
 * what is not as it was stored.
 */
export async function* exportStore(folder: string): AsyncGenerator<Line[]> {
  const store = await Store.open(folder, { create: false })
  try {
    yield* inSteps(linesOf(store))
  } finally {
    await store.close()
  }
}

/** Returns up to where it has lost something. */
async function* linesOf(store: Store): AsyncGenerator<Line, Position> {
  const { birth, lost } = await readMeta(store)
  await lastCommit(store)
  yield { kind: 'head', birth, lost, position: await positionOf(store, birth) }
  for await (const part of store.parts(allOf('topics')))
    for (const [key, value] of part) yield* topicLines(store, nameIn(key), openTopic(key, value))
  for await (const part of store.parts(allOf('forgotten')))
    for (const [key, value] of part)
      yield { kind: 'forgotten', wildcard: nameIn(key), upTo: openPosition(key, value) }
  for await (const part of store.parts(allOf('keys'))) {
    for (const [key, value] of part) {
      const { id, print, until } = openKey(key, value)
      yield { kind: 'key', hash: nameIn(key), use: { id: id[0]!, print, until } }
    }
  }
  return lost
}

/** The last position that it has given or told. */
async function positionOf(store: Store, birth: Position): Promise<Position> {
  const told = await store.get(POSITION)
  let last = told ? later(birth, openPosition(POSITION, told)) : birth
  for await (const part of store.parts(allOf('topics')))
    for (const [key, value] of part) last = later(last, openTopic(key, value).last)
  return last
}

async function* topicLines(store: Store, topic: string, record: TopicRecord): AsyncGenerator<Line> {
  const { base, last, count, version } = record
  yield { kind: 'topic', topic, last }
  const key = stateKey(topic)
  const state = version && (await store.get(key))
  if (state) yield { kind: 'state', topic, state: openState(key, state) }
  if (count === 0) return
  for await (const part of store.parts(Positions.ofTopic(topic).between(base, last)))
    for (const [key, value] of part) yield { kind: 'event', event: openEvent(key, value) }
}

// --- to the disk ---

/**
 * Fills a store, which must be empty or not there, with what some lines say. When anything is wrong nothing is left in it, and
 * until the end has come it can't be opened. Throws `TransferFailed`, `StoreUnusable` and `StoreDamaged`.
 */
export async function importStore(folder: string, chunks: AsyncIterable<Uint8Array>): Promise<void> {
  const store = await Store.open(folder)
  try {
    const [any] = await store.keys({ gte: Buffer.of(0) }, 1)
    if (any)
      throw new TransferFailed('there is something in it already: a store is moved into an empty folder')
    await fill(store, chunks).catch(async error => {
      await store.clear()
      throw error
    })
  } finally {
    await store.close()
  }
}

async function fill(store: Store, chunks: AsyncIterable<Uint8Array>): Promise<void> {
  const filling = new Filling(store)
  for await (const lines of readLines(chunks)) {
    for (const [number, line] of lines) {
      try {
        await filling.take(line)
      } catch (error) {
        throw wrongLine(number, error)
      }
    }
  }
  await filling.finish()
}

/** A topic whose lines come, as far as they have come. */
interface Begun extends Places {
  readonly name: string
  readonly facts: TopicFacts
  first: Position | undefined
  base: Position
  count: number
  bytes: number
  version: Position | null
  stateBytes: number
  /** Whether the last event that came is an `end`. */
  isEnded: boolean
}

/** Writes what lines say, some at a time. What says that it is a store comes last. */
class Filling {
  readonly #store: Store
  #batch: Batch
  #changes = 0
  #bytes = 0
  /** The topics whose records are in the batch. */
  readonly #written = new Set<string>()
  #topic: Begun | null = null
  #meta: Meta = newMeta({ ms: 0, seq: 0 })

  constructor(store: Store) {
    this.#store = store
    this.#batch = store.batch()
  }

  async take(line: Line): Promise<void> {
    if (line.kind === 'state') this.#takeState(line)
    else if (line.kind === 'event') this.#takeEvent(line.event)
    else await this.#takeOther(line)
    if (this.#changes >= STEP || this.#bytes >= BYTES) await this.#write()
  }

  /** Makes a store of it. */
  async finish(): Promise<void> {
    await this.#write()
    await this.#store.note(0)
    await writeMeta(this.#store, this.#meta)
  }

  async #takeOther(line: Exclude<Line, { kind: 'event' | 'state' }>): Promise<void> {
    this.#endTopic()
    switch (line.kind) {
      case 'head':
        this.#meta = { ...newMeta(line.birth), lost: line.lost }
        return this.#put(POSITION, sealPosition(POSITION, line.position))
      case 'topic':
        return this.#begin(line)
      case 'forgotten':
        return this.#put(forgottenKey(line.wildcard), sealPosition(forgottenKey(line.wildcard), line.upTo))
      case 'key': {
        const key = idempotencyKey(line.hash)
        return this.#put(key, sealKey(key, { ...line.use, id: [line.use.id] }))
      }
      case 'end':
        this.#meta = { ...this.#meta, lost: later(this.#meta.lost, line.lost) }
    }
  }

  async #begin({ topic: name, last }: Extract<Line, { kind: 'topic' }>): Promise<void> {
    if (this.#written.has(name) || (await this.#store.get(topicKey(name))))
      throw new Wrong(`topic ${name} was there before`)
    const places = { events: Positions.ofTopic(name), family: Positions.ofFamily(wildcardOf(name)) }
    const nothing = {
      first: undefined,
      base: last,
      count: 0,
      bytes: 0,
      version: null,
      stateBytes: 0,
      isEnded: false
    }
    this.#topic = { name, facts: { last }, ...places, ...nothing }
  }

  #takeState({ topic, state }: Extract<Line, { kind: 'state' }>): void {
    const begun = this.#topic!
    begun.version = state.version
    begun.stateBytes = Buffer.byteLength(state.value)
    this.#put(stateKey(topic), sealState(stateKey(topic), state))
  }

  #takeEvent(event: StoredEvent): void {
    const begun = this.#topic!
    if (!begun.first) {
      begun.first = event.id
      begun.base = event.prev ?? this.#meta.birth
    }
    const bytes = putEvent(this.#batch, begun, event)
    begun.isEnded = event.type === END
    begun.count++
    begun.bytes += bytes
    this.#changes++
    this.#bytes += bytes
  }

  #endTopic(): void {
    const begun = this.#topic
    this.#topic = null
    if (!begun) return
    const { name, facts, base, first = facts.last, count, bytes, version, stateBytes, isEnded } = begun
    const key = topicKey(name)
    this.#put(key, sealTopic(key, { ...facts, base, first, count, bytes, version, stateBytes, isEnded }))
    this.#written.add(name)
  }

  #put(key: Buffer, value: Buffer): void {
    this.#batch.put(key, value)
    this.#changes++
    this.#bytes += value.length
  }

  /** Flushed each time: what LevelDB has written before is not flushed with what comes later. */
  async #write(): Promise<void> {
    await this.#store.write(this.#batch, true)
    this.#batch = this.#store.batch()
    this.#changes = 0
    this.#bytes = 0
    this.#written.clear()
  }
}
