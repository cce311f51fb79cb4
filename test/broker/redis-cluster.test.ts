import t from 'tap'
import { startCluster } from '../support/redis-server.ts'
import { subjectsOn } from '../support/redis-subject.ts'
import { conforms } from './conformance/broker.ts'

t.test('a Cluster of three, a shard on each', async t => {
  const cluster = await startCluster()
  t.teardown(() => cluster.stop())
  conforms(t, subjectsOn(cluster.url, cluster.nodes[0]!, { SHARDS: '3' }))
})
