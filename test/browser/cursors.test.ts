import type { Browser, Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { createServer, readSettings } from '../../src/index.ts'
import { launchChromium, violationsOf } from '../support/browser.ts'
import { eventually } from '../support/inbox.ts'

// a browser takes its time
t.setTimeout(200_000)

let browser: Browser | undefined
t.before(async () => {
  browser = await launchChromium()
})
t.after(() => browser?.close())

/** The live page with its board in view. */
async function open(t: Test, url: string): Promise<Page> {
  const context = await browser!.newContext({ viewport: { width: 1280, height: 800 } })
  t.teardown(() => context.close())
  const page = await context.newPage()
  page.on('pageerror', error => t.fail(error.message))
  page.on('console', message => {
    if (/content security policy/i.test(message.text())) t.fail(message.text())
  })
  await page.goto(url)
  await page.locator('#board').scrollIntoViewIfNeeded()
  return page
}

const isSaid = (page: Page, text: string) => page.waitForSelector(`#board-state:text-is("${text}")`)

/** Where a page shows the cursors of others, from 0 to 1 of the board's width and height. */
async function others(page: Page): Promise<number[][]> {
  const found = await page.evaluate<number[][]>(`(() => {
    const { width, height, left, top } = document.querySelector('#board').getBoundingClientRect()
    return [...document.querySelectorAll('#board .cursor:not(.own, [hidden])')].map(cursor => {
      const at = cursor.getBoundingClientRect()
      return [(at.left - left) / width, (at.top - top) / height]
    })
  })()`)
  return found.map(position => position.map(part => Math.round(part * 20) / 20))
}

t.test('who points at the board is seen by who has, until the page is closed', async t => {
  const app = await createServer(readSettings({ LOG_LEVEL: 'silent', DEMO: 'true' }))
  t.teardown(() => app.close())
  const url = await app.listen({ host: '127.0.0.1', port: 0 })
  const [one, other] = [await open(t, url), await open(t, url)]
  t.equal(app.ringside.hub.connections.size, 2, 'nobody is connected for it before')

  const point = async (page: Page, x: number, y: number) => {
    const { width, height } = (await page.locator('#board').boundingBox())!
    await page.locator('#board').hover({ position: { x: x * width, y: y * height } })
  }
  await point(one, 0.1, 0.1)
  await isSaid(one, 'Nobody else is here: open another tab')
  await point(other, 0.5, 0.5)
  await isSaid(one, '1 more here')
  await point(one, 0.25, 0.5)
  const seen = (page: Page, position: number[]) =>
    eventually(
      () => others(page),
      found => String(found) === String([position]),
      `a cursor at ${String(position)}`
    )
  await seen(other, [0.25, 0.5])

  // by the keyboard
  await other.focus('#board')
  for (let count = 0; count < 5; count++) await other.keyboard.press('ArrowRight')
  await eventually(
    () => others(one),
    found => (found[0]?.[0] ?? 0) > 0.65,
    'it to move'
  )
  for (const colorScheme of ['light', 'dark'] as const) {
    await other.emulateMedia({ colorScheme })
    t.strictSame(await violationsOf(other), [], colorScheme)
  }

  await one.close()
  await isSaid(other, 'Nobody else is here: open another tab')
  t.strictSame(await others(other), [])
})

t.end()
