import t from 'tap'
import { startCluster } from '../support/redis-server.ts'
import { subjectsOn } from '../support/redis-subject.ts'
import { conforms } from './conformance.ts'

t.test('a Cluster of three', async t => {
  const cluster = await startCluster()
  t.teardown(() => cluster.stop())
  for (const SHARDS of ['1', '3']) {
    t.test(`SHARDS=${SHARDS}`, async t => conforms(t, subjectsOn(cluster.url, cluster.nodes[0]!, { SHARDS })))
  }
})
