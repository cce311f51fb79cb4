import { connect, createServer, type AddressInfo } from 'node:net'
import { EventSource as EventSource4 } from 'eventsource'
import EventSource2 from 'eventsource2'
import type { Browser } from 'playwright-core'
import t, { type Test } from 'tap'
import { Agent, EventSource as UndiciEventSource } from 'undici'
import { build, publish, publishAll, type TestServer } from '../support/app.ts'
import { launchChromium } from '../support/browser.ts'
import { bundle } from '../support/bundle.ts'
import { eventually } from '../support/inbox.ts'
import { randomFrom } from '../support/random.ts'

// a browser and a bundler take their time
t.setTimeout(400_000)
t.jobs = 3

/** How often the connection of each client is cut, and how many events come meanwhile. */
const CUTS = 12
const EVENTS = 300

/**
 * These take an id when they read its line, and the event at the empty line behind it. An event whose block is torn between
 * the two line ends is lost to them, whatever a server does: there they aren't cut.
 */
const TAKES_IDS_EARLY = new Set(['eventsource 2', '@microsoft/fetch-event-source', 'extended-eventsource'])

/** These wait for a second at least, whatever `retry:` says: they are cut less often. */
const COMES_BACK_SLOWLY = new Set(['event-source-polyfill'])

const LINE_END = 10

/**
 * A way to the server that ends a stream somewhere in its first blocks, most often in the middle of one: the client gets
 * all bytes up to there. After so many times it lets all through.
 */
