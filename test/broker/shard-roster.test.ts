/** The roster of a shard without a socket: what is announced may be dropped, and what is answered may come late. */
import t from 'tap'
import { LEASE_MS, MEMBERS_A_CALL, REJOIN_MS, RENEWALS_A_PUT } from '../../src/broker/redis/own-members.ts'
import { TOPICS_A_CALL } from '../../src/broker/redis/member-copy.ts'
import { RENEW_MS } from '../../src/broker/redis/shard-roster.ts'
import { GONE_MS } from '../../src/broker/roster.ts'
import { BrokerUnavailable } from '../../src/broker/unavailable.ts'
import { Memory, MemoryFull } from '../../src/memory.ts'
import { settled } from '../support/clock.ts'
import { RosterStage, type StagedInstance } from './roster-stage.ts'

const PUT_MS = (RENEWALS_A_PUT + 1) * RENEW_MS

/** Two instances that follow a topic and its wildcard. */
async function two(): Promise<{ stage: RosterStage; a: StagedInstance; b: StagedInstance }> {
  const stage = new RosterStage()
  const [a, b] = [stage.instance('a'), stage.instance('b')]
  for (const { roster } of [a, b]) for (const filter of ['s/1', 's/*']) await roster.follow(filter)
  return { stage, a, b }
}

/** Makes somebody a member, and lets the turn end in which it is stored. */
async function join(
  { clock }: RosterStage,
  instance: StagedInstance,
  ids: readonly string[],
  topic = 's/1'
): Promise<void> {
  const joined = Promise.all(ids.map(id => instance.join(topic, id)))
  await clock.turns()
  await joined
}

async function leave({ clock }: RosterStage, instance: StagedInstance, id: string): Promise<void> {
  const left = instance.roster.leave('s/1', id)
  await clock.turns()
  await left
}

const on = (filter: string, { heard }: StagedInstance) =>
  heard.filter(line => line.startsWith(`${filter}: `)).map(line => line.slice(filter.length + 2))

t.test('every instance is told who comes and goes, once for each filter', async t => {
  const { stage, a, b } = await two()
  await join(stage, a, ['x'])
  await join(stage, b, ['y'])
  await join(stage, b, ['z'], 's/2')
  await leave(stage, a, 'x')
  for (const instance of [a, b]) {
    t.strictSame(on('s/1', instance), ['s/1 +x', 's/1 +y', 's/1 -x'])
    t.strictSame(on('s/*', instance), ['s/1 +x', 's/1 +y', 's/2 +z', 's/1 -x'])
    t.equal(instance.members('s/1'), 'y')
  }
  await a.roster.signal({ topic: 's/1', sender: 'x', from: 'x', data: 'hi' })
  t.strictSame([on('s/1', b).at(-1), on('s/*', b).at(-1)], ['s/1 hi', 's/1 hi'])
})

t.test('what was announced while nothing came in is told as what is different', async t => {
  const { stage, a, b } = await two()
  await join(stage, a, ['stays', 'goes', 'returns'])
  b.heard.length = 0
  b.announcements.hold()
  await leave(stage, a, 'goes')
  await leave(stage, a, 'returns')
  await join(stage, a, ['returns', 'comes'])
  await join(stage, a, ['elsewhere'], 's/2')
  b.announcements.drop()
  t.strictSame(b.heard, [])
  b.roster.jump()
  await settled()
  t.strictSame(on('s/1', b).sort(), ['s/1 +comes', 's/1 -goes'])
  t.strictSame(on('s/*', b).sort(), ['s/1 +comes', 's/1 -goes', 's/2 +elsewhere'])
  b.announcements.hold()
  for (const id of ['stays', 'returns', 'comes']) await leave(stage, a, id)
  b.announcements.drop()
  b.roster.jump()
  await settled()
  t.equal(b.members('s/1'), '', 'a topic that has no members any more is read as well')
  t.equal(on('s/*', b).filter(line => line.startsWith('s/1 -')).length, 4)
})

