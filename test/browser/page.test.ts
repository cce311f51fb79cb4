import { readFileSync } from 'node:fs'
import { createServer as createHttpServer, get, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { createServer, readSettings } from '../../src/index.ts'
import { idsOnStream, launchChromium, Proxy, violationsOf } from '../support/browser.ts'
import { eventually } from '../support/inbox.ts'
import { SECRET, tokenFor } from '../support/tokens.ts'

/** What the page tells of itself, as `window.ringside`. */
interface Seen {
  ids: string[]
  start: string
  opened: number
  events: number
  replayed: number
  gaps: number
}

// a browser takes its time
t.setTimeout(400_000)
// each has a server and a context of its own: while one waits, others go on
t.jobs = 4

let browser: Browser | undefined
t.before(async () => {
  browser = await launchChromium()
})
t.after(() => browser?.close())

/** A server, a proxy before it, and the page as it comes through the proxy. */
async function setUp(t: Test, env: Record<string, string>, options: BrowserContextOptions = {}) {
  const app = await createServer(readSettings({ LOG_LEVEL: 'silent', RETRY: '100ms', ...env }))
  t.teardown(() => app.close())
  const direct = await app.listen({ host: '127.0.0.1', port: 0 })
  const proxy = new Proxy(Number(new URL(direct).port))
  t.teardown(() => proxy.close())
  const context = await browser!.newContext({ viewport: { width: 1280, height: 800 }, ...options })
  t.teardown(() => context.close())
  const page = await context.newPage()
  const errors: string[] = []
  page.on('pageerror', error => errors.push(String(error)))
  page.on('console', message => {
    if (/content security policy/i.test(message.text())) errors.push(message.text())
  })
  const url = await proxy.listen()

  let published = 0
  /** Publishes numbered quotes; answers their ids. */
  const publish = async (count: number): Promise<string[]> => {
    const events = Array.from({ length: count }, () => ({
      topic: 'tickers/TEST',
      type: 'quote',
      data: JSON.stringify({ symbol: 'TEST', price: ++published })
    }))
    const stored = await app.ringside.publisher.publish(events, { feed: 'tickers', source: 'demo' })
    return stored.map(each => {
      if (each.outcome !== 'stored') throw new Error(`not stored: ${each.outcome}`)
      return each.id.map(({ ms, seq }) => `${ms}-${seq}`).join('_')
    })
  }
  const patch = (type: string, value: unknown) =>
    app.ringside.publisher.publish([{ topic: 'dashboards/host', type, data: JSON.stringify(value) }], {
      feed: 'dashboards',
      source: 'demo'
    })
  return { app, direct, url, proxy, page, errors, publish, patch }
}

/** What goes over the wire. */
async function sent(url: string, encoding: string, headers: Record<string, string> = {}) {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    get(url, { headers: { 'accept-encoding': encoding, ...headers } }, resolve).on('error', reject)
  })
  let length = 0
  for await (const part of response) length += (part as Buffer).length
  return { status: response.statusCode, headers: response.headers, length }
}

function seenBy(page: Page): Promise<Seen> {
  return page.evaluate<Seen>('ringside.seen')
}

/** Waits until an expression is true in the page. It is not the page that evaluates it again and again: it may not. */
async function until(page: Page, expression: string): Promise<void> {
  await eventually(() => page.evaluate<boolean>(`Boolean(${expression})`), Boolean, expression)
}

const isOpen = (page: Page) => page.waitForSelector('#stream[data-state=live]')
const received = (page: Page, id: string) => until(page, `ringside.ids.includes('${id}')`)

