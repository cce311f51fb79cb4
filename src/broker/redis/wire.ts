import { formatPosition, parsePosition } from '../../event.ts'
import type { Member, Position, Signal, StoredEvent } from '../../event.ts'
import type { Append } from '../event-log.ts'
import { keyHash } from '../fingerprint.ts'
import { memberBytes } from '../roster.ts'

// What goes to Redis and comes from there, as text and bytes: the scripts' arguments and answers, the announcements.

/** How long a command may take before it counts as unanswered, in milliseconds. */
export const COMMAND_TIMEOUT_MS = 2000

/**
 * How scripts announce: on a Cluster that can do so, to the node of the channel's slot alone; with the name of a database
 * that is not 0, which a Cluster doesn't have.
 */
export type PublishCommand = 'PUBLISH' | 'SPUBLISH' | `PUBLISH @${number}`

/** What became of one event that was to be stored. */
export type ShardOutcome =
  /**
   * `cursor`: what the event that was stored first said; undefined where it said nothing. `isEphemeral`: it was handed over,
   * and is not to be found in the store.
   */
  | {
      readonly outcome: 'stored' | 'replayed'
      readonly id: Position
      readonly cursor?: string
      readonly isEphemeral?: true
    }
  | { readonly outcome: 'key reused' | 'conflict' | 'ended' | 'not stored' }

/** What the append script says of one event: Redis may have refused it alone, and `reason` is what it said. */
export type ScriptOutcome = ShardOutcome | { readonly outcome: 'failed'; readonly reason: string }

/** An event to be stored. */
export interface ShardAppend {
  readonly event: Append
  /** What tells it apart from others under the same key; empty without a key. */
  readonly print: string
  /** What is stored with its key, and told whenever that is used again; nothing where there is none. */
  readonly cursor?: string
}

/** An entry of a ring, as Redis gives it. Its fields are `h`, the head, `d`, the data. */
export type RangeEntry = [id: Buffer, fields: Buffer[]]
/** What the range script returns. */
export type RangeAnswer = [lastId: Buffer, birth: Buffer, lost: Buffer, ...rest: (Buffer | RangeEntry[])[]]

/** An announcement: `id prev expires encoding type topic`, a line end, the data. */
export function readMessage(message: Buffer, shard: number): StoredEvent {
  const end = message.indexOf(0x0a)
  const [id, prev, expires, encoding, type, ...topic] = message.toString('utf8', 0, end).split(' ')
  return makeEvent(
    id!,
    [prev!, expires!, encoding!, type!],
    topic.join(' '),
    message.subarray(end + 1),
    shard
  )
}

/** An entry of a topic's ring as the event that it is. */
export function readEntry([id, fields]: RangeEntry, topic: string, shard: number): StoredEvent {
  return makeEvent(id.toString(), fields[1]!.toString().split(' '), topic, fields[3]!, shard)
}

/** What an entry of a ring says of an event besides its id and its data. */
export function eventHead({ prev, expires, data, type }: StoredEvent): string {
  return `${prev ? formatPosition(prev) : '-'} ${expires ?? '-'} ${typeof data === 'string' ? 't' : 'b'} ${type}`
}

function makeEvent(
  id: string,
  [prev, expires, encoding, type]: string[],
  topic: string,
  data: Buffer,
  shard: number
): StoredEvent {
  return {
    id: parsePosition(id)!,
    shard,
    topic,
    type: type!,
    data: encoding === 't' ? data.toString() : data,
    prev: parsePosition(prev!) ?? null,
    ...(expires !== '-' && { expires: Number(expires) })
  }
}

/** What the append script returned of each event. */
export function readOutcomes(answer: readonly string[]): ScriptOutcome[] {
  const outcomes: ScriptOutcome[] = []
  for (let index = 2; index < answer.length; index += 2) {
    const outcome = answer[index] as ScriptOutcome['outcome']
    const detail = answer[index + 1]!
    if (outcome === 'stored' || outcome === 'replayed') {
      const [id, cursor = '-', live] = detail.split(' ')
      outcomes.push({
        outcome,
        id: parsePosition(id!)!,
        ...(cursor !== '-' && { cursor }),
        ...(live && { isEphemeral: true })
      })
    } else if (outcome === 'failed') outcomes.push({ outcome, reason: detail })
    else outcomes.push({ outcome })
  }
  return outcomes
}

/** An event as the append script takes it: topic, encoding and type, data, options, and the value of its state. */
export type EventArguments = [string, string, string | Buffer, string, string]

/** How many arguments of the append script are one event. */
export const EVENT_ARGUMENTS = 5

