import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { readRules } from '../src/rules/file.ts'
import { Rules } from '../src/rules/rules.ts'

const SETTINGS = { RING_SIZE: 10, RING_TTL: 5000 }
const TOPICS = join(t.testdir({}), 'topics.json')

function read(text: string): Rules {
  writeFileSync(TOPICS, text)
  return readRules({ ...SETTINGS, TOPICS, MAX_EVENT_BYTES: 61_440 })
}

t.test('durations and sizes are as in settings', t => {
  const { list } = read(
    '[{"match":"a","ttl":"7d","maxEventBytes":"1 KiB"},{"match":"b","ttl":90,"maxEventBytes":5}]'
  )
  t.strictSame(list, [
    { match: 'a', ttl: 604_800_000, maxEventBytes: 1024 },
    { match: 'b', ttl: 90_000, maxEventBytes: 5 }
  ])
  t.end()
})

for (const [text, line, reason] of [
  ['', 1, /no JSON/],
  ['[\n{"match":"a"},\n]', 3, /no JSON: Value expected/],
  ['[\n\n{"match" "a"}]', 3, /no JSON: Colon expected/],
  ['[{"match":"a"} // rooms\n]', 1, /no JSON: Invalid comment/],
  ['{"match":"a"}', 1, /a list/],
  ['[\n1]', 2, /an object/],
  ['[{"match":"a"},\n{"ring":1}]', 2, /match: it is missing/],
  ['[{"match":"a",\n"rign":1}]', 2, /rign: there is no such member; there is match, ring/],
  ['[{"match":"a",\n"__proto__":1}]', 2, /no such member/],
  ['[{"match":"a","ring":1,\n"ring":2}]', 2, /ring: it is given twice/],
  ['[{"match":"a/**/b"}]', 1, /match: "a\/\*\*\/b" .* a pattern/],
  ['[{"match":"a","ring":0}]', 1, /ring: 0 .* from 1 to 1000000/],
  ['[{"match":"a","ring":"5"}]', 1, /ring: "5" .* a whole number/],
  ['[{"match":"a","ring":1.5}]', 1, /ring: 1.5 .* a whole number/],
  ['[{"match":"a","ttl":"soon"}]', 1, /ttl: "soon" .* a duration/],
  ['[{"match":"a","ttl":"1ms"}]', 1, /ttl: "1ms" .* from 1s to 365d/],
  ['[{"match":"a","maxEventBytes":"1 MiB"}]', 1, /maxEventBytes: 1048576 .*MAX_EVENT_BYTES=61440/],
  ['[{"match":"a","anonymous":1}]', 1, /anonymous: 1 .* true or false/],
  ['[{"match":"a","rate":[]}]', 1, /rate: "array" .* from 0.1 to 100/],
  ['[{"match":"a","maxSubscribers":-1}]', 1, /maxSubscribers: -1 /],
  ['[{"match":"a","ephemeral":1}]', 1, /ephemeral: 1 .* true or false/],
  ['[{"match":"a","ephemeral":true,\n"ring":5}]', 2, /ring: .* beside ephemeral/],
  ['[{"match":"a",\n"ttl":"1h",\n"ephemeral":true}]', 2, /ttl: .* beside ephemeral/],
  ['[{"match":"tickers/**",\n"ephemeral":true}]', 2, /ephemeral: .*\/tickers .*must be stored/],
  ['[{"match":"dashboards/ops","ephemeral":true}]', 1, /ephemeral: .*\/dashboards /],
  ['[{"match":"notifications/*","ephemeral":true}]', 1, /ephemeral: .*\/notifications /]
] as const)
  t.test(`${JSON.stringify(text)}: line ${line}, and why`, t => {
    t.throws(() => read(text), { message: new RegExp(`^TOPICS=.*: line ${line}: [^\n]*$`) })
    t.throws(() => read(text), { name: 'ConfigError', message: reason })
    t.end()
  })

t.test('a topic is ephemeral by its rule, unless a feed writes it', t => {
  const rules = read(
    '[{"match":"a/**","ephemeral":false,"ring":5},{"match":"*/b","ephemeral":true},{"match":"**","ephemeral":true,"rate":5}]'
  )
  const isEphemeral = (topic: string) => rules.of(topic).ephemeral
  t.strictSame(['a/b', 'x/b', 'x', 'x/y/z'].map(isEphemeral), [false, true, true, true])
  t.strictSame(['tickers/b', 'dashboards/c', 'notifications/alice'].map(isEphemeral), [false, false, false])
  t.match(rules.of('tickers/c'), { match: '**', rate: 5, ring: 10 }, 'all else that the rule says holds')
  t.end()
})

t.test('the first rule that matches a topic holds', t => {
  const rules = new Rules(SETTINGS, [
    { match: 'a/b', ring: 1 },
    { match: 'a/*', ring: 2, ttl: 9000 },
    { match: 'a/**', ring: 3 }
  ])
  const ring = (topic: string) => rules.of(topic).ring
  t.strictSame(['a/b', 'a/c', 'a/c/d', 'a', 'b'].map(ring), [1, 2, 3, 3, 10])
  t.equal(rules.longest, 9000)
  t.match(rules.over('a/*'), { longest: 9000, shortest: 5000, ring: 10 })
  t.equal(rules.over('a/*').rules.length, 2, 'none behind the one that covers all')
  t.equal(rules.over('a/b').ring, 1)
  t.equal(rules.over('*').rules.length, 2, 'one of its topics, and all others')
  t.equal(rules.longestOf(['b', 'a/c']), 9000)
  rules.replace([])
  t.strictSame(['a/b', 'a/c'].map(ring), [10, 10], 'nothing of before is remembered')
  t.end()
})
