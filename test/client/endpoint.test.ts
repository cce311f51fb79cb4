import type { Browser } from 'playwright-core'
import t, { type Test } from 'tap'
import type { Member } from '../../src/client/client.ts'
import { ask, build, type Address } from '../support/app.ts'
import { launchChromium } from '../support/browser.ts'
import { Inbox } from '../support/inbox.ts'
import { startProxy } from '../support/proxy.ts'
import { randomFrom } from '../support/random.ts'
import { instance, redisFor } from '../support/redis-system.ts'
import { SECRET, secondsFromNow, tokenFor, tokenOf } from '../support/tokens.ts'
import { connectTo, dataOf, isIn, listen } from './connected.ts'
import { dataUntil, isIn as streamIsIn, listenTo } from './subscriber.ts'
import { newTab } from './tab.ts'
import { trouble, wayTo, type Way } from './way.ts'

// a browser takes its time
t.setTimeout(400_000)

const ENV = { RETRY: '50ms', RING_SIZE: '100000' }

let browser: Browser | undefined
t.before(async () => {
  browser = await launchChromium()
})
t.after(() => browser?.close())

const upTo = (last: number) => Array.from({ length: last }, (_, index) => index + 1)

/** Does to the connections what ways do, now and then: cuts, refuses with 502, takes its time. */
async function torment(way: Way, seed: number): Promise<void> {
  const random = randomFrom(seed)
  const pause = (ms: number) => new Promise(resolve => setTimeout(resolve, ms * random()))
  for (let round = 0; round < 8; round++) {
    way.delay = round % 3 === 1 ? 20 : 0
    await pause(400)
    way.mode = round % 2 === 1 ? 'refused' : 'open'
    way.cut()
    await pause(100)
    way.mode = 'open'
  }
  way.delay = 0
}

/** Publishes and listens on connections that break, and compares. */
async function isExact(t: Test, server: Address, seed: number): Promise<void> {
  const way = await wayTo(t, server)
  const publisher = connectTo(t, way).connection
  const listener = connectTo(t, way).connection
  const subscriptions = [await listen(listener, ['a', 'c']), await listen(listener, 'b/*')]
  const topics = ['a', 'b/1', 'c', 'b/2']
  let number = 0
  let isOver = false
  const publishing = Promise.all(
    topics.map(async topic => {
      const published: number[] = []
      while (!isOver) {
        published.push(++number)
        await publisher.publish(topic, published.at(-1))
      }
      return [topic, published] as const
    })
  )
  await torment(way, seed)
  isOver = true
  for (const [topic, published] of await publishing) {
    const { events, gaps } = subscriptions[topic.startsWith('b/') ? 1 : 0]!
    const got = () => events.all.filter(event => event.topic === topic).map(({ data }) => data)
    await events.until(() => got().includes(published.at(-1)), `the last of ${topic}`)
    t.strictSame(got(), published, `${published.length} of ${topic}, once and in order`)
    t.strictSame(gaps.all, [])
  }
}

t.test('exactly once and in order through connections that break', async t => {
  t.jobs = 2 // they mostly wait
  const tests = [
    t.test('in memory', async t => isExact(t, await build(t, ENV), 1)),
    t.test('in three shards', async t => {
      const redis = await redisFor(t)
      await isExact(t, await instance(t, redis.url, { ...ENV, SHARDS: '3' }), 2)
    })
  ]
  await Promise.all(tests)
})

t.test('a gap and an unknown cursor are told', async t => {
  const server = await build(t, { ...ENV, RING_SIZE: '3' })
  const { connection } = connectTo(t, server)
  const ids = []
  for (const data of upTo(6)) ids.push(await connection.publish('a', data))
  const late = await listen(connection, 'a', { after: ids[0] })
  await late.events.until(() => late.events.all.length === 3, 'what is left')
  t.strictSame(dataOf(late.events), [4, 5, 6])
  t.match(late.gaps.all, [{ reason: 'expired', topics: ['a'], after: ids[0] }])
  const lost = await listen(connection, 'b', { after: 'nonsense' })
  t.match(lost.gaps.all, [{ reason: 'unknown', topics: ['b'], after: 'nonsense' }])
  t.match(lost.subscription.cursor, /^\d+-\d+$/)
  await t.rejects(listen(connection, 'a'), { code: 'bad_request', message: /overlaps/ })
  await late.subscription.unsubscribe()
  const last = await listen(connection, ['a', 'a/*'], { rewind: 1 })
  await last.events.next()
  t.strictSame(dataOf(last.events), [6])
})

