import fc from 'fast-check'
import t from 'tap'
import * as vocabulary from '../src/event.ts'
import type { Cursor, Position } from '../src/event.ts'

const {
  comparePositions,
  covers,
  earlier,
  formatCursor,
  furthest,
  isFilter,
  isTopic,
  isWildcard,
  justBefore
} = vocabulary
const { later, matches, parseCursor, parsePosition, wildcardOf } = vocabulary

t.test('a topic', async t => {
  const good = [
    'a',
    'tickers/AAPL',
    'a/b/c/d',
    'räume/küche',
    '日本/東京',
    'a b',
    'a**',
    '*a/b*',
    '😀',
    'x'.repeat(256),
    '.',
    '..',
    '%2F'
  ]
  for (const topic of good) t.ok(isTopic(topic), topic.slice(0, 20))
  const bad = [
    ...['', '/', '/a', 'a/', 'a//b', '*', 'a/*', '*/a', 'a/*/b', 'x'.repeat(257), 'ü'.repeat(129)],
    ...['a\nb', 'a\u0000', 'a\u007f', 'a\u0085b', 'a\u200bb', 'a\u202eb', '\ufeffa', 'a\ud800', '\udc00b']
  ]
  for (const topic of bad) t.notOk(isTopic(topic), JSON.stringify(topic.slice(0, 20)))
})

t.test('a filter', async t => {
  for (const filter of ['a', '*', 'a/*', 'a/b/*', 'a*', `${'x'.repeat(254)}/*`])
    t.ok(isFilter(filter), filter.slice(0, 20))
  for (const filter of ['', '/*', '*/', '*/*', '*/a', 'a/*/b', 'a//*', `${'x'.repeat(255)}/*`])
    t.notOk(isFilter(filter), filter.slice(0, 20))
  for (const filter of ['*', 'a/*', 'a/b/*']) t.ok(isWildcard(filter), filter)
  for (const filter of ['a', 'a*', 'a/b*', '**', 'a/**']) t.notOk(isWildcard(filter), filter)
})

t.test('a wildcard covers one segment, any value', async t => {
  for (const [filter, topic] of [
    ['*', 'a'],
    ['a/*', 'a/b'],
    ['a/b/*', 'a/b/c'],
    ['a/b', 'a/b'],
    ['*', 'ü b']
  ] as const) {
    t.ok(matches(filter, topic), `${filter} covers ${topic}`)
  }
  for (const [filter, topic] of [
    ['*', 'a/b'],
    ['a/*', 'a'],
    ['a/*', 'a/b/c'],
    ['a/*', 'ab/c'],
    ['a/*', 'aa/b'],
    ['a', 'b'],
    ['a', 'a/b'],
    ['b/*', 'a/b']
  ] as const) {
    t.notOk(matches(filter, topic), `${filter} doesn't cover ${topic}`)
  }
  t.equal(wildcardOf('a'), '*')
  t.equal(wildcardOf('a/b/c'), 'a/b/*')
})

t.test('positions are ordered by time, then by number', async t => {
  const sorted = [
    { ms: 0, seq: 0 },
    { ms: 0, seq: 1 },
    { ms: 9, seq: 99 },
    { ms: 10, seq: 0 },
    { ms: 10, seq: 2 },
    { ms: 10, seq: 10 }
  ]
  t.strictSame([...sorted].reverse().sort(comparePositions), sorted)
  for (const [index, a] of sorted.entries()) {
    for (const [other, b] of sorted.entries()) {
      t.equal(Math.sign(comparePositions(a, b)), Math.sign(index - other))
      t.strictSame(later(a, b), sorted[Math.max(index, other)])
      t.strictSame(earlier(a, b), sorted[Math.min(index, other)])
    }
  }
  const at = (...ms: number[]): Cursor => ms.map(ms => ({ ms, seq: 0 }))
  t.ok(covers(at(2, 3), at(2, 3)))
  t.ok(covers(at(2, 3), at(1, 3)))
  t.notOk(covers(at(2, 3), at(3, 1)))
  t.notOk(covers(at(2, 3), at(2, 4)))
  t.strictSame(furthest(at(1, 5), at(2, 4), at(0, 0)), at(2, 5))
  t.strictSame(furthest(at(1)), at(1))
})

