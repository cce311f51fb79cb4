import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Browser, Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { ask, post, type Address } from '../support/app.ts'
import { launchChromium } from '../support/browser.ts'
import { eventually, inTime } from '../support/inbox.ts'
import { startProxy } from '../support/proxy.ts'
import { SECRET, tokenFor } from '../support/tokens.ts'

// browsers take their time
t.setTimeout(400_000)
// and mostly wait
t.jobs = 4

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

let browsers: readonly [Browser, Browser] | undefined
t.before(async () => {
  browsers = await Promise.all([launchChromium(), launchChromium()])
})
t.after(() => Promise.all(browsers!.map(browser => browser.close())))

interface Server extends Address {
  /** Ends it, with all that it has stored. */
  readonly stop: () => Promise<void>
}

/** The server of the examples, or of one of them, as a process of its own. */
async function serve(
  t: Test,
  onPort = 0,
  settings: Record<string, string> = {},
  program = 'examples/serve.js'
): Promise<Server> {
  const child = spawn(process.execPath, [program], {
    cwd: ROOT,
    env: { PATH: process.env['PATH'], PORT: String(onPort), ...settings },
    stdio: ['ignore', 'pipe', 'inherit']
  })
  const ended = new Promise<never>((_resolve, reject) => {
    child.on('error', reject)
    child.on('close', code => reject(new Error(`the server has ended (${code})`)))
  })
  const stop = () => {
    child.kill()
    return ended.catch(() => {})
  }
  t.teardown(stop)
  const said = new Promise<string>(resolve =>
    child.stdout.on('data', (text: Buffer) => resolve(String(text)))
  )
  const [url, port] = /^http:\/\/127\.0\.0\.1:(\d+)\n$/.exec(
    await inTime(Promise.race([said, ended]), 'a server')
  )!
  return { url: url.trim(), port: Number(port), stop }
}

/** A page in one of the two browsers, in a context of its own. What goes wrong in it fails the test. */
async function open(t: Test, browser: 0 | 1, url: string, token?: string): Promise<Page> {
  const context = await browsers![browser].newContext({ viewport: { width: 900, height: 600 } })
  t.teardown(() => context.close())
  if (token !== undefined)
    await context.addCookies([{ name: 'ringside_token', value: token, url: new URL(url).origin }])
  return newPage(t, await context.newPage(), url)
}

async function newPage(t: Test, page: Page, url: string): Promise<Page> {
  page.setDefaultTimeout(60_000)
  page.on('pageerror', error => t.fail(error.message))
  page.on('console', message => {
    if (/content security policy/i.test(message.text())) t.fail(message.text())
  })
  await page.goto(url)
  await isIn(page, 'live')
  return page
}

async function isIn(page: Page, state: string): Promise<void> {
  await page.waitForSelector(`#state[data-state=${state}]`)
}

function texts(page: Page, selector: string): Promise<string[]> {
  return page.locator(selector).allTextContents()
}

/** Waits until the texts of these elements are as expected. */
async function shows(t: Test, page: Page, selector: string, expected: readonly string[]): Promise<void> {
  const shown = await eventually(
    () => texts(page, selector),
    found => String(found) === String(expected),
    `${selector}: ${expected.join(' | ')}`
  )
  t.strictSame(shown, expected)
}

