import type { Browser, Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { told } from '../support/admin.ts'
import { ask, build } from '../support/app.ts'
import { launchChromium, violationsOf } from '../support/browser.ts'
import { eventually } from '../support/inbox.ts'
import { bearer, SECRET, tokenFor } from '../support/tokens.ts'

// a browser takes its time
t.setTimeout(300_000)
// each has a server and a context of its own: while one waits, others go on
t.jobs = 4

let browser: Browser | undefined
t.before(async () => {
  browser = await launchChromium()
})
t.after(() => browser?.close())

const READ = '#operations-events-readTopic'
const LOG = `${READ} .ringside-log`

/** A server, and its page of the API in a browser. */
async function setUp(t: Test, colorScheme: 'light' | 'dark' = 'light') {
  const server = await build(t, { JWT_SECRET: SECRET })
  const context = await browser!.newContext({ colorScheme, viewport: { width: 1280, height: 900 } })
  t.teardown(() => context.close())
  const page = await context.newPage()
  const errors: string[] = []
  page.on('pageerror', error => errors.push(String(error)))
  page.on('console', message => {
    if (message.type() === 'error') errors.push(message.text())
  })
  await page.goto(`${server.url}/docs/`)

  const token = await tokenFor({ subscribe: ['orders/**'], publish: ['orders/**'] })
  const publish = async (topic: string, data: object) => {
    const { status, text } = await ask(server, `/events/${topic}?type=made`, {
      method: 'POST',
      headers: { ...bearer(token), 'content-type': 'application/json' },
      body: JSON.stringify(data)
    })
    if (status > 299) throw new Error(text)
    return (JSON.parse(text) as { id: string }).id
  }
  const connections = async () => (await told(server, '/connections')).body.connections
  return { server, page, errors, token, publish, connections }
}

/** Types a token into Swagger UI's own form. */
async function authorise(page: Page, token: string) {
  await page.click('.auth-wrapper .btn.authorize')
  await page.fill('.auth-container input >> nth=0', token)
  await page.click('.auth-container .btn.authorize >> nth=0')
  await page.click('.btn-done >> nth=0')
}

const field = (name: string) => `${READ} tr[data-param-name="${name}"] input`

async function openOperation(page: Page, topic: string) {
  await page.click(`${READ} .opblock-summary`)
  await page.click(`${READ} .try-out__btn`)
  await page.fill(field('topic') + ' >> nth=0', topic)
}

const rowsOf = (page: Page) => page.locator(`${LOG} tbody tr`)

/** Waits for a row with all these texts. */
const rowWith = (page: Page, ...texts: string[]) =>
  texts
    .reduce((rows, hasText) => rows.filter({ hasText }), rowsOf(page))
    .first()
    .waitFor()

t.test('a stream shows its events as they come, and is stopped', { buffered: true }, async t => {
  const { page, errors, token, publish, connections } = await setUp(t)
  await authorise(page, token)
  await openOperation(page, 'orders/eu')
  await page.click(`${READ} .execute`)
  await rowWith(page, 'cursor')
  await page.waitForSelector(`${READ} .live-responses-table .response-col_status >> text=200`)
  t.equal((await connections()).length, 1)

  const id = await publish('orders/eu', { total: 7 })
  await rowWith(page, 'made', id, '{"total":7}')
  t.equal(await rowsOf(page).count(), 2)
  t.match(await page.textContent(`${LOG} [role=status]`), /Live/)
  t.strictSame(await violationsOf(page, undefined, LOG), [])

  await page.focus(`${LOG} .ringside-stop`)
  await page.keyboard.press('Enter')
  await page.waitForSelector(`${LOG} [role=status] >> text=Stopped`)
  await eventually(connections, ({ length }) => length === 0, 'its connection to be gone')
  t.equal(await rowsOf(page).count(), 2, 'what came stays')
  t.equal(await page.getAttribute(`${LOG} .ringside-stop:focus`, 'aria-disabled'), 'true')
  t.strictSame(errors, [])
})

t.test(
  'the parameters are used, by both kinds of streams; only the newest events are kept',
  { buffered: true },
  async t => {
    const { page, errors, token, publish, connections } = await setUp(t, 'dark')
    const ids = []
    for (let number = 0; number < 60; number++) ids.push(await publish('orders/eu', { number }))
    await authorise(page, token)
    await openOperation(page, 'orders/eu')
    await page.fill(field('Last-Event-ID'), ids[57]!)
    await page.click(`${READ} .execute`)
    await rowWith(page, ids[59]!)
    t.strictSame(await violationsOf(page, undefined, LOG), [])
    t.equal(await rowsOf(page).count(), 3, 'a cursor, and what came after it')

    await page.fill(field('Last-Event-ID'), '')
    await page.fill(field('rewind'), '60')
    await page.selectOption(`${READ} .response-control-media-type select`, 'application/x-ndjson')
    await page.click(`${READ} .execute`)
    await rowWith(page, 'made', ids[59]!, '{"number":59}')
    await page.waitForSelector(`${LOG} .ringside-count >> text=60 came; the newest 50 are shown`)
    t.equal(await rowsOf(page).count(), 50)
    await eventually(connections, ({ length }) => length === 1, 'the first to be gone')

    await page.click(`${READ} .btn-clear`)
    await eventually(connections, ({ length }) => length === 0, 'none, with nobody to see it')
    t.strictSame(errors, [])
  }
)

t.test('the end that a server makes is said, and a refusal is in words', { buffered: true }, async t => {
  const { server, page, token, publish } = await setUp(t)
  await openOperation(page, 'orders/eu')
  await page.click(`${READ} .execute`)
  const refusal = `${READ} .ringside-refusal`
  await page.waitForSelector(`${refusal} >> text=Unauthorized (401): a token is needed`)

  await authorise(page, token)
  await page.fill(field('topic') + ' >> nth=0', 'bills/eu')
  await page.click(`${READ} .execute`)
  await page.waitForSelector(`${refusal} >> text=/Forbidden \\(403\\): .*bills.eu/`)
  t.strictSame(await violationsOf(page, undefined, refusal), [])

  await page.fill(field('topic') + ' >> nth=0', 'orders/eu')
  await page.click(`${READ} .execute`)
  await rowWith(page, 'cursor')
  t.equal(await page.locator(refusal).count(), 0)
  await publish('orders/eu', {})
  await rowWith(page, 'made')
  await server.app.close()
  await page.waitForSelector(`${LOG} [role=status] >> text=Ended by the server`)
  await rowWith(page, 'goodbye', 'shutdown')
})

t.test('the WebSocket is tried', { buffered: true }, async t => {
  const { page, errors, token, publish, connections } = await setUp(t)
  const log = '.ringside-socket .ringside-log'
  await page.click('.ringside-socket summary')
  await page.click('.ringside-socket button >> text=Connect')
  await page.waitForSelector(`${log} [role=status] >> text=refused`)
  errors.splice(0) // the browser has said so, too

  await authorise(page, token)
  await page.click('.ringside-socket button >> text=Connect')
  await page.waitForSelector(`${log} td >> text=connected`)
  await page.fill('.ringside-socket input', '{"op":"subscribe","ref":1,"topics":["orders/eu"]}')
  await page.keyboard.press('Enter')
  await page.waitForSelector(`${log} td >> text=/"op":"ok"/`)
  await publish('orders/eu', { total: 7 })
  await page.waitForSelector(`${log} td >> text=/"total":7/`)
  t.strictSame(await violationsOf(page, undefined, '.ringside-socket'), [])
  t.equal((await connections()).length, 1)
  await page.click(`${log} button >> text=Close`)
  await eventually(connections, ({ length }) => length === 0, 'its connection to be gone')
  t.strictSame(errors, [])
})

t.end()
