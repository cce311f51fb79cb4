import t from 'tap'
import { Unwanted } from '../src/asker.ts'
import { Turn } from '../src/turn.ts'

const numbers = Array.from({ length: 5000 }, (_, index) => (index * 7919) % 5003)

/** Takes its time: all of them more than a turn. */
function slowly<T>(value: T): T {
  const until = performance.now() + 0.01
  while (performance.now() < until);
  return value
}

t.test('much is done as if it were done at once', async t => {
  const turn = new Turn()
  t.strictSame(
    await turn.map(numbers, number => 2 * number),
    numbers.map(number => 2 * number)
  )
  for (const length of [0, 1, 2, 499, 500, 501, 1500, 5000]) {
    const some = numbers.slice(0, length)
    const sorted = await turn.sort(some, (a, b) => a - b)
    t.strictSame(
      sorted,
      [...some].sort((a, b) => a - b)
    )
  }
  const tens = (a: number, b: number) => Math.floor(a / 10) - Math.floor(b / 10)
  t.strictSame(await turn.sort(numbers, tens), [...numbers].sort(tens), 'equal ones stay in their order')
})

t.test('others come first meanwhile', async t => {
  const works: Record<string, (turn: Turn) => Promise<unknown>> = {
    map: turn => turn.map(numbers, slowly),
    sort: turn => turn.sort(numbers, (a, b) => slowly(a) - b)
  }
  for (const [name, work] of Object.entries(works)) {
    let came = false
    setImmediate(() => (came = true))
    await work(new Turn())
    t.ok(came, name)
  }
})

t.test('what nobody wants any more is given up', async t => {
  const asker = { isGone: false }
  setImmediate(() => (asker.isGone = true))
  let made = 0
  await t.rejects(
    new Turn(asker).map(numbers, () => slowly(made++)),
    Unwanted
  )
  t.ok(made < numbers.length, String(made))
})
