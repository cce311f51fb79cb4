import t from 'tap'
import { Unwanted, type Asker } from '../../src/asker.ts'
import { wakeUp } from '../../src/wire/page.ts'
import { plain } from '../../src/wire/packing.ts'
import { sse } from '../../src/wire/sse.ts'
import { Stage, type Probe } from './stage.ts'

/** Changes a topic that has a state. */
async function change(stage: Stage, value: string): Promise<void> {
  const state = { value: `"${value}"` }
  await stage.log.append([{ topic: 'd', type: 'patch', data: `"${value}"`, state }])
}

/** The values of the snapshots that came. */
function snapshots({ frames }: Probe): string[] {
  return frames.filter(({ event }) => event === 'snapshot').map(({ data }) => JSON.parse(data!) as string)
}

/** Lets the broker's answers through up to the one that is refused: this one from now, while the log stays up. */
async function refuse(stage: Stage, after = 0): Promise<void> {
  for (let count = 0; count < after; count++) {
    stage.log.release(0)
    await stage.clock.advance(0)
  }
  t.equal(stage.log.answers, 1, 'it waits for one answer')
  stage.log.refuse(0)
  await stage.clock.advance(0)
}

/** The next tick comes, and no answer is refused any more. */
async function tick(stage: Stage): Promise<void> {
  await stage.clock.advance(1000)
  await stage.flow()
}

t.test('an answer that fails while the log is up is asked for again at the next tick', async t => {
  t.test('events, for a stream', async t => {
    const stage = await Stage.begin()
    const [first] = await stage.publish('a', 'a')
    const asked = stage.ask('a', { after: first! })
    stage.log.release(0)
    const probe = await asked
    stage.log.deliver(Infinity)
    await stage.clock.turns()
    t.equal(stage.log.asked.range, 1)
    await refuse(stage)
    t.strictSame(probe.data, [])
    await tick(stage)
    t.strictSame(probe.data, ['2'])
    t.equal(probe.session.state, 'live')
  })

  t.test('events, for streams that were live: they share it', async t => {
    const stage = await Stage.begin()
    const probes = [await stage.open('a'), await stage.open('a')]
    await stage.publish('a')
    stage.log.cut()
    stage.log.deliver(Infinity)
    await stage.clock.turns()
    await refuse(stage)
    await tick(stage)
    for (const probe of probes) t.strictSame(probe.data, ['1'])
    t.equal(stage.log.asked.range, 2)
  })

  t.test('events, for a poll that waits', async t => {
    const stage = await Stage.begin()
    const asked = stage.poll('a', { wait: 30_000 })
    await stage.flow()
    await stage.publish('a')
    stage.log.cut()
    stage.log.deliver(Infinity)
    await stage.clock.turns()
    await refuse(stage)
    await tick(stage)
    t.equal(stage.hub.sessions.size, 0, 'it is answered')
    t.strictSame((await asked).data, ['1'])
  })

  for (const [what, answers] of [
    ['position', 0],
    ['state', 1]
  ] as const) {
    t.test(`the ${what} of a snapshot, for a stream that begins`, async t => {
      const stage = await Stage.begin()
      await change(stage, 'one')
      const asked = stage.ask('d', { snapshot: true })
      stage.log.release(0)
      const probe = await asked
      await refuse(stage, answers)
      t.strictSame(probe.frames, [])
      await tick(stage)
      t.strictSame(snapshots(probe), ['one'])
      t.equal(probe.session.state, 'live')
    })

    t.test(`the ${what} of a snapshot, for a conflated stream that is live`, async t => {
      const stage = await Stage.begin()
      await change(stage, 'one')
      const probe = await stage.open('d', { snapshot: true, rate: 1 })
      await stage.clock.live(2000)
      await change(stage, 'two')
      stage.log.deliver(Infinity)
      await stage.clock.turns()
      await refuse(stage, answers)
      t.strictSame(snapshots(probe), ['one'])
      await tick(stage)
      t.strictSame(snapshots(probe), ['one', 'two'])
      t.equal(probe.session.state, 'live')
      await change(stage, 'three')
      await tick(stage)
      t.strictSame(snapshots(probe), ['one', 'two', 'three'])
    })
  }

  t.test('however often it fails', async t => {
    const stage = await Stage.begin()
    const [first] = await stage.publish('a', 'a')
    const asked = stage.ask('a', { after: first! })
    stage.log.release(0)
    const probe = await asked
    stage.log.deliver(Infinity)
    await stage.clock.turns()
    for (let time = 1; time <= 5; time++) {
      t.equal(stage.log.asked.range, time, 'once a tick')
      await refuse(stage)
      await stage.clock.advance(1000)
      stage.log.deliver(Infinity)
      await stage.clock.turns()
    }
    await stage.flow()
    t.strictSame(probe.data, ['2'])
  })

  t.test('not for one that has gone meanwhile', async t => {
    const stage = await Stage.begin()
    const [first] = await stage.publish('a', 'a')
    const asked = stage.ask('a', { after: first! })
    stage.log.release(0)
    const probe = await asked
    stage.log.deliver(Infinity)
    await stage.clock.turns()
    await refuse(stage)
    probe.session.close('client')
    await tick(stage)
    t.equal(stage.log.asked.range, 1)
  })
})