t.test('shows live values of the host, and recorded prices as such', { buffered: true }, async t => {
  const { page, url, errors } = await setUp(t, { DEMO: 'true' })
  await page.goto(url)
  await isOpen(page)
  await until(page, `document.querySelectorAll('#quotes tr').length === 6`)
  const [events, price] = await Promise.all([
    page.textContent('#events'),
    page.textContent('[data-symbol="DEMO:AAPL"] td')
  ])
  await until(page, `document.querySelector('#events').textContent !== '${events}'`)
  await until(page, `document.querySelector('[data-symbol="DEMO:AAPL"] td').textContent !== '${price}'`)
  await until(page, `/[▲▼] \\d/.test(document.querySelector('[data-symbol="DEMO:AAPL"]').textContent)`)
  t.match(await page.innerText('#recorded'), /Recorded prices, replayed/)
  t.match(await page.innerText('#job-detail'), /of 5,105 days, at 20\d\d-/)
  await page.waitForSelector('#bell', { state: 'visible' })
  t.match(await page.innerText('#bell'), /Bell of demo[^]*0 unread/)
  t.match(await page.innerText('#cpu'), /^\d+ %$/)
  t.match(await page.innerText('#memory'), /^[\d.]+ GiB of [\d.]+ GiB$/)
  t.equal(await page.innerText('#connections'), '1')
  t.equal(
    await page.locator('#cores [role=meter]').count(),
    await page.evaluate('ringside.host().cpu.cores.length')
  )
  t.equal(await page.locator('#chart canvas').count(), 1)
  // the page shows it with its next frame
  await until(page, `document.querySelector('#last-id').innerText === ringside.lastEventId`)
  t.notOk(await page.isVisible('#quiet'))
  t.strictSame(errors, [])
})

t.test(
  'the drop button: counts down, resumes, and nothing is missing or doubled',
  { buffered: true },
  async t => {
    const { page, url, direct } = await setUp(t, { DEMO: 'true' })
    await page.goto(url)
    await until(page, `ringside.seen.events > 14`)
    const { ids } = await seenBy(page)
    const from = ids.at(-1)!

    await page.click('#drop')
    await page.waitForSelector('#stream[data-state=dropped]')
    t.match(await page.innerText('#detail'), /back in [1-3] s/)
    const away = (await seenBy(page)).ids.length
    await isOpen(page)
    await until(page, `ringside.seen.events > ${away + 30}`)

    const after = await seenBy(page)
    const topics = (await page.evaluate<string[]>('ringside.stream.topics'))
      .map(topic => `topic=${encodeURIComponent(topic)}`)
      .join('&')
    const expected = await idsOnStream(`${direct}/events?${topics}&after=${from}`, after.ids.at(-1)!)
    t.strictSame(after.ids.slice(after.ids.indexOf(from) + 1), expected)
    t.equal(new Set(after.ids).size, after.ids.length)
    t.equal(after.gaps, 0)
    t.ok(after.replayed >= 7, 'a drop of three seconds misses at least one step of the feeds')
    t.match(await page.innerText('#note'), `${after.replayed} events replayed`)
  }
)

t.test(
  'the drop button: tells how many events were missed, and resumes at once when pressed again',
  { buffered: true },
  async t => {
    const { page, url, publish } = await setUp(t, { DEMO: 'false' })
    await page.goto(url)
    await isOpen(page)
    const first = await publish(3)
    await received(page, first.at(-1)!)
    await page.click('#drop')
    await page.waitForSelector('#stream[data-state=dropped]')
    const missed = await publish(7)
    // what was missed is told by its time, and a page that is busy knows its clock to a fraction of a second
    await until(page, `/back in [12] s/.test(document.querySelector('#detail').innerText)`)
    await page.click('#drop')
    await received(page, missed.at(-1)!)
    const live = await publish(2)
    await received(page, live.at(-1)!)
    t.strictSame((await seenBy(page)).ids, [...first, ...missed, ...live])
    await until(page, `document.querySelector('#note').textContent.includes('7 events replayed')`)
    t.equal(await page.innerText('#replayed'), '7')
    // what came last is shown a frame later
    await until(page, `document.querySelector('[data-symbol=TEST] td').textContent === '12.00'`)
  }
)

t.test(
  'the connection breaks: the browser comes back by itself, and nothing is missing or doubled',
  { buffered: true },
  async t => {
    const { page, url, proxy, publish } = await setUp(t, { DEMO: 'false' })
    await page.goto(url)
    await isOpen(page)
    const expected = await publish(3)
    await received(page, expected.at(-1)!)
    for (let round = 2; round < 5; round++) {
      proxy.cut()
      await page.waitForSelector('#stream[data-state=connecting]')
      expected.push(...(await publish(5)))
      proxy.restore()
      await received(page, expected.at(-1)!)
      t.equal((await seenBy(page)).opened, round)
    }
    t.strictSame((await seenBy(page)).ids, expected)
    // by their time: what was stored as the page came back may count as new
    const { replayed } = await seenBy(page)
    t.ok(replayed > 0 && replayed <= 15, `${replayed} replayed`)
  }
)

