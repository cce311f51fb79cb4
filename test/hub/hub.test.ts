import t from 'tap'
import type { Page } from '../../src/broker/event-log.ts'
import { formatCursor } from '../../src/event.ts'
import { Watch } from '../../src/hub/watch.ts'
import { plain } from '../../src/wire/packing.ts'
import { sse } from '../../src/wire/sse.ts'
import { Stage, type Probe } from './stage.ts'

/** The cursor that a gap at the beginning tells back. */
function afterOf({ frames: [gap] }: Probe): string {
  return (JSON.parse(gap!.data!) as { after: string }).after
}

t.test('where a stream starts', async t => {
  t.test('a fresh one: at the hub, told at once', async t => {
    const stage = await Stage.begin()
    await stage.publish('a')
    const probe = await stage.open('a')
    t.strictSame(probe.told, [`cursor ${stage.last}`])
    t.equal(probe.frames[0]!.retry, 2000)
    await stage.publish('a', 'b')
    await stage.flow()
    t.strictSame(probe.data, ['2'])
  })

  t.test('at its own cursor, not at the hub, while anything is to be delivered', async t => {
    const stage = await Stage.begin()
    const [, second] = await stage.publish('a', 'a', 'a')
    await stage.open('b')
    const probe = await stage.open('a', { after: second! })
    t.strictSame(probe.told, [`cursor ${second}`, '3'])
  })

  t.test('a cursor ahead of this process is not from the future, and gets nothing twice', async t => {
    const stage = await Stage.begin({ HEARTBEAT: 500 })
    const other = await stage.open('a')
    await stage.publish('a')
    await stage.flow()
    const [second] = await stage.publish('a') // told on another instance already, not yet on this one
    const asked = stage.ask('a', { after: second! })
    await stage.clock.advance(0)
    stage.log.release(0)
    const probe = await asked
    await stage.clock.advance(500)
    t.strictSame(probe.told, [`cursor ${second}`, `id ${second}`], 'it waits at its own cursor')
    stage.log.deliver(Infinity)
    await stage.clock.turns()
    t.equal(probe.session.state, 'live')
    t.strictSame(probe.data, [], 'what it had already')
    await stage.publish('a')
    await stage.flow()
    t.strictSame(probe.data, ['3'])
    t.strictSame(other.data, ['1', '2', '3'])
  })

  t.test('only the broker may say that a cursor is from the future', async t => {
    const stage = await Stage.begin()
    const [first] = await stage.publish('a')
    const near = await stage.open('a', { after: first! })
    t.equal(stage.log.asked.position, 0, 'not asked for what this process has reached')
    const [ms, seq] = first!.split('-').map(Number)
    for (const after of [`${ms}-${seq! + 1}`, `${ms! + 60_000}-0`, 'x', '1-', '-1-0', `${ms}-0 `]) {
      const probe = await stage.open('a', { after })
      t.strictSame(
        probe.told,
        ['gap unknown a', `cursor ${stage.last}`],
        `${after}: the gap comes before the cursor`
      )
      t.equal(afterOf(probe), after)
    }
    t.strictSame(near.told, [`cursor ${first}`])
    const long = await stage.open('a', { after: 'x'.repeat(5000) })
    t.equal(afterOf(long).length, 128, 'what nobody gave out is not told back at any length')
  })

  t.test('a gap comes first', async t => {
    const stage = await Stage.begin({ RING_SIZE: 2 })
    stage.log.pageLimit = 1
    const [first] = await stage.publish('a', 'b', 'a', 'a', 'a', 'b')
    const probe = await stage.open(['a', 'b'], { after: first! })
    t.strictSame(probe.told, [`cursor ${first}`, 'gap expired a', '2', '4', '5', '6'])
    t.strictSame(JSON.parse(probe.frames[1]!.data!), { reason: 'expired', topics: ['a'], after: first })
  })

  t.test('a cursor older than RING_TTL is a gap, whatever is found', async t => {
    const stage = await Stage.begin({ RING_TTL: 60_000 })
    const [first] = await stage.publish('a', 'a')
    await stage.clock.live(60_500)
    const still = await stage.open('a')
    await stage.clock.live(1000)
    await stage.publish('a')
    const probe = await stage.open('a', { after: first! })
    t.strictSame(probe.told, [`cursor ${first}`, 'gap expired a', '3'], 'told once, although there is a loss')
    t.strictSame(still.data, ['3'])
  })

  t.test('what is too old for one topic by its rule is a gap of that topic alone', async t => {
    const rules = [
      { match: 's/short', ttl: 1000 },
      { match: 'b', ttl: 600_000 }
    ]
    const stage = await Stage.begin({ RING_TTL: 60_000, rules })
    // what it listens to is held here as well
    const still = await stage.open('s/*')
    const [first] = await stage.publish('s/a', 's/short', 's/b')
    await stage.flow()
    await stage.clock.live(2000)
    const probe = await stage.open('s/*', { after: first! })
    t.strictSame(probe.told, [`cursor ${first}`, 'gap expired s/short', '3'])
    t.strictSame(still.data, ['1', '2', '3'])
    await stage.clock.live(60_000)
    const both = await stage.open(['b', 's/a', 's/b'], { after: first! })
    t.strictSame(
      both.told,
      [`cursor ${first}`, 'gap expired s/b'],
      'its cursor is as old as the other allows'
    )
    t.strictSame((await stage.open('s/a', { after: first! })).notes, [`cursor ${first}`, 'gap expired s/a'])
  })

  t.test('a connection that lags for longer than RING_TTL is told so', async t => {
    const stage = await Stage.begin({ RING_TTL: 1000, RING_SIZE: 1, SEND_BUFFER: 10 })
    const probe = await stage.open('a')
    probe.slow = true
    await stage.publish('a')
    await stage.flow()
    await stage.publish('a', 'a')
    await stage.flow()
    t.equal(probe.session.state, 'lagging')
    await stage.clock.live(200_000)
    t.strictSame(await stage.log.topics('a'), [], 'the broker has no trace of it any more')
    probe.drain()
    await stage.flow()
    await stage.publish('a')
    await stage.flow()
    t.strictSame(probe.told.slice(1), ['1', 'gap expired a', '4'])
  })

  t.test('a gap of very many topics names the filter', async t => {
    const stage = await Stage.begin({ RING_SIZE: 1 })
    const start = stage.last
    const topics = Array.from({ length: 101 }, (_, index) => `s/${index}`)
    await stage.publish(...topics, ...topics)
    const probe = await stage.open('s/*', { after: start })
    t.equal(probe.notes[1], 'gap expired s/*')
    t.equal(probe.data.length, 101)
  })

  t.test('a topic that was born after the cursor belongs to its wildcard from its first event', async t => {
    const stage = await Stage.begin()
    const [first] = await stage.publish('s/old')
    await stage.publish('s/new', 's/other', 's/new/not', 'new')
    const probe = await stage.open('s/*', { after: first! })
    t.strictSame(probe.told, [`cursor ${first}`, '2', '3'])
  })
})

