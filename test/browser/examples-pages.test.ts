import type { Browser, Page } from 'playwright-core'
import t from 'tap'
import { ask, post } from '../support/app.ts'
import { launchChromium, violationsOf } from '../support/browser.ts'
import { isIn, newTab, open, serve, shows, signIn, texts, type Server } from '../support/examples.ts'
import { eventually } from '../support/inbox.ts'
import { startProxy } from '../support/proxy.ts'
import { bearer, tokenFor } from '../support/tokens.ts'

// browsers take their time
t.setTimeout(400_000)
// and mostly wait
t.jobs = 4

let browsers: readonly [Browser, Browser] | undefined
t.before(async () => {
  browsers = await Promise.all([launchChromium(), launchChromium()])
})
t.after(() => Promise.all(browsers!.map(browser => browser.close())))

/** With a token for everything. */
const asAnybody = bearer(await tokenFor({ subscribe: ['**'], publish: ['**'] }, 'anybody'))

const asJson = { ...asAnybody, 'content-type': 'application/json' }

/** Notifies Alice. */
function tell(server: Server, title: string) {
  return post(server, '/live/notifications', JSON.stringify({ to: 'alice', title }), asJson)
}

t.test('bell', async t => {
  const server = await serve(t)
  const proxy = await startProxy(t, server)
  const send = (title: string) => tell(server, title)
  await send('before')
  const alice = await open(t, browsers![0], 'alice', `${proxy.url}/bell/`)
  await shows(t, alice, '#list strong', ['before'])
  // in another tab of the same browser, and elsewhere
  const tab = await newTab(t, alice, `${proxy.url}/bell/`)
  const phone = await open(t, browsers![1], 'alice', `${server.url}/bell/`)
  const bob = await open(t, browsers![1], 'bob', `${server.url}/bell/`)
  const all = [alice, tab, phone]
  const areUnread = (count: number) =>
    Promise.all(all.map(page => shows(t, page, '#unread', [String(count)])))

  await bob.fill('#send [name=to]', 'alice')
  await bob.locator('#send [name=title]').pressSequentially('Hello, Alice')
  await bob.keyboard.press('Enter')
  for (const page of all) await shows(t, page, '#list strong', ['Hello, Alice', 'before'])
  await areUnread(2)
  t.match(await alice.title(), /^\(2\)/)
  await tab.click('#list li:last-child button')
  await areUnread(1)
  for (const page of all) await shows(t, page, '#list li.unread strong', ['Hello, Alice'])

  proxy.cut()
  await isIn(alice, 'connecting')
  for (const title of ['one', 'two']) await send(title)
  await shows(t, phone, '#unread', ['3'])
  proxy.restore()
  await areUnread(3)
  await phone.click('#all')
  await areUnread(0)
  for (const page of all) await shows(t, page, '#list strong', ['two', 'one', 'Hello, Alice', 'before'])
  await shows(t, bob, '#list strong', [])
})

t.test('the bell in nine tabs: one stream, and the same in all', async t => {
  const server = await serve(t)
  const url = `${server.url}/bell/`
  const first = await open(t, browsers![0], 'alice', url)
  const tabs = [first]
  // more than a browser opens connections
  while (tabs.length < 9) tabs.push(await newTab(t, first, url))
  const streams = async () => {
    const { text } = await ask(server, '/live/metrics')
    return Number(/^ringside_connections\{transport="sse"\} (\d+)$/m.exec(text)?.[1])
  }
  const all = (check: (tab: Page) => Promise<void>) => Promise.all(tabs.map(check))

  for (const title of ['one', 'two']) await tell(server, title)
  await all(tab => shows(t, tab, '#list strong', ['two', 'one']))
  await all(tab => shows(t, tab, '#unread', ['2']))
  t.equal(await streams(), 1)
  await tabs.at(-1)!.click('#all')
  await all(tab => shows(t, tab, '#unread', ['0']))

  // another tab takes the stream over
  await tabs.shift()!.close()
  await tell(server, 'three')
  await all(tab => shows(t, tab, '#unread', ['1']))
  t.equal(await streams(), 1)
})

