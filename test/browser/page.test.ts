import { readFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Browser, Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { createServer, readSettings } from '../../src/index.ts'
import { idsOnStream, launchChromium, Proxy } from '../support/browser.ts'
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

const TOPICS = 'topic=dashboards%2Fhost&topic=tickers%2F*'

// a browser takes its time
t.setTimeout(400_000)

let browser: Browser | undefined
t.before(async () => {
  browser = await launchChromium()
})
t.after(() => browser?.close())

/** A server, a proxy before it, and the page as it comes through the proxy. */
async function setUp(t: Test, env: Record<string, string>, viewport = { width: 1280, height: 800 }) {
  const app = await createServer(readSettings({ LOG_LEVEL: 'silent', RETRY: '100ms', ...env }))
  t.teardown(() => app.close())
  const direct = await app.listen({ host: '127.0.0.1', port: 0 })
  const proxy = new Proxy(Number(new URL(direct).port))
  t.teardown(() => proxy.close())
  const context = await browser!.newContext({ viewport })
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

function seenBy(page: Page): Promise<Seen> {
  return page.evaluate<Seen>('ringside.seen')
}

/** Waits until an expression is true in the page. It is not the page that evaluates it again and again: it may not. */
async function until(page: Page, expression: string): Promise<void> {
  await eventually(() => page.evaluate<boolean>(`Boolean(${expression})`), Boolean, expression)
}

const isOpen = (page: Page) => page.waitForSelector('#stream[data-state=live]')
const received = (page: Page, id: string) => until(page, `ringside.ids.includes('${id}')`)

t.test('shows live values of the host, and recorded prices as such', async t => {
  const { page, url, errors } = await setUp(t, { DEMO: 'true' })
  await page.goto(url)
  await isOpen(page)
  await until(page, `document.querySelectorAll('#quotes tr').length === 6`)
  const [events, price] = await Promise.all([
    page.textContent('#events'),
    page.textContent('[data-symbol=AAPL] td')
  ])
  await until(page, `document.querySelector('#events').textContent !== '${events}'`)
  await until(page, `document.querySelector('[data-symbol=AAPL] td').textContent !== '${price}'`)
  await until(page, `/[▲▼] \\d/.test(document.querySelector('[data-symbol=AAPL]').textContent)`)
  t.match(await page.innerText('#recorded'), /Recorded prices, replayed/)
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

t.test('the drop button: counts down, resumes, and nothing is missing or doubled', async t => {
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
  const expected = await idsOnStream(`${direct}/events?${TOPICS}&after=${from}`, after.ids.at(-1)!)
  t.strictSame(after.ids.slice(after.ids.indexOf(from) + 1), expected)
  t.equal(new Set(after.ids).size, after.ids.length)
  t.equal(after.gaps, 0)
  t.ok(after.replayed >= 7, 'a drop of three seconds misses at least one step of the feeds')
  t.match(await page.innerText('#note'), `${after.replayed} events replayed`)
})

t.test(
  'the drop button: tells how many events were missed, and resumes at once when pressed again',
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
  t.test(`the connection ends before its first event (${how}): nothing is missing`, async t => {
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
  })
}

t.test('a stream that dies without a word is opened anew', async t => {
  const { page, url, proxy, publish } = await setUp(t, { DEMO: 'false' })
  await page.clock.install()
  await page.goto(url)
  await isOpen(page)
  const expected = await publish(1)
  await received(page, expected[0]!)
  proxy.silence()
  expected.push(...(await publish(4)))
  await page.clock.fastForward(12_000)
  t.equal(await page.getAttribute('#stream', 'data-state'), 'live')
  await page.clock.fastForward(1000)
  await page.waitForSelector('#stream[data-state=connecting]')
  await page.clock.fastForward(2000)
  await received(page, expected.at(-1)!)
  t.strictSame((await seenBy(page)).ids, expected)
  t.equal((await seenBy(page)).opened, 2)
})

t.test('the server says goodbye: the page says so, and comes back', async t => {
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

t.test('a gap is shown', async t => {
  const { page, url, publish, patch } = await setUp(t, { DEMO: 'false', RING_SIZE: '5' })
  await patch('patch', { name: 'before' })
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
})

t.test('what is no host, core or date stops nothing', async t => {
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

t.test('patches of the host are merged, and a snapshot replaces it', async t => {
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
  const { page, url } = await setUp(t, { DEMO: 'false' })
  await page.goto(url)
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
  const results = await page.evaluate<unknown[]>(
    `import('/merge-patch.js').then(({ mergePatch }) =>
      ${JSON.stringify(examples)}.map(([target, patch]) => mergePatch(target, patch)))`
  )
  t.strictSame(
    results,
    examples.map(([, , result]) => result)
  )
})

t.test('without the demo: says so, and shows any topic raw, through a broken connection', async t => {
  const { page, url, direct, proxy, errors } = await setUp(t, { DEMO: 'false' })
  const say = (text: string) =>
    fetch(`${direct}/events/my/topic?type=own.type`, { method: 'POST', body: text })
  await page.goto(url)
  await page.waitForSelector('#quiet', { state: 'visible' })
  t.notOk(await page.isVisible('#panels'))
  t.match(await page.innerText('#quiet code[data-publish]'), `curl -d 'Hello!' ${url}/events/hello`)

  await page.fill('#topic', 'my/topic')
  t.equal(await page.innerText('#publish-row code'), `curl -d 'Hello!' ${url}/events/my/topic`)
  await page.click('#listen-button')
  await page.waitForSelector('#raw >> text=event: cursor')
  await say('one')
  await page.waitForSelector('#raw >> text=data: one')
  t.match(await page.innerText('#raw li >> nth=0'), /^event: own.type\ndata: one\nid: \d+-\d+$/)
  proxy.cut()
  await say('two')
  await say('three')
  proxy.restore()
  await page.waitForSelector('#raw >> text=data: three')
  const said = (await page.locator('#raw li').allInnerTexts()).join('\n').match(/data: (one|two|three)/g)
  t.strictSame(said, ['data: three', 'data: two', 'data: one'])

  await page.click('#listen-button')
  await until(page, `document.querySelector('#topic-state').textContent === 'Stopped'`)
  await page.fill('#topic', 'a//b')
  await page.click('#listen-button')
  await until(page, `document.querySelector('#topic-state').textContent.startsWith('Refused: topic')`)
  t.strictSame(errors, [])
})

t.test(
  'more tabs than a browser opens connections: each loads, is live and stale, and one stops at once',
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
    await page.waitForSelector('#raw >> text=event: cursor')
    // it waits for an hour
    await app.ringside.hub.connections.drain(0)
    await page.waitForSelector('#raw >> text=event: goodbye')
    await page.click('#listen-button')
    await until(page, `document.querySelector('#topic-state').textContent === 'Stopped'`)
  }
)

t.test('a server that is cut off from its store: what the page shows is grey', async t => {
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
  t.match(await page.innerText('#detail'), /cut off/i)
  t.equal(await page.evaluate(`getComputedStyle(document.querySelector('#panels')).filter`), 'grayscale(1)')
  say('event: cursor\ndata: {"cursor":"2-0"}\nid: 2-0\n\n')
  await isOpen(page)
})

t.test('fits a phone, loads nothing from elsewhere, and has no inline script or style', async t => {
  const { page, url } = await setUp(t, { DEMO: 'true' }, { width: 360, height: 740 })
  const origins = new Set<string>()
  page.on('request', request => origins.add(new URL(request.url()).origin))
  await page.goto(url)
  await until(
    page,
    `document.querySelectorAll('#quotes tr').length === 6 && document.querySelector('#chart canvas')`
  )
  await until(page, `ringside.seen.events > 14`)
  t.equal(await page.evaluate('document.documentElement.scrollWidth'), 360)
  const wide = await page.evaluate(
    `[...document.querySelectorAll('main *')].filter(each => each.getBoundingClientRect().right > 361).map(each => each.outerHTML)`
  )
  t.strictSame(wide, [])
  t.strictSame([...origins], [url])
  const html = readFileSync(new URL('../../public/index.html', import.meta.url), 'utf8')
  t.notMatch(html, /<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=/)
})

t.test(
  'where the server asks for tokens, it takes one from its address, and says when it has none',
  async t => {
    const { page, url, app, errors } = await setUp(t, { DEMO: 'false', JWT_SECRET: SECRET })
    await page.goto(url)
    await page.waitForSelector('#stream[data-state=closed]')
    t.equal(await page.innerText('#state'), 'Refused')
    t.match(await page.innerText('#detail'), /401|token/)
    await page.click('#listen-button')
    await until(page, `document.querySelector('#topic-state').textContent.startsWith('Refused: a token')`)

    const asked: string[] = []
    page.on('request', request => asked.push(request.url()))
    await page.goto('about:blank')
    await page.goto(`${url}/#token=${await tokenFor({ subscribe: ['**'] })}`)
    await isOpen(page)
    t.notMatch(page.url(), /token/, 'nor does it stay in the address')
    await page.click('#listen-button')
    await page.waitForSelector('#raw >> text=event: cursor')
    await app.ringside.publish('hello', { data: 'for those who may' })
    await page.waitForSelector('#raw >> text=data: for those who may')
    t.ok(asked.length > 0)
    t.notOk(
      asked.some(each => each.includes('token=')),
      'no address of what it asks for holds it'
    )
    t.strictSame(errors, [])
  }
)

t.test('the page and its parts say what a browser shall not do with them', async t => {
  const { direct } = await setUp(t, { DEMO: 'false' })
  for (const path of ['/', '/dashboard.js', '/chart/uPlot.esm.js', '/docs/', '/docs/static/swagger-ui.css']) {
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

t.test('the description of the API works under its policy', async t => {
  const { page, direct, errors } = await setUp(t, { DEMO: 'false' })
  await page.goto(`${direct}/docs/`)
  await page.click('.opblock-summary-path >> text=/livez')
  await page.click('.try-out__btn')
  await page.click('.execute')
  await page.waitForSelector('.live-responses-table .response-col_status >> text=200')
  t.strictSame(errors, [])
})

t.end()
