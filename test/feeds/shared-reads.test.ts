/** Documents that many ask for at the same time. */
import t from 'tap'
import { LocalBroker } from '../../src/broker/local/broker.ts'
import { resolveSettings } from '../../src/config.ts'
import { Dashboards } from '../../src/feeds/dashboards.ts'
import { Tickers } from '../../src/feeds/tickers.ts'
import { Metrics } from '../../src/metrics.ts'
import { Publisher } from '../../src/publisher.ts'
import { HeldClock } from '../support/clock.ts'

/** A log that answers a turn later, and what it was asked. */
async function begin() {
  const clock = new HeldClock()
  const { log } = new LocalBroker(resolveSettings(), clock)
  const publisher = new Publisher(log, new Metrics('test'), 1000, clock)
  const [tickers, dashboards] = [new Tickers(log, publisher), new Dashboards(log, publisher)]
  const asked: string[] = []
  const later = async <T>(name: string, answer: Promise<T>) => {
    asked.push(name)
    const value = await answer
    await new Promise(setImmediate)
    return value
  }
  const { state, states, topics, versions } = log
  log.state = topic => later('state', state.call(log, topic))
  log.states = names => later('states', states.call(log, names))
  log.topics = filter => later('topics', topics.call(log, filter))
  log.versions = names => later('versions', versions.call(log, names))
  return { asked, tickers, dashboards }
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
  t.ok(asked.filter(name => name === 'versions').length <= 4)
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
