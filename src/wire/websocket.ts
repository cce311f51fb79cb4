import type { Data, Member, Signal } from '../event.ts'
import { decodeCbor, definedIn, encodeCbor, fromCbor, toCbor } from './cbor.ts'
import { WireError } from './error.ts'
import { base64, envelope, type TwoWayFormat } from './format.ts'
import { hasPlainNumbers, memberOf } from './json.ts'

/** The subprotocols, the one first that is spoken with who asks for none. */
export const PROTOCOLS = ['ringside.v1.json', 'ringside.v1.cbor'] as const
export type Protocol = (typeof PROTOCOLS)[number]

/** What an answer holds besides `op` and `ref`. */
export interface AnswerBody {
  readonly cursor?: string
  readonly id?: string
  readonly unread?: number
  readonly members?: readonly Member[]
  /** There are more members than are told. */
  readonly more?: true
  readonly code?: string
  readonly message?: string
}

/** What a client may call its message, and is answered with; null for one that can't be told. */
export type Ref = string | number | null

/** A message of a client that could be read. */
export interface ClientMessage {
  readonly members: Readonly<Record<string, unknown>>
  /** A member as it is passed on: compact JSON as it was written, or bytes. Throws a `WireError`. */
  dataOf(name: string): Data
}

/** The messages of one subprotocol. Every frame is a whole WebSocket message, unmasked (RFC 6455, section 5.2). */
export interface WebSocketFormat extends TwoWayFormat {
  readonly protocol: Protocol
  /** Whether its messages are binary frames; else text. */
  readonly isBinary: boolean
  answer(op: string, ref: Ref, body: AnswerBody): Buffer
  /** Reads a client's message. Throws a `WireError`. */
  read(bytes: Buffer): ClientMessage
}

/** The format of a subprotocol. */
export function websocketFormat(protocol: Protocol): WebSocketFormat {
  return protocol === 'ringside.v1.cbor' ? cbor : json
}

/** A ping without data (RFC 6455, section 5.5.2). */
export const PING = Buffer.from([0x89, 0])

const EMPTY = Buffer.alloc(0)
const TEXT = 0x81
const BINARY = 0x82

/** A whole message in one frame: its last one, of this opcode, of a payload of so many bytes that is to follow `head`. */
function openFrame(firstByte: number, size: number): { frame: Buffer; head: number } {
  const head = size < 126 ? 2 : size < 65_536 ? 4 : 10
  const frame = Buffer.allocUnsafe(head + size)
  frame[0] = firstByte
  frame[1] = size < 126 ? size : size < 65_536 ? 126 : 127
  if (head === 4) frame.writeUInt16BE(size, 2)
  if (head === 10) frame.writeBigUInt64BE(BigInt(size), 2)
  return { frame, head }
}

function textFrame(text: string): Buffer {
  const { frame, head } = openFrame(TEXT, Buffer.byteLength(text))
  frame.write(text, head)
  return frame
}

function binaryFrame(bytes: Uint8Array): Buffer {
  const { frame, head } = openFrame(BINARY, bytes.length)
  frame.set(bytes, head)
  return frame
}

/** Who sends a signal, as the others see it: named as a member is, by the connection, which nobody else has, and the user. */
function senderOf({ sender, from }: Signal): Pick<Member, 'id' | 'sub'> {
  return { id: sender, sub: from }
}

// --- ringside.v1.json ---

