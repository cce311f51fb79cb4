import t, { type Test } from 'tap'
import type { State, SubscribeOptions } from '../../src/client/client.ts'
import { build, post, publish } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { dataOf, dataUntil, isIn, listenTo, type Subscriber } from './subscriber.ts'
import { wayTo, type Mode, type Passed } from './way.ts'

const { BroadcastChannel } = globalThis

/** What a leader says: from where to where, and what came. */
interface Saying {
  readonly epoch: number
  readonly from?: string | undefined
  readonly to?: string | undefined
  readonly data?: number
  readonly state?: State
}

/**
 * One tab in this process, and in place of the others what the test says. `lead` gives it the lock, which it has
 * while `led` is 1; `show` shows and hides its page.
 * `hasCompany`: whether another one comes after it. `mode`: how its way to the server is.
 */
async function tab(
  t: Test,
  options: Partial<SubscribeOptions<number>> = {},
  mode: Mode = 'open',
  hasCompany = true
) {
  let lead = () => {}
  let led = 0
  const locks = {
    request(_name: string, { signal }: { signal: AbortSignal }, granted: () => Promise<void>) {
      return new Promise((resolve, reject) => {
        lead = () => {
          led++
          void Promise.resolve(granted())
            .finally(() => led--)
            .then(resolve)
        }
        signal.addEventListener('abort', () => reject(signal.reason as Error))
      })
    }
  }
  // the others are there before this one
  const heard: unknown[] = []
  let others: BroadcastChannel | undefined
  globalThis.BroadcastChannel = class extends BroadcastChannel {
    constructor(name: string) {
      others ??= new BroadcastChannel(name) // a page that comes back makes another one for itself
      others.onmessage = ({ data }: MessageEvent) => heard.push(data)
      super(name)
      // one of them comes after it: it has company
      if (hasCompany) others.postMessage('where?')
    }
  }
  t.teardown(() => {
    globalThis.BroadcastChannel = BroadcastChannel
    others?.close()
  })
  const page = new EventTarget()
  const all = { navigator: { locks }, addEventListener: page.addEventListener.bind(page) }
  for (const [name, value] of Object.entries(all)) {
    const before = Object.getOwnPropertyDescriptor(globalThis, name)
    Object.defineProperty(globalThis, name, { value, configurable: true })
    t.teardown(() => {
      if (before) Object.defineProperty(globalThis, name, before)
      else Reflect.deleteProperty(globalThis, name)
    })
  }

  const server = await build(t, { RETRY: '50ms' })
  const way = await wayTo(t, server)
  way.mode = mode
  const subscriber = listenTo<number>(t, 'a', { url: way.url, shared: true, ...options })
  await eventually(
    () => heard.length,
    count => count > 0,
    'its question'
  )
  const say = ({ epoch, from, to = from, data, state = 'live' }: Saying) => {
    const event = data === undefined ? undefined : { id: to, topic: 'a', type: 'message', time: 1, data }
    others!.postMessage({ epoch, from, to, event, state })
  }
  const streams = (): Passed[] => way.passed.filter(each => each.streams && each.method === 'GET')
  const know = (epoch: number) => others!.postMessage(epoch)
  const show = (isShown: boolean) => page.dispatchEvent(new Event(isShown ? 'pageshow' : 'pagehide'))
  return { subscriber, say, heard, server, way, streams, show, know, lead: () => lead(), led: () => led }
}

/** Resolves once it is there. */
function isAt({ subscription }: Subscriber, cursor: string): Promise<unknown> {
  return eventually(
    () => subscription.cursor,
    now => now === cursor,
    cursor
  )
}

t.test('it takes the steps that start where it is, and has the state of the leader', async t => {
  const { subscriber, say, streams, heard } = await tab(t)
  t.strictSame(heard, ['where?'])
  say({ epoch: 1, from: '5-0' })
  await isAt(subscriber, '5-0')
  say({ epoch: 1, from: '5-0', to: '6-0', data: 6 })
  say({ epoch: 1, from: '6-0', to: '6-0', state: 'connecting' })
  say({ epoch: 1, from: '6-0', to: '7-0', data: 7, state: 'polling' })
  say({ epoch: 1, from: '7-0', to: '8-0' })
  await isAt(subscriber, '8-0')
  t.strictSame(dataOf(subscriber), [6, 7])
  t.strictSame(
    subscriber.states.all.map(({ state }) => state),
    ['live', 'connecting', 'polling', 'live']
  )
  t.strictSame(streams(), [])
})

t.test(
  'where the leader is can only be the start of who wants no more, while the leader is there itself',
  async t => {
    for (const [options, state] of [
      [{ rewind: 1 }, 'live'],
      [{ since: '1h' }, 'live'],
      [{ after: '1-0' }, 'live'],
      [{}, 'connecting']
    ] as const) {
      const { subscriber, say, streams } = await tab(t, options)
      const started = Date.now()
      say({ epoch: 1, from: '5-0', state })
      await eventually(
        () => streams().length,
        count => count === 1,
        'a stream of its own'
      )
      t.ok(Date.now() - started < 900, 'at once')
      t.equal(streams()[0]!.query.get('after'), 'after' in options ? '1-0' : null)
      subscriber.subscription.close()
    }
  }
)

