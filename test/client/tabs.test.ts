import type { Browser } from 'playwright-core'
import t, { type Test } from 'tap'
import type { State } from '../../src/client/client.ts'
import { build, publishAll, type TestServer } from '../support/app.ts'
import { launchChromium } from '../support/browser.ts'
import { eventually } from '../support/inbox.ts'
import { randomFrom } from '../support/random.ts'
import { instances, redisFor, Stream as Publisher } from '../support/redis-system.ts'
import { newTab, type Tab } from './tab.ts'
import { isServing, trouble, wayTo, type Way } from './way.ts'

// a browser takes its time
t.setTimeout(400_000)

let browser: Browser | undefined
t.before(async () => {
  browser = await launchChromium()
})
t.after(() => browser?.close())

const ENV = { RETRY: '20ms', RING_SIZE: '100000' }

async function setUp(t: Test, servers: readonly TestServer[], opener = browser!) {
  const way = await wayTo(t, ...servers)
  const context = await opener.newContext({ bypassCSP: true }) // what is asked of it is evaluated
  t.teardown(() => context.close())
  const open = async (options: object = {}, topics = ['a']): Promise<Tab> => {
    const tab = await newTab(context, way)
    await tab.subscribe(topics, { shared: true, ...options })
    return tab
  }
  return { way, context, open }
}

function count(server: TestServer, first: number, last: number): Promise<string[]> {
  return publishAll(
    server,
    upTo(last, first).map(data => ({ topic: 'a', data }))
  )
}

function upTo(last: number, first = 1): number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index)
}

/** Resolves once as many streams are open. */
function isServedBy(way: Way, streams: number): Promise<number> {
  return eventually(
    () => way.streams,
    open => open === streams,
    `${streams} streams`
  )
}

t.test('one stream serves all tabs; when its tab goes, another one takes over', async t => {
  const server = await build(t, ENV)
  const { way, open } = await setUp(t, [server])
  const tabs = [await open(), await open(), await open()]
  for (const tab of tabs) await tab.isIn('live')
  let last = 0
  while (tabs.length > 0) {
    await count(server, last + 1, last + 3)
    last += 3
    for (const tab of tabs) t.strictSame(await tab.dataUntil(last), upTo(last))
    await isServedBy(way, 1)
    const [leader] = tabs.splice(0, 1)
    if (tabs.length === 1) await leader!.evaluate('subscription.close()')
    else await leader!.page.close()
    await count(server, last + 1, last + 2)
    last += 2
    for (const tab of tabs) t.strictSame(await tab.dataUntil(last), upTo(last))
  }
  await isServedBy(way, 0)
})

t.test('a connection that breaks: no tab misses or doubles anything, and all see the state', async t => {
  const server = await build(t, ENV)
  const { way, open } = await setUp(t, [server])
  const tabs = [await open(), await open()]
  for (const tab of tabs) await tab.isIn('live')
  for (const round of upTo(3)) {
    way.cut()
    await count(server, 5 * round - 4, 5 * round)
    for (const tab of tabs) t.strictSame(await tab.dataUntil(5 * round), upTo(5 * round))
  }
  way.mode = 'refused'
  way.cut()
  for (const tab of tabs)
    await tab.until(`states.some(({ why }) => why?.reason === 'the server answered 502')`)
  const [one, other] = await Promise.all(tabs.map(tab => tab.evaluate('states.map(({ state }) => state)')))
  t.strictSame(other, one)
})

