import t from 'tap'
import { Unwanted } from '../../../src/asker.ts'
import { ReadQueue } from '../../../src/broker/redis/read-queue.ts'
import { settled } from '../../support/clock.ts'

type Client = ReturnType<ConstructorParameters<typeof ReadQueue>[0]>

/** A queue to a client that answers when it is told to. */
function begin() {
  const asked: { key: string; answer(value: string[]): void; fail(error: Error): void }[] = []
  const client = {
    smembers: (key: string) =>
      new Promise<string[]>((resolve, reject) => asked.push({ key, answer: resolve, fail: reject }))
  } as Client
  return {
    asked,
    queue: new ReadQueue(
      () => client,
      answer => answer
    )
  }
}

t.test('eight questions are under way at a time, and the others wait in order', async t => {
  const { asked, queue } = begin()
  const answers = Array.from({ length: 20 }, (_, index) => queue.smembers(`${index}`))
  await settled()
  t.equal(asked.length, 8)
  asked[3]!.answer(['x'])
  t.strictSame(await answers[3], ['x'])
  asked[0]!.fail(new Error('Command timed out'))
  await t.rejects(answers[0]!, /timed out/)
  await settled()
  t.strictSame(
    asked.map(({ key }) => key),
    Array.from({ length: 10 }, (_, index) => `${index}`),
    'whether it was answered or not'
  )
  for (let index = 0; index < 20; index++) {
    asked[index]!.answer([])
    await settled()
  }
  await Promise.allSettled(answers)
  const next = Array.from({ length: 9 }, (_, index) => queue.smembers(`next ${index}`))
  await settled()
  t.equal(asked.length, 28, 'no place was lost')
  for (let index = 20; index < 29; index++) {
    asked[index]!.answer([])
    await settled()
  }
  await Promise.all(next)
})

t.test('a question that throws gives its place back', async t => {
  const queue = new ReadQueue(
    () => ({}) as Client,
    answer => answer
  )
  for (let index = 0; index < 20; index++) await t.rejects(queue.smembers('x'), TypeError)
})

t.test('what waits for one who has gone is not asked, and gives its place on', async t => {
  const { asked, queue } = begin()
  const reader = { isGone: false }
  const early = Array.from({ length: 8 }, (_, index) => queue.smembers(`${index}`))
  const unwanted = Array.from({ length: 100 }, () =>
    t.rejects(queue.until(reader).smembers('gone'), Unwanted)
  )
  const late = queue.smembers('late')
  await settled()
  reader.isGone = true
  asked[0]!.answer([])
  await Promise.all(unwanted)
  await settled()
  t.strictSame(
    asked.slice(8).map(({ key }) => key),
    ['late']
  )
  for (const { answer } of asked) answer([])
  await Promise.all([...early, late])
})