t.test('catching up', async t => {
  t.test('what came before its filter was announced, while this process had not come as far', async t => {
    const stage = await Stage.begin()
    await stage.open('b')
    const start = stage.last
    await stage.publish('a', 'b') // nobody here listens to the first, and the second is on its way
    const asked = stage.ask('a', { after: start })
    await stage.clock.advance(0)
    stage.log.release(0)
    await stage.clock.advance(0)
    stage.log.release(0)
    const probe = await asked
    await stage.flow()
    await stage.publish('a')
    await stage.flow()
    t.strictSame(probe.data, ['1', '3'])
  })

  t.test('a long way, from the broker, then from memory: by pages, each event once', async t => {
    const stage = await Stage.begin({ RING_SIZE: 2000 })
    const start = stage.last
    const many = Array.from({ length: 700 }, (_, index) => ['s/a', 's/b', 'c'][index % 3]!)
    const expected = many.map((_, index) => `${index + 1}`)
    await stage.publish(...many)
    const first = await stage.open(['s/*', 'c', 's/a'], { after: start })
    t.strictSame(first.data, expected)
    const { range } = stage.log.asked
    t.ok(range >= 4 && range <= 15, `${range} reads`)
    await stage.publish(...many)
    await stage.flow()
    const cursor = first.frames.filter(({ id }) => id)[350]!.id!
    const again = await stage.open(['s/*', 'c', 's/a'], {
      after: first.frames.filter(({ id }) => id)[700]!.id!
    })
    t.strictSame(
      again.data,
      many.map((_, index) => `${index + 701}`)
    )
    t.equal(stage.log.asked.range, range, 'what came since is in memory')
    const older = await stage.open(['s/*', 'c', 's/a'], { after: cursor })
    t.equal(older.data.length, 1050)
    t.ok(stage.log.asked.range > range, 'what is older is asked of the broker')
  })

  t.test('thousands that come back at once are one read', async t => {
    const stage = await Stage.begin()
    const [first] = await stage.publish('a', 'a', 'a')
    const probes = Array.from({ length: 5000 }, () => stage.ask('a', { after: first! }))
    await stage.flow()
    const all = await Promise.all(probes)
    t.ok(all.every(({ told }) => told.join() === `cursor ${first},2,3`))
    t.ok(all.every(({ session }) => session.state === 'live'))
    t.strictSame(stage.log.asked, { range: 1, rewind: 0, subscribe: 1, position: 0, state: 0 })
    await stage.publish('a')
    await stage.flow()
    t.ok(all.every(({ data }) => data.length === 3))
  })

  t.test('who comes a moment later is served from what was read for others', async t => {
    const stage = await Stage.begin({ RING_SIZE: 2000 })
    const ids = await stage.publish(...Array.from({ length: 900 }, () => 'a'))
    const data = (from: number) => Array.from({ length: 900 - from }, (_, index) => `${from + index + 1}`)
    // each reads to the end, so that the rings take in one page more than they reach back already
    for (const reads of [4, 7, 9, 10]) {
      const probe = await stage.open('a', { after: ids[9]! })
      t.strictSame(probe.data, data(10))
      t.equal(stage.log.asked.range, reads)
    }
    for (const from of [10, 11, 300, 899]) {
      const probe = await stage.open('a', { after: ids[from - 1]! })
      t.strictSame(probe.told, [`cursor ${ids[from - 1]}`, ...data(from)])
    }
    t.equal(stage.log.asked.range, 10, 'all in memory')
    const older = await stage.open('a', { after: ids[8]! })
    t.strictSame(older.data, data(9))
    t.equal(stage.log.asked.range, 11, 'but for what is older')
    await stage.publish('a')
    await stage.flow()
    t.equal(older.data.at(-1), '901')
  })

  t.test('what was asked for before a loss is not taken for what is there after it', async t => {
    const stage = await Stage.begin()
    const start = stage.last
    await stage.publish('a', 'a')
    await stage.flow()
    const live = await stage.open('a')
    stage.log.tellLost(['a'])
    await stage.publish('a', 'a')
    const asked = stage.ask('a', { after: start })
    await stage.clock.advance(0)
    t.equal(stage.log.asked.range, 1, 'answered, and the answer is under way')
    stage.log.deliver(1)
    await stage.clock.turns()
    t.equal(live.notes.at(-1), 'gap lost a')
    await stage.flow()
    t.strictSame((await asked).data, ['1', '2', '3', '4'])
    const late = await stage.open('a', { after: start })
    t.strictSame(late.data, ['1', '2', '3', '4'])
    t.equal(stage.log.asked.range, 2, 'who comes a moment later asks again')
  })

  t.test('a gap is told to those who come a moment later, too', async t => {
    const stage = await Stage.begin({ RING_SIZE: 5 })
    const [first] = await stage.publish('a')
    const [, third, fourth] = await stage.publish('a', 'a', 'a', 'a', 'a', 'a', 'a', 'a')
    const held = ['5', '6', '7', '8', '9']
    for (let time = 0; time < 3; time++) {
      const probe = await stage.open('a', { after: first! })
      t.strictSame(probe.told, [`cursor ${first}`, 'gap expired a', ...held])
    }
    const second = await stage.open('a', { after: third! })
    t.strictSame(second.told, [`cursor ${third}`, 'gap expired a', ...held])
    const none = await stage.open('a', { after: fourth! })
    t.strictSame(none.told, [`cursor ${fourth}`, ...held], 'but not to those who miss nothing')
    t.equal(stage.log.asked.range, 1)
    const page = await stage.poll('a', { after: first! })
    t.match(page, { gap: `expired a after ${first}`, data: held })
  })

  t.test('a filter stays warm for a minute after its last subscriber', async t => {
    const stage = await Stage.begin()
    const probe = await stage.open('a')
    const start = stage.last
    probe.session.close('client')
    await stage.publish('a')
    await stage.flow()
    await stage.clock.live(59_000)
    await stage.flow()
    const again = await stage.open('a', { after: start })
    t.strictSame(again.data, ['1'])
    t.strictSame(stage.log.asked, { range: 0, rewind: 0, subscribe: 1, position: 0, state: 0 })
    again.session.close('client')
    await stage.clock.live(55_000)
    const third = await stage.open('a')
    t.equal(stage.log.asked.subscribe, 1, 'a minute after the last one, not after the one before')
    third.session.close('client')
    await stage.clock.live(61_000)
    await stage.flow()
    const cold = await stage.open('a', { after: start })
    t.strictSame(cold.data, ['1'])
    t.equal(stage.log.asked.subscribe, 2)
    t.equal(stage.log.asked.range, 1)
  })

  t.test('one that came back keeps its filter, although it had been given up before', async t => {
    const stage = await Stage.begin()
    const probe = await stage.open('a')
    probe.session.close('client')
    await stage.clock.live(30_000)
    const again = await stage.open('a')
    await stage.clock.live(61_000)
    await stage.publish('a')
    await stage.flow()
    t.strictSame(again.data, ['1'])
  })

  t.test('a subscription that failed leaves nothing that ends the next one', async t => {
    const stage = await Stage.begin()
    const failed = stage.ask('a')
    stage.log.down()
    await t.rejects(failed, { name: 'BrokerUnavailable' })
    stage.log.restore()
    const probe = await stage.open('a')
    await stage.clock.live(120_000)
    await stage.publish('a')
    await stage.flow()
    t.strictSame(probe.data, ['1'])
    t.equal(stage.hub.sessions.size, 1)
  })

  t.test('a connection that was lost and is back: every topic is read from where it stopped', async t => {
    const stage = await Stage.begin()
    const probe = await stage.open(['a', 'b'])
    stage.log.down()
    await stage.publish('b', 'a', 'a') // by another instance
    await t.rejects(stage.ask('new'), { name: 'BrokerUnavailable' })
    const fresh = await stage.open('a')
    const behind = await stage.open('a', { after: probe.frames[0]!.id! })
    for (const { ended, data } of [probe, fresh, behind]) {
      t.notOk(ended, 'what is open stays open')
      t.strictSame(data, [])
    }
    stage.log.restore()
    await stage.flow()
    t.strictSame(probe.data, ['1', '2', '3'], 'though nothing comes after the last event to show it')
    t.strictSame(behind.data, ['2', '3'])
    await stage.publish('a')
    await stage.flow()
    for (const { data } of [probe, fresh, behind]) t.equal(data.at(-1), '4')
  })

  t.test('a jump without a word of what was missed', async t => {
    const stage = await Stage.begin()
    const probe = await stage.open('a')
    await stage.publish('a')
    stage.log.cut()
    await stage.flow()
    t.strictSame(probe.data, ['1'])
  })

  t.test('what the store has lost is told, live or not', async t => {
    const stage = await Stage.begin({ SEND_BUFFER: 10 })
    const live = await stage.open(['s/*', 'a'])
    const elsewhere = await stage.open(['b', '*'])
    const conflated = await stage.open('s/*', { rate: 1 })
    const slow = await stage.open('s/x')
    slow.slow = true
    await stage.publish('s/x')
    await stage.flow()
    await stage.publish('s/x')
    await stage.flow()
    t.equal(slow.session.state, 'lagging')
    stage.log.lost = stage.log.last
    stage.log.tellLost(['s/x', 's/x/y', 'c'])
    await stage.flow()
    t.equal(live.notes.at(-1), 'gap lost s/x')
    t.equal(conflated.notes.at(-1), 'gap lost s/x')
    t.strictSame(elsewhere.notes.slice(1), ['gap lost c'])
    slow.drain()
    await stage.flow()
    t.ok(slow.notes.includes('gap lost s/x'), 'one that lagged may have missed it')
    t.equal(slow.notes.filter(note => note.startsWith('gap')).length, 1, 'once')
  })

  t.test('a loss of many topics costs what they are, not that times the filters', async t => {
    const stage = await Stage.begin()
    const topics = Array.from({ length: 500 }, (_, index) => `s${index}/x`)
    const wildcards = topics.map(topic => topic.replace('x', '*'))
    const all = await stage.open([...topics, ...wildcards])
    const one = await stage.open('s7/x')
    const wild = await stage.open('s7/*')
    const elsewhere = await stage.open('s7')
    // each time that a topic is held against a filter, its wildcard is looked for
    const looks = t.capture(String.prototype, 'lastIndexOf', String.prototype.lastIndexOf)
    stage.log.tellLost([...topics, 's7/y'])
    await stage.flow()
    t.ok(looks().length <= 2 * topics.length, `${looks().length} looks`)
    const gap = JSON.parse(all.frames.at(-1)!.data!) as { topics: string[] }
    t.strictSame(new Set(gap.topics), new Set([...topics, 's7/y']))
    t.equal(gap.topics.length, 501)
    t.equal(one.notes.at(-1), 'gap lost s7/x')
    t.equal(wild.notes.at(-1), 'gap lost s7/x,s7/y')
    t.equal(elsewhere.notes.length, 1)
  })

  t.test('a loss of a wildcard is told to who listens to that', async t => {
    const stage = await Stage.begin()
    const wild = await stage.open('s/*')
    const both = await stage.open(['s/*', 's/x'])
    stage.log.tellLost(['s/*'])
    await stage.flow()
    for (const { notes } of [wild, both]) t.strictSame(notes.slice(1), ['gap lost s/*'])
  })

  t.test('a loss that was told is not told again after a time live', async t => {
    const stage = await Stage.begin()
    await stage.publish('a')
    await stage.flow()
    const live = await stage.open('a')
    stage.log.lost = stage.log.last.map(({ ms, seq }) => ({ ms: ms + 1000, seq }))
    stage.log.cut() // it reads on by itself, and is told on its way back
    await stage.flow()
    const told = () => live.notes.filter(note => note.startsWith('gap lost')).length
    t.equal(told(), 1)
    stage.log.cut()
    await stage.flow()
    t.equal(told(), 1)
  })

  t.test('what the store has lost while a session read it is told before what it read', async t => {
    const stage = await Stage.begin()
    const [first] = await stage.publish('a', 'a', 'a')
    const asked = [stage.ask('a', { after: first! }), stage.poll('a', { after: first! })] as const
    stage.log.release(0)
    await stage.clock.turns()
    stage.log.deliver(Infinity)
    await stage.clock.turns()
    t.equal(stage.log.asked.range, 1, 'what they read is on its way')
    stage.log.lost = stage.log.last
    await stage.flow()
    const [{ told }, { gap, data }] = await Promise.all(asked)
    t.strictSame(told, [`cursor ${first}`, 'gap lost a', '2', '3'])
    t.strictSame([gap, ...data], [`lost a after ${first}`, '2', '3'])
  })
})

