/** A browser's own EventSource and fetch, on streams that are compressed: it asks for that by itself. */
import t from 'tap'
import { build, publish } from '../support/app.ts'
import { launchChromium } from '../support/browser.ts'
import { eventually } from '../support/inbox.ts'
import { subscribe } from '../support/reader.ts'

// a browser takes its time
t.setTimeout(400_000)

t.test('Chromium has each event as soon as it is published, and sees a whole end', async t => {
  const server = await build(t, { DRAIN: '0' })
  const browser = await launchChromium()
  t.teardown(() => browser.close())
  const page = await browser.newPage()
  await page.goto(`${server.url}/livez`)
  const opened = page.waitForResponse(/events\/page$/)
  await page.evaluate(`
    globalThis.seen = []
    globalThis.lines = ''
    globalThis.end = 'none'
    globalThis.source = new EventSource('/events/page')
    source.onmessage = ({ data, lastEventId }) => seen.push(lastEventId + ' ' + data)
    source.addEventListener('goodbye', () => source.close())
    void fetch('/events/page?fetched', { headers: { accept: 'application/x-ndjson' } }).then(async ({ body }) => {
      const reader = body.pipeThrough(new TextDecoderStream()).getReader()
      for (let read; !(read = await reader.read()).done; ) lines += read.value
      end = 'whole'
    }).catch(error => (end = String(error)))
  `)
  t.equal((await opened).headers()['content-encoding'], 'gzip')
  const { hub } = server.app.ringside
  await eventually(
    () => hub.connections.size,
    size => size === 2,
    'both streams'
  )
  const expected: string[] = []
  for (let n = 0; n < 100; n++) {
    // one that joins between two
    if (n === 50) await subscribe(t, server, '/events/page', { accept: '*/*', 'accept-encoding': 'gzip' })
    const data = `${n} ${'large '.repeat(n % 10 === 9 ? 2000 : 1)}`
    const id = await publish(server, 'page', data)
    expected.push(`${id} ${data}`)
    await eventually(
      () => page.evaluate<number>('seen.length'),
      count => count === n + 1,
      `event ${n}`
    )
    await eventually(() => page.evaluate<boolean>(`lines.includes('"${id}"')`), Boolean, `line ${n}`)
  }
  t.strictSame(await page.evaluate<string[]>('seen'), expected)
  await server.app.ringside.drain()
  t.equal(
    await eventually(
      () => page.evaluate<string>('end'),
      end => end !== 'none',
      'the end'
    ),
    'whole'
  )
})
