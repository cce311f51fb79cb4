import { mock } from 'node:test'
import t, { type Test } from 'tap'
import { Backoff, pause } from '../../src/client/reconnect.ts'
import { settled } from '../support/clock.ts'

const never = new AbortController().signal

/** A browser, as far as it tells of its network and its page. */
function browser(t: Test) {
  const page = Object.assign(new EventTarget(), { visibilityState: 'visible' })
  const network = { onLine: true }
  const events = new EventTarget()
  const all = {
    document: page,
    navigator: network,
    addEventListener: events.addEventListener.bind(events),
    removeEventListener: events.removeEventListener.bind(events)
  }
  for (const [name, value] of Object.entries(all)) {
    const before = Object.getOwnPropertyDescriptor(globalThis, name)
    Object.defineProperty(globalThis, name, { value, configurable: true })
    t.teardown(() => {
      if (before) Object.defineProperty(globalThis, name, before)
      else Reflect.deleteProperty(globalThis, name)
    })
  }
  return {
    show(state: 'visible' | 'hidden') {
      page.visibilityState = state
      page.dispatchEvent(new Event('visibilitychange'))
    },
    connect(onLine: boolean) {
      network.onLine = onLine
      events.dispatchEvent(new Event(onLine ? 'online' : 'offline'))
    }
  }
}

/** Holds the clock; answers what lets it go on, and says how long a pause took. */
function hold(t: Test) {
  mock.timers.enable({ apis: ['setTimeout', 'Date'] })
  // no method of `performance` itself, so it can be taken away again
  Object.defineProperty(performance, 'now', { value: () => Date.now(), configurable: true })
  t.teardown(() => {
    Reflect.deleteProperty(performance, 'now')
    mock.timers.reset()
  })
  return {
    /** A pause that has just begun; `took` is undefined while it goes on. */
    begin(...[delay, signal, floor]: Parameters<typeof pause>) {
      const began = performance.now()
      const begun: { took: number | undefined } = { took: undefined }
      void pause(delay, signal, floor).then(() => (begun.took = performance.now() - began))
      return begun
    },
    async advance(ms: number) {
      mock.timers.tick(ms)
      await settled()
    }
  }
}

t.test('the window grows with each failure, up to a limit, and the delay lies anywhere in it', async t => {
  const { random } = Math
  t.teardown(() => (Math.random = random))
  Math.random = () => 1
  const backoff = new Backoff()
  const next = (count: number) => Array.from({ length: count }, () => backoff.next())
  t.strictSame(next(7), [2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000])
  backoff.worked(4000)
  t.strictSame(next(1), [30_000], 'that was hardly a success')
  backoff.worked(6000)
  backoff.base = 100
  t.strictSame(next(3), [100, 200, 400])
  backoff.base = 60_000
  t.strictSame(next(2), [60_000, 60_000], 'the server wants more')
  backoff.worked(Infinity)
  Math.random = () => 0.25
  t.strictSame(next(2), [15_000, 15_000])
})

t.test('a pause takes its time, and ends with its signal', async t => {
  const { begin, advance } = hold(t)
  const abort = new AbortController()
  const [one, other] = [begin(1000, never), begin(1000, abort.signal, 0)]
  await advance(400)
  abort.abort()
  await advance(0)
  t.equal(other.took, 400)
  await advance(599)
  t.equal(one.took, undefined)
  await advance(1)
  t.equal(one.took, 1000)
  const late = begin(1000, abort.signal, 0)
  await advance(0)
  t.equal(late.took, 0, 'aborted before')
})

t.test('hidden: it takes longer; shown again: it is over', async t => {
  const { show } = browser(t)
  const { begin, advance } = hold(t)
  show('hidden')
  const [long, short, rest] = [begin(20_000, never, 0), begin(100, never, 0), begin(100, never)]
  await advance(100)
  t.strictSame([short.took, rest.took], [undefined, 100], 'what is no wait between attempts is not stretched')
  await advance(9900)
  t.equal(short.took, 10_000)
  show('visible')
  await advance(0)
  t.equal(long.took, 10_000)
})

t.test('offline: it is tried all the same, since a browser may be wrong; online: it is over', async t => {
  const { show, connect } = browser(t)
  const { begin, advance } = hold(t)
  connect(false)
  const first = begin(100, never, 0)
  await advance(100)
  t.equal(first.took, 100)
  const second = begin(20_000, never, 0)
  await advance(3000)
  connect(false)
  await advance(0)
  t.equal(second.took, undefined, 'that is no reason to hurry')
  show('visible')
  await advance(0)
  t.equal(second.took, 3000, 'that somebody looks is one')
  const third = begin(20_000, never, 0)
  await advance(5000)
  connect(true)
  await advance(0)
  t.equal(third.took, 5000)
})

t.test('never before the server wants it', async t => {
  const { connect } = browser(t)
  const { begin, advance } = hold(t)
  const waits = begin(5000, never, 3000)
  await advance(1000)
  connect(true)
  await advance(1999)
  t.equal(waits.took, undefined)
  await advance(1)
  t.equal(waits.took, 3000)
  const later = begin(5000, never, 3000)
  await advance(4000)
  connect(true)
  await advance(0)
  t.equal(later.took, 4000)
})

t.test('a wait of any length, also one that never ends, is no longer and no shorter', async t => {
  const { begin, advance } = hold(t)
  const [month, ever] = [begin(2_592_000_000, never, 2_592_000_000), begin(Infinity, never)]
  await advance(2 ** 31 - 1)
  t.equal(month.took, undefined)
  await advance(2_592_000_000 - 2 ** 31)
  t.equal(month.took, undefined)
  await advance(1)
  t.equal(month.took, 2_592_000_000)
  for (let days = 0; days < 100; days += 24) await advance(24 * 86_400_000)
  t.equal(ever.took, undefined)
})

t.test('the time of day is set: a wait takes as long as it takes', async t => {
  const { connect } = browser(t)
  const { begin, advance } = hold(t)
  const { now } = Date
  t.teardown(() => (Date.now = now))
  const waits = begin(5000, never, 3000)
  await advance(1000)
  Date.now = () => now() - 86_400_000
  Object.defineProperty(performance, 'now', { value: now, configurable: true })
  connect(true)
  await advance(2000)
  Date.now = now
  t.equal(waits.took, 3000)
})

t.test('a server that names no time at all is not asked in a loop', async t => {
  const { random } = Math
  t.teardown(() => (Math.random = random))
  Math.random = () => 1
  const backoff = new Backoff()
  backoff.base = 0
  t.strictSame(
    Array.from({ length: 5 }, () => backoff.next()),
    [1, 2, 4, 8, 16]
  )
})

t.end()
