import type { Gap, RingsideEvent } from './reconnect.ts'

/** Somebody who has joined a topic. */
export interface Member {
  /** Of the connection: somebody with two of them is there twice. */
  readonly id: string
  /** Of its token; null without one. */
  readonly sub: string | null
  /** What it tells of itself. */
  readonly info: unknown
}

/** Who sends a signal: the connection, and the user of its token. */
export type Sender = Pick<Member, 'id' | 'sub'>

/** What the server may say on a WebSocket, with all that any of it has. */
export interface Said extends RingsideEvent, Gap {
  readonly op: string
  readonly ref?: number
  readonly topics: readonly string[]
  readonly cursor?: string
  readonly code: string
  readonly message: string
  readonly members: readonly Member[]
  readonly member: Member
  readonly from: Sender
  readonly encoding?: string
  readonly unread: number
  readonly since: number
}
