import t from 'tap'
import { Developer, type Grant } from '../src/access/grant.ts'
import { LocalBroker } from '../src/broker/local/broker.ts'
import type { Append } from '../src/broker/event-log.ts'
import { resolveSettings } from '../src/config.ts'
import { Dashboards } from '../src/feeds/dashboards.ts'
import { Notifications } from '../src/feeds/notifications.ts'
import { Tickers } from '../src/feeds/tickers.ts'
import { Metrics } from '../src/metrics.ts'
import { Problem } from '../src/problem.ts'
import { Publisher, type Publication } from '../src/publisher.ts'
import { HeldClock } from './support/clock.ts'

const MAX_BYTES = 100

interface Setup {
  /** On which topics the writer may publish. */
  readonly may?: (topic: string) => boolean
  /** Whether the writer's client has written too much. */
  readonly isSpent?: boolean
}

/** A publisher, and what it did, in order. */
async function setUp({ may = () => true, isSpent = false }: Setup = {}) {
  const clock = new HeldClock()
  const broker = new LocalBroker(resolveSettings(), clock)
  const steps: string[] = []
  const append = broker.log.append.bind(broker.log)
  broker.log.append = events => {
    steps.push(`append ${events.map(({ topic }) => topic).join()}`)
    return append(events)
  }
  const grant: Grant = {
    sub: 'alice',
    expires: Infinity,
    maySubscribe: () => false,
    mayPublish: topic => {
      steps.push(`may ${topic}`)
      return may(topic)
    }
  }
  const writer = {
    grant,
    take: () => {
      steps.push('take')
      if (isSpent) throw new Problem('too many', 'too many writes')
    }
  }
  const publisher = new Publisher(broker.log, new Metrics('test'), MAX_BYTES, clock)
  return { log: broker.log, clock, publisher, writer, steps }
}

const event = (topic: string, rest: Partial<Append> = {}): Append => ({
  topic,
  type: 'message',
  data: 'x',
  ...rest
})

/** A problem of this status. */
const problem = (statusCode: number) => ({ statusCode, message: /./ })

const BAD: readonly (readonly [string, Append, number, string])[] = [
  ['no topic', event('a//b'), 400, 'topic'],
  ['a topic of a feed', event('tickers/A'), 403, 'topic'],
  ['a key that is no text', event('a', { key: 'a\ud800' }), 400, 'key'],
  ['a type of the server', event('a', { type: 'cursor' }), 422, 'type'],
  ['too large', event('a', { data: 'x'.repeat(MAX_BYTES + 1) }), 413, 'data']
]

t.test('check, may, rate, append: in this order', async t => {
  const { publisher, writer, steps } = await setUp()
  await publisher.publish([event('a'), event('b')], { source: 'events', writer })
  t.strictSame(steps, ['may a', 'may b', 'take', 'append a,b'])
})

t.test('what is wrong is told before what is not allowed, and that before the rate', async t => {
  for (const [name, bad, statusCode, path] of BAD) {
    const { publisher, writer, steps } = await setUp({ may: () => false, isSpent: true })
    await t.rejects(
      publisher.publish([event('a'), bad], {
        source: 'events',
        writer,
        nameOf: (part, index) => `/${index}/${part}`
      }),
      { statusCode, errors: [{ path: `/1/${path}` }] },
      name
    )
    t.strictSame(steps, [])
  }
  const { publisher, writer, steps } = await setUp({ may: topic => topic === 'a', isSpent: true })
  await t.rejects(publisher.publish([event('a'), event('b')], { source: 'events', writer }), {
    statusCode: 403,
    reason: 'forbidden',
    errors: [{ path: 'topic' }]
  })
  t.strictSame(steps, ['may a', 'may b'])
  await t.rejects(publisher.publish([event('a')], { source: 'events', writer }), problem(429))
  t.strictSame(steps.slice(2), ['may a', 'take'])
})

t.test('the program is held to what is checked, and to nothing else', async t => {
  const { publisher, steps } = await setUp()
  for (const [name, bad, statusCode, path] of BAD) {
    await t.rejects(publisher.publish([bad], { source: 'events' }), { statusCode, errors: [{ path }] }, name)
  }
  await publisher.publish([event('a', { data: 'x'.repeat(MAX_BYTES) })], { source: 'demo' })
  t.strictSame(steps, ['append a'])
})

t.test('a feed writes its own topics, with its own types, and no others', async t => {
  const { publisher } = await setUp()
  const as = (feed: Publication['feed'], topic: string) =>
    publisher.publish([event(topic, { type: 'snapshot' })], { source: 'events', feed })
  await as('dashboards', 'dashboards/a')
  await t.rejects(as('dashboards', 'tickers/a'), { statusCode: 403, message: /through \/tickers only/ })
  t.throws(() => publisher.admit(['tickers/a'], { source: 'dashboards', feed: 'dashboards' }), problem(403))
  t.throws(() => publisher.admit(['a//b'], { source: 'dashboards', feed: 'dashboards' }), problem(400))
})

