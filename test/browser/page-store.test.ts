import type { Browser, Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { ask, type TestServer } from '../support/app.ts'
import { launchChromium } from '../support/browser.ts'
import { eventually } from '../support/inbox.ts'
import { instance, instances, redisFor, unready } from '../support/redis-system.ts'
import { bearer, SECRET, tokenFor, tokenOf } from '../support/tokens.ts'

// Chromium and a Redis take their time
t.setTimeout(300_000)
t.jobs = 3

let browser: Browser | undefined
t.before(async () => {
  browser = await launchChromium()
})
t.after(() => browser?.close())

/** The live page of a server, in a browser. */
async function open(t: Test, url: string): Promise<Page> {
  const context = await browser!.newContext({ viewport: { width: 1280, height: 800 } })
  t.teardown(() => context.close())
  const page = await context.newPage()
  await page.goto(url)
  await page.waitForSelector('#stream[data-state=live]')
  return page
}

/** Publishes a quote, again and again until it is stored; answers its id. */
async function quote(server: TestServer, price: number, headers = {}): Promise<string> {
  const key = { 'content-type': 'application/json', 'idempotency-key': `price-${price}`, ...headers }
  const { status, text } = await eventually(
    () =>
      ask(server, '/tickers', {
        ...{ method: 'POST', headers: key },
        body: JSON.stringify({ symbol: 'TEST', price })
      }),
    ({ status }) => status !== 503,
    `${price} to be stored`
  )
  if (status !== 201) throw new Error(`not published: ${status} ${text}`)
  return (JSON.parse(text) as { ids: string[] }).ids[0]!
}

const priceOn = (page: Page) => page.textContent('[data-symbol=TEST] td >> nth=0')
const idsOn = (page: Page) => page.evaluate<string[]>('ringside.seen.ids')

t.test(
  'two instances on one Redis: the page of one shows what the other stores',
  { buffered: true },
  async t => {
    const redis = await redisFor(t)
    const [here, there] = (await instances(t, redis.url, 2)) as [TestServer, TestServer]
    const page = await open(t, here.url)
    const ids = [await quote(there, 41), await quote(here, 42), await quote(there, 43)]
    await eventually(
      () => idsOn(page),
      all => all.length === 3,
      'all three'
    )
    t.strictSame(await idsOn(page), ids, 'in one order')
    await eventually(
      () => priceOn(page),
      text => /43/.test(text ?? ''),
      'the last price'
    )
  }
)

t.test(
  'Redis goes and comes back: the page is grey, and live again by itself',
  { buffered: true },
  async t => {
    const redis = await redisFor(t, { persistent: true })
    const server = await instance(t, redis.url)
    const page = await open(t, server.url)
    const ids = [await quote(server, 1)]
    await eventually(
      () => idsOn(page),
      all => all.length === 1,
      'the first'
    )

    await redis.kill()
    await unready(server)
    await page.waitForSelector('#stream[data-state=stale]')
    t.equal(await page.title(), 'Stale · Ringside')
    t.match(await page.innerText('#detail'), /cut off/i)
    t.match(await page.innerText('#age'), /\d+ s/, 'how old it is')
    t.equal(await page.evaluate(`getComputedStyle(document.querySelector('#panels')).filter`), 'grayscale(1)')
    t.match(await priceOn(page), /1/, 'what was known is still there')

    await redis.restart()
    await page.waitForSelector('#stream[data-state=live]')
    t.equal(await page.evaluate(`getComputedStyle(document.querySelector('#panels')).filter`), 'none')
    for (const price of [2, 3]) ids.push(await quote(server, price))
    await eventually(
      () => idsOn(page),
      all => all.length >= 3,
      'what came later'
    )
    t.strictSame(await idsOn(page), ids, 'nothing is lost or doubled')
    t.equal(await page.innerText('#gaps'), '0')
  }
)

t.test("an operator's token shows more than a reader's", { buffered: true }, async t => {
  const redis = await redisFor(t)
  const server = await instance(t, redis.url, { JWT_SECRET: SECRET })
  const publisher = bearer(await tokenFor({ publish: ['tickers/*'] }))
  await quote(server, 1, publisher)

  const reader = await open(t, `${server.url}/#token=${await tokenFor({ subscribe: ['**'] })}`)
  await reader.waitForSelector('#topics-lack', { state: 'visible' })
  t.equal(await reader.isVisible('#operator'), false)
  t.match(await reader.innerText('#rights'), /Operates the server\s+no/)

  const token = await tokenOf({ sub: 'ops', ringside: { subscribe: ['**'], admin: true } })
  const page = await open(t, `${server.url}/#token=${token}`)
  await page.waitForSelector('#topics tr >> text=tickers/TEST')
  // with the next answer to what it asks the hub again and again
  await page.waitForSelector('#operator', { state: 'visible' })
  t.equal(await page.isVisible('#topics-lack'), false)
  t.match(await page.innerText('#rights'), /Operates the server\s+yes/)

  // nobody has to give it twice
  await page.click('#operator')
  await page.waitForSelector('#instances tr')
})

t.end()