for (const how of ['cut', 'button'] as const) {
  t.test(
    `the connection ends before its first event (${how}): nothing is missing`,
    { buffered: true },
    async t => {
      const { page, url, proxy, publish } = await setUp(t, { DEMO: 'false' })
      await page.goto(url)
      await isOpen(page)
      t.strictSame((await seenBy(page)).ids, [])
      if (how === 'cut') proxy.cut()
      else await page.click('#drop')
      await page.waitForSelector(`#stream[data-state=${how === 'cut' ? 'connecting' : 'dropped'}]`)
      const expected = await publish(5)
      if (how === 'cut') proxy.restore()
      await received(page, expected.at(-1)!)
      t.strictSame((await seenBy(page)).ids, expected)
    }
  )
}

t.test('a stream that dies without a word is opened anew', { buffered: true }, async t => {
  const { page, url, proxy, publish } = await setUp(t, { DEMO: 'false' })
  await page.clock.install()
  await page.goto(url)
  await isOpen(page)
  const expected = await publish(1)
  await received(page, expected[0]!)
  proxy.silence()
  expected.push(...(await publish(4)))
  // its clock runs on, too
  await page.clock.fastForward(8000)
  t.equal(await page.getAttribute('#stream', 'data-state'), 'live')
  await page.clock.fastForward(5000)
  await page.waitForSelector('#stream[data-state=connecting]')
  await page.clock.fastForward(2000)
  await received(page, expected.at(-1)!)
  t.strictSame((await seenBy(page)).ids, expected)
  t.equal((await seenBy(page)).opened, 2)
})

t.test('the server says goodbye: the page says so, and comes back', { buffered: true }, async t => {
  const { app, page, url, publish } = await setUp(t, { DEMO: 'false', RETRY: '1500ms' })
  await page.goto(url)
  await isOpen(page)
  const expected = await publish(1)
  await received(page, expected[0]!)
  await app.ringside.hub.connections.drain(0)
  await page.waitForSelector('#stream[data-state=connecting]')
  t.match(await page.innerText('#detail'), /The server said goodbye \(shutdown\), back in [1-3] s/)
  expected.push(...(await publish(2)))
  await received(page, expected.at(-1)!)
  t.strictSame((await seenBy(page)).ids, expected)
})

t.test('a gap is shown', { buffered: true }, async t => {
  const { page, url, publish, patch } = await setUp(t, { DEMO: 'false', RING_SIZE: '5' })
  await patch('patch', { name: 'before' })
  await page.clock.install()
  await page.goto(url)
  await until(page, `ringside.host().name === 'before'`)
  await page.click('#drop')
  await page.waitForSelector('#stream[data-state=dropped]')
  const missed = await publish(8)
  await page.click('#drop')
  await received(page, missed.at(-1)!)
  await page.waitForSelector('#gap', { state: 'visible' })
  t.match(await page.innerText('#gap'), /Gap \(expired\).*tickers/)
  t.equal(await page.innerText('#gaps'), '1')
  t.strictSame((await seenBy(page)).ids.slice(1), missed.slice(-5))
  t.match(await page.innerText('#timeline .gap'), /^\d\d:\d\d:\d\d Gap \(expired\)/)
  t.strictSame(await page.evaluate('ringside.marks.map(({ kind }) => kind)'), ['break', 'gap'])
  // not for ever
  await page.clock.fastForward(31_000)
  await page.waitForSelector('#gap', { state: 'hidden' })
  await page.clock.fastForward(300_000)
  await until(page, `!document.querySelector('#timeline .gap')`)
})

