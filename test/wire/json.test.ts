import t from 'tap'
import { compactJson, depthOf, itemsOf, memberOf } from '../../src/wire/json.ts'
import { randomFrom } from '../support/random.ts'

/** A piece of JSON as somebody may write it, and the same without white space between its tokens. */
type Written = readonly [loose: string, compact: string]

const ATOMS = [
  '0',
  '-0',
  '1e5',
  '1E400',
  '12345678901234567890',
  '1.50',
  'true',
  'null',
  '""',
  '" a  b "',
  '"\\""'
]
const NAMES = ['"a"', '"b"', '"\\u0061"', '":,"', '"\\\\"', '"}"', '""']

t.test('text is found and compacted as it was written', async t => {
  const chance = randomFrom(7)
  const pick = <T>(from: readonly T[]) => from[Math.floor(chance() * from.length)]!
  const space = () => pick(['', '', ' ', '\n\t', '\r\n'])
  const spaced = (text: string) => space() + text + space()

  const value = (depth: number): Written => {
    if (depth === 0 || chance() < 0.4) {
      const atom = pick([...ATOMS, '"[{,:}]"', '"\\\\"'])
      return [spaced(atom), atom]
    }
    const parts = Array.from({ length: Math.floor(chance() * 4) }, () => value(depth - 1))
    if (chance() < 0.5) return joined('[', parts, ']')
    return joined(
      '{',
      parts.map(part => member(pick(NAMES), part)),
      '}'
    )
  }
  const member = (name: string, [loose, compact]: Written): Written => [
    `${spaced(name)}:${loose}`,
    `${name}:${compact}`
  ]
  const joined = (open: string, parts: readonly Written[], close: string): Written => [
    spaced(open + (parts.map(([loose]) => loose).join(',') || space()) + close),
    open + parts.map(([, compact]) => compact).join(',') + close
  ]

  for (let round = 0; round < 2000; round++) {
    const members = Array.from({ length: Math.floor(chance() * 5) }, () => [pick(NAMES), value(3)] as const)
    const [loose, compact] = joined(
      '{',
      members.map(([name, part]) => member(name, part)),
      '}'
    )
    JSON.parse(loose) // it is JSON
    if (compactJson(loose) !== compact) t.equal(compactJson(loose), compact, loose)
    for (const name of ['a', 'b', ':,', '\\', '}', '', 'none']) {
      const expected = members.findLast(([text]) => JSON.parse(text) === name)?.[1][1]
      if (memberOf(loose, name) !== expected) t.equal(memberOf(loose, name), expected, `${name} of ${loose}`)
    }
  }
})

t.test('the items of an array', async t => {
  t.strictSame(itemsOf('[]'), [])
  t.strictSame(itemsOf('[1.0]'), ['1.0'])
  t.strictSame(itemsOf('[[1,2],{"a":[3,","]},"],[","\\"",{}]'), [
    '[1,2]',
    '{"a":[3,","]}',
    '"],["',
    '"\\""',
    '{}'
  ])
})

t.test('depth', async t => {
  t.equal(depthOf('1'), 0)
  t.equal(depthOf('"[[["'), 0)
  t.equal(depthOf('[1,{"a":[2]},[[]]]'), 3)
})

t.test('millions of small tokens are no list', async t => {
  const odd = `{"data":[${'1e5 ,'.repeat(1_500_000)}1]}`
  const before = process.memoryUsage().heapUsed
  const data = memberOf(odd, 'data')!
  const grown = process.memoryUsage().heapUsed - before
  t.equal(data.length, 4 * 1_500_000 + 3)
  t.ok(grown < 130e6, `${Math.round(grown / 1e6)} MB`)
})