t.test('a state is read and encoded once for all who need it at once', async t => {
  t.test('conflated streams, at each change', async t => {
    const stage = await Stage.begin()
    const encoded = t.capture(sse(false), 'snapshot', sse(false).snapshot)
    await change(stage, '0')
    const asked = Array.from({ length: 500 }, () => stage.ask('d', { snapshot: true, rate: 1 }))
    await stage.flow()
    const probes = await Promise.all(asked)
    for (const value of ['1', '2', '3']) {
      await change(stage, value)
      await stage.flow()
      await stage.clock.live(1500)
      await stage.flow()
    }
    for (const probe of probes) t.strictSame(snapshots(probe), ['0', '1', '2', '3'])
    t.equal(stage.log.asked.state, 4)
    t.equal(stage.log.asked.position, 4)
    t.equal(encoded().length, 4)
    t.equal(probes[0]!.writes.at(-1), probes[499]!.writes.at(-1), 'the same Buffer')
  })

  t.test('and again when it changes while it is read', async t => {
    const stage = await Stage.begin()
    await change(stage, '0')
    const asked = Array.from({ length: 50 }, () => stage.ask('d', { snapshot: true, rate: 1 }))
    await stage.flow()
    const probes = await Promise.all(asked)
    await stage.clock.live(1500)
    for (let time = 1; time <= 10; time++) {
      await change(stage, `${time}`)
      await stage.clock.live(100)
      await stage.flow()
    }
    await stage.clock.live(3000)
    await stage.flow()
    for (const probe of probes) t.equal(snapshots(probe).at(-1), '10')
    const { state } = stage.log.asked
    t.ok(state <= 5, `${state} reads in about two seconds`)
  })

  t.test('but not with one who has come further than the one who asked', async t => {
    const stage = await Stage.begin()
    await change(stage, 'one')
    const early = stage.ask('d', { snapshot: true })
    stage.log.release(0)
    await early
    stage.log.release(0)
    await stage.clock.advance(0)
    t.equal(stage.log.asked.state, 1, 'answered, and the answer is under way')
    await change(stage, 'two')
    stage.log.deliver(Infinity)
    await stage.clock.turns()
    const late = stage.ask('d', { snapshot: true })
    await stage.flow()
    t.strictSame(snapshots(await late), ['two'])
    t.equal(stage.log.asked.state, 2)
    // the early one gets the change after its snapshot
    t.strictSame(snapshots(await early), ['one'])
    t.equal((await early).frames.at(-1)!.data, '"two"')
  })

  t.test('whatever their format and whether they have begun', async t => {
    const stage = await Stage.begin()
    await change(stage, 'one')
    const begun = await stage.open('d', { snapshot: true, rate: 1 })
    const before = { ...stage.log.asked }
    stage.log.down()
    await change(stage, 'two')
    stage.log.restore()
    await stage.clock.live(1500)
    stage.log.lost = stage.log.last
    stage.log.tellLost(['d'])
    const fresh = [sse(false), sse(true)].map(format => stage.ask('d', { snapshot: true, rate: 1, format }))
    await stage.flow()
    const [bare, enveloped] = await Promise.all(fresh)
    t.strictSame(snapshots(begun), ['one', 'two'])
    t.equal(begun.notes.filter(note => note.startsWith('cursor')).length, 1, 'told once where it starts')
    t.strictSame(snapshots(bare!), ['two'])
    t.equal(bare!.notes.filter(note => note.startsWith('cursor')).length, 1)
    t.match(snapshots(enveloped!), [{ topic: 'd', type: 'snapshot', data: 'two' }])
    t.ok(stage.log.asked.state <= before.state + 2)
  })
})

