import t from 'tap'
import { ZERO } from '../../../src/broker/redis/life.ts'
import { at, RING_TTL, StagedLife } from './stage.ts'

t.test('the birth and the losses are those of the last answer', async t => {
  const life = new StagedLife()
  t.strictSame([life.birth, life.lost], [ZERO, ZERO])
  life.note('10-0', '')
  t.strictSame([life.birth, life.lost], [at(10), ZERO])
  life.note('10-0', '20-1')
  t.strictSame([life.birth, life.lost], [at(10), at(20, 1)])
  life.note('', '')
  t.strictSame([life.birth, life.lost], [at(10), ZERO], 'without a birth it is the one of before')
  life.note('30-0', '')
  t.strictSame(life.births, ['10-0', '10-0', '30-0'], 'each birth that an answer names is told')
})

t.test('a loss that was announced counts, unless a later one is known', async t => {
  const life = new StagedLife()
  life.noteLoss(at(20))
  t.strictSame(life.lost, at(20))
  life.noteLoss(at(15))
  t.strictSame(life.lost, at(20))
})

t.test('the clock of the store goes on with ours, from its last answer', async t => {
  const life = new StagedLife(1000)
  life.noteClock('1700000000000-0')
  life.pass(250)
  t.equal(life.now(), 1_700_000_000_250)
  t.equal(life.storeTime(life.elapsed() + 1000), 1_700_000_001_250)
  life.noteClock('1600000000000-0')
  t.equal(life.now(), 1_600_000_000_000, 'it may be set')
})

t.test('what came before the birth is of another life', async t => {
  const life = new StagedLife()
  life.note('10-0', '')
  t.strictSame(
    [at(9), at(10), at(10, 1), at(11)].map(id => life.includes(id)),
    [false, false, true, true]
  )
})

t.test('an event is young for half of the time for which it can be read', async t => {
  const life = new StagedLife()
  const id = at(life.now()!)
  life.pass(RING_TTL / 2 - 1)
  t.ok(life.isYoung(id))
  life.pass(1)
  t.notOk(life.isYoung(id))
})
