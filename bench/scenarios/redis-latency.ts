import { missingRedis, redisUrl, startRedis } from '../load/redis.ts'
import { audience, drained, during, RINGSIDE, round, type Bench, type Scenario } from '../scenario.ts'
import { halfBusy } from './latency.ts'

export const redisLatency: Scenario = {
  name: 'redis-latency',
  about:
    '1,000 subscribers, one event at a time, so many a second as keep the server’s core half busy on the memory ' +
    'broker: from the publish to the subscriber on the memory broker, and at the same rate through Redis (on the ' +
    'load’s core).',
  peers: RINGSIDE,
  missing: missingRedis,
  columns: [
    { key: 'rate', title: 'events/s' },
    { key: 'memoryP50', title: 'memory: p50, ms', digits: 1 },
    { key: 'memoryP99', title: 'p99, ms', digits: 1 },
    { key: 'memoryLoad', title: 'load, %' },
    { key: 'redisP50', title: 'Redis: p50, ms', digits: 1, per: 'memoryP50' },
    { key: 'redisP99', title: 'p99, ms', digits: 1, per: 'memoryP99' },
    { key: 'redisLoad', title: 'load, %' }
  ],
  async measure(bench) {
    const redis = bench.onStop(await startRedis())
    const memory = await deliver(bench, {})
    const stored = await deliver(bench, { REDIS_URL: redisUrl(redis) }, memory.rate)
    return {
      rate: round(memory.rate),
      memoryP50: memory.p50,
      memoryP99: memory.p99,
      memoryLoad: memory.load,
      redisP50: stored.p50,
      redisP99: stored.p99,
      redisLoad: stored.load
    }
  }
}

async function deliver(bench: Bench, settings: Record<string, string>, atRate?: number) {
  const server = await bench.start(settings)
  const publishers = await bench.publishers(server, 1)
  const subscribers = await audience(bench, server, publishers, bench.size(1000, 200))
  const rate = atRate ?? (await halfBusy(bench, server, publishers, subscribers))
  if (atRate) await publishers.paced(rate, bench.size(4, 0.3)) // until the compiler has seen it
  await drained(subscribers)
  const { cpu, seconds } = await during(server, subscribers, () =>
    publishers.paced(rate, bench.size(10, 0.5))
  )
  const { latency } = subscribers
  const figures = { p50: round(latency.percentile(50), 2), p99: round(latency.percentile(99), 2) }
  await subscribers.close()
  await server.stop()
  return { rate, load: round(cpu / seconds / 1e4), ...figures }
}
