import type { Test } from 'tap'
import {
  subscribe,
  type Gap,
  type RingsideEvent,
  type State,
  type SubscribeOptions,
  type Subscription,
  type Why
} from '../../src/client/client.ts'
import { Inbox } from '../support/inbox.ts'

/** A subscriber in this process, and all that it was told. */
export interface Subscriber<Data = unknown> {
  readonly subscription: Subscription
  readonly events: Inbox<RingsideEvent<Data>>
  readonly gaps: Inbox<Gap>
  readonly states: Inbox<{ readonly state: State; readonly why: Why | undefined }>
}

/** Subscribes until the end of the test. */
export function listenTo<Data = unknown>(
  t: Test,
  topics: string | readonly string[],
  options: Partial<SubscribeOptions<Data>>
): Subscriber<Data> {
  const events = new Inbox<RingsideEvent<Data>>()
  const gaps = new Inbox<Gap>()
  const states = new Inbox<{ state: State; why: Why | undefined }>()
  const subscription = subscribe<Data>(topics, {
    ...options,
    onEvent(event) {
      options.onEvent?.(event)
      events.push(event)
    },
    onGap: gap => gaps.push(gap),
    onState: (state, why) => states.push({ state, why })
  })
  t.teardown(() => subscription.close())
  return { subscription, events, gaps, states }
}

/** Resolves once it is in this state. */
export function isIn({ states, subscription }: Subscriber, state: State): Promise<void> {
  return states.until(() => subscription.state === state, state)
}

/** The data of what has come. */
export function dataOf<Data>({ events }: Subscriber<Data>): Data[] {
  return events.all.map(({ data }) => data)
}

/** Resolves with all that has come, once the last of it is this. */
export async function dataUntil<Data>(subscriber: Subscriber<Data>, last: Data): Promise<Data[]> {
  await subscriber.events.until(() => dataOf(subscriber).includes(last), String(last))
  return dataOf(subscriber)
}
