import type { Transport } from './load/dial.ts'
import type { Command, Place } from './load/server.ts'

export interface StreamOptions {
  readonly topics?: readonly string[]
  /** The cursor that the client comes back with. */
  readonly after?: string
  /** At most so many events a second. */
  readonly rate?: number
  /** So many of each topic's last events come first. */
  readonly rewind?: number
  /** Whether it accepts gzip. */
  readonly compressed?: boolean
}

/** A JSON array, or an event a line. */
export type BatchFormat = 'json' | 'ndjson'

/** How it is published over something else than HTTP/1.1. */
export interface Dialog {
  /** What a connection begins with, and what it has been answered when it is ready. */
  readonly opens: string
  readonly opened: string
  /** What each answer has in it, and what comes behind that where the event is stored. */
  readonly answer: string
  readonly stored: string
}

/** A server that is measured, and how to talk to it. */
export interface Peer {
  readonly name: string
  readonly label: string
  /** What to install; null when it is there. */
  missing(): string | null
  command(settings: Record<string, string>): (place: Place) => Command
  readonly transport: Transport
  /** The request for a page on the same server. */
  readonly page: string
  subscribe(options: StreamOptions): string
  /** What a stream has begun with when it is ready. */
  readonly begins: string
  /** What the client must say after it has read something. */
  readonly greeting?: { readonly after: string; readonly say: Buffer }
  /** What publishes an event, in Latin-1. */
  publish(data: string, topic?: string): string
  /** Undefined: a request of HTTP/1.1 each. */
  readonly dialog?: Dialog
  publishBatch?(events: readonly { topic: string; data: string }[], format: BatchFormat): string
  /** How a batch may be written, where there are batches. */
  readonly batchFormats?: readonly BatchFormat[]
  /** How many connections publish when it is saturated, and how many events each may have under way. */
  readonly pressure: { readonly publishers: number; readonly window: number }
}
