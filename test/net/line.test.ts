import fc from 'fast-check'
import t from 'tap'
import { Line, type Place } from '../../src/net/line.ts'

t.test('a line has what has joined and not left, in that order', async () => {
  fc.assert(
    fc.property(fc.array(fc.option(fc.nat())), steps => {
      const line = new Line<number>()
      const places: Place<number>[] = []
      for (const [index, leaves] of steps.entries()) {
        if (leaves === null || places.length === 0) places.push(line.join(index))
        else line.leave(places.splice(leaves % places.length, 1)[0]!)
        const expected = places.map(({ item }) => item)
        if ([...line].join() !== expected.join() || line.size !== expected.length)
          throw new Error(`${[...line].join()} and not ${expected.join()}`)
      }
    })
  )
})

t.test('an item may be taken out while the line is gone through, and its place leads nowhere', async t => {
  const line = new Line<string>()
  const places = ['a', 'b', 'c'].map(item => line.join(item))
  const seen: string[] = []
  for (const item of line) {
    seen.push(item)
    line.leave(places.find(place => place.item === item)!)
  }
  t.strictSame(seen, ['a', 'b', 'c'])
  t.equal(line.size, 0)
  t.strictSame(
    places.map(({ before, behind }) => [before, behind]),
    [
      [null, null],
      [null, null],
      [null, null]
    ]
  )
})