t.test('heartbeats', async t => {
  t.test('carry the position while all is quiet, so that cursors stay young', async t => {
    const stage = await Stage.begin()
    const probe = await stage.open('a')
    await stage.clock.live(0)
    await stage.clock.advance(14_999)
    await stage.flow()
    t.equal(probe.frames.length, 1)
    await stage.clock.advance(1)
    const [, beat] = probe.frames
    t.strictSame(
      beat,
      { event: 'cursor', data: JSON.stringify({ cursor: beat!.id }), id: `${stage.clock.now() - 1000}-0` },
      'a page hears it only if it listens for it'
    )
    await stage.clock.live(15_000)
    await stage.flow()
    t.equal(probe.frames.length, 3)
  })

  t.test('wait for silence', async t => {
    const stage = await Stage.begin()
    const probe = await stage.open('a')
    await stage.clock.advance(14_000)
    await stage.publish('a')
    await stage.flow()
    await stage.clock.advance(14_000)
    t.equal(probe.frames.length, 2)
    await stage.clock.advance(1000)
    t.equal(probe.frames.length, 3)
  })

  t.test('that a page can see', async t => {
    const stage = await Stage.begin()
    const probe = await stage.open('a', { heartbeat: 4000 })
    await stage.clock.advance(4000)
    await stage.flow()
    await stage.clock.advance(4000)
    const beats = probe.frames.filter(({ event }) => event === 'heartbeat')
    t.equal(beats.length, 2)
    t.equal(beats[1]!.id, `${stage.clock.now() - 4000}-0`)
    t.strictSame(JSON.parse(beats[1]!.data!), {
      time: stage.clock.now(),
      cursor: `${stage.clock.now() - 4000}-0`
    })
  })

  t.test('of one that waits for the broker: its own cursor', async t => {
    const stage = await Stage.begin({ HEARTBEAT: 5000 })
    const [first] = await stage.publish('a', 'a')
    const asked = stage.ask('a', { after: first! })
    stage.log.release(0)
    const probe = await asked
    stage.log.deliver(Infinity)
    await stage.clock.turns()
    await stage.clock.advance(5000)
    t.strictSame(probe.told, [`cursor ${first}`, `id ${first}`])
    stage.log.down()
    await stage.clock.advance(5000)
    const signs = probe.frames.slice(2).map(({ event, id }) => `${event} ${id}`)
    t.strictSame(signs, [`stale ${first}`, `stale ${first}`], 'also when it gets no answer')
    stage.log.restore()
    await stage.flow()
    t.strictSame(probe.data, ['2'])
  })

  t.test('of one whose connection is full: none', async t => {
    const stage = await Stage.begin({ SEND_BUFFER: 10 })
    const probe = await stage.open('a')
    probe.slow = true
    await stage.publish('a')
    await stage.flow()
    await stage.publish('a')
    await stage.flow()
    const { length } = probe.frames
    await stage.clock.live(60_000)
    await stage.flow()
    t.equal(probe.frames.length, length)
  })

  t.test('of a conflated one: from before what it has yet to get', async t => {
    const stage = await Stage.begin({ HEARTBEAT: 3000 })
    const probe = await stage.open('a', { rate: 0.1 })
    await stage.publish('a')
    await stage.flow()
    t.strictSame(probe.data, ['1'])
    const position = stage.hub.position[0]!
    await stage.publish('a')
    await stage.flow()
    await stage.clock.advance(3000)
    t.equal(probe.notes.at(-1), `id ${position.ms}-${position.seq}`)
    await stage.clock.advance(7000)
    t.strictSame(probe.data, ['1', '2'])
  })
})