t.test('what is no host, core or date stops nothing', { buffered: true }, async t => {
  const { app, page, url, publish, errors, patch } = await setUp(t, { DEMO: 'false' })
  await page.goto(url)
  await isOpen(page)
  for (const cores of [5, { length: 1 }, ['x']]) await patch('patch', { cpu: { cores } })
  const odd = { symbol: 'TEST', price: 1, date: { toString: 1 } }
  for (const date of [odd.date, 7, null])
    await app.ringside.publisher.publish(
      [{ topic: 'tickers/TEST', type: 'quote', data: JSON.stringify({ ...odd, date }) }],
      { feed: 'tickers', source: 'demo' }
    )
  const [id] = await publish(1)
  await received(page, id!)
  await page.waitForSelector('tr[data-symbol=TEST] >> text=1.00')
  t.strictSame(errors, [])
})

t.test('patches of the host are merged, and a snapshot replaces it', { buffered: true }, async t => {
  const { page, url, patch } = await setUp(t, { DEMO: 'false' })
  await page.goto(url)
  await isOpen(page)
  await patch('patch', { name: 'one', load: { '1m': 1, '5m': 2, '15m': 3 }, connections: 4 })
  await patch('patch', { load: { '1m': 9 }, connections: null })
  await until(page, `ringside.host().load?.['1m'] === 9`)
  t.strictSame(await page.evaluate('ringside.host()'), { name: 'one', load: { '1m': 9, '5m': 2, '15m': 3 } })
  await until(page, `document.querySelector('#load').textContent === '9.00 · 2.00 · 3.00'`)
  t.equal(await page.innerText('#connections'), '–')
  await patch('snapshot', { name: 'two' })
  await until(page, `ringside.host().name === 'two'`)
  t.strictSame(await page.evaluate('ringside.host()'), { name: 'two' })
})

t.test('merge patches: the examples of RFC 7396, appendix A', async t => {
  const { mergePatch } = (await import(String(new URL('../../public/merge-patch.js', import.meta.url)))) as {
    mergePatch(target: unknown, patch: unknown): unknown
  }
  const examples: [target: unknown, patch: unknown, result: unknown][] = [
    [{ a: 'b' }, { a: 'c' }, { a: 'c' }],
    [{ a: 'b' }, { b: 'c' }, { a: 'b', b: 'c' }],
    [{ a: 'b' }, { a: null }, {}],
    [{ a: 'b', b: 'c' }, { a: null }, { b: 'c' }],
    [{ a: ['b'] }, { a: 'c' }, { a: 'c' }],
    [{ a: 'c' }, { a: ['b'] }, { a: ['b'] }],
    [{ a: { b: 'c' } }, { a: { b: 'd', c: null } }, { a: { b: 'd' } }],
    [{ a: [{ b: 'c' }] }, { a: [1] }, { a: [1] }],
    [
      ['a', 'b'],
      ['c', 'd'],
      ['c', 'd']
    ],
    [{ a: 'b' }, ['c'], ['c']],
    [{ a: 'foo' }, null, null],
    [{ a: 'foo' }, 'bar', 'bar'],
    [{ e: null }, { a: 1 }, { e: null, a: 1 }],
    [[1, 2], { a: 'b', c: null }, { a: 'b' }],
    [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }]
  ]
  for (const [target, patch, result] of examples)
    t.strictSame(mergePatch(target, patch), result, JSON.stringify({ target, patch }))
})