t.test(
  'equal rewinds at the same time are shared, and none starts after what came before it was asked',
  async t => {
    const stage = await Stage.begin()
    await stage.open('s/*')
    await stage.publish('s/a')
    stage.log.deliver(Infinity)
    const first = stage.ask('s/*', { rewind: 1 })
    await stage.clock.turns()
    t.equal(stage.log.asked.rewind, 1)
    await stage.publish('s/b')
    stage.log.deliver(Infinity)
    const others = Array.from({ length: 20 }, () => stage.ask('s/*', { rewind: 1 }))
    await stage.flow()
    t.match((await first).data, ['1'])
    for (const probe of await Promise.all(others)) t.strictSame(probe.data, ['1', '2'])
    t.equal(stage.log.asked.rewind, 2)
  }
)

t.test('what is read is not wanted any more once all who wait for it have gone', async t => {
  const asker = (args: unknown[]) => args.at(-1) as Asker

  t.test('events, for streams: who comes then has them read anew', async t => {
    const stage = await Stage.begin()
    const [first] = await stage.publish('a', 'a')
    const asked = t.capture(stage.log, 'range', stage.log.range)
    const opened = [stage.ask('a', { after: first! }), stage.ask('a', { after: first! })]
    stage.log.release(0)
    const [one, two] = await Promise.all(opened)
    stage.log.deliver(Infinity)
    await stage.clock.turns()
    const [read, ...others] = asked()
    t.strictSame(others, [])
    one!.session.close('client')
    t.equal(asker(read!.args).isGone, false)
    two!.session.close('client')
    t.equal(asker(read!.args).isGone, true)
    const late = stage.ask('a', { after: first! })
    await stage.flow()
    t.strictSame((await late).data, ['2'])
  })

  t.test('events, for a poll', async t => {
    const stage = await Stage.begin()
    const [first] = await stage.publish('a', 'a')
    const opening = stage.hub.open({ filters: ['a'], format: wakeUp, packing: plain, after: first! })
    await stage.flow()
    const session = await opening
    const asked = t.capture(stage.log, 'range', stage.log.range)
    const reading = stage.hub.read(session, 10)
    await stage.clock.turns()
    session.close('client')
    t.equal(asker(asked()[0]!.args).isGone, true)
    stage.log.refuse(0)
    t.strictSame((await reading).events, [], 'it just ends')
  })

  t.test('a state, for streams: who comes then has it read anew', async t => {
    const stage = await Stage.begin()
    await change(stage, 'one')
    const asked = t.capture(stage.log, 'state', stage.log.state)
    const opened = [stage.ask('d', { snapshot: true }), stage.ask('d', { snapshot: true })]
    stage.log.release(0)
    const [one, two] = await Promise.all(opened)
    stage.log.release(0)
    await stage.clock.turns()
    const [read, ...others] = asked()
    t.strictSame(others, [])
    one!.session.close('client')
    t.equal(asker(read!.args).isGone, false)
    two!.session.close('client')
    t.equal(asker(read!.args).isGone, true)
    const late = stage.ask('d', { snapshot: true })
    await stage.flow()
    t.strictSame(snapshots(await late), ['one'])
    t.equal(asked().length, 1)
  })

  t.test('a state of which the position is known by now', async t => {
    const stage = await Stage.begin()
    await change(stage, 'one')
    const opened = stage.ask('d', { snapshot: true })
    stage.log.release(0)
    const { session } = await opened
    session.close('client')
    await stage.flow()
    t.equal(stage.log.asked.state, 0)
  })

  t.test('where a session starts', async t => {
    const stage = await Stage.begin()
    await stage.publish('s/a')
    const asked = t.capture(stage.log, 'rewind', stage.log.rewind)
    const reader = { isGone: false }
    const wish = { filters: ['s/*'], format: wakeUp, packing: plain, rewind: 1 }
    const opening = stage.hub.open(wish, reader)
    stage.log.release(0)
    await stage.clock.turns()
    const read = asker(asked()[0]!.args)
    t.equal(read.isGone, false)
    reader.isGone = true
    t.equal(read.isGone, true)
    await stage.flow()
    const session = await opening
    session.close('client')
    const late = stage.hub.open(wish, reader)
    late.catch(() => {})
    await stage.flow()
    await t.rejects(late, Unwanted)
    t.equal(asked().length, 0, 'nothing is read for who has gone before')
    t.equal(stage.hub.sessions.size, 0)
  })
})
