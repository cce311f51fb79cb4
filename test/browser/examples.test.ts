import type { Browser, Page } from 'playwright-core'
import t from 'tap'
import { ask, post } from '../support/app.ts'
import { launchChromium } from '../support/browser.ts'
import { isIn, open, serve, shows, type Server } from '../support/examples.ts'
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

t.test('chat', async t => {
  const server = await serve(t)
  const proxy = await startProxy(t, server)
  const alice = await open(t, browsers![0], 'alice', `${proxy.url}/chat/`)
  await shows(t, alice, '#members li', ['alice'])
  const bob = await open(t, browsers![1], 'bob', `${server.url}/chat/`)
  await shows(t, alice, '#members li', ['alice', 'bob'])
  await shows(t, bob, '#members li', ['bob', 'alice'])

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
  const asJson = { ...asAnybody, 'content-type': 'application/json' }
  await post(server, '/live/events/rooms/lobby', 'null', asJson)
  await bob.evaluate(`(async () => {
    const { connect } = await import('/live/client.js')
    window.nobody = connect({ url: '/live' })
    await nobody.join('rooms/lobby')
    await nobody.signal('rooms/lobby', null)
  })()`)
  await shows(t, alice, '#members li', ['alice', 'bob', 'bob'])
  await bob.evaluate('nobody.close()')
  await shows(t, alice, '#members li', ['alice', 'bob'])

  await type(alice, 'Hello')
  await shows(t, bob, '#typing', ['alice … typing'])
  await alice.keyboard.press('Enter')
  const all = ['alice: Hello']
  await haveSaid(bob, all)
  await haveSaid(alice, all)
  await shows(t, bob, '#typing', [''])

  // what is written without a network waits, and comes once; what was missed comes as well
  proxy.cut()
  await isIn(alice, 'connecting')
  await shows(t, bob, '#members li', ['bob'])
  await say(alice, 'in a tunnel')
  await shows(t, alice, '#waiting li', ['alice: in a tunnel'])
  for (const text of ['one', 'two']) {
    await say(bob, text)
    all.push(`bob: ${text}`)
    await haveSaid(bob, all)
  }
  t.strictSame(await said(alice), ['alice: Hello'])
  proxy.restore()
  all.push('alice: in a tunnel')
  await haveSaid(alice, all)
  await haveSaid(bob, all)
  await shows(t, alice, '#waiting li', [])
  await shows(t, alice, '#members li', ['alice', 'bob'])
  await shows(t, bob, '#members li', ['bob', 'alice'])

  // another room has a history and people of its own
  await bob.click('text=trains')
  await shows(t, alice, '#members li', ['alice'])
  await shows(t, bob, '#members li', ['bob'])
  await haveSaid(bob, [])
  await say(bob, 'nobody here')
  await haveSaid(bob, ['bob: nobody here'])
  await bob.click('text=lobby')
  await haveSaid(bob, all)
  await shows(t, alice, '#members li', ['alice', 'bob'])
  await bob.close()
  await shows(t, alice, '#members li', ['alice'])
})

/** Publishes more updates than a ring holds. */
async function flood(server: Server, id: string): Promise<void> {
  const nothing = new Uint8Array([0, 0]) // an update of Yjs that has nothing
  for (let batch = 0; batch < 25; batch++) {
    await Promise.all(
      Array.from({ length: 50 }, () =>
        post(server, `/live/events/documents/${id}?type=update`, nothing, {
          ...asAnybody,
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
    open(t, browsers![0], 'alice', `${one.url}/document/?id=plan`),
    open(t, browsers![1], 'bob', `${two.url}/document/?id=plan`)
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
  const late = await open(t, browsers![1], 'bob', `${server.url}/document/?id=plan`)
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
  const asPage = { headers: { ...asAnybody, accept: 'application/json' } }
  const page = await ask(server, '/live/events/documents/plan?after=1000000000000-1', asPage)
  t.match(page.json()['gap'], { reason: 'expired' })
  one.restore()
  const whole = 'So much tea 🍰 and cake!'
  const isWhole = (text: string) => text === whole
  await haveBoth(whole)
  // the ring still brings somebody up to date when nobody else is there
  await Promise.all([alice, bob, late].map(each => each.close()))
  const last = await open(t, browsers![0], 'alice', `${server.url}/document/?id=plan`)
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
  const another = await open(t, browsers![1], 'bob', `${server.url}/document/?id=plan`)
  await eventually(() => value(another), isWhole, 'the whole text')
})

t.test('a document with more updates than the ring holds', async t => {
  const server = await serve(t)
  const writer = await open(t, browsers![0], 'alice', `${server.url}/document/?id=long`)
  await writer.locator('#text').pressSequentially('tea')
  await shows(t, writer, '#saved', ['saved'])
  await flood(server, 'long')
  const asPage = { headers: { ...asAnybody, accept: 'application/json' } }
  await eventually(
    async () =>
      (await ask(server, '/live/events/documents/long?rewind=1000&limit=1000', asPage)).json()['events'],
    events => (events as { type: string }[]).some(({ type }) => type === 'whole'),
    'the whole text'
  )
  await writer.close()
  const late = await open(t, browsers![1], 'bob', `${server.url}/document/?id=long`)
  await eventually(
    () => late.locator('#text').inputValue(),
    text => text === 'tea',
    'the whole text'
  )
})

t.test('a document that is too large', async t => {
  const server = await serve(t)
  const page = await open(t, browsers![0], 'alice', `${server.url}/document/?id=large`)
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

t.test('cursors', async t => {
  const server = await serve(t)
  const alice = await open(t, browsers![0], 'alice', `${server.url}/cursors/`)
  const bob = await open(t, browsers![1], 'bob', `${server.url}/cursors/`)
  await shows(t, alice, '#members', ['alice, and 1 more'])
  await shows(t, bob, '#members', ['bob, and 1 more'])
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
  await shows(t, bob, '.cursor', ['alice'])
  await alice.close()
  await shows(t, bob, '.cursor', [])
})

t.test('cursors of users: the same one on two pages', async t => {
  const server = await serve(t)
  const [one, two] = await Promise.all(
    browsers!.map(browser => open(t, browser, 'alice', `${server.url}/cursors/`))
  )
  await shows(t, one!, '#members', ['alice, and 1 more'])
  await shows(t, two!, '#members', ['alice, and 1 more'])
  for (const [page, other] of [
    [one!, two!],
    [two!, one!]
  ] as const) {
    await page.mouse.move(300, 300)
    await other.waitForSelector('.cursor:not([hidden])', { state: 'attached' })
  }
})

t.end()