t.test('a change that is announced during a read counts once, whichever comes first', async t => {
  for (const isAnswerFirst of [true, false]) {
    const { stage, a } = await two()
    await join(stage, a, ['x', 'y'])
    const b = stage.instance('late')
    b.answers.hold()
    b.announcements.hold()
    const following = b.roster.follow('s/1')
    await b.answers.passOne() // it listens
    await leave(stage, a, 'x')
    await join(stage, a, ['z'])
    if (isAnswerFirst) {
      await b.answers.release()
      await following
      t.equal(b.members('s/1'), 'x y', 'as it was read')
      await b.announcements.release()
      t.strictSame(b.heard, ['s/1: s/1 -x', 's/1: s/1 +z'])
    } else {
      await b.announcements.release()
      t.strictSame(b.heard, [], 'it is told nothing before it follows')
      await b.answers.release()
      await following
      t.strictSame(b.heard, [])
    }
    t.equal(b.members('s/1'), 'y z')
  }
})

t.test('a change that was announced before what was read is in it, whatever became of it since', async t => {
  const stage = new RosterStage()
  const [a, b] = [stage.instance('a'), stage.instance('b')]
  await join(stage, a, ['y'])
  b.answers.hold()
  const following = b.roster.follow('s/*')
  await b.answers.passOne() // it listens
  await join(stage, a, ['x'])
  b.announcements.hold()
  await leave(stage, a, 'x')
  await b.answers.release()
  await following
  await b.announcements.release()
  t.strictSame(b.heard, [])
})

t.test('what asks for the same members at once reads them once', async t => {
  const stage = new RosterStage()
  const b = stage.instance('b')
  await b.roster.follow('s/1')
  b.calls.length = 0
  b.roster.jump()
  b.roster.jump()
  await settled()
  t.equal(b.calls.filter(({ kind }) => kind === 'members').length, 1)
})

t.test('a filter that is given up while it is read again is told nothing more', async t => {
  const { stage, a, b } = await two()
  await join(stage, a, ['x'])
  b.announcements.hold()
  await leave(stage, a, 'x')
  b.announcements.drop()
  b.heard.length = 0
  b.answers.hold()
  b.roster.jump()
  await b.answers.passOne() // its own members
  b.roster.unfollow('s/1')
  await b.answers.release()
  await settled()
  t.strictSame(b.heard, ['s/*: s/1 -x'])
})

t.test('what was read before it came into doubt again is read again', async t => {
  const { stage, a, b } = await two()
  b.answers.hold()
  b.roster.jump()
  await b.answers.passOne() // its own members, of which there are none
  b.announcements.hold()
  await join(stage, a, ['x'])
  b.announcements.drop()
  b.roster.jump()
  await b.answers.release()
  await settled()
  t.equal(b.members('s/1'), 'x')
  t.strictSame(on('s/1', b), ['s/1 +x'])
})

t.test('an answer that comes after the announcements of what followed it changes nothing', async t => {
  const { stage, a, b } = await two()
  a.answers.hold()
  const joins = [a.join('s/1', 'x'), a.join('s/1', 'y', '1')]
  await stage.clock.turns()
  joins.push(a.roster.leave('s/1', 'x'), a.join('s/1', 'y', '2'))
  await stage.clock.turns()
  t.equal(a.members('s/1'), 'y2', 'the announcements have come')
  await a.answers.release()
  await Promise.all(joins)
  t.equal(a.members('s/1'), 'y2')
  t.equal(b.members('s/1'), 'y2')
  t.strictSame(on('s/1', a), on('s/1', b))
})

t.test('who joins and leaves in one turn, or tells other things, is what it was made last', async t => {
  const { stage, a, b } = await two()
  a.announcements.hold()
  const all = [
    a.join('s/1', 'x'),
    a.roster.leave('s/1', 'x'),
    a.join('s/1', 'y', '1'),
    a.join('s/1', 'y', '2')
  ]
  await stage.clock.turns()
  await Promise.all(all)
  t.equal(a.members('s/1'), 'y2', 'by the answer alone')
  await a.announcements.release()
  for (const instance of [a, b]) t.equal(instance.members('s/1'), 'y2')
})

t.test('an announcement that comes after the answer tells nothing once more', async t => {
  const { stage, a } = await two()
  a.announcements.hold()
  await join(stage, a, ['x'])
  await leave(stage, a, 'x')
  await join(stage, a, ['x'])
  await a.announcements.release()
  t.strictSame(on('s/1', a), ['s/1 +x'], 'it was there before and after')
  t.equal(a.members('s/1'), 'x')
})

