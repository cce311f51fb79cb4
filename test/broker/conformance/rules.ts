import type { Test } from 'tap'
import { comparePositions, isEphemeral, type Position } from '../../../src/event.ts'
import { begin, outcomes, type Bench } from './bench.ts'
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

  t.test('an ephemeral event is handed over in its place, on every instance, and is nowhere', async t => {
    const bench = await begin(t, make, { rules: EPHEMERAL })
    const other = await bench.another(t)
    const benches = other ? [bench, other] : [bench]
    for (const each of benches) await listen(each, ['e/a', 'e/*', 's/a'])
    const start = await bench.log.position()
    const topics = ['s/a', 'e/a', 'e/a', 's/a', 'e/b', 'e/a', 's/a']
    const ids = await bench.appendAll(topics)
    for (const topic of topics) ids.push(await bench.append(topic))
    const sent = [...topics, ...topics]
    const idsOn = (topic: string) => ids.filter((_, index) => sent[index] === topic)
    for (const { inbox } of benches) {
      await inbox.until(() => inbox.all.length === sent.length, 'all of them')
      for (let shard = 0; shard < bench.log.shards; shard++) {
        const own = inbox.all.filter(event => event.shard === shard).map(({ id }) => id)
        const expected = ids.filter((_, index) => bench.shardOf(sent[index]!) === shard)
        t.strictSame(own, expected, 'in the order of their ids')
        t.strictSame(own, [...own].sort(comparePositions))
      }
      for (const event of inbox.all) t.equal(isEphemeral(event), event.topic.startsWith('e/'))
    }
    const last = idsOn('e/a').at(-1)!
    for (const each of benches) {
      for (const filter of ['e/a', 'e/*']) {
        for (const after of [start, bench.log.birth, bench.at('e/a', last)]) {
          const { events, gaps } = await each.range(filter, after)
          t.strictSame([events, [...gaps]], [[], []], `nothing of ${filter}, and no gap`)
        }
        t.strictSame((await each.log.newest(filter, start, 100)).events, [])
        t.equal((await each.log.rewind(filter, 5)).size, 0)
      }
      t.strictSame(await each.log.topics('e/*'), [])
    }
    const { events } = await bench.range('s/a', start)
    const stored = idsOn('s/a')
    t.strictSame(
      events.map(({ id, prev }) => [id, prev]),
      stored.map((id, index) => [id, stored[index - 1] ?? null]),
      'those that are stored follow on each other'
    )
    t.ok(bench.reaches(await bench.log.position(), bench.at('e/a', last), 'e/a'), 'it has moved the position')
  })

  t.test('the key of an ephemeral event is remembered: it is handed over once', async t => {
    const bench = await begin(t, make, { rules: EPHEMERAL })
    await listen(bench, ['e/a', 'e/b'])
    // for how long it may be replayed says nothing about one that never is
    const event = { topic: 'e/a', type: 'message', data: '1', key: 'k', ttl: 60 }
    const first = await bench.log.append([event])
    t.strictSame(outcomes(first), ['stored'])
    t.strictSame(await bench.log.append([event]), [{ ...first[0], outcome: 'replayed' }])
    t.strictSame(outcomes(await bench.log.append([{ ...event, data: '2' }])), ['key reused'])
    bench.subject.rules.replace([])
    t.strictSame(
      await bench.log.append([event]),
      [{ ...first[0], outcome: 'replayed' }],
      'whatever holds by then'
    )
    bench.subject.rules.replace(EPHEMERAL)
    const both = await bench.log.append([event, { ...event, topic: 'e/b', key: 'other' }])
    t.strictSame(outcomes(both), ['replayed', 'stored'])
    await bench.inbox.until(() => bench.inbox.all.some(({ topic }) => topic === 'e/b'), 'the last one')
    await bench.append('e/a')
    await bench.inbox.until(() => bench.inbox.all.length >= 3, 'one without a key')
    t.strictSame(bench.inbox.all.map(({ topic }) => topic).sort(), ['e/a', 'e/a', 'e/b'])
  })

  t.test('a topic may become ephemeral, and stop being it: what was stored stays', async t => {
    const bench = await begin(t, make)
    const { rules } = bench.subject
    const end = await bench.log.append([{ topic: 'done', type: 'end', data: '1' }])
    await listen(bench, ['a'])
    const first = await bench.append('a')
    rules.replace([{ match: '**', ephemeral: true }])
    const passed = await bench.appendAll(['a', 'a'])
    t.strictSame(await held(bench, 'a'), [first])
    const next = [{ topic: 'done', type: 'message', data: '2' }]
    t.strictSame(
      outcomes(await bench.log.append(next)),
      ['ended'],
      'it has ended for as long as its end is there'
    )
    t.strictSame((await bench.log.subscribe('done')).end, bench.idOf('done', end[0]!))
    rules.replace([])
    const second = await bench.append('a')
    await bench.inbox.until(() => bench.inbox.all.length === 4, 'all of them')
    t.strictSame(
      bench.inbox.all.map(({ id, prev }) => [id, prev]),
      [[first, null], ...[...passed, second].map(id => [id, first])],
      'each names the one before it that was stored'
    )
    t.strictSame(await held(bench, 'a'), [first, second])
    t.strictSame([...(await bench.range('a')).gaps], [])
  })

  t.test('what means nothing unless it is stored is stored, also on an ephemeral topic', async t => {
    const bench = await begin(t, make, { rules: [{ match: '**', ephemeral: true }] })
    await bench.log.append([
      { topic: 'a', type: 'message', data: '1', state: { value: 'one' } },
      { topic: 'b', type: 'end', data: '2' }
    ])
    t.equal((await bench.log.state('a'))?.value, 'one')
    t.ok((await bench.log.subscribe('b')).end)
    const feeds = ['tickers/A', 'dashboards/d', 'notifications/alice']
    await bench.appendAll(feeds)
    for (const topic of feeds) t.equal((await held(bench, topic)).length, 1, topic)
  })

  t.test('the id of an ephemeral event is a cursor, and its key is known, after a restart', async t => {
    const before = await begin(t, make, { rules: EPHEMERAL })
    const event = { topic: 'e/a', type: 'message', data: '1', key: 'k' }
    await before.append('s/a')
    const id = before.idOf('e/a', (await before.log.append([event]))[0]!)
    const after = await before.restart(t)
    const { keeps } = after.subject
    t.ok(after.reaches(await after.log.position(), after.at('e/a', id), 'e/a'))
    t.strictSame(outcomes(await after.log.append([event])), [keeps ? 'replayed' : 'stored'])
    t.ok(comparePositions(id, await after.append('e/a')) < 0)
    if (!keeps) return
    const { events, gaps } = await after.range('e/*', after.at('e/a', id))
    t.strictSame([events, [...gaps]], [[], []])
  })
}

const EPHEMERAL = [{ match: 'e/**', ephemeral: true }]

async function listen(bench: Bench, filters: readonly string[]): Promise<void> {
  for (const filter of filters) await bench.subscribe(filter)
}

async function held(bench: Bench, topic: string): Promise<Position[]> {
  return (await bench.range(topic)).events.map(({ id }) => id)
}
