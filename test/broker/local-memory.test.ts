import t from 'tap'
import { LocalLog } from '../../src/broker/local/log.ts'
import { LocalRoster } from '../../src/broker/embedded/roster.ts'
import type { Position } from '../../src/event.ts'
import type { Append } from '../../src/broker/event-log.ts'
import { ANSWERS_PART, Memory, MemoryFull, MEMORY_KINDS, type MemoryKind } from '../../src/memory.ts'
import { Rules } from '../../src/rules/rules.ts'
import { HeldClock } from '../support/clock.ts'
import { heapInUse } from '../support/heap.ts'

function make(limit: number, settings: { RING_SIZE?: number; RING_TTL?: number } = {}) {
  const clock = new HeldClock()
  const memory = new Memory(limit)
  const log = new LocalLog({ RING_SIZE: 1000, RING_TTL: 3_600_000, ...settings }, clock, memory)
  const append = async (...events: (Partial<Append> & { topic: string })[]): Promise<Position[]> => {
    const appended = await log.append(events.map(event => ({ type: 'message', data: '1', ...event })))
    return appended.map(result => {
      if (result.outcome !== 'stored') throw new Error(result.outcome)
      return result.id[0]!
    })
  }
  return { clock, memory, log, append }
}

/** What is counted, by kind, without what is 0. */
function counted(memory: Memory): Partial<Record<MemoryKind, number>> {
  const kinds = MEMORY_KINDS.filter(kind => memory.held(kind) !== 0)
  return Object.fromEntries(kinds.map(kind => [kind, memory.held(kind)]))
}

/** How many things are measured together. */
const COUNT = 20_000

t.test('what is counted is what it takes', async t => {
  const cases: Record<string, (number: number) => Append> = {
    'events of one topic': () => ({ topic: 'a', type: 'message', data: '{"price":1.25}' }),
    'large events': number => ({ topic: 'a', type: 'quote', data: `${number}`.padEnd(2000, 'x') }),
    'events that are not ASCII': number => ({
      topic: 'a',
      type: 'quote',
      data: `${number}`.padEnd(500, '漢')
    }),
    bytes: () => ({ topic: 'a', type: 'quote', data: new Uint8Array(100) }),
    topics: number => ({ topic: `topics/${number}`, type: 'message', data: '1' }),
    families: number => ({ topic: `topics/${number}/one`, type: 'message', data: '1' }),
    states: number => ({
      topic: `topics/${number}`,
      type: 'message',
      data: '1',
      state: { value: `{"number":${number}}` }
    }),
    keys: number => ({ topic: 'a', type: 'message', data: '1', key: `key-${number}` })
  }
  for (const [name, eventOf] of Object.entries(cases)) {
    const { log, memory } = make(Infinity, { RING_SIZE: COUNT })
    const before = heapInUse() + process.memoryUsage().external
    for (let number = 0; number < COUNT; number++) await log.append([eventOf(number)])
    const taken = (heapInUse() + process.memoryUsage().external - before) / COUNT
    const estimate = memory.sum / COUNT
    t.ok(
      estimate > 0.9 * taken && estimate < 3 * taken,
      `${name}: ${estimate.toFixed()} for ${taken.toFixed()}`
    )
    log.close()
  }
})

t.test('so it is of members', async t => {
  const memory = new Memory(Infinity)
  const roster = new LocalRoster(memory)
  // what the test before held is let go
  await new Promise(setImmediate)
  const before = heapInUse()
  for (let number = 0; number < COUNT; number++)
    await roster.join(`rooms/${number}`, { id: `id-${number}`, sub: null, info: null })
  const taken = (heapInUse() - before) / COUNT
  const estimate = memory.sum / COUNT
  t.ok(
    estimate > 0.9 * taken && estimate < 3 * taken,
    `members: ${estimate.toFixed()} for ${taken.toFixed()}`
  )
  roster.close()
})

