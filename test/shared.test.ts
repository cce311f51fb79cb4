import t from 'tap'
import { Unwanted, type Asker } from '../src/asker.ts'
import { Shared } from '../src/shared.ts'
import { settled } from './support/clock.ts'

/** Questions that are answered when it is told to. */
function begin() {
  const shared = new Shared<string>()
  const asked: { name: string; askers: Asker; answer(value: string): void; fail(error: Error): void }[] = []
  const read = (name: string, asker?: Asker) => {
    const ask = (askers: Asker) =>
      new Promise<string>((answer, fail) => asked.push({ name, askers, answer, fail }))
    return shared.read(name, ask, asker)
  }
  return { asked, read, shared }
}

t.test('who comes while one is under way shares the next, which begins when that has ended', async t => {
  const { asked, read } = begin()
  const first = read('a')
  const others = Array.from({ length: 100 }, () => read('a'))
  await settled()
  t.equal(asked.length, 1)
  asked[0]!.answer('old')
  t.equal(await first, 'old')
  await settled()
  t.equal(asked.length, 2)
  const late = read('a')
  asked[1]!.answer('new')
  t.strictSame(new Set(await Promise.all(others)), new Set(['new']), 'no answer from before they came')
  await settled()
  t.equal(asked.length, 3, 'nor for who came when the next had begun')
  asked[2]!.answer('newest')
  t.equal(await late, 'newest')
})

t.test('nothing is kept, and other questions are their own', async t => {
  const { asked, read } = begin()
  for (const value of ['1', '2']) {
    const [a, b] = [read('a'), read('b')]
    t.equal(asked.length, 2)
    for (const { name, answer } of asked.splice(0)) answer(name + value)
    t.strictSame(await Promise.all([a, b]), [`a${value}`, `b${value}`])
    await settled()
  }
})

t.test('a failure is that of its own question', async t => {
  const { asked, read, shared } = begin()
  const [first, second] = [read('a'), read('a')]
  asked[0]!.fail(new Error('away'))
  await t.rejects(first, /away/)
  await settled()
  asked[1]!.answer('x')
  t.equal(await second, 'x')
  await settled()
  await t.rejects(
    shared.read('a', () => {
      throw new Error('thrown')
    }),
    /thrown/
  )
  await settled()
  const last = read('a')
  asked[2]!.answer('y')
  t.equal(await last, 'y')
})

t.test('a question has gone once all have who share it', async t => {
  const { asked, read } = begin()
  const [one, two, three] = [{ isGone: false }, { isGone: false }, { isGone: false }]
  const first = read('a', one)
  const others = [read('a', two), read('a', three)]
  t.equal(asked[0]!.askers.isGone, false)
  one.isGone = true
  t.equal(asked[0]!.askers.isGone, true)
  asked[0]!.fail(new Unwanted('gone'))
  await t.rejects(first, Unwanted)
  await settled()
  three.isGone = true
  t.equal(asked[1]!.askers.isGone, false)
  const last = [read('a', two), read('a')]
  two.isGone = true
  t.equal(asked[1]!.askers.isGone, true)
  asked[1]!.fail(new Unwanted('gone'))
  for (const other of others) await t.rejects(other, Unwanted)
  await settled()
  t.equal(asked[2]!.askers.isGone, false, 'of one nothing is known')
  asked[2]!.answer('x')
  t.strictSame(await Promise.all(last), ['x', 'x'])
})

t.test('a question that all have left before it began is never asked', async t => {
  const { asked, read } = begin()
  const two = { isGone: false }
  const [first, second] = [read('a'), read('a', two)]
  two.isGone = true
  asked[0]!.answer('x')
  t.equal(await first, 'x')
  await t.rejects(second, Unwanted)
  t.equal(asked.length, 1)
  const third = read('a')
  await settled()
  asked[1]!.answer('y')
  t.equal(await third, 'y')
})