/** Until the year 2059, at up to sixty million events in a millisecond. */
const position = fc.record({ ms: fc.nat(36 ** 8 - 1), seq: fc.nat(36 ** 5 - 1) })

t.test('a cursor is read as it was written, and fits a header', async t => {
  for (let shards = 1; shards <= 8; shards++) {
    fc.assert(
      fc.property(fc.array(position, { minLength: shards, maxLength: shards }), (cursor: Position[]) => {
        const text = formatCursor(cursor)
        if (!/^[A-Za-z0-9\-._~]{1,128}$/.test(text)) throw new Error(`not fit for a header: ${text}`)
        if (JSON.stringify(parseCursor(text, shards)) !== JSON.stringify(cursor))
          throw new Error(`${text} reads as ${JSON.stringify(parseCursor(text, shards))}`)
        for (const others of [1, 2, 8].filter(count => count !== shards)) {
          if (parseCursor(text, others)) throw new Error(`${text} was taken for one of ${others} shards`)
        }
      }),
      { seed: 1, numRuns: 300 }
    )
  }
  t.equal(
    formatCursor([{ ms: 1795415443568, seq: 0 }]),
    '1795415443568-0',
    'with one shard, as in a Redis Stream'
  )
})

t.test('what is no cursor is not read as one', async t => {
  const bad = [
    ...[
      '',
      '-',
      '1-',
      '-1',
      '1',
      'x-0',
      '0x1-0',
      '1-0 ',
      ' 1-0',
      '1-0\n',
      '1-0-0',
      '+1-0',
      '1.5-0',
      '1e3-0',
      '-1-0',
      '1--0'
    ],
    ...['1234567890123456-0', '1-1234567890123456', '１-0', '٣-0', 'null', 'NaN-NaN', '1-0,2-0', '1~0']
  ]
  for (const text of bad) t.equal(parseCursor(text, 1), undefined, JSON.stringify(text))
  t.strictSame(parsePosition('999999999999999-999999999999999'), {
    ms: 999999999999999,
    seq: 999999999999999
  })
  for (const text of [
    '1~0',
    '1~0~0~0',
    'a~b',
    '1~0~2',
    '1~~0',
    '~0~0',
    '1~0~0-',
    'A~0~0',
    '1~-1~0',
    '1234567890~0~0',
    '5-0'
  ]) {
    t.equal(parseCursor(text, 2), undefined, JSON.stringify(text))
  }
  fc.assert(
    fc.property(fc.string(), fc.integer({ min: 1, max: 8 }), (text, shards) => {
      const cursor = parseCursor(text, shards)
      if (cursor && cursor.length !== shards) throw new Error(text)
    }),
    { seed: 1 }
  )
})

t.test('just before an event there is nothing of its topic but what came before it', async t => {
  fc.assert(
    fc.property(position, fc.option(position), (id, prev) => {
      const { ms, seq } = id
      fc.pre(ms > 0 && (prev === null || comparePositions(prev, id) < 0))
      const before = justBefore({ id, prev })
      if (comparePositions(before, id) >= 0) throw new Error('not before it')
      if (prev && comparePositions(before, prev) < 0) throw new Error('before the one before it')
      if (before.ms < ms - 1 || (seq > 0 && before.ms < ms)) throw new Error('older than the event')
    }),
    { seed: 1, numRuns: 1000 }
  )
  const event = { shard: 0, topic: 'a', type: 'message', data: '' }
  t.strictSame(justBefore({ ...event, id: { ms: 5, seq: 3 }, prev: null }), { ms: 5, seq: 2 })
  t.strictSame(justBefore({ ...event, id: { ms: 5, seq: 0 }, prev: { ms: 4, seq: 7 } }), { ms: 4, seq: 7 })
  t.strictSame(justBefore({ ...event, id: { ms: 5, seq: 0 }, prev: { ms: 2, seq: 7 } }), { ms: 4, seq: 0 })
})
