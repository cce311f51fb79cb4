import t, { type Test } from 'tap'
import { check, FAULTS, type Entry, type Fault, type Forgetting, type Life, type Observed } from './model.ts'
import { Random } from './random.ts'

/** What happened, without its time: each a second after the one before. */
type Step = Entry extends infer E ? (E extends Entry ? Omit<E, 'at'> : never) : never

const START = 1_000_000

function life(filters: string[], ...steps: Step[]): Life {
  return {
    name: 'sub',
    filters,
    log: steps.map((step, index) => ({ ...step, at: START + index * 1000 }))
  }
}

const connect = (lastId = ''): Step => ({ kind: 'connect', instance: 'i', lastId })
const cursor = (id: string): Step => ({ kind: 'cursor', id })
const moved = (id: string): Step => ({ kind: 'moved', id })
const event = (id: string, topic: string, n: number): Step => ({ kind: 'event', id, topic, n })
const gap = (...topics: string[]): Step => ({ kind: 'gap', reason: 'expired', topics })
const unknown = (...topics: string[]): Step => ({ kind: 'gap', reason: 'unknown', topics })

const acknowledged = [
  { topic: 'a', n: 1, id: '1001-0' },
  { topic: 'b/x', n: 1, id: '1002-0' },
  { topic: 'a', n: 2, id: '1003-0' },
  { topic: 'a', n: 3, id: '1003-1' }
]

const all = [
  event('1001-0', 'a', 1),
  event('1002-0', 'b/x', 1),
  event('1003-0', 'a', 2),
  event('1003-1', 'a', 3)
]
const both = ['a', 'b/*']

function verdictOf(one: Life, more: Partial<Observed> = {}) {
  return check({ shards: 1, acknowledged, lives: [one], stored: [], forgettings: [], ...more })
}

/** Asserts which faults are found, each so often, and nothing else. */
function finds(
  test: Test,
  one: Life,
  expected: Partial<Record<Fault, number>>,
  more: Partial<Observed> = {}
) {
  const verdict = verdictOf(one, more)
  const found = Object.fromEntries(
    FAULTS.map(fault => [fault, verdict.violations.filter(each => each.fault === fault).length])
  )
  test.same(found, { ...Object.fromEntries(FAULTS.map(fault => [fault, 0])), ...expected })
  return verdict
}

t.test('a subscriber that got everything once and in order', async t => {
  const one = life(both, connect(), cursor('1000-0'), ...all)
  const verdict = finds(t, one, {})
  t.same([verdict.delivered, verdict.gaps, verdict.needless, verdict.announced], [4, {}, {}, 0])
})

t.test('what came before its first cursor, or of other topics, nobody owes it', async t => {
  finds(t, life(['b/*'], connect(), cursor('1001-0'), event('1002-0', 'b/x', 1)), {})
})

t.test('a reconnect in the middle, with an id that a block without data brought', async t => {
  const after = [moved('1002-5'), connect('1002-5'), cursor('1002-5'), ...all.slice(2)]
  finds(t, life(both, connect(), cursor('1000-0'), ...all.slice(0, 2), ...after), {})
})

t.test('lost: in the middle, at the end, and everything', async t => {
  const missing = (n: number) => all.filter((_, index) => index !== n)
  finds(t, life(both, connect(), cursor('1000-0'), ...missing(0)), { 'lost without a gap': 1 })
  finds(t, life(both, connect(), cursor('1000-0'), ...missing(2)), { 'lost without a gap': 1 })
  finds(t, life(both, connect(), cursor('1000-0'), ...missing(3)), { 'lost without a gap': 1 })
  finds(t, life(both, connect(), cursor('1000-0'), moved('1003-1')), { 'lost without a gap': 4 })
})

t.test('lost, and told in time', async t => {
  const verdict = finds(t, life(both, connect(), cursor('1000-0'), gap('a'), ...all.slice(1)), {})
  t.same([verdict.announced, verdict.needless, verdict.gaps], [1, {}, { expired: 1 }])
  finds(t, life(both, connect(), cursor('1000-0'), gap('b/*'), all[0]!, ...all.slice(2)), {}, {})
  finds(t, life(both, connect(), cursor('1000-0'), ...all.slice(0, 3), gap('a', 'b/*')), {})
})

t.test('a gap for the wrong topic answers nothing', async t => {
  const one = life(both, connect(), cursor('1000-0'), gap('b/*'), ...all.slice(1))
  const verdict = finds(t, one, { 'lost without a gap': 1 })
  t.same(verdict.needless, { expired: 1 })
})

t.test('a gap for what it did not ask for', async t => {
  finds(t, life(['a', '*'], connect(), cursor('1000-0'), gap('b/x'), all[0]!, ...all.slice(2)), {
    strange: 1
  })
})

t.test('a gap that comes too late', async t => {
  const late = life(both, connect(), cursor('1000-0'), all[1]!, all[2]!, gap('a'), all[3]!)
  finds(t, late, { 'lost without a gap': 1 })
})