t.test('every feed comes through the same door', async t => {
  const setups = {
    refused: { may: (topic: string) => topic !== 'notifications/bob' && topic.startsWith('notifications/') },
    spent: { isSpent: true }
  }
  for (const [name, setup] of Object.entries(setups)) {
    const { log, clock, publisher, writer, steps } = await setUp(setup)
    const statusCode = name === 'refused' ? 403 : 429
    const tickers = new Tickers(log, publisher)
    const dashboards = new Dashboards(log, publisher)
    const notifications = new Notifications(log, publisher, clock)
    await t.rejects(tickers.publish([{ symbol: 'A', json: '{}' }], { writer }), problem(statusCode))
    await t.rejects(dashboards.put('a', '{}', { writer }), problem(statusCode))
    await t.rejects(dashboards.patch('a', '{}', { writer }), problem(statusCode))
    await t.rejects(dashboards.delete('a', { writer }), problem(statusCode))
    const message = { title: 'x', priority: 'normal' }
    await t.rejects(notifications.send(['alice', 'bob'], message, { writer }), problem(statusCode))
    t.notOk(
      steps.some(step => step.startsWith('append')),
      `${name}: nothing is stored, of the first users of a notification neither`
    )
  }
})

t.test('one write counts once, and one’s own inbox takes no right to publish', async t => {
  const { log, clock, publisher, writer, steps } = await setUp({ may: () => false })
  const notifications = new Notifications(log, publisher, clock)
  const users = ['alice', 'bob', 'carol']
  const { ids } = await notifications.send(users, { title: 'x', priority: 'normal' })
  steps.length = 0
  await notifications.markRead('alice', { ids: [ids['alice']!] }, { writer })
  t.strictSame(steps, ['take', 'append notifications/alice'])
  steps.length = 0
  await notifications.delete('alice', ids['alice']!, writer)
  t.strictSame(steps, ['take', 'append notifications/alice'])

  const able = await setUp()
  const others = new Notifications(able.log, able.publisher, able.clock)
  await others.send(users, { title: 'x', priority: 'normal' }, { writer: able.writer })
  t.equal(able.steps.filter(step => step === 'take').length, 1)
  t.equal(able.steps.filter(step => step.startsWith('append')).length, 3)
})

t.test('what a feed was sent is no larger than an event', async t => {
  const { log, clock, publisher } = await setUp()
  const text = 'x'.repeat(MAX_BYTES)
  const tooLarge = { statusCode: 413, message: /bytes; at most 100 are allowed/ }
  const symbols = [
    { symbol: 'A', json: '{}' },
    { symbol: 'B', json: `"${text}"` }
  ]
  await t.rejects(
    new Tickers(log, publisher).publish(symbols, { nameOf: (part, index) => `/${index}/${part}` }),
    { ...tooLarge, errors: [{ path: '/1/data' }] }
  )
  await t.rejects(new Dashboards(log, publisher).put('a', `{"a":"${text}"}`), tooLarge)
  await t.rejects(
    new Notifications(log, publisher, clock).send(['alice'], { title: text, priority: 'normal' }),
    tooLarge
  )
})

t.test('a key belongs to its user and topic', async t => {
  const { publisher, writer } = await setUp()
  const outcome = async (topic: string, sub: string | null, grant: Partial<Grant> = {}) => {
    const by = { ...writer, grant: { ...writer.grant, ...grant, sub } }
    const [appended] = await publisher.publish([event(topic, { key: 'k' })], { source: 'events', writer: by })
    return appended!.outcome
  }
  t.equal(await outcome('a', 'alice'), 'stored')
  t.equal(await outcome('b', 'alice'), 'stored')
  t.equal(await outcome('a', 'bob'), 'stored')
  t.equal(await outcome('a', null), 'stored')
  t.equal(await outcome('a', '["alice"'), 'stored')
  t.equal(await outcome('a', 'alice'), 'replayed')
  t.equal(await outcome('a', null), 'replayed')
  const developer = { ...writer, grant: new Developer('carol') }
  const [again] = await publisher.publish([event('a', { key: 'k' })], { source: 'events', writer: developer })
  t.equal(again!.outcome, 'replayed', 'without tokens a user is what the query says: everyone is one')
})

t.test('who has run out by now publishes nothing', async t => {
  const { publisher, writer, steps, clock } = await setUp()
  const late = { ...writer, grant: { ...writer.grant, expires: clock.now() } }
  await t.rejects(publisher.publish([event('a')], { source: 'events', writer: late }), {
    ...{ ...problem(401), reason: 'expired' }
  })
  t.strictSame(steps, ['may a'])
})