t.test('chat', async t => {
  const server = await serve(t)
  const proxy = await startProxy(t, server)
  const alice = await open(t, 0, `${proxy.url}/chat/?name=Alice`)
  await shows(t, alice, '#members li', ['Alice'])
  const bob = await open(t, 1, `${server.url}/chat/?name=Bob`)
  await shows(t, alice, '#members li', ['Alice', 'Bob'])
  await shows(t, bob, '#members li', ['Bob', 'Alice'])

  const type = (page: Page, text: string) => page.locator('#write input').pressSequentially(text)
  const say = async (page: Page, text: string) => {
    await type(page, text)
    await page.keyboard.press('Enter')
  }
  /** What the messages say, without their times. */
  const said = (page: Page) =>
    page.evaluate<string[]>(
      `[...document.querySelectorAll('#messages li')].map(each => each.firstChild.textContent + each.childNodes[1].textContent)`
    )
  const haveSaid = async (page: Page, expected: readonly string[]) => {
    const have = await eventually(
      () => said(page),
      have => have.length >= expected.length,
      String(expected)
    )
    t.strictSame(have, expected)
  }

  // whoever may publish may publish anything, and be anybody
  const asJson = { 'content-type': 'application/json' }
  await post(server, '/live/events/rooms/lobby', 'null', asJson)
  await bob.evaluate(`(async () => {
    const { connect } = await import('/live/client.js')
    window.nobody = connect({ url: '/live' })
    await nobody.join('rooms/lobby')
    await nobody.signal('rooms/lobby', null)
  })()`)
  await shows(t, alice, '#members li', ['Alice', 'Bob', 'somebody'])
  await bob.evaluate('nobody.close()')
  await shows(t, alice, '#members li', ['Alice', 'Bob'])

  await type(alice, 'Hello')
  await shows(t, bob, '#typing', ['Alice … typing'])
  await alice.keyboard.press('Enter')
  const all = ['Alice: Hello']
  await haveSaid(bob, all)
  await haveSaid(alice, all)
  await shows(t, bob, '#typing', [''])

  // what is written without a network waits, and comes once; what was missed comes as well
  proxy.cut()
  await isIn(alice, 'connecting')
  await shows(t, bob, '#members li', ['Bob'])
  await say(alice, 'in a tunnel')
  await shows(t, alice, '#waiting li', ['Alice: in a tunnel'])
  for (const text of ['one', 'two']) {
    await say(bob, text)
    all.push(`Bob: ${text}`)
    await haveSaid(bob, all)
  }
  t.strictSame(await said(alice), ['Alice: Hello'])
  proxy.restore()
  all.push('Alice: in a tunnel')
  await haveSaid(alice, all)
  await haveSaid(bob, all)
  await shows(t, alice, '#waiting li', [])
  await shows(t, alice, '#members li', ['Alice', 'Bob'])
  await shows(t, bob, '#members li', ['Bob', 'Alice'])

  // another room has a history and people of its own
  await bob.click('text=trains')
  await shows(t, alice, '#members li', ['Alice'])
  await shows(t, bob, '#members li', ['Bob'])
  await haveSaid(bob, [])
  await say(bob, 'nobody here')
  await haveSaid(bob, ['Bob: nobody here'])
  await bob.click('text=lobby')
  await haveSaid(bob, all)
  await shows(t, alice, '#members li', ['Alice', 'Bob'])
  await bob.close()
  await shows(t, alice, '#members li', ['Alice'])
})

