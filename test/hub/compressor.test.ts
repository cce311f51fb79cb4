/** Streams that are compressed together: each reads exactly what one that isn't compressed does, as soon as it is written. */
import fc from 'fast-check'
import t from 'tap'
import { Compressor, Histories } from '../../src/hub/compressor.ts'
import { Memory } from '../../src/memory.ts'
import { History } from '../../src/wire/gzip.ts'
import { gzipped, plain } from '../../src/wire/packing.ts'
import { Sum } from '../../src/wire/sum.ts'
import { Gunzip } from '../support/gunzip.ts'
import { Probe, Stage } from './stage.ts'

const GZIP = gzipped(plain)

/** One of an audience, and its reader. */
class Stream {
  readonly sum = new Sum()
  readonly gunzip = new Gunzip()
  bytes = 0

  constructor() {
    this.write(GZIP.gzip!.header, '')
  }

  write(bytes: Buffer, text: string): void {
    this.bytes += bytes.length
    const read = this.gunzip.push(bytes).toString('latin1')
    if (read !== text) throw new Error(`it reads ${read}, not ${text}`)
  }
}

/** An audience's write loop, and streams that come and go. */
class Group {
  readonly compressor: Compressor
  readonly streams: Stream[] = []
  apart = 0

  constructor(histories = new Histories(new Memory(Infinity))) {
    this.compressor = new Compressor(GZIP, histories)
  }

  join(own: string): Stream {
    const stream = new Stream()
    this.own(stream, own)
    this.compressor.add(stream)
    this.streams.push(stream)
    return stream
  }

  own(stream: Stream, text: string): void {
    const { bytes, sum } = GZIP.pack([Buffer.from(text, 'latin1')])
    this.compressor.gaveOwn(stream, sum!)
    stream.write(bytes, text)
  }

  write(texts: readonly string[], without?: Stream): void {
    const frames = texts.map(text => Buffer.from(text, 'latin1'))
    const { bytes, sum } = this.compressor.pack(frames, this.streams.length)
    const own = GZIP.pack(frames).bytes
    const text = texts.join('')
    for (const stream of [...this.streams]) {
      const isApart = this.compressor.apart.has(stream)
      if (isApart) this.apart++
      if (stream === without) this.leave(stream)
      else stream.write(isApart ? own : bytes, text)
    }
    this.compressor.gave(sum!)
  }

  /** It has its own sum from here on, and may come to its end. */
  leave(stream: Stream): void {
    this.compressor.delete(stream)
    this.streams.splice(this.streams.indexOf(stream), 1)
    if (this.streams.length === 0) this.compressor.rest(0)
  }

  end(stream: Stream, goodbye: string): void {
    this.own(stream, goodbye)
    this.leave(stream)
    stream.write(GZIP.gzip!.trailer(stream.sum), '')
    if (!stream.gunzip.hasEnded) throw new Error('no end')
  }
}

const text = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.nat(9).map(n => `event: quote\ndata: {"price":${n}}\nid: 179541544356${n}-0\n\n`)
  },
  { weight: 2, arbitrary: fc.string({ unit: 'binary-ascii', maxLength: 40 }) },
  { weight: 1, arbitrary: fc.constantFrom(1, 8191, 8192, 70_000).map(size => 'x'.repeat(size)) }
)
const index = fc.nat(5)
const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ do: fc.constant('join' as const), own: text }) },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('write' as const),
      texts: fc.array(text, { maxLength: 3 }),
      times: fc.constantFrom(0, 1, 40)
    })
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('lag' as const), index, own: text }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('own' as const), index, own: text }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('end' as const), index, own: text }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('rest' as const), streams: fc.constantFrom(0, 100) }) }
)

t.test(
  'each stream reads what it was given, whatever joins, leaves and rests, and ends with its sum',
  async t => {
    let apart = 0
    let streams = 0
    fc.assert(
      fc.property(fc.array(step, { maxLength: 20 }), steps => {
        const group = new Group()
        group.join('')
        group.join('')
        for (const step of steps) {
          const of = (index: number) => group.streams[index % Math.max(1, group.streams.length)]
          const stream = 'index' in step ? of(step.index) : undefined
          if (step.do === 'join') group.join(step.own)
          else if (step.do === 'write') for (let n = 0; n <= step.times; n++) group.write(step.texts)
          else if (step.do === 'rest') group.compressor.rest(step.streams)
          else if (!stream) continue
          else if (step.do === 'own') group.own(stream, step.own)
          else if (step.do === 'end') group.end(stream, step.own)
          else {
            group.write([step.own], stream)
            group.own(stream, step.own)
            group.compressor.add(stream)
            group.streams.push(stream)
          }
        }
        apart += group.apart
        streams += group.streams.length
        for (const stream of [...group.streams]) group.end(stream, 'goodbye')
      }),
      { numRuns: 200 }
    )
    t.ok(apart > 100 && streams > 100, `${apart} times apart, ${streams} at the end`)
  }
)

const QUOTE = 'event: quote\ndata: {"symbol":"AAPL","price":223.02,"currency":"USD"}\nid: 1795415443568-0\n\n'

