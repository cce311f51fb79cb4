import type { Test } from 'tap'
import { comparePositions } from '../../../src/event.ts'
import { begin } from './bench.ts'
import type { MakeSubject } from './subject.ts'

/** What every event log owes to the rules for topics, on every store. */
export function logKeepsRules(t: Test, make: MakeSubject): void {
  t.test('each topic has the ring of its rule', async t => {
    const rules = [
      { match: 'small/**', ring: 2 },
      { match: '*/large', ring: 5 }
    ]
    const bench = await begin(t, make, { RING_SIZE: 3, rules })
    const start = await bench.log.position()
    const kept = async (topic: string) => {
      const ids = await bench.appendAll(Array(6).fill(topic))
      const { events, gaps } = await bench.log.range(topic, start, 100)
      t.equal(gaps.size, 1, `${topic} has lost some`)
      t.strictSame(gaps.get(topic), ids.at(-events.length - 1), 'and says which')
      return events.length
    }
    t.equal(await kept('small/a'), 2)
    t.equal(await kept('small/large'), 2, 'the first rule that matches holds')
    t.equal(await kept('x/large'), 5)
    t.equal(await kept('x/small'), 3, 'without a rule RING_SIZE')
    const { events } = await bench.log.range('x/*', start, 100)
    t.equal(events.length, 8, 'also by a wildcard over both')
  })

  t.test(
    'each topic has the ttl of its rule, and its losses are told for as long as any cursor counts',
    async t => {
      const rules = [
        { match: 'a/short', ttl: 1000 },
        { match: 'a/long', ttl: 3_600_000 }
      ]
      const bench = await begin(t, make, { RING_TTL: 3500, rules })
      const start = await bench.log.position()
      const topics = ['a/short', 'a/middle', 'a/long']
      const [short, middle, long] = await bench.appendAll(topics)
      const held = async () => {
        const { events } = await bench.log.range('a/*', start, 100)
        // with several shards in the order of each
        return topics.filter(topic => events.some(event => event.topic === topic))
      }
      t.strictSame(await held(), topics)
      await bench.pass(1100)
      await bench.ticked()
      t.strictSame(await held(), ['a/middle', 'a/long'])
      const page = await bench.log.range('a/short', start, 100)
      t.strictSame([page.events.length, page.gaps.get('a/short')], [0, short])
      await bench.pass(2500)
      await bench.ticked()
      t.strictSame(await held(), ['a/long'])
      const gaps = [...(await bench.log.range('a/*', start, 100)).gaps]
      t.strictSame(
        gaps.sort(([one], [other]) => one.localeCompare(other)),
        [
          ['a/middle', middle],
          ['a/short', short]
        ]
      )
      t.strictSame([...(await bench.log.rewind('a/*', 9)).keys()], ['a/long'], 'rewind knows them as well')
      const newest = await bench.log.newest('a/*', start, 100)
      t.strictSame(
        newest.events.map(({ id }) => id),
        [long],
        'and newest'
      )
      const next = await bench.append('a/short')
      const { events } = await bench.log.range('a/short', start, 100)
      t.strictSame(
        events.map(({ id, prev }) => [id, prev]),
        [[next, short]],
        'what comes next follows on what is gone'
      )
    }
  )

  t.test('a state goes away once its topic had no event for its ttl', async t => {
    const bench = await begin(t, make, { RING_TTL: 60_000, rules: [{ match: 's/mortal', ttl: 2000 }] })
    const set = (topic: string) => ({ topic, type: 'message', data: '1', state: { value: topic } })
    await bench.log.append([set('s/mortal'), set('s/kept')])
    await bench.pass(1200)
    t.equal((await bench.log.state('s/mortal'))?.value, 's/mortal')
    await bench.append('s/mortal')
    await bench.pass(1200)
    t.equal((await bench.log.state('s/mortal'))?.value, 's/mortal', 'any event of the topic keeps it')
    await bench.pass(1200)
    t.equal(await bench.log.state('s/mortal'), null)
    t.strictSame([...(await bench.log.states(['s/mortal', 's/kept'])).keys()], ['s/kept'])
    t.strictSame([...(await bench.log.versions(['s/mortal', 's/kept'])).keys()], ['s/kept'])
    const [first] = await bench.log.append([
      { topic: 's/mortal', type: 'message', data: '2', state: { value: '2', version: null } }
    ])
    t.equal(first!.outcome, 'stored', 'it may begin anew')
  })

  t.test('rules that are replaced hold for what comes from then on', async t => {
    const bench = await begin(t, make, { RING_SIZE: 3, rules: [{ match: 'a', ring: 10 }] })
    const start = await bench.log.position()
    const held = async () => (await bench.log.range('a', start, 100)).events
    await bench.appendAll(Array(12).fill('a'))
    t.equal((await held()).length, 10)
    bench.subject.rules.replace([{ match: '**', ring: 2 }])
    await bench.append('a')
    const events = await held()
    t.equal(events.length, 2)
    t.ok(comparePositions(events[0]!.id, events[1]!.id) < 0)
    bench.subject.rules.replace([{ match: '**', ring: 4 }])
    await bench.appendAll(Array(3).fill('a'))
    t.equal((await held()).length, 4)
    await bench.log.append([{ topic: 'a', type: 'message', data: '1', state: { value: '1' } }])
    bench.subject.rules.replace([{ match: '**', ttl: 1000 }])
    await bench.append('a')
    await bench.pass(1300)
    await bench.ticked()
    t.strictSame([await held(), await bench.log.state('a')], [[], null])
  })
}
