import fc from 'fast-check'
import t, { type Test } from 'tap'
import { build, post, publishAll, type TestServer } from '../support/app.ts'
import { curl, npmClient, undiciClient } from '../support/clients.ts'
import { listen } from '../support/reader.ts'

const MAX = 61_440
const OCTETS = { 'content-type': 'application/octet-stream' }
const JSON_TYPE = { 'content-type': 'application/json' }

t.setTimeout(400_000)

/** What could break a line, a field, a block or a character. */
const AWKWARD: Record<string, string> = {
  nothing: '',
  'a space': ' ',
  'leading spaces': '   three',
  'a leading tab': '\ttab',
  'trailing spaces': 'three   ',
  'a line end alone': '\n',
  'only line ends': '\n\n\n',
  'an empty line in the middle, which ends a block': 'a\n\nb',
  'a line end at the end': 'a\n',
  'a line end at the start': '\na',
  CR: 'a\rb',
  CRLF: 'a\r\nb',
  'LF CR': 'a\n\rb',
  'CR CR LF LF': 'a\r\r\n\nb',
  'a CR at the end': 'a\r',
  'a colon at the start': ': a comment?',
  'lines of fields': 'id: 1-0\nevent: gap\ndata: x\nretry: 1\n\n: c',
  'a field without a value': 'id\ndata\n',
  'a chunk of its own': '0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n',
  NUL: 'a\0b\0',
  'other controls': '\u0001\u0008\u000b\u000c\u001b\u007f\u0085',
  'line separators that SSE does not know': 'a\u2028b\u2029c\u0085d\u000bd\u000ce',
  'a byte order mark at the start': '\ufeffa',
  'byte order marks': '\ufeff\ufeffa\ufeff',
  emoji: '👩‍👩‍👧‍👦 🇪🇺 👍🏽',
  'the last code point': '\u{10ffff}\u{10fffe}\uffff',
  'combining marks, right to left': 'e\u0301 \u202eabc\u202c שלום',
  'what looks like an escape': '\\n\\u0000%0A&#10;',
  JSON: '{"a":[1,"\\n",null]}',
  'the largest event': 'x'.repeat(MAX),
  'the largest event, of two bytes each': 'é'.repeat(MAX / 2),
  'the largest event, of three bytes each': '€'.repeat(MAX / 3),
  'the largest event, of four bytes each': '🌡'.repeat(MAX / 4),
  'the largest event, of line ends': '\n'.repeat(MAX),
  'the largest event, of CRLF': '\r\n'.repeat(MAX / 2),
  'the largest event, one byte off, so that characters are cut where buffers end': `x${'🌡'.repeat(MAX / 4 - 1)}yz`
}

/** Line ends arrive as LF; nothing else changes. */
function arriving(text: string): string {
  return text.replace(/\r\n|\r/g, '\n')
}

/** All readers that are to get the same. */
async function readers(t: Test, server: TestServer, topic: string) {
  const url = `${server.url}/events/${topic}`
  const strict = await listen(t, server, `/events/${topic}`)
  const enveloped = await listen(t, server, `/events/${topic}?envelope=true`)
  const command = curl(t, url)
  await command.frames.next()
  const pages = [npmClient(t, url), undiciClient(t, url)]
  for (const { received } of pages) await received.next()
  const texts: Record<string, () => Promise<string | undefined>> = {
    'the strict parser': async () => (await strict.next()).data,
    'an envelope': async () => {
      const { data, encoding } = JSON.parse((await enveloped.next()).data!) as {
        data: unknown
        encoding?: string
      }
      return encoding === undefined && typeof data !== 'string' ? JSON.stringify(data) : String(data)
    },
    'curl -N': async () => (await command.frames.next()).data,
    'eventsource 4': async () => (await pages[0]!.received.next()).data,
    "undici's EventSource": async () => (await pages[1]!.received.next()).data
  }
  return texts
}

t.test('text arrives as it was published, but for its line ends', async t => {
  const server = await build(t)
  const texts = await readers(t, server, 'awkward')
  for (const [name, text] of Object.entries(AWKWARD)) {
    t.equal((await post(server, '/events/awkward', text)).status, 201, name)
    for (const [reader, next] of Object.entries(texts)) {
      const data = await next()
      // an envelope holds what is JSON as JSON, and all else exactly
      const wanted = reader === 'an envelope' ? text : arriving(text)
      t.ok(data === wanted, `${name}, by ${reader}: ${preview(data)}`)
    }
  }
})