t.test(
  'a way that delays, cuts, buffers and answers 502: the leader has all the trouble, every tab each event once',
  async t => {
    const server = await build(t, ENV)
    const { way, context } = await setUp(t, [server])
    const tabs: Tab[] = []
    while (tabs.length < 3) {
      const tab = await newTab(context, way)
      tabs.push(tab)
      const options = { heartbeat: 10, patience: 2000, streamAgain: 3000 }
      await tab.subscribe(['a', 'b/*'], { shared: true, ...options })
      await tab.isIn('live')
      await tab.evaluate('window.speed = 10') // so the leader is back before long
    }
    const publisher = new Publisher([server], ['a', 'b/1', 'b/2'])
    const all = (...states: State[]) =>
      Promise.all(tabs.map(tab => tab.until(`${JSON.stringify(states)}.includes(subscription.state)`)))
    const fetches = () => Promise.all(tabs.map(tab => tab.evaluate<number>('fetches')))
    await trouble(way, {
      kinds: ['cut', 'torn down', 'held back', 'refused'],
      random: randomFrom(3),
      back: () => all('live', 'catching-up'),
      heldBack: () => all('polling')
    })
    const [some, ...none] = await fetches()
    t.ok(some! > 8, `${some} by the leader`)
    t.strictSame(none, [0, 0], 'the others have never asked')
    // it goes while much is on its way to it
    way.delay = 30
    await isServing(way)
    const [leader] = tabs.splice(0, 1)
    const led = (await leader!.events()).map(({ data }) => data)
    await leader!.page.close()
    way.delay = 0
    await eventually(fetches, counts => counts.some(count => count > 0), 'another one to lead')
    await isServing(way)
    await publisher.stop()
    const stored = publisher.stored.map(({ data }) => Number(data))
    t.strictSame(led, stored.slice(0, led.length), `${led.length} of the leader, once and in order`)
    for (const tab of tabs) {
      t.strictSame(await tab.dataUntil(stored.at(-1)), stored, `${stored.length}, once and in order`)
      t.strictSame(await tab.evaluate('gaps'), [])
      t.strictSame(tab.errors, [])
    }
    t.equal((await fetches()).filter(count => count > 0).length, 1, 'one of them leads')
  }
)

t.test('a tab that comes later gets what it asks for, and joins', async t => {
  const server = await build(t, ENV)
  const { way, open } = await setUp(t, [server])
  const ids = await count(server, 1, 10)
  const first = await open({ after: ids[1] })
  await first.dataUntil(10)
  await first.isIn('live')
  const fresh = await open()
  await fresh.isIn('live')
  t.equal(
    await fresh.evaluate('subscription.cursor'),
    await first.evaluate('subscription.cursor'),
    'it is where the leader is'
  )
  const ahead = await open({ after: ids[7] })
  const behind = await open({ after: ids[3] })
  t.strictSame(await ahead.dataUntil(10), [9, 10])
  t.strictSame(await behind.dataUntil(10), upTo(10, 5))
  for (const number of [11, 12, 13]) {
    await count(server, number, number)
    for (const tab of [first, fresh, ahead, behind]) await tab.dataUntil(number)
  }
  await isServedBy(way, 1)
  await count(server, 14, 15)
  t.strictSame(await first.dataUntil(15), upTo(15, 3))
  t.strictSame(await fresh.dataUntil(15), upTo(15, 11))
  t.strictSame(await ahead.dataUntil(15), upTo(15, 9))
  t.strictSame(await behind.dataUntil(15), upTo(15, 5))
})

t.test('each start, rate and set of topics has its own stream', async t => {
  const server = await build(t, ENV)
  const { way, open } = await setUp(t, [server])
  await count(server, 1, 5)
  const tabs = [
    await open({ rewind: 2 }),
    await open({ rewind: 3 }),
    await open({ rate: 10 }),
    await open({}, ['a', 'b']),
    await open({}, ['b', 'a']),
    await open({ shared: false })
  ]
  for (const tab of tabs) await tab.isIn('live')
  t.strictSame(await tabs[0]!.dataUntil(5), [4, 5])
  t.strictSame(await tabs[1]!.dataUntil(5), [3, 4, 5])
  await isServedBy(way, 5)
})

t.test('a tab that has missed something serves itself, and joins again', async t => {
  const server = await build(t, ENV)
  const { way, open } = await setUp(t, [server])
  const [leader, deaf] = [await open(), await open()]
  for (const tab of [leader, deaf]) await tab.isIn('live')
  await count(server, 1, 2)
  await deaf.dataUntil(2)
  await deaf.evaluate('window.deaf = true')
  await count(server, 3, 5)
  await leader.dataUntil(5)
  await deaf.evaluate('window.deaf = false')
  await count(server, 6, 7)
  t.strictSame(await deaf.dataUntil(7), upTo(7))
  await count(server, 8, 9)
  await isServedBy(way, 1)
  t.strictSame(await deaf.dataUntil(9), upTo(9))
  t.strictSame(await leader.dataUntil(9), upTo(9))
})

t.test('a leader that says nothing any more is not waited for', async t => {
  const server = await build(t, ENV)
  const { way, context, open } = await setUp(t, [server])
  const leader = await open()
  await leader.isIn('live')
  const other = await newTab(context, way)
  await other.evaluate('window.speed = 20')
  // the last that it hears of the leader comes later than this
  const began = Date.now()
  await other.subscribe(['a'], { shared: true })
  await other.isIn('live')
  await other.evaluate('window.deaf = true')
  await count(server, 1, 3)
  t.strictSame(await other.dataUntil(3), [1, 2, 3])
  t.ok(Date.now() - began > 2000, 'after 45 s, which are 20 times as fast here')
  await other.evaluate('window.deaf = false')
  await count(server, 4, 6)
  t.strictSame(await other.dataUntil(6), upTo(6))
  await count(server, 7, 7)
  await isServedBy(way, 1)
})

