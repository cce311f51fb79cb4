import type { Test } from 'tap'
import { TALLY_MS } from '../../../src/broker/tally.ts'
import { begin as beginBench } from './bench.ts'
import type { MakeSubject } from './subject.ts'

/** What every tally owes to who uses it: src/broker/tally.ts says it in words. */
export function tallyConforms(t: Test, make: MakeSubject): void {
  const begin = (test: Test) => beginBench(test, make)
  const counts = (...counts: [string, number][]) => new Map(counts)

  t.test('an instance that is alone hears of nobody else', async t => {
    const { tally } = (await begin(t)).broker
    for (const count of [3, 0, 1_000_000]) {
      const others = await tally.count(counts(['alice', count], ['b ü\n', count]))
      t.strictSame(
        [...others.values()].filter(other => other !== 0),
        [],
        'its own counts are not among those of others'
      )
    }
    t.strictSame([...(await tally.count(counts()))], [])
  })

  t.test('the counts of all other instances are added up, by name', async t => {
    const bench = await begin(t)
    const second = await bench.another(t)
    const third = await bench.another(t)
    if (!second || !third) return t.pass('this broker is the only one on its store', { skip: true })
    const count = async ({ broker }: typeof bench, ...told: [string, number][]) =>
      Object.fromEntries(await broker.tally.count(counts(...told)))
    t.strictSame(await count(bench, ['alice', 3], ['b ü\n', 10]), { alice: 0, 'b ü\n': 0 })
    t.strictSame(await count(second, ['alice', 4]), { alice: 3 })
    t.strictSame(await count(third, ['alice', 5], ['b ü\n', 1]), { alice: 7, 'b ü\n': 10 })
    t.strictSame(await count(bench, ['alice', 0]), { alice: 9 })
    t.strictSame(await count(second, ['alice', 1], ['carol', 1]), { alice: 5, carol: 0 })
    t.strictSame(
      await count(third, ['alice', 2]),
      { alice: 1 },
      'the last count of each instance is the one that counts'
    )
  })

  t.test('a count is forgotten after its time', async t => {
    const bench = await begin(t)
    const other = await bench.another(t)
    if (!other) return t.pass('this broker is the only one on its store', { skip: true })
    await bench.broker.tally.count(counts(['alice', 3], ['bob', 1]))
    await bench.pass(TALLY_MS / 2)
    await bench.broker.tally.count(counts(['bob', 2]))
    t.strictSame([...(await other.broker.tally.count(counts(['bob', 0])))], [['bob', 2]])
    await bench.pass(TALLY_MS / 2 + 1)
    t.strictSame([...(await other.broker.tally.count(counts(['alice', 0])))], [['alice', 0]])
    await bench.pass(TALLY_MS / 2)
    t.strictSame([...(await other.broker.tally.count(counts(['bob', 0])))], [['bob', 0]])
  })

  t.test('without a store it answers that it knows nothing, and never rejects', async t => {
    const bench = await begin(t)
    await bench.broker.close()
    t.strictSame([...(await bench.broker.tally.count(counts(['alice', 3])))], [])
  })
}
