import type { Test } from 'tap'
import type { Data, Member, Signal } from '../../../src/event.ts'
import { eventually } from '../../support/inbox.ts'
import { begin as beginBench } from './bench.ts'
import type { MakeSubject } from './subject.ts'

/** What every roster owes to who uses it: src/broker/roster.ts says it in words. */
export function rosterConforms(t: Test, make: MakeSubject): void {
  const begin = (test: Test) => beginBench(test, make)

  t.test('members come and go, on every filter that covers their topic and is followed', async t => {
    const bench = await begin(t)
    const { roster } = bench
    await Promise.all(['räume/küche 1', 'räume/*', 'other'].map(filter => roster.follow(filter)))
    t.strictSame(roster.members('räume/küche 1'), [])
    const alice = { id: 'a-1_A', sub: 'alice ü\n', info: '{"name":"Alice \\n"}' }
    const nobody = { id: 'b', sub: null, info: null }
    await roster.join('räume/küche 1', alice)
    t.strictSame(roster.members('räume/küche 1'), [alice], 'once it has joined it is among them')
    await roster.join('räume/küche 1', nobody)
    t.strictSame(sorted(roster.members('räume/küche 1')), [alice, nobody])
    await roster.leave('räume/küche 1', alice.id)
    await bench.heard.until(() => bench.heard.all.length === 6, 'six changes')
    for (const filter of ['räume/küche 1', 'räume/*']) {
      t.strictSame(
        bench.heard.all.filter(line => line.startsWith(`${filter}:`)),
        [`+a-1_A ${alice.info}`, '+b null', `-a-1_A ${alice.info}`].map(
          change => `${filter}: räume/küche 1 ${change}`
        )
      )
    }
    t.strictSame(roster.members('räume/küche 1'), [nobody])
    t.strictSame(roster.members('other'), [])
    t.strictSame((await bench.range('räume/*')).events, [], 'none of it is stored')
  })

  t.test('a member that joins again tells only what is new of it', async t => {
    const bench = await begin(t)
    const { roster } = bench
    await roster.follow('a')
    for (const info of ['1', '1', '2', null]) await roster.join('a', { id: 'x', sub: null, info })
    t.strictSame(roster.members('a'), [{ id: 'x', sub: null, info: null }])
    await roster.join('a', { id: 'x', sub: 'somebody', info: null })
    t.strictSame(roster.members('a'), [{ id: 'x', sub: 'somebody', info: null }])
    await roster.leave('a', 'nobody')
    await roster.leave('a', 'x')
    await roster.leave('a', 'x')
    await roster.join('a', { id: 'x', sub: null, info: '3' })
    await bench.heard.until(() => bench.heard.all.includes('a: a +x 3'), 'the last one')
    t.strictSame(
      bench.heard.all,
      ['+x 1', '+x 2', '+x null', '+x null', '-x null', '+x 3'].map(line => `a: a ${line}`)
    )
  })

  t.test('whoever follows a topic knows its members from then on', async t => {
    const bench = await begin(t)
    const { roster } = bench
    await roster.follow('s/a')
    await roster.join('s/a', { id: 'x', sub: 'x', info: null })
    await bench.heard.until(() => bench.heard.all.length === 1, 'the first')
    roster.unfollow('s/a')
    await roster.join('s/a', { id: 'y', sub: 'y', info: null })
    await roster.leave('s/a', 'x')
    await roster.follow('s/a')
    t.strictSame(roster.members('s/a'), [{ id: 'y', sub: 'y', info: null }])
    await roster.follow('s/*')
    await roster.leave('s/a', 'y')
    await bench.heard.until(() => bench.heard.all.length === 3, 'the last')
    t.strictSame(
      [...bench.heard.all].sort(),
      ['s/*: s/a -y null', 's/a: s/a +x null', 's/a: s/a -y null'],
      'and is not told what it has seen'
    )
  })

  t.test('many that come and go at once', async t => {
    const bench = await begin(t)
    const { roster } = bench
    const topics = ['s/a', 's/b', 's/c']
    await Promise.all([...topics, 's/*'].map(filter => roster.follow(filter)))
    const ids = Array.from({ length: 500 }, (_, index) => `m${index}`)
    await Promise.all(
      ids.map((id, index) => roster.join(topics[index % 3]!, { id, sub: null, info: String(index) }))
    )
    t.equal(topics.flatMap(topic => roster.members(topic)).length, 500)
    await Promise.all(ids.map((id, index) => roster.leave(topics[index % 3]!, id)))
    await bench.heard.until(() => bench.heard.all.length === 2000, 'all changes')
    t.strictSame(
      topics.flatMap(topic => roster.members(topic)),
      []
    )
    t.equal(new Set(bench.heard.all).size, 2000, 'each once')
  })

  t.test(
    'one that joins and leaves at once is gone in the end, and one that joins twice is the latter',
    async t => {
      const bench = await begin(t)
      const { roster } = bench
      await Promise.all(['s/a', 's/*'].map(filter => roster.follow(filter)))
      const x = { id: 'x', sub: null, info: null }
      const both = [roster.join('s/a', x), roster.leave('s/a', 'x')]
      const twice = ['1', '2'].map(info => roster.join('s/a', { ...x, id: 'y', info }))
      await Promise.all([...both, ...twice])
      await roster.join('s/a', { ...x, id: 'last' })
      await bench.heard.until(
        () => bench.heard.all.filter(line => line.includes('+last')).length === 2,
        'the last on both filters'
      )
      t.strictSame(
        sorted(roster.members('s/a')).map(({ id, info }) => [id, info]),
        [
          ['last', null],
          ['y', '2']
        ]
      )
      for (const filter of ['s/a', 's/*']) {
        const heard = bench.heard.all.filter(line => line.startsWith(`${filter}:`))
        t.equal(
          heard.filter(line => line.includes('+x')).length,
          heard.filter(line => line.includes('-x')).length
        )
        t.equal(
          heard.findLast(line => line.includes('+y')),
          `${filter}: s/a +y 2`
        )
      }
    }
  )

  t.test(
    'instances know the members of each other, and let go of those that say nothing any more',
    async t => {
      const bench = await begin(t)
      const other = await bench.another(t)
      if (!other) return t.pass('this broker is the only one on its store', { skip: true })
      const member = (id: string) => ({ id, sub: id, info: null })
      await other.roster.follow('s/a')
      await other.roster.join('s/a', member('x'))
      await bench.roster.follow('s/*')
      await bench.roster.follow('s/a')
      t.strictSame(bench.roster.members('s/a'), [member('x')], 'also one from before it was followed')
      await bench.roster.join('s/a', member('y'))
      await other.heard.until(() => other.heard.all.includes('s/a: s/a +y null'), 'the other one')
      await other.roster.leave('s/a', 'x')
      await bench.heard.until(() => bench.heard.all.length === 4, 'all changes')
      t.strictSame([...bench.heard.all].sort(), [
        's/*: s/a +y null',
        's/*: s/a -x null',
        's/a: s/a +y null',
        's/a: s/a -x null'
      ])
      await other.roster.signal({ topic: 's/a', sender: 'x', from: 'x', data: 'hi' })
      await bench.signals.until(() => bench.signals.all.length === 2, 'a signal on both filters')
    }
  )

  t.test('after a restart the members of the instance go, and those that come stay', async t => {
    const before = await begin(t)
    await before.roster.follow('s/a')
    await before.roster.join('s/a', { id: 'old', sub: null, info: null })
    const after = await before.restart(t)
    await after.roster.follow('s/a')
    await after.roster.follow('s/*')
    await after.roster.join('s/a', { id: 'new', sub: null, info: null })
    await eventually(
      () => after.roster.members('s/a').map(({ id }) => id),
      ids => ids.join() === 'new',
      'the new one alone'
    )
    const changes = (filter: string, id: string) =>
      after.heard.all.filter(line => line.startsWith(`${filter}: s/a`) && line.includes(id)).join()
    for (const filter of ['s/a', 's/*']) {
      t.equal(changes(filter, 'new'), `${filter}: s/a +new null`)
      t.match(changes(filter, 'old'), /^(.*: s\/a -old null)?$/, 'it was there already, or never')
    }
    t.ok(
      before.heard.all.every(line => !line.includes('new')),
      'the instance that was is told nothing'
    )
  })

  t.test('a signal passes to who follows its topic, and is not kept', async t => {
    const bench = await begin(t)
    const { roster } = bench
    const first = { topic: 's/a b', sender: 'x', from: 'alice\nü', data: '{"a":"\\n ü"}' }
    await roster.signal(first)
    await Promise.all(['s/a b', 's/*'].map(filter => roster.follow(filter)))
    const bytes = { ...first, from: '', data: Buffer.from([0, 255, 10, 13]) }
    const empty = { ...first, topic: 's/c', data: '' }
    for (const signal of [first, bytes, empty]) await roster.signal(signal)
    roster.unfollow('s/a b')
    await roster.signal({ ...first, data: 'later' })
    await bench.signals.until(() => bench.signals.all.length === 6, 'six signals')
    const plain = (data: Data) => (typeof data === 'string' ? data : [...data])
    const of = (topic: string, signals: readonly Signal[]) =>
      signals
        .filter(signal => signal.topic === topic)
        .map(signal => ({ ...signal, data: plain(signal.data) }))
    // topics may lie in different shards: in order are the signals of each
    for (const [filter, topic, sent] of [
      ['s/a b', 's/a b', [first, bytes]],
      ['s/*', 's/a b', [first, bytes, { ...first, data: 'later' }]],
      ['s/*', 's/c', [empty]]
    ] as const) {
      const passed = bench.signals.all.filter(each => each.filter === filter).map(({ signal }) => signal)
      t.strictSame(of(topic, passed), of(topic, sent), `${topic} of ${filter}`)
    }
    t.strictSame((await bench.range('s/*')).events, [])
    t.strictSame(await bench.log.topics('s/*'), [])
  })

  t.test('closed, it says nothing more', async t => {
    const bench = await begin(t)
    const { roster } = bench
    await roster.follow('s/*')
    await roster.join('s/a', { id: 'x', sub: null, info: null })
    await bench.heard.until(() => bench.heard.all.length === 1, 'a change')
    await bench.broker.close()
    // whether they still succeed is nobody's business
    await Promise.allSettled([
      roster.join('s/a', { id: 'y', sub: null, info: null }),
      roster.leave('s/a', 'x'),
      roster.signal({ topic: 's/a', sender: 'x', from: 'x', data: '' })
    ])
    t.equal(bench.heard.all.length, 1)
    t.equal(bench.signals.all.length, 0)
  })
}

function sorted(members: readonly Member[]): Member[] {
  return [...members].sort((a, b) => (a.id < b.id ? -1 : 1))
}
