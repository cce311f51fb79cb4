import t from 'tap'
import { readArray, readBatch, type BatchItem } from '../../src/http/batch.ts'

const LIMITS = { items: 1000, itemBytes: 100_000 }
const MIB = 2 ** 20

const values = (text: string) =>
  readBatch('application/json', Buffer.from(text), LIMITS, ({ input }) => input.value)

t.test('an array is cut into what JSON.parse finds in it', async t => {
  const arrays = [
    '[]',
    ' [ ] ',
    '[1]',
    '\r\n\t[ 1 , "a" ,null,true, [1,[2,3]] , {"a":[1,{"b":2}],"c":3} ] \n',
    '["[", "]", "{,}", "\\"", "\\\\", "\\\\\\"]", ",", "é€𝄞"]',
    '[{"a":"\\u005d\\\\"},"x"]',
    `["${'x'.repeat(65_530)}","${'\\\\'.repeat(20_000)}",[1]]`
  ]
  // a string may end, and what is escaped may stand, on each side of where it is looked whether the turn is over
  for (let size = 65_525; size < 65_540; size++) arrays.push(`["${'x'.repeat(size)}\\"\\\\",1]`)
  for (const text of arrays) {
    const expected = JSON.parse(text) as unknown[]
    if (expected.length === 0) await t.rejects(values(text), { statusCode: 400, message: /this one has 0/ })
    else t.strictSame(await values(text), expected)
  }
})

t.test('items are read as they are wherever they lie, ASCII or not', async t => {
  // items of all lengths, so that they lie across the ends of what is made text as a whole
  const items = Array.from({ length: 900 }, (_, index) => ({
    topic: `a/${index}`,
    data: `${index % 100 < 90 ? 'x' : '\u00e9\u20ac'}`.repeat((index * 7) % 400)
  }))
  const written = items.map(item => JSON.stringify(item))
  const read = ({ input }: BatchItem) => [input.value, input.memberJson('data')]
  const expected = items.map(item => [item, JSON.stringify(item.data)])
  t.strictSame(
    await readBatch('application/json', Buffer.from(`[${written.join(' ,')}]`), LIMITS, read),
    expected
  )
  t.strictSame(
    await readBatch('application/x-ndjson', Buffer.from(written.join('\n')), LIMITS, read),
    expected
  )
})

t.test('the data of an item is kept as it came, but for white space and escapes', async t => {
  for (const [data, kept] of [
    ['{ "2" : 1.50 , "1" : [ 12345678901234567890 ] }', '{"2":1.50,"1":[12345678901234567890]}'],
    ['"\\u00c4\\/"', '"Ä/"'],
    ['{"a\\"":" b  c ","n":1e2}', '{"a\\"":" b  c ","n":1e2}'],
    ['[1],"data":{"\\u0061":[]}', '{"a":[]}'],
    ['[1],"\\u0064ata": 2', '2']
  ] as const) {
    const text = `[{"topic":"a","data":${data}}]`
    t.strictSame(
      await readBatch('application/json', Buffer.from(text), LIMITS, ({ input }) => input.memberJson('data')),
      [kept],
      text
    )
  }
})

t.test('what is no array is refused', async t => {
  const bad = [
    '',
    ' ',
    '{}',
    '1',
    '[',
    '[1',
    '[1,',
    '[1,]',
    '[,1]',
    '[,]',
    '[1 2]',
    '[1}',
    '[{]}]',
    '[1] 2',
    '[1]]'
  ]
  for (const text of [...bad, '["]', '["\\"]', '[1],', '[01]', '[\u00a0]', '\ufeff[1]', '[[1,2]'])
    await t.rejects(values(text), { statusCode: 400, message: /JSON/ }, text)
  await t.rejects(readBatch('application/json', Buffer.from([0x5b, 0xff, 0x5d]), LIMITS, String), {
    ...{ statusCode: 400, message: /UTF-8/ }
  })
})

t.test('items are counted and measured before any is parsed', async t => {
  const read = () => t.fail('an item was read')
  for (const [body, count] of [
    [`[${'1e5,'.repeat(2 * MIB - 1)}1]`, 2 * MIB],
    [`[${'[],'.repeat(2 * MIB)}[]]`, 2 * MIB + 1],
    [`[${'"",'.repeat(2 * MIB)}""]`, 2 * MIB + 1]
  ] as const) {
    await t.rejects(readArray(Buffer.from(body), LIMITS, read), { message: new RegExp(`has ${count}$`) })
  }
  const lines = Buffer.from('1e5\n'.repeat(MIB))
  await t.rejects(readBatch('application/x-ndjson', lines, LIMITS, read), {
    message: new RegExp(`has ${MIB}$`)
  })
  const blank = Buffer.from('\n'.repeat(4 * MIB))
  await t.rejects(readBatch('application/x-ndjson', blank, LIMITS, read), { message: /has 0$/ })
  const long = Buffer.from(`[1,${'['.repeat(100_001)}${']'.repeat(100_001)}]`)
  await t.rejects(readArray(long, LIMITS, read), {
    statusCode: 413,
    message: '/1: has 200002 bytes; at most 100000 are allowed (MAX_EVENT_BYTES)'
  })
})

t.test('a large batch gives the turn back', async t => {
  const odd = `{"data":[${'1e5,'.repeat(15_000)}1]}`
  const items = Array.from({ length: 130 }, () => odd)
  for (const [type, body] of [
    ['application/json', `[${items.join(',')}]`],
    ['application/x-ndjson', items.join('\n')]
  ] as const) {
    let turns = 0
    let longest = 0
    let isOver = false
    let last = performance.now()
    const count = () => {
      turns++
      longest = Math.max(longest, performance.now() - last)
      last = performance.now()
      if (!isOver) setImmediate(count)
    }
    setImmediate(count)
    const read = ({ input }: BatchItem) => input.memberJson('data').length
    t.strictSame(new Set(await readBatch(type, Buffer.from(body), LIMITS, read)), new Set([odd.length - 9]))
    isOver = true
    t.comment(`${type}: ${turns} turns, the longest ${longest.toFixed(1)} ms`)
    t.ok(turns > 5, `${turns} turns`)
  }
})