t.test('a slow reader', async t => {
  t.test('is served from the ring when it drains, then live again', async t => {
    const stage = await Stage.begin({ SEND_BUFFER: 100 })
    const fast = await stage.open('a')
    const slow = await stage.open('a')
    slow.slow = true
    for (let round = 0; round < 50; round++) {
      await stage.publish('a')
      await stage.flow()
    }
    t.equal(slow.session.state, 'lagging')
    t.ok(slow.pending < 200, `${slow.pending} bytes wait, and no more`)
    t.ok(slow.data.length < 8)
    slow.drain()
    t.equal(slow.session.state, 'live', 'at once: it is all in memory')
    t.strictSame(slow.data, fast.data)
    t.equal(stage.log.asked.range, 0)
    await stage.publish('a')
    await stage.flow()
    t.equal(slow.data.length, 51)
  })

  t.test('that stays slow gets on a buffer at a time', async t => {
    const stage = await Stage.begin({ SEND_BUFFER: 100 })
    const slow = await stage.open('a')
    slow.slow = true
    await stage.publish(...Array.from({ length: 100 }, () => 'a'))
    await stage.flow()
    let rounds = 0
    while (slow.data.length < 100) {
      t.ok(slow.pending <= 250, 'never more than a buffer and a piece')
      slow.pending = 0
      const before = slow.data.length
      slow.session.drained()
      t.ok(slow.data.length > before, 'each time it gets on')
      if (++rounds > 100) break
    }
    t.strictSame(
      slow.data,
      Array.from({ length: 100 }, (_, index) => `${index + 1}`)
    )
  })

  t.test('is told what the ring no longer holds', async t => {
    const stage = await Stage.begin({ SEND_BUFFER: 10, RING_SIZE: 3 })
    const slow = await stage.open('a')
    slow.slow = true
    await stage.publish('a')
    await stage.flow()
    await stage.publish('a', 'a', 'a', 'a', 'a')
    await stage.flow()
    slow.drain()
    await stage.flow()
    t.strictSame(slow.told.slice(1), ['1', 'gap expired a', '4', '5', '6'])
  })

  t.test('is not ended by the hub: a stall is the transport’s', async t => {
    const stage = await Stage.begin({ SEND_BUFFER: 10 })
    const slow = await stage.open('a')
    slow.slow = true
    await stage.publish('a')
    await stage.flow()
    await stage.publish('a')
    await stage.flow()
    await stage.clock.live(3_600_000)
    t.equal(slow.session.state, 'lagging')
    t.notOk(slow.ended)
    slow.session.close('stalled')
    t.equal(slow.session.state, 'closed')
    slow.session.drained()
    await stage.publish('a')
    await stage.flow()
    t.strictSame(slow.data, ['1'])
    t.equal(stage.hub.sessions.size, 0)
  })
})

t.test('fan-out', async t => {
  t.test(
    'one write for each session and turn, however many events it brought, of the same bytes',
    async t => {
      const stage = await Stage.begin()
      const probes = await Promise.all([1, 2, 3].map(() => stage.open(['a', 's/*', 's/x'])))
      const alone = await stage.open('a')
      await stage.publish('a', 's/x', 'a')
      await stage.publish('s/y')
      await stage.publish('a')
      stage.log.deliver(Infinity)
      t.ok(
        probes.every(({ writes }) => writes.length === 1),
        'nothing before the turn ends'
      )
      await stage.clock.turn()
      for (const probe of probes) {
        t.equal(probe.writes.length, 2)
        t.equal(probe.writes[1], probes[0]!.writes[1], 'the same Buffer')
        t.strictSame(probe.data, ['1', '2', '3', '4', '5'])
      }
      t.equal(alone.writes.length, 2)
      t.strictSame(alone.data, ['1', '3', '5'])
    }
  )

  t.test('each format has its own bytes', async t => {
    const stage = await Stage.begin()
    const formats = [sse(false), sse(true)]
    const [bare, enveloped] = await Promise.all(formats.map(format => stage.open('a', { format })))
    const [id] = await stage.publish('a')
    await stage.flow()
    t.equal(bare!.frames.at(-1)!.data, '1')
    t.match(JSON.parse(enveloped!.frames.at(-1)!.data!), { id, topic: 'a', type: 'message', data: 1 })
  })

  t.test('what comes on two channels is taken once', async t => {
    const stage = await Stage.begin()
    const probe = await stage.open(['s/x', 's/*'])
    await stage.publish('s/x', 's/y', 's/x')
    stage.log.deliver(Infinity, true)
    await stage.flow()
    t.strictSame(probe.data, ['1', '2', '3'])
  })

  for (const word of ['tick', 'jump'] as const) {
    t.test(`a late ${word} takes nothing back`, async t => {
      const stage = await Stage.begin()
      const start = stage.hub.position
      const probe = await stage.open('a')
      await stage.publish('a', 'a')
      await stage.flow()
      const { position } = stage.hub
      stage.hub[word](start)
      await stage.clock.turns()
      t.strictSame(stage.hub.position, position)
      await stage.clock.advance(15_000)
      const ids = probe.frames.flatMap(({ id }) => id ?? [])
      t.strictSame(ids, [...ids].sort(), 'no id goes back')
      await stage.publish('a')
      await stage.flow()
      t.strictSame(probe.data, ['1', '2', '3'])
    })
  }

  t.test('a ring that begins ahead of the hub takes nothing from before its beginning', async t => {
    const at = (seq: number) => ({ ms: 1, seq })
    const watch = new Watch('a', 1, () => 0, Promise.resolve({ position: [at(10)], end: null }))
    await watch.ready
    const event = (seq: number) => ({
      id: at(seq),
      shard: 0,
      topic: 'a',
      type: 'message',
      data: '',
      prev: null
    })
    for (const seq of [5, 10, 11, 12]) watch.push(event(seq))
    t.notOk(watch.holdsAfter([at(10)]))
    t.ok(watch.holdsAfter([at(11)]))
    t.strictSame(watch.after([at(11)], 10, [at(12)]).events, [event(12)])
    watch.reset([at(3)])
    t.strictSame(watch.base, [at(11)], 'and never goes back')
    const larger = new Watch('a', 3, () => 0, Promise.resolve({ position: [at(10)], end: null }))
    await larger.ready
    for (const seq of [5, 10, 11, 12]) larger.push(event(seq))
    t.notOk(larger.holdsAfter([at(5)]), 'not even when it is full')
  })

  t.test('rings take in what was read where it leads up to them', async t => {
    const at = (seq: number) => ({ ms: 1, seq })
    const event = (seq: number) => ({
      id: at(seq),
      shard: 0,
      topic: 'a',
      type: 'message',
      data: '',
      prev: null
    })
    const page = (end: number, events: number[], gap?: number): Page => ({
      ...{ events: events.map(event), end: [at(end)] },
      gaps: new Map(gap === undefined ? [] : [['a', at(gap)]])
    })
    const watch = new Watch('a', 4, () => 0, Promise.resolve({ position: [at(10)], end: null }))
    await watch.ready
    watch.push(event(11))
    watch.extend([at(5)], page(9, [8, 9]))
    t.notOk(watch.holdsAfter([at(5)]), 'not what ends before they begin')
    watch.extend([at(5)], page(12, [12], 11))
    t.notOk(watch.holdsAfter([at(5)]), 'nor what the store has gone beyond')
    watch.extend([at(5)], page(12, [8, 9, 11, 12], 7))
    t.strictSame(watch.after([at(5)], 10, [at(12)]), { ...page(12, [8, 9, 11], 7) })
    t.strictSame(watch.after([at(7)], 10, [at(12)]), { ...page(12, [8, 9, 11]) })
    t.strictSame(watch.base, [at(10)], 'announcements begin where they did')
    watch.extend([at(1)], page(6, [2, 3, 4], 1))
    t.notOk(watch.holdsAfter([at(2)]), 'and only the newest that fit')
    t.ok(watch.holdsAfter([at(3)]))
    t.strictSame(watch.after([at(3)], 10, [at(12)]), { ...page(12, [4, 8, 9, 11], 7) })
    watch.push(event(12))
    watch.push(event(13))
    t.notOk(watch.holdsAfter([at(7)]))
    t.strictSame(watch.after([at(8)], 10, [at(13)]), { ...page(13, [9, 11, 12, 13]) })
  })
})