t.test('who joined joins again, and is seen to come and go', async t => {
  const server = await build(t, ENV)
  const proxy = await startProxy(t, server)
  const told = new Inbox<string>()
  const watcher = connectTo(t, server).connection
  const name = ({ info }: Member) => (info as { name: string }).name
  await watcher.join('room', {
    info: { name: 'watcher' },
    onMembers: members => told.push(`all ${members.map(name).join(' ')}`),
    onJoined: (member, topic) => told.push(`joined ${name(member)} ${topic}`),
    onLeft: (member, topic) => told.push(`left ${name(member)} ${topic}`)
  })
  const guest = connectTo(t, proxy).connection
  const room = await guest.join('room', { info: { name: 'guest' } })
  proxy.cut()
  proxy.restore()
  for (const expected of ['all watcher', 'joined guest room', 'left guest room', 'joined guest room']) {
    t.equal(await told.next(expected), expected)
  }
  const signals = new Inbox<unknown>()
  await listen(watcher, 'room', { onSignal: ({ topic, data }) => signals.push([topic, data]) })
  await guest.signal('room', { typing: true })
  t.strictSame(await signals.next(), ['room', { typing: true }])
  await room.leave()
  t.equal(await told.next(), 'left guest room')
})

t.test('more than the server allows a second: all is stored, and once', async t => {
  // loopback is not limited in development mode
  const server = await build(t, { ...ENV, JWT_SECRET: SECRET, WS_MESSAGE_RATE: '20' })
  const token = await tokenFor({ subscribe: ['a'], publish: ['a'] })
  const { connection, states } = connectTo(t, server, { token })
  const { events } = await listen(connection, 'a')
  await Promise.all(upTo(80).map(data => connection.publish('a', data)))
  await events.until(() => events.all.length >= 80, 'all')
  t.strictSame(
    dataOf(events).sort((a, b) => Number(a) - Number(b)),
    upTo(80)
  )
  t.strictSame(
    states.all.map(({ state }) => state),
    ['live']
  )
})

t.test('what a token does not allow is refused, and one that runs out is renewed', async t => {
  const server = await build(t, { ...ENV, JWT_SECRET: SECRET })
  const claims = { ringside: { subscribe: ['a'], publish: ['a'] } }
  const brief = () => tokenOf({ ...claims, exp: secondsFromNow(2) })
  const tokens = [await tokenOf(claims), await tokenOf(claims)]
  const onToken = () => tokens.shift()!
  const connected = connectTo(t, server, { token: await brief(), onToken })
  const stream = listenTo(t, 'a', { url: server.url, token: await brief(), onToken })
  const { connection } = connected
  const { events } = await listen(connection, 'a')
  await streamIsIn(stream, 'live')
  await t.rejects(connection.publish('b', 1), { code: 'forbidden' })
  await t.rejects(listen(connection, 'b'), { code: 'forbidden' })
  const ends = (all: readonly { why: { reason: string } | undefined }[]) =>
    all.some(({ why }) => /expired/.test(why?.reason ?? ''))
  for (let data = 1; tokens.length > 0; data++) await connection.publish('a', data)
  const last = 'the last one'
  await connection.publish('a', last)
  await events.until(() => dataOf(events).includes(last), last)
  const numbers = upTo(events.all.length - 1)
  t.strictSame(dataOf(events), [...numbers, last])
  t.strictSame(await dataUntil(stream, last), [...numbers, last])
  t.notOk(ends(connected.states.all), 'it is renewed at once')

  const old = await tokenOf({ ...claims, exp: secondsFromNow(-60) })
  for (const token of [old, undefined]) {
    const way = await wayTo(t, server)
    const closed = connectTo(t, way, { token })
    await isIn(closed, 'closed')
    t.match(closed.states.all.at(-1)?.why, { reason: /token/ })
    t.equal(way.passed.length, 2, 'one attempt, and a look at why')
  }
  const refused = listenTo(t, 'a', { url: server.url, token: old })
  await streamIsIn(refused, 'closed')
  t.match(refused.states.all.at(-1)?.why, { reason: /token/ })
})

