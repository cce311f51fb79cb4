import fc from 'fast-check'
import t from 'tap'
import { TopicIndex } from '../../src/broker/embedded/topics.ts'
import { matches } from '../../src/event.ts'
import { heapInUse } from '../support/heap.ts'

const TOPICS = ['a', 'b', 's/a', 's/b', 's/a/b', 't/a']
const FILTERS = ['*', 's/*', 's/a/*', 't/*', 'none/*', 'none', ...TOPICS]

t.test(
  'a filter finds the topics that it covers, whatever was set and deleted: against a plain map',
  async t => {
    const topic = fc.constantFrom(...TOPICS)
    const step = fc.oneof(fc.record({ set: topic, value: fc.nat() }), fc.record({ delete: topic }))
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), steps => {
        const index = new TopicIndex<number>()
        const map = new Map<string, number>()
        for (const step of steps) {
          if ('set' in step) {
            index.set(step.set, step.value)
            map.set(step.set, step.value)
          } else {
            index.delete(step.delete)
            map.delete(step.delete)
          }
          const covered = (filter: string) => [...map].filter(([topic]) => matches(filter, topic)).sort()
          const same = (got: unknown, wanted: unknown, what: string) => {
            if (JSON.stringify(got) !== JSON.stringify(wanted))
              throw new Error(`${what}: ${JSON.stringify(got)}, not ${JSON.stringify(wanted)}`)
          }
          for (const filter of FILTERS) same([...index.matching(filter)].sort(), covered(filter), filter)
          for (const topic of TOPICS) same(index.get(topic), map.get(topic), topic)
          same([...index.entries].sort(), [...map].sort(), 'all')
        }
      }),
      { numRuns: 300, seed: 1 }
    )
    t.pass('as the plain map says')
  }
)

t.test('topics may be deleted while all are gone through', async t => {
  const index = new TopicIndex<number>()
  for (const [value, topic] of TOPICS.entries()) index.set(topic, value)
  for (const [topic, value] of index.entries) if (value % 2 === 0) index.delete(topic)
  t.strictSame(
    [...index.entries].map(([, value]) => value),
    [1, 3, 5]
  )
})

t.test('topics that have come and gone leave nothing behind', async t => {
  const COUNT = 50_000
  const index = new TopicIndex<number>()
  const comeAndGo = (from: number) => {
    for (let number = from; number < from + COUNT; number++) {
      index.set(`many/${number}`, number)
      index.set(`family/${number}/one`, number)
      index.delete(`many/${number}`)
      index.delete(`family/${number}/one`)
    }
  }
  comeAndGo(0)
  const before = heapInUse()
  comeAndGo(COUNT)
  const left = (heapInUse() - before) / COUNT
  t.ok(left < 20, `${left.toFixed(1)} bytes a topic`)
})
