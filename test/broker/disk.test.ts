import t from 'tap'
import { DiskBroker } from '../../src/broker/disk/broker.ts'
import { HeldClock } from '../support/clock.ts'
import { conforms } from './conformance/broker.ts'

const SETTINGS = { FSYNC: 'commit', MAX_STORE_BYTES: 1024 ** 3 } as const

t.test('the broker on disk', async t => {
  conforms(t, async (t, settings) => {
    const clock = new HeldClock()
    const folder = t.testdir()
    const open = () => DiskBroker.open(folder, { ...SETTINGS, ...settings }, clock)
    return {
      broker: await open(),
      keeps: true,
      restart: open,
      pass: ms => clock.advance(ms),
      stepBack: ms => clock.stepBack(ms),
      isHeld: true
    }
  })
})
