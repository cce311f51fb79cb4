import t from 'tap'
import { LocalBroker } from '../../src/broker/local/broker.ts'
import { LocalLog } from '../../src/broker/local/log.ts'
import { LocalRoster } from '../../src/broker/embedded/roster.ts'
import { comparePositions, type Position, type StoredEvent } from '../../src/event.ts'
import { Rules } from '../../src/rules/rules.ts'
import { HeldClock, settled } from '../support/clock.ts'
import { heapInUse } from '../support/heap.ts'
import { mostRuns } from '../support/runs.ts'
import { conforms } from './conformance/broker.ts'

t.test('the memory broker', async t => {
  conforms(t, async (_, settings) => {
    const clock = new HeldClock()
    const rules = new Rules(settings, settings.rules)
    const open = () => new LocalBroker(settings, clock, undefined, rules)
    return {
      broker: open(),
      rules,
      keeps: false,
      restart: async () => {
        // no process starts in the millisecond in which the one before it has ended
        await clock.advance(1)
        return open()
      },
      pass: ms => clock.advance(ms),
      stepBack: ms => clock.stepBack(ms),
      cost: ask => mostRuns(/src\/(broker\/local\/.*|ring|event)\.ts/, ask),
      isHeld: true
    }
  })
})

const NO_LISTENER = {
  ...{ event: () => {}, tick: () => {}, jump: () => {}, gap: () => {}, up: () => {} }
}

function make(settings: { RING_SIZE?: number; RING_TTL?: number } = {}) {
  const clock = new HeldClock()
  const log = new LocalLog({ RING_SIZE: 10, RING_TTL: 5000, ...settings }, clock)
  const append = async (topic: string): Promise<Position> => {
    const [result] = await log.append([{ topic, type: 'message', data: '1' }])
    if (result?.outcome !== 'stored') throw new Error(result?.outcome)
    return result.id[0]!
  }
  return { clock, log, append }
}

t.test('what is older than RING_TTL is gone, and is a gap', async t => {
  const { clock, log, append } = make()
  const start = await log.position()
  const first = await append('a')
  await clock.advance(5000)
  t.strictSame((await log.range('a', start, 10)).events.length, 1, 'not yet')
  await clock.advance(1)
  t.strictSame(await log.range('a', start, 10), {
    events: [],
    end: await log.position(),
    gaps: new Map([['a', first]])
  })
  t.strictSame((await log.range('*', start, 10)).gaps, new Map([['a', first]]))
  t.strictSame([...(await log.rewind('a', 3)).keys()], [])
})

t.test('the next event of a ring that was emptied still names the one before it', async t => {
  const { clock, log, append } = make()
  const first = await append('a')
  await clock.advance(5001)
  const between = await log.position()
  t.strictSame((await log.range('a', log.birth, 10)).events, [])
  await append('a')
  const { events, gaps } = await log.range('a', between, 10)
  t.strictSame(events[0]!.prev, first)
  t.strictSame([...gaps], [], 'and nothing is missing to who had that')
})

t.test('forgets a topic only when no cursor can be young enough to ask for it', async t => {
  const { clock, log, append } = make({ RING_TTL: 80_000 })
  await log.start(NO_LISTENER)
  await clock.advance(31_000)
  await append('old')
  await clock.advance(60_000)
  const kept = await append('kept')
  t.strictSame((await log.topics('*')).sort(), ['kept', 'old'], 'there was a sweep, but it is not old enough')
  await clock.advance(29_000)
  t.ok((await log.topics('*')).includes('old'), 'an instance whose clock is behind may still ask for it')
  await log.append([{ topic: 'stateful', type: 'message', data: '1', state: { value: '1' } }])
  await clock.advance(3_600_000)
  t.strictSame(await log.topics('*'), ['stateful'], 'a state is kept for ever')
  t.ok(comparePositions(kept, await append('kept')) < 0)
  const { events } = await log.range('kept', log.birth, 10)
  t.equal(events[0]!.prev, null, 'it begins anew')
  log.close()
  t.equal(clock.timers, 0, 'closed, it leaves no timer')
})

t.test('hands over in the same step, so that nothing is between stored and told', t => {
  const { log } = make()
  const events: StoredEvent[] = []
  void log.start({ ...NO_LISTENER, event: event => events.push(event) })
  void log.subscribe('a')
  void log.append([
    { topic: 'a', type: 'message', data: '1' },
    { topic: 'a', type: 'message', data: '2' }
  ])
  t.strictSame(
    events.map(({ data }) => data),
    ['1', '2']
  )
  t.end()
})

t.test('has one shard, is always up and has lost nothing', async t => {
  const { log, clock } = make()
  t.equal(log.shards, 1)
  t.equal(log.shardOf(), 0)
  t.ok(log.up)
  t.strictSame(log.birth, [{ ms: clock.now(), seq: 0 }])
  t.strictSame(log.lost, [{ ms: 0, seq: 0 }])
})

t.test('topics whose members have gone leave nothing behind', async t => {
  const COUNT = 20_000
  const roster = new LocalRoster()
  const comeAndGo = (from: number) => {
    for (let number = from; number < from + COUNT; number++) {
      void roster.join(`a/${number}`, { id: 'x', sub: null, info: null })
      void roster.leave(`a/${number}`, 'x')
    }
  }
  // the first rounds also compile what runs: what is left behind is left by each
  let left = Infinity
  for (let round = 0; round < 6; round++) {
    const before = heapInUse()
    comeAndGo(round * COUNT)
    await settled()
    left = Math.min(left, (heapInUse() - before) / COUNT)
  }
  t.ok(left < 20, `${left.toFixed(1)} bytes a topic`)
})

t.test('much that is read gives the turn back, however few events it has', async t => {
  const { log } = make({ RING_SIZE: 100 })
  const data = 'x'.repeat(60_000)
  for (let left = 100; left > 0; left--) await log.append([{ topic: 'big', type: 'message', data }])
  let turns = 0
  const next = () => void (turns++, (waiting = setImmediate(next)))
  let waiting = setImmediate(next)
  for (let left = 3; left > 0; left--) await log.range('big', log.birth, 100)
  clearImmediate(waiting)
  t.ok(turns >= 2, `${turns} turns`)
})