t.test('the oldest events go first, whatever their topic, and only as many as must', async t => {
  const { log, memory, append } = make(20_000)
  const ids: Position[] = []
  for (let number = 0; number < 100; number++) {
    ids.push(...(await append({ topic: number % 3 === 0 ? 'a/1' : 'a/2' })))
    t.ok(memory.sum <= memory.limit)
  }
  const { events } = await log.range('a/*', log.birth, 1000)
  t.ok(events.length > 40, `${events.length} are held`)
  t.strictSame(
    events.map(({ id }) => id),
    ids.slice(-events.length),
    'the newest of all'
  )
  const most = memory.limit * (1 - ANSWERS_PART)
  t.ok(memory.sum <= most && most - memory.sum < 400, 'no more has gone than had to')
  memory.add('answers', memory.limit * ANSWERS_PART)
  await append({ topic: 'a/1' })
  t.equal((await log.range('a/*', log.birth, 1000)).events.length, events.length, 'answers push nothing out')
  const { gaps } = await log.range('a/*', log.birth, 1000)
  t.strictSame([...gaps.keys()].sort(), ['a/1', 'a/2'], 'what has gone is told')
  t.strictSame(
    [...(await log.range('a/1', log.birth, 1000)).gaps],
    [['a/1', ids.findLast((_, index) => index % 3 === 0 && index < 100 - events.length)]]
  )
})

t.test(
  'a topic whose events have all gone is told as a gap, also when it was forgotten with them',
  async t => {
    const { log, append } = make(20_000)
    const between = await log.position()
    const [first] = await append({ topic: 'quiet/1' })
    for (let number = 0; number < 100; number++) await append({ topic: 'busy/1' })
    t.notOk((await log.topics('quiet/*')).includes('quiet/1'), 'it takes no room any more')
    for (const filter of ['quiet/1', 'quiet/*']) {
      const { events, gaps } = await log.range(filter, between, 10)
      t.strictSame(events, [])
      t.ok(gaps.has(filter), filter)
    }
    t.strictSame([...(await log.range('quiet/1', [first!], 10)).gaps], [], 'not to who had its last event')
    await append({ topic: 'quiet/1', data: 'again' })
    const { events, gaps } = await log.range('quiet/1', between, 10)
    t.equal(events.length, 1)
    t.ok(gaps.has('quiet/1'), 'nor when it has begun anew')
  }
)

t.test('states, keys and what is too large are refused, and nothing is stored or let go for it', async t => {
  const { log, memory, append } = make(40_000)
  for (let number = 0; number < 20; number++) await append({ topic: `a/${number}` })
  const before = { ...counted(memory), last: await log.position() }
  const refused = async (what: RegExp, ...events: Parameters<typeof append>) => {
    await t.rejects(append(...events), what)
    t.strictSame({ ...counted(memory), last: await log.position() }, before)
  }
  await refused(/no room for more events/, { topic: 'b' }, { topic: 'b', data: 'x'.repeat(50_000) })
  await refused(/no room for more states/, { topic: 'b', state: { value: 'x'.repeat(25_000) } })
  await refused(
    /no room for more keys/,
    ...Array.from({ length: 40 }, (_, key) => ({ topic: 'b', key: `${key}` }))
  )
  await t.rejects(append({ topic: 'b', data: 'x'.repeat(50_000) }), MemoryFull)
  await append({ topic: 'b', state: { value: 'x'.repeat(15_000) } })
  for (let number = 0; number < 100; number++) await append({ topic: `c/${number}` })
  t.equal((await log.state('b'))?.value.length, 15_000, 'a state is never thrown away')
  await append({ topic: 'b', state: { value: null } })
  t.equal(memory.held('states'), 0)
})

