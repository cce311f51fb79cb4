import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Browser } from 'playwright-core'
import t, { type Test } from 'tap'
import type { State } from '../../src/client/client.ts'
import { build, publishAll, type TestServer } from '../support/app.ts'
import { launchChromium } from '../support/browser.ts'
import { eventually } from '../support/inbox.ts'
import { randomFrom } from '../support/random.ts'
import { Stream as Publisher } from '../support/redis-system.ts'
import { newTab, type Tab } from './tab.ts'
import { passing, trouble, wayTo, type Mode, type Trouble, type Way } from './way.ts'

// a browser takes its time
t.setTimeout(400_000)

let browser: Browser | undefined
t.before(async () => {
  browser = await launchChromium()
})
t.after(() => browser?.close())

/** A server, a way to it, and a tab that has come this way. */
async function setUp(t: Test, env: Record<string, string> = {}) {
  const server = await build(t, { RETRY: '50ms', ...env })
  return { server, ...(await comeTo(t, server)) }
}

async function comeTo(t: Test, server: TestServer) {
  const way = await wayTo(t, server)
  const context = await browser!.newContext({ bypassCSP: true }) // what is asked of it is evaluated
  t.teardown(() => context.close())
  return { way, context, tab: await newTab(context, way) }
}

/** Publishes the numbers from `first` to `last` on `a`, as one batch. */
function count(server: TestServer, first: number, last: number, type = 'number'): Promise<string[]> {
  return publishAll(
    server,
    upTo(last, first).map(data => ({ topic: 'a', type, data }))
  )
}

function upTo(last: number, first = 1): number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index)
}

const sources = (tab: Tab) => tab.evaluate<number>('sources')
const streams = ({ passed }: Way) => passed.filter(each => each.streams)

t.test('over a fetch: every type comes, and a connection that breaks goes on', async t => {
  const { server, way, tab } = await setUp(t)
  await tab.subscribe(['a'], {})
  await tab.isIn('live')
  await count(server, 1, 3, 'one')
  await count(server, 4, 5, 'other')
  await tab.dataUntil(5)
  way.cut()
  await count(server, 6, 8, 'third')
  t.strictSame(await tab.dataUntil(8), upTo(8))
  t.equal(await sources(tab), 0)
  t.strictSame(tab.errors, [])
})

t.test('over an EventSource, where the types are known', async t => {
  const { server, way, tab } = await setUp(t)
  await tab.evaluate('window.speed = 10') // an EventSource tells nobody how soon to come back
  await tab.subscribe(['a'], { types: ['number', 'message'] })
  await tab.isIn('live')
  let last = 0
  for (const round of upTo(3)) {
    await count(server, last + 1, last + 3)
    await count(server, 0, 0, 'unknown')
    last += 3
    await tab.dataUntil(last)
    way.cut()
    await count(server, last + 1, last + 2)
    last += 2
    t.strictSame(await tab.dataUntil(last), upTo(last))
    t.equal(await sources(tab), round + 1)
  }
  t.equal(streams(way).length, 4, 'none of them comes back by itself')
})

/** How a page is served: what it asks for, and what its way is when nothing is wrong with it. */
const SERVED: readonly {
  readonly name: string
  readonly types?: readonly string[]
  readonly mode: Mode
  readonly kinds: readonly Trouble[]
}[] = [
  {
    ...{ name: 'an EventSource', types: ['message'], mode: 'open' },
    kinds: ['cut', 'torn down', 'held back', 'refused']
  },
  { name: 'a fetch', mode: 'open', kinds: ['cut', 'torn down', 'held back', 'refused'] },
  { name: 'polls', mode: 'held back', kinds: ['cut', 'torn down', 'refused'] }
]

t.test(
  'a way that delays, cuts, buffers and answers 502, in turns: each event once and in order',
  async t => {
    const server = await build(t, { RETRY: '50ms', RING_SIZE: '100000' })
    const pages = await Promise.all(
      SERVED.map(async ({ types, mode, ...served }) => {
        const { way, tab } = await comeTo(t, server)
        way.mode = mode
        // so it waits for an attempt, a stream, or another look at streams for fractions of a second
        await tab.evaluate('window.speed = 100')
        await tab.subscribe(['a', 'b/*'], {
          ...(types && { types }),
          ...{ heartbeat: 60, patience: 20_000, streamAgain: 40_000 }
        })
        const state: State = mode === 'open' ? 'live' : 'polling'
        await tab.isIn(state)
        return { ...served, way, tab, state }
      })
    )
    const publisher = new Publisher([server], ['a', 'b/1', 'b/2'])
    await Promise.all(
      pages.map(({ kinds, way, tab, state }, index) => {
        const streams = `subscription.state === 'live' || subscription.state === 'catching-up'`
        const back = () => (state === 'live' ? tab.until(streams) : tab.isIn(state))
        return trouble(way, { kinds, random: randomFrom(index), back, heldBack: () => tab.isIn('polling') })
      })
    )
    await publisher.stop()
    const stored = publisher.stored.map(({ data }) => Number(data))
    for (const { name, tab } of pages) {
      t.strictSame(await tab.dataUntil(stored.at(-1)), stored, `${stored.length} over ${name}`)
      t.strictSame(await tab.evaluate('gaps'), [])
      t.strictSame(tab.errors, [])
    }
    const [source, fetched, polled] = pages
    t.ok((await sources(source!.tab)) > 5, 'an EventSource for each time that one broke')
    t.equal(await sources(fetched!.tab), 0)
    t.notOk(
      streams(polled!.way).some(({ mode }) => mode === 'open'),
      'no stream has ever come through'
    )
  }
)

