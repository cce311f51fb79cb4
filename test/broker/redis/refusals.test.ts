import t from 'tap'
import { Refusals } from '../../../src/broker/redis/refusals.ts'
import { unavailable } from '../../../src/broker/redis/unavailable.ts'

/** What Redis answers instead of what was asked for. */
function refusal(message: string): Error {
  return Object.assign(new Error(message), { name: 'ReplyError' })
}

/** In the words of Redis 7, and in those of 6.2. */
const FULL = [
  "OOM command not allowed when used memory > 'maxmemory'. script: f00, on @user_script:134.",
  "ERR Error running script (call to f_f00): @user_script:134: @user_script: 134: -OOM command not allowed when used memory > 'maxmemory'."
].map(refusal)

function begin() {
  const counted: string[] = []
  const warned: string[] = []
  const time = { now: 0 }
  const refusals = new Refusals({
    count: (op, kind) => counted.push(`${op} ${kind}`),
    warn: (stage, { message }) => warned.push(`${stage}: ${message}`),
    elapsed: () => time.now
  })
  return { refusals, counted, warned, time }
}

t.test('what is answered and refused is counted, by why', async t => {
  const { refusals, counted } = begin()
  t.equal(await refusals.watch('read', Promise.resolve(7)), 7)
  const errors = [
    ...FULL,
    refusal('NOPERM this user'),
    refusal('READONLY You'),
    new Error('Command timed out')
  ]
  for (const error of errors) await t.rejects(refusals.watch('append', Promise.reject(error)), error)
  t.strictSame(counted, ['append full', 'append full', 'append denied', 'append other'])
})

t.test('that it is full is told once a minute', async t => {
  const { refusals, warned, time } = begin()
  for (const now of [0, 59_999, 60_000, 60_001]) {
    time.now = now
    for (const error of FULL) await t.rejects(refusals.watch('append', Promise.reject(error)))
  }
  t.equal(warned.length, 2)
  t.match(warned[0], /^memory: .*full/)
})

t.test('who asked is told that it is full, in our words', async t => {
  for (const error of FULL) t.equal(unavailable(error).message, 'Redis is full')
})