t.test('a conflated stream', async t => {
  t.test('gets the newest of each topic, at its rate, in the order of ids', async t => {
    const stage = await Stage.begin()
    const probe = await stage.open('s/*', { rate: 2 })
    await stage.publish('s/x', 's/x', 's/y')
    await stage.flow()
    t.strictSame(probe.data, ['2', '3'], 'what one turn brought')
    await stage.publish('s/x', 's/y', 's/x')
    await stage.flow()
    await stage.clock.advance(499)
    t.strictSame(probe.data, ['2', '3'])
    await stage.clock.advance(1)
    t.strictSame(probe.data, ['2', '3', '5', '6'])
  })

  t.test('that comes while others wait for their time joins them just after it', async t => {
    const stage = await Stage.begin()
    const first = await stage.open('a', { rate: 0.1 })
    await stage.publish('a')
    await stage.flow()
    await stage.publish('a')
    await stage.flow()
    const second = await stage.open('a', { rate: 0.1, after: stage.last })
    t.equal(second.session.state, 'catching up')
    stage.log.down() // no tick will come
    await stage.clock.advance(10_000)
    t.strictSame(first.data, ['1', '2'])
    t.equal(second.session.state, 'live')
  })

  t.test('hears of no gap that the newest answers', async t => {
    const stage = await Stage.begin({ RING_SIZE: 1 })
    const [first] = await stage.publish('a', 'a', 'b', 'a', 'b')
    const probe = await stage.open(['a', 'b'], { rate: 1, after: first! })
    t.strictSame(probe.told, [`cursor ${first}`, '4', '5'])
  })
})

t.test('a conflated stream never gets more than its rate', async t => {
  t.test('when it joins others just before their time', async t => {
    const stage = await Stage.begin()
    const first = await stage.open('a', { rate: 1 })
    const start = stage.last
    await stage.publish('a')
    await stage.flow()
    await stage.clock.advance(900)
    const second = await stage.open('a', { rate: 1, after: start })
    t.strictSame(second.data, ['1'])
    await stage.publish('a')
    await stage.flow()
    await stage.clock.advance(100)
    await stage.flow()
    t.strictSame(first.data, ['1', '2'])
    await stage.clock.advance(799)
    await stage.flow()
    t.strictSame(second.data, ['1'], 'its own second has not passed')
    await stage.clock.advance(1200)
    await stage.flow()
    t.strictSame(second.data, ['1', '2'])
  })

  t.test('when it was given only a part before its connection was full', async t => {
    const stage = await Stage.begin({ SEND_BUFFER: 20 })
    const probe = await stage.open('s/*', { rate: 1 })
    probe.slow = true
    await stage.publish('s/x', 's/y')
    await stage.flow()
    t.strictSame(probe.data, ['1'])
    t.equal(probe.session.state, 'lagging')
    await stage.publish('s/x')
    await stage.flow()
    probe.drain()
    await stage.flow()
    t.strictSame(probe.data, ['1'])
    await stage.clock.live(2000)
    await stage.flow()
    t.strictSame(probe.data, ['1', '2', '3'])
  })
})

