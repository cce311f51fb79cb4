import type { Gap, Member, Signal, StoredEvent } from '../event.ts'

/** Why the server ends a stream by its own will. */
export type GoodbyeReason = 'shutdown' | 'full' | 'unavailable' | 'expired' | 'forbidden'

/**
 * Turns what a session is told into frames. Pure: the same call gives the same bytes, so what is made for one session
 * can be shared by all. Every method returns one whole frame, however a connection delimits what is written to it.
 */
export interface Format {
  /** No other format has it. */
  readonly key: string
  /** The label of its connections in the metrics. */
  readonly transport: 'sse' | 'ndjson' | 'poll' | 'ws'
  /** Whether a client gets these frames; those of a poll only wake it. */
  readonly delivers: boolean
  /** What a stream begins with: where it starts from, and after how many milliseconds to come back. */
  open(cursor: string, retry: number): Buffer
  /** An event, and the cursor of whoever has received it. */
  event(event: StoredEvent, cursor: string): Buffer
  /** A state, as the event that made it would be, and the cursor of whoever has received it. */
  snapshot(event: StoredEvent, cursor: string): Buffer
  /** A gap, and the cursor before it, so that whoever drops behind it is told again; none where it had no valid one. */
  gap(gap: Gap, cursor?: string): Buffer
  /** Something that no cursor moves past: a type, JSON text, and the cursor of whoever is told it. */
  note(type: string, json: string, cursor: string): Buffer
  /** Shows that the connection lives, and where the subscription to these filters is. */
  keepAlive(cursor: string, filters: readonly string[]): Buffer
  /** The same, for a page to see; `time` in milliseconds since the epoch. */
  heartbeat(time: number, cursor: string): Buffer
  /** Nothing new can come since then, in milliseconds since the epoch; and the cursor of whoever is told it. */
  stale(since: number, cursor: string): Buffer
  /** The end of that, once its reader was given what was missed: where the subscription to these filters is. */
  fresh(cursor: string, filters: readonly string[]): Buffer
  /** The last frame; `retry` in milliseconds; the reader's cursor, where it was told one. */
  goodbye(reason: GoodbyeReason, retry: number, cursor?: string): Buffer
}

/** A format that also carries what connections tell each other. */
export interface TwoWayFormat extends Format {
  joined(topic: string, member: Member): Buffer
  left(topic: string, member: Member): Buffer
  signal(signal: Signal): Buffer
}

/**
 * An event as JSON, `{"id","topic","type","time","data"}`: `data` is parsed JSON where it is JSON, else a string;
 * bytes are base64, marked by `"encoding"`.
 */
export function envelope({ topic, type, id, data }: StoredEvent, cursor: string): string {
  const head = JSON.stringify({ id: cursor, topic, type, time: id.ms }).slice(0, -1)
  if (typeof data !== 'string') return `${head},"encoding":"base64","data":"${base64(data)}"}`
  return `${head},"data":${isJson(data) ? data.replace(/[\r\n]+/g, ' ') : JSON.stringify(data)}}`
}

/** The standard alphabet, with padding (RFC 4648, section 4). */
export function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64')
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}