const json: WebSocketFormat = {
  key: 'ws,json',
  transport: 'ws',
  delivers: true,
  protocol: 'ringside.v1.json',
  isBinary: false,
  /** Nothing: the answer to the subscription says where it starts from. */
  open: () => EMPTY,
  event: (event, cursor) => textFrame(`{"op":"event",${envelope(event, cursor).slice(1)}`),
  snapshot: (event, cursor) => json.event(event, cursor),
  gap: ({ reason, topics, after }) => textFrame(JSON.stringify({ op: 'gap', reason, topics, after })),
  note: (type, text) =>
    textFrame(`{"op":"event","type":${JSON.stringify(type)},"data":${text.replace(/[\r\n]+/g, ' ')}}`),
  keepAlive: (cursor, topics) => textFrame(JSON.stringify({ op: 'cursor', cursor, topics })),
  heartbeat: () => EMPTY,
  stale: since => textFrame(JSON.stringify({ op: 'stale', since })),
  fresh: (cursor, topics) => json.keepAlive(cursor, topics),
  /** Nothing: the close frame says it. */
  goodbye: () => EMPTY,
  joined: (topic, member) => textFrame(presenceJson('joined', topic, member)),
  left: (topic, member) => textFrame(presenceJson('left', topic, member)),
  signal: signal => {
    const { topic, data } = signal
    const head = JSON.stringify({ op: 'signal', topic, from: senderOf(signal) }).slice(0, -1)
    return textFrame(
      typeof data === 'string'
        ? `${head},"data":${data}}`
        : `${head},"encoding":"base64","data":"${base64(data)}"}`
    )
  },
  answer: (op, ref, { members, ...rest }) => {
    const text = JSON.stringify({ op, ref, ...rest })
    return textFrame(
      members ? `${text.slice(0, -1)},"members":[${members.map(memberJson).join(',')}]}` : text
    )
  },
  read: bytes => {
    const text = bytes.toString()
    const members = recordOf(parse(text))
    const isExact = hasPlainNumbers(text)
    return { members, dataOf: name => jsonMember(members, name, text, isExact) }
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new WireError(`the message is not JSON: ${(error as Error).message}`)
  }
}

function recordOf(value: unknown): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value))
    return value as Record<string, unknown>
  throw new WireError('a message is an object')
}

/** As it was written, but for white space. */
function jsonMember(
  members: Readonly<Record<string, unknown>>,
  name: string,
  text: string,
  isExact: boolean
): string {
  try {
    if (isExact) return JSON.stringify(members[name])
  } catch {
    // nested more deeply than the stack: its text is still whole
  }
  return memberOf(text, name)!
}

function memberJson({ id, sub, info }: Member): string {
  return `{"id":${JSON.stringify(id)},"sub":${JSON.stringify(sub)},"info":${info ?? 'null'}}`
}

function presenceJson(op: string, topic: string, member: Member): string {
  return `{"op":"${op}","topic":${JSON.stringify(topic)},"member":${memberJson(member)}}`
}

// --- ringside.v1.cbor ---

const cbor: WebSocketFormat = {
  key: 'ws,cbor',
  transport: 'ws',
  delivers: true,
  protocol: 'ringside.v1.cbor',
  isBinary: true,
  open: () => EMPTY,
  event: ({ topic, type, id, data }, cursor) =>
    cborFrame({ op: 'event', id: cursor, topic, type, time: id.ms, data: toCbor(data) }),
  snapshot: (event, cursor) => cbor.event(event, cursor),
  gap: ({ reason, topics, after }) => cborFrame({ op: 'gap', reason, topics, after }),
  note: (type, text) => cborFrame({ op: 'event', type, data: toCbor(text) }),
  keepAlive: (cursor, topics) => cborFrame({ op: 'cursor', cursor, topics }),
  heartbeat: () => EMPTY,
  stale: since => cborFrame({ op: 'stale', since }),
  fresh: (cursor, topics) => cbor.keepAlive(cursor, topics),
  goodbye: () => EMPTY,
  joined: (topic, member) => cborFrame({ op: 'joined', topic, member: memberCbor(member) }),
  left: (topic, member) => cborFrame({ op: 'left', topic, member: memberCbor(member) }),
  signal: signal =>
    cborFrame({ op: 'signal', topic: signal.topic, from: senderOf(signal), data: toCbor(signal.data) }),
  answer: (op, ref, { members, ...rest }) =>
    cborFrame({ op, ref, ...rest, ...(members && { members: members.map(memberCbor) }) }),
  read: bytes => {
    const members = recordOfMap(decodeCbor(bytes))
    return { members, dataOf: name => fromCbor(members[name], name) }
  }
}

function cborFrame(message: Record<string, unknown>): Buffer {
  return binaryFrame(encodeCbor(message))
}

function memberCbor({ id, sub, info }: Member): Record<string, unknown> {
  return { id, sub, info: info === null ? null : toCbor(info) }
}

function recordOfMap(value: unknown): Record<string, unknown> {
  if (!(value instanceof Map)) throw new WireError('a message is a map')
  const entries = definedIn(value)
  if (entries.every((entry): entry is [string, unknown] => typeof entry[0] === 'string'))
    return Object.fromEntries(entries)
  throw new WireError('the names in a message are text')
}
