import { once } from 'node:events'
import t from 'tap'
import { Round } from '../src/round.ts'

/** Keeps the event loop busy for so many milliseconds. */
function work(ms: number): void {
  const until = performance.now() + ms
  while (performance.now() < until);
}

t.test('what comes in a turn is done at its end, one part of all of it after the other', async t => {
  const round = new Round()
  // one that the system interrupts may take several turns
  for (let isWhole = false; !isWhole;) {
    const done: string[] = []
    const began = performance.now()
    const end = new Promise<void>(resolve => {
      for (const name of ['a', 'b', 'c'])
        round.add(() => {
          done.push(`${name}1`)
          void Promise.resolve().then(() => {
            if (done.push(`${name}2`) === 6) resolve()
          })
        })
    })
    t.strictSame(done, [], 'not at once')
    await end
    isWhole = performance.now() - began < 10
    if (isWhole) t.strictSame(done, ['a1', 'b1', 'c1', 'a2', 'b2', 'c2'])
  }
  const later = Promise.race([round.end().then(() => 'the end'), Promise.resolve('this turn')])
  t.equal(await later, 'this turn')
  await round.end()
})

t.test('more than a turn may hold lets others go between', async t => {
  const round = new Round()
  const done: string[] = []
  for (const name of ['a', 'b', 'c']) round.add(() => (done.push(name), work(11)))
  const last = round.end()
  setImmediate(() => done.push('another'))
  await last
  t.strictSame(done, ['a', 'another', 'b', 'c'])
})

t.test('one that throws takes none of the others with it', async t => {
  const round = new Round()
  const thrown = once(process, 'uncaughtException')
  round.add(() => {
    throw new Error('broken')
  })
  const next = round.end()
  t.match(await thrown, [{ message: 'broken' }])
  await next
})
