import { comparePositions, later, type Position } from '../../event.ts'
import type { IdempotencyKeys } from '../embedded/idempotency.ts'
import type { Beginning } from './decisions.ts'
import { StoreDamaged } from './damaged.ts'
import { allOf, commitNumber, META, nameIn, openKey, openPosition, openText, openTopic } from './records.ts'
import { POSITION, sealText, type TopicRecord } from './records.ts'
import { StoreUnusable, type Store } from './store.ts'
import type { Topics } from './topics.ts'

/** The version of how things lie in the store: it is counted up whenever an older version could no longer read them. */
const VERSION = 1

/** What a store says of itself. */
export interface Meta {
  readonly version: number
  /** Where its life began. */
  readonly birth: Position
  /** Up to where it has lost what it had stored. */
  readonly lost: Position
}

/**
 * What a store says of itself; one that is empty begins a life now. Rejects with `StoreUnusable` where it is of a newer
 * version, and with `StoreDamaged`.
 */
export async function readMeta(store: Store, now = Date.now()): Promise<Meta> {
  const value = await store.get(META)
  if (value) return checked(JSON.parse(openText(META, value)) as Meta)
  const [any] = await store.keys({ gte: Buffer.of(0) }, 1)
  if (any) throw new StoreDamaged('the record that says what it is, is missing')
  const meta = newMeta({ ms: now, seq: 0 })
  await writeMeta(store, meta)
  return meta
}

export function newMeta(birth: Position): Meta {
  return { version: VERSION, birth, lost: { ms: 0, seq: 0 } }
}

export async function writeMeta(store: Store, meta: Meta): Promise<void> {
  await store.put(META, sealText(META, JSON.stringify(meta)), true)
}

function checked(meta: Meta): Meta {
  if (meta.version > VERSION) throw new StoreUnusable(`it was written by a newer version (${meta.version})`)
  return meta
}

/**
 * Reads what is kept in memory of a store, and says where it goes on. Looks whether any of the newest commits is missing:
 * LevelDB passes over what is damaged in its log. Rejects with `StoreDamaged`.
 */
export async function load(
  store: Store,
  { birth }: Meta,
  topics: Topics,
  keys: IdempotencyKeys
): Promise<Beginning> {
  const number = await lastCommit(store)
  const records = await readTopics(store)
  for (const [name, record] of records) topics.set(name, record)
  for await (const part of store.parts(allOf('forgotten')))
    for (const [key, value] of part) topics.setForgotten(nameIn(key), openPosition(key, value))
  await readKeys(store, keys)
  const told = await store.get(POSITION)
  const last = records.reduce((last, [, record]) => later(last, record.last), birth)
  return { birth, number, last: told ? later(last, openPosition(POSITION, told)) : last }
}

/** The topics, those with the oldest last event first. */
async function readTopics(store: Store): Promise<[name: string, record: TopicRecord][]> {
  const records: [string, TopicRecord][] = []
  for await (const part of store.parts(allOf('topics')))
    for (const [key, value] of part) records.push([nameIn(key), openTopic(key, value)])
  return records.sort(([, a], [, b]) => comparePositions(a.last, b.last))
}

async function readKeys(store: Store, keys: IdempotencyKeys): Promise<void> {
  const uses = []
  for await (const part of store.parts(allOf('keys')))
    for (const [key, value] of part) uses.push([nameIn(key), openKey(key, value)] as const)
  for (const [hash, use] of uses.sort(([, a], [, b]) => a.until - b.until)) keys.restore(hash, use)
}

/** The number of the last commit. Rejects with `StoreDamaged` where any of the newest is missing. */
export async function lastCommit(store: Store): Promise<number> {
  let last: number | undefined
  for await (const part of store.parts(allOf('commits'))) {
    for (const [key] of part) {
      const number = commitNumber(key)
      if (last !== undefined && number !== last + 1)
        throw new StoreDamaged(`of its newest commits, those from ${last + 1} to ${number - 1} are missing`)
      last = number
    }
  }
  const number = last ?? 0
  const noted = await store.noted()
  if (number < noted)
    throw new StoreDamaged(`its last commits, those from ${number + 1} to ${noted}, are missing`)
  return number
}
