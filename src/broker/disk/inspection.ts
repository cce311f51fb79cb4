import { comparePositions, END, formatPosition, later, wildcardOf, type Position } from '../../event.ts'
import { StoreDamaged } from './damaged.ts'
import { newMeta, readMeta, writeMeta, type Meta } from './load.ts'
import { allOf, commitNumber, nameIn, POSITION, Positions, stateKey, topicKey } from './records.ts'
import {
  openEvent,
  openKey,
  openPosition,
  openState,
  openText,
  openTopic,
  printable,
  topicIn
} from './records.ts'
import { sealPosition, sealText, sealTopic, type TopicRecord } from './records.ts'
import { Store, type Batch } from './store.ts'

/** What an inspection has come to. */
export interface Inspection {
  readonly topics: number
  readonly events: number
  /** What is damaged, a line each; of many only the first are said. */
  readonly damages: readonly string[]
  readonly damageCount: number
}

/** How many damages are said. */
const SAID = 100

/** How many records are changed at a time. */
const STEP = 1000

/**
 * Looks through all of a store that is not in use, and says what in it is not as it was stored. Rejects with
 * `StoreUnusable`, and with `StoreDamaged` where LevelDB can't open it at all.
 */
export async function checkStore(folder: string): Promise<Inspection> {
  return inspect(folder, false)
}

/**
 * Makes a damaged store one that can be used: what is broken is cut out, with all that came before it on its topic, and
 * readers who may miss anything are told that it was lost. Says what was damaged. Rejects with `StoreUnusable`.
 */
export async function repairStore(folder: string, now: number): Promise<Inspection> {
  await Store.salvage(folder)
  return inspect(folder, true, now)
}

async function inspect(folder: string, repairs: boolean, now = 0): Promise<Inspection> {
  const store = await Store.open(folder, { create: false })
  try {
    const inspector = new Inspector(store, repairs)
    const inspection = await inspector.run()
    if (repairs && inspection.damageCount > 0) await inspector.tellLoss(now)
    return inspection
  } finally {
    await store.close()
  }
}

/** What was seen of the events of a topic. */
interface Seen {
  /** What its record says; null where it has none that can be read. */
  record: TopicRecord | null
  first: Position | null
  last: Position
  count: number
  bytes: number
  /** All up to here must go: something in it is broken. */
  cutTo: Position | null
}

class Inspector {
  readonly #store: Store
  readonly #repairs: boolean
  readonly #topics = new Map<string, Seen>()
  readonly #damages: string[] = []
  #damageCount = 0
  #events = 0
  #batch: Batch
  #changes = 0
  #last: Position = { ms: 0, seq: 0 }

  constructor(store: Store, repairs: boolean) {
    this.#store = store
    this.#repairs = repairs
    this.#batch = store.batch()
  }

