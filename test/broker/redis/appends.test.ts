import t, { type Test } from 'tap'
import { Appends } from '../../../src/broker/redis/appends.ts'
import { Checkpoints } from '../../../src/broker/redis/checkpoints.ts'
import { RedisConnections } from '../../../src/broker/redis/connections.ts'
import { refusal } from '../../../src/broker/redis/refusals.ts'
import { unreplicated } from '../../../src/broker/redis/unavailable.ts'
import type { ShardOutcome } from '../../../src/broker/redis/wire.ts'
import { readRedisUrl } from '../../../src/broker/redis/url.ts'
import { BrokerUnavailable } from '../../../src/broker/unavailable.ts'
import { HeldClock, settled } from '../../support/clock.ts'
import { redisFor } from '../../support/redis-system.ts'
import { at, idAt, KEYS, RING_TTL, StagedAppends, StagedLife } from './stage.ts'
import { Rules } from '../../../src/rules/rules.ts'

/** How long a call may wait for Redis to begin it, in milliseconds. */
const IN_TIME_MS = 1500

/** The appends of one shard, on a store that answers when it is told to. */
class Stage {
  readonly clock = new HeldClock()
  readonly life: StagedLife
  readonly store = new StagedAppends()
  readonly appends: Appends
  announced = Promise.resolve()

  constructor({ waits = false, life = new StagedLife() } = {}) {
    this.life = life
    life.note('1-0', '')
    this.appends = new Appends({
      ...{ clock: this.clock, life: this.life, keys: KEYS, store: this.store, waits },
      checkpoints: new Checkpoints(this.life),
      rules: new Rules({ RING_SIZE: 100, RING_TTL }),
      publishCommand: () => 'PUBLISH',
      announced: () => this.announced,
      position: () => at(0)
    })
  }

  /** Appends events that hold their own names. */
  append(...names: string[]): Promise<ShardOutcome[]> {
    const events = names.map(data => ({ event: { topic: data[0]!, type: 'message', data }, print: '' }))
    return this.appends.append(events)
  }

  /** Ends the turn of the event loop: what was appended in it goes out. */
  turn(): Promise<void> {
    return this.clock.turn()
  }

  /** Appends one event and lets it be stored. */
  async stored(name: string, ms: number): Promise<void> {
    const outcomes = this.append(name)
    await this.turn()
    this.store.store(ms)
    await outcomes
  }

  /** Milliseconds on the store's clock, as it is known. */
  get now(): number {
    return this.life.now()!
  }
}

async function rejects(t: Test, call: Promise<unknown>, message: string | RegExp): Promise<void> {
  await t.rejects(call, { name: BrokerUnavailable.name, message })
}

t.test('what is appended in one turn goes in one call, and each hears of its own', async t => {
  const stage = new Stage()
  const [first, second] = [stage.append('a1'), stage.append('b1', 'b2')]
  t.equal(stage.store.calls.length, 0)
  await stage.turn()
  t.equal(stage.store.calls.length, 1)
  t.strictSame(stage.store.last.counts, [1, 2])
  t.strictSame(stage.store.last.events, ['a1', 'b1', 'b2'])
  stage.store.last.answer('ok', idAt(stage.now), ...['stored', '7-0', 'replayed', '5-0', 'conflict', ''])
  t.strictSame(await first, [{ outcome: 'stored', id: at(7) }])
  t.strictSame(await second, [{ outcome: 'replayed', id: at(5) }, { outcome: 'conflict' }])
})

t.test('a call that fails rejects all that was in it, and nothing else', async t => {
  const stage = new Stage()
  const failed = [stage.append('a1'), stage.append('a2')]
  await stage.turn()
  const next = stage.append('a3')
  await stage.turn()
  stage.store.calls[0]!.fail(refusal('READONLY You'))
  for (const call of failed) await rejects(t, call, 'Redis refused it')
  stage.store.store(20)
  t.match(await next, [{ outcome: 'stored' }])
})

t.test('before any answer has told the time of the store nothing is sent', async t => {
  const stage = new Stage({ life: new StagedLife(null) })
  const refused = rejects(t, stage.append('a1'), 'no connection to Redis')
  await stage.turn()
  await refused
  t.equal(stage.store.calls.length, 0)
})

