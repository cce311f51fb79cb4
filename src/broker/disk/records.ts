import { crc32 } from 'node:zlib'
import type { Data, Position, StoredEvent } from '../../event.ts'
import type { KeyUse } from '../embedded/idempotency.ts'
import type { State } from '../event-log.ts'
import { StoreDamaged } from './damaged.ts'

/**
 * How what is stored lies in the store: keys that sort as what they name does, and values that begin with a checksum over
 * the key and the rest. LevelDB checks what it reads after a crash, and nothing that it reads later.
 */

/** A range of keys, with neither end in it unless it says so. */
export interface KeyRange {
  readonly gt?: Buffer
  readonly gte?: Buffer
  readonly lt?: Buffer
  readonly lte?: Buffer
}

/** What kind of record a key names: its first byte. */
const KINDS = {
  meta: 'm',
  position: 'p',
  commits: 'c',
  events: 'e',
  /** The events of all topics of a wildcard, in the order of their ids. */
  families: 'f',
  topics: 't',
  states: 's',
  keys: 'k',
  /** Up to where topics of a wildcard have been forgotten. */
  forgotten: 'w'
} as const

type Kind = keyof typeof KINDS

/** All keys of a kind. */
export function allOf(kind: Kind): { gte: Buffer; lt: Buffer } {
  const first = KINDS[kind].charCodeAt(0)
  return { gte: Buffer.from([first]), lt: Buffer.from([first + 1]) }
}

/** What the key of a record of a kind names. */
export function nameIn(key: Buffer): string {
  return key.toString('utf8', 1)
}

// --- keys ---

/** Bytes of a position in a key or value: six of milliseconds, four of a counter. */
const POSITION_BYTES = 10

/** The most that a counter can be. */
export const MOST_SEQ = 0xffff_ffff

export const META = Buffer.from(KINDS.meta)
export const POSITION = Buffer.from(KINDS.position)

export function topicKey(topic: string): Buffer {
  return Buffer.from(KINDS.topics + topic)
}

export function stateKey(topic: string): Buffer {
  return Buffer.from(KINDS.states + topic)
}

/** `hash`: what the key is called, as `keyHash` says it. */
export function idempotencyKey(hash: string): Buffer {
  return Buffer.from(KINDS.keys + hash)
}

/** Stands for all wildcards that have no topics any more. */
export const OTHERS = ''

export function forgottenKey(wildcard: string): Buffer {
  return Buffer.from(KINDS.forgotten + wildcard)
}

export function commitKey(number: number): Buffer {
  const key = Buffer.allocUnsafe(7)
  key.write(KINDS.commits, 'latin1')
  key.writeUIntBE(number, 1, 6)
  return key
}

export function commitNumber(key: Buffer): number {
  return key.readUIntBE(1, 6)
}

/** The keys of the events of one topic, or in the order of one family. No name holds a NUL, so none is within another. */
export class Positions {
  readonly #prefix: Buffer

  private constructor(kind: Kind, name: string) {
    this.#prefix = Buffer.from(`${KINDS[kind]}${name}\0`)
  }

  static ofTopic(topic: string): Positions {
    return new Positions('events', topic)
  }

  static ofFamily(wildcard: string): Positions {
    return new Positions('families', wildcard)
  }

  key(position: Position): Buffer {
    const length = this.#prefix.length
    const key = Buffer.allocUnsafe(length + POSITION_BYTES)
    this.#prefix.copy(key)
    return writePosition(key, position, length)
  }

  /** The position that a key ends in. */
  static in(key: Buffer): Position {
    return positionIn(key)
  }

  /** After a position, up to another one. */
  between(after: Position, last: Position): KeyRange {
    return { gt: this.key(after), lte: this.key(last) }
  }
}

function positionIn(key: Buffer): Position {
  return readPosition(key, key.length - POSITION_BYTES)
}

/** The topic of an event's key. */
export function topicIn(key: Buffer): string {
  return key.toString('utf8', 1, key.length - POSITION_BYTES - 1)
}

function writePosition(buffer: Buffer, { ms, seq }: Position, at: number): Buffer {
  buffer.writeUIntBE(ms, at, 6)
  buffer.writeUInt32BE(seq, at + 6)
  return buffer
}