t.test(
  'whoever comes in between stands apart until the history is full, and then all are together',
  async t => {
    const group = new Group()
    const first = group.join('')
    for (let n = 0; n < 64; n++) group.write([QUOTE])
    const between = group.join('')
    group.write([QUOTE])
    t.ok(group.compressor.apart.has(between))
    const writes = Math.ceil(8192 / QUOTE.length)
    for (let n = 0; n < writes; n++) group.write([QUOTE])
    t.notOk(group.compressor.apart.has(between))
    const late = group.join('')
    group.leave(first)
    group.leave(between)
    t.ok(group.compressor.apart.has(late))
    group.write([QUOTE])
    t.notOk(group.compressor.apart.has(late), 'nobody is left whom it would stand apart from')
  }
)

t.test('an audience of one has no history until it was written to for a while without a rest', async t => {
  const memory = new Memory(Infinity)
  const group = new Group(new Histories(memory))
  const stream = group.join('')
  for (let day = 0; day < 3; day++) {
    for (let n = 0; n < 63; n++) group.write([QUOTE])
    t.equal(memory.held('histories'), 0)
    group.compressor.rest(1)
  }
  const before = stream.bytes
  group.write([QUOTE])
  t.equal(stream.bytes - before, QUOTE.length + 10, 'ten bytes more than it is')
  for (let n = 0; n < 80; n++) group.write([QUOTE])
  t.equal(memory.held('histories'), History.bytes)
  const then = stream.bytes
  group.write([QUOTE])
  t.ok(stream.bytes - then < 20, `${stream.bytes - then} bytes`)
  group.compressor.rest(64)
  t.equal(memory.held('histories'), History.bytes, 'where there are many streams it stays')
  group.compressor.rest(63)
  t.equal(memory.held('histories'), 0)
})

t.test(
  'many have a history at once; where memory is short, those that had theirs for longest do without',
  async t => {
    const memory = new Memory(64 * History.bytes)
    const histories = new Histories(memory)
    const groups = Array.from({ length: 6 }, () => new Group(histories))
    for (const group of groups) {
      group.join('')
      for (let n = 0; n < 70; n++) group.write([QUOTE])
    }
    t.equal(memory.held('histories'), 4 * History.bytes, 'a sixteenth of the budget')
    memory.take('events', 54 * History.bytes)
    t.equal(memory.held('histories'), 2 * History.bytes)
    for (const group of groups) group.write([QUOTE])
    for (const group of groups) for (const stream of [...group.streams]) group.end(stream, 'goodbye')
    t.equal(memory.held('histories'), 0)
  }
)

t.test('of small audiences so many are compressed as one event can be compressed for in a turn', async t => {
  const memory = new Memory(Infinity)
  const histories = new Histories(memory)
  for (let n = 0; n < 300; n++) {
    const group = new Group(histories)
    group.join('')
    for (let write = 0; write < 64; write++) group.write([QUOTE])
  }
  t.equal(memory.held('histories'), 256 * History.bytes)
  const many = new Group(histories)
  for (let n = 0; n < 64; n++) many.join('')
  many.write([QUOTE])
  t.equal(memory.held('histories'), 257 * History.bytes, 'one with many streams is all the same')
})

/** A stream of a hub, as it is read. */
class CompressedProbe extends Probe {
  readonly gunzip = new Gunzip()

  override write(bytes: Buffer): void {
    super.write(this.gunzip.push(bytes))
  }
}

t.test('a hub tells compressed streams what it tells all others, through cuts, lags and the end', async t => {
  const stage = await Stage.begin({ SEND_BUFFER: 1 })
  const open = async (after?: string) => ({
    bare: await stage.open('a', { after }),
    compressed: await stage.open('a', { after, packing: GZIP }, new CompressedProbe())
  })
  const pairs = [await open(), await open()]
  const same = (what: string) => {
    for (const { bare, compressed } of pairs) t.strictSame(compressed.told, bare.told, what)
  }
  const publish = async (count: number) => {
    for (let n = 0; n < count; n++) {
      await stage.publish('a')
      await stage.flow()
    }
  }
  await publish(40)
  same('live')
  const [first] = await stage.publish('a')
  await stage.flow()
  pairs.push(await open(), await open(first))
  await publish(3)
  same('who joins, and who comes back')
  for (const { bare, compressed } of pairs.slice(0, 2)) bare.slow = compressed.slow = true
  await publish(20)
  for (const { bare, compressed } of pairs.slice(0, 2)) {
    t.equal(compressed.session.state, 'lagging')
    for (const probe of [bare, compressed]) probe.drain()
  }
  await publish(120)
  same('who lagged')
  await stage.clock.advance(15_000)
  stage.hub.gap('lost', ['a'])
  await stage.flow()
  await publish(50)
  same('after a rest and a gap')
  stage.hub.up(false)
  await stage.clock.advance(3000)
  stage.hub.up(true)
  await stage.flow()
  await publish(2)
  same('after the broker was away')
  await stage.hub.connections.drain(0)
  same('goodbye')
  for (const { compressed } of pairs) {
    t.ok(compressed.ended)
    t.ok((compressed as CompressedProbe).gunzip.hasEnded, 'a whole trailer')
  }
})
