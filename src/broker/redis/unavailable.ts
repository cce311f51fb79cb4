import { BrokerUnavailable } from '../unavailable.ts'
import { isFull } from './refusals.ts'

/** What a failed command means to whoever asked the broker. */
export function unavailable(error: unknown): BrokerUnavailable {
  if (error instanceof BrokerUnavailable) return error
  const { message } = error as Error
  if (isFull(error as Error)) return new BrokerUnavailable('Redis is full')
  // without a connection ioredis speaks of its own options
  const isDown = message.includes('enableOfflineQueue')
  return isDown ? disconnected() : new BrokerUnavailable(`Redis: ${message}`)
}

/** There is no connection on which announcements come in. */
export function disconnected(): BrokerUnavailable {
  return new BrokerUnavailable('no connection to Redis')
}

/** The store was emptied. Until the next tick has begun its new life, it can't say what is missing. */
export function emptied(): BrokerUnavailable {
  return new BrokerUnavailable('Redis was emptied')
}
