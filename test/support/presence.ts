import { setTimeout as delay } from 'node:timers/promises'
import type { Test } from 'tap'
import { GONE_MS } from '../../src/broker/roster.ts'
import type { Address } from './app.ts'
import { connect, type WsClient } from './websocket.ts'

/** Somebody who is present, as a client sees it. */
export interface Member {
  readonly id: string
  readonly sub: string | null
  readonly info: unknown
}

/** Connects as a user. */
export function as(t: Test, server: Pick<Address, 'port'>, user: string): Promise<WsClient> {
  return connect(t, server, { path: `/ws?user=${user}` })
}

/** Joins a topic, and resolves with who is there, itself first. */
export async function join(client: WsClient, topic: string): Promise<string[]> {
  return ((await client.do('join', { topic }))['members'] as Member[]).map(({ sub }) => sub!)
}

/** Who came and went, in order: `+alice`. */
export function changes({ messages }: WsClient): string[] {
  return messages.all
    .filter(({ op }) => op === 'joined' || op === 'left')
    .map(message => `${message.op === 'joined' ? '+' : '-'}${(message['member'] as Member).sub}`)
}

/** Resolves once somebody has come or gone. */
export async function until(client: WsClient, change: string): Promise<void> {
  await client.messages.until(() => changes(client).includes(change), change)
}

/** Waits for what needs a lease to run out. */
export async function untilGone(isSo: () => boolean, what: string): Promise<number> {
  const started = performance.now()
  while (!isSo()) {
    if (performance.now() - started > GONE_MS) throw new Error(`waited in vain for ${what}`)
    await delay(50)
  }
  return performance.now() - started
}