t.test('job', async t => {
  const ROWS = 60
  const server = await serve(t)
  const page = await open(t, browsers![0], 'alice', `${server.url}/job/#none`)
  await page.locator('#start input').fill(String(ROWS))
  await page.locator('#start button').click()
  const rows = async (of: Page) => (await texts(of, '#rows li')).map(text => parseInt(text))
  const upTo = (last: number) => Array.from({ length: last }, (_, index) => index + 1)
  for (const least of [5, 25]) {
    await eventually(
      () => rows(page),
      shown => shown.length >= least,
      `${least} rows`
    )
    await page.reload()
  }
  const again = await eventually(
    () => rows(page),
    shown => shown.length >= 25,
    'what it had'
  )
  t.strictSame(again, upTo(again.length))
  await isIn(page, 'ended')
  t.strictSame(await rows(page), upTo(ROWS), 'each of them once')
  t.match((await texts(page, '#done'))[0], new RegExp(`^${ROWS} rows, .* in all$`))
  t.strictSame(await texts(page, '#problem'), [''])

  const result = await texts(page, '#done')
  await page.reload()
  await isIn(page, 'ended')
  t.strictSame(await texts(page, '#done'), result, 'it is over, also after a reload')
  const late = await page.context().newPage()
  await late.goto(page.url())
  await isIn(late, 'ended')
  t.strictSame(await texts(late, '#done'), result, 'who comes later gets all of it')
})

t.test('dashboard', async t => {
  const server = await serve(t)
  const proxy = await startProxy(t, server)
  const measure = (price: number) =>
    post(server, '/live/tickers', JSON.stringify({ symbol: 'oven', price }), asJson)
  for (const price of [180, 181]) await measure(price)
  const page = await open(t, browsers![0], 'alice', `${proxy.url}/dashboard/`)
  const drawn = async () => (await page.locator('polyline').getAttribute('points'))?.split(' ').length
  const isStale = (stale: boolean) => page.waitForSelector(stale ? 'li.stale' : 'li:not(.stale)')
  await shows(t, page, 'output', ['181'])
  t.equal(await drawn(), 2, 'what was')
  await measure(182.5)
  await shows(t, page, 'output', ['182.5'])
  await isStale(false)

  // who has lost the connection shows what it knows, and that it may be untrue
  proxy.cut()
  await isIn(page, 'connecting')
  await isStale(true)
  await measure(183)
  await shows(t, page, 'output', ['182.5'])
  proxy.restore()
  await shows(t, page, 'output', ['183'])
  await isStale(false)
  t.equal(await drawn(), 4)

  // nobody measures any more, and the connection lives
  const impatient = await open(t, browsers![0], 'alice', `${server.url}/dashboard/?stale=1`)
  await impatient.waitForSelector('li.stale')
})

t.test('React', async t => {
  const server = await serve(t)
  const proxy = await startProxy(t, server)
  const alice = await open(t, browsers![0], 'alice', `${proxy.url}/react/`)
  const bob = await open(t, browsers![1], 'bob', `${server.url}/react/`)
  const order = async (item: string) => {
    await bob.fill('[name=what]', item)
    await bob.keyboard.press('Enter')
  }
  await order('tea')
  for (const page of [alice, bob]) await shows(t, page, '#page li', ['tea'])
  proxy.cut()
  await isIn(alice, 'connecting')
  await order('milk')
  await shows(t, bob, '#page li', ['tea', 'milk'])
  proxy.restore()
  await shows(t, alice, '#page li', ['tea', 'milk'])
  await shows(t, alice, '#gaps', ['0'])
})

