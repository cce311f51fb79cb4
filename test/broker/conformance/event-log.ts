import type { Test } from 'tap'
import type { Append } from '../../../src/broker/event-log.ts'
import { comparePositions, covers, type Position } from '../../../src/event.ts'
import { begin as beginBench, idsOf, outcomes } from './bench.ts'
import type { MakeSubject, SubjectSettings } from './subject.ts'

/** What every event log owes to who uses it: src/broker/event-log.ts says it in words. */
export function logConforms(t: Test, make: MakeSubject): void {
  const begin = (test: Test, settings?: Partial<SubjectSettings>) => beginBench(test, make, settings)

  t.test('ids only grow', async t => {
    const bench = await begin(t)
    const ids: Position[] = []
    for (let round = 0; round < 3; round++) {
      ids.push(await bench.append('a'))
      ids.push(...(await bench.appendAll(['a', 'a', 'a'])))
      ids.push(...(await Promise.all([bench.append('a'), bench.append('a')])))
    }
    ids.forEach(
      (id, index) => index > 0 && t.ok(comparePositions(ids[index - 1]!, id) < 0, `${index} comes after`)
    )
  })

  t.test('ids grow although the clock is set back', async t => {
    const bench = await begin(t)
    const { stepBack } = bench.subject
    if (!stepBack) return t.pass('the clock of this store is not ours', { skip: true })
    const first = await bench.append('a')
    stepBack(60_000)
    const second = await bench.append('a')
    const third = await bench.append('b')
    t.ok(comparePositions(first, second) < 0)
    t.ok(comparePositions(second, third) < 0)
    t.strictSame(second.ms, first.ms, 'it waits for the clock where it was')
  })

  t.test('an event is what was published', async t => {
    const bench = await begin(t)
    const bytes = Uint8Array.from([0, 255, 10, 13, 128])
    const published: Append[] = [
      { topic: 'räume/küche 1', type: 'quote', data: '{"a":"ü\n\r\u2028 \\u0000"}' },
      { topic: 'räume/küche 1', type: 'message', data: bytes },
      { topic: 'räume/küche 1', type: 'x.y:z-1_', data: '' }
    ]
    await bench.subscribe('räume/küche 1')
    const ids = idsOf(await bench.log.append(published))
    await bench.inbox.until(() => bench.inbox.all.length === 3, 'three events')
    const { events } = await bench.range('räume/*')
    for (const list of [bench.inbox.all, events]) {
      t.strictSame(
        list.map(({ topic, type, data }) => ({
          topic,
          type,
          data: typeof data === 'string' ? data : [...data]
        })),
        published.map(({ topic, type, data }) => ({
          topic,
          type,
          data: typeof data === 'string' ? data : [...data]
        }))
      )
      t.strictSame(
        list.map(({ id, shard }) => [id, shard]),
        ids.map(id => [id[bench.shardOf('räume/küche 1')], bench.shardOf('räume/küche 1')])
      )
    }
  })

  t.test('each event names the one before it on its topic, also when that is gone', async t => {
    const bench = await begin(t, { RING_SIZE: 2 })
    await bench.subscribe('a')
    const ids: (Position | null)[] = [null]
    for (let round = 0; round < 5; round++) {
      ids.push(await bench.append('a'))
      await bench.append('b')
    }
    const handedOver = bench.inbox
    await handedOver.until(() => handedOver.all.length === 5, 'five events')
    t.strictSame(
      handedOver.all.map(({ prev }) => prev),
      ids.slice(0, 5)
    )
    const { events } = await bench.range('a')
    t.strictSame(
      events.map(({ prev }) => prev),
      ids.slice(3, 5)
    )
  })

  t.test('a range begins after its cursor and is complete up to its end', async t => {
    const bench = await begin(t)
    const ids = await bench.appendAll(Array.from({ length: 7 }, () => 'a'))
    const stored = await bench.log.position()
    const all = await bench.range('a')
    t.strictSame(
      all.events.map(({ id }) => id),
      ids
    )
    t.ok(bench.reaches(all.end, stored, 'a'), 'with nothing left, up to what was stored')
    const rest = await bench.range('a', bench.at('a', ids[2]!))
    t.strictSame(
      rest.events.map(({ id }) => id),
      ids.slice(3)
    )
    t.strictSame((await bench.range('a', bench.at('a', ids[6]!))).events, [])
    t.strictSame((await bench.range('nothing')).events, [])
    for (const [limit, filter] of [3, 1, 7].flatMap(limit =>
      ['a', '*'].map(filter => [limit, filter] as const)
    )) {
      const found = await bench.pages(filter, limit)
      t.strictSame(
        found.map(({ id }) => id),
        ids,
        `by pages of ${limit} of ${filter}`
      )
    }
  })

  t.test('a wildcard covers the topics of one level, merged by id', async t => {
    const bench = await begin(t)
    const topics = ['s/x', 's/y', 's/x', 's/z', 's', 's/x/y', 's/y', 't/x', 's/x', 's/z', 's/z', 's/y']
    const ids = await bench.appendAll(topics)
    // ids of several shards are compared by nobody but this
    const expected = ids.filter((_, index) => /^s\/[^/]+$/.test(topics[index]!)).sort(comparePositions)
    for (const limit of [100, 4, 1]) {
      const found = await bench.pages('s/*', limit)
      t.strictSame(found.map(({ id }) => id).sort(comparePositions), expected, `by pages of ${limit}`)
      for (let shard = 0; shard < bench.log.shards; shard++) {
        const own = found.filter(event => event.shard === shard).map(({ id }) => id)
        t.strictSame(own, [...own].sort(comparePositions), 'in the order of their ids')
      }
    }
    t.strictSame(
      (await bench.range('*')).events.map(({ topic }) => topic),
      ['s']
    )
  })

  t.test('a ring holds its newest events, and a range tells of the others', async t => {
    const bench = await begin(t, { RING_SIZE: 3 })
    const ids = await bench.appendAll(['a', 'a', 'a', 'a', 'a'])
    const from = async (id: Position, limit?: number, filter = 'a') =>
      bench.range(filter, bench.at('a', id), limit)
    for (const filter of ['a', '*']) {
      const all = await bench.range(filter)
      t.strictSame(
        all.events.map(({ id }) => id),
        ids.slice(2)
      )
      t.strictSame([...all.gaps], [['a', ids[1]]], 'with the last that is gone')
      t.strictSame([...(await from(ids[0]!, 100, filter)).gaps], [['a', ids[1]]])
      t.strictSame(
        [...(await from(ids[1]!, 100, filter)).gaps],
        [],
        'nothing is missing after the last that is gone'
      )
      t.strictSame([...(await from(ids[3]!, 100, filter)).gaps], [])
      t.strictSame([...(await from(ids[4]!, 100, filter)).gaps], [])
      const cut = await from(ids[0]!, 1, filter)
      t.strictSame([...cut.gaps], [['a', ids[1]]], 'also when the page is cut')
    }
  })

  t.test('pages tell of every loss that their filter covers, each before what comes after it', async t => {
    const bench = await begin(t, { RING_SIZE: 1 })
    let cursor = await bench.log.position()
    const lost = await bench.appendAll(['s/a', 's/b', 's/b', 's/c', 's/c', 's/c'])
    await bench.appendAll(['s/a', 's/d', 's/b', 's/c'])
    const expected = new Map([
      ['s/a', lost[0]],
      ['s/b', lost[2]],
      ['s/c', lost[5]]
    ])
    const gaps = new Map<string, Position>()
    const events: string[] = []
    for (let page = 0; page < 20; page++) {
      const { events: some, end, gaps: told } = await bench.log.range('s/*', cursor, 1)
      for (const [topic, last] of told) gaps.set(topic, last)
      for (const { topic } of some) {
        t.strictSame(gaps.get(topic), expected.get(topic), `${topic} comes after what is told of it`)
        events.push(topic)
      }
      cursor = end
    }
    t.strictSame(events.sort(), ['s/a', 's/b', 's/c', 's/d'])
    t.strictSame(new Map([...gaps].sort()), expected)
  })

  t.test('a topic that was born after the cursor has lost nothing', async t => {
    const bench = await begin(t)
    await bench.append('s/old')
    const cursor = await bench.log.position()
    const ids = await bench.appendAll(['s/new', 's/new'])
    for (const filter of ['s/new', 's/*']) {
      const { events, gaps } = await bench.range(filter, cursor)
      t.strictSame(
        events.map(({ id }) => id),
        ids
      )
      t.strictSame([...gaps], [])
    }
  })

  t.test('what is older than RING_TTL may go, but not without a trace', async t => {
    const bench = await begin(t, { RING_TTL: 2000 })
    const start = await bench.log.position()
    const first = await bench.append('a')
    await bench.pass(1500)
    const young = await bench.log.position()
    const second = await bench.append('a')
    await bench.pass(1000)
    const { events, gaps } = await bench.range('a', start)
    const found = events.map(({ id }) => id)
    t.strictSame(found.at(-1), second, 'what is young is there')
    if (found.length === 1) t.strictSame(gaps.get('a'), first)
    else t.strictSame(found, [first, second])
    t.strictSame(
      [...(await bench.range('a', bench.ahead('a', young, first))).gaps],
      [],
      'a young cursor has missed nothing'
    )
  })

  t.test('an event that has run out is passed over, and is no gap', async t => {
    const bench = await begin(t)
    const ids = idsOf(
      await bench.log.append([
        { topic: 'a', type: 'message', data: '1', ttl: 1 },
        { topic: 'a', type: 'message', data: '2', ttl: 1 },
        { topic: 'a', type: 'message', data: '3', ttl: 3600 },
        { topic: 'a', type: 'message', data: '4' }
      ])
    ).map(id => id[bench.shardOf('a')]!)
    t.strictSame((await bench.range('a')).events.length, 4)
    t.ok((await bench.range('a')).events[0]!.expires)
    await bench.pass(1100)
    await bench.append('b')
    for (const filter of ['a', '*']) {
      const page = await bench.range(filter)
      t.strictSame(
        page.events.filter(({ topic }) => topic === 'a').map(({ id }) => id),
        ids.slice(2)
      )
      t.strictSame([...page.gaps], [])
      const found = await bench.pages(filter, 1)
      t.strictSame(
        found.filter(({ topic }) => topic === 'a').map(({ id }) => id),
        ids.slice(2),
        'also by pages of one'
      )
    }
  })

  t.test('rewind finds from where a topic has its last events', async t => {
    const bench = await begin(t, { RING_SIZE: 4 })
    const ids = await bench.appendAll(['s/a', 's/b', 's/a', 's/a', 's/a', 's/a', 's/b', 'other'])
    const ofA = [0, 2, 3, 4, 5].map(index => ids[index]!)
    for (const [count, expected] of [
      [1, 1],
      [2, 2],
      [4, 4],
      [5, 4],
      [1000, 4]
    ] as const) {
      const start = (await bench.log.rewind('s/a', count)).get('s/a')
      t.ok(start)
      const { events, gaps } = await bench.range('s/a', bench.at('s/a', start!))
      t.strictSame(
        events.map(({ id }) => id),
        ofA.slice(-expected),
        `the last ${count}`
      )
      t.strictSame([...gaps], [])
    }
    const all = await bench.log.rewind('s/*', 1)
    t.strictSame([...all.keys()].sort(), ['s/a', 's/b'])
    for (const [topic, last] of [
      ['s/a', ids[5]!],
      ['s/b', ids[6]!]
    ] as const) {
      const { events } = await bench.range(topic, bench.at(topic, all.get(topic)!))
      t.strictSame(
        events.map(({ id }) => id),
        [last]
      )
    }
    t.strictSame([...(await bench.log.rewind('s/none', 3)).keys()], [])
  })

  t.test('rewind passes over what has run out', async t => {
    const bench = await begin(t)
    const lasting = await bench.appendAll(['s/a', 's/a', 's/a'])
    const short = Array.from({ length: 60 }, () => ({ topic: 's/a', type: 'message', data: '0', ttl: 1 }))
    await bench.log.append(short)
    const found = async (filter: string, count: number) => {
      const start = (await bench.log.rewind(filter, count)).get('s/a')
      return (await bench.range('s/a', bench.at('s/a', start!))).events.map(({ id }) => id)
    }
    await bench.pass(1100)
    await bench.append('other')
    for (const filter of ['s/a', 's/*']) {
      for (const count of [1, 2, 3, 100])
        t.strictSame(await found(filter, count), lasting.slice(-count), `${filter} ${count}`)
    }
  })

  t.test('the newest of each topic, page by page, each once', async t => {
    const bench = await begin(t)
    const start = bench.log.birth
    const names = Array.from({ length: 12 }, (_, number) => `s/${number}`)
    // several in one millisecond, and some topics again and again
    await bench.appendAll(names)
    await bench.appendAll(['s/3', 's/3', 's/7', 't/0', 's/3'])
    for (const name of ['s/5', 's/0']) await bench.append(name)
    for (const limit of [1, 3, 5, 100]) {
      for (const filter of ['s/*', 's/3', 's/none']) {
        const found = new Map<string, Position>()
        for (let after = start; ;) {
          const { events, end, gaps } = await bench.log.newest(filter, after, limit)
          t.equal(gaps.size, 0)
          const ids = events.map(({ id, shard }) => ({ id, shard }))
          ids.forEach((each, index) => {
            const before = ids.slice(0, index).findLast(({ shard }) => shard === each.shard)
            if (before) t.ok(comparePositions(before.id, each.id) < 0, 'oldest first')
          })
          for (const { topic, id } of events) {
            t.notOk(found.has(topic), `${filter} by ${limit}: ${topic} comes once`)
            found.set(topic, id)
          }
          if (events.length === 0) break
          t.ok(covers(end, after), 'it goes on')
          after = end
        }
        const { events } = await bench.range(filter)
        const newest = new Map(events.map(({ topic, id }) => [topic, id]))
        t.strictSame(new Map([...found].sort()), new Map([...newest].sort()), `${filter} by ${limit}`)
      }
    }
  })

  t.test('a key that was used before stores nothing', async t => {
    const bench = await begin(t)
    const event = { topic: 'a', type: 'message', data: '1', key: 'k 1\nü' }
    const first = await bench.log.append([event])
    t.strictSame(outcomes(first), ['stored'])
    const again = await bench.log.append([event])
    t.strictSame(outcomes(again), ['replayed'])
    t.strictSame(idsOf(again), idsOf(first), 'with the first id')
    for (const other of [{ data: '2' }, { type: 'x' }, { topic: 'a', data: '' }]) {
      t.strictSame(outcomes(await bench.log.append([{ ...event, ...other }])), ['key reused'])
    }
    const both = await bench.log.append([
      { ...event, key: 'k2', data: '5' },
      { ...event, data: 'other' }
    ])
    t.strictSame(outcomes(both), ['not stored', 'key reused'], 'all or none')
    const mixed = await bench.log.append([{ ...event, key: 'k2', data: '5' }, event])
    t.strictSame(outcomes(mixed), ['stored', 'replayed'])
    t.strictSame(
      (await bench.range('a')).events.map(({ data }) => data),
      ['1', '5']
    )
  })

  t.test('two at once with one key store one event', async t => {
    const bench = await begin(t)
    const event = { topic: 'a', type: 'message', data: '1', key: 'k' }
    const all = (await Promise.all(Array.from({ length: 5 }, () => bench.log.append([event])))).flat()
    t.strictSame(outcomes(all).sort(), ['replayed', 'replayed', 'replayed', 'replayed', 'stored'])
    t.strictSame(new Set(idsOf(all).map(id => JSON.stringify(id))).size, 1)
    t.strictSame((await bench.range('a')).events.length, 1)
  })

  t.test('a key is answered with the first id, whatever was stored since, by every instance', async t => {
    const bench = await begin(t)
    const topics = Array.from({ length: 16 }, (_, index) => `s/${index}`)
    const events = topics.map(topic => ({ topic, type: 'message', data: '1', key: `k ${topic}` }))
    await bench.subscribe('s/*')
    const first = idsOf(await bench.log.append(events))
    await bench.appendAll(topics)
    await bench.inbox.until(() => bench.inbox.all.length === 2 * topics.length, 'what was stored since')
    const again = await bench.log.append(events)
    t.strictSame(new Set(outcomes(again)), new Set(['replayed']))
    t.strictSame(idsOf(again), first)
    const other = await bench.another(t)
    if (other) t.strictSame(idsOf(await other.log.append(events)), first)
  })

  t.test('a key is forgotten after ten minutes, not before', async t => {
    const bench = await begin(t)
    if (!bench.subject.isHeld) return t.pass('nobody waits that long', { skip: true })
    const event = { topic: 'a', type: 'message', data: '1', key: 'k' }
    await bench.log.append([event])
    await bench.pass(599_000)
    t.strictSame(outcomes(await bench.log.append([event])), ['replayed'])
    await bench.pass(2000)
    t.strictSame(outcomes(await bench.log.append([event])), ['stored'])
    t.strictSame(outcomes(await bench.log.append([event])), ['replayed'])
  })

  t.test('a topic ends with an event of the type end, and nothing is stored on it any more', async t => {
    const bench = await begin(t)
    const end = { topic: 's/a', type: 'end', data: 'done', key: 'k' }
    const next = { topic: 's/a', type: 'message', data: 'late' }
    await bench.subscribe('s/*')
    t.equal((await bench.log.subscribe('s/a')).end, null, 'it has not begun')
    await bench.append('s/a')
    const [first, ...rest] = (
      await Promise.all([end, next, { ...end, key: 'other' }].map(each => bench.log.append([each])))
    ).flat()
    t.strictSame(
      outcomes([first!, ...rest]),
      ['stored', 'ended', 'ended'],
      'also at once, and for another end'
    )
    const id = bench.idOf('s/a', first!)
    t.strictSame(outcomes(await bench.log.append([next])), ['ended'])
    t.strictSame(
      await bench.log.append([end]),
      [{ ...first, outcome: 'replayed' }],
      'what ended it may come again'
    )
    t.strictSame(outcomes(await bench.log.append([{ ...end, data: 'other' }])), ['key reused'])
    const inShard = (topic: string) => bench.shardOf(topic) === bench.shardOf('s/a')
    const near = Array.from({ length: 100 }, (_, n) => `s/${n}`).find(inShard)!
    const both = [{ ...next, topic: near }, next, { ...next, topic: near }]
    t.strictSame(outcomes(await bench.log.append(both)), ['not stored', 'ended', 'not stored'], 'all or none')
    await bench.append('s/b')
    await bench.inbox.until(() => bench.inbox.all.length === 3, 'the others')
    t.strictSame(bench.inbox.all.map(({ topic, type }) => `${topic} ${type}`).sort(), [
      's/a end',
      's/a message',
      's/b message'
    ])
    t.strictSame((await bench.range('s/a')).events.map(({ type, data }) => [type, data]).at(-1), [
      'end',
      'done'
    ])
    t.strictSame((await bench.log.subscribe('s/a')).end, id, 'who subscribes is told')
    t.strictSame((await bench.log.subscribe('s/*')).end, null, 'of a wildcard new topics may come')
    const other = await bench.another(t)
    if (!other) return
    t.strictSame((await other.log.subscribe('s/a')).end, id, 'every instance knows')
    t.strictSame(outcomes(await other.log.append([next])), ['ended'])
  })

  t.test('a topic may begin anew when its end has gone', async t => {
    const bench = await begin(t, { RING_TTL: 2000, RING_SIZE: 2 })
    if (!bench.subject.isHeld) return t.pass('nobody waits that long', { skip: true })
    const end = { topic: 'a', type: 'end', data: '' }
    const end1 = await bench.log.append([end])
    t.strictSame(outcomes(await bench.log.append([end])), ['ended'])
    await bench.pass(1900)
    t.strictSame(outcomes(await bench.log.append([end])), ['ended'])
    await bench.pass(1200)
    t.strictSame((await bench.range('a')).events, [], 'it has gone')
    t.equal((await bench.log.subscribe('a')).end, null)
    const id = await bench.append('a')
    t.equal((await bench.log.subscribe('a')).end, null)
    const { events, gaps } = await bench.range('a')
    t.strictSame(
      events.map(each => [each.id, each.prev]),
      [[id, bench.idOf('a', end1[0]!)]]
    )
    t.strictSame([...gaps], [['a', bench.idOf('a', end1[0]!)]])
    t.strictSame(outcomes(await bench.log.append([end])), ['stored'], 'and end again')
    t.strictSame(outcomes(await bench.log.append([end])), ['ended'])
  })

  t.test('a topic that is cleared holds nothing, and who has not had its events is told', async t => {
    const bench = await begin(t)
    t.equal(await bench.log.clear('s/a'), null, 'nothing is known of it')
    const [first, other] = (await bench.appendAll(['s/a', 's/b', 's/a', 's/a'])) as [Position, Position]
    const end = { topic: 's/a', type: 'end', data: '', state: { value: '{}' } }
    const last = bench.idOf('s/a', (await bench.log.append([end]))[0]!)
    t.strictSame(await bench.log.clear('s/a'), last)
    for (const [filter, left] of [
      ['s/a', []],
      ['s/*', [other]]
    ] as const) {
      const { events, gaps } = await bench.range(filter, bench.at('s/a', first))
      t.strictSame(
        events.map(({ id }) => id),
        left,
        filter
      )
      t.strictSame([...gaps], [['s/a', last]], filter)
    }
    t.equal(await bench.log.state('s/a'), null)
    t.notOk([...(await bench.log.rewind('s/*', 10)).keys()].includes('s/a'))
    const next = await bench.append('s/a')
    const { events, gaps } = await bench.range('s/a')
    t.strictSame(
      events.map(({ id, prev }) => [id, prev]),
      [[next, last]],
      'its end has gone with all else: it begins anew'
    )
    t.strictSame([...gaps], [['s/a', last]])
    t.strictSame([...(await bench.range('s/a', bench.at('s/a', last))).gaps], [], 'who had it all')
  })

  t.test('a state is set if its version is the one that was read', async t => {
    const bench = await begin(t, { RING_SIZE: 1 })
    const set = async (value: string | null, version?: Position | null) => {
      const state = version === undefined ? { value } : { value, version }
      return (await bench.log.append([{ topic: 'd/1', type: 'patch', data: '{}', state }]))[0]!
    }
    t.strictSame(await bench.log.state('d/1'), null)
    const first = await set('one', null)
    const version = bench.idOf('d/1', first)
    t.strictSame(await bench.log.state('d/1'), { value: 'one', version })
    t.strictSame((await set('two', null)).outcome, 'conflict', 'it has one by now')
    t.strictSame((await set('two', { ms: 1, seq: 0 })).outcome, 'conflict')
    t.strictSame((await bench.log.state('d/1'))?.value, 'one')
    t.strictSame((await bench.range('d/1')).events.length, 1, 'a conflict stores nothing')

    const writers = await Promise.all(['two', 'three', 'four'].map(value => set(value, version)))
    t.strictSame(
      outcomes(writers).sort(),
      ['conflict', 'conflict', 'stored'],
      'one of those who read the same'
    )
    const won = writers.findIndex(({ outcome }) => outcome === 'stored')
    t.strictSame(await bench.log.state('d/1'), {
      value: ['two', 'three', 'four'][won],
      version: bench.idOf('d/1', writers[won]!)
    })

    t.strictSame((await set('five')).outcome, 'stored', 'without a version whatever it is')
    await bench.appendAll(['d/1', 'd/1'])
    const held = await bench.log.state('d/1')
    t.strictSame(held?.value, 'five', 'an event without a state leaves it, and it outlives its own event')
    t.strictSame((await set(null, held!.version)).outcome, 'stored')
    t.strictSame(await bench.log.state('d/1'), null)
    t.strictSame((await set('six', held!.version)).outcome, 'conflict')
    t.strictSame((await set('six', null)).outcome, 'stored')
  })

  t.test('a conflict refuses the whole call', async t => {
    const bench = await begin(t)
    const plain = { topic: 'd/1', type: 'message', data: '1' }
    const refused = await bench.log.append([
      plain,
      { ...plain, state: { value: 'x', version: { ms: 1, seq: 1 } } },
      plain
    ])
    t.strictSame(outcomes(refused), ['not stored', 'conflict', 'not stored'])
    t.strictSame((await bench.range('d/1')).events, [])
    t.strictSame(await bench.log.state('d/1'), null)
  })

  t.test('the states of many topics, and their versions alone', async t => {
    const bench = await begin(t)
    const topics = Array.from({ length: 700 }, (_, index) => `s/${index}`)
    const values = topics.slice(1).map((topic, index) => ({ topic, value: `${index}`.repeat(300) }))
    const ids = idsOf(
      await bench.log.append(
        values.map(({ topic, value }) => ({ topic, type: 'message', data: '', state: { value } }))
      )
    )
    const states = await bench.log.states(topics)
    t.strictSame(
      [...states].map(([topic, { value }]) => ({ topic, value })).sort(byTopic),
      [...values].sort(byTopic)
    )
    const versions = await bench.log.versions(topics)
    t.equal(versions.size, values.length)
    for (const [index, { topic }] of values.entries()) {
      const id = bench.shard(topic)(ids[index]!)
      t.strictSame([states.get(topic)!.version, versions.get(topic)], [id, id])
    }
    t.strictSame((await bench.log.states([])).size, 0)
  })

  t.test('the topics under a wildcard', async t => {
    const bench = await begin(t, { RING_TTL: 1000 })
    await bench.appendAll(['s/a', 's/b', 's/a', 't/a', 's', 's/a/b'])
    await bench.log.append([{ topic: 's/kept', type: 'message', data: '1', state: { value: '1' } }])
    t.strictSame((await bench.log.topics('s/*')).sort(), ['s/a', 's/b', 's/kept'])
    t.strictSame((await bench.log.topics('*')).sort(), ['s'])
    await bench.pass(1500)
    t.ok((await bench.log.topics('s/*')).includes('s/kept'), 'one with a state is remembered')
  })

  t.test('hands over what comes after the position, once and in order', async t => {
    const bench = await begin(t)
    const before = await bench.append('s/a')
    const [exact, wild] = await Promise.all([bench.subscribe('s/a'), bench.subscribe('s/*')])
    t.ok(bench.reaches(exact, bench.at('s/a', before), 's/a'))
    t.ok(covers(wild, bench.log.birth))
    const topics = Array.from({ length: 60 }, (_, index) => ['s/a', 's/b', 's/c', 'other'][index % 4]!)
    const ids = (
      await Promise.all([0, 1, 2].map(part => bench.appendAll(topics.slice(part * 20, part * 20 + 20))))
    ).flat()
    const wanted = ids.filter((_, index) => topics[index] !== 'other')
    const last = await bench.append('s/a')
    await bench.inbox.until(
      () => bench.inbox.all.some(({ id }) => comparePositions(id, last) === 0),
      'the last one'
    )
    await bench.inbox.until(() => bench.inbox.all.length >= wanted.length + 1, 'all of them')
    const got = bench.inbox.all.map(({ id }) => id)
    t.strictSame([...got].sort(comparePositions), [...wanted, last].sort(comparePositions))
    for (let shard = 0; shard < bench.log.shards; shard++) {
      const own = bench.inbox.all.filter(event => event.shard === shard).map(({ id }) => id)
      t.strictSame(own, [...own].sort(comparePositions))
    }
  })

  t.test('hands nothing over of a filter that nobody asked for, or that was given up', async t => {
    const bench = await begin(t)
    await bench.append('a')
    await bench.subscribe('a')
    await bench.subscribe('last')
    await bench.append('b')
    const wanted = await bench.append('a')
    await bench.inbox.until(() => bench.inbox.all.length > 0, 'the one that is wanted')
    bench.log.unsubscribe('a')
    await bench.subscribe('elsewhere')
    await bench.appendAll(['a', 'b', 'a'])
    const end = await bench.append('last')
    await bench.inbox.until(() => bench.inbox.all.some(({ topic }) => topic === 'last'), 'the last one')
    t.strictSame(
      bench.inbox.all.map(({ id }) => id),
      [wanted, end]
    )
    const again = await bench.subscribe('a')
    t.ok(bench.reaches(again, bench.at('a', end), 'a'))
    const third = await bench.append('a')
    await bench.inbox.until(() => bench.inbox.all.length === 3, 'one after it was asked for again')
    t.strictSame(bench.inbox.all[2]!.id, third)
  })

  t.test('the position is that of the last id, and moves on while nothing comes', async t => {
    const bench = await begin(t)
    t.ok(covers(await bench.log.position(), bench.log.birth))
    await bench.subscribe('a')
    const id = await bench.append('a')
    t.ok(bench.reaches(await bench.log.position(), bench.at('a', id), 'a'))
    await bench.pass(2500)
    await bench.ticks.until(() => (bench.ticks.all.at(-1)?.[0]?.ms ?? 0) >= id.ms + 1000, 'a tick')
    const before = bench.inbox.all.length
    t.strictSame(before, 1, 'what came before a tick was handed over before it')
    t.ok(covers(await bench.log.position(), bench.ticks.all.at(-1)!))
    bench.ticks.all.forEach(
      (tick, index, all) => index > 0 && t.ok(covers(tick, all[index - 1]!), 'never back')
    )
  })

  t.test('a cursor before the birth of the store lies before all that it stored', async t => {
    const bench = await begin(t)
    const id = await bench.append('a')
    t.ok(comparePositions(id, bench.log.birth[bench.shardOf('a')]!) > 0)
    t.strictSame((await bench.range('a', bench.log.birth)).events.length, 1)
    t.strictSame([...(await bench.range('a', bench.log.birth)).gaps], [])
  })

  t.test('closes', async t => {
    const bench = await begin(t)
    await bench.subscribe('a')
    await bench.append('a')
    await bench.inbox.until(() => bench.inbox.all.length === 1, 'an event')
    await bench.broker.close()
    const calls = bench.calls
    await bench.pass(1500)
    t.strictSame(bench.calls, calls, 'it says nothing more')
  })

  t.test('a page of a wildcard costs what it gives, however many topics there are', async t => {
    const LIMIT = 50
    for (const topics of [10, 1000, 100_000]) {
      const bench = await begin(t)
      const { cost } = bench.subject
      if (!cost) return t.pass('nobody counts what it costs', { skip: true })
      const names = Array.from({ length: topics }, (_, number) => `s/${number}`)
      const ids: Position[] = []
      for (let from = 0; from < topics; from += 1000)
        ids.push(...(await bench.appendAll(names.slice(from, from + 1000))))
      // what comes last has come more often than is held
      ids.push(...(await bench.appendAll(Array.from({ length: 150 }, () => names.at(-1)!))))
      const at = (id: Position) => bench.at(names[0]!, id)
      const cursors = { start: bench.log.birth, middle: at(ids[ids.length >> 1]!), end: at(ids.at(-2)!) }
      for (const [where, cursor] of Object.entries(cursors)) {
        for (const ask of ['range', 'newest'] as const) {
          let given = 0
          const looked = await cost(async () => {
            given = (await bench.log[ask]('s/*', cursor, LIMIT)).events.length
          })
          t.ok(given > 0)
          t.ok(looked < 3 * LIMIT, `${ask} from the ${where} of ${topics} topics: ${looked} for ${given}`)
        }
      }
      await bench.subject.broker.close()
    }
  })
}

function byTopic(a: { topic: string }, b: { topic: string }): number {
  return a.topic < b.topic ? -1 : 1
}