t.test(
  'without the demo: says so, and shows any topic, through a broken connection',
  { buffered: true },
  async t => {
    const { page, url, direct, proxy, errors } = await setUp(t, { DEMO: 'false' })
    const say = (text: string) =>
      fetch(`${direct}/events/my/topic?type=own.type`, { method: 'POST', body: text })
    await page.goto(url)
    await page.waitForSelector('#quiet', { state: 'visible' })
    t.notOk(await page.isVisible('#panels'))
    t.equal(await page.innerText('#quiet-command'), `curl -d 'Hello!' ${url}/events/hello`)

    await page.fill('#topic', 'my/topic')
    t.equal(await page.innerText('#listen-command'), `curl -N '${url}/events?topic=my/topic&rewind=10'`)
    await page.click('#listen-button')
    await until(page, `document.querySelector('#topic-state').textContent === 'Listening to my/topic'`)
    await say('{"one":{"two":[1]}}')
    await page.waitForSelector('#heard pre')
    t.equal(
      await page.innerText('#heard li >> nth=0 >> pre'),
      '{\n  "one": {\n    "two": [\n      1\n    ]\n  }\n}'
    )
    t.match(
      await page.innerText('#heard li >> nth=0 >> p'),
      /^\d\d:\d\d:\d\d\.\d{3}\s*own\.type\s*my\/topic\s*\d+-\d+$/
    )
    proxy.cut()
    await say('two')
    await say('three')
    proxy.restore()
    await page.waitForSelector('#heard >> text=three')
    t.strictSame((await page.locator('#heard pre').allInnerTexts()).slice(0, 2), ['three', 'two'])

    await page.fill('#event-filter', 'TWO')
    await until(page, `document.querySelectorAll('#heard li').length === 2`)
    await page.fill('#event-filter', '')
    await page.click('#pause')
    await say('four')
    await until(page, `document.querySelector('#pause').textContent === 'Go on (1)'`)
    t.equal(await page.locator('#heard li').count(), 3)
    await page.click('#pause')
    await page.waitForSelector('#heard >> text=four')
    // it is among the topics now, and a click listens to it
    const own = page.locator('#topics tr', { hasText: 'my/topic' })
    await own.locator('td >> nth=3 >> text=/ago/').waitFor()

    await page.click('#listen-button')
    await until(page, `document.querySelector('#topic-state').textContent === 'Stopped'`)
    // by the keyboard alone
    await own.locator('button').focus()
    await page.keyboard.press('Enter')
    await until(page, `document.querySelector('#topic-state').textContent === 'Listening to my/topic'`)
    t.equal(await page.inputValue('#send [name=topic]'), 'my/topic')
    await page.click('#listen-button')
    await page.fill('#topic', 'a//b')
    await page.click('#listen-button')
    await until(page, `document.querySelector('#topic-state').textContent.startsWith('Refused: topic')`)
    t.strictSame(errors, [])
  }
)

t.test('publishes from the page: events, signals, notifications and patches', { buffered: true }, async t => {
  const { page, url, direct, errors } = await setUp(t, { DEMO: 'false' })
  await page.goto(url)
  await page.waitForSelector('#quiet', { state: 'visible' })
  const send = async (kind: string, given: Record<string, string>) => {
    await page.check(`#send [name=kind][value=${kind}]`)
    for (const [name, value] of Object.entries(given)) {
      const field = page.locator(`#send [name=${name}]`)
      await (name === 'format' ? field.selectOption(value) : field.fill(value))
    }
    await page.click('#send-button')
    await until(page, `document.querySelector('#sent').textContent !== ''`)
    return page.innerText('#sent')
  }
  await page.fill('#topic', 'chat/1')
  await page.click('#listen-button')
  t.match(await send('event', { topic: 'chat/1', data: 'Hi!' }), /^Stored: \d+-\d+$/)
  await page.waitForSelector('#heard pre >> text=Hi!')
  const json = { format: 'json', data: '{"a":1}', type: 'note', ttl: '60', key: 'once' }
  t.match(await send('event', json), /^Stored: /)
  t.equal(
    await page.innerText('#send-command'),
    `curl -H 'content-type: application/json' -H 'idempotency-key: once' -d '{"a":1}' '${url}/events/chat/1?type=note&ttl=60'`
  )
  t.match(await send('event', json), /stored before/)
  await page.waitForSelector('#heard li:has-text("note") pre >> text="a": 1')
  t.match(await send('event', { data: '{' }), /^Refused: /)

  const other = await page.context().newPage()
  await other.goto(url)
  await other.fill('#topic', 'chat/1')
  for (const each of [page, other]) await each.click('#join')
  for (const each of [page, other])
    await until(each, `document.querySelector('#members').textContent.split('demo').length === 3`)
  t.match(await send('signal', { topic: 'chat/1', data: '{"typing":true}' }), /^Sent/)
  await other.waitForSelector('#heard .signal pre >> text="typing": true')
  await page.click('#join')
  await until(other, `document.querySelector('#members').textContent.split('demo').length === 2`)
  await other.close()

  t.match(await send('notification', { to: 'demo', title: 'Tea', data: 'is ready' }), /^Stored: /)
  await page.waitForSelector('#inbox .unread >> text=Tea')
  t.equal(await page.innerText('#unread'), '1 unread')
  await page.click('#read-all')
  await until(page, `document.querySelector('#unread').textContent === '0 unread'`)

  for (const data of ['{"cpu":3}', '{"memory":{"free":1}}'])
    t.match(await send('dashboard', { dashboard: 'mine', data }), /^Stored: /)
  const document = await fetch(`${direct}/dashboards/mine`, { headers: { accept: 'application/json' } })
  t.strictSame(await document.json(), { cpu: 3, memory: { free: 1 } })
  t.strictSame(errors, [])
})