t.test('what ends an EventSource for good is looked into by a fetch', async t => {
  const { server, way, tab } = await setUp(t)
  await tab.evaluate('window.speed = 10')
  await tab.subscribe(['a'], { types: ['number'] })
  await tab.isIn('live')
  way.mode = 'refused'
  way.cut()
  await tab.until(`states.some(({ why }) => why?.reason === 'the server answered 502')`)
  const used = await sources(tab)
  way.mode = 'open'
  await count(server, 1, 3)
  t.strictSame(await tab.dataUntil(3), [1, 2, 3])
  t.equal(await sources(tab), used, 'the fetch that looked is the stream')
  way.cut()
  await count(server, 4, 4)
  await tab.dataUntil(4)
  t.equal(await sources(tab), used + 1)
})

t.test('a refusal of an EventSource is final, and says why', async t => {
  const { tab } = await setUp(t)
  await tab.subscribe(['a//b'], { types: ['number'] })
  await tab.isIn('closed')
  t.match((await tab.states()).at(-1), { state: 'closed', why: { reason: /a\/\/b/ } })
})

for (const [name, options] of [
  ['an EventSource', { types: ['number'] }],
  ['a fetch', {}]
] as const) {
  t.test(`${name} that dies without a word, with the time that is usual`, async t => {
    const { server, way, tab } = await setUp(t)
    await tab.hold()
    await tab.subscribe(['a'], options)
    await tab.isIn('live')
    way.silence()
    await count(server, 1, 3)
    await tab.forward(37_000)
    t.equal(await tab.evaluate('subscription.state'), 'live')
    await tab.forward(1000)
    await tab.until(`states[1]?.why?.reason === 'nothing came through'`)
    await tab.forward(2000)
    t.strictSame(await tab.dataUntil(3), [1, 2, 3])
  })

  t.test(`${name} that is held back is polled, with the times that are usual`, async t => {
    const { server, way, tab } = await setUp(t)
    await tab.hold()
    way.mode = 'held back'
    await tab.subscribe(['a'], options)
    await passing(way, each => each.streams)
    await tab.forward(4900)
    t.notOk(way.passed.some(({ query }) => query.has('limit')))
    await tab.forward(200)
    await tab.isIn('polling')
    await tab.forward(100)
    await passing(way, ({ query }) => query.has('wait'))
    let last = 0
    /** Lets time pass in the tab. The server's own goes on as ever: so what it is asked to hold must be ended. */
    const pass = async (ms: number) => {
      for (let left = ms; left > 0; left -= 20_000) {
        last++
        await count(server, last, last)
        await tab.dataUntil(last)
        const polls = () => way.passed.filter(({ query }) => query.has('wait')).length
        const before = polls()
        await tab.forward(100)
        await eventually(polls, now => now > before, 'the next poll')
        await tab.forward(Math.min(left, 20_000) - 100)
      }
    }
    // another look after a minute, and the next one after two more
    await pass(58_900)
    t.equal(streams(way).length, 1)
    await pass(1000)
    await passing(way, each => each.streams, 2)
    await pass(5000)
    await eventually(
      () => way.streams,
      open => open === 0,
      'the end of the look'
    )
    way.mode = 'open'
    await pass(119_000)
    t.equal(streams(way).length, 2)
    await pass(1000)
    await tab.isIn('catching-up')
    await count(server, last + 1, last + 3)
    t.strictSame(await tab.dataUntil(last + 3), upTo(last + 3))
  })
}

t.test('without a network it waits for one, and is back at once', async t => {
  const { server, way, context, tab } = await setUp(t)
  await tab.hold()
  await tab.subscribe(['a'], {})
  await tab.isIn('live')
  await context.setOffline(true)
  await tab.isIn('offline')
  const before = way.passed.length
  await count(server, 1, 3)
  await tab.forward(20_000)
  t.equal(way.passed.length, before)
  await context.setOffline(false)
  await tab.forward(1)
  t.strictSame(await tab.dataUntil(3), [1, 2, 3])
  const states = (await tab.states()).map(({ state }) => state)
  const changes = states.filter((state, index) => state !== states[index - 1])
  // an attempt that began without a network may still fail when there is one
  t.match(changes.join(' '), /^live offline connecting (offline connecting )*catching-up$/)
})

