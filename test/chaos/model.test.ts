import { decode, encode } from 'cborg'
import t, { type Test } from 'tap'
import {
  check,
  FAULTS,
  type Fault,
  type Forgetting,
  type Life,
  type Observed,
  type Transport
} from './model.ts'
import { checkPresence, type Heard, type Present, type PresenceFault, type Visit } from './presence.ts'
import { Random } from './random.ts'
import { readings, SocketReading, type Happening } from './readers.ts'

/** What happened: each a second after the one before. */
type Step = Happening

const START = 1_000_000

function life(filters: string[], ...steps: Step[]): Life {
  return lifeOf('sse', filters, ...steps)
}

function lifeOf(transport: Transport, filters: string[], ...steps: Step[]): Life {
  return {
    ...{ name: 'sub', transport, filters },
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
  return check({ shards: 1, acknowledged, lives: [one], stored: [], forgettings: [], hasty: false, ...more })
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
  t.same(verdict.delivered, { sse: 4, ndjson: 0, poll: 0, ws: 0 })
  t.same([verdict.gaps, verdict.needless, verdict.announced], [{}, {}, 0])
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

t.test('lost in a failover, and told late: only where no replica was waited for', async t => {
  const lost: Step = { kind: 'gap', reason: 'lost', topics: both }
  // the second in the log is a second later than START, and so on
  const at = (seconds: number) => START + seconds * 1000
  const events = [1, 2, 3].map(n => ({ topic: 'a', n, id: `${at(n + 1)}-0` }))
  const [, second, third] = events.map(({ id, n }) => event(id, 'a', n))
  const told = (gap: Step) => life(both, connect(), cursor('1000-0'), second!, third!, gap)
  const forgettings: Forgetting[] = [{ from: at(1), to: at(3) }]
  const failover = { acknowledged: events, forgettings, hasty: true }
  t.equal(finds(t, told(lost), {}, failover).announced, 1)
  finds(t, told(gap('a')), { 'lost without a gap': 1 }, failover)
  finds(t, told(lost), { 'lost without a gap': 1 }, { ...failover, hasty: false })
  finds(t, told(lost), { 'lost without a gap': 1 }, { ...failover, forgettings: [{ from: 0, to: at(1) }] })
  const idle = Array.from({ length: 10 }, (): Step => ({ kind: 'goodbye', reason: 'shutdown' }))
  const late = life(both, connect(), cursor('1000-0'), second!, third!, ...idle, lost)
  finds(t, late, { 'lost without a gap': 1 }, failover)
  const missing = { ...failover, acknowledged: [events[0]!, { ...events[1]!, id: `${at(2)}-5` }, events[2]!] }
  const behind = life(both, connect(), cursor('1000-0'), lost, event(events[0]!.id, 'a', 1), third!)
  finds(t, behind, {}, missing)
  finds(t, behind, { 'lost without a gap': 1 }, { ...missing, hasty: false })
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
  const refused: Step = { kind: 'status', status: 503, retryAfter: '2' }
  finds(t, life(both, connect(), refused, connect(), ...whole), { 'wrong status': 1 })
  finds(t, life(both, connect(), ...whole, { kind: 'broken', why: 'a wrong line' }), { strange: 1 })
  finds(t, life(both, connect(), ...whole, moved('1003-1-1')), { strange: 1 })
  finds(t, life(['b/*'], connect(), ...whole), { strange: 3 })
})

/** What one answer tells: its start, what came in these pieces, and an end unless the client has dropped it. */
function answer(
  transport: Exclude<Transport, 'ws'>,
  lastId: string,
  start: string | undefined,
  pieces: readonly string[],
  end = true
): Step[] {
  const reading = new readings[transport]({ lastId, envelope: false, random: new Random(1) })
  const steps: Step[] = [connect(lastId), { kind: 'status', status: 200 }]
  try {
    for (const step of reading.begin(start)) steps.push(step)
    for (const piece of pieces) for (const step of reading.push(Buffer.from(piece))) steps.push(step)
    if (end) for (const step of reading.end()) steps.push(step)
  } catch (error) {
    steps.push({ kind: 'broken', why: (error as Error).message })
  }
  return steps
}

const envelopes = acknowledged.map(({ topic, n, id }) => ({
  ...{ id, topic, type: 'message', time: 0 },
  data: { topic, n }
}))
const gapLine = (reason: string, ...topics: string[]) => ({ type: 'gap', reason, topics, after: '1000-0' })

t.test('a reader of lines', async t => {
  const text = (...lines: object[]) => lines.map(line => `${JSON.stringify(line)}\n`).join('')
  const stream = (lastId: string, start: string, ...lines: object[]) =>
    answer('ndjson', lastId, start, [text(...lines)])
  const lines = (...steps: Step[]) => lifeOf('ndjson', both, ...steps)
  const [first, second, ...rest] = envelopes as [object, object, ...object[]]

  const cut = text(first, second)
  const inPieces = [cut.slice(0, 20), `${cut.slice(20)}\n`, '{"id":"100']
  const resumed = stream('1002-0', '1002-0', ...rest)
  const good = lines(...answer('ndjson', '', '1000-0', inPieces, false), ...resumed)
  t.same(finds(t, good, {}).delivered, { sse: 0, ndjson: 4, poll: 0, ws: 0 })

  const fresh = stream('', '1000-0', first, second)
  finds(t, lines(...stream('', '1000-0', first, ...rest)), { 'lost without a gap': 1 })
  finds(t, lines(...stream('', '1000-0'), ...stream('1000-0', '1000-0', second, ...rest)), {
    'lost without a gap': 1
  })
  finds(t, lines(...fresh, ...stream('1002-0', '1002-0', second, ...rest)), { duplicated: 1 })
  finds(t, lines(...stream('', '1000-0', second, first, ...rest)), { 'out of order': 1 })
  finds(t, lines(...stream('', '1000-0', gapLine('expired', 'a'), second, ...rest)), {})
  finds(t, lines(...stream('', '1000-0', second, rest[0]!, gapLine('expired', 'a'), rest[1]!)), {
    'lost without a gap': 1
  })

  // whoever came with a cursor keeps it until a line has come, so that an unknown one is told again
  const unheard = answer('ndjson', '1002-0', '1003-0', [], false)
  const unknownTwice = stream('1002-0', '1003-0', gapLine('unknown', ...both), rest[1]!)
  finds(t, lines(...fresh, ...unheard, ...unknownTwice), {})
  finds(t, lines(...fresh, ...stream('1002-0', '1003-0', rest[1]!)), {
    'wrong cursor': 1,
    'lost without a gap': 1
  })

  finds(t, lines(...fresh, ...answer('ndjson', '1002-0', '1002-0', [text(...rest), '{"id":'])), {
    strange: 1
  })
  finds(t, lines(...answer('ndjson', '', undefined, []), ...fresh, ...resumed), { strange: 1 })
  finds(t, lines(...fresh, ...stream('1002-0', '1002-0', ...rest, { type: 'quote', data: 1 })), {
    strange: 1
  })
  finds(t, lines(...stream('', '1000-0', { ...first, topic: 'b' }, second, ...rest)), { strange: 1 })
})

t.test('a reader of pages', async t => {
  const page = (lastId: string, start: string, events: readonly object[], end: string, gap?: object) =>
    answer('poll', lastId, start, [JSON.stringify({ events, cursor: end, gap: gap ?? null, more: true })])
  const pages = (...steps: Step[]) => lifeOf('poll', both, ...steps)
  const [first, second, third] = [0, 1, 2].map(at => envelopes.slice(at))

  const begin = page('', '1000-0', [], '1000-5')
  const half = page('1000-5', '1000-5', envelopes.slice(0, 2), '1002-0')
  const last = page('1002-0', '1002-0', third!, '1003-9')
  const good = pages(...begin, ...half, ...last)
  t.same(finds(t, good, {}).delivered, { sse: 0, ndjson: 0, poll: 4, ws: 0 })
  const dropped = answer('poll', '1002-0', '1002-0', ['{"events":['], false)
  finds(t, pages(...begin, ...half, ...dropped, ...last), {})

  finds(t, pages(...begin, ...page('1000-5', '1000-5', second!, '1003-1')), { 'lost without a gap': 1 })
  // a page that says it goes further than it does
  finds(t, pages(...begin, ...half, ...page('1002-0', '1002-0', [], '1003-9')), { 'lost without a gap': 2 })
  finds(t, pages(...begin, ...half, ...page('1002-0', '1002-0', second!, '1003-1')), { duplicated: 1 })
  finds(
    t,
    pages(...begin, ...page('1000-5', '1000-5', [envelopes[1]!, envelopes[0]!, ...third!], '1003-1')),
    {
      'out of order': 1
    }
  )
  // and one that says it goes less far
  finds(t, pages(...begin, ...page('1000-5', '1000-5', first!, '1003-0')), { 'wrong cursor': 1 })

  const expired = gapLine('expired', 'a')
  finds(t, pages(...begin, ...page('1000-5', '1000-5', second!, '1003-1', expired)), {})
  finds(t, pages(...begin, ...page('1000-5', '1000-5', second!, '1003-1', gapLine('expired', 'b/*'))), {
    'lost without a gap': 1
  })
  // told a page too late
  const late = page('1003-0', '1003-0', [envelopes[3]!], '1003-1', expired)
  finds(t, pages(...begin, ...page('1000-5', '1000-5', envelopes.slice(1, 3), '1003-0'), ...late), {
    'lost without a gap': 1
  })

  const elsewhere = (gap?: object) => page('1002-0', '1003-0', [envelopes[3]!], '1003-1', gap)
  finds(t, pages(...begin, ...half, ...elsewhere(gapLine('unknown', ...both))), {})
  finds(t, pages(...begin, ...half, ...elsewhere()), { 'wrong cursor': 1, 'lost without a gap': 1 })

  finds(t, pages(...page('', '1000-0', [...first!, ...Array.from({ length: 500 }, () => first![3]!)], '1')), {
    strange: 1
  })
  finds(t, pages(...begin, ...answer('poll', '1000-5', '1000-5', ['{"events"']), ...half, ...last), {
    strange: 1
  })
})

t.test('only an EventSource must not be told by a status to come back', async t => {
  const status = (code: number, retryAfter?: string): Step => ({
    ...{ kind: 'status', status: code },
    ...(retryAfter !== undefined && { retryAfter })
  })
  const whole = [connect(), cursor('1000-0'), ...all]
  for (const transport of ['ndjson', 'poll'] as const) {
    const after = (step: Step) => lifeOf(transport, both, connect(), step, ...whole)
    for (const code of [503, 429]) {
      finds(t, after(status(code, '2')), {})
      finds(t, after(status(code)), { 'wrong status': 1 })
      finds(t, after(status(code, 'soon')), { 'wrong status': 1 })
    }
    for (const code of [400, 404, 500]) finds(t, after(status(code, '2')), { 'wrong status': 1 })
  }
})

t.test('an EventSource: each block has an id, and ends with it', async t => {
  const of = (text: string) => life(['a'], ...answer('sse', '', undefined, [text]))
  const cursor = (id: string) => `event: cursor\ndata: {"cursor":"${id}"}\nid: ${id}\n\n`
  const start = `retry: 2000\n${cursor('1003-1')}`
  const gap = `event: gap\ndata: ${JSON.stringify(gapLine('lost', 'a'))}\n`
  finds(t, of(`${start}${gap}id: 1003-1\n\n${cursor('1003-2')}`), {})
  finds(t, of(`${start}:\nid: 1003-2\n\n`), { strange: 1 })
  finds(t, of(`${start}id: 1003-1\n${gap}\n`), { strange: 1 })
  finds(t, of(`${start}data: {"topic":"a","n":9}\n\n`), { strange: 1 })
  finds(t, of(`${start}data: {"topic":"a"`), { strange: 1 })
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

t.test('a reader over a WebSocket', async t => {
  const read = (lastId: string, ...messages: object[]): Step[] => {
    const reading = new SocketReading({ lastId, random: new Random(2) })
    const binary = reading.protocol === 'ringside.v1.cbor'
    t.match(
      binary ? decode(reading.request(both) as Uint8Array) : JSON.parse(reading.request(both) as string),
      {
        ...{ op: 'subscribe', topics: both },
        ...(lastId !== '' && { after: lastId })
      }
    )
    const encoded = messages.map(each => Buffer.from(binary ? encode(each) : JSON.stringify(each)))
    return [connect(lastId), ...encoded.flatMap(bytes => reading.push(bytes, binary))]
  }
  const ok = (id: string) => ({ op: 'ok', ref: 1, cursor: id })
  const [first, second, ...rest] = envelopes.map(each => ({ op: 'event', ...each })) as [object, object]
  const socket = (...steps: Step[]) => lifeOf('ws', both, ...steps)
  const half = read('', ok('1000-0'), first, second)

  t.equal(finds(t, socket(...half, ...read('1002-0', ok('1002-0'), ...rest)), {}).delivered.ws, 4)
  t.equal(finds(t, socket(...half, ...read('1002-0', ok('1002-0'), ...rest)), {}).delivered.ws, 4)
  const quiet = read('', ok('1000-0'), { op: 'cursor', cursor: '1001-0', topics: both }, second, ...rest)
  finds(t, socket(...quiet), { 'lost without a gap': 1 })
  const told = { op: 'gap', reason: 'unknown', topics: both, after: '1002-0' }
  finds(t, socket(...half, ...read('1002-0', told, ok('1003-1'))), {})
  finds(t, socket(...half, ...read('1002-0', ok('1003-1'))), { 'wrong cursor': 1, 'lost without a gap': 2 })
  const refused = (code: string) => read('', { op: 'error', ref: 1, code, message: '' })
  const whole = read('', ok('1000-0'), first, second, ...rest)
  finds(t, socket(...refused('unavailable'), ...whole), {})
  finds(t, socket(...refused('bad_request'), ...whole), { 'wrong status': 1 })
  finds(t, socket(...whole, ...read('1003-1', { op: 'joined', topic: 'a', member: { id: 'm' } })), {})
  t.throws(() => read('', { op: 'signal' }), /a wrong message/)
})

// --- who is there ---

type Word = DistributiveOmit<Heard, 'at'>
type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never

const present = (...ids: string[]): Present[] => ids.map(id => ({ id, info: 'null' }))
const inside = (...ids: string[]): Word => ({ kind: 'in', room: 'r', members: present(...ids) })
const outside = (...ids: string[]): Word => ({ kind: 'out', room: 'r', members: present(...ids) })
const joined = (id: string, info = 'null'): Word => ({ kind: 'joined', room: 'r', member: { id, info } })
const left = (id: string): Word => ({ kind: 'left', room: 'r', member: { id, info: 'null' } })

function visit(...words: Word[]): Visit {
  return { name: 'm', instance: 'i', isOpen: true, log: words.map(word => ({ at: 0, ...word })) }
}

/** Which faults there are, each so often. */
function presenceFaults(visits: Visit[], newcomers: Visit[] = []): Partial<Record<PresenceFault, number>> {
  const found: Partial<Record<PresenceFault, number>> = {}
  for (const { fault } of checkPresence(visits, newcomers)) found[fault] = (found[fault] ?? 0) + 1
  return found
}

t.test('members who see each other, and nobody else', async t => {
  const a = visit(inside('a'), joined('b'), joined('c'), left('c'))
  const gone = { ...visit(inside('c', 'a', 'b')), isOpen: false }
  t.same(presenceFaults([a, gone, visit(inside('b', 'a'), joined('c'), left('c'))]), {})
  t.same(
    presenceFaults([visit(inside('a'), joined('b'), left('b')), visit(inside('b', 'a'), outside('a'))]),
    {}
  )
  t.same(presenceFaults([visit()]), {})
})

t.test('a ghost: one that is gone, one that has left, and one that never was', async t => {
  const gone = { ...visit(inside('c', 'a')), isOpen: false }
  t.same(presenceFaults([visit(inside('a'), joined('c')), gone]), { ghosts: 1 })
  t.same(presenceFaults([visit(inside('a'), joined('c')), visit(inside('c', 'a'), outside('a'))]), {
    ghosts: 1
  })
  t.same(presenceFaults([visit(inside('a', 'x'))]), { ghosts: 1 })
})

t.test('one that is missing: never told, told as gone, or in another room', async t => {
  const b = visit(inside('b', 'a'))
  t.same(presenceFaults([visit(inside('a')), b]), { 'missing members': 1 })
  t.same(presenceFaults([visit(inside('a'), joined('b'), left('b')), b]), { 'missing members': 1 })
  const elsewhere = visit({ ...inside('a'), room: 'q' }, { ...joined('b'), room: 'q' })
  t.same(presenceFaults([elsewhere, b]), { ghosts: 2 })
})

t.test('what a member tells of itself must be the newest', async t => {
  const again: Word = { kind: 'in', room: 'r', members: [{ id: 'b', info: '2' }] }
  const b = visit(inside('b', 'a'), again)
  t.same(presenceFaults([visit(inside('a', 'b'), joined('b', '2')), b]), {})
  t.same(presenceFaults([visit(inside('a', 'b')), b]), { ghosts: 1, 'missing members': 1 })
})

t.test('a newcomer is answered with all who are there, other newcomers aside', async t => {
  const a = visit(inside('a'), joined('n'), joined('o'))
  const newcomers = [visit(inside('n', 'a'), joined('o')), visit(inside('o', 'n', 'a'))]
  t.same(presenceFaults([a], newcomers), {})
  t.same(
    presenceFaults([a], [visit(inside('n', 'a'), joined('o')), visit(inside('o', 'a'), joined('n'))]),
    {}
  )
  const ghost = visit(inside('n', 'a', 'x'), left('x'), joined('o'))
  t.same(presenceFaults([a], [ghost, newcomers[1]!]), { ghosts: 1 })
  const blind = visit(inside('n'), joined('a'), joined('o'))
  t.same(presenceFaults([a], [blind, newcomers[1]!]), { 'missing members': 1 })
})

t.test('what contradicts what was told before', async t => {
  const contradicts = (...words: Word[]) =>
    t.same(presenceFaults([{ ...visit(...words), isOpen: false }]), { contradictions: 1 })
  contradicts(inside('a', 'b'), joined('b'))
  contradicts(inside('a'), left('b'))
  contradicts(inside('a'), joined('a', '2'))
  contradicts(inside('a', 'b', 'b'))
  contradicts(inside())
  contradicts(joined('b'))
  contradicts(inside('a', 'b'), outside('b'), left('b'))
  contradicts(inside('a', 'b'), inside('a', 'x'))
  contradicts(inside('a', 'b'), outside())
})
