import type { RedisOptions } from 'ioredis'

/** A `REDIS_URL` that can't be understood. */
export class RedisUrlError extends Error {
  override name = 'RedisUrlError'
}

type Options = Omit<RedisOptions, 'replyMapping'>

/** Where Redis is, as `REDIS_URL` says it. */
export type RedisTarget =
  | { readonly kind: 'single' | 'sentinel'; readonly options: Options }
  | { readonly kind: 'cluster'; readonly nodes: { host: string; port: number }[]; readonly options: Options }

/**
 * Reads `redis://[user:password@]host[:port][/db]` (`rediss://` for TLS), the same with several hosts for a Cluster,
 * `redis+sentinel://…host:port,host:port/name[/db]` (`rediss+sentinel://`), or `unix:///path/to/socket[?db=n]`.
 * Throws a `RedisUrlError`.
 */
export function readRedisUrl(text: string): RedisTarget {
  // the part between // and the path may name several hosts, which no URL parser takes
  const match =
    /^(redis|rediss|redis\+sentinel|rediss\+sentinel|unix):\/\/(?:([^@/]*)@)?([^/?]*)(\/[^?]*)?(?:\?(.*))?$/.exec(
      text
    )
  if (!match) throw new RedisUrlError('is not redis://, rediss://, redis+sentinel:// or unix://')
  const [, scheme, login = '', hosts = '', path = '', query = ''] = match
  const [username = '', password = ''] = login.includes(':') ? splitOnce(login, ':') : ['', login]
  const options: Options = {
    ...(username && { username: decodeURIComponent(username) }),
    ...(password && { password: decodeURIComponent(password) }),
    ...(scheme!.startsWith('rediss') && { tls: {} })
  }
  if (scheme === 'unix') {
    return {
      kind: 'single',
      options: { ...options, path, db: database(new URLSearchParams(query).get('db') ?? '0') }
    }
  }
  if (hosts === '') throw new RedisUrlError('names no host')
  const segments = path.split('/').filter(Boolean)
  if (scheme!.endsWith('+sentinel')) {
    const [name, db = '0'] = segments
    if (!name) throw new RedisUrlError('names no master: redis+sentinel://host:26379/name')
    const sentinels = hosts.split(',').map(host => address(host, 26379))
    return { kind: 'sentinel', options: { ...options, sentinels, name, db: database(db) } }
  }
  const nodes = hosts.split(',').map(host => address(host, 6379))
  if (nodes.length > 1) return { kind: 'cluster', nodes, options }
  return { kind: 'single', options: { ...options, ...nodes[0]!, db: database(segments[0] ?? '0') } }
}

function address(text: string, port: number): { host: string; port: number } {
  const match = /^(\[[^\]]+\]|[^:]+)(?::(\d{1,5}))?$/.exec(text)
  if (!match) throw new RedisUrlError(`has no host and port in ${JSON.stringify(text)}`)
  return { host: match[1]!.replace(/^\[|\]$/g, ''), port: match[2] === undefined ? port : Number(match[2]) }
}

function database(text: string): number {
  if (!/^\d{1,5}$/.test(text))
    throw new RedisUrlError(`has no number of a database in ${JSON.stringify(text)}`)
  return Number(text)
}

function splitOnce(text: string, separator: string): [string, string] {
  const index = text.indexOf(separator)
  return [text.slice(0, index), text.slice(index + 1)]
}
