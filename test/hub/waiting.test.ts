import t from 'tap'
import { formatCursor } from '../../src/event.ts'
import { Probe, Stage } from './stage.ts'

/** Counts how often these are asked whether they can go on: that is what is looked at first. */
function countAsks(probes: readonly Probe[]): () => number {
  let count = 0
  for (const probe of probes) {
    Object.defineProperty(probe, 'pending', { get: () => (count++, 0) })
  }
  return () => count
}

/** Events come that are nothing to those who wait. */
async function pass(stage: Stage, turns: number): Promise<void> {
  for (let turn = 0; turn < turns; turn++) {
    await stage.publish('other')
    await stage.flow()
  }
}

t.test('a session that waits is not asked before it can go on', async t => {
  t.test('for its rate: asked when its audience has written', async t => {
    const stage = await Stage.begin()
    await stage.open('other')
    const first = await stage.open('a', { rate: 1 })
    const start = stage.last
    await stage.publish('a')
    await stage.flow()
    await stage.clock.advance(900)
    const asked = Array.from({ length: 200 }, () => stage.ask('a', { rate: 1, after: start }))
    await stage.flow()
    const probes = await Promise.all(asked)
    t.ok(probes.every(({ session, data }) => session.state === 'catching up' && data.join() === '1'))
    const asks = countAsks(probes)
    await pass(stage, 50)
    t.equal(asks(), 0)
    await stage.publish('a')
    await stage.clock.live(100)
    await stage.flow()
    t.strictSame(first.data, ['1', '52'])
    await pass(stage, 50)
    t.ok(asks() <= 2 * 200, `${asks()} asks`)
    await stage.clock.live(900)
    t.ok(probes.every(({ data }) => data.join() === '1,52'))
    await stage.clock.live(1000)
    t.ok(probes.every(({ session }) => session.state === 'live'))
  })

  t.test('for its rate, and joins its audience when that writes next', async t => {
    const stage = await Stage.begin()
    const first = await stage.open('a', { rate: 1 })
    const start = stage.last
    await stage.publish('a')
    await stage.flow()
    await stage.clock.advance(500)
    const second = await stage.open('a', { rate: 1, after: start })
    for (let time = 0; time < 30; time++) {
      await stage.publish('a')
      await stage.flow()
      await stage.clock.advance(100)
    }
    t.equal(second.session.state, 'live', 'although there always is something new')
    t.equal(second.writes.at(-1), first.writes.at(-1), 'the same Buffer')
  })

  t.test('for its rate, with nobody live: asked when that is over', async t => {
    const stage = await Stage.begin({ SEND_BUFFER: 20 })
    await stage.open('other')
    const probe = await stage.open('s/*', { rate: 1 })
    probe.slow = true
    await stage.publish('s/x', 's/y')
    await stage.flow()
    probe.drain()
    t.equal(probe.session.state, 'catching up')
    const asks = countAsks([probe])
    await stage.clock.advance(500)
    await pass(stage, 20)
    t.equal(asks(), 0)
    await stage.clock.advance(500)
    await stage.flow()
    t.strictSame(probe.data, ['1', '2'])
  })

  t.test('for this process: asked when that has come as far', async t => {
    const stage = await Stage.begin()
    await stage.open('other')
    await stage.open('a')
    await stage.publish(...Array.from({ length: 50 }, () => 'other'))
    const [ahead] = await stage.publish('a')
    const asked = Array.from({ length: 200 }, () => stage.ask('a', { after: ahead! }))
    await stage.clock.advance(0)
    while (stage.log.answers > 0) stage.log.release(0)
    const probes = await Promise.all(asked)
    const asks = countAsks(probes)
    for (let count = 0; count < 50; count++) {
      stage.log.deliver(1)
      await stage.clock.turn()
    }
    t.equal(asks(), 0)
    t.not(formatCursor(stage.hub.position), ahead)
    await stage.flow()
    t.ok(probes.every(({ session }) => session.state === 'live'))
    t.equal(asks(), 200)
  })
})

t.test('a poll that waits for this process is answered when it is ended', async t => {
  const stage = await Stage.begin()
  await stage.open('a')
  const [ahead] = await stage.publish('a')
  const asked = stage.poll('a', { after: ahead! })
  await stage.clock.advance(0)
  stage.log.release(0)
  await stage.clock.advance(0)
  await stage.hub.connections.drain(0)
  const { data, cursor, gap } = await asked
  t.strictSame([data, cursor, gap], [[], ahead, null])
})

t.test('a session that is closed while it waits leaves no timer', async t => {
  const stage = await Stage.begin()
  const first = await stage.open('a', { rate: 0.1 })
  const start = stage.last
  await stage.publish('a')
  await stage.flow()
  await stage.clock.advance(900)
  const before = stage.clock.timers
  const second = await stage.open('a', { rate: 0.1, after: start })
  t.equal(second.session.state, 'catching up')
  t.equal(stage.clock.timers, before + 1)
  second.session.close('client')
  t.equal(stage.clock.timers, before)
  t.equal(first.session.state, 'live')
})
