import t from 'tap'
import { refusal, Refusals } from '../../../src/broker/redis/refusals.ts'
import { unavailable } from '../../../src/broker/redis/unavailable.ts'

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

t.test(
  'what else is refused is told with the words of Redis, once a minute for each that is asked for',
  async t => {
    const { refusals, warned, time } = begin()
    for (const now of [0, 59_999, 60_000]) {
      time.now = now
      for (const op of ['append', 'read'] as const)
        await t.rejects(refusals.watch(op, Promise.reject(refusal('NOPERM this user'))))
    }
    t.strictSame(
      warned,
      ['append', 'read', 'append', 'read'].map(op => `${op}: refused it (NOPERM this user)`)
    )
  }
)

t.test('who asked is told so in our words, and the cause has those of Redis', async t => {
  const told = [
    ...FULL.map(error => [error, 'Redis is full'] as const),
    [refusal('NOPERM this user has no permissions'), 'Redis refused it'],
    [
      refusal("NOPERM this user has no permissions to run the 'evalsha' command"),
      'Redis does not let its user run EVALSHA'
    ],
    [refusal('WRONGTYPE Operation script: f00, on @user_script:134.'), 'Redis refused it'],
    [new Error('Command timed out'), 'Redis did not answer in time'],
    [new Error("Stream isn't writeable and enableOfflineQueue options is false"), 'no connection to Redis'],
    [new Error('Connection is closed.'), 'no connection to Redis']
  ] as const
  for (const [error, words] of told) t.match(unavailable(error), { message: words, cause: error })
})
