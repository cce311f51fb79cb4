import t from 'tap'
import { DiskBroker } from '../../src/broker/disk/broker.ts'
import { Rules } from '../../src/rules/rules.ts'
import { HeldClock } from '../support/clock.ts'
import { conforms } from './conformance/broker.ts'

const SETTINGS = { FSYNC: 'commit', MAX_STORE_BYTES: 1024 ** 3 } as const

t.test('the broker on disk', async t => {
  conforms(t, async (t, settings) => {
    const clock = new HeldClock()
    const folder = t.testdir()
    const rules = new Rules(settings, settings.rules)
    const open = () =>
      DiskBroker.open(folder, { ...SETTINGS, ...settings }, clock, undefined, undefined, rules)
    return {
      broker: await open(),
      rules,
      keeps: true,
      restart: open,
      pass: ms => clock.advance(ms),
      stepBack: ms => clock.stepBack(ms),
      isHeld: true
    }
  })
})
