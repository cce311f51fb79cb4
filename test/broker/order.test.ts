import fc from 'fast-check'
import t from 'tap'
import { Order } from '../../src/broker/embedded/order.ts'
import { comparePositions, type Position } from '../../src/event.ts'

interface Item {
  at: Position
}

t.test('items are in order, whatever was added and taken out: against a plain list', async t => {
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.record({ append: fc.integer({ min: 1, max: 400 }) }) },
    { weight: 3, arbitrary: fc.record({ insert: fc.nat(20_000) }) },
    { weight: 4, arbitrary: fc.record({ delete: fc.nat(), count: fc.integer({ min: 1, max: 400 }) }) }
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30, size: 'max' }), steps => {
      const order = new Order<Item>(({ at }) => at)
      let list: Item[] = []
      let last = 10_000
      const add = (ms: number) => {
        if (list.some(({ at }) => at.ms === ms)) return
        const item = { at: { ms, seq: 0 } }
        order.add(item)
        list.push(item)
      }
      for (const step of steps) {
        if ('append' in step) for (let left = step.append; left > 0; left--) add(++last)
        else if ('insert' in step) add(step.insert)
        else {
          const from = step.delete % Math.max(1, list.length)
          for (const item of list.splice(from, step.count)) order.delete(item)
        }
        list = list.sort((a, b) => comparePositions(a.at, b.at))
        // one like it, that was never added
        order.delete({ at: list[0]?.at ?? { ms: 1, seq: 0 } })
        if (order.first !== list[0] || order.last !== list.at(-1)) throw new Error('first or last')
        for (const ms of [0, 10_000, list[list.length >> 1]?.at.ms ?? 0, last]) {
          for (const limit of [1, 300, Infinity]) {
            const wanted = list.filter(({ at }) => at.ms > ms).slice(0, limit)
            const got = order.after({ ms, seq: 0 }, limit)
            if (got.length !== wanted.length || got.some((item, index) => item !== wanted[index]))
              throw new Error(`after ${ms}, at most ${limit}`)
          }
        }
      }
    }),
    { numRuns: 100, seed: 1 }
  )
  t.pass('as the plain list says')
})