t.test('a leader that goes into the back-forward cache lets go, and comes back where it was', async t => {
  const server = await build(t, ENV)
  const keeper = await launchChromium({ keepsPages: true })
  t.teardown(() => keeper.close())
  const { way, open } = await setUp(t, [server], keeper)
  const leader = await open()
  await leader.isIn('live')
  const other = await open()
  await other.isIn('live')
  t.equal(await other.evaluate('fetches'), 0, 'the first one leads')
  await leader.evaluate(`addEventListener('pageshow', ({ persisted }) => (window.isKept = persisted))`)

  await leader.page.goto(`${way.url}/readyz`)
  const left = Date.now()
  await count(server, 1, 3)
  t.strictSame(await other.dataUntil(3), upTo(3))
  t.ok(Date.now() - left < 2000, 'another one leads at once')
  await leader.evaluate('void setTimeout(() => history.back())')
  await eventually(
    () => leader.evaluate('window.isKept').catch(() => undefined),
    isKept => isKept === true,
    'the page from the cache'
  )
  await count(server, 4, 6)
  for (const tab of [leader, other]) {
    t.strictSame(await tab.dataUntil(6), upTo(6))
    t.strictSame(await tab.evaluate('gaps'), [])
  }
  await isServedBy(way, 1)
})

t.test('what the server refuses ends every tab', async t => {
  const server = await build(t, ENV)
  const { open } = await setUp(t, [server])
  const tabs = [await open({}, ['a//b']), await open({}, ['a//b'])]
  for (const tab of tabs) {
    await tab.isIn('closed')
    t.match((await tab.states()).at(-1), { state: 'closed', why: { reason: /a\/\/b/ } })
  }
})

/** Opens and closes tabs, and breaks what they have, at random, while numbers are published: each gets all since its start. */
async function isExact(t: Test, servers: readonly TestServer[], seed: number): Promise<void> {
  const TOPICS = ['a', 'b/1', 'b/2']
  const random = randomFrom(seed)
  const { way, open } = await setUp(t, servers)
  const publisher = new Publisher(servers, TOPICS)
  const options = { heartbeat: 1, patience: 150, streamAgain: 300 }
  const tabs: Tab[] = []
  const check = async (tab: Tab) => {
    const events = await tab.events()
    t.strictSame(await tab.evaluate('gaps'), [])
    for (const topic of TOPICS) {
      const got = events.filter(event => event.topic === topic).map(({ data }) => data)
      const stored = publisher.stored.filter(each => each.topic === topic).map(({ data }) => Number(data))
      const start = got.length > 0 ? stored.indexOf(got[0] as number) : 0
      t.strictSame(
        got,
        stored.slice(start, start + got.length),
        `${got.length} of ${topic}, once and in order`
      )
    }
  }
  for (let round = 0; round < 14; round++) {
    const what = random()
    if (tabs.length < 2 || (tabs.length < 4 && what < 0.4)) {
      const after =
        tabs.length > 0 && random() < 0.5 ? await tabs[0]!.evaluate<string>('subscription.cursor') : undefined
      tabs.push(await open({ ...options, ...(after && { after }) }, ['a', 'b/*']))
    } else if (what < 0.7) {
      const [tab] = tabs.splice(Math.floor(random() * tabs.length), 1)
      await tab!.evaluate('subscription.close()')
      await check(tab!)
      await tab!.page.close()
    } else if (what < 0.85) way.cut()
    else {
      way.mode = 'held back'
      way.cut()
      await tabs[0]!.isIn('polling')
      way.mode = 'open'
    }
    await publisher.more(30)
  }
  await publisher.stop()
  for (const tab of tabs) {
    for (const topic of TOPICS) {
      const last = publisher.stored.findLast(each => each.topic === topic)!
      await tab.until(`got.some(({ topic, data }) => topic === '${topic}' && data === ${last.data})`)
    }
    await check(tab)
  }
}

t.test('at random, in memory', async t => {
  await isExact(t, [await build(t, ENV)], 1)
})

t.test('at random, over two instances, in three shards, where ids are vectors', async t => {
  const redis = await redisFor(t)
  await isExact(t, await instances(t, redis.url, 2, { ...ENV, SHARDS: '3' }), 2)
})

t.end()
