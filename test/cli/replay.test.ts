import { spawn, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stripVTControlCharacters } from 'node:util'
import t, { type Test } from 'tap'
import { run as call } from '../../src/cli/program.ts'
import { itemsOf, memberOf } from '../../src/wire/json.ts'
import { ask, build, type Address } from '../support/app.ts'
import { inTime } from '../support/inbox.ts'
import { CLI } from '../support/process.ts'

t.setTimeout(400_000)

const DATA = fileURLToPath(new URL('../../data/', import.meta.url))

/** In this process: nothing of it needs another. */
async function replay(args: readonly string[], url: string) {
  const written = { stdout: '', stderr: '' }
  const code = await call(
    ['replay', ...args],
    { RINGSIDE_URL: url },
    {
      out: text => (written.stdout += text),
      err: text => (written.stderr += text)
    }
  )
  return { code, ...written }
}

async function fails(
  t: Test,
  args: readonly string[],
  says: RegExp,
  url = 'http://127.0.0.1:1'
): Promise<void> {
  t.match(await replay([...args, '--speed', 'max'], url), { code: 1, stdout: '', stderr: says })
}

/** The quotes that are held, of all symbols in their order, as they were published. */
async function quotesOf(server: Pick<Address, 'port'>): Promise<string[]> {
  const accept = { accept: 'application/json' }
  const { text } = await ask(server, '/events?topic=tickers/*&since=1h&limit=1000', { headers: accept })
  return itemsOf(memberOf(text, 'events')!).map(event => memberOf(event, 'data')!)
}

t.test('plays rows in the order of their times, with numbers as they were written', async t => {
  const server = await build(t)
  const folder = t.testdir({
    'prices.csv':
      '\ufeffticker,when,last,note\r\nB,2026-01-01T00:00:02Z,2.50,"a ""b"", c"\r\nA,2026-01-01T00:00:01Z,1.0,\r\n\r\nA,2026-01-01T00:00:03Z,12345678901234567890,x\r\n',
    'prices.ndjson':
      '{"symbol":"C","t":1767225600.5,"price":3.10,"deep":{"a":[1.0]}}\n\n{"symbol":"C","t":1767225600250,"price":3e0,"x":null}'
  })
  const csv = ['--topic-column', 'ticker', '--time-column', 'when', '--price-column', 'last']
  t.strictSame(await replay([join(folder, 'prices.csv'), ...csv, '--speed', 'max'], server.url), {
    ...{ code: 0, stdout: '', stderr: '' }
  })
  t.strictSame(
    await replay([join(folder, 'prices.ndjson'), '--time-column', 't', '--speed', '10'], server.url),
    {
      ...{ code: 0, stdout: '', stderr: '' }
    }
  )
  t.strictSame(await quotesOf(server), [
    '{"symbol":"A","price":1.0,"ticker":"A","when":"2026-01-01T00:00:01Z","last":1.0}',
    '{"symbol":"B","price":2.50,"ticker":"B","when":"2026-01-01T00:00:02Z","last":2.50,"note":"a \\"b\\", c"}',
    '{"symbol":"A","price":12345678901234567890,"ticker":"A","when":"2026-01-01T00:00:03Z","last":12345678901234567890,"note":"x"}',
    '{"symbol":"C","price":3e0,"t":1767225600250}',
    '{"symbol":"C","price":3.10,"t":1767225600.5,"deep":{"a":[1.0]}}'
  ])
})

t.test('keeps the pace of the recording, so many times as fast', async t => {
  const server = await build(t)
  const folder = t.testdir({ 'a.csv': 'symbol,date,price\nA,1000,1\nA,1060,2\nA,1061,3\n' })
  const began = performance.now()
  t.match(await replay([join(folder, 'a.csv'), '--speed', '60'], server.url), { code: 0 })
  const took = performance.now() - began
  t.ok(took >= 1000, `${took} ms`)
  t.equal((await quotesOf(server)).length, 3)
})

/** Whether this machine gives out terminals. */
const hasTerminals = spawnSync('script', ['-qec', 'true', '/dev/null'], { stdio: 'ignore' }).status === 0
const skip = hasTerminals ? false : 'there are no terminals here'

t.test('the recordings that come with it, with a bar on a terminal', { skip }, async t => {
  const server = await build(t, { WRITE_RATE: '0', RING_SIZE: '10000' })
  const command = `"${process.execPath}" "${CLI}" replay "${DATA}stocks.csv" --speed max --url ${server.url}`
  const terminal = spawn('script', ['-qec', command, '/dev/null'], { stdio: ['ignore', 'pipe', 'inherit'] })
  let shown = ''
  terminal.stdout.on('data', (chunk: Buffer) => (shown += chunk.toString()))
  t.equal(await inTime(new Promise(resolve => terminal.on('close', resolve)), 'its end'), 0)
  t.match(
    stripVTControlCharacters(shown),
    /\r█{30} 100 % {2}560 of 560 quotes {2}2010-0\d-\d\d \d\d:\d\d\r?\n$/
  )
  const { quotes } = (
    await ask(server, '/tickers?symbols=*', { headers: { accept: 'application/json' } })
  ).json() as {
    quotes: { symbol: string; price: number }[]
  }
  t.same(quotes.map(({ symbol }) => symbol).sort(), ['AAPL', 'AMZN', 'GOOG', 'IBM', 'MSFT'])
  const index = ['--symbol', '^GSPC', '--price-column', 'close']
  t.match(await replay([`${DATA}sp500-2000.csv`, ...index, '--speed', 'max'], server.url), {
    code: 0,
    stderr: ''
  })
  const spx = (
    await ask(server, '/tickers?symbols=%5EGSPC', { headers: { accept: 'application/json' } })
  ).json()
  t.match(spx, { quotes: [{ symbol: '^GSPC', date: String, close: Number }] })
})

t.test('says what is wrong with a recording, and where', async t => {
  const server = await build(t)
  const folder = t.testdir({
    'a.csv': 'symbol,date,price\nA,2026-01-01,1\nA,2026-01-02,none\n',
    'b.csv': 'symbol,date,price\nA,some day,1\n',
    'c.csv': 'symbol,date,price\nA,2026-01-01\n',
    'd.csv': 'symbol,date,price\na b,2026-01-01,1\n',
    'e.ndjson': '{"symbol":"A","date":1,"price":1}\n[1]\n',
    'f.txt': ''
  })
  await fails(t, [join(folder, 'a.csv')], /a\.csv: line 3: price is no number: "none"/)
  await fails(
    t,
    [join(folder, 'a.csv'), '--price-column', 'last'],
    /line 2 has no last; it has symbol, date, price/
  )
  await fails(t, [join(folder, 'b.csv')], /line 2: date is no time: "some day"/)
  await fails(t, [join(folder, 'c.csv')], /c\.csv: .*line 2/)
  await fails(t, [join(folder, 'd.csv')], /line 2: symbol.*/, server.url)
  await fails(t, [join(folder, 'e.ndjson')], /line 2 is no JSON object/)
  await fails(t, [join(folder, 'f.txt')], /ends neither in \.csv nor in \.ndjson/)
  await fails(t, [join(folder, 'none.csv')], /none\.csv: ENOENT/)
})