t.test(
  'more tabs than a browser opens connections: each loads, is live and stale, and one stops at once',
  { buffered: true },
  async t => {
    const { app, page, url, publish } = await setUp(t, { DEMO: 'false', RETRY: '1h' })
    const pages = [page]
    while (pages.length < 8) pages.push(await page.context().newPage())
    for (const each of pages) {
      await each.goto(url)
      await isOpen(each)
    }
    const [id] = await publish(1)
    for (const each of pages) await received(each, id!)
    await eventually(
      () => app.ringside.hub.connections.size,
      open => open === 1,
      'one stream for all of them'
    )
    await page.click('#listen-button')
    await until(page, `document.querySelector('#topic-state').textContent === 'Listening to hello'`)
    // it waits for an hour
    await app.ringside.hub.connections.drain(0)
    await until(page, `document.querySelector('#topic-state').textContent === 'Connecting to hello'`)
    await page.click('#listen-button')
    await until(page, `document.querySelector('#topic-state').textContent === 'Stopped'`)
    for (const each of pages) await until(each, `document.title === 'Connecting · Ringside'`)
  }
)

t.test(
  'a server that is cut off from its store: what the page shows is grey',
  { buffered: true },
  async t => {
    const { page, url } = await setUp(t, { DEMO: 'false' })
    let say = (_text: string) => {}
    const server = createHttpServer((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream', 'access-control-allow-origin': '*' })
      say = text => response.write(text)
      say('retry: 100\nevent: cursor\ndata: {"cursor":"1-0"}\nid: 1-0\n\n')
    })
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    t.teardown(() => server.close().closeAllConnections())
    const { port } = server.address() as AddressInfo
    await page.route(/\/events\?/, route => route.continue({ url: `http://127.0.0.1:${port}/events` }))
    await page.goto(url)
    await isOpen(page)
    say('event: stale\ndata: {"since":1}\nid: 1-0\n\n')
    await page.waitForSelector('#stream[data-state=stale]')
    t.equal(await page.innerText('#state'), 'Stale')
    t.equal(await page.title(), 'Stale · Ringside')
    t.match(await page.innerText('#detail'), /cut off/i)
    t.equal(await page.evaluate(`getComputedStyle(document.querySelector('#panels')).filter`), 'grayscale(1)')
    say('event: cursor\ndata: {"cursor":"2-0"}\nid: 2-0\n\n')
    await isOpen(page)
  }
)

t.test('begins full, from the ring, and nothing is pushed about', { buffered: true }, async t => {
  const { page, url, publish, patch } = await setUp(t, { DEMO: 'false' })
  for (let step = 0; step < 100; step++) {
    await patch('patch', { name: 'full', cpu: { cores: [0.5, step / 100] }, eventLoop: { mean: 1, p99: 2 } })
    await publish(1)
  }
  await page.addInitScript(`
    globalThis.shift = 0
    new PerformanceObserver(list => {
      for (const { value, hadRecentInput } of list.getEntries()) if (!hadRecentInput) shift += value
    }).observe({ type: 'layout-shift', buffered: true })`)
  await page.goto(url)
  await isOpen(page)
  await until(page, `document.querySelector('#chart canvas')`)
  t.equal(await page.evaluate('ringside.points()'), 100)
  const trend = await page.getAttribute('[data-symbol=TEST] polyline', 'points')
  t.equal(trend?.split(' ').length, 60)
  t.equal(await page.title(), 'Live · Ringside')
  t.match(await page.getAttribute('#icon', 'href'), /icon-[\w-]+\.svg$/)
  const [id] = await publish(1)
  await received(page, id!)
  await until(page, `/^\\d/.test(document.querySelector('#delay').textContent)`)
  t.ok((await page.evaluate<number>('shift')) < 0.01, 'no layout shift')
  // what was there at the start was not missed
  t.equal(await page.innerText('#replayed'), '0')

  await page.click('#drop')
  await until(page, `document.title === 'Dropped · Ringside'`)
  await until(page, `/values of \\d+ s ago/.test(document.querySelector('#age').textContent)`)
  t.equal(await page.evaluate(`getComputedStyle(document.querySelector('#panels')).filter`), 'grayscale(1)')
  await page.click('#drop')
  await isOpen(page)
  t.match(await page.innerText('#timeline .break'), /^\d\d:\d\d:\d\d Dropped/)
  await page.waitForSelector('#timeline .resume >> text=/Back after \\d+ s: 0 events replayed/')
})

