import t from 'tap'
import { LocalLog } from '../../src/broker/local/log.ts'
import { LocalRoster } from '../../src/broker/embedded/roster.ts'
import { formatCursor } from '../../src/event.ts'
import { Hub } from '../../src/hub/hub.ts'
import { Memory, MemoryFull } from '../../src/memory.ts'
import { Metrics } from '../../src/metrics.ts'
import { wakeUp } from '../../src/wire/page.ts'
import { plain } from '../../src/wire/packing.ts'
import { sse } from '../../src/wire/sse.ts'
import { HeldClock, settled } from '../support/clock.ts'
import { heapInUse } from '../support/heap.ts'
import { Probe, Stage } from './stage.ts'

const metrics = new Metrics('test')
const SETTINGS = { HEARTBEAT: 15_000, RETRY: 2000, RING_SIZE: 1000, RING_TTL: 60_000, SEND_BUFFER: 262_144 }

/** A hub on the embedded log itself, with one budget for both. */
async function embedded(limit: number) {
  const clock = new HeldClock()
  const memory = new Memory(limit)
  const log = new LocalLog(SETTINGS, clock, memory)
  const hub = new Hub(log, new LocalRoster(memory), SETTINGS, clock, metrics, memory)
  await log.start(hub)
  return { clock, memory, log, hub }
}

t.test('a poll that does not wait leaves no watch behind', async t => {
  const { clock, hub, log, memory } = await embedded(1e9)
  await log.append([{ topic: 'a', type: 'message', data: '1' }])
  const events = memory.held('events')
  const subscribed = new Set<string>()
  const { subscribe, unsubscribe } = log
  log.subscribe = filter => (subscribed.add(filter), subscribe.call(log, filter))
  log.unsubscribe = filter => (subscribed.delete(filter), unsubscribe.call(log, filter))
  const poll = async (filters: string[], brief: boolean) => {
    const kind = { format: wakeUp, packing: plain, after: formatCursor(log.birth) }
    const session = await hub.open({ filters, brief, ...kind })
    const reading = hub.read(session, 10)
    await clock.turns()
    t.equal((await reading).events.length, 1)
    session.close('answered')
  }
  for (let number = 0; number < 20; number++) await poll(['a', `none/${number}`], true)
  t.strictSame([...subscribed], [])
  t.equal(memory.held('filters'), 0)
  t.equal(memory.held('events'), events, 'nor a copy of what it read')
  await poll(['a'], false)
  t.strictSame([...subscribed], ['a'], 'one that waits may come back')
  await poll(['a'], true)
  t.strictSame([...subscribed], ['a'], 'and stays warm')
  await clock.advance(61_000)
  t.equal(memory.held('filters'), 0)
  log.close()
})

t.test('so many filters stay warm, and the one goes first that was left first', async t => {
  const { clock, hub, log, memory } = await embedded(1e9)
  for (let number = 0; number < 1010; number++) {
    const session = await hub.open({ filters: [`a/${number}`], format: sse(false), packing: plain })
    session.close('client')
  }
  const one = memory.held('filters') / 1000
  t.ok(one > 3000 && one < 3100, 'a thousand are counted')
  const before = memory.held('filters')
  for (const filter of ['a/0', 'a/1009']) {
    const session = await hub.open({ filters: [filter], format: sse(false), packing: plain })
    t.equal(memory.held('filters') > before, filter === 'a/0', filter)
    session.close('client')
  }
  await clock.advance(61_000)
  t.equal(memory.held('filters'), 0)
  log.close()
})

t.test('warm filters go where memory is short; one that there is no room for is refused', async t => {
  const { hub, log, memory } = await embedded(100_000)
  const open = (...filters: string[]) => hub.open({ filters, format: sse(false), packing: plain })
  ;(await open('a', 'b', 'c')).close('client')
  memory.take('bodies', 86_000)
  t.equal(memory.held('filters'), 0)
  memory.give('bodies', 86_000)
  let released = 0
  const place = { release: () => void released++ }
  const many = Array.from({ length: 10 }, (_, number) => `many/${number}`)
  await t.rejects(hub.open({ filters: many, format: sse(false), packing: plain, place }), MemoryFull)
  t.equal(released, 1)
  t.equal(memory.held('filters'), 0, 'nothing is left of it')
  await open('a')
  log.close()
})

t.test('what the log lets go, the rings of the hub let go as well', async t => {
  const { clock, hub, log, memory } = await embedded(8_000_000)
  const probe = new Probe()
  const session = await hub.open({ filters: ['a/*'], format: sse(false), packing: plain })
  probe.session = session
  session.start(probe)
  await clock.turns()
  const before = heapInUse()
  for (let number = 0; number < 300; number++) {
    const data = Buffer.alloc(100_000, `${number} `).toString()
    await log.append([{ topic: `a/${number % 7}`, type: 'message', data }])
    await clock.turns()
    probe.writes.splice(0)
    probe.frames.splice(0)
  }
  t.ok(memory.sum <= memory.limit)
  const held = heapInUse() - before
  t.ok(held < 12_000_000, `${held} bytes are held`)
  await clock.advance(62_000)
  await clock.turns()
  t.ok(heapInUse() - before < 2_000_000, 'and what has run out')
  session.close('client')
  log.close()
})

t.test(
  'where the log is elsewhere, the rings count, and give way: the readers read from the log',
  async t => {
    const memory = new Memory(200_000)
    const stage = await Stage.begin({}, memory)
    const probe = await stage.open('a')
    const start = stage.last
    for (let number = 0; number < 100; number++) {
      await stage.publish('a')
      await stage.flow()
    }
    t.equal(probe.data.length, 100)
    t.ok(memory.held('events') > 30_000, 'counted')
    const asked = stage.log.asked.range
    memory.take('bodies', 170_000)
    t.ok(memory.sum <= memory.limit)
    const late = await stage.open('a', { after: start })
    t.strictSame(late.data, probe.data, 'nothing is lost')
    t.ok(stage.log.asked.range > asked)
    t.strictSame(
      late.notes.filter(note => note.startsWith('gap')),
      []
    )
    memory.give('bodies', 170_000)
    probe.session.close('client')
    late.session.close('client')
    await stage.clock.live(61_000)
    await settled()
    t.equal(memory.sum, 0, 'a filter that is given up gives back all that it held')
  }
)