/** How much of an event's topic is kept, and for how long (milliseconds), where that is not the same for all of a call. */
export interface Retention {
  /** How many events; 0 of an event that is never stored. */
  readonly ring: number
  /** The largest ring that a topic of its wildcard has. */
  readonly most: number
  readonly ringMs: number
  /** Infinity for ever. */
  readonly stateMs: number
}

export function eventArguments(append: ShardAppend, retention?: Retention): EventArguments {
  const { topic, type, data, state } = append.event
  const options = optionsOf(append, retention)
  const value = state?.value ?? ''
  return typeof data === 'string'
    ? [topic, `t ${type}`, data, options, value]
    : [topic, `b ${type}`, bytesOf(data), options, value]
}

/**
 * What is special about an event: `ttl key print cursor change version ring most ring_ms state_ms`, `-` for each that is
 * not; '' where nothing is.
 */
function optionsOf(
  { event: { ttl, key, state }, print, cursor }: ShardAppend,
  retention: Retention | undefined
): string {
  if (ttl === undefined && key === undefined && state === undefined && !retention) return ''
  const change = state && (state.value === null ? 'delete' : 'set')
  const version = state?.version === null ? 'none' : state?.version && formatPosition(state.version)
  const milliseconds = ttl && String(ttl * 1000)
  const hash = key !== undefined && keyHash(key)
  return [milliseconds, hash, hash && print, hash && cursor, change, version, ...retained(retention)]
    .map(option => option || '-')
    .join(' ')
}

function retained(retention: Retention | undefined): (string | undefined)[] {
  if (!retention) return []
  const { ring, most, ringMs, stateMs } = retention
  return [ring, most, ringMs, stateMs === Infinity ? 0 : stateMs].map(String)
}

/** A position as scripts take it: its milliseconds, and its number within them. */
export function positionArguments({ ms, seq }: Position): [string, string] {
  return [String(ms), String(seq)]
}

function bytesOf(data: Uint8Array): Buffer {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength)
}

// --- members and signals ---

/** A change of who is a member of a topic; `text` is what the member is now, null when it has left. */
export interface MemberChange {
  readonly at: Position
  readonly topic: string
  readonly id: string
  readonly text: string | null
}

/** What a member is, besides its id. */
export function memberText({ sub, info }: Member): string {
  return JSON.stringify([sub, info])
}

export function readMember(id: string, text: string): Member {
  const [sub, info] = JSON.parse(text) as [string | null, string | null]
  return { id, sub, info }
}

/** About how many bytes of memory a member takes; its text is null where it is none. */
export function memberTextBytes(topic: string, id: string, text: string | null): number {
  return text === null ? 0 : memberBytes(topic, id, text)
}

/** The members of a topic, as Redis gives them: each after its instance. */
export function readMembers(list: readonly string[]): [id: string, text: string][] {
  return Array.from({ length: list.length / 2 }, (_, index) => {
    const value = list[2 * index + 1]!
    return [list[2 * index]!, value.slice(value.indexOf(' ') + 1)]
  })
}

/** An announcement of a change: `+` or `-`, `at id topic`, a line end, what it is. Null for that of a signal. */
export function readChange(message: Buffer): MemberChange | null {
  if (message[0] === SIGNAL) return null
  const end = message.indexOf(0x0a)
  const [what, at, id, ...topic] = message.toString('utf8', 0, end).split(' ')
  return {
    at: parsePosition(at!)!,
    topic: topic.join(' '),
    id: id!,
    text: what === '-' ? null : message.toString('utf8', end + 1)
  }
}

/** The first byte of the announcement of a signal. */
const SIGNAL = 0x73

/** A signal: `s`, `sender encoding topic`, a line end, who it is from as JSON, a line end, the data. */
export function signalBytes({ topic, sender, from, data }: Signal): Buffer {
  const isText = typeof data === 'string'
  const head = `s ${sender} ${isText ? 't' : 'b'} ${topic}\n${JSON.stringify(from)}\n`
  return isText ? Buffer.from(head + data) : Buffer.concat([Buffer.from(head), data])
}

export function readSignal(message: Buffer): Signal {
  const end = message.indexOf(0x0a)
  const [, sender, encoding, ...topic] = message.toString('utf8', 0, end).split(' ')
  const second = message.indexOf(0x0a, end + 1)
  const data = message.subarray(second + 1)
  return {
    topic: topic.join(' '),
    sender: sender!,
    from: JSON.parse(message.toString('utf8', end + 1, second)) as string | null,
    data: encoding === 't' ? data.toString() : data
  }
}
