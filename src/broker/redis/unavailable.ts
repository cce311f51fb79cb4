import { BrokerUnavailable } from '../unavailable.ts'
import { refusalKind } from './refusals.ts'

/** The store lacks something that we need. The message says what, as what Redis does; the cause has its own words. */
export class Unfit extends Error {
  override name = 'Unfit'
}

/** `words`: those of the store. */
export function lacking(what: string, words: string): Unfit {
  return new Unfit(what, { cause: new Error(words) })
}

/** What is missing where a server doesn't know a command, or does not let its user run it; null where it says anything else. */
export function lackOf({ name, message }: Error): Unfit | null {
  if (name !== 'ReplyError') return null
  const unknown = /^ERR unknown command [`'"]?(\w+)/i.exec(message)?.[1]
  if (unknown) return lacking(`does not know the command ${unknown.toUpperCase()}`, message)
  const forbidden = /^NOPERM .* run the '([\w|]+)' command/i.exec(message)?.[1]
  return forbidden ? lacking(`does not let its user run ${forbidden.toUpperCase()}`, message) : null
}

/**
 * What whoever asked the broker is told of a failed command. Clients read it, so these are our words, also those of
 * `Unfit`: what Redis said may name users and scripts, and is the error's `cause`.
 */
export function unavailable(error: unknown): BrokerUnavailable {
  if (error instanceof BrokerUnavailable) return error
  const cause = error as Error
  const lack = cause instanceof Unfit ? cause : lackOf(cause)
  if (lack) return new BrokerUnavailable(`Redis ${lack.message}`, { cause })
  if (refusalKind(cause)) return new BrokerUnavailable(refusalWords(cause), { cause })
  return cause.message.includes('timed out') ? late(cause) : disconnected(cause)
}

/** Whether an error says more than that there is no connection, or no answer. */
export function isReason(error: Error): boolean {
  return refusalKind(error) !== null || 'code' in error || error.cause !== undefined
}

/** What clients may be told of a refusal. */
export function refusalWords(error: Error): string {
  return refusalKind(error) === 'full' ? 'Redis is full' : 'Redis refused it'
}

/** There is no connection to ask on, or none on which announcements come in. */
export function disconnected(cause?: Error): BrokerUnavailable {
  return new BrokerUnavailable('no connection to Redis', cause && { cause })
}

/** There was no answer, or what was asked for came too late. */
export function late(cause?: Error): BrokerUnavailable {
  return new BrokerUnavailable('Redis did not answer in time', cause && { cause })
}

/** The store was emptied. Until the next tick has begun its new life, it can't say what is missing. */
export function emptied(): BrokerUnavailable {
  return new BrokerUnavailable('Redis was emptied')
}

/** It is stored, and would be lost with the primary: fewer replicas have it than `WAIT_REPLICAS`. */
export function unreplicated(): BrokerUnavailable {
  return new BrokerUnavailable('too few replicas have it')
}
