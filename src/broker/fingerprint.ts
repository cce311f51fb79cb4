import { createHash } from 'node:crypto'
import type { Append } from './event-log.ts'

/** What an idempotency key is called in every store: it may be any text, and is nobody's business. */
export function keyHash(key: string): string {
  return createHash('sha256').update(key).digest('base64url')
}

/** What tells two events under one key apart, without keeping their data. */
export function fingerprint({ topic, type, data }: Pick<Append, 'topic' | 'type' | 'data'>): string {
  return createHash('sha256').update(`${topic}\n${type}\n`).update(data).digest('base64')
}
