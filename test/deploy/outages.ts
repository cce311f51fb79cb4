/** What a proxy with our file must get its clients through, and what it must let pass. */
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { ask, isProblem, post } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { bearer, tokenFor } from '../support/tokens.ts'
import { gather, TOPIC, type Crowd } from './crowd.ts'
import { askThrough, Fleet, OTHER_ORIGIN, Publisher, startFleet } from './fleet.ts'
import { isInstalled, startReverseProxy, type Kind, type ReverseProxy } from './proxies.ts'

/** Between two publishes, in milliseconds: few, since what counts is when they come. */
const PACE_MS = 300

/** How long both instances are away, in milliseconds. */
const AWAY_MS = 10_000

/** An event that waits for another one, or for a timer of the proxy, takes longer: HAProxy's is 200 ms. */
const AT_ONCE_MS = 150

/** Whoever notices at a heartbeat (15 s) that a client has gone, takes longer. */
const GONE_MS = 10_000

/** Shorter than by default, so that nobody waits for long. */
const SETTINGS = { DRAIN: '2s', RETRY: '1s' }

/** Tests a proxy with its file of deploy/, where it is installed. */
export function testProxy(name: string, kind: Kind): void {
  t.setTimeout(240_000)
  if (!isInstalled(kind)) t.plan(0, `${kind.command} is not installed`)
  else void t.test(`${name}, with its file of deploy/`, t => live(t, kind))
}

async function live(t: Test, kind: Kind): Promise<void> {
  const fleet = await startFleet(t, SETTINGS)
  const proxy = await startReverseProxy(t, kind, fleet.instances)
  await t.test('lets pass what is asked', t => passes(t, proxy))
  const crowd = await gather(t, proxy)
  const publisher = new Publisher(proxy.clear, PACE_MS)
  t.teardown(() => publisher.stop())
  await t.test('hands over each event as it comes', t => isPrompt(t, crowd, publisher))
  publisher.start()
  await t.test('gets everybody through', t => survives(t, { proxy, fleet, crowd, publisher }))
  await publisher.stop()
  await t.test('each has every event once and in order', async t => {
    await crowd.has(publisher.count)
    const all = Array.from({ length: publisher.count }, (_, index) => index + 1)
    for (const { name, got, wrong } of crowd.all) {
      t.strictSame(got, all, name)
      t.strictSame(wrong, [], name)
    }
  })
  if (kind.noticesLate) return
  await t.test('Ringside is told that all have gone', async t => {
    const left = performance.now()
    crowd.all.forEach(({ leave }) => leave())
    await eventually(
      () => fleet.connections(),
      count => count === 0,
      'nobody to be there'
    )
    t.ok(performance.now() - left < GONE_MS)
  })
}

/** What is not a stream, and what is large. */
async function passes(t: Test, proxy: ReverseProxy): Promise<void> {
  const headers = { ...bearer(await tokenFor({ publish: ['batch'] })), 'Content-Type': 'application/json' }
  const batch = Array.from({ length: 60 }, () => ({ topic: 'batch', data: 'x'.repeat(50_000) }))
  t.equal((await post(proxy.clear, '/events', JSON.stringify(batch), headers)).status, 201, 'a batch of 3 MB')
  const long = 'x'.repeat(9000)
  isProblem(t, await ask(proxy.clear, `/events?topic=${TOPIC}&token=${long}`), 401, /token/i)
  isProblem(t, await ask(proxy.clear, `/events?topic=${TOPIC}`, { headers: bearer(long) }), 401, /token/i)
  t.match((await ask(proxy.clear, '/metrics')).status, /^(403|404)$/, 'no metrics')
}

async function isPrompt(t: Test, crowd: Crowd, publisher: Publisher): Promise<void> {
  const waits: number[] = []
  for (let times = 0; times < 5; times++) {
    const number = await publisher.publish()
    const stored = performance.now()
    await crowd.has(number)
    waits.push(performance.now() - stored)
  }
  // a busy machine is late now and then, a proxy that holds back each time
  t.ok(Math.min(...waits) < AT_ONCE_MS, `at best ${Math.min(...waits)} ms after it was stored`)
}

interface Scene {
  readonly proxy: ReverseProxy
  readonly fleet: Fleet
  readonly crowd: Crowd
  readonly publisher: Publisher
}

async function survives(t: Test, { proxy, fleet, crowd, publisher }: Scene): Promise<void> {
  const [first, second] = fleet.instances as [Fleet['instances'][0], Fleet['instances'][0]]
  /** All are there, with what is published from now on. */
  const back = () => crowd.has(publisher.count + 2)
  await t.test('one instance is killed', async () => {
    await first.end('SIGKILL')
    await back()
    await first.start()
  })
  await t.test('the other one is drained', async () => {
    await second.end('SIGTERM')
    await back()
    await second.start()
  })
  await t.test('both are away', async t => {
    await Promise.all([first.end('SIGKILL'), second.end('SIGKILL')])
    await Promise.all([delay(AWAY_MS), isAnswered(t, proxy)])
    await Promise.all([first.start(), second.start()])
    await back()
  })
  if (proxy.kind.streams === 0) return
  await t.test('the proxy is reloaded', async t => {
    const ends = () => crowd.sources.map(each => each.ends())
    const before = ends()
    proxy.reload()
    await back()
    t.strictSame(ends(), before, 'no stream has ended')
    t.equal(
      crowd.sockets.every(({ isOpen }) => isOpen()),
      true
    )
  })
}

/** What is answered while nobody is there. */
async function isAnswered(t: Test, { clear, kind }: ReverseProxy): Promise<void> {
  // while the proxy doesn't know yet, some of them close the connection without a word
  const stream = await eventually(
    () => askThrough(clear, `/events?topic=${TOPIC}`, 'text/event-stream').catch((error: Error) => error),
    answer => !(answer instanceof Error),
    'an answer to an EventSource'
  )
  if (stream instanceof Error) throw stream
  t.equal(stream.status, 200)
  t.match(stream.headers['content-type'], /^text\/event-stream/)
  t.equal(stream.text, 'retry: 3000\n\n')
  t.equal(stream.headers['access-control-allow-origin'], OTHER_ORIGIN)
  t.equal(stream.headers['access-control-allow-credentials'], 'true')
  const other = await askThrough(clear, `/events?topic=${TOPIC}`, 'application/json')
  t.equal(other.status, 503)
  if (!kind.noRetryAfter) t.match(other.headers['retry-after'], /^\d+$/)
}