t.test(
  'for everybody: small and large, light and dark, forced colours; axe finds nothing',
  { buffered: true },
  async t => {
    const { page, url, app, errors } = await setUp(t, { DEMO: 'true' })
    const origins = new Set<string>()
    page.on('request', request => origins.add(new URL(request.url()).origin))
    await app.ringside.publish('hello', { data: { some: 'JSON' } })
    await page.goto(url)
    await until(
      page,
      `document.querySelectorAll('#quotes tr').length === 6 && document.querySelector('#chart canvas')`
    )
    await page.click('#listen-button')
    await page.waitForSelector('#heard li')
    for (const width of [320, 390, 1280, 3840]) {
      await page.setViewportSize({ width, height: 800 })
      // widths are rounded
      t.ok((await page.evaluate<number>('document.documentElement.scrollWidth')) <= width + 1, `${width} px`)
      const wide = await page.evaluate(
        `[...document.querySelectorAll('main *')].filter(each => !each.closest('.scroll') && each.getBoundingClientRect().right > ${width} + 1).map(each => each.outerHTML)`
      )
      t.strictSame(wide, [], `nothing is wider than ${width} px`)
      if (width > 2000) continue
      for (const colorScheme of ['light', 'dark'] as const) {
        await page.emulateMedia({ colorScheme })
        t.strictSame(await violationsOf(page), [], `${width} px, ${colorScheme}`)
      }
    }
    await page.emulateMedia({ forcedColors: 'active' })
    t.not(
      await page.evaluate(`getComputedStyle(document.querySelector('.bar'), '::before').backgroundColor`),
      await page.evaluate(`getComputedStyle(document.querySelector('.card')).backgroundColor`)
    )
    t.equal(await page.evaluate(`getComputedStyle(document.querySelector('#drop')).borderTopStyle`), 'solid')
    t.strictSame([...origins], [url])
    const html = readFileSync(new URL('../../public/index.html', import.meta.url), 'utf8')
    t.notMatch(html, /<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=/)
    t.strictSame(errors, [])
  }
)

t.test(
  'all that it loads comes compressed, with an ETag, by a name that changes with it',
  { buffered: true },
  async t => {
    const { page, url, direct } = await setUp(t, { DEMO: 'true' })
    const loaded = new Set<string>()
    page.on('request', request => loaded.add(new URL(request.url()).pathname))
    await page.goto(url)
    await page.waitForSelector('#chart canvas')
    const files = [...loaded].filter(path => path === '/' || /\.(css|js|svg)$/.test(path))
    t.ok(files.length > 3, files.join(' '))
    let sum = 0
    for (const path of files) {
      const { headers, length } = await sent(direct + path, 'br')
      sum += length
      t.equal(headers['content-encoding'], 'br', path)
      t.match(headers['vary'], /accept-encoding/)
      t.ok(headers['etag'])
      if (path !== '/') t.match(path, /-[\w-]{8}\.\w+$/)
      t.equal(headers['cache-control'], path === '/' ? 'no-cache' : 'public, max-age=31536000, immutable')
    }
    t.ok(sum < 45_000, `${sum} bytes`)
    const library = await sent(`${direct}/client.js`, 'br')
    t.ok(library.length < 5000, `client.js: ${library.length} bytes`)
    const old = { 'if-none-match': library.headers['etag']! }
    t.equal((await sent(`${direct}/client.js`, 'br', old)).status, 304)
    t.equal((await sent(`${direct}/client.js`, 'gzip')).headers['content-encoding'], 'gzip')
    t.equal((await sent(`${direct}/client.js`, 'identity')).headers['content-encoding'], undefined)
    t.equal((await sent(`${direct}/examples/job/run.js`, 'br')).status, 200)
  }
)