function readPosition(buffer: Buffer, at: number): Position {
  return { ms: buffer.readUIntBE(at, 6), seq: buffer.readUInt32BE(at + 6) }
}

// --- values ---

const CHECKSUM_BYTES = 4

/** A value as it is stored: a checksum, then what `fill` writes into so many bytes. */
function sealed(key: Buffer, length: number, fill: (value: Buffer) => void): Buffer {
  const value = Buffer.allocUnsafe(CHECKSUM_BYTES + length)
  fill(value)
  value.writeUInt32BE(checksum(key, value), 0)
  return value
}

function checksum(key: Buffer, value: Buffer): number {
  return crc32(value.subarray(CHECKSUM_BYTES), crc32(key))
}

/** Throws `StoreDamaged` for a value that is not as it was stored under its key. */
function check(key: Buffer, value: Buffer): void {
  if (value.length < CHECKSUM_BYTES || value.readUInt32BE(0) !== checksum(key, value))
    throw new StoreDamaged(`the checksum of the record ${printable(key)} is wrong`)
}

/** A key as people can read it: its kind and name, and where it has one its position. */
export function printable(key: Buffer): string {
  const kind = Object.entries(KINDS).find(([, letter]) => letter.charCodeAt(0) === key[0])?.[0] ?? 'unknown'
  const end = key.indexOf(0)
  const named = kind === 'events' || kind === 'families'
  if (!named || end < 0 || key.length !== end + 1 + POSITION_BYTES)
    return `${kind} ${kind === 'commits' ? '' : nameIn(key)}`.trim()
  const { ms, seq } = positionIn(key)
  return `${kind} ${topicIn(key)} ${ms}-${seq}`
}

/** Text that stands for itself. */
export function sealText(key: Buffer, text: string): Buffer {
  return sealed(key, Buffer.byteLength(text), value => value.write(text, CHECKSUM_BYTES))
}

/** Throws `StoreDamaged`. */
export function openText(key: Buffer, value: Buffer): string {
  check(key, value)
  return value.toString('utf8', CHECKSUM_BYTES)
}

export function sealPosition(key: Buffer, position: Position): Buffer {
  return sealed(key, POSITION_BYTES, value => writePosition(value, position, CHECKSUM_BYTES))
}

/** Throws `StoreDamaged`. */
export function openPosition(key: Buffer, value: Buffer): Position {
  check(key, value)
  return readPosition(value, CHECKSUM_BYTES)
}

const HAS_PREV = 1
const HAS_EXPIRY = 2
const IS_BYTES = 4

/** Flags, the position before, when it runs out, how long its type is. */
const EVENT_HEAD = 1 + POSITION_BYTES + 6 + 1

export function sealEvent(key: Buffer, { type, data, prev, expires }: StoredEvent): Buffer {
  const isText = typeof data === 'string'
  const typeBytes = Buffer.byteLength(type)
  const dataBytes = isText ? Buffer.byteLength(data) : data.byteLength
  return sealed(key, EVENT_HEAD + typeBytes + dataBytes, value => {
    let at = CHECKSUM_BYTES
    value[at++] = (prev ? HAS_PREV : 0) | (expires === undefined ? 0 : HAS_EXPIRY) | (isText ? 0 : IS_BYTES)
    writePosition(value, prev ?? { ms: 0, seq: 0 }, at)
    value.writeUIntBE(expires ?? 0, (at += POSITION_BYTES), 6)
    value[(at += 6)] = typeBytes
    value.write(type, (at += 1))
    at += typeBytes
    if (isText) value.write(data, at)
    else value.set(data, at)
  })
}

/** An event of a log with one shard. Throws `StoreDamaged`. */
export function openEvent(key: Buffer, value: Buffer): StoredEvent {
  check(key, value)
  let at = CHECKSUM_BYTES
  const flags = value[at++]!
  const prev = flags & HAS_PREV ? readPosition(value, at) : null
  const expires = value.readUIntBE((at += POSITION_BYTES), 6)
  const typeBytes = value[(at += 6)]!
  const type = value.toString('utf8', (at += 1), at + typeBytes)
  const rest = value.subarray(at + typeBytes)
  const data: Data = flags & IS_BYTES ? new Uint8Array(rest) : rest.toString()
  const event = { id: positionIn(key), shard: 0, topic: topicIn(key), type, data, prev }
  return flags & HAS_EXPIRY ? { ...event, expires } : event
}

