import fc from 'fast-check'
import t from 'tap'
import { isFilter, matches, parsePattern, permits, type Pattern } from '../../src/event.ts'

// The letters of which topics are made here; none of the patterns names `z`, which stands for all other names.
const NAMES = ['a', 'b', 'z']
const DEPTH = 4

/** Every topic of these letters, up to a depth. */
const TOPICS = Array.from({ length: DEPTH }, (_, index) => index + 1).flatMap(depth =>
  Array.from({ length: NAMES.length ** depth }, (_, number) =>
    Array.from(
      { length: depth },
      (_, at) => NAMES[Math.floor(number / NAMES.length ** at) % NAMES.length]!
    ).join('/')
  )
)

/** What a pattern stands for, as the contract says it: `*` one segment, `**` any number at the end. */
function stands(pattern: string, topic: string): boolean {
  const [, before, open] = /^(.*?)(\/?\*\*)?$/.exec(pattern)!
  const rests =
    open === undefined
      ? [[]]
      : Array.from({ length: DEPTH + 1 }, (_, count) => Array.from({ length: count }, () => '*'))
  return rests.some(rest => {
    const segments = [...before!.split('/').filter(Boolean), ...rest]
    const given = topic.split('/')
    return segments.length === given.length && given.every((name, at) => ['*', name].includes(segments[at]!))
  })
}

const patterns = fc.array(
  fc
    .tuple(
      fc.array(fc.constantFrom('a', 'b', '*'), { minLength: 0, maxLength: 3 }),
      fc.constantFrom<string[]>([], [], ['**'])
    )
    .map(([segments, rest]) => [...segments, ...rest].join('/'))
    .filter(text => text !== ''),
  { maxLength: 4 }
)

const filters = fc
  .tuple(
    fc.array(fc.constantFrom(...NAMES), { minLength: 0, maxLength: DEPTH - 1 }),
    fc.constantFrom(...NAMES, '*')
  )
  .map(([segments, last]) => [...segments, last].join('/'))

function read(texts: readonly string[]): Pattern[] {
  return texts.map(text => parsePattern(text)!)
}

t.test('patterns cover a filter when each of its topics is covered, and only then', async t => {
  fc.assert(
    fc.property(patterns, filters, (texts, filter) => {
      const covered = TOPICS.filter(topic => matches(filter, topic))
      const expected = covered.every(topic => texts.some(text => stands(text, topic)))
      return permits(read(texts), filter) === expected
    }),
    { numRuns: 5000 }
  )
  t.pass('for 5000 of them')
})

t.test('what may be read under a wildcard may be read one by one', async t => {
  fc.assert(
    fc.property(patterns, filters, (texts, filter) => {
      const given = read(texts)
      if (!permits(given, filter)) return true
      return TOPICS.filter(topic => matches(filter, topic)).every(topic => permits(given, topic))
    }),
    { numRuns: 1000 }
  )
  t.pass('for 1000 of them')
})

t.test('by example', async t => {
  for (const [pattern, covers, doesNot] of [
    ['**', ['a', 'a/b/c', '*', 'a/*', 'a/b/*'], []],
    ['*', ['a', '*'], ['a/b', 'a/*']],
    ['a/*', ['a/b', 'a/*', 'a/**'], ['a', 'a/b/c', 'a/b/*', '*', 'b/*']],
    ['a/**', ['a', 'a/b', 'a/*', 'a/b/c', 'a/b/*'], ['ab', 'b', '*', 'ab/c']],
    ['a/*/c', ['a/b/c', 'a/c/c'], ['a/c', 'a/b/d', 'a/*', 'a/b/*']],
    ['*/*', ['a/b', 'a/*'], ['a', '*', 'a/b/c']],
    ['*/**', ['a', '*', 'a/b/*'], []],
    ['a/b', ['a/b'], ['a/*', 'a/B', 'a/b/', 'a']],
    ['a*', ['a*'], ['ab', 'a']],
    ['a/***', ['a/***'], ['a/b', 'a/*']],
    ['[ab]/.+', ['[ab]/.+'], ['a/b']]
  ] as const) {
    for (const filter of covers) t.ok(permits(read([pattern]), filter), `${pattern} covers ${filter}`)
    for (const filter of doesNot) t.notOk(permits(read([pattern]), filter), `${pattern} covers no ${filter}`)
  }
  t.notOk(permits([], 'a'))
})

t.test('what is no pattern', async t => {
  for (const text of [
    '',
    '/',
    'a/',
    '/a',
    'a//b',
    '**/a',
    'a/**/b',
    'a\n',
    'a\u0000b',
    'x'.repeat(257),
    '\ud800'
  ])
    t.equal(parsePattern(text), undefined, JSON.stringify(text))
  for (const text of ['*', '**', 'a', '*/**', 'a b', 'ümlaut/*', 'auth0|5', 'x'.repeat(256)])
    t.strictSame(parsePattern(text), text.split('/'))
})

t.test('every filter is a pattern that covers itself', async t => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', maxLength: 20 }), filters, (text, filter) =>
      [text, filter].filter(isFilter).every(each => {
        const pattern = parsePattern(each)
        // but what has ** within is a topic that only ** can be given for
        return pattern ? permits([pattern], each) : each.split('/').slice(0, -1).includes('**')
      })
    )
  )
  t.pass()
})