async function tornWay(t: Test, { port }: TestServer, name: string, seed: number) {
  const random = randomFrom(seed)
  const most = COMES_BACK_SLOWLY.has(name) ? CUTS / 4 : CUTS
  let cuts = 0
  const server = createServer(client => {
    const upstream = connect({ host: '127.0.0.1', port })
    let left = Infinity
    upstream.on('data', (bytes: Buffer) => {
      const head = bytes.indexOf('\r\n\r\n')
      if (left === Infinity && cuts < most && head >= 0 && bytes.includes('text/event-stream'))
        left = head + 150 + Math.floor(random() * 700)
      const torn = bytes.length > left
      if (torn && TAKES_IDS_EARLY.has(name) && bytes[left - 1] === LINE_END && bytes[left] === LINE_END)
        left++
      client.write(bytes.subarray(0, Math.min(bytes.length, left)))
      left -= bytes.length
      if (!torn) return
      cuts++
      upstream.destroy()
      client.end()
    })
    client.on('data', bytes => upstream.write(bytes))
    for (const [one, other] of [
      [client, upstream],
      [upstream, client]
    ] as const) {
      one.on('error', () => {})
      one.on('close', () => other.end())
    }
    t.teardown(() => client.destroy())
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const { port: at } = server.address() as AddressInfo
  return { url: `http://127.0.0.1:${at}`, cuts: () => cuts, most }
}

/** What an EventSource of any make has got: the numbers that were published, and `gap`. */
type Got = (number | 'gap')[]

interface SourceLike {
  addEventListener(type: string, listener: (event: { readonly data: string }) => void): void
  close(): void
}

function keep(t: Test, source: SourceLike): Got {
  const got: Got = []
  source.addEventListener('message', ({ data }) => got.push(JSON.parse(data) as number))
  source.addEventListener('gap', () => got.push('gap'))
  t.teardown(() => source.close())
  return got
}

const IN_NODE: Readonly<Record<string, (t: Test, url: string) => Got>> = {
  'eventsource 2': (t, url) => keep(t, new EventSource2(url)),
  'eventsource 4': (t, url) => keep(t, new EventSource4(url)),
  undici: (t, url) => {
    const dispatcher = new Agent()
    t.teardown(() => dispatcher.destroy())
    return keep(t, new UndiciEventSource(url, { dispatcher }))
  }
}

/** As their documentation has it; each puts what it got into `got[name]`. */
const IN_A_PAGE = `
  import { EventSourcePolyfill } from 'event-source-polyfill'
  import ReconnectingEventSource from 'reconnecting-eventsource'
  import { fetchEventSource } from '@microsoft/fetch-event-source'
  import { EventSource as ExtendedEventSource } from 'extended-eventsource'
  import { EventSourcePlus } from 'event-source-plus'
  import { SSE } from 'sse.js'

  window.got = {}
  const take = (name, type, data) => {
    if (type === 'message') got[name].push(JSON.parse(data))
    else if (type === 'gap') got[name].push('gap')
  }
  const keep = (name, source) => {
    for (const type of ['message', 'gap']) source.addEventListener(type, event => take(name, type, event.data))
    return source
  }
  const CLIENTS = {
    'EventSource of the browser': (name, url) => keep(name, new EventSource(url)),
    'event-source-polyfill': (name, url) => keep(name, new EventSourcePolyfill(url)),
    'reconnecting-eventsource': (name, url) => keep(name, new ReconnectingEventSource(url)),
    '@microsoft/fetch-event-source': (name, url) => fetchEventSource(url, {
      openWhenHidden: true,
      onmessage: ({ event, data }) => take(name, event || 'message', data)
    }),
    'extended-eventsource': (name, url) => keep(name, new ExtendedEventSource(url)),
    'event-source-plus': (name, url) => new EventSourcePlus(url).listen({
      onMessage: ({ event, data }) => take(name, event || 'message', data)
    }),
    'sse.js': (name, url) => keep(name, new SSE(url, { autoReconnect: true })).stream()
  }
  window.names = Object.keys(CLIENTS)
  window.start = (name, url) => {
    got[name] = []
    CLIENTS[name](name, url)
  }`

let browser: Browser | undefined
t.before(async () => {
  browser = await launchChromium()
})
t.after(() => browser?.close())

/** Publishes numbers one after the other, so that the cuts come among them. */
async function count(server: TestServer): Promise<number[]> {
  const numbers = Array.from({ length: EVENTS }, (_, index) => index + 1)
  for (let at = 0; at < EVENTS; at += 10)
    await publishAll(
      server,
      numbers.slice(at, at + 10).map(data => ({ topic: 'a', data }))
    )
  return numbers
}

/**
 * A server, and the address that a client of it begins with: it keeps its `after` when it comes back. Not compressed: the
 * text is to be torn.
 */
async function setUp(t: Test) {
  const server = await build(t, { RETRY: '20ms', CORS_ORIGIN: '*' })
  const after = await publish(server, 'a', '0')
  return { server, path: `/events?topic=a&compress=false&after=${after}` }
}

for (const [name, open] of Object.entries(IN_NODE)) {
  t.test(`${name}: each event once and in order, wherever its connection is cut`, async t => {
    const { server, path } = await setUp(t)
    const way = await tornWay(t, server, name, 1)
    const got = open(t, way.url + path)
    const all = await count(server)
    await eventually(
      () => got,
      got => got.includes(EVENTS),
      'all'
    )
    t.strictSame(got, all)
    t.equal(way.cuts(), way.most)
  })
}

t.test('in a page: each event once and in order, wherever its connection is cut', async t => {
  const { server, path } = await setUp(t)
  const context = await browser!.newContext({ bypassCSP: true })
  t.teardown(() => context.close())
  const page = await context.newPage()
  page.on('pageerror', error => t.fail(error.message))
  await page.goto(`${server.url}/livez`)
  await page.addScriptTag({ content: await bundle(IN_A_PAGE) })

  const names = await page.evaluate<string[]>('names')
  // a way for each: a browser opens no more than six connections to a host
  const ways = await Promise.all(names.map((name, index) => tornWay(t, server, name, index)))
  for (const [index, name] of names.entries())
    await page.evaluate(`void start(${JSON.stringify(name)}, ${JSON.stringify(ways[index]!.url + path)})`)
  const all = await count(server)
  for (const [index, name] of names.entries()) {
    t.test(name, async t => {
      const got = () => page.evaluate<Got>(`got[${JSON.stringify(name)}]`)
      await eventually(got, got => got.includes(EVENTS), name)
      t.strictSame(await got(), all)
      t.equal(ways[index]!.cuts(), ways[index]!.most)
    })
  }
})

t.end()
