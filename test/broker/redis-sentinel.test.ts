import t from 'tap'
import { startSentinel } from '../support/redis-server.ts'
import { subjectsOn } from '../support/redis-subject.ts'
import { conforms } from './conformance/broker.ts'

t.test('a master that Sentinels watch', async t => {
  const setup = await startSentinel()
  t.teardown(() => setup.stop())
  conforms(t, subjectsOn(setup.url, await setup.master(), { WAIT_REPLICAS: '1' }))
})