t.test('a poll', async t => {
  t.test('is answered with what there is, a page at a time', async t => {
    const stage = await Stage.begin()
    const start = stage.last
    await stage.publish('a', 'b', 'a', 'a')
    const ask = async (after: string, limit: number) => {
      const asked = stage.poll('a', { after, limit })
      await stage.flow()
      return asked
    }
    const first = await ask(start, 2)
    t.strictSame([first.data, first.more, first.gap], [['1', '3'], true, null])
    const second = await ask(first.cursor, 2)
    t.strictSame([second.data, second.more], [['4'], false])
    const third = await ask(second.cursor, 2)
    t.strictSame([third.data, third.more], [[], false])
    t.equal(stage.hub.sessions.size, 0)
  })

  t.test('names every topic that has lost something', async t => {
    const stage = await Stage.begin({ RING_SIZE: 1 })
    stage.log.pageLimit = 1
    const start = stage.last
    await stage.publish('a', 'a', 's/x', 's/x')
    const told: string[] = []
    for (let cursor = start, more = true; more;) {
      const asked = stage.poll(['a', 's/*'], { after: cursor })
      await stage.flow()
      const answer = await asked
      if (answer.gap) told.push(`${answer.gap === `expired a,s/x after ${cursor}` ? 'both' : answer.gap}`)
      told.push(...answer.data)
      ;({ cursor, more } = answer)
    }
    // in one answer, or each before what follows it
    if (told[0] === 'both') t.strictSame(told, ['both', '2', '4'])
    else t.match(told, [/^expired a after /, '2', /^expired s\/x after /, '4'])
  })

  t.test('names also what is lost while it is read', async t => {
    const stage = await Stage.begin({ RING_SIZE: 1 })
    const start = stage.last
    await stage.log.append([1, 2].map(data => ({ topic: 'a', type: 'message', data: `${data}`, ttl: 1 })))
    await stage.clock.advance(1500)
    const asked = stage.poll(['a', 'b'], { after: start })
    stage.log.release(0)
    stage.log.release(0)
    await stage.clock.turns()
    stage.log.deliver(Infinity)
    await stage.clock.turns()
    t.equal(stage.log.asked.range, 2, 'what it reads is on its way')
    await stage.publish('b', 'b')
    await stage.flow()
    const { data, gap } = await asked
    t.strictSame([data, gap], [['2'], `expired a,b after ${start}`])
  })

  t.test('that meets a loss on its way has what came before, and is told next time', async t => {
    const stage = await Stage.begin()
    stage.log.pageLimit = 1
    const start = stage.last
    await stage.publish('a', 'a', 'a')
    const asked = stage.poll('a', { after: start })
    stage.log.release(0)
    await stage.clock.turns()
    stage.log.deliver(Infinity)
    await stage.clock.turns()
    stage.log.release(0)
    await stage.clock.turns()
    t.equal(stage.log.asked.range, 2, 'it has read the first, and reads on')
    stage.log.lost = stage.log.last
    await stage.flow()
    const { cursor, ...first } = await asked
    t.strictSame(first, { data: ['1'], gap: null, more: true })
    const next = stage.poll('a', { after: cursor })
    await stage.flow()
    t.match(await next, { data: ['2', '3'], gap: `lost a after ${cursor}`, more: false })
  })

  t.test('with a cursor that is not known is told so', async t => {
    const stage = await Stage.begin()
    const asked = stage.poll(['a', 'b'], { after: 'x' })
    await stage.flow()
    t.match(await asked, { data: [], gap: 'unknown a,b after x' })
  })

  t.test('tells of an old cursor as it was sent, also when it finds a loss', async t => {
    const stage = await Stage.begin({ RING_SIZE: 1, RING_TTL: 10_000 })
    stage.log.pageLimit = 1
    const [first] = await stage.publish('a')
    await stage.clock.live(10_500)
    await stage.flow()
    await stage.publish('a', 'b', 'b')
    const asked = stage.poll(['a', 'b'], { after: first! })
    await stage.flow()
    t.equal((await asked).gap, `expired a,b after ${first}`)
  })

  t.test('that waits is woken by an event', async t => {
    const stage = await Stage.begin()
    const asked = stage.poll('a', { wait: 30_000 })
    await stage.flow()
    await stage.clock.advance(1000)
    await stage.publish('b', 'a')
    await stage.flow()
    t.strictSame((await asked).data, ['2'])
    t.equal(stage.hub.sessions.size, 0)
  })

  t.test('that waits is woken by an event that a broken connection swallowed', async t => {
    const stage = await Stage.begin()
    const asked = stage.poll('a', { wait: 30_000 })
    await stage.flow()
    await stage.publish('a')
    stage.log.cut()
    await stage.flow()
    t.strictSame((await asked).data, ['1'])
  })

  t.test('that waits is woken by a loss, and tells of it', async t => {
    const stage = await Stage.begin({ RING_SIZE: 1 })
    const asked = stage.poll('a', { wait: 30_000 })
    await stage.flow()
    const before = stage.last
    stage.log.down()
    await stage.publish('a', 'a')
    stage.log.restore()
    await stage.flow()
    const { data, gap } = await asked
    t.strictSame([data, gap], [['2'], `expired a after ${before}`])
  })

  t.test('that waits is woken by a loss after which there is nothing', async t => {
    const stage = await Stage.begin({ RING_TTL: 5000 })
    const asked = stage.poll('a', { wait: 300_000 })
    await stage.flow()
    stage.log.down()
    await stage.publish('a')
    await stage.clock.advance(20_000)
    stage.log.restore()
    await stage.flow()
    const { data, gap } = await asked
    t.strictSame(data, [])
    t.match(gap, /^expired a after /)
  })

  t.test('that waits is answered when it is sent away', async t => {
    const stage = await Stage.begin()
    const asked = stage.poll('a', { wait: 30_000 })
    await stage.flow()
    await stage.hub.connections.drain(0)
    t.match(await asked, { data: [], gap: null })
    t.equal(stage.hub.sessions.size, 0)
    t.equal(stage.hub.connections.size, 0)
  })

  t.test('that waits in vain is answered with where it stands', async t => {
    const stage = await Stage.begin()
    const asked = stage.poll('a', { wait: 30_000 })
    await stage.flow()
    await stage.clock.live(29_000)
    t.equal(stage.hub.sessions.size, 1)
    await stage.clock.live(2000)
    await stage.flow()
    const { data, gap, more } = await asked
    t.strictSame([data, gap, more], [[], null, false])
  })
})

t.test('a page that begins with a state', async t => {
  const change = async (stage: Stage, value: string | null) => {
    const state = { value: value && `"${value}"` }
    await stage.log.append([{ topic: 'd', type: 'patch', data: `"${value}"`, state }])
    await stage.flow()
  }
  const told = ({ frames }: Probe) =>
    frames.map(({ event, data }) => (event === 'cursor' ? event : [event, data].join(' ').trim()))

  t.test('gets it once, then the changes', async t => {
    const stage = await Stage.begin()
    await change(stage, 'one')
    const probe = await stage.open('d', { snapshot: true })
    await change(stage, 'two')
    t.strictSame(told(probe), ['snapshot "one"', 'cursor', 'patch "two"'])
    const back = await stage.open('d', { snapshot: true, after: probe.frames[1]!.id! })
    t.strictSame(told(back), ['cursor', 'patch "two"'], 'only what it missed')
  })

  for (const [what, subscription] of [
    ['', {}],
    [', also conflated', { rate: 1 }]
  ] as const) {
    t.test(`that comes with a cursor older than all that is kept gets it anew${what}`, async t => {
      const stage = await Stage.begin({ RING_TTL: 60_000 })
      await change(stage, 'one')
      const start = stage.last
      await change(stage, 'two')
      await stage.clock.live(200_000)
      await stage.flow()
      const probe = await stage.open('d', { snapshot: true, after: start, ...subscription })
      t.strictSame(told(probe), ['snapshot "two"', 'cursor'])
    })

    t.test(`whose connection was full until nothing is kept gets it anew${what}`, async t => {
      const stage = await Stage.begin({ RING_TTL: 60_000, SEND_BUFFER: 10 })
      await change(stage, 'one')
      const probe = await stage.open('d', { snapshot: true, ...subscription })
      probe.slow = true
      await stage.clock.live(2000)
      for (const value of ['two', 'three', 'four']) {
        await change(stage, value)
        await stage.clock.live(2000)
        await stage.flow()
      }
      t.equal(probe.session.state, 'lagging')
      await stage.clock.live(200_000)
      await stage.flow()
      probe.drain()
      await stage.flow()
      t.equal(
        told(probe).findLast(text => text.startsWith('snapshot')),
        'snapshot "four"'
      )
      t.equal(probe.session.state, 'live')
    })
  }

  t.test('that changes while it catches up is told once, and live', async t => {
    const stage = await Stage.begin()
    const start = stage.last
    await stage.clock.live(5000)
    await stage.flow()
    const asked = stage.ask('d', { snapshot: true, rate: 1, after: start })
    stage.log.release(0)
    const probe = await asked
    t.equal(stage.log.asked.range, 1, 'what it has missed is on its way')
    await change(stage, 'one')
    for (let second = 0; second < 5; second++) {
      await stage.clock.live(1000)
      await stage.flow()
    }
    t.strictSame(told(probe), ['cursor', 'snapshot "one"', 'cursor'])
    t.equal(stage.log.asked.state, 1)
    t.equal(probe.session.state, 'live')
  })

  t.test('that has no state, and a past that is gone, is told once', async t => {
    const stage = await Stage.begin({ RING_SIZE: 1 })
    const start = stage.last
    for (const value of ['one', 'two', null]) await change(stage, value)
    const probe = await stage.open('d', { snapshot: true, after: start })
    t.equal(probe.session.state, 'live')
    t.equal(probe.frames.filter(({ event }) => event === 'deleted').length, 1)
    t.notOk(probe.frames.some(({ event }) => event === 'gap'))
    t.ok(stage.log.asked.state <= 2)
  })

  t.test('is told no id before it has the state', async t => {
    const stage = await Stage.begin({ HEARTBEAT: 1000 })
    await change(stage, 'one')
    const asked = stage.ask('d', { snapshot: true })
    await stage.clock.advance(0)
    stage.log.release(0)
    const probe = await asked
    await stage.clock.advance(5000)
    t.strictSame(probe.frames, [])
    await stage.flow()
    t.equal(told(probe)[0], 'snapshot "one"')
  })
})