t.test('one that begins with the leader takes all that it has', async t => {
  const { subscriber, say, streams } = await tab(t, { rewind: 2 })
  say({ epoch: 1, state: 'connecting' })
  say({ epoch: 1, to: '1-0', state: 'catching-up' })
  say({ epoch: 1, from: '1-0', to: '2-0', data: 2 })
  t.strictSame(await dataUntil(subscriber, 2), [2])
  t.strictSame(streams(), [])
})

t.test('what a former leader said and what is known already is not taken', async t => {
  const { subscriber, say, streams } = await tab(t)
  say({ epoch: 1, from: '5-0' })
  say({ epoch: 1, from: '5-0', to: '6-0', data: 6 })
  say({ epoch: 1, from: '6-0', to: '7-0', data: 7 })
  // a new one, that has not come as far yet
  say({ epoch: 2, from: '5-0', state: 'connecting' })
  say({ epoch: 2, from: '5-0', to: '6-0', data: 6 })
  say({ epoch: 2, from: '6-0', to: '7-0', data: 7 })
  // late
  say({ epoch: 1, from: '7-0', to: '8-0', data: -8 })
  say({ epoch: 2, from: '7-0', to: '8-0', data: 8 })
  t.strictSame(await dataUntil(subscriber, 8), [6, 7, 8])
  t.strictSame(streams(), [])
})

t.test(
  'a step from elsewhere is not taken: it serves itself, until the leader has been where it is',
  async t => {
    const { subscriber, say, server, streams } = await tab(t)
    const first = await publish(server, 'a', '1')
    say({ epoch: 1, from: first })
    await isAt(subscriber, first)
    const second = await publish(server, 'a', '2')
    // the step to the second was missed
    say({ epoch: 1, from: second, to: '9-0', data: -3 })
    say({ epoch: 1, from: '9-0', to: '10-0', data: -4 })
    await isAt(subscriber, '10-0')
    // its own stream has brought it to the second; from there on it follows again
    t.strictSame(dataOf(subscriber), [2, -3, -4])
    t.strictSame(
      streams().map(({ query }) => query.get('after')),
      [first]
    )
    say({ epoch: 1, from: '10-0', to: '11-0', data: -5 })
    t.strictSame(await dataUntil(subscriber, -5), [2, -3, -4, -5])
  }
)

t.test('what does not follow from what was taken is not taken either', async t => {
  const { subscriber, say, server, streams } = await tab(t)
  const first = await publish(server, 'a', '1')
  say({ epoch: 1, from: first })
  await isAt(subscriber, first)
  const second = await publish(server, 'a', '2')
  say({ epoch: 1, from: second, to: '9-0', data: -3 })
  say({ epoch: 1, from: '10-0', to: '11-0', data: -5 })
  // to where it is, and then on its own
  await eventually(
    () => streams().map(({ query }) => query.get('after')),
    after => after.length === 2,
    'a second stream'
  )
  t.strictSame(
    streams().map(({ query }) => query.get('after')),
    [first, '9-0']
  )
  // which answers the cursor, that nobody has ever had, with all that it holds
  t.strictSame(dataOf(subscriber).slice(0, 2), [2, -3])
  t.notOk(dataOf(subscriber).includes(-5))
})

t.test('it needs no stream of its own any more once the leader is where it is', async t => {
  const { subscriber, say, server, way } = await tab(t)
  const first = await publish(server, 'a', '1')
  say({ epoch: 1, from: first })
  await isAt(subscriber, first)
  const second = await publish(server, 'a', '2')
  say({ epoch: 1, from: '8-0' })
  await isAt(subscriber, second)
  t.equal(way.streams, 1)
  say({ epoch: 1, from: '8-0', to: second, data: 2 })
  await eventually(
    () => way.streams,
    open => open === 0,
    'the end of its stream'
  )
  t.strictSame(dataOf(subscriber), [2])
})

t.test('the leader hears no other one, and says where it is', async t => {
  const { subscriber, say, server, streams, heard, lead } = await tab(t)
  lead()
  await isIn(subscriber, 'live')
  const { cursor } = subscriber.subscription
  say({ epoch: 1, from: cursor, to: '9-0', data: -1 })
  say({ epoch: Date.now() + 1e6, from: cursor, to: '9-0', data: -1 })
  const id = await publish(server, 'a', '1')
  await eventually(
    () => heard.length,
    count => count >= 5,
    'what it says'
  )
  t.strictSame(dataOf(subscriber), [1])
  t.match(heard.slice(1), [
    { from: undefined, to: undefined, state: 'connecting', epoch: Number },
    { from: undefined, to: cursor, state: 'connecting' },
    { from: cursor, to: cursor, state: 'live' },
    { from: cursor, to: id, state: 'live', event: { id, data: 1 } }
  ])
  t.equal(streams().length, 1)
})

