import type { Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { build, publish, type TestServer } from '../support/app.ts'
import { launchChromium } from '../support/browser.ts'
import { eventually } from '../support/inbox.ts'
import { listen } from '../support/reader.ts'

/** What a page's EventSource was given, as `window.seen`. */
interface Seen {
  readonly type: string
  readonly data: string
  readonly id: string
}

/** The page's address, as a proxy says it: in development mode loopback has no limits. */
const PAGE = { 'x-forwarded-for': '203.0.113.1' }
const SSE = { accept: 'text/event-stream' }

// a browser takes its time
t.setTimeout(400_000)

/** A page of the server's origin, in which nothing is but what a test puts there. */
async function blankPage(t: Test, server: TestServer): Promise<Page> {
  const browser = await launchChromium()
  t.teardown(() => browser.close())
  const context = await browser.newContext({ extraHTTPHeaders: PAGE })
  const page = await context.newPage()
  await page.goto(`${server.url}/livez`)
  return page
}

/** Opens one EventSource, and never another one: what comes later, it has brought itself. */
async function openEventSource(page: Page, path: string): Promise<void> {
  await page.evaluate(`
    globalThis.seen = []
    globalThis.source = new EventSource('${path}')
    for (const type of ['message', 'cursor', 'goodbye', 'gap']) {
      source.addEventListener(type, ({ data, lastEventId: id }) => seen.push({ type, data, id }))
    }
  `)
}

const seenBy = (page: Page) => page.evaluate<Seen[]>('seen')

function until(page: Page, good: (seen: Seen[]) => boolean, what: string): Promise<Seen[]> {
  return eventually(() => seenBy(page), good, what)
}

const messages = (seen: readonly Seen[]) => seen.filter(({ type }) => type === 'message')
const goodbyes = (seen: readonly Seen[]) =>
  seen.filter(
    ({ type, data }) => type === 'goodbye' && (JSON.parse(data) as { reason: string }).reason === 'full'
  )

for (const [name, env, headers] of [
  ['a full server', { MAX_CONNECTIONS: '1' }, SSE],
  ['a server on which its client has too many', { MAX_CONNECTIONS_PER_CLIENT: '1' }, { ...SSE, ...PAGE }]
] as const) {
  t.test(
    `Chromium's EventSource is turned away by ${name}, comes back by itself, and misses nothing`,
    async t => {
      const server = await build(t, { TRUST_PROXY: 'true', RETRY: '20ms', CONNECT_RATE: '0', ...env })
      const page = await blankPage(t, server)
      await openEventSource(page, '/events/a')
      await until(page, seen => seen.some(({ type }) => type === 'cursor'), 'its stream')
      const ids: string[] = []
      for (const data of ['1', '2']) ids.push(await publish(server, 'a', data))
      await until(page, seen => messages(seen).length === 2, 'what is live')

      // its place goes to another one, who comes sooner
      for (const session of server.app.ringside.hub.sessions) session.goodbye('shutdown', 3000)
      const other = await listen(t, server, '/events/b', headers)
      await until(page, seen => goodbyes(seen).length >= 3, 'that it is turned away, again and again')
      for (const data of ['3', '4', '5']) ids.push(await publish(server, 'a', data))
      const before = goodbyes(await seenBy(page)).length
      await until(page, seen => goodbyes(seen).length > before, 'that it still is')
      other.close()

      const seen = await until(page, all => messages(all).length >= 5, 'what it has missed')
      t.strictSame(
        messages(seen).map(({ data, id }) => [data, id]),
        ids.map((id, index) => [String(index + 1), id]),
        'each event once, and in order'
      )
      t.notOk(
        seen.some(({ type }) => type === 'gap'),
        'no gap'
      )
      const away = seen.slice(seen.indexOf(goodbyes(seen)[0]!), seen.indexOf(goodbyes(seen).at(-1)!))
      t.strictSame([...new Set(away.map(({ id }) => id))], [ids[1]], 'it has kept its cursor')
      t.equal(await page.evaluate('source.readyState'), 1, 'it is open')
    }
  )
}

t.test("a page's EventSources past the rate of new streams all get in by themselves", async t => {
  const server = await build(t, { TRUST_PROXY: 'true', RETRY: '20ms', CONNECT_RATE: '2' })
  const page = await blankPage(t, server)
  // one of the six connections that a browser opens is left for the page itself
  await page.evaluate(`
    globalThis.open = new Set()
    globalThis.goodbyes = 0
    globalThis.failed = 0
    globalThis.got = []
    for (let index = 0; index < 5; index++) {
      const source = new EventSource('/events/a?' + index)
      source.addEventListener('cursor', () => open.add(index))
      source.addEventListener('goodbye', () => { open.delete(index); goodbyes++ })
      source.addEventListener('message', ({ data }) => got.push(index + data))
      source.addEventListener('error', () => { if (source.readyState === EventSource.CLOSED) failed++ })
    }
  `)
  await eventually(
    () => server.app.ringside.hub.sessions.size,
    size => size === 5,
    'all of them'
  )
  await publish(server, 'a', 'x')
  const got = await eventually(
    () => page.evaluate<string[]>('got'),
    all => all.length >= 5,
    'the event on each'
  )
  t.strictSame(got.sort(), ['0x', '1x', '2x', '3x', '4x'])
  t.ok((await page.evaluate<number>('goodbyes')) > 0, 'some were turned away')
  t.equal(await page.evaluate('failed'), 0, 'none gave up')
})