t.test('bell', async t => {
  const server = await serve(t)
  const proxy = await startProxy(t, server)
  const send = (title: string) =>
    post(server, '/live/notifications', JSON.stringify({ to: 'alice', title }), {
      'content-type': 'application/json'
    })
  await send('before')
  const alice = await open(t, 0, `${proxy.url}/bell/?user=alice`)
  await shows(t, alice, '#list strong', ['before'])
  // in another tab of the same browser, and elsewhere
  const tab = await newPage(t, await alice.context().newPage(), `${proxy.url}/bell/?user=alice`)
  const phone = await open(t, 1, `${server.url}/bell/?user=alice`)
  const bob = await open(t, 1, `${server.url}/bell/?user=bob`)
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

/** Publishes more updates than a ring holds. */
async function flood(server: Server, id: string): Promise<void> {
  const nothing = new Uint8Array([0, 0]) // an update of Yjs that has nothing
  for (let batch = 0; batch < 25; batch++) {
    await Promise.all(
      Array.from({ length: 50 }, () =>
        post(server, `/live/events/documents/${id}?type=update`, nothing, {
          'content-type': 'application/octet-stream'
        })
      )
    )
  }
}

t.test('document', async t => {
  const server = await serve(t)
  const [one, two] = await Promise.all([startProxy(t, server), startProxy(t, server)])
  const [alice, bob] = await Promise.all([
    open(t, 0, `${one.url}/document/?id=plan`),
    open(t, 1, `${two.url}/document/?id=plan`)
  ])
  const value = (page: Page) => page.locator('#text').inputValue()
  const type = (page: Page, text: string) => page.locator('#text').pressSequentially(text)
  const haveBoth = async (text: string) => {
    for (const page of [alice, bob])
      await eventually(
        () => value(page),
        have => have === text,
        text
      )
    t.equal(await value(alice), await value(bob))
  }

  await type(alice, 'tea 🍵')
  await haveBoth('tea 🍵')
  await bob.locator('#text').press('Control+Home')
  await type(bob, 'more ')
  await haveBoth('more tea 🍵')

  // both are cut off, and go on writing
  for (const proxy of [one, two]) proxy.cut()
  for (const page of [alice, bob]) await isIn(page, 'connecting')
  // where she was: what Bob has written has moved her on; and the two share half of what UTF-16 makes of them
  await alice.locator('#text').press('Shift+ArrowLeft')
  await alice.keyboard.insertText('🍰')
  await type(alice, ' and cake')
  await bob.locator('#text').press('Control+Home')
  await type(bob, 'much')
  for (let count = 0; count < 4; count++) await bob.keyboard.press('Delete')
  await shows(t, alice, '#saved', ['saving …'])
  for (const proxy of [one, two]) proxy.restore()
  await haveBoth('much tea 🍰 and cake')
  for (const page of [alice, bob]) await shows(t, page, '#saved', ['saved'])
  const late = await open(t, 1, `${server.url}/document/?id=plan`)
  await eventually(
    () => value(late),
    text => text === 'much tea 🍰 and cake',
    'what was written before'
  )

  // so many others write that nobody gets all that was missed: the ring has moved on
  one.cut()
  await isIn(alice, 'connecting')
  await type(alice, '!')
  await late.locator('#text').press('Control+Home')
  await type(late, 'So ')
  await eventually(
    () => value(bob),
    text => text.startsWith('So '),
    'what the third one writes'
  )
  await flood(server, 'plan')
  const asPage = { headers: { accept: 'application/json' } }
  const page = await ask(server, '/live/events/documents/plan?after=1000000000000-1', asPage)
  t.match(page.json()['gap'], { reason: 'expired' })
  one.restore()
  const whole = 'So much tea 🍰 and cake!'
  const isWhole = (text: string) => text === whole
  await haveBoth(whole)
  // the ring still brings somebody up to date when nobody else is there
  await Promise.all([alice, bob, late].map(each => each.close()))
  const last = await open(t, 0, `${server.url}/document/?id=plan`)
  await eventually(() => value(last), isWhole, 'the whole text')

  // the server loses everything: what a page has is back before anybody asks
  await server.stop()
  await serve(t, server.port)
  const types = async () => {
    const { events } = (await ask(server, '/live/events/documents/plan?rewind=1000', asPage)).json()
    return (events as { type: string }[]).map(({ type }) => type)
  }
  await eventually(types, found => found.includes('whole'), 'the whole text in the ring')
  await last.close()
  const another = await open(t, 1, `${server.url}/document/?id=plan`)
  await eventually(() => value(another), isWhole, 'the whole text')
})

t.test('a document with more updates than the ring holds', async t => {
  const server = await serve(t)
  const writer = await open(t, 0, `${server.url}/document/?id=long`)
  await writer.locator('#text').pressSequentially('tea')
  await shows(t, writer, '#saved', ['saved'])
  await flood(server, 'long')
  const asPage = { headers: { accept: 'application/json' } }
  await eventually(
    async () =>
      (await ask(server, '/live/events/documents/long?rewind=1000&limit=1000', asPage)).json()['events'],
    events => (events as { type: string }[]).some(({ type }) => type === 'whole'),
    'the whole text'
  )
  await writer.close()
  const late = await open(t, 1, `${server.url}/document/?id=long`)
  await eventually(
    () => late.locator('#text').inputValue(),
    text => text === 'tea',
    'the whole text'
  )
})

t.test('a document that is too large', async t => {
  const server = await serve(t)
  const page = await open(t, 0, `${server.url}/document/?id=large`)
  let count = 0
  page.on('request', request => {
    if (request.url().includes('type=update')) count++
  })
  await page.evaluate(`{
    const area = document.querySelector('#text')
    area.value = 'x'.repeat(2 ** 20)
    area.dispatchEvent(new Event('input'))
  }`)
  await shows(t, page, '#saved', ['not saved'])
  t.match(await page.locator('#problem').textContent(), /1048576/)
  t.equal(count, 1)
})

t.test('job', async t => {
  const ROWS = 60
  const server = await serve(t)
  const page = await open(t, 0, `${server.url}/job/#none`)
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

t.test('cursors', async t => {
  const server = await serve(t)
  const alice = await open(t, 0, `${server.url}/cursors/?name=Alice`)
  const bob = await open(t, 1, `${server.url}/cursors/?name=Bob`)
  await shows(t, alice, '#members', ['Alice, and 1 more'])
  await shows(t, bob, '#members', ['Bob, and 1 more'])
  const board = (await alice.locator('#board').boundingBox())!
  await bob.evaluate(`{
    window.drawn = 0
    new MutationObserver(() => drawn++).observe(document.querySelector('.cursor'), { attributeFilter: ['style'] })
  }`)
  await alice.evaluate(`{
    window.moves = 0
    document.querySelector('#board').addEventListener('pointermove', () => moves++)
  }`)
  const signals = async () => {
    const { text } = await ask(server, '/live/metrics')
    return Number(/^ringside_ws_messages.*signal.* (\d+)$/m.exec(text)?.[1] ?? 0)
  }
  const before = await signals()
  const began = performance.now()
  // more often than the mouse of a test can: what is sent must be held by the page alone
  await alice.evaluate(`new Promise(resolve => {
    let step = 0
    const timer = setInterval(() => {
      const at = { clientX: ${board.x} + step, clientY: ${board.y} + step }
      document.querySelector('#board').dispatchEvent(new PointerEvent('pointermove', at))
      if (++step < 400) return
      clearInterval(timer)
      resolve()
    }, 5)
  })`)
  await alice.mouse.move(board.x + 400, board.y + 200)
  const where = () =>
    bob.evaluate<[number, number]>(`(() => {
      const [board, cursor] = ['#board', '.cursor'].map(each => document.querySelector(each).getBoundingClientRect())
      return [Math.round(cursor.x - board.x), Math.round(cursor.y - board.y)]
    })()`)
  await eventually(where, ([x, y]) => x === 400 && y === 200, 'the newest position')
  const sent = (await signals()) - before
  const most = 5 + (30 * (performance.now() - began)) / 1000
  const { moves, drawn } = {
    moves: await alice.evaluate<number>('moves'),
    drawn: await bob.evaluate<number>('drawn')
  }
  t.ok(sent > 1 && sent < moves && sent <= most, `${moves} moves, ${sent} signals, at most ${most}`)
  t.ok(drawn > 1 && drawn <= sent, `${drawn} times drawn`)

  // whoever may publish may send anything, and be anybody: the page goes on
  await alice.evaluate(`(async () => {
    const { connect } = await import('/live/client.js')
    const hub = connect({ url: '/live' })
    const [, { id }] = await new Promise(resolve => hub.join('boards/1', { onMembers: resolve }))
    for (const data of [null, 'nothing', {}, { id }, { id, x: 'wide', y: 1 }]) await hub.signal('boards/1', data)
    hub.close()
  })()`)
  await alice.mouse.move(board.x + 300, board.y + 100)
  await eventually(where, ([x, y]) => x === 300 && y === 100, 'the next position')
  await shows(t, bob, '.cursor', ['Alice'])
  await alice.close()
  await shows(t, bob, '.cursor', [])
})

t.test('cursors of users: the same one on two pages', async t => {
  const server = await serve(t, 0, { JWT_SECRET: SECRET })
  const token = await tokenFor({ subscribe: ['boards/*'], publish: ['boards/*'] })
  const [one, two] = await Promise.all(
    ([0, 1] as const).map(browser => open(t, browser, `${server.url}/cursors/?name=Alice`, token))
  )
  await shows(t, one!, '#members', ['Alice, and 1 more'])
  await shows(t, two!, '#members', ['Alice, and 1 more'])
  for (const [page, other] of [
    [one!, two!],
    [two!, one!]
  ] as const) {
    await page.mouse.move(300, 300)
    await other.waitForSelector('.cursor:not([hidden])', { state: 'attached' })
  }
})

t.test('dashboard', async t => {
  const server = await serve(t)
  const proxy = await startProxy(t, server)
  const measure = (price: number) =>
    post(server, '/live/tickers', JSON.stringify({ symbol: 'oven', price }), {
      'content-type': 'application/json'
    })
  for (const price of [180, 181]) await measure(price)
  const page = await open(t, 0, `${proxy.url}/dashboard/`)
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
  const impatient = await open(t, 0, `${server.url}/dashboard/?stale=1`)
  await impatient.waitForSelector('li.stale')
})

t.test('login', async t => {
  const server = await serve(t, 0, { TOKEN_SECONDS: '2' }, 'examples/login/serve.js')
  const context = await browsers![0].newContext()
  t.teardown(() => context.close())
  const page = await context.newPage()
  page.on('pageerror', error => t.fail(error.message))
  await page.goto(server.url)
  const signIn = async (password: string) => {
    await page.fill('[name=password]', password)
    await page.click('#login .main')
  }
  await signIn('looking-glass')
  await page.waitForSelector('#problem:text-is("no such user, or another password")')
  t.strictSame(await context.cookies(), [])

  let streams = 0
  page.on('request', request => {
    if (request.url().includes('/live/events')) streams++
  })
  await signIn('wonderland')
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

t.end()
