import type { Browser } from 'playwright-core'
import t, { type Test } from 'tap'
import { build, metricsOf, publishAll, type TestServer } from '../support/app.ts'
import { launchChromium } from '../support/browser.ts'
import { bundle } from '../support/bundle.ts'
import { eventually } from '../support/inbox.ts'
import { startProxy } from '../support/proxy.ts'

// browsers and bundlers take their time
t.setTimeout(400_000)
// and mostly wait
t.jobs = 3

/** What puts each framework's component into a page: `show(topics)`, as often as one likes, and `hide()`. */
const FRAMEWORKS = {
  React: `
    import { createElement, StrictMode } from 'react'
    import { createRoot } from 'react-dom/client'
    import { Orders } from './examples/react/Orders.jsx'
    const root = createRoot(document.body)
    window.show = topics => root.render(
      createElement(StrictMode, null, createElement(Orders, { topics, url: location.origin }))
    )
    window.hide = () => root.unmount()`,
  Vue: `
    import { createApp, h, shallowRef } from 'vue/dist/vue.esm-bundler.js'
    import Orders from './examples/vue/Orders.js'
    const topics = shallowRef()
    const app = createApp(() => h(Orders, { topics: topics.value, url: location.origin }))
    window.show = names => {
      const first = topics.value === undefined
      topics.value = names
      if (first) app.mount(document.body)
    }
    window.hide = () => app.unmount()`,
  Svelte: `
    import { mount, unmount } from 'svelte'
    import Page from './test/browser/Page.svelte'
    let page
    window.show = topics => {
      if (page) page.show(topics)
      else page = mount(Page, { target: document.body, props: { first: topics } })
    }
    window.hide = () => unmount(page)`
}

let browser: Browser | undefined
const bundles = new Map<string, string>()
t.before(async () => {
  browser = await launchChromium()
  // while one is made, this process serves nothing, which a page would take for a proxy that holds streams back
  for (const [name, entry] of Object.entries(FRAMEWORKS)) bundles.set(name, await bundle(entry))
})
t.after(() => browser?.close())

function order(server: TestServer, topic: string, ...items: string[]): Promise<string[]> {
  return publishAll(
    server,
    items.map(item => ({ topic, data: { item } }))
  )
}

/** Waits until no stream is open. */
async function isLeft(t: Test, server: TestServer): Promise<void> {
  const open = async () => (await metricsOf(server)).get('ringside_connections{transport="sse"}')
  t.equal(await eventually(open, count => count === 0, 'no stream'), 0)
}

for (const name of Object.keys(FRAMEWORKS)) {
  t.test(`${name}: what was, what comes, what was missed; other topics; and it leaves nothing`, async t => {
    const server = await build(t)
    const proxy = await startProxy(t, server)
    const context = await browser!.newContext({ bypassCSP: true })
    t.teardown(() => context.close())
    const page = await context.newPage()
    page.on('pageerror', error => t.fail(error.message))
    await order(server, 'orders', 'tea')
    await order(server, 'returns', 'socks')

    await page.goto(`${proxy.url}/livez`)
    await page.addScriptTag({ content: bundles.get(name)! })
    const isIn = (state: string) => page.waitForSelector(`#state:text-is("${state}")`)
    const show = (topics: string) => page.evaluate(`void show(${topics})`)
    const shows = async (...items: string[]) => {
      const have = () => page.locator('li').allTextContents()
      const isAll = (found: string[]) => String(found) === String(items)
      t.strictSame(await eventually(have, isAll, `${name}: ${items.join()}`), items)
    }

    await show(`['orders']`)
    await shows('tea')
    await isIn('live')
    await order(server, 'orders', 'milk', 'sugar')
    await shows('tea', 'milk', 'sugar')

    proxy.cut()
    await isIn('connecting')
    await order(server, 'orders', 'lemon')
    proxy.restore()
    await shows('tea', 'milk', 'sugar', 'lemon')
    t.equal(await page.locator('#gaps').textContent(), '0')

    await show(`['returns']`)
    await shows('socks')
    await order(server, 'orders', 'cake')
    await order(server, 'returns', 'shoes')
    await shows('socks', 'shoes')
    await page.evaluate('void hide()')
    await isLeft(t, server)
  })
}

t.end()
