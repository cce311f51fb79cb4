/** Topics that end: what becomes of those who read them, however they do. */
import t from 'tap'
import { formatCursor, type Cursor } from '../../src/event.ts'
import { plain } from '../../src/wire/packing.ts'
import { sse } from '../../src/wire/sse.ts'
import { websocketFormat } from '../../src/wire/websocket.ts'
import { Watch } from '../../src/hub/watch.ts'
import { Probe, Stage } from './stage.ts'

/** Ends a topic, and answers with the id of its last event. */
async function end(stage: Stage, topic: string): Promise<string> {
  const [appended] = await stage.log.append([{ topic, type: 'end', data: '{}' }])
  return formatCursor((appended as { id: Cursor }).id)
}

/** What came after the first frame: events by their data, all else by its name. */
function toldTo({ frames }: Probe): (string | undefined)[] {
  return frames.slice(1).map(({ event, data }) => event ?? data)
}

/** Whether nothing would be left for who opens a stream. */
async function isOver(stage: Stage, filters: string[], after?: string): Promise<boolean> {
  const opened = stage.hub.open({ filters, format: sse(false), packing: plain, after })
  await stage.flow()
  const session = await opened
  const over = stage.hub.isOver(session)
  session.close('client')
  return over
}

t.test('a stream ends behind the end of its topic', async t => {
  const stage = await Stage.begin()
  const [live, wild] = [await stage.open('a'), await stage.open('*')]
  await stage.publish('a')
  const id = await end(stage, 'a')
  await stage.flow()
  t.strictSame(toldTo(live), ['1', 'end'])
  t.match(live.frames.at(-1), { event: 'end', data: '{}', id })
  t.ok(live.ended)
  t.equal(live.session.state, 'closed')
  await stage.publish('b')
  await stage.flow()
  t.strictSame(toldTo(wild), ['1', 'end', '2'], 'of a wildcard new topics may come')
  t.notOk(wild.ended)
})

t.test('a stream of several topics ends with the last of them', async t => {
  const stage = await Stage.begin()
  const live = await stage.open(['a', 'b'])
  await end(stage, 'a')
  await stage.flow()
  t.notOk(live.ended)
  const late = await stage.open(['a', 'b'], { after: stage.last })
  await stage.publish('b')
  await end(stage, 'b')
  await stage.flow()
  t.strictSame(toldTo(live), ['end', '1', 'end'])
  t.ok(live.ended)
  t.strictSame(toldTo(late), ['1', 'end'], 'also of who has come past the first of them')
  t.ok(late.ended)
})

t.test('who comes back is given the rest, and then it ends', async t => {
  const stage = await Stage.begin()
  const [first] = await stage.publish('a', 'a')
  await end(stage, 'a')
  for (const [start, expected] of [
    [{ after: first }, ['2', 'end']],
    [{ rewind: 2 }, ['2', 'end']],
    [{ since: stage.clock.now() - 1000 }, ['1', '2', 'end']],
    [{ after: first, rate: 1 }, ['end']]
  ] as const) {
    const probe = await stage.open('a', start)
    t.strictSame(toldTo(probe), expected)
    t.ok(probe.ended, 'at once')
  }
  const gap = await stage.open('a', { after: 'nonsense' })
  t.strictSame(gap.notes, ['gap unknown a', `cursor ${stage.last}`])
  t.ok(gap.ended)
})

t.test('it is known for whom nothing is left', async t => {
  const stage = await Stage.begin()
  const [first] = await stage.publish('a', 'b')
  const last = await end(stage, 'a')
  t.ok(await isOver(stage, ['a'], last))
  t.ok(await isOver(stage, ['a'], stage.last))
  t.ok(await isOver(stage, ['a']), 'also one who wants what comes from now on')
  t.notOk(await isOver(stage, ['a'], first))
  t.notOk(await isOver(stage, ['a', 'b'], last))
  t.notOk(await isOver(stage, ['*'], last))
  t.notOk(await isOver(stage, ['a'], 'nonsense'), 'a gap is to be told')
})

t.test('it goes away with its ring', async t => {
  const stage = await Stage.begin({ RING_TTL: 60_000 })
  const kept = await stage.open(['a', 'b'])
  const last = await end(stage, 'a')
  await stage.flow()
  await stage.clock.advance(30_000)
  await stage.flow()
  t.ok(await isOver(stage, ['a'], last))
  await stage.clock.advance(31_000)
  await stage.flow()
  t.notOk(await isOver(stage, ['a']))
  const live = await stage.open('a')
  await stage.publish('a')
  await stage.flow()
  t.strictSame(live.data, ['1'], 'it has begun anew')
  t.notOk(live.ended)
  await end(stage, 'b')
  await stage.flow()
  t.notOk(kept.ended)
})

