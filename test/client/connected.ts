import type { Test } from 'tap'
import { WebSocket } from 'ws'
import {
  connect,
  type Connection,
  type ConnectOptions,
  type Gap,
  type RingsideEvent,
  type SocketOptions,
  type SocketSubscription,
  type State,
  type Why
} from '../../src/client/client.ts'
import { Inbox } from '../support/inbox.ts'

/** A connection of this process, and what it was. */
export interface Connected {
  readonly connection: Connection
  readonly states: Inbox<{ readonly state: State; readonly why: Why | undefined }>
}

/** Connects until the end of the test. */
export function connectTo(t: Test, { url }: { url: string }, options: ConnectOptions = {}): Connected {
  const states = new Inbox<{ state: State; why: Why | undefined }>()
  const connection = connect({
    ...{ url, WebSocket, onState: (state, why) => states.push({ state, why }) },
    ...options
  })
  t.teardown(() => connection.close())
  return { connection, states }
}

/** Resolves once it is in this state. */
export function isIn({ connection, states }: Connected, state: State): Promise<void> {
  return states.until(() => connection.state === state, state)
}

/** A subscription, and all that it was told. */
export interface Listener {
  readonly subscription: SocketSubscription
  readonly events: Inbox<RingsideEvent>
  readonly gaps: Inbox<Gap>
}

export async function listen(
  connection: Connection,
  topics: string | readonly string[],
  options: Partial<SocketOptions> = {}
): Promise<Listener> {
  const events = new Inbox<RingsideEvent>()
  const gaps = new Inbox<Gap>()
  const subscription = await connection.subscribe(topics, {
    onEvent: event => events.push(event),
    onGap: gap => gaps.push(gap),
    ...options
  })
  return { subscription, events, gaps }
}

export function dataOf({ all }: Inbox<RingsideEvent>): unknown[] {
  return all.map(({ data }) => data)
}
