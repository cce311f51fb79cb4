import type { Test } from 'tap'
import { logConforms } from './event-log.ts'
import { logRestarts } from './restart.ts'
import { logKeepsRules } from './rules.ts'
import { rosterConforms } from './roster.ts'
import type { MakeSubject } from './subject.ts'
import { tallyConforms } from './tally.ts'

/** What every broker owes: an event log, a roster and a tally on one store. */
export function conforms(t: Test, make: MakeSubject): void {
  t.test('the event log', async t => logConforms(t, make))
  t.test('the event log after a restart', async t => logRestarts(t, make))
  t.test('the event log by rules for topics', async t => logKeepsRules(t, make))
  t.test('the roster', async t => rosterConforms(t, make))
  t.test('the tally', async t => tallyConforms(t, make))
}