t.test('in a browser, with its own WebSocket', async t => {
  const server = await build(t, ENV)
  const proxy = await startProxy(t, server)
  const context = await browser!.newContext()
  t.teardown(() => context.close())
  const tab = await newTab(context, proxy)
  await tab.connect(['a'])
  await tab.evaluate(`Promise.all([1, 2, 3].map(data => hub.publish('a', data)))`)
  await tab.dataUntil(3)
  const { connection } = connectTo(t, server)
  proxy.cut()
  await connection.publish('a', 4)
  proxy.restore()
  await tab.evaluate(`hub.publish('a', 5)`)
  t.strictSame(await tab.dataUntil(5), upTo(5))
  t.strictSame(await tab.evaluate('gaps'), [])
  t.strictSame(tab.errors, [])
})

/** What is stored after a cursor, as the server itself says. */
async function storedAfter(server: Address, cursor: string, topics: readonly string[]): Promise<Stored[]> {
  const stored: Stored[] = []
  for (let after = cursor; ;) {
    const query = new URLSearchParams([
      ...topics.map(topic => ['topic', topic]),
      ['after', after],
      ['limit', '1000']
    ])
    const { json } = await ask(server, `/events?${query}`, { headers: { accept: 'application/json' } })
    const page = json() as { events: Stored[]; cursor: string; more: boolean }
    stored.push(...page.events.map(({ id, topic, data }) => ({ id, topic, data })))
    if (!page.more) return stored
    after = page.cursor
  }
}

interface Stored {
  readonly id: string
  readonly topic: string
  readonly data: number
}

t.test('in pages, on ways that delay, cut and answer 502: each event and each publish once', async t => {
  // the time of these pages passes faster than that in which the server counts
  const server = await build(t, { ...ENV, WS_MESSAGE_RATE: '0' })
  const filters = ['a', 'b/*', 'c']
  const pages = await Promise.all(
    [
      ['a', 'b/1'],
      ['b/2', 'c']
    ].map(async topics => {
      const way = await wayTo(t, server)
      const context = await browser!.newContext()
      t.teardown(() => context.close())
      const tab = await newTab(context, way)
      await tab.connect(filters, { heartbeat: 60 })
      return { way, tab, topics }
    })
  )
  const start = await pages[0]!.tab.evaluate<string>('subscription.cursor')
  for (const { way, tab } of pages) {
    way.delay = 50
    const took = await tab.evaluate<number>(`{
      const asked = performance.now()
      hub.ping().then(() => performance.now() - asked)
    }`)
    t.ok(took > 95, `it is late there and back: ${took} ms`)
    way.delay = 0
  }
  for (const { tab, topics } of pages) {
    await tab.evaluate('window.speed = 100') // so it comes back within a third of a second
    // two at a time on each topic: so several are without an answer whenever something breaks
    await tab.evaluate(`{
      window.isOver = false
      window.acknowledged = []
      const publish = async (topic, data) => acknowledged.push({ id: await hub.publish(topic, data), topic, data })
      window.publishing = Promise.all(${JSON.stringify(topics)}.map(async topic => {
        for (let data = 1; !isOver; data += 2) {
          await Promise.all([publish(topic, data), publish(topic, data + 1)])
          await new Promise(resolve => setTimeout(resolve, 500))
        }
      }))
      undefined
    }`)
  }
  await Promise.all(
    pages.map(({ way, tab }, index) =>
      trouble(way, {
        kinds: ['cut', 'torn down', 'torn up', 'held back', 'refused'],
        random: randomFrom(index),
        back: () => tab.until(`hub.state === 'live'`)
      })
    )
  )
  for (const { tab } of pages) await tab.evaluate('window.isOver = true, publishing')
  const stored = await storedAfter(server, start, filters)
  const known = new Map(stored.map(each => [each.id, each]))
  for (const { tab, topics } of pages) {
    const acknowledged = await tab.evaluate<Stored[]>('acknowledged')
    t.strictSame(
      acknowledged.map(({ id }) => known.get(id)),
      acknowledged,
      'what is acknowledged is stored'
    )
    for (const topic of topics) {
      const numbers = stored.filter(each => each.topic === topic).map(({ data }) => data)
      t.strictSame(
        numbers,
        upTo(acknowledged.filter(each => each.topic === topic).length),
        `${numbers.length} of ${topic}, once`
      )
    }
    await tab.until(`got.some(({ id }) => id === '${stored.at(-1)!.id}')`)
    t.strictSame(
      await tab.evaluate('got.map(({ id, topic, data }) => ({ id, topic, data }))'),
      stored,
      'all that is stored has come, once and in order'
    )
    t.strictSame(await tab.evaluate('gaps'), [])
    t.strictSame(tab.errors, [])
  }
})

t.end()