t.test('an end that was not announced is found by reading', async t => {
  const stage = await Stage.begin()
  const probes = [await stage.open('a'), await stage.open('a', { rate: 1 }), await stage.open(['a', 'b'])]
  const warm = await stage.open('c')
  warm.session.close('client')
  await end(stage, 'a')
  await end(stage, 'c')
  stage.log.cut()
  await stage.flow()
  t.strictSame(probes.map(toldTo), [['end'], ['end'], ['end']])
  t.strictSame(
    probes.map(({ ended }) => ended),
    [true, true, false]
  )
  t.ok(await isOver(stage, ['a'], stage.last))
  t.ok(await isOver(stage, ['c'], stage.last), 'also where nobody read')
  await end(stage, 'b')
  await stage.flow()
  t.ok(probes[2]!.ended)
})

t.test('what is conflated leaves out what it may, and not the end', async t => {
  const stage = await Stage.begin()
  const probe = await stage.open('a', { rate: 1 })
  await stage.publish('a')
  await stage.flow()
  await stage.publish('a', 'a')
  await end(stage, 'a')
  await stage.flow()
  t.strictSame(toldTo(probe), ['1'])
  t.notOk(probe.ended, 'the rate holds')
  await stage.clock.advance(1000)
  t.strictSame(toldTo(probe), ['1', 'end'])
  t.ok(probe.ended)
})

t.test('a slow reader is ended once it has taken the end', async t => {
  const stage = await Stage.begin({ SEND_BUFFER: 100 })
  for (const size of [1, 20]) {
    const probe = await stage.open(`a${size}`)
    probe.slow = true
    await stage.publish(...Array.from({ length: size }, () => `a${size}`))
    await stage.flow()
    await end(stage, `a${size}`)
    await stage.flow()
    t.notOk(probe.ended, `${size} events wait in the connection`)
    for (let time = 0; time < 20 && !probe.ended; time++) {
      probe.drain()
      await stage.flow()
    }
    t.equal(toldTo(probe).length, size + 1)
    t.equal(toldTo(probe).at(-1), 'end')
    t.ok(probe.ended)
  }
})

t.test('what belongs to a larger connection goes on', async t => {
  const stage = await Stage.begin()
  const connection = (await stage.open('x')).session
  const open = async (after?: string) => {
    const opened = stage.hub.open({
      filters: ['a'],
      format: websocketFormat('ringside.v1.json'),
      packing: plain,
      connection,
      after
    })
    await stage.flow()
    const session = await opened
    const sink = { pending: 0, writes: 0, write: () => void sink.writes++, end: () => t.fail('it ends') }
    session.start(sink)
    return { session, sink }
  }
  const { session, sink } = await open()
  await end(stage, 'a')
  await stage.flow()
  t.equal(sink.writes, 2, 'the beginning and the end')
  t.equal(session.state, 'live')
  t.equal((await open(stage.last)).session.state, 'live')
})

t.test('many short events of one turn are one write', async t => {
  const stage = await Stage.begin()
  const probe = await stage.open('a')
  const before = probe.writes.length
  for (let word = 0; word < 100; word++) await stage.publish('a')
  await end(stage, 'a')
  await stage.flow()
  t.equal(probe.frames.length, 102)
  t.equal(probe.writes.length - before, 1)
})

t.test('an end is forgotten with what the log no longer holds', async t => {
  const at = (ms: number) => ({ ms, seq: 0 })
  const event = (ms: number, type: string) => ({
    id: at(ms),
    shard: 0,
    topic: 'a',
    type,
    data: '',
    prev: null
  })
  const watch = async (filter: string, end: number) => {
    const watch = new Watch(filter, 9, () => 0, Promise.resolve({ position: [at(10)], end: at(end) }))
    await watch.ready
    return watch
  }
  const told = await watch('a', 5)
  t.strictSame(told.topicEnd, at(5))
  told.dropTo([at(4)])
  t.strictSame(told.topicEnd, at(5))
  told.dropTo([at(5)])
  t.equal(told.topicEnd, null)
  told.push(event(12, 'end'))
  told.learn([event(11, 'message')])
  t.strictSame(told.topicEnd, at(12), 'what was read may be older')
  told.push(event(13, 'message'))
  t.equal(told.topicEnd, null, 'it has begun anew')
  told.learn([event(14, 'end')])
  told.dropBefore(15)
  t.equal(told.topicEnd, null)
  const wild = await watch('*', 5)
  wild.push(event(12, 'end'))
  t.equal(wild.topicEnd, null)
})