t.test('nobody looks: it takes its time; somebody does: it is back at once', async t => {
  const { server, way, tab } = await setUp(t)
  const show = (state: 'hidden' | 'visible') =>
    tab.evaluate(`Object.defineProperty(document, 'visibilityState', { value: '${state}', configurable: true })
      document.dispatchEvent(new Event('visibilitychange'))`)
  await tab.hold()
  await tab.subscribe(['a'], {})
  await tab.isIn('live')
  await show('hidden')
  await count(server, 1, 1)
  await tab.dataUntil(1)
  way.cut()
  await tab.isIn('connecting')
  const before = way.passed.length
  await count(server, 2, 3)
  await tab.forward(9000)
  t.equal(way.passed.length, before)
  await show('visible')
  await tab.forward(1)
  t.strictSame(await tab.dataUntil(3), [1, 2, 3])
  // what the server asks for is waited for all the same
  await show('hidden')
  await server.app.ringside.hub.connections.drain(0)
  await tab.isIn('connecting')
  await show('visible')
  await tab.forward(40)
  t.equal(await tab.evaluate('subscription.state'), 'connecting')
  await tab.forward(100)
  await tab.isIn('catching-up')
})

t.test('a callback that throws is seen, and nothing is lost', async t => {
  const { server, tab } = await setUp(t)
  await tab.subscribe(['a'], {}, `if (event.data === 2) throw new Error('two')`)
  await tab.isIn('live')
  await count(server, 1, 4)
  t.strictSame(await tab.dataUntil(4), [1, 2, 3, 4])
  t.strictSame(tab.errors, ['two'])
})

t.test('what connections need is loaded with the first one, and what is asked meanwhile waits', async t => {
  const { tab, context } = await setUp(t)
  const loads: string[] = []
  await context.route('**/client-socket.js*', async route => {
    loads.push(new URL(route.request().url()).search)
    // as where the network is gone for a moment
    await (loads.length === 1 ? route.abort() : route.continue())
  })
  await tab.subscribe(['a'], {})
  await tab.isIn('live')
  t.strictSame(loads, [], 'who only listens')
  const state = await tab.evaluate(`import('/client.js').then(({ connect }) => {
    window.whys = []
    window.hub = connect({ onState: (state, why) => whys.push([state, why?.reason]) })
    const data = { number: 1 }
    window.asked = [hub.publish('a', data)]
    data.number = 2
    asked.push(hub.publish('a', data), hub.publish('a', 3), hub.publish('a', new Uint8Array(1)))
    return hub.state
  })`)
  t.equal(state, 'connecting')
  const answers = await tab.evaluate<string[]>(
    `Promise.allSettled(asked).then(all => all.map(({ value, reason }) => value ?? String(reason)))`
  )
  t.match(answers, [/^\d/, /^\d/, /^\d/, 'TypeError: data: bytes are no JSON; POST them'])
  t.strictSame(await tab.dataUntil(3), [{ number: 1 }, { number: 2 }, 3])
  t.strictSame(loads, ['', '?1'])
  const [first, ...others] = await tab.evaluate<string[][]>('whys')
  t.match(first, ['connecting', /client-socket\.js/])
  t.strictSame(others.at(-1), ['live', undefined])
  t.equal(await tab.evaluate('hub.state'), 'live')
  const refused = await tab.evaluate(`import('/client.js').then(async ({ connect, RingsideError }) => {
    hub.close()
    const late = await hub.ping().catch(error => error)
    const early = connect()
    const ping = early.ping()
    early.close()
    const error = await ping.catch(error => error)
    return [late, error].map(each => [each instanceof RingsideError, each.code, each.message])
  })`)
  t.strictSame(refused, [
    [true, 'closed', 'the connection is closed'],
    [true, 'closed', 'the connection was closed']
  ])
  t.match(
    await tab.evaluate(`import('/client.js').then(({ connect }) => connect({ url: 'http://[' }))
    .catch(String)`),
    /^TypeError: url: http:\/\/\[ is no address/
  )
  t.strictSame(tab.errors, [])
})

t.test('from a page of another origin, with a token', async t => {
  const page = createServer((_request, response) =>
    response.writeHead(200, { 'content-type': 'text/html' }).end('<p>')
  )
  await new Promise<void>(resolve => page.listen(0, '127.0.0.1', resolve))
  t.teardown(() => page.close().closeAllConnections())
  const origin = `http://127.0.0.1:${(page.address() as AddressInfo).port}`
  const { server, way, tab } = await setUp(t, { CORS_ORIGIN: origin })
  await tab.page.goto(origin)
  await tab.evaluate(`import('${way.url}/client.js').then(({ subscribe, version }) => {
    Object.assign(window, { got: [], gaps: [], states: [], version })
    window.subscription = subscribe('a', { url: '${way.url}', token: 'a.b.c', onEvent: event => got.push(event) })
  })`)
  await tab.isIn('live')
  await count(server, 1, 2)
  t.strictSame(await tab.dataUntil(2), [1, 2])
  t.match(streams(way).at(-1)!.headers, { authorization: 'Bearer a.b.c', origin })
  t.match(await tab.evaluate('version'), /^\d+\.\d+\.\d+/)
  t.strictSame(tab.errors, [])
})

t.end()
