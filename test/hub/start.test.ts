import t from 'tap'
import type { EventLog } from '../../src/broker/event-log.ts'
import type { Audience } from '../../src/hub/audience.ts'
import { findStart } from '../../src/hub/start.ts'
import { HeldClock } from '../support/clock.ts'

t.test('to rewind very many topics gives the turn back', async t => {
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
    settings: { RING_TTL: 5000 },
    reads: { rewind: () => Promise.resolve(starts) }
  }
  const audience = { watches: [{ base: birth }] } as unknown as Audience
  let turns = 0
  const next = () => void (turns++, (waiting = setImmediate(next)))
  let waiting = setImmediate(next)
  const start = await findStart(hub, audience, { rewind: 1 })
  clearImmediate(waiting)
  t.ok(turns >= 2, `${turns} turns`)
  t.strictSame(start.cursor, [{ ms: 10, seq: 0 }])
  t.equal(start.floors?.size, starts.size)
})
