import t from 'tap'
import type { EventLog } from '../../src/broker/event-log.ts'
import { LocalLog } from '../../src/broker/local/log.ts'
import type { Audience } from '../../src/hub/audience.ts'
import { findStart } from '../../src/hub/start.ts'
import { Unwanted } from '../../src/asker.ts'
import { Rules } from '../../src/rules/rules.ts'
import { HeldClock } from '../support/clock.ts'

/** A hub with very many topics. */
function crowded() {
  const birth = [{ ms: 1, seq: 0 }]
  const now = [{ ms: 1000, seq: 0 }]
  const positions = Array.from(
    { length: 300_000 },
    (_, index) => [`t/${index}`, { ms: 10, seq: index }] as const
  )
  const starts = new Map(positions)
  const hub = {
    log: { birth, shardOf: () => 0 } as Partial<EventLog> as EventLog,
    clock: new HeldClock(),
    position: now,
    rules: new Rules({ RING_SIZE: 10, RING_TTL: 5000 }),
    reads: { rewind: () => Promise.resolve(starts) }
  }
  const audience = { watches: [{ base: birth }] } as unknown as Audience
  return { hub, audience, starts }
}

t.test('to rewind very many topics gives the turn back', async t => {
  const { hub, audience, starts } = crowded()
  let turns = 0
  const next = () => void (turns++, (waiting = setImmediate(next)))
  let waiting = setImmediate(next)
  const start = await findStart(hub, audience, { rewind: 1 })
  clearImmediate(waiting)
  t.ok(turns >= 2, `${turns} turns`)
  t.strictSame(start.cursor, [{ ms: 10, seq: 0 }])
  t.equal(start.floors?.size, starts.size)
})

t.test('and is given up once the reader has gone', async t => {
  const { hub, audience } = crowded()
  const reader = { isGone: false }
  setImmediate(() => (reader.isGone = true))
  await t.rejects(findStart(hub, audience, { rewind: 1 }, reader), Unwanted)
})

t.test('the embedded log looks at no more topics for readers who have gone', async t => {
  const clock = new HeldClock()
  const log = new LocalLog({ RING_SIZE: 10, RING_TTL: 60_000 }, clock)
  const topics = Array.from({ length: 150_000 }, (_, index) => `t/${index}`)
  await log.append(topics.map(topic => ({ topic, type: 'message', data: '' })))
  const reader = { isGone: false }
  setImmediate(() => (reader.isGone = true))
  await t.rejects(log.rewind('t/*', 1, reader), Unwanted)
  t.equal((await log.rewind('t/*', 1)).size, topics.length)
})
