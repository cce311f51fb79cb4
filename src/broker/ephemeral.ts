import { END } from '../event.ts'
import type { Rules } from '../rules/rules.ts'
import type { Append } from './event-log.ts'

/**
 * Whether nothing of an event is stored, by the rule for its topic. A state and an end mean nothing unless they are stored,
 * so they are stored whatever the rule says: it may have changed since their publisher was let in.
 */
export function isNeverStored({ topic, type, state }: Append, rules: Pick<Rules, 'of'>): boolean {
  return rules.of(topic).ephemeral === true && state === undefined && type !== END
}
