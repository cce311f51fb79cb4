import fc from 'fast-check'
import t from 'tap'
import { comparePositions, type Position, type StoredEvent } from '../src/event.ts'
import { Ring } from '../src/ring.ts'
import { heapInUse } from './support/heap.ts'

const BASE = { ms: 1000, seq: 0 }

function eventAt(id: Position, prev: Position | null): StoredEvent {
  return { id, shard: 0, topic: 'a', type: 'message', data: '', prev }
}

t.test('holds its newest, whatever is pushed and dropped: against a plain list', async t => {
  const step = fc.oneof(
    { weight: 8, arbitrary: fc.record({ push: fc.constantFrom(0, 1, 50) }) },
    { weight: 1, arbitrary: fc.record({ drop: fc.nat(60) }) },
    { weight: 1, arbitrary: fc.record({ prepend: fc.nat(5) }) }
  )
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 12 }),
      fc.array(step, { maxLength: 80, size: 'max' }),
      (capacity, steps) => {
        const ring = new Ring(capacity, BASE)
        const list: StoredEvent[] = []
        let base: Position = BASE
        let last: Position = BASE
        const shift = () => (base = list.shift()!.id)
        for (const step of steps) {
          if ('push' in step) {
            const id =
              step.push === 0 ? { ms: last.ms, seq: last.seq + 1 } : { ms: last.ms + step.push, seq: 0 }
            const event = eventAt(id, last === BASE ? null : last)
            last = id
            ring.push(event)
            list.push(event)
            if (list.length > capacity) shift()
          } else if ('prepend' in step) {
            // what lies before the ring, the oldest first
            const older = Array.from({ length: step.prepend }, (_, index) =>
              eventAt({ ms: base.ms - step.prepend + index, seq: 1 }, null)
            )
            base = { ms: base.ms - 10, seq: 0 }
            ring.prepend(older, base)
            list.unshift(...older)
            while (list.length > capacity) shift()
          } else {
            const ms = last.ms - step.drop
            ring.dropBefore(ms)
            while (list.length > 0 && list[0]!.id.ms < ms) shift()
          }
          check(ring, list, base)
        }
      }
    ),
    { numRuns: 300, seed: 1 }
  )
  t.pass('as the plain list says')
})

t.test('an event that was dropped is kept alive by later ones at most, not by an empty ring', async t => {
  const SIZE = 1_000_000
  const ring = new Ring(1000, BASE)
  const fill = () => {
    for (let ms = 2000; ms < 2020; ms++) {
      const event = eventAt({ ms, seq: 0 }, null)
      ring.push({ ...event, data: Buffer.alloc(SIZE, String(ms)).toString('latin1') })
    }
  }
  const before = heapInUse()
  fill()
  t.ok(heapInUse() - before > 10 * SIZE, 'as long as they are held')
  ring.dropBefore(3000)
  t.equal(ring.length, 0)
  t.ok(heapInUse() - before < SIZE, 'not any more')
})

t.test('however many go through it, it takes its size, and not more', async t => {
  const CAPACITY = 100
  // large beside whatever else grows meanwhile
  const SIZE = 100_000
  const ring = new Ring(CAPACITY, BASE)
  const push = (from: number, count: number) => {
    for (let ms = from; ms < from + count; ms++) {
      ring.push({ ...eventAt({ ms, seq: 0 }, null), data: Buffer.alloc(SIZE, String(ms)).toString('latin1') })
    }
  }
  const before = heapInUse()
  for (const count of [199, 1000, 50]) {
    push(2000, count)
    t.ok(heapInUse() - before < 1.2 * CAPACITY * SIZE, `${count} more`)
  }
  t.equal(ring.length, CAPACITY)
  t.ok(ring.bytes > CAPACITY * SIZE && ring.bytes < 1.2 * CAPACITY * SIZE)
  const full = heapInUse()
  ring.drop(50)
  t.ok(full - heapInUse() > 0.45 * CAPACITY * SIZE, 'what it drops goes at once')
  ring.dropTo(ring.last!.id)
  t.equal(ring.bytes, 0)
})

function check(ring: Ring, list: readonly StoredEvent[], base: Position): void {
  const same = (got: unknown, wanted: unknown, what: string) => {
    if (JSON.stringify(got) !== JSON.stringify(wanted))
      throw new Error(`${what}: ${JSON.stringify(got)}, not ${JSON.stringify(wanted)}`)
  }
  same(ring.length, list.length, 'length')
  same(ring.last, list.at(-1), 'last')
  same(ring.base, base, 'base')
  for (const position of [
    base,
    ...list.map(({ id }) => id),
    { ms: 0, seq: 0 },
    { ms: base.ms, seq: base.seq + 1 }
  ]) {
    const after = list.filter(({ id }) => comparePositions(id, position) > 0)
    for (const limit of [1, 3, 100])
      same(ring.after(position, limit), after.slice(0, limit), `after, at most ${limit}`)
  }
  for (const count of [1, 2, 5, 100]) {
    const before = ring.before(count, 0)
    same(before === undefined, list.length === 0, 'before nothing')
    if (before) same(ring.after(before, 100), list.slice(-count), `the last ${count}`)
  }
}
