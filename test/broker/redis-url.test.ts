import calculateSlot from 'cluster-key-slot'
import t from 'tap'
import { hashTag } from '../../src/broker/redis/sharding.ts'
import { readRedisUrl, RedisUrlError } from '../../src/broker/redis/url.ts'

t.test('REDIS_URL', async t => {
  const read: Record<string, object> = {
    'redis://localhost': { kind: 'single', options: { host: 'localhost', port: 6379, db: 0 } },
    'redis://localhost/': { kind: 'single', options: { host: 'localhost', port: 6379, db: 0 } },
    'redis://10.0.0.1:7000/3': { kind: 'single', options: { host: '10.0.0.1', port: 7000, db: 3 } },
    'redis://[::1]:7000': { kind: 'single', options: { host: '::1', port: 7000, db: 0 } },
    'redis://:s%40%3A%2F@h': { kind: 'single', options: { host: 'h', port: 6379, db: 0, password: 's@:/' } },
    'redis://secret@h': { kind: 'single', options: { host: 'h', port: 6379, db: 0, password: 'secret' } },
    'redis://app:a:b@h': {
      kind: 'single',
      options: { host: 'h', port: 6379, db: 0, username: 'app', password: 'a:b' }
    },
    'rediss://h:1': { kind: 'single', options: { host: 'h', port: 1, db: 0, tls: {} } },
    'redis://a,b:7001': {
      kind: 'cluster',
      nodes: [
        { host: 'a', port: 6379 },
        { host: 'b', port: 7001 }
      ],
      options: {}
    },
    'redis+sentinel://:pw@a,b:26380/main/2': {
      kind: 'sentinel',
      options: {
        sentinels: [
          { host: 'a', port: 26379 },
          { host: 'b', port: 26380 }
        ],
        name: 'main',
        db: 2,
        password: 'pw'
      }
    },
    'rediss+sentinel://a/main': { kind: 'sentinel', options: { name: 'main', tls: {}, db: 0 } },
    'unix:///run/redis.sock': { kind: 'single', options: { path: '/run/redis.sock', db: 0 } },
    'unix://app:pw@/run/redis.sock?db=4': {
      kind: 'single',
      options: { path: '/run/redis.sock', db: 4, username: 'app', password: 'pw' }
    }
  }
  for (const [url, target] of Object.entries(read)) t.match(readRedisUrl(url), target, url)

  const wrong = {
    'http://h': /is not redis:/,
    'localhost:6379': /is not redis:/,
    'redis://': /names no host/,
    'redis+sentinel://a:1': /names no master/,
    'redis://h:port': /has no host and port in "h:port"/,
    'redis://a,,b': /has no host and port in ""/,
    'redis://h/x': /has no number of a database in "x"/,
    'unix:///s?db=-1': /has no number of a database in "-1"/
  }
  for (const [url, message] of Object.entries(wrong))
    t.throws(() => readRedisUrl(url), { name: RedisUrlError.name, message }, url)
})

t.test('the shards of a Cluster divide its slots evenly', async t => {
  for (let shards = 1; shards <= 8; shards++) {
    const tags = Array.from({ length: shards }, (_, shard) => hashTag(shard, shards))
    t.equal(new Set(tags).size, shards)
    const parts = tags.map(tag => Math.floor((calculateSlot(tag) * shards) / 16_384))
    if (shards > 1) t.strictSame(parts, [...tags.keys()])
  }
})
