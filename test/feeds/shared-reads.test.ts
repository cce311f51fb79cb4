/** Documents that many ask for at the same time. */
import t from 'tap'
import { Unwanted, type Asker } from '../../src/asker.ts'
import type { EventLog } from '../../src/broker/event-log.ts'
import { LocalBroker } from '../../src/broker/local/broker.ts'
import { resolveSettings } from '../../src/config.ts'
import { Dashboards } from '../../src/feeds/dashboards.ts'
import { Notifications } from '../../src/feeds/notifications.ts'
import { Tickers } from '../../src/feeds/tickers.ts'
import { Metrics } from '../../src/metrics.ts'
import { Publisher } from '../../src/publisher.ts'
import { HeldClock } from '../support/clock.ts'

/** A log that answers a turn later, and what it was asked. */
async function begin() {
  const clock = new HeldClock()
  const log: EventLog = new LocalBroker(resolveSettings(), clock).log
  const publisher = new Publisher(log, new Metrics('test'), 1000, clock)
  const [tickers, dashboards] = [new Tickers(log, publisher), new Dashboards(log, publisher)]
  const asked: string[] = []
  const askers: (Asker | undefined)[] = []
  const later = async <T>(name: string, answer: Promise<T>, asker: Asker | undefined) => {
    asked.push(name)
    askers.push(asker)
    const value = await answer
    await new Promise(setImmediate)
    return value
  }
  const { state, states, topics, versions } = log
  log.state = (topic, asker) => later('state', state.call(log, topic), asker)
  log.states = (names, asker) => later('states', states.call(log, names), asker)
  log.topics = (filter, asker) => later('topics', topics.call(log, filter), asker)
  log.versions = (names, asker) => later('versions', versions.call(log, names), asker)
  const notifications = new Notifications(log, publisher, clock)
  return { log, asked, askers, tickers, dashboards, notifications }
}

const quote = (price: number) => ({ symbol: 'A', json: `{"symbol":"A","price":${price}}` })

t.test('the latest quotes', async t => {
  const { asked, tickers } = await begin()
  await tickers.publish([quote(1)])
  const first = tickers.latest(['tickers/*'])
  await tickers.publish([quote(2)])
  const others = Array.from({ length: 50 }, () => tickers.latest(['tickers/*']))
  await first
  for (const { quotes } of await Promise.all(others))
    t.strictSame(
      quotes.map(({ json }) => json),
      [quote(2).json],
      'nothing from before they came'
    )
  t.strictSame(asked, ['topics', 'states', 'topics', 'states'])
  await tickers.latest(['tickers/*'])
  t.equal(asked.length, 6, 'nothing is kept')
})

t.test('the list of dashboards: of what each may read', async t => {
  const { asked, dashboards } = await begin()
  for (const id of ['a', 'b']) await dashboards.put(id, '{}')
  asked.length = 0
  const all = Array.from({ length: 50 }, () => dashboards.list(() => true))
  const some = Array.from({ length: 50 }, () => dashboards.list(id => id === 'b'))
  for (const list of await Promise.all(all))
    t.strictSame(
      list.map(({ id }) => id),
      ['a', 'b']
    )
  for (const list of await Promise.all(some))
    t.strictSame(
      list.map(({ id }) => id),
      ['b']
    )
  t.equal(asked.filter(name => name === 'topics').length, 2)
  // for all and for some, each once or twice; and once more for who came first
  t.ok(asked.filter(name => name === 'versions').length <= 5, asked.join(' '))
})

t.test('a dashboard', async t => {
  const { asked, dashboards } = await begin()
  await dashboards.put('a', '{"n":1}')
  asked.length = 0
  const first = dashboards.get('a')
  const put = dashboards.put('a', '{"n":2}')
  await put
  const others = Array.from({ length: 50 }, () => dashboards.get('a'))
  t.match(await first, { json: '{"n":1}' })
  for (const found of await Promise.all(others)) t.match(found, { json: '{"n":2}' })
  t.ok(asked.length <= 4, asked.join()) // one by the put
  t.equal(await dashboards.get('b'), null)
})

t.test('what is read is not wanted any more once all who asked for it have gone', async t => {
  type All = Awaited<ReturnType<typeof begin>>
  const reads: [string, (all: All, asker: Asker) => Promise<unknown>, asked: string[]][] = [
    ['quotes', ({ tickers }, asker) => tickers.latest(['tickers/*'], asker), ['topics']],
    ['dashboards', ({ dashboards }, asker) => dashboards.list(() => true, asker), ['topics']],
    ['a dashboard', ({ dashboards }, asker) => dashboards.get('a', asker), ['state']],
    ['an inbox', ({ notifications }, asker) => notifications.inbox('a', asker), ['state']],
    ['what is unread', ({ notifications }, asker) => notifications.unread('a', asker), ['state']]
  ]
  for (const [what, read, first] of reads) {
    t.test(what, async t => {
      const all = await begin()
      await all.tickers.publish([quote(1)])
      const [one, other] = [{ isGone: false }, { isGone: false }]
      const answers = [read(all, one), read(all, other)].map(answer =>
        answer.catch((error: unknown) => error)
      )
      while (all.asked.length === 0) await Promise.resolve()
      for (const asker of all.askers) t.equal(asker?.isGone, false)
      one.isGone = other.isGone = true
      for (const asker of all.askers) t.equal(asker?.isGone, true)
      const come = await Promise.all(answers)
      t.strictSame([...new Set(all.asked)], first, 'nothing more is asked')
      if (first[0] === 'topics') for (const answer of come) t.type(answer, Unwanted)
    })
  }
})

t.test('reading very much holds up nobody', async t => {
  const { log, tickers, dashboards } = await begin()
  const topics = Array.from({ length: 20_000 }, (_, index) => String((index * 7919) % 20_000))
  for (const feed of ['tickers', 'dashboards']) {
    const appends = topics.map(name => ({
      topic: `${feed}/${name}`,
      type: 'x',
      data: '{}',
      state: { value: name }
    }))
    await log.append(appends)
  }
  const turns = async <T>(read: () => Promise<T>): Promise<[number, T]> => {
    let count = 0
    let next: NodeJS.Immediate
    const turn = () => {
      count++
      next = setImmediate(turn)
    }
    next = setImmediate(turn)
    const answer = await read()
    clearImmediate(next)
    return [count, answer]
  }
  // what the log takes for each of its answers is given back besides
  const [quotesTurns, { quotes }] = await turns(() => tickers.latest(['tickers/*']))
  t.ok(quotesTurns > 3, `${quotesTurns} turns`)
  t.strictSame(
    quotes.map(({ json }) => json),
    topics,
    'by their age'
  )
  const [listTurns, list] = await turns(() => dashboards.list(() => true))
  t.ok(listTurns > 3, `${listTurns} turns`)
  t.strictSame(
    list.map(({ id }) => id),
    [...topics].sort()
  )
})