t.test('a call takes 500 events, or a mebibyte', async t => {
  const stage = new Stage()
  const names = Array.from({ length: 1001 }, (_, index) => `a${index}`)
  for (const name of names) void stage.append(name)
  await stage.turn()
  t.strictSame(
    stage.store.calls.map(({ events }) => events.length),
    [500, 500, 1]
  )
  t.strictSame(
    stage.store.calls.flatMap(({ events }) => events),
    names,
    'in their order'
  )
  for (let index = 0; index < 3; index++) void stage.append('b'.repeat(600_000))
  await stage.turn()
  t.strictSame(
    stage.store.calls.slice(3).map(({ events }) => events.length),
    [1, 1, 1],
    'nothing that would be more goes with it'
  )
})

t.test('states count as data does, and so do bytes as they are sent', async t => {
  const stage = new Stage()
  const state = { value: 's'.repeat(700_000) }
  for (let index = 0; index < 2; index++)
    void stage.appends.append([{ event: { topic: 'a', type: 'message', data: '', state }, print: '' }])
  for (let index = 0; index < 2; index++) void stage.append('€'.repeat(300_000))
  await stage.turn()
  t.strictSame(
    stage.store.calls.map(({ counts }) => counts.length),
    [1, 1, 1, 1]
  )
})

t.test('of many bytes the next call waits until one was answered', async t => {
  const stage = new Stage()
  const appends = Array.from({ length: 7 }, () => stage.append('b'.repeat(1_000_000)))
  await stage.turn()
  t.equal(stage.store.calls.length, 4)
  stage.store.calls[0]!.answer('ok', idAt(stage.now), 'stored', '7-0')
  await appends[0]
  await settled()
  t.equal(stage.store.calls.length, 5)
  stage.store.calls[1]!.fail(new Error('Command timed out'))
  await rejects(t, appends[1]!, 'Redis did not answer in time')
  await settled()
  t.equal(stage.store.calls.length, 6, 'also when it was refused')
})

t.test('an append that is more than that goes alone', async t => {
  const stage = new Stage()
  const small = stage.append('a')
  await stage.turn()
  const large = stage.append(...Array.from({ length: 8 }, () => 'b'.repeat(1_000_000)))
  await stage.turn()
  t.equal(stage.store.calls.length, 1)
  stage.store.store(5)
  await small
  await settled()
  t.strictSame(stage.store.last.counts, [8])
  stage.store.store(6)
  t.equal((await large).length, 8)
})

t.test('what Redis refuses alone is rejected alone', async t => {
  const stage = new Stage()
  const [failed, stored] = [stage.append('a1'), stage.append('b1')]
  await stage.turn()
  const answer = ['failed', 'WRONGTYPE Operation', 'stored', '7-0']
  stage.store.last.answer('ok', idAt(stage.now), ...answer)
  await rejects(t, failed, 'Redis refused it')
  t.strictSame(stage.store.refusals, ['WRONGTYPE Operation'])
  t.strictSame(await stored, [{ outcome: 'stored', id: at(7) }])
})

t.test('one call waits for replicas at a time, however many events wait for it', async t => {
  const stage = new Stage({ waits: true })
  const calls = Array.from({ length: 1200 }, (_, index) => stage.append(`a${index}`))
  await stage.turn()
  t.equal(stage.store.calls.length, 1)
  for (const [index, length] of [500, 500, 200].entries()) {
    t.equal(stage.store.calls.length, index + 1, 'the others wait')
    t.equal(stage.store.last.events.length, length)
    stage.store.store(1000 * (index + 1))
    await settled()
  }
  t.equal((await Promise.all(calls)).length, 1200)

  t.test('and what comes meanwhile goes together in the next one, also after a failure', async t => {
    const first = stage.append('b1')
    await stage.turn()
    const others = [stage.append('b2')]
    await stage.turn()
    others.push(stage.append('b3'))
    await stage.turn()
    t.strictSame(stage.store.last.events, ['b1'])
    stage.store.last.fail(unreplicated())
    await rejects(t, first, /replicas/)
    t.strictSame(stage.store.last.events, ['b2', 'b3'])
    stage.store.store(9000)
    await Promise.all(others)
  })

  t.test('verifying waits as well', async t => {
    t.equal(stage.store.calls.length, 5)
    const last = stage.append('c')
    await stage.turn()
    stage.appends.verify()
    t.equal(stage.store.calls.length, 6, 'the call that waits verifies')
    stage.store.store(10_000)
    await last
    stage.appends.verify()
    t.equal(stage.store.calls.length, 7)
    void stage.append('d')
    await stage.turn()
    t.equal(stage.store.calls.length, 7)
    stage.store.store(0)
    await settled()
    t.strictSame(stage.store.last.events, ['d'])
  })
})