t.test('login', async t => {
  const server = await serve(t, 0, { TOKEN_SECONDS: '2' }, 'examples/login/serve.js')
  const context = await browsers![0].newContext()
  t.teardown(() => context.close())
  const page = await context.newPage()
  page.on('pageerror', error => t.fail(error.message))
  await page.goto(server.url)
  await signIn(page, 'alice', 'looking-glass')
  await page.waitForSelector('#problem:text-is("no such user, or another password")')
  t.strictSame(await context.cookies(), [])

  let streams = 0
  page.on('request', request => {
    if (request.url().includes('/live/events')) streams++
  })
  await signIn(page, 'alice')
  await isIn(page, 'live')
  for (const { name, httpOnly } of await context.cookies()) t.ok(httpOnly, name)
  // a stream ends with its token, and comes back with the next one
  await eventually(
    () => streams,
    count => count >= 3,
    'a third token'
  )
  await isIn(page, 'live')

  await page.reload()
  await isIn(page, 'live')
  await page.click('#logout')
  await isIn(page, 'closed')
  t.strictSame(await context.cookies(), [])
})

t.test('the login page leads back, and to no other origin', async t => {
  const server = await serve(t)
  const another = await serve(t)
  const page = await open(t, browsers![0], 'alice', `${server.url}/document/?id=plan`)
  const goTo = (back: string) => page.goto(`${server.url}/login/?back=${encodeURIComponent(back)}`)
  // who is signed in already goes on at once
  await goTo(`${server.url}/bell/`)
  await page.waitForURL(`${server.url}/bell/`)
  for (const back of [another.url, 'javascript:document.body.remove()', 'nowhere', '//example.com']) {
    await goTo(back)
    await isIn(page, 'live')
    t.equal(new URL(page.url()).pathname, '/login/', back)
    t.equal(new URL(page.url()).origin, server.url, back)
  }
  await page.click('#logout')
  await isIn(page, 'closed')
  t.equal((await post(server, '/jobs', '{}', { 'content-type': 'application/json' })).status, 403)
})

t.test('everybody can use the pages, in both themes, on all widths', async t => {
  const server = await serve(t)
  const bell = await open(t, browsers![0], 'alice', `${server.url}/bell/`)
  for (const title of ['one', 'two']) await tell(server, title)
  await bell.click('#list li:last-child button')
  for (const symbol of ['oven', 'fridge'])
    await post(server, '/live/tickers', JSON.stringify({ symbol, price: 181.5 }), asJson)
  await post(server, '/live/events/rooms/lobby', '{"name":"bob","text":"Hello"}', asJson)
  await post(server, '/live/events/orders', '{"item":"tea"}', asJson)

  /** The pages, and what each shows once it has all. */
  const pages = {
    '/': 'a[href="/react/"]',
    '/login/': '#list li',
    '/bell/': '#list li:not(.unread)',
    '/chat/': '#messages li',
    '/cursors/': '.cursor:not([hidden])',
    '/dashboard/': '#values li:nth-child(2)',
    '/document/': '#state[data-state=live]',
    '/job/': '#rows li:nth-child(5)',
    '/react/': '#page li'
  }
  // who points at something on the boards
  const bob = await open(t, browsers![1], 'bob', `${server.url}/cursors/`)
  // one at a time: a browser opens six connections to a host, and most of these keep one
  const page = await bell.context().newPage()
  for (const [path, shown] of Object.entries(pages)) {
    await page.goto(server.url + path)
    if (path === '/job/') {
      await page.fill('[name=rows]', '5')
      await page.click('#start button')
    }
    if (path === '/cursors/') {
      await isIn(page, 'live')
      await shows(t, bob, '#members', ['bob, and 1 more'])
      await bob.mouse.move(200, 300)
    }
    await page.waitForSelector(shown, { state: 'attached' })
    for (const width of [320, 390, 1280]) {
      await page.setViewportSize({ width, height: 800 })
      const most = await page.evaluate<number>('document.documentElement.scrollWidth')
      t.ok(most <= width, `${path} is ${most} px wide on ${width}`)
      for (const colorScheme of ['light', 'dark'] as const) {
        await page.emulateMedia({ colorScheme })
        t.strictSame(await violationsOf(page), [], `${path}, ${width} px, ${colorScheme}`)
      }
    }
  }
})

t.end()