t.test('a session that gives up some of its filters', async t => {
  t.test('is counted once as one that resumed', async t => {
    const stage = await Stage.begin()
    const [first] = await stage.publish('a', 'b', 'a')
    const count = async () => {
      const { values } = await stage.metrics.resumes.get()
      return values.reduce((sum, { value }) => sum + value, 0)
    }
    const before = await count()
    const asked = stage.ask(['a', 'b'], { after: first! })
    await stage.clock.advance(0)
    stage.log.release(0)
    stage.log.release(0)
    await stage.clock.advance(0)
    const probe = await asked
    t.equal(probe.session.state, 'catching up')
    probe.session = stage.hub.narrow(probe.session, ['b'])
    await stage.flow()
    t.equal(probe.session.state, 'live')
    t.strictSame(probe.data, ['2'])
    t.equal(await count(), before + 1)
  })

  t.test('is told once what the store has lost', async t => {
    const stage = await Stage.begin()
    stage.log.pageLimit = 1
    const [first] = await stage.publish('a', 'b', 'a')
    const asked = stage.ask(['a', 'b'], { after: first! })
    for (let count = 0; count < 2; count++) stage.log.release(0)
    const probe = await asked
    stage.log.deliver(Infinity)
    await stage.clock.turns()
    stage.log.lost = stage.log.last
    for (let count = 0; count < 2; count++) stage.log.release(0)
    await stage.clock.advance(0)
    t.equal(probe.notes.at(-1), 'gap lost a,b')
    probe.session = stage.hub.narrow(probe.session, ['b'])
    await stage.flow()
    t.strictSame(probe.told, [`cursor ${first}`, 'gap lost a,b', '2'])
  })

  t.test('gets nothing any more that was read for the others', async t => {
    const stage = await Stage.begin()
    stage.log.pageLimit = 1
    const [first] = await stage.publish('s/x', 's/x', 't/x', 's/y', 't/y')
    const asked = stage.ask(['s/*', 't/*'], { after: first!, rate: 1 })
    for (let count = 0; count < 2; count++) stage.log.release(0)
    const probe = await asked
    stage.log.deliver(Infinity)
    await stage.clock.turns()
    for (let count = 0; count < 2; count++) stage.log.release(0)
    await stage.clock.advance(0)
    t.equal(stage.log.asked.range, 4, 'it has read a page of each, and reads on')
    t.strictSame(probe.data, [], 'it keeps the newest until it has read all')
    probe.session = stage.hub.narrow(probe.session, ['t/*'])
    await stage.flow()
    t.strictSame(probe.data, ['3', '5'])
  })
})

t.test('the end', async t => {
  t.test('goodbyes are spread over the time that there is', async t => {
    const stage = await Stage.begin()
    const probes = await Promise.all(Array.from({ length: 200 }, () => stage.open('a')))
    const gone = () => probes.filter(({ ended }) => ended).length
    let drained = false
    void stage.hub.connections.drain(10_000).then(() => (drained = true))
    let before = gone()
    t.ok(before <= 1)
    for (let second = 1; second <= 10; second++) {
      t.notOk(drained)
      await stage.clock.advance(1000)
      const now = gone()
      t.ok(Math.abs(now - second * 20) <= 2, `${now} after ${second} s`)
      t.ok(now > before)
      before = now
    }
    await stage.clock.advance(100)
    t.equal(gone(), 200)
    t.ok(drained)
    const retries = probes.map(({ frames }) => frames.at(-1)!.retry!)
    t.ok(retries.every(retry => retry >= 2000 && retry <= 4000))
    t.ok(new Set(retries).size > 100, 'at random, so that they do not all come back at once')
    const cursor = formatCursor(stage.hub.position)
    for (const { frames } of probes) {
      const { event, data, id, retry } = frames.at(-1)!
      t.strictSame([event, data, id], ['goodbye', JSON.stringify({ reason: 'shutdown', retry }), cursor])
    }
    t.equal(stage.hub.sessions.size, 0)
  })

  t.test('or said at once', async t => {
    const stage = await Stage.begin({ SEND_BUFFER: 10 })
    const full = await stage.open('a')
    full.slow = true
    await stage.publish('a')
    await stage.flow()
    await stage.publish('a')
    await stage.flow()
    const probe = await stage.open('a')
    const opened = stage.hub.open({ filters: ['a'], format: sse(false), packing: plain })
    const unstarted = await opened
    await stage.hub.connections.drain(0)
    t.ok(probe.ended)
    t.ok(full.ended, 'also to one whose connection is full')
    t.equal(unstarted.state, 'closed')
    t.equal(full.frames.at(-1)!.event, 'goodbye')
    t.equal(stage.hub.sessions.size, 0)
    await stage.hub.connections.drain(1000)
  })

  t.test('a closed session is written to no more, wherever it stood', async t => {
    const stage = await Stage.begin({ HEARTBEAT: 1000 })
    const [first] = await stage.publish('a', 'a')
    const asked = stage.ask('a', { after: first! })
    stage.log.release(0)
    const reading = await asked
    const live = await stage.open('b')
    const ahead = stage.ask('c', { after: (await stage.publish('c'))[0]! })
    stage.log.release(0)
    await stage.clock.advance(0)
    stage.log.release(0)
    const waiting = await ahead
    for (const probe of [reading, live, waiting]) {
      const { length } = probe.frames
      probe.session.close('client')
      probe.session.close('client')
      await stage.publish('a', 'b', 'c')
      await stage.clock.live(5000)
      await stage.flow()
      t.equal(probe.frames.length, length)
      t.notOk(probe.ended, 'the sink is left as it is')
    }
    t.equal(stage.hub.sessions.size, 0)
    await stage.clock.live(120_000)
    await stage.flow()
    await stage.clock.live(2000)
    t.ok(stage.clock.timers <= 3, 'of the broker and of the hub, none of theirs')
  })
})