t.test('a leader that is alone says nothing', async t => {
  const { subscriber, server, heard, lead } = await tab(t, {}, 'open', false)
  lead()
  await isIn(subscriber, 'live')
  await publish(server, 'a', '1')
  await dataUntil(subscriber, 1)
  t.strictSame(heard, ['where?'])
})

t.test('topics that have ended: the leader says so, and whoever follows it settles', async t => {
  const follower = await tab(t)
  follower.say({ epoch: 1, from: '5-0' })
  await isAt(follower.subscriber, '5-0')
  follower.say({ epoch: 1, from: '5-0', to: '6-0', data: 6 })
  follower.say({ epoch: 1, from: '6-0', state: 'ended' })
  follower.say({ epoch: 1, from: '6-0', to: '7-0', data: 7 })
  await isIn(follower.subscriber, 'ended')
  t.strictSame(dataOf(follower.subscriber), [6])
  follower.show(false)
  follower.show(true)
  t.equal(follower.subscriber.subscription.state, 'ended', 'also when its page comes back')
  t.strictSame(follower.streams(), [])

  const leader = await tab(t)
  leader.lead()
  await isIn(leader.subscriber, 'live')
  await post(leader.server, '/events/a?end=true', '1')
  await isIn(leader.subscriber, 'ended')
  t.strictSame(dataOf(leader.subscriber), [1])
  await eventually(
    () => leader.heard.at(-1),
    said => (said as Saying).state === 'ended',
    'the end'
  )
  t.equal(leader.streams().length, 1)
  await eventually(leader.led, led => led === 0, 'to have let go')

  const late = await tab(t, {}, 'open')
  await post(late.server, '/events/a?end=true', '1')
  await isIn(late.subscriber, 'ended')
})

t.test('a follower that leads goes on where it is, as does one that serves itself', async t => {
  const { subscriber, say, server, streams, lead } = await tab(t)
  const first = await publish(server, 'a', '1')
  await publish(server, 'a', '2')
  say({ epoch: 1, from: first })
  await isAt(subscriber, first)
  lead()
  // of the one before, in the last moment
  say({ epoch: 1, from: first, to: '9-0', data: -2 })
  await publish(server, 'a', '3')
  t.strictSame(await dataUntil(subscriber, 3), [2, 3])
  t.strictSame(
    streams().map(({ query }) => query.get('after')),
    [first]
  )
})

t.test(
  'what the server refuses this one is not taken from the leader, which may be somebody else',
  async t => {
    const { subscriber, say, streams } = await tab(t, {}, 'refused')
    say({ epoch: 1, from: '5-0' })
    say({ epoch: 1, from: '5-0', to: '6-0', data: 6 })
    await eventually(
      () => streams().length,
      count => count > 0,
      'a stream of its own'
    )
    say({ epoch: 1, from: '6-0', to: '7-0', data: 7 })
    await subscriber.states.until(() => subscriber.states.all.some(({ why }) => why), 'a refusal')
    t.strictSame(dataOf(subscriber), [])
  }
)

t.test('the page goes into the cache: it lets the lead go; it comes back where it was', async t => {
  const { subscriber, say, server, way, heard, show, lead, led } = await tab(t)
  lead()
  await isIn(subscriber, 'live')
  show(true) // as every page is at first
  const first = await publish(server, 'a', '1')
  await dataUntil(subscriber, 1)
  t.equal(led(), 1)
  show(false)
  await eventually(
    () => [led(), way.streams],
    ([locks, streams]) => locks === 0 && streams === 0,
    'it to let go'
  )
  const second = await publish(server, 'a', '2')
  const before = heard.length
  show(true)
  await eventually(
    () => heard.slice(before),
    questions => questions.includes('where?'),
    'a question'
  )
  t.equal(subscriber.subscription.state, 'connecting')
  // another one leads by now
  say({ epoch: Date.now() + 1e6, from: first, to: second, data: 2 })
  t.strictSame(await dataUntil(subscriber, 2), [1, 2])
  t.equal(led(), 0)
  subscriber.subscription.close()
  const { length } = heard
  show(false)
  show(true)
  t.equal(heard.length, length, 'closed is closed')
})

t.test('a new leader whose clock was set back is told, and goes on after the one before', async t => {
  const { subscriber, heard, say } = await tab(t)
  say({ epoch: 7, from: '5-0' })
  await isAt(subscriber, '5-0')
  say({ epoch: 3, from: '5-0', to: '6-0', data: -6 })
  await eventually(
    () => heard,
    all => all.includes(7),
    'the epoch that is known'
  )
  const leading = await tab(t)
  leading.lead()
  await isIn(leading.subscriber, 'live')
  const known = Date.now() + 1e6
  leading.know(known)
  await eventually(
    () => leading.heard.at(-1) as Saying,
    ({ epoch }) => epoch === known + 1,
    'a greater one'
  )
})

t.end()