  async run(): Promise<Inspection> {
    await this.#meta()
    await this.#commits()
    await this.#records()
    await this.#eventsOfTopics()
    await this.#families()
    await this.#settleTopics()
    await this.#simple('keys', openKey)
    await this.#simple('forgotten', openPosition)
    await this.#told()
    await this.#write()
    const [topics, events] = [this.#topics.size, this.#events]
    return { topics, events, damages: this.#damages, damageCount: this.#damageCount }
  }

  /** All who have come no further than now are told that something was lost. */
  async tellLoss(now: number): Promise<void> {
    const meta = await readMeta(this.#store, now)
    const last = later(this.#last, { ms: now, seq: 0 })
    await this.#store.put(POSITION, sealPosition(POSITION, last), true)
    await writeMeta(this.#store, { ...meta, lost: last })
  }

  async #meta(): Promise<void> {
    const beginning: Meta = newMeta({ ms: 0, seq: 0 })
    await this.#try(
      async () => void (await readMeta(this.#store)),
      async () => {
        await writeMeta(this.#store, beginning)
      }
    )
  }

  /** A missing one is damage; after it, all are counted anew. */
  async #commits(): Promise<void> {
    let last: number | undefined
    let missing = 0
    for await (const part of this.#store.parts(allOf('commits'))) {
      for (const [key] of part) {
        const number = commitNumber(key)
        if (last !== undefined) missing += number - last - 1
        last = number
      }
    }
    missing += Math.max(0, (await this.#store.noted()) - (last ?? 0))
    if (missing === 0) return
    this.#damage(`of the newest commits, ${missing} are missing`)
    if (!this.#repairs) return
    await this.#store.note(last ?? 0)
    for await (const part of this.#store.parts(allOf('commits'))) {
      for (const [key] of part) if (commitNumber(key) !== last) await this.#del(key)
    }
  }

  async #records(): Promise<void> {
    for await (const part of this.#store.parts(allOf('topics'))) {
      for (const [key, value] of part) {
        const record = await this.#try(
          () => openTopic(key, value),
          () => this.#del(key)
        )
        if (record) this.#seen(nameIn(key)).record = record
      }
    }
  }

  #seen(topic: string): Seen {
    const zero = { ms: 0, seq: 0 }
    const known = this.#topics.get(topic)
    if (known) return known
    const seen: Seen = { record: null, first: null, last: zero, count: 0, bytes: 0, cutTo: null }
    this.#topics.set(topic, seen)
    return seen
  }

  /** The events, topic by topic: each names the one before it. */
  async #eventsOfTopics(): Promise<void> {
    for await (const part of this.#store.parts(allOf('events'))) {
      for (const [key, value] of part) {
        const event = await this.#try(
          () => openEvent(key, value),
          () => this.#del(key)
        )
        if (!event) {
          const broken = this.#topics.get(topicIn(key))
          if (broken) broken.cutTo = later(broken.cutTo ?? broken.last, Positions.in(key))
          continue
        }
        this.#events++
        const { topic, id, prev } = event
        const seen = this.#seen(topic)
        const base = seen.record?.base ?? prev ?? seen.last
        const expected = seen.count > 0 ? seen.last : base
        if (prev && comparePositions(prev, expected) > 0) {
          if (!seen.cutTo || comparePositions(prev, seen.cutTo) > 0)
            this.#damage(`of topic ${topic}, the event ${formatPosition(prev)} is missing`)
          seen.cutTo = later(seen.cutTo ?? prev, prev)
        }
        if (!seen.cutTo || comparePositions(id, seen.cutTo) > 0) seen.first ??= id
        seen.last = id
        seen.count++
        seen.bytes += key.length + value.length
      }
    }
  }

  /** Each event has its place in its family, and no place is empty. */
  async #families(): Promise<void> {
    for await (const part of this.#store.parts(allOf('families'))) {
      const places: { key: Buffer; event: Buffer }[] = []
      for (const [key, value] of part) {
        const segment = await this.#try(
          () => openText(key, value),
          () => this.#del(key)
        )
        if (segment === undefined) continue
        const topic = topicIn(key).slice(0, -1) + segment
        places.push({ key, event: Positions.ofTopic(topic).key(Positions.in(key)) })
      }
      const values = await this.#store.getMany(places.map(({ event }) => event))
      for (const [index, { key, event }] of places.entries()) {
        if (values[index]) continue
        const known = this.#topics.get(topicIn(event))
        const isForgotten =
          !known || comparePositions(Positions.in(key), known.record?.base ?? known.last) <= 0
        if (!isForgotten) this.#damage(`the record ${printable(event)} is missing`)
        await this.#del(key)
      }
    }
    for await (const part of this.#store.parts(allOf('events'))) {
      const keys = part.map(([key]) => Positions.ofFamily(wildcardOf(topicIn(key))).key(Positions.in(key)))
      const values = await this.#store.getMany(keys)
      for (const [index, key] of keys.entries()) {
        if (values[index]) continue
        this.#damage(`the record ${printable(key)} is missing`)
        const topic = topicIn(part[index]![0])
        await this.#put(key, sealText(key, topic.slice(topic.lastIndexOf('/') + 1)))
      }
    }
  }

  /** What the records say of the topics is what there is; where something is broken, all before it goes. */
  async #settleTopics(): Promise<void> {
    for (const [topic, seen] of this.#topics) {
      const { record } = seen
      this.#last = later(this.#last, later(seen.last, record?.last ?? seen.last))
      if (record && record.count > 0 && comparePositions(record.last, seen.last) > 0) {
        this.#damage(`of topic ${topic}, the event ${formatPosition(record.last)} is missing`)
        seen.cutTo = record.last
      } else if (record && record.count !== seen.count && !seen.cutTo) {
        this.#damage(`of topic ${topic}, there are ${seen.count} events instead of ${record.count}`)
      }
      if (!record) this.#damage(`the record topics ${topic} is missing`)
      await this.#state(topic, seen)
    }
    if (this.#damageCount > 0 && this.#repairs) for (const each of this.#topics) await this.#rebuild(...each)
  }

  async #state(topic: string, { record }: Seen): Promise<void> {
    const key = stateKey(topic)
    const value = await this.#store.get(key)
    if (!value) {
      if (record?.version) this.#damage(`the record ${printable(key)} is missing`)
      return
    }
    const state = await this.#try(
      () => openState(key, value),
      () => this.#del(key)
    )
    if (state && record && (!record.version || comparePositions(record.version, state.version) !== 0))
      this.#damage(`of topic ${topic}, the state is not of the version that its record says`)
  }

  async #rebuild(topic: string, { record, cutTo, last }: Seen): Promise<void> {
    const events = Positions.ofTopic(topic)
    const places = Positions.ofFamily(wildcardOf(topic))
    const base = later(record?.base ?? { ms: 0, seq: 0 }, cutTo ?? { ms: 0, seq: 0 })
    let [count, bytes] = [0, 0]
    let isEnded = false
    let first: Position | undefined
    let floor: Position | undefined
    const all = { gte: events.key({ ms: 0, seq: 0 }), lte: events.key(later(last, record?.last ?? last)) }
    for await (const part of this.#store.parts(all)) {
      for (const [key, value] of part) {
        const id = Positions.in(key)
        if (comparePositions(id, base) <= 0) {
          await this.#del(key)
          await this.#del(places.key(id))
          continue
        }
        const event = await this.#try(
          () => openEvent(key, value),
          () => this.#del(key)
        )
        if (!event) continue
        isEnded = event.type === END
        first ??= id
        floor ??= event.prev ?? base
        count++
        bytes += key.length + value.length
      }
    }
    await this.#rewrite(topic, {
      record,
      base: later(base, floor ?? base),
      first,
      count,
      bytes,
      last,
      isEnded
    })
  }

  async #rewrite(
    topic: string,
    {
      record,
      last,
      first = last,
      ...rest
    }: {
      record: TopicRecord | null
      base: Position
      first: Position | undefined
      last: Position
      count: number
      bytes: number
      isEnded: boolean
    }
  ): Promise<void> {
    const stored = await this.#store.get(stateKey(topic))
    let version: Position | null = null
    let stateBytes = 0
    if (stored) {
      try {
        const state = openState(stateKey(topic), stored)
        version = state.version
        stateBytes = Buffer.byteLength(state.value)
      } catch {
        // it has been said, and is gone
      }
    }
    const key = topicKey(topic)
    const own = { ...rest, first, last: later(last, record?.last ?? last), version, stateBytes }
    await this.#put(key, sealTopic(key, own))
  }

  /** Records that stand for themselves. */
  async #simple(kind: 'keys' | 'forgotten', open: (key: Buffer, value: Buffer) => unknown): Promise<void> {
    for await (const part of this.#store.parts(allOf(kind)))
      for (const [key, value] of part)
        await this.#try(
          () => open(key, value),
          () => this.#del(key)
        )
  }

  async #told(): Promise<void> {
    const value = await this.#store.get(POSITION)
    const told =
      value &&
      (await this.#try(
        () => openPosition(POSITION, value),
        () => this.#del(POSITION)
      ))
    if (told) this.#last = later(this.#last, told)
  }

  /** Does something; where it meets a damage, says so and mends it. */
  async #try<T>(read: () => T | Promise<T>, mend: () => Promise<void>): Promise<T | undefined> {
    try {
      return await read()
    } catch (error) {
      if (!(error instanceof StoreDamaged)) throw error
      this.#damage(error.message)
      if (this.#repairs) await mend()
      return undefined
    }
  }

  #damage(text: string): void {
    this.#damageCount++
    if (this.#damages.length < SAID) this.#damages.push(text)
  }

  #put(key: Buffer, value: Buffer): Promise<void> {
    if (!this.#repairs) return Promise.resolve()
    this.#batch.put(key, value)
    return this.#changed()
  }

  #del(key: Buffer): Promise<void> {
    if (!this.#repairs) return Promise.resolve()
    this.#batch.del(key)
    return this.#changed()
  }

  async #changed(): Promise<void> {
    if (++this.#changes >= STEP) await this.#write()
  }

  async #write(): Promise<void> {
    if (this.#changes === 0) return void (await this.#batch.close())
    await this.#store.write(this.#batch, true)
    this.#batch = this.#store.batch()
    this.#changes = 0
  }
}