t.test('a gap that came before the last event ahead of the loss', async t => {
  const early = life(both, connect(), cursor('1000-0'), gap('a'), all[0]!, all[1]!, all[3]!)
  finds(t, early, { 'lost without a gap': 1 })
})

t.test('a gap that came before the event was stored', async t => {
  const stored = START + 60_000
  const younger = [{ topic: 'a', n: 1, id: `${stored}-0` }]
  const one = life(['a'], connect(), cursor('1000-0'), gap('a'), moved(`${stored}-0`))
  finds(t, one, { 'lost without a gap': 1 }, { acknowledged: younger })
})

t.test('duplicated: at once, and after a reconnect', async t => {
  finds(t, life(both, connect(), cursor('1000-0'), all[0]!, all[0]!, ...all.slice(1)), { duplicated: 1 })
  const again = [connect('1003-1'), cursor('1003-1'), all[3]!]
  finds(t, life(both, connect(), cursor('1000-0'), ...all, ...again), { duplicated: 1 })
})

t.test('reordered', async t => {
  const one = life(both, connect(), cursor('1000-0'), all[1]!, all[0]!, all[2]!, all[3]!)
  finds(t, one, { 'out of order': 1 })
})

t.test('an event behind an id that was given before', async t => {
  const one = life(both, connect(), cursor('1000-0'), moved('1001-0'), ...all)
  finds(t, one, { 'out of order': 1 })
})

t.test('stored twice: as delivered, as answered, and as it lies in the store', async t => {
  const other = event('1004-0', 'a', 3)
  const forgettings: Forgetting[] = [{ from: 1003, to: 1004 }]
  const whole = [connect(), cursor('1000-0'), ...all]
  finds(t, life(both, ...whole, other), { 'stored twice': 1 })
  const stored = [{ topic: 'b/x', n: 1, id: '1002-7' }]
  finds(t, life(both, ...whole), { 'stored twice': 1 }, { stored })
  const verdict = finds(t, life(both, ...whole, other), {}, { forgettings })
  t.equal(verdict.storedAgain, 1, 'after the store has forgotten the first, and its key')
  const elsewhere = [{ from: 1000, to: 1002 }]
  finds(t, life(both, ...whole, other), { 'stored twice': 1 }, { forgettings: elsewhere })
})

t.test('a stream that begins elsewhere than where it was resumed', async t => {
  const before = [connect(), cursor('1000-0'), ...all.slice(0, 2), connect('1002-0')]
  finds(t, life(both, ...before, cursor('1002-9'), ...all.slice(2)), { 'wrong cursor': 1 })
  finds(t, life(both, ...before, unknown('a', 'b/*'), cursor('1002-9'), ...all.slice(2)), {})
})

t.test('a cursor that moves back', async t => {
  const one = life(both, connect(), cursor('1000-0'), ...all, moved('1003-0'))
  finds(t, one, { 'wrong cursor': 1 })
  finds(t, life(both, connect(), cursor('1000-0'), ...all, unknown('a', 'b/*'), moved('1003-0')), {})
})

t.test('answers that are no stream, and streams that are none', async t => {
  const whole = [cursor('1000-0'), ...all]
  finds(t, life(both, connect(), { kind: 'status', status: 503 }, connect(), ...whole), {
    'other status than 200': 1
  })
  finds(t, life(both, connect(), ...whole, { kind: 'broken', why: 'a wrong line' }), { strange: 1 })
  finds(t, life(both, connect(), ...whole, moved('1003-1-1')), { strange: 1 })
  finds(t, life(['b/*'], connect(), ...whole), { strange: 3 })
})

t.test('several shards: order within each, and an id that moves none of them back', async t => {
  // 'g' lies in the first of three shards, 'd' in the second
  const answers = [
    { topic: 'g', n: 1, id: 'rs~0~0~0' },
    { topic: 'd', n: 1, id: 'rt~1~0~1' }
  ]
  const good = [event('rs~0~5~0', 'g', 1), event('rt~1~0~1', 'd', 1)]
  const more = { shards: 3, acknowledged: answers }
  const begin = [connect(), cursor('rs~5~5~0')]
  finds(t, life(['g', 'd'], ...begin, ...good), {}, more)
  finds(t, life(['g', 'd'], ...begin, good[1]!), { 'lost without a gap': 1 }, more)
  finds(t, life(['g', 'd'], ...begin, good[1]!, good[0]!), { 'out of order': 1, 'wrong cursor': 1 }, more)
})

t.test('a harness that does not send its last id is no witness', async t => {
  t.throws(() => verdictOf(life(both, connect(), cursor('1000-0'), ...all, connect('1000-0'))), /last id/)
})

t.test('a seed repeats its numbers', async t => {
  const draw = (seed: number) => {
    const random = new Random(seed)
    const fork = random.fork()
    return [random.next(), random.whole(1, 6), fork.pick([1, 2, 3]), ...random.some([1, 2, 3, 4], 2)]
  }
  t.same(draw(7), draw(7))
  t.notSame(draw(7), draw(8))
})