t.test('a session whose time runs out', async t => {
  t.test('is told so then, wherever it stands, and others go on', async t => {
    const stage = await Stage.begin({ SEND_BUFFER: 10 })
    const expires = stage.clock.now() + 5000
    const full = await stage.open('a', { expires })
    full.slow = true
    await stage.publish('a')
    await stage.flow()
    const live = await stage.open('a', { expires })
    const never = await stage.open('a')
    const later = await stage.open('a', { expires: expires + 1000 })
    const asked = stage.ask('b', { expires, after: (await stage.publish('b'))[0]! })
    stage.log.release(0)
    const ahead = await asked
    const unstarted = await stage.hub.open({ filters: ['a'], format: sse(false), packing: plain, expires })
    await stage.clock.advance(4999)
    const due = [full, live, ahead]
    t.strictSame(
      due.map(({ ended }) => ended),
      [false, false, false]
    )
    await stage.clock.advance(1)
    for (const { ended, frames, notes } of due) {
      t.ok(ended)
      t.equal(notes.at(-1), 'goodbye expired')
      t.ok(frames.at(-1)!.retry! >= 2000)
    }
    t.equal(unstarted.state, 'closed')
    t.notOk(later.ended)
    await stage.clock.advance(1000)
    t.ok(later.ended)
    await stage.publish('a')
    await stage.flow()
    t.equal(never.data.at(-1), '3')
    t.equal(stage.hub.sessions.size, 1)
  })

  t.test('has no timer of its own', async t => {
    const stage = await Stage.begin()
    await stage.open('a')
    const before = stage.clock.timers
    const start = stage.clock.now()
    // the first to end comes neither first nor last
    const after = Array.from({ length: 100 }, (_, index) => 1000 + ((index * 37 + 50) % 100) * 10)
    const probes = await Promise.all(after.map(ms => stage.open('a', { expires: start + ms })))
    t.equal(stage.clock.timers, before + 1)
    const gone = () => probes.filter(({ ended }) => ended).length
    t.equal(gone(), 0)
    await stage.clock.advance(start + 1000 - stage.clock.now())
    t.equal(gone(), 1)
    await stage.clock.advance(1000)
    t.equal(gone(), 100, 'within a second of its time')
    t.equal(stage.clock.timers, before, 'and none for those whose time never comes')
  })

  t.test('may have years', async t => {
    const stage = await Stage.begin()
    const probe = await stage.open('a', { expires: stage.clock.now() + 100 * 365 * 86_400_000 })
    await stage.clock.advance(3_600_000)
    t.notOk(probe.ended)
    const other = await stage.open('a', { expires: stage.clock.now() + 1000 })
    await stage.clock.advance(1000)
    t.ok(other.ended)
  })

  t.test('that is over already is ended at once', async t => {
    const stage = await Stage.begin()
    const probe = await stage.open('a', { expires: stage.clock.now() - 60_000 })
    await stage.clock.advance(0)
    t.equal(probe.notes.at(-1), 'goodbye expired')
  })

  t.test('goes by the time of day, also when that is set', async t => {
    const stage = await Stage.begin()
    const probe = await stage.open('a', { expires: stage.clock.now() + 10_000 })
    stage.clock.stepBack(30_000)
    await stage.clock.advance(39_000)
    t.notOk(probe.ended)
    await stage.clock.advance(1000)
    t.ok(probe.ended)
    const ahead = await stage.open('a', { expires: stage.clock.now() + 86_400_000 })
    stage.clock.stepBack(-86_400_000)
    await stage.clock.advance(60_000)
    t.ok(ahead.ended, 'within a minute')
  })
})

t.test('counts', async t => {
  const stage = await Stage.begin({ SEND_BUFFER: 10 })
  const value = async (name: string, labels: Record<string, string> = {}) => {
    const metrics = await stage.metrics.registry.getMetricsAsJSON()
    const found = metrics.find(metric => metric.name === `ringside_${name}`) as unknown as {
      values: { value: number; labels: Record<string, string> }[]
    }
    const fits = (given: Record<string, string>) =>
      Object.entries(labels).every(([key, wanted]) => given[key] === wanted)
    return found.values.filter(({ labels }) => fits(labels)).reduce((sum, { value }) => sum + value, 0)
  }
  const before = {
    open: await value('connections'),
    lagging: await value('lagging_connections'),
    live: await value('resumes_total', { outcome: 'live' }),
    replayed: await value('resumes_total', { outcome: 'replayed' }),
    gap: await value('resumes_total', { outcome: 'gap' }),
    delivered: await value('events_delivered_total')
  }
  const [first] = await stage.publish('a', 'a')
  const probes = [
    await stage.open('a'),
    await stage.open('a', { after: stage.last }),
    await stage.open('a', { after: first! }),
    await stage.open('a', { after: 'x' })
  ]
  t.equal((await value('connections')) - before.open, 4)
  t.equal((await value('resumes_total', { outcome: 'live' })) - before.live, 1)
  t.equal((await value('resumes_total', { outcome: 'replayed' })) - before.replayed, 1)
  t.equal((await value('resumes_total', { outcome: 'gap' })) - before.gap, 1)
  probes[0]!.slow = true
  await stage.publish('a')
  await stage.flow()
  await stage.publish('a')
  await stage.flow()
  t.equal((await value('lagging_connections')) - before.lagging, 1)
  t.equal((await value('events_delivered_total')) - before.delivered, 1 + 4 + 3)
  for (const { session } of probes) session.close('client')
  t.equal((await value('connections')) - before.open, 0)
  t.equal((await value('lagging_connections')) - before.lagging, 0)
})

t.test('ephemeral events', async t => {
  const rules = [{ match: 'e/**', ephemeral: true }]

  t.test('who is live gets them in their place; afterwards they are nowhere, and no gap', async t => {
    const stage = await Stage.begin({ rules, RING_SIZE: 2 })
    const probe = await stage.open(['s/a', 'e/*'])
    const ids = await stage.publish('s/a', 'e/a', 's/a', 'e/b', 'e/a', 'e/b')
    await stage.flow()
    t.strictSame(probe.data, ['1', '2', '3', '4', '5', '6'])
    t.strictSame(
      probe.frames.slice(1).map(({ id }) => id),
      ids
    )
    const { range } = stage.log.asked
    for (const [index, rest] of [['3'], ['3'], [], [], [], []].entries()) {
      const again = await stage.open(['s/a', 'e/*'], { after: ids[index]! })
      t.strictSame(again.told, [`cursor ${ids[index]}`, ...rest])
    }
    t.equal(stage.log.asked.range, range, 'from memory')
    t.strictSame((await stage.open(['s/a', 'e/*'], { rewind: 9 })).data, ['1', '3'])
    t.strictSame((await stage.open('e/*', { since: 0 })).data, [])
    const polled = stage.poll(['s/a', 'e/b'], { after: ids[0]! })
    await stage.flow()
    t.match(await polled, { data: ['3'], gap: null, more: false })
  })

  t.test('a connection that is full misses those that pass meanwhile', async t => {
    const stage = await Stage.begin({ rules, SEND_BUFFER: 10 })
    const probe = await stage.open(['s/a', 'e/a'])
    probe.slow = true
    await stage.publish('e/a')
    await stage.flow()
    await stage.publish('e/a', 's/a', 'e/a')
    await stage.flow()
    t.equal(probe.session.state, 'lagging')
    probe.drain()
    await stage.flow()
    t.equal(probe.session.state, 'live')
    await stage.publish('e/a')
    await stage.flow()
    t.strictSame(probe.told.slice(1), ['1', '3', '5'])
  })

  t.test('a conflated stream shows the newest', async t => {
    const stage = await Stage.begin({ rules })
    const probe = await stage.open('e/a', { rate: 1 })
    await stage.publish('e/a')
    await stage.flow()
    await stage.publish('e/a', 'e/a')
    await stage.flow()
    t.strictSame(probe.data, ['1'])
    await stage.clock.advance(1000)
    t.strictSame(probe.data, ['1', '3'])
  })

  t.test('who polls is neither shown nor woken by them', async t => {
    const stage = await Stage.begin({ rules })
    const answers: string[][] = []
    const polled = stage.poll(['s/a', 'e/a'], { wait: 5000 }).then(({ data }) => answers.push(data))
    await stage.flow()
    await stage.publish('e/a')
    await stage.flow()
    t.strictSame(answers, [])
    await stage.publish('e/a', 's/a', 'e/a')
    await stage.flow()
    await polled
    t.strictSame(answers, [['3']])
  })
})