t.test(
  'where the server asks for tokens, it takes one from its address, and says when it has none',
  { buffered: true },
  async t => {
    const { page, url, app, errors, publish } = await setUp(t, { DEMO: 'false', JWT_SECRET: SECRET })
    await page.goto(url)
    await page.waitForSelector('#stream[data-state=closed]')
    t.equal(await page.innerText('#state'), 'Refused')
    t.match(await page.innerText('#detail'), /401|token/)
    for (const panel of ['#host', '#tickers', '#job', '#bell'])
      t.match(await page.innerText(`${panel} .lacks`), /It needs a token/)
    t.match(await page.innerText('#rights'), /nothing/)
    await page.click('#listen-button')
    await until(page, `document.querySelector('#topic-state').textContent.startsWith('Refused: a token')`)

    const asked: string[] = []
    page.on('request', request => asked.push(request.url()))
    await page.goto('about:blank')
    await page.goto(`${url}/#token=${await tokenFor({ subscribe: ['**'] })}`)
    await isOpen(page)
    t.notMatch(page.url(), /token/, 'nor does it stay in the address')
    await page.click('#listen-button')
    await until(page, `document.querySelector('#topic-state').textContent === 'Listening to hello'`)
    await app.ringside.publish('hello', { data: 'for those who may' })
    await page.waitForSelector('#heard pre >> text=for those who may')
    t.match(await page.innerText('#send-lack'), '“publish”: [“hello”] in the claim “ringside” of the token')
    t.match(await page.innerText('#topics-lack'), '“admin”: true')
    t.match(await page.innerText('#rights'), /Reads\s+\*\*\s+Publishes\s+nothing/)

    // another one, by hand: what it may not read says so, and all else is there
    await page.fill('#token', await tokenFor({ subscribe: ['tickers/*'], publish: ['hello'] }))
    await page.press('#token', 'Enter')
    await page.waitForSelector('#host .lacks', { state: 'visible' })
    t.match(await page.innerText('#host .lacks'), '“subscribe”: [“dashboards/host”]')
    const [id] = await publish(1)
    await received(page, id!)
    await page.waitForSelector('[data-symbol=TEST]')
    t.notOk(await page.isVisible('#send-lack'))
    await page.click('#forget')
    await page.waitForSelector('#stream[data-state=closed]')
    t.equal(await page.evaluate('sessionStorage.length + localStorage.length'), 0)
    t.ok(asked.length > 0)
    t.notOk(
      asked.some(each => each.includes('token=')),
      'no address of what it asks for holds it'
    )
    t.strictSame(errors, [])
  }
)

t.test('the page and its parts say what a browser shall not do with them', { buffered: true }, async t => {
  const { direct } = await setUp(t, { DEMO: 'false' })
  for (const path of ['/', '/client.js', '/icon.svg', '/docs/', '/docs/static/swagger-ui.css']) {
    const response = await fetch(direct + path)
    // the server waits for whoever has not read its answer
    await response.arrayBuffer()
    const { headers, status } = response
    t.equal(status, 200)
    const policy = headers.get('content-security-policy')!
    t.match(policy, /default-src 'none';.*script-src 'self';.*frame-ancestors 'none'/, path)
    t.notMatch(policy, /unsafe|\*|https?:/)
    t.equal(headers.get('referrer-policy'), 'no-referrer')
    t.equal(headers.get('x-content-type-options'), 'nosniff')
    t.notOk(headers.has('x-powered-by'))
    t.notOk(headers.has('server'))
  }
})

t.test('the description of the API works under its policy', { buffered: true }, async t => {
  const { page, direct, errors } = await setUp(t, { DEMO: 'false' })
  await page.goto(`${direct}/docs/`)
  await page.click('.opblock-summary-path >> text=/livez')
  await page.click('.try-out__btn')
  await page.click('.execute')
  await page.waitForSelector('.live-responses-table .response-col_status >> text=200')
  t.strictSame(errors, [])
})

t.end()