t.test('members of an instance that is dead are removed, by one of the others, and told once', async t => {
  const { stage, a, b } = await two()
  const ids = Array.from({ length: 2 * MEMBERS_A_CALL + 1 }, (_, index) => `m${index}`)
  await join(stage, a, ids)
  await join(stage, b, ['y'])
  b.heard.length = 0
  a.roster.close()
  await stage.clock.live(LEASE_MS - 1000)
  t.strictSame(b.heard, [], 'not before its lease has expired')
  await stage.clock.live(RENEW_MS + 1000)
  t.equal(b.members('s/1'), 'y')
  for (const filter of ['s/1', 's/*']) t.strictSame(on(filter, b).sort(), ids.map(id => `s/1 -${id}`).sort())
  t.strictSame(stage.leases, ['b'])
})

t.test('nobody is removed while the others may still be coming back to the store', async t => {
  const { stage, a, b } = await two()
  await join(stage, a, ['x'])
  await join(stage, b, ['y'])
  // the store is away for both, for longer than their leases hold
  for (const instance of [a, b]) [instance.isLive, instance.lost] = [false, 'calls']
  await stage.clock.live(LEASE_MS + RENEW_MS)
  ;[b.isLive, b.lost] = [true, null]
  stage.comeBack()
  b.roster.jump()
  await stage.clock.live(REJOIN_MS - 1000)
  t.equal(b.members('s/1'), 'x y')
  ;[a.isLive, a.lost] = [true, null]
  a.roster.jump()
  await stage.clock.live(LEASE_MS + RENEW_MS)
  for (const instance of [a, b]) {
    t.equal(instance.members('s/1'), 'x y')
    t.strictSame(on('s/1', instance), ['s/1 +x', 's/1 +y'])
  }
  a.roster.close()
  await stage.clock.live(LEASE_MS)
  stage.comeBack()
  b.roster.jump()
  await stage.clock.live(GONE_MS - LEASE_MS)
  t.equal(b.members('s/1'), 'y', 'one that does not come is removed in time')
})

t.test('who is dead is removed in time, however often the others lose their connections', async t => {
  const { stage, a, b } = await two()
  await join(stage, a, ['x'])
  a.roster.close()
  const seconds = (LEASE_MS + 2 * RENEW_MS) / 1000
  for (let second = 0; second < seconds; second++) {
    // announcements come in for a second, and for another one they don't
    b.isLive = second % 2 === 0
    if (b.isLive) b.roster.jump()
    await stage.clock.live(1000)
  }
  t.equal(b.members('s/1'), '')
  t.strictSame(stage.stored('s/1'), [])
  t.ok(seconds * 1000 < GONE_MS - REJOIN_MS, 'with time to spare')
})

t.test('a store that was emptied: everybody is put back, and only who is gone is told as gone', async t => {
  const { stage, a, b } = await two()
  const ghostly = stage.instance('ghostly')
  await join(stage, a, ['x'])
  await join(stage, b, ['y'])
  await join(stage, ghostly, ['ghost'])
  for (const { heard } of [a, b]) heard.length = 0
  ghostly.roster.close()
  ghostly.lost = 'calls'
  stage.empty()
  // all connections were lost, and one instance comes back before the other
  b.isLive = false
  a.calls.length = 0
  a.roster.jump()
  await stage.clock.live(REJOIN_MS / 2)
  b.isLive = true
  b.roster.jump()
  await stage.clock.live(REJOIN_MS / 2 - 1000)
  t.strictSame(
    stage
      .stored('s/1')
      .map(({ id }) => id)
      .sort(),
    ['x', 'y'],
    'they are stored again'
  )
  for (const instance of [a, b]) {
    t.equal(instance.members('s/1'), 'ghost x y')
    t.strictSame(instance.heard, [], 'and it looks to nobody as if anybody had gone')
  }
  t.notOk(
    a.calls.some(({ kind }) => kind === 'members'),
    'what is known to lack some is not read'
  )
  await stage.clock.live(REJOIN_MS)
  for (const instance of [a, b]) {
    t.equal(instance.members('s/1'), 'x y')
    t.strictSame(on('s/1', instance), ['s/1 -ghost'])
  }
})