t.test('Redis is told until when it may store: sooner than the call is given up', async t => {
  const stage = new Stage()
  void stage.append('a1')
  await stage.turn()
  t.equal(stage.store.last.deadline, stage.now + IN_TIME_MS)
})

t.test(
  'a call that Redis refused because its clock was set is made once more, in the time that is left',
  async t => {
    const stage = new Stage()
    const stored = stage.append('a1')
    await stage.turn()
    const stepped = stage.now + 3_600_000
    stage.life.pass(400)
    stage.store.last.answer('late', idAt(stepped))
    await settled()
    t.equal(stage.store.calls.length, 2)
    t.equal(stage.store.last.deadline, stepped + IN_TIME_MS - 400)
    stage.store.store(stepped)
    t.match(await stored, [{ outcome: 'stored' }])

    t.test('and only once', async t => {
      const refused = stage.append('a2')
      await stage.turn()
      stage.store.last.answer('late', idAt(stage.now + 3_600_000))
      await settled()
      stage.store.last.answer('late', idAt(stage.now + 3_600_000))
      await rejects(t, refused, 'Redis did not answer in time')
      t.equal(stage.store.calls.length, 4)
    })

    t.test('what follows goes by the new clock', async t => {
      void stage.append('a3')
      await stage.turn()
      t.ok(stage.store.last.deadline > stepped + 3_600_000)
    })
  }
)

t.test('a call that has come too late is not made again: its time is over', async t => {
  const stage = new Stage()
  const refused = stage.append('a1')
  await stage.turn()
  stage.life.pass(IN_TIME_MS)
  stage.store.last.answer('late', idAt(stage.now))
  await rejects(t, refused, 'Redis did not answer in time')
  t.equal(stage.store.calls.length, 1)
})

t.test('checkpoints', async t => {
  t.test('a call verifies the last event of the one before it', async t => {
    const stage = new Stage()
    const { now } = stage
    await stage.stored('a1', now)
    t.strictSame(stage.store.last.checkpoints, [])
    t.equal(stage.store.last.birth, '1-0')
    const both = stage.append('b1', 'c1')
    await stage.turn()
    t.strictSame(stage.store.last.checkpoints, [`a ${now}-0`])
    stage.store.store(now + 1)
    await both
    await stage.stored('d1', now + 3)
    t.strictSame(stage.store.last.checkpoints, [`c ${now + 2}-0`])
  })

  t.test('one call at a time does; what the others store is verified by the next', async t => {
    const stage = new Stage()
    const { now } = stage
    await stage.stored('a1', now)
    const first = stage.append('b1')
    await stage.turn()
    const second = stage.append('c1')
    await stage.turn()
    t.strictSame(
      stage.store.calls.slice(1).map(({ checkpoints }) => checkpoints),
      [[`a ${now}-0`], []]
    )
    stage.store.calls[1]!.answer('ok', idAt(now), 'stored', idAt(now + 1))
    await first
    stage.store.store(now + 2)
    await second
    await stage.stored('d1', now + 3)
    t.strictSame(stage.store.last.checkpoints, [`b ${now + 1}-0`, `c ${now + 2}-0`])
    await stage.stored('e1', now + 4)
    t.strictSame(stage.store.last.checkpoints, [`d ${now + 3}-0`], 'the latest stands for all')
  })

  t.test('those of a call that failed are verified by the next', async t => {
    const stage = new Stage()
    const { now } = stage
    await stage.stored('a1', now)
    const failed = stage.append('b1')
    await stage.turn()
    stage.store.last.fail(new Error('Connection is closed.'))
    await t.rejects(failed)
    await stage.stored('c1', now + 2)
    t.strictSame(stage.store.last.checkpoints, [`a ${now}-0`])
  })

  t.test('one that had been stored before is one, too; one that was not stored is none', async t => {
    const stage = new Stage()
    const { now } = stage
    const answers = async (...outcomes: string[]) => {
      const all = stage.append(...['x', 'y'].slice(0, outcomes.length / 2))
      await stage.turn()
      stage.store.last.answer('ok', idAt(now), ...outcomes)
      await all
    }
    await answers('conflict', '', 'not stored', '')
    await answers('replayed', idAt(now), 'conflict', '')
    t.strictSame(stage.store.last.checkpoints, [])
    await answers('stored', idAt(now + 5), 'replayed', idAt(now + 1))
    t.strictSame(stage.store.last.checkpoints, [`x ${now}-0`])
    await answers('conflict', '')
    t.strictSame(stage.store.last.checkpoints, [`x ${now + 5}-0`])
    await answers('stored', `${idAt(now + 6)} - live`, 'replayed', `${idAt(now + 4)} 1~2~3 live`)
    await answers('conflict', '')
    t.strictSame(stage.store.last.checkpoints, [`x ${now + 5}-0`], 'nor one that is never stored')
    await answers('stored', idAt(now + 7), 'stored', `${idAt(now + 8)} - live`)
    await answers('conflict', '')
    t.strictSame(stage.store.last.checkpoints, [`x ${now + 7}-0`])
  })

  t.test('one of an earlier life of the store, or one that is old, is not looked for', async t => {
    const stage = new Stage()
    await stage.stored('a1', stage.now)
    stage.life.note(idAt(stage.now + 1), '')
    await stage.stored('b1', stage.now + 2)
    t.strictSame(stage.store.last.checkpoints, [])
    await stage.stored('c1', stage.now + 3)
    t.match(stage.store.last.checkpoints, [/^b /])
    stage.life.pass(RING_TTL)
    await stage.stored('d1', stage.now)
    t.strictSame(stage.store.last.checkpoints, [])
  })

  t.test('the last one is verified where nothing is stored after it', async t => {
    const stage = new Stage()
    const { now } = stage
    stage.appends.verify()
    t.equal(stage.store.calls.length, 0, 'there is none')
    await stage.stored('a1', now)
    stage.appends.verify()
    t.equal(stage.store.calls.length, 2)
    t.strictSame([stage.store.last.events, stage.store.last.checkpoints], [[], [`a ${now}-0`]])
    stage.store.last.fail(new Error('Connection is closed.'))
    await settled()
    stage.appends.verify()
    t.equal(stage.store.calls.length, 3, 'a failure is tried again')
    stage.store.store(0)
    await settled()
    stage.appends.verify()
    t.equal(stage.store.calls.length, 3, 'what is verified is not verified again')
    await stage.stored('b1', now + 1)
    t.strictSame(stage.store.last.checkpoints, [`a ${now}-0`], 'but by those that store')
    stage.appends.verify()
    t.equal(stage.store.calls.length, 5)
  })
})