t.test('any text, in any company', async t => {
  const server = await build(t)
  const texts = await readers(t, server, 'any')
  const piece = fc.oneof(
    { weight: 3, arbitrary: fc.string({ unit: 'binary', maxLength: 30 }) },
    {
      weight: 2,
      arbitrary: fc.constantFrom(
        '\n',
        '\r',
        '\r\n',
        '\n\n',
        ' ',
        ':',
        'id: 9-9',
        'data:',
        '\0',
        '\ufeff',
        '\u2028',
        '🌡'
      )
    },
    { weight: 1, arbitrary: fc.constantFrom('é'.repeat(5000), 'x'.repeat(16_384), '\n'.repeat(2000)) }
  )
  const text = fc.array(piece, { maxLength: 4 }).map(pieces => pieces.join(''))
  await fc.assert(
    fc.asyncProperty(fc.array(text, { minLength: 1, maxLength: 4 }), async published => {
      await Promise.all(
        published.map(async each =>
          server.app.ringside.publisher.publish([event('any', each)], { source: 'events' })
        )
      )
      for (const [reader, next] of Object.entries(texts)) {
        for (const each of published) {
          const wanted = reader === 'an envelope' ? asEnveloped(each) : arriving(each)
          const data = await next()
          if (data !== wanted) throw new Error(`by ${reader}: ${preview(data)}, not ${preview(wanted)}`)
        }
      }
    }),
    { numRuns: 150 }
  )
  t.pass('for all of them')
})

t.test('any JSON value, alone and in a batch', async t => {
  const server = await build(t)
  const stream = await listen(t, server, '/events/json')
  await fc.assert(
    fc.asyncProperty(
      fc.jsonValue({ stringUnit: 'binary', maxDepth: 4 }),
      fc.nat({ max: 3 }),
      async (value, spaces) => {
        const body = JSON.stringify(value, null, spaces)
        await post(server, '/events/json', body, JSON_TYPE)
        await publishAll(server, [{ topic: 'json', data: value }])
        const compact = JSON.stringify(value)
        for (const way of ['alone', 'in a batch']) {
          const { data } = await stream.next()
          if (data !== compact) throw new Error(`${way}: ${preview(data)}, not ${preview(compact)}`)
        }
      }
    ),
    { numRuns: 150 }
  )
  t.pass('for all of them')
})

t.test('any bytes, as base64', async t => {
  const server = await build(t)
  const texts = await readers(t, server, 'bytes')
  const largest = Uint8Array.from({ length: MAX }, (_, index) => index % 251)
  await fc.assert(
    fc.asyncProperty(fc.oneof(fc.uint8Array({ maxLength: 50 }), fc.constant(largest)), async bytes => {
      await post(server, '/events/bytes', bytes, OCTETS)
      for (const [reader, next] of Object.entries(texts)) {
        const data = Buffer.from((await next())!, 'base64')
        if (!data.equals(bytes)) throw new Error(`by ${reader}`)
      }
    }),
    { numRuns: 30, examples: [[new Uint8Array()], [largest]] }
  )
  t.pass('for all of them')
})

t.test('what was published lives in the ring as it was', async t => {
  const server = await build(t)
  const names = Object.keys(AWKWARD)
  const start = await listen(t, server, '/events/kept')
  for (const name of names) await post(server, '/events/kept', AWKWARD[name]!)
  const replayed = await listen(t, server, '/events/kept', { 'last-event-id': start.cursor })
  const frames = await replayed.until(names.length)
  for (const [index, name] of names.entries()) t.ok(frames[index]!.data === arriving(AWKWARD[name]!), name)
  t.strictSame(
    frames.map(({ id }) => id),
    (await start.until(names.length)).map(({ id }) => id)
  )
})

function event(topic: string, data: string) {
  return { topic, type: 'message', data }
}

/** What JSON.parse makes of it and JSON.stringify writes again, where it is JSON. */
function asEnveloped(text: string): string {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'string' ? value : JSON.stringify(value)
  } catch {
    return text
  }
}

/** What it begins with, in ASCII, so that a test may be named by it. */
function preview(text: string | undefined): string {
  if (text === undefined) return 'nothing'
  return JSON.stringify(text.slice(0, 100)).replace(
    /[^ -~]/gu,
    letter => `\\u{${letter.codePointAt(0)!.toString(16)}}`
  )
}