t.test('what has run out is given back by itself', async t => {
  const { clock, log, memory, append } = make(1e9, { RING_TTL: 5000 })
  await log.start({ event() {}, tick() {}, jump() {}, gap() {}, up() {} })
  const before = heapInUse()
  for (let number = 0; number < 20; number++)
    await append({
      topic: `a/${number}`,
      data: Buffer.alloc(1_000_000, `${number}`).toString(),
      key: `${number}`
    })
  t.ok(heapInUse() - before > 15_000_000)
  await clock.advance(7000)
  t.ok(heapInUse() - before < 2_000_000)
  t.strictSame(Object.keys(counted(memory)), ['keys', 'topics'])
  await clock.advance(600_000)
  t.strictSame(counted(memory), {}, 'topics and keys are forgotten, too')
  log.close()
})

t.test('a ring counts and holds its size, and not more', async t => {
  const { memory, append } = make(1e9, { RING_SIZE: 100 })
  const before = heapInUse()
  for (let number = 0; number < 250; number++)
    await append({ topic: 'a', data: Buffer.alloc(100_000, `${number}`).toString() })
  t.ok(heapInUse() - before < 11_000_000, 'held')
  t.ok(memory.sum < 11_000_000, 'counted')
})

t.test('an event keeps nothing alive of the body that it came in', async t => {
  const { log, append } = make(1e9)
  const before = heapInUse()
  for (let number = 0; number < 20; number++) {
    const body = Buffer.alloc(1_000_000, `${number}`).toString()
    await append({ topic: 'a', data: body.slice(10, 50), state: { value: body.slice(20, 90) } })
  }
  // the last body may still be there
  const grown = heapInUse() - before
  t.ok(grown < 5_000_000, `${grown} bytes`)
  t.equal((await log.range('a', log.birth, 100)).events.length, 20)
})

t.test('members are counted, and refused where there are too many', async t => {
  const memory = new Memory(40_000)
  const roster = new LocalRoster(memory)
  const join = (number: number) => roster.join('a', { id: `${number}`, sub: null, info: 'x'.repeat(500) })
  for (let number = 0; number < 9; number++) await join(number)
  await t.rejects(join(9), /no room for more members/)
  t.equal(roster.members('a').length, 9)
  for (let number = 0; number < 9; number++) await roster.leave('a', `${number}`)
  t.strictSame(counted(memory), {})
  await roster.join('a', { id: 'x', sub: null, info: 'a' })
  await roster.join('a', { id: 'x', sub: null, info: 'abc' })
  await roster.leave('a', 'x')
  t.strictSame(counted(memory), {}, 'also of one that told something else')
})

t.test(
  'what others need is given up by the events, and what they have no room for is left alone',
  async t => {
    const { memory, append, log } = make(20_000)
    for (let number = 0; number < 60; number++) await append({ topic: 'a' })
    memory.take('bodies', 10_000)
    t.ok(memory.sum <= memory.limit)
    const held = (await log.range('a', log.birth, 100)).events.length
    t.ok(held > 10 && held < 40, `${held} are left`)
    t.throws(() => memory.take('bodies', 11_000), MemoryFull)
    t.equal((await log.range('a', log.birth, 100)).events.length, held)
    memory.give('bodies', 10_000)
  }
)

t.test('ephemeral events take no memory, and nothing is let go for them', async t => {
  const memory = new Memory(20_000)
  const settings = { RING_SIZE: 1000, RING_TTL: 3_600_000 }
  const rules = new Rules(settings, [{ match: 'e/**', ephemeral: true }])
  const log = new LocalLog(settings, new HeldClock(), memory, rules)
  await log.append([{ topic: 'a', type: 'message', data: '1' }])
  const before = counted(memory)
  for (let number = 0; number < 1000; number++)
    await log.append([{ topic: `e/${number}/x`, type: 'message', data: 'x'.repeat(30_000) }])
  t.strictSame(counted(memory), before)
  await log.append([{ topic: 'e/1', type: 'message', data: '1', key: 'k' }])
  t.strictSame(Object.keys(counted(memory)).sort(), [...Object.keys(before), 'keys'].sort(), 'but for a key')
  log.close()
})
