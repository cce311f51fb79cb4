import calculateSlot from 'cluster-key-slot'
import t from 'tap'
import { hashTag } from '../../src/broker/redis/sharding.ts'
import { readRedisUrl, redisTarget } from '../../src/broker/redis/url.ts'
import { ConfigError, readSettings } from '../../src/config.ts'
import { makeCertificate } from '../support/certificate.ts'

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
    'valkey://h': { kind: 'single', options: { host: 'h', port: 6379, db: 0 } },
    'valkeys://h/1': { kind: 'single', options: { host: 'h', port: 6379, db: 1, tls: {} } },
    'REDIS://h': { kind: 'single', options: { host: 'h', port: 6379, db: 0 } },
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
    'rediss+sentinel://a/main': {
      kind: 'sentinel',
      options: { name: 'main', tls: {}, sentinelTLS: {}, enableTLSForSentinelMode: true, db: 0 }
    },
    'valkeys+sentinel://a/main': { kind: 'sentinel', options: { name: 'main', sentinelTLS: {} } },
    'unix:///run/a@b.sock': { kind: 'single', options: { path: '/run/a@b.sock', db: 0 } },
    'unix:///run/redis.sock': { kind: 'single', options: { path: '/run/redis.sock', db: 0 } },
    'unix://app:pw@/run/redis.sock?db=4': {
      kind: 'single',
      options: { path: '/run/redis.sock', db: 4, username: 'app', password: 'pw' }
    }
  }
  for (const [url, target] of Object.entries(read)) t.match(readRedisUrl(url), target, url)

  const wrong = {
    'http://h': /begins with no scheme that is known/,
    'localhost:6379': /begins with no scheme that is known/,
    'redis:/h': /begins with no scheme that is known/,
    'redis://h\n': /has white space/,
    'redis://': /names no host/,
    'redis://:secret@': /names no host/,
    'unix://': /names no socket/,
    'unix://run/redis.sock': /names no socket/,
    'redis+sentinel://a:1': /names no master/,
    'redis+sentinel://a:1/main/0/1': /more than a master and a database/,
    'redis://h:port': /has a host that is not/,
    'redis://user:secret': /has a host that is not/,
    'redis://a,,b': /has a host that is not/,
    'redis://::1': /has a host that is not/,
    'redis://h:0': /has a port that is not from 1 to 65535/,
    'redis://h:99999': /has a port that is not from 1 to 65535/,
    'redis://a,b:65536': /has a port that is not from 1 to 65535/,
    'redis://h/x': /has a database that is not a number/,
    'redis://h/0/1': /has more than a database/,
    'redis://a,b/1': /a Cluster has no other/,
    'redis://h?db=1': /has a part behind \? or #/,
    'unix:///s?db=-1': /has a database that is not a number/,
    'redis://:100%@h': /not percent-encoded: write %25 for %/,
    'redis://:secret%zz@h': /not percent-encoded: write %25 for %/,
    'redis://:p@ss:w@h': /not percent-encoded: write %40 for @/,
    'redis://:secret/1@h': /not percent-encoded: write %40 for @ and %2F for \//
  }
  for (const [url, message] of Object.entries(wrong)) {
    t.throws(() => readRedisUrl(url), { name: ConfigError.name, message }, url)
    t.throws(() => readRedisUrl(url), { message: /^REDIS_URL: [^\n]*$/ }, 'a line that names the setting')
    t.throws(() => readRedisUrl(url), { message: /^(?!.*(secret|100|ss:w|p@))/ }, 'without the password')
  }
})

t.test('what a REDIS_URL can not say', async t => {
  const { TLS_CERT, TLS_KEY } = makeCertificate(t.testdir({ empty: '' }))
  const target = (env: Record<string, string>) => redisTarget(readSettings(env))
  const tls = { REDIS_TLS_CA: TLS_CERT, REDIS_TLS_CERT: TLS_CERT, REDIS_TLS_KEY: TLS_KEY }
  const ca = { REDIS_TLS_CA: TLS_CERT }
  const files = { ca: Buffer, cert: Buffer, key: Buffer }
  t.match(target({ REDIS_URL: 'rediss://h', ...tls }), { options: { tls: files } })
  t.match(target({ REDIS_URL: 'rediss://a,b', ...tls }), { kind: 'cluster', options: { tls: files } })
  t.match(target({ REDIS_URL: 'rediss+sentinel://h/main', ...ca, REDIS_SENTINEL_PASSWORD: 'pw' }), {
    options: { tls: { ca: Buffer }, sentinelTLS: { ca: Buffer }, sentinelPassword: 'pw' }
  })

  const wrong: [env: Record<string, string>, message: RegExp][] = [
    [{ REDIS_URL: 'redis://h', ...ca }, /^REDIS_TLS_CA: REDIS_URL asks for no TLS/],
    [ca, /^REDIS_TLS_CA: there is no Redis/],
    [{ REDIS_URL: 'rediss://h', REDIS_TLS_CERT: TLS_CERT }, /^REDIS_TLS_CERT and REDIS_TLS_KEY: one/],
    [{ REDIS_URL: 'rediss://h', REDIS_TLS_CA: '/nowhere' }, /^REDIS_TLS_CA=\/nowhere: can't be read/],
    [{ REDIS_URL: 'rediss://h', REDIS_TLS_CA: `${t.testdirName}/empty` }, /^REDIS_TLS_CA=.*has no PEM/],
    [{ REDIS_URL: 'rediss://h', ...tls, REDIS_TLS_KEY: TLS_CERT }, /REDIS_TLS_KEY=.*not what TLS takes/],
    [{ REDIS_URL: 'redis://h', REDIS_SENTINEL_PASSWORD: 'pw' }, /^REDIS_SENTINEL_PASSWORD: .* no Sentinels/]
  ]
  for (const [env, message] of wrong)
    t.throws(() => target(env), { name: ConfigError.name, message }, String(message))
})

t.test('the shards of a Cluster divide its slots evenly', async t => {
  for (let shards = 1; shards <= 8; shards++) {
    const tags = Array.from({ length: shards }, (_, shard) => hashTag(shard, shards))
    t.equal(new Set(tags).size, shards)
    const parts = tags.map(tag => Math.floor((calculateSlot(tag) * shards) / 16_384))
    if (shards > 1) t.strictSame(parts, [...tags.keys()])
  }
})
