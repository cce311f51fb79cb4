import t from 'tap'
import type { StoredEvent } from '../../src/event.ts'
import { Frames } from '../../src/hub/frames.ts'
import { Memory } from '../../src/memory.ts'
import type { Format } from '../../src/wire/format.ts'
import { sse } from '../../src/wire/sse.ts'
import { HeldClock } from '../support/clock.ts'
import { heapInUse } from '../support/heap.ts'

const AT = [{ ms: 1, seq: 0 }]

function eventOf(bytes: number): StoredEvent {
  return {
    id: AT[0]!,
    shard: 0,
    topic: 'a',
    type: 'message',
    data: Buffer.alloc(bytes, 'x').toString(),
    prev: null
  }
}

/** A format that counts what it encodes. */
function counting(): Format & { encoded: number } {
  const plain = sse(false)
  const counted = {
    encoded: 0,
    event(event: StoredEvent, cursor: string) {
      counted.encoded++
      return plain.event(event, cursor)
    }
  }
  return Object.setPrototypeOf(counted, plain) as Format & { encoded: number }
}

function make(limit = 10_000_000) {
  const clock = new HeldClock()
  const memory = new Memory(limit)
  return { clock, memory, frames: new Frames(clock, memory) }
}

t.test('in a burst an event is encoded once for each format', async t => {
  const { clock, frames } = make(100_000_000)
  const formats = [counting(), counting()]
  const events = Array.from({ length: 1000 }, () => eventOf(100))
  for (let reader = 0; reader < 100; reader++) {
    for (const event of events) for (const format of formats) frames.of(format, event, AT)
    await clock.advance(9)
  }
  t.strictSame(
    formats.map(({ encoded }) => encoded),
    [1000, 1000]
  )
})

t.test('a frame is kept for about a second, and counted until then', async t => {
  const { clock, frames, memory } = make()
  const format = counting()
  const event = eventOf(1000)
  frames.of(format, event, AT)
  t.ok(memory.held('events') > 1000)
  await clock.advance(1000)
  frames.of(format, event, AT)
  t.equal(format.encoded, 1, 'still there')
  await clock.advance(1000)
  t.equal(memory.held('events'), 0)
  t.equal(event.encodings, undefined)
  t.equal(clock.timers, 0, 'and nothing ticks for nothing')
  frames.of(format, event, AT)
  t.equal(format.encoded, 2)
})

t.test('frames have a small part of the budget: the oldest go first', async t => {
  const { clock, frames, memory } = make(1_600_000)
  const format = counting()
  const events = Array.from({ length: 500 }, () => eventOf(1000))
  for (const event of events) {
    frames.of(format, event, AT)
    t.ok(memory.held('events') <= 100_000)
  }
  t.ok(events[0]!.encodings)
  t.equal(events.at(-1)!.encodings, undefined, 'what is there already is of use to those who read the same')
  await clock.advance(1000)
  frames.of(format, events.at(-1)!, AT)
  t.ok(events.at(-1)!.encodings, 'what is old makes room')
  t.equal(events[0]!.encodings, undefined)
  const large = eventOf(200_000)
  t.ok(frames.of(format, large, AT).length > 200_000, 'one that is larger is made')
  t.equal(large.encodings, undefined, 'and not kept')
})

t.test('where memory is short, all of them go', t => {
  const { frames, memory } = make(1_600_000)
  for (let count = 0; count < 50; count++) frames.of(sse(false), eventOf(1000), AT)
  memory.take('bodies', 1_390_000)
  t.equal(memory.held('events'), 0)
  t.end()
})

t.test('40 MB that are read in eight formats do not stay eight times', async t => {
  const { clock, frames, memory } = make(400_000_000)
  const events = Array.from({ length: 700 }, () => eventOf(60_000))
  const before = heapInUse() + process.memoryUsage().external
  for (let format = 0; format < 8; format++) {
    const own = counting()
    for (const event of events) frames.of(own, event, AT)
  }
  t.ok(heapInUse() + process.memoryUsage().external - before < 60_000_000)
  await clock.advance(2000)
  t.equal(memory.held('events'), 0)
})

t.test('with several shards each reader has ids of its own', t => {
  const { frames, memory } = make()
  const format = counting()
  const event = eventOf(10)
  for (let count = 0; count < 2; count++) frames.of(format, event, [AT[0]!, AT[0]!])
  t.equal(format.encoded, 2)
  t.equal(memory.held('events'), 0)
  t.end()
})