t.test('a real Redis whose clock, seen from here, has been set: it is stored at once', async t => {
  const redis = await redisFor(t)
  const connections = new RedisConnections(
    readRedisUrl(redis.url),
    0,
    () => {},
    () => {}
  )
  t.teardown(() => connections.close())
  await new Promise<void>(resolve => connections.commands.once('ready', () => resolve()))
  const { clock, life } = new Stage()
  const appends = new Appends({
    ...{ clock, life, keys: KEYS, store: connections, waits: false },
    checkpoints: new Checkpoints(life),
    rules: new Rules({ RING_SIZE: 100, RING_TTL }),
    announced: () => Promise.resolve(),
    publishCommand: () => 'PUBLISH',
    position: () => at(0)
  })
  const stored = appends.append([{ event: { topic: 'a', type: 'message', data: '1' }, print: '' }])
  await clock.turn()
  t.match(await stored, [{ outcome: 'stored' }])
  t.equal(await redis.command('XLEN', KEYS.ring('a')), 1)
  const [seconds] = (await redis.command('TIME')) as [string]
  t.ok(Math.abs(life.now()! - Number(seconds) * 1000) < 60_000, 'its clock is known now')
})

t.test('of much, the next goes out once what was announced has come in', async t => {
  const stage = new Stage()
  let comeIn = () => {}
  stage.announced = new Promise(resolve => (comeIn = resolve))
  const all = Array.from({ length: 6 }, (_, index) => stage.append(`${index}`.padEnd(1_048_576, 'x')))
  await stage.turn()
  t.equal(stage.store.calls.length, 4)
  for (const call of stage.store.calls.slice()) call.answer('ok', idAt(stage.now), 'stored', '7-0')
  await Promise.all(all.slice(0, 4))
  await settled()
  t.equal(stage.store.calls.length, 4, 'answered, and on its way to who listens')
  comeIn()
  await settled()
  t.equal(stage.store.calls.length, 6)
  for (const call of stage.store.calls.slice(4)) call.answer('ok', idAt(stage.now), 'stored', '8-0')
  await Promise.all(all)
})

t.test('of little, nothing waits for announcements', async () => {
  const stage = new Stage()
  stage.announced = new Promise(() => {})
  for (let round = 1; round <= 50; round++) {
    const stored = stage.append('x'.repeat(200_000))
    await stage.turn()
    stage.store.store(round)
    await stored
  }
})