/** What is stored of a topic besides its events and its state. */
export interface TopicRecord {
  /** The id of its last event; before its first, up to where topics of its family had been forgotten. */
  readonly last: Position
  /** The id of the oldest event that is held; of no meaning where there is none. */
  readonly first: Position
  /** The id of the last event that was dropped; before any was, as `last`. */
  readonly base: Position
  /** How many events are held, and how many bytes they take in the store. */
  readonly count: number
  readonly bytes: number
  /** The version of its state, null where it has none, and how many bytes that takes in the store. */
  readonly version: Position | null
  readonly stateBytes: number
  /** Whether its last event is an `end`, held or not. */
  readonly isEnded: boolean
}

const HAS_VERSION = 1
const IS_ENDED = 2

const TOPIC_BYTES = 4 * POSITION_BYTES + 4 + 6 + 4 + 1

export function sealTopic(key: Buffer, record: TopicRecord): Buffer {
  const { last, first, base, count, bytes, version, stateBytes, isEnded } = record
  return sealed(key, TOPIC_BYTES, value => {
    let at = CHECKSUM_BYTES
    for (const position of [last, first, base, version ?? last]) {
      writePosition(value, position, at)
      at += POSITION_BYTES
    }
    value.writeUInt32BE(count, at)
    value.writeUIntBE(bytes, at + 4, 6)
    value.writeUInt32BE(stateBytes, at + 10)
    value[at + 14] = (version ? HAS_VERSION : 0) | (isEnded ? IS_ENDED : 0)
  })
}

/** Throws `StoreDamaged`. */
export function openTopic(key: Buffer, value: Buffer): TopicRecord {
  check(key, value)
  const position = (index: number) => readPosition(value, CHECKSUM_BYTES + index * POSITION_BYTES)
  const at = CHECKSUM_BYTES + 4 * POSITION_BYTES
  const flags = value[at + 14]!
  return {
    last: position(0),
    first: position(1),
    base: position(2),
    version: flags & HAS_VERSION ? position(3) : null,
    count: value.readUInt32BE(at),
    bytes: value.readUIntBE(at + 4, 6),
    stateBytes: value.readUInt32BE(at + 10),
    isEnded: (flags & IS_ENDED) !== 0
  }
}

export function sealState(key: Buffer, { value: text, version }: State): Buffer {
  return sealed(key, POSITION_BYTES + Buffer.byteLength(text), value => {
    writePosition(value, version, CHECKSUM_BYTES)
    value.write(text, CHECKSUM_BYTES + POSITION_BYTES)
  })
}

/** Throws `StoreDamaged`. */
export function openState(key: Buffer, value: Buffer): State {
  check(key, value)
  return {
    value: value.toString('utf8', CHECKSUM_BYTES + POSITION_BYTES),
    version: readPosition(value, CHECKSUM_BYTES)
  }
}

/** What an idempotency key was used for. Its fingerprint is text of ASCII. */
export function sealKey(key: Buffer, { id, print, until }: KeyUse): Buffer {
  return sealed(key, 6 + POSITION_BYTES + print.length, value => {
    value.writeUIntBE(until, CHECKSUM_BYTES, 6)
    writePosition(value, id[0]!, CHECKSUM_BYTES + 6)
    value.write(print, CHECKSUM_BYTES + 6 + POSITION_BYTES, 'latin1')
  })
}

/** Throws `StoreDamaged`. */
export function openKey(key: Buffer, value: Buffer): KeyUse {
  check(key, value)
  return {
    until: value.readUIntBE(CHECKSUM_BYTES, 6),
    id: [readPosition(value, CHECKSUM_BYTES + 6)],
    print: value.toString('latin1', CHECKSUM_BYTES + 6 + POSITION_BYTES)
  }
}