t.test('a store that is emptied while nobody loses its connection: the same', async t => {
  const { stage, a, b } = await two()
  const ghostly = stage.instance('ghostly')
  await join(stage, a, ['x'])
  await join(stage, b, ['y'])
  await join(stage, ghostly, ['ghost'])
  ghostly.roster.close()
  for (const { heard } of [a, b]) heard.length = 0
  stage.empty()
  await stage.clock.live(RENEW_MS)
  for (const instance of [a, b]) {
    t.equal(instance.members('s/1'), 'ghost x y')
    instance.calls.length = 0
  }
  await stage.clock.live(REJOIN_MS - 1000)
  for (const { calls } of [a, b])
    t.notOk(
      calls.some(({ kind }) => kind === 'members'),
      'nobody is read'
    )
  await stage.clock.live(1000)
  for (const instance of [a, b]) {
    t.equal(instance.members('s/1'), 'x y')
    t.strictSame(on('s/1', instance), ['s/1 -ghost'])
  }
})

t.test('a read that finds the store emptied tells nobody as gone', async t => {
  const { stage, a, b } = await two()
  await join(stage, a, ['x'])
  b.heard.length = 0
  b.answers.hold()
  b.roster.jump()
  stage.empty()
  await b.answers.release() // the first one is from before
  await settled()
  t.equal(b.members('s/1'), 'x')
  t.strictSame(b.heard, [])
  a.roster.jump()
  await stage.clock.live(REJOIN_MS)
  t.equal(b.members('s/1'), 'x')
  t.strictSame(b.heard, [])
})

t.test('whoever follows while a store is refilled is told of those who are put back later', async t => {
  const { stage, a, b } = await two()
  await join(stage, a, ['x'])
  await join(stage, b, ['y'])
  stage.empty()
  a.isLive = false
  await join(stage, b, ['new'])
  await join(stage, b, ['z'], 's/2')
  await b.roster.follow('s/2')
  t.equal(b.members('s/2'), 'z', 'what there is by now is read')
  const late = stage.instance('late')
  await late.roster.follow('s/1')
  t.equal(late.members('s/1'), 'new y')
  a.isLive = true
  a.roster.jump()
  await settled()
  t.strictSame(late.heard, ['s/1: s/1 +x'])
})

t.test('an instance whose lease was taken from it puts its members back with its next renewal', async t => {
  const { stage, a, b } = await two()
  await join(stage, a, ['x'])
  a.lost = 'calls'
  await stage.clock.live(LEASE_MS + RENEW_MS)
  for (const instance of [a, b]) t.equal(instance.members('s/1'), '')
  a.lost = null
  await stage.clock.live(RENEW_MS)
  for (const instance of [a, b]) {
    t.equal(instance.members('s/1'), 'x')
    t.strictSame(on('s/1', instance), ['s/1 +x', 's/1 -x', 's/1 +x'])
  }
})

t.test('a join does not hide that the lease was taken: all members are put back', async t => {
  const { stage, a } = await two()
  await join(stage, a, ['x'])
  stage.evict()
  await join(stage, a, ['y'])
  await stage.clock.live(RENEW_MS)
  t.strictSame(
    stage
      .stored('s/1')
      .map(({ id }) => id)
      .sort(),
    ['x', 'y']
  )
})

t.test('a join that fails makes nobody a member, also when it was stored', async t => {
  const { stage, a, b } = await two()
  await join(stage, a, ['y'])
  for (const lost of ['calls', 'answers'] as const) {
    a.lost = lost
    const joins = [a.join('s/1', 'x'), a.join('s/1', 'y', 'new')]
    const failed = joins.map(joining => t.rejects(joining, BrokerUnavailable))
    await stage.clock.turns()
    await Promise.all(failed)
    a.lost = null
    await stage.clock.live(RENEW_MS)
    t.strictSame(
      stage.stored('s/1').map(({ id, text }) => `${id} ${text}`),
      ['y [null,null]'],
      `${lost} were lost`
    )
    for (const instance of [a, b]) t.equal(instance.members('s/1'), 'y')
  }
})

t.test('one that has left meanwhile is not brought back by a join that failed', async t => {
  const { stage, a, b } = await two()
  await join(stage, a, ['x'])
  a.lost = 'calls'
  const failed = t.rejects(a.join('s/1', 'x', 'new'), BrokerUnavailable)
  const leaving = a.roster.leave('s/1', 'x')
  await stage.clock.turns()
  await Promise.all([failed, leaving])
  a.lost = null
  await stage.clock.live(RENEW_MS)
  t.strictSame(stage.stored('s/1'), [])
  t.equal(b.members('s/1'), '')
})

