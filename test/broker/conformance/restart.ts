import type { Test } from 'tap'
import { IDEMPOTENCY_MS, comparePositions, covers } from '../../../src/event.ts'
import { begin as beginBench, idsOf, outcomes } from './bench.ts'
import type { MakeSubject, SubjectSettings } from './subject.ts'

/**
 * What an event log owes across a restart of its instance. A store that keeps what it holds goes on as if nothing had
 * happened; one that doesn't begins another life, and every cursor of the one before can be told from its own.
 */
export function logRestarts(t: Test, make: MakeSubject): void {
  const begin = (test: Test, settings?: Partial<SubjectSettings>) => beginBench(test, make, settings)

  t.test('ids grow past all that were given before', async t => {
    const before = await begin(t)
    const old = await before.appendAll(['a', 'a', 'b', 'a'])
    const oldEnd = await before.log.position()
    const after = await before.restart(t)
    t.ok(covers(await after.log.position(), oldEnd), 'so does the position')
    const { birth } = after.log
    t.strictSame(birth.length, after.log.shards)
    const topics = ['a', 'b', 'new']
    for (const topic of topics) {
      const id = await after.append(topic)
      t.ok(comparePositions(id, after.shard(topic)(birth)) > 0, 'after its birth')
      t.ok(comparePositions(id, after.shard(topic)(oldEnd)) > 0, 'after all that was before')
    }
    const isOfThisLife = old.map((id, index) => {
      const topic = ['a', 'a', 'b', 'a'][index]!
      return comparePositions(id, after.shard(topic)(birth)) > 0
    })
    const { keeps } = after.subject
    t.strictSame(
      isOfThisLife,
      [keeps, keeps, keeps, keeps],
      'an old cursor lies before the birth of another life'
    )
    if (keeps) t.strictSame(birth, before.log.birth, 'the same life')
  })

  t.test('events are kept, with the order of their topics and what was lost before', async t => {
    const before = await begin(t, { RING_SIZE: 3 })
    const old = await before.appendAll(['s/a', 's/a', 's/b', 's/a', 's/a'])
    const { birth } = before.log
    const after = await before.restart(t)
    const [next] = await after.appendAll(['s/a'])
    if (!after.subject.keeps) {
      const { events, gaps } = await after.range('s/*')
      t.strictSame(
        events.map(({ id, prev }) => [id, prev]),
        [[next, null]],
        'this life knows of none before'
      )
      t.strictSame([...gaps], [])
      t.strictSame([...(await after.log.rewind('s/b', 5)).keys()], [])
      return
    }
    const { events, gaps } = await after.log.range('s/a', birth, 100)
    t.strictSame(
      events.map(({ id, prev }) => [id, prev]),
      [
        [old[3], old[1]],
        [old[4], old[3]],
        [next, old[4]]
      ]
    )
    t.strictSame([...gaps], [['s/a', old[1]]])
    t.strictSame(
      (await after.range('s/b')).events.map(({ id, data }) => [id, data]),
      [[old[2], '2']]
    )
    t.strictSame([...(await after.range('s/*', after.at('s/a', old[3]!))).gaps], [])
    const start = (await after.log.rewind('s/a', 2)).get('s/a')!
    t.strictSame(
      (await after.range('s/a', after.at('s/a', start))).events.map(({ id }) => id),
      [old[4], next]
    )
    t.ok(
      after.log.lost.every(({ ms }) => ms === 0),
      'nothing was lost on the way'
    )
  })

  t.test('an event that has run out meanwhile is passed over', async t => {
    const before = await begin(t)
    await before.log.append([
      { topic: 'a', type: 'message', data: 'short', ttl: 1 },
      { topic: 'a', type: 'message', data: 'long', ttl: 3600 }
    ])
    const after = await before.restart(t)
    await after.pass(1100)
    const { events, gaps } = await after.range('a')
    t.strictSame(
      events.map(({ data }) => data),
      after.subject.keeps ? ['long'] : []
    )
    t.strictSame([...gaps], [])
  })

  t.test('bytes and text are what they were', async t => {
    const before = await begin(t)
    const bytes = Uint8Array.from([0, 255, 10, 13, 128])
    const text = '{"a":"ü\n\r\u2028 \\u0000"}'
    await before.log.append([
      { topic: 'räume/küche 1', type: 'x.y:z-1_', data: bytes },
      { topic: 'räume/küche 1', type: 'message', data: text }
    ])
    const after = await before.restart(t)
    if (!after.subject.keeps) return t.pass('this store keeps nothing', { skip: true })
    t.strictSame(
      (await after.range('räume/*')).events.map(({ topic, type, data }) => [
        topic,
        type,
        typeof data === 'string' ? data : [...data]
      ]),
      [
        ['räume/küche 1', 'x.y:z-1_', [...bytes]],
        ['räume/küche 1', 'message', text]
      ]
    )
  })

  t.test('a key that was used is still used', async t => {
    const before = await begin(t)
    const event = { topic: 'a', type: 'message', data: '1', key: 'k 1\nü' }
    const first = await before.log.append([event])
    const after = await before.restart(t)
    const { keeps, isHeld } = after.subject
    const again = await after.log.append([event])
    t.strictSame(outcomes(again), [keeps ? 'replayed' : 'stored'])
    if (keeps) t.strictSame(idsOf(again).map(after.shard('a')), idsOf(first).map(after.shard('a')))
    t.strictSame(outcomes(await after.log.append([{ ...event, data: '2' }])), ['key reused'])
    if (!isHeld) return
    await after.pass(IDEMPOTENCY_MS + 1)
    t.strictSame(outcomes(await after.log.append([event])), ['stored'], 'and is forgotten in its time')
  })

  t.test('a topic that has ended stays so', async t => {
    const before = await begin(t)
    const end = { topic: 'a', type: 'end', data: '1', key: 'k' }
    const [ended] = await before.log.append([end])
    await before.appendAll(['b'])
    const after = await before.restart(t)
    const { keeps } = after.subject
    const known = keeps ? before.idOf('a', ended!) : null
    t.strictSame((await after.log.subscribe('a')).end, known)
    t.strictSame((await after.log.subscribe('b')).end, null)
    const next = await after.log.append([{ topic: 'a', type: 'message', data: '2' }])
    t.strictSame(outcomes(next), [keeps ? 'ended' : 'stored'])
  })

  t.test('a state is kept, with its version, and so are the names of topics', async t => {
    const before = await begin(t)
    const set = { topic: 's/d', type: 'patch', data: '{}' }
    const version = before.idOf(
      's/d',
      (await before.log.append([{ ...set, state: { value: 'one', version: null } }]))[0]!
    )
    await before.appendAll(['s/d', 's/e', 'other'])
    await before.log.append([{ ...set, topic: 's/gone', state: { value: 'x' } }])
    await before.log.append([{ ...set, topic: 's/gone', state: { value: null } }])
    const after = await before.restart(t)
    const { keeps } = after.subject
    t.strictSame(await after.log.state('s/d'), keeps ? { value: 'one', version } : null)
    t.strictSame(await after.log.state('s/gone'), null)
    t.strictSame((await after.log.topics('s/*')).sort(), keeps ? ['s/d', 's/e', 's/gone'] : [])
    const next = async (version: (typeof before.log.birth)[0] | null) =>
      outcomes(await after.log.append([{ ...set, state: { value: 'two', version } }]))
    t.strictSame(await next(keeps ? null : version), ['conflict'])
    t.strictSame(await next(keeps ? version : null), ['stored'])
  })

  t.test('who subscribes again is handed what comes from then on', async t => {
    const before = await begin(t)
    await before.subscribe('a')
    await before.append('a')
    const after = await before.restart(t)
    const position = await after.subscribe('a')
    const id = await after.append('a')
    t.ok(comparePositions(id, after.shard('a')(position)) > 0)
    await after.inbox.until(() => after.inbox.all.length > 0, 'an event')
    t.strictSame(
      after.inbox.all.map(event => event.id),
      [id]
    )
    t.ok(
      before.inbox.all.every(event => comparePositions(event.id, id) < 0),
      'the one before is handed nothing'
    )
  })
}
