import t from 'tap'
import { Fitness } from '../../../src/broker/redis/fitness.ts'
import { ShardKeys } from '../../../src/broker/redis/keys.ts'
import { refusal, refusalKind } from '../../../src/broker/redis/refusals.ts'
import { Requirements, type TriedStore } from '../../../src/broker/redis/requirements.ts'
import { lackOf, Unfit } from '../../../src/broker/redis/unavailable.ts'
import { StagedAppends } from './stage.ts'

/** What the check script answers with: version, maxmemory, policy, a refusal, what is wrong with ranges. */
function requirementsOn(...answer: string[]): { requirements: Requirements; unknown: string[] } {
  const unknown: string[] = []
  const requirements = new Requirements({
    keys: new ShardKeys('p:', '0'),
    trialKeys: new ShardKeys('p:try:', '0'),
    store: () => ({ ringsideCheck: () => Promise.resolve(answer) }) as unknown as TriedStore,
    publishCommand: () => 'PUBLISH',
    unknown: ({ message }) => unknown.push(message)
  })
  return { requirements, unknown }
}

t.test('what a store says of itself', async t => {
  const refused = [
    [['6.0.16', '0', 'noeviction', '', ''], 'is too old: it is version 6.0.16, and 6.2 is needed'],
    [['2.8.17', '0', 'noeviction', '', 'no XRANGE'], 'is too old: it is version 2.8.17, and 6.2 is needed'],
    [['7.4.0', '0', 'noeviction', '', 'it answers with…'], 'takes no exclusive ranges of a stream'],
    [
      ['8.0.0', '1', 'allkeys-lru', '', ''],
      'may evict what is still to be read: maxmemory-policy is allkeys-lru; set noeviction'
    ]
  ] as const
  for (const [answer, message] of refused)
    await t.rejects(requirementsOn(...answer).requirements.check(), { name: 'Unfit', message })
  const taken = [
    ['6.2.0', '0', 'noeviction'],
    ['7.0.0', '0', 'allkeys-lru'],
    ['10.1', '1000', 'noeviction'],
    ['', '0', 'noeviction']
  ]
  for (const answer of taken) t.equal(await requirementsOn(...answer, '', '').requirements.check(), null)
})

t.test('what it does not say is told once', async t => {
  const { requirements, unknown } = requirementsOn('7.0.0', '', '', '', '')
  await requirements.check()
  await requirements.check()
  t.match(unknown, [/INFO memory/])
  t.equal(unknown.length, 1)
})

t.test('that it takes no writes is no reason to refuse it', async t => {
  const full = "OOM command not allowed when used memory > 'maxmemory'."
  const said = await requirementsOn('7.0.0', '1', 'noeviction', full, '').requirements.check()
  t.equal(refusalKind(said!), 'full')
})

t.test('a command that it does not know, or does not let its user run', async t => {
  t.match(lackOf(refusal("ERR unknown command 'info', with args beginning with: ")), {
    message: 'does not know the command INFO'
  })
  for (const end of ['', ' or its subcommand'])
    t.match(lackOf(refusal(`NOPERM this user has no permissions to run the 'evalsha' command${end}`)), {
      message: 'does not let its user run EVALSHA'
    })
  t.equal(lackOf(refusal('NOAUTH Authentication required.')), null)
  t.equal(lackOf(new Error("ERR unknown command 'info'")), null)
})

t.test('a store is asked again in time, and at once where it refuses', async t => {
  const time = { now: 0 }
  const asked: { answer(refused: Error | null): void; fail(error: Error): void }[] = []
  const unfit: string[] = []
  const ask = () => new Promise<Error | null>((answer, fail) => asked.push({ answer, fail }))
  const fitness = new Fitness({
    requirements: { check: ask, tryAll: ask },
    elapsed: () => time.now,
    refused: () => {},
    unfit: ({ message }) => unfit.push(message)
  })
  const settled = () => new Promise(resolve => setImmediate(resolve))
  const connected = fitness.connected()
  asked[0]!.answer(null)
  await connected
  for (const now of [1999, 2000, 2001]) {
    time.now = now
    fitness.checkInTime()
  }
  t.equal(asked.length, 2, 'one at a time, every two seconds')
  asked[1]!.answer(null)
  await settled()

  const store = new StagedAppends()
  const guarded = fitness.guard(store)
  const append = guarded.append(1, Array<string>(9).fill(''))
  time.now += 200
  store.last.fail(refusal('OOM command not allowed'))
  await t.rejects(append)
  t.equal(asked.length, 3)
  asked[2]!.answer(refusal('OOM command not allowed'))
  await settled()
  t.match(fitness.refusal, { message: /OOM/ })

  time.now += 2000
  fitness.checkInTime()
  asked[3]!.fail(new Unfit('is too old'))
  await settled()
  t.strictSame(unfit, ['is too old'])
  await t.rejects(guarded.append(1, []), { name: 'Unfit' })
  t.equal(store.calls.length, 1, 'it is not even asked')
})

t.test('what a store can not answer now does not count', async t => {
  const passing = {
    tryAll: () => Promise.reject(refusal('TRYAGAIN Multiple keys request')),
    check: () => Promise.resolve(null)
  }
  const options = { elapsed: () => 0, refused: () => {}, unfit: () => {} }
  await new Fitness({ requirements: passing, ...options }).connected()
  const lost = { ...passing, tryAll: () => Promise.reject(new Error('Connection is closed.')) }
  await t.rejects(new Fitness({ requirements: lost, ...options }).connected(), {
    message: 'Connection is closed.'
  })
})