t.test('who leaves has left, and a store that was away is told with the next renewal', async t => {
  const { stage, a, b } = await two()
  await join(stage, a, ['x', 'y'])
  a.lost = 'calls'
  await leave(stage, a, 'x')
  t.equal(b.members('s/1'), 'x y')
  a.lost = null
  await stage.clock.live(RENEW_MS)
  t.equal(b.members('s/1'), 'y')
  a.lost = 'calls'
  await leave(stage, a, 'y')
  await stage.clock.live(2 * RENEW_MS)
  a.lost = null
  await stage.clock.live(RENEW_MS)
  t.equal(b.members('s/1'), '', 'also when renewals failed meanwhile')
})

t.test('an instance that nobody uses asks the store for nothing', async t => {
  const { stage, a, b } = await two()
  const idle = stage.instance('idle')
  await stage.clock.live(3 * RENEW_MS)
  t.strictSame(idle.calls, [])
  t.ok(b.calls.length > 0)
  for (const filter of ['s/1', 's/*']) a.roster.unfollow(filter)
  t.strictSame([...a.listening], [])
  a.calls.length = 0
  await stage.clock.live(3 * RENEW_MS)
  t.strictSame(a.calls, [])
  t.strictSame(stage.leases, [], 'and has no lease without members')
})

t.test('all members are stored anew from time to time', async t => {
  const { stage, a } = await two()
  await join(stage, a, ['x', 'y'])
  a.calls.length = 0
  await stage.clock.advance(PUT_MS - 1000)
  t.equal(a.calls.filter(({ kind }) => kind === 'own').length, 0)
  t.ok(a.calls.every(({ size }) => size === 0))
  await stage.clock.advance(1000)
  t.strictSame(a.calls.slice(-2), [
    { kind: 'own', size: 1 },
    { kind: 'update', size: 2 }
  ])
  a.calls.length = 0
  await stage.clock.advance(3 * RENEW_MS)
  t.equal(a.calls.filter(({ kind }) => kind === 'own').length, 0, 'and then not for a while')
})

t.test('many at once go in parts, and are put back in parts', async t => {
  const { stage, a, b } = await two()
  const ids = Array.from({ length: MEMBERS_A_CALL + 5 }, (_, index) => `m${index}`)
  const sizes = (kind: string, { calls }: StagedInstance) =>
    calls.filter(call => call.kind === kind && call.size > 0).map(({ size }) => size)
  await join(stage, a, ids)
  t.strictSame(sizes('update', a), [MEMBERS_A_CALL, 5])
  a.calls.length = 0
  a.roster.jump()
  await settled()
  t.strictSame(sizes('update', a), [MEMBERS_A_CALL, 5])
  for (let index = 0; index < TOPICS_A_CALL + 5; index++) await join(stage, a, ['x'], `s/${index}`)
  b.calls.length = 0
  b.roster.jump()
  await settled()
  t.strictSame(sizes('members', b), [1, TOPICS_A_CALL, 5], 's/1 itself, then all of them')
})

t.test('who comes or goes while all are put back is not undone', async t => {
  const { stage, a, b } = await two()
  await join(stage, a, ['stays', 'goes'])
  a.answers.hold()
  a.roster.jump()
  await settled()
  const changes = [a.join('s/1', 'comes'), a.roster.leave('s/1', 'goes')]
  await stage.clock.turns()
  await a.answers.release()
  await Promise.all(changes)
  for (const instance of [a, b]) t.equal(instance.members('s/1'), 'comes stays')
  t.strictSame(on('s/1', b), ['s/1 +stays', 's/1 +goes', 's/1 +comes', 's/1 -goes'])
})

t.test('who goes after the first part was put back is not in the second', async t => {
  const { stage, a, b } = await two()
  await join(
    stage,
    a,
    Array.from({ length: MEMBERS_A_CALL }, (_, index) => `m${index}`)
  )
  await join(stage, a, ['goes', 'stays'])
  a.answers.hold()
  a.roster.jump()
  await a.answers.passOne() // what is stored of it
  const leaving = a.roster.leave('s/1', 'goes')
  await stage.clock.turns()
  await a.answers.release()
  await leaving
  t.equal(stage.stored('s/1').length, MEMBERS_A_CALL + 1)
  t.equal(
    on('s/1', b)
      .filter(line => line.includes('goes'))
      .join(),
    's/1 +goes,s/1 -goes'
  )
})

