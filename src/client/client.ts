import { call } from './reconnect.ts'
import type { Gap, OnToken, RingsideEvent, State, Why } from './reconnect.ts'
import { Stream, type Listener, type StreamOptions } from './stream.ts'
import { Tabs } from './tabs.ts'

export { RingsideError } from './error.ts'
export type { JoinOptions, Membership, OnMember } from './joins.ts'
export type { Member } from './messages.ts'
export type { ConnectOptions, PublishOptions } from './options.ts'
export { connect, type Connection } from './socket.ts'
export type { Signal, SocketOptions, SocketSubscription } from './subscriptions.ts'
export type { Gap, OnToken, RingsideEvent, State, StreamOptions, Why }

declare const RINGSIDE_VERSION: string | undefined

/** The version of Ringside that this client is of. */
export const version: string = typeof RINGSIDE_VERSION === 'string' ? RINGSIDE_VERSION : 'source'

export interface SubscribeOptions<Data = unknown> extends StreamOptions {
  /** Each event after the start, exactly once and in order. */
  readonly onEvent: (event: RingsideEvent<Data>) => void
  /** Events are missing; told before any later event of these topics. */
  readonly onGap?: ((gap: Gap) => void) | undefined
  /** The state has changed, or there is more to say about it. Not called for `close()`. */
  readonly onState?: ((state: State, why?: Why) => void) | undefined
  /**
   * One connection for all tabs of the browser with the same subscription (topics, rate, start, token). Where there are
   * no Web Locks (plain HTTP but on localhost, Node.js) each has its own. Default false.
   */
  readonly shared?: boolean | undefined
}

/** A subscription that was begun. */
export interface Subscription {
  /** Everything up to here has arrived: to be kept, and given as `after` next time. Undefined until the start is known. */
  readonly cursor: string | undefined
  readonly state: State
  /** Ends it; nothing is called back any more. */
  close(): void
}

/**
 * Subscribes to topics and wildcards (`tickers/*`): each event after the start arrives exactly once and in order, or a
 * gap is told, whatever happens to the connection. `Data` is what the events' data is taken to be. Throws a `TypeError`
 * for a `url` that is none; what the server refuses ends it: `onState('closed', { reason })`.
 */
export function subscribe<Data = unknown>(
  topics: string | readonly string[],
  options: SubscribeOptions<Data>
): Subscription {
  const { onEvent, onGap, onState, shared } = options
  const listener: Listener = {
    step({ event, gap }) {
      if (gap) call(onGap, gap)
      if (event) call(onEvent, event as RingsideEvent<Data>)
    },
    state: (state, why) => call(onState, state, why)
  }
  const canShare = globalThis.navigator?.locks && globalThis.BroadcastChannel
  return new (shared && canShare ? Tabs : Stream)([topics].flat(), options, listener)
}
