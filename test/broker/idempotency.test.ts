import t from 'tap'
import { IdempotencyKeys } from '../../src/broker/embedded/idempotency.ts'
import { IDEMPOTENCY_MS } from '../../src/event.ts'
import { HeldClock } from '../support/clock.ts'

const EVENT = { topic: 'a', type: 'message', data: '1', key: 'k' }
const ID = [{ ms: 1, seq: 2 }]

t.test('a key is known until its time is over, whatever is used after it', async t => {
  const clock = new HeldClock()
  const keys = new IdempotencyKeys(clock)
  keys.use(EVENT, ID)
  await clock.advance(IDEMPOTENCY_MS - 1)
  keys.use({ ...EVENT, key: 'young' }, ID)
  keys.forgetOld()
  t.strictSame(keys.check(EVENT), { outcome: 'replayed', id: ID })
  await clock.advance(1)
  keys.forgetOld()
  t.equal(keys.check(EVENT), undefined)
  t.strictSame(keys.check({ ...EVENT, key: 'young' }), { outcome: 'replayed', id: ID })
})

t.test('a key belongs to one topic, type and data', async t => {
  const keys = new IdempotencyKeys(new HeldClock())
  keys.use(EVENT, ID)
  // where one ends and the next begins counts as well
  for (const other of [{ topic: 'b' }, { type: 'x' }, { data: '2' }, { topic: 'a\nmessage', type: '' }])
    t.strictSame(keys.check({ ...EVENT, ...other }), { outcome: 'key reused' })
  t.strictSame(keys.check({ ...EVENT, data: Buffer.from('1') }), { outcome: 'replayed', id: ID })
})

t.test('an event without a key is nobody', async t => {
  const keys = new IdempotencyKeys(new HeldClock())
  const { key, ...plain } = EVENT
  keys.use(plain, ID)
  t.equal(keys.check(plain), undefined)
  t.equal(keys.check({ ...plain, key }), undefined)
})