t.test('a filter that could not be followed is not followed', async t => {
  const stage = new RosterStage()
  const [a, b] = [stage.instance('a'), stage.instance('b')]
  a.isLive = false
  await t.rejects(a.roster.follow('s/1'), BrokerUnavailable)
  t.strictSame(a.calls, [], 'without a connection nothing is asked')
  ;[a.isLive, a.lost] = [true, 'calls']
  await t.rejects(a.roster.follow('s/1'), BrokerUnavailable)
  a.lost = null
  a.answers.hold()
  const following = a.roster.follow('s/1')
  const failed = t.rejects(following, BrokerUnavailable)
  a.lost = 'calls'
  await a.answers.passOne() // it listens
  await failed
  t.strictSame([...a.listening], [])
  t.strictSame(a.roster.channels, [])
  a.lost = null
  await join(stage, b, ['x'])
  t.strictSame(a.heard, [])
  t.equal(a.members('s/1'), '')
})

t.test('a filter that was given up while it was read, and is followed again, is followed once', async t => {
  const stage = new RosterStage()
  const [a, b] = [stage.instance('a'), stage.instance('b')]
  await join(stage, b, ['x'])
  a.answers.hold()
  const first = a.roster.follow('s/1')
  await settled()
  a.roster.unfollow('s/1')
  const second = a.roster.follow('s/1')
  await a.answers.release()
  await Promise.all([first, second])
  t.strictSame(a.roster.channels, ['p:m:s/1'])
  await join(stage, b, ['y'])
  t.equal(a.members('s/1'), 'x y')
  t.strictSame(a.heard, ['s/1: s/1 +y'])
})

t.test('an attempt that was given up and then fails does not end the next one', async t => {
  const stage = new RosterStage()
  const [a, b] = [stage.instance('a'), stage.instance('b')]
  a.answers.hold()
  const failed = t.rejects(a.roster.follow('s/1'), BrokerUnavailable)
  a.roster.unfollow('s/1')
  const second = a.roster.follow('s/1')
  await a.answers.loseOne()
  await failed
  await a.answers.release()
  await second
  await join(stage, b, ['x'])
  t.equal(a.members('s/1'), 'x')
  t.strictSame(a.roster.channels, ['p:m:s/1'])
})

t.test('closed, it sends what still waits and leaves no timer', async t => {
  const { stage, a, b } = await two()
  await join(stage, a, ['x'])
  b.roster.close()
  a.roster.jump()
  const leaving = a.roster.leave('s/1', 'x')
  a.roster.close()
  await leaving
  t.strictSame(stage.stored('s/1'), [])
  t.equal(stage.clock.timers, 0)
})

t.test('members are counted: those of here, and the copies', async t => {
  const stage = new RosterStage()
  const memory = new Memory(40_000)
  const [a, b] = [stage.instance('a', memory), stage.instance('b')]
  await b.roster.follow('s/1')
  const info = 'x'.repeat(500)
  const ids = Array.from({ length: 8 }, (_, index) => `${index}`)
  for (const id of ids) {
    const joined = a.join('s/1', id, info)
    await stage.clock.turns()
    await joined
  }
  const own = memory.held('members')
  t.ok(own > 8 * 1000)

  await t.test('who comes without room is refused, and nothing is sent of it', async t => {
    await t.rejects(a.join('s/1', 'more', info), {
      name: MemoryFull.name,
      message: /no room for more members/
    })
    await stage.clock.turns()
    t.equal(memory.held('members'), own)
    t.notOk(stage.stored('s/1').some(({ id }) => id === 'more'))
    const again = a.join('s/1', '7', info)
    await stage.clock.turns()
    await again
    t.equal(memory.held('members'), own, 'who is there already needs none')
  })

  await a.roster.follow('s/1')
  t.equal(memory.held('members'), 2 * own, 'what is read')
  await join(stage, b, ['b'])
  const copied = memory.held('members')
  t.ok(copied > 2 * own, 'what is announced')
  await leave(stage, b, 'b')
  t.equal(memory.held('members'), 2 * own)

  b.lost = a.lost = 'calls'
  const failed = t.rejects(a.join('s/1', '7'), BrokerUnavailable)
  await stage.clock.turns()
  await failed
  t.equal(memory.held('members'), 2 * own, 'a join that failed')
  b.lost = a.lost = null
  a.roster.jump()
  await settled()
  t.equal(memory.held('members'), 2 * own, 'what is read again')
  a.roster.unfollow('s/1')
  t.equal(memory.held('members'), own)
  for (const id of ids) await leave(stage, a, id)
  t.equal(memory.held('members'), 0)
})
