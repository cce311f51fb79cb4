import t from 'tap'
import { startRedis } from '../support/redis-server.ts'
import { subjectsOn } from '../support/redis-subject.ts'
import { conforms } from './conformance/broker.ts'

t.test('one Redis', async t => {
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  conforms(t, subjectsOn(redis.url, redis))
})
