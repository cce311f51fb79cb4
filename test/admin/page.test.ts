import type { Page } from 'playwright-core'
import t from 'tap'
import { build } from '../support/app.ts'
import { launchChromium, violationsOf } from '../support/browser.ts'
import { eventually } from '../support/inbox.ts'
import { listen } from '../support/reader.ts'
import { bearer, SECRET, tokenFor, tokenOf } from '../support/tokens.ts'

// a browser takes its time
t.setTimeout(200_000)

const textOf = (page: Page, selector: string) => page.locator(selector).allTextContents()

t.test('the operator sees what there is, live, and ends a connection', async t => {
  const server = await build(t, { JWT_SECRET: SECRET, RETRY: '100ms' })
  const browser = await launchChromium()
  t.teardown(() => browser.close())
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } })
  const errors: string[] = []
  page.on('pageerror', error => errors.push(String(error)))
  page.on('console', message => {
    if (/content security policy/i.test(message.text())) errors.push(message.text())
  })
  await page.goto(`${server.url}/admin`)

  const lacks = () => textOf(page, '.lack')
  await eventually(lacks, texts => texts.every(text => /"admin": true/.test(text)), 'what each panel lacks')
  t.equal((await lacks()).length, 7, 'each panel')

  const user = bearer(await tokenFor({ subscribe: ['**'], publish: ['**'] }, 'carol'))
  const reader = await listen(t, server, '/events/shown', { accept: 'text/event-stream', ...user })
  const submit = async (token: string) => {
    await page.fill('#token', token)
    await page.press('#token', 'Enter')
  }
  await submit(await tokenFor({ subscribe: ['**'] }))
  await eventually(
    lacks,
    texts => texts.every(text => /operates the server/.test(text)),
    'that it is not enough'
  )
  await submit(await tokenOf({ sub: 'ops', ringside: { admin: true } }))
  await eventually(lacks, texts => texts.every(text => text === ''), 'that nothing is lacking')
  t.equal(
    await page.evaluate('document.cookie + localStorage.length + location.hash'),
    '0',
    'kept nowhere else'
  )

  const rows = (id: string) => textOf(page, `#${id} tr`)
  await eventually(
    () => textOf(page, '#state'),
    ([text]) => text === 'Live',
    'that it is live'
  )
  t.match((await rows('instances'))[0], new RegExp(`\\(${process.pid}\\).*ready`))
  await eventually(
    () => rows('connections'),
    all => all.some(row => /carol.*shown/.test(row)),
    'the connection'
  )
  await eventually(
    () => rows('topics'),
    all => all.some(row => /^shown/.test(row)),
    'the topic'
  )
  t.match((await textOf(page, '#settings'))[0], /JWT_SECRET\*\*\*/)
  await listen(t, server, '/events/later?after=nonsense', { accept: 'text/event-stream', ...user }).catch(
    () => {}
  )
  await eventually(
    () => rows('gaps'),
    all => all.some(row => /unknown.*later/.test(row)),
    'a gap, live'
  )

  const row = page.locator('#connections tr', { hasText: 'shown' })
  await row.getByRole('button', { name: /^Disconnect carol/ }).press('Enter')
  await reader.whole()
  await eventually(
    () => textOf(page, '#notice'),
    ([text]) => /^Disconnected/.test(text ?? ''),
    'that it was done'
  )
  await eventually(
    () => rows('connections'),
    all => !all.some(each => /shown/.test(each)),
    'that it is gone'
  )

  for (const width of [320, 390, 1280]) {
    await page.setViewportSize({ width, height: 640 })
    t.equal(
      await page.evaluate('document.documentElement.scrollWidth <= innerWidth'),
      true,
      'nothing sticks out'
    )
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme })
      t.strictSame(await violationsOf(page), [], `${width} px, ${colorScheme}`)
    }
  }
  t.strictSame(errors, [])
})
