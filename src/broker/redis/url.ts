import { readFileSync } from 'node:fs'
import { createSecureContext, type SecureContextOptions } from 'node:tls'
import type { RedisOptions } from 'ioredis'
import { ConfigError, type Settings } from '../../config.ts'

type Options = Omit<RedisOptions, 'replyMapping'>

interface Address {
  readonly host: string
  readonly port: number
}

/** Where Redis is, and how to connect to it. */
export type RedisTarget =
  | { readonly kind: 'single' | 'sentinel'; readonly options: Options }
  | { readonly kind: 'cluster'; readonly nodes: Address[]; readonly options: Options }

type RedisSettings = Pick<
  Settings,
  'REDIS_URL' | 'REDIS_TLS_CA' | 'REDIS_TLS_CERT' | 'REDIS_TLS_KEY' | 'REDIS_SENTINEL_PASSWORD'
>

const TLS_FILES = ['REDIS_TLS_CA', 'REDIS_TLS_CERT', 'REDIS_TLS_KEY'] as const

/** Where the settings say that Redis is. Throws a `ConfigError`. */
export function redisTarget(settings: RedisSettings): RedisTarget {
  const target = readRedisUrl(settings.REDIS_URL)
  const file = TLS_FILES.find(name => settings[name] !== '')
  if (file && !target.options.tls)
    throw new ConfigError(`${file}: REDIS_URL asks for no TLS; it begins with rediss:// where it does`)
  if (settings.REDIS_SENTINEL_PASSWORD && target.kind !== 'sentinel')
    throw new ConfigError(
      'REDIS_SENTINEL_PASSWORD: REDIS_URL names no Sentinels; it begins with redis+sentinel:// where it does'
    )
  return {
    ...target,
    options: {
      ...target.options,
      ...(file && tlsOptions(target.kind, readTlsFiles(settings))),
      ...(settings.REDIS_SENTINEL_PASSWORD && { sentinelPassword: settings.REDIS_SENTINEL_PASSWORD })
    }
  }
}

/**
 * Reads `redis://[user:password@]host[:port][/db]` (`rediss://` for TLS), the same with several hosts for a Cluster,
 * `redis+sentinel://…host:port,host:port/name[/db]` (`rediss+sentinel://`), or `unix:///path/to/socket[?db=n]`. `valkey`
 * is another word for `redis`. Throws a `ConfigError` that repeats nothing of the URL: any part may be of the password.
 */
export function readRedisUrl(text: string): RedisTarget {
  const [, scheme, rest] = /^([a-z+]+):\/\/(\S*)$/i.exec(text) ?? []
  const match = /^(?:(?:redis|valkey)(s?)(\+sentinel)?|unix)$/i.exec(scheme ?? '')
  if (!match)
    throw wrong(/\s/.test(text) ? 'has white space in it' : 'begins with no scheme that is known here')
  if (match[0].toLowerCase() === 'unix') return socketTarget(rest!)
  const { login, place } = splitLogin(rest!)
  const options: Options = { ...loginOptions(login), ...(match[1] && { tls: {} }) }
  const { hosts, segments } = readPlace(place)
  if (match[2]) return sentinelTarget(hosts, segments, options)
  if (segments.length > 1) throw wrong('has more than a database behind the hosts')
  const nodes = addresses(hosts, 6379)
  const db = database(segments[0] ?? '0')
  if (nodes.length === 1) return { kind: 'single', options: { ...options, ...nodes[0]!, db } }
  if (db !== 0) throw wrong('names a database other than 0, and a Cluster has no other')
  return { kind: 'cluster', nodes, options }
}

/** The Cluster that a single server turned out to be a node of. Throws an `Error` where it can't be reached as one. */
export function clusterOf(target: RedisTarget): RedisTarget {
  const { host, port, path, db, ...options } = target.options
  if (path !== undefined || host === undefined || port === undefined)
    throw new Error('is a node of a Cluster, whose other nodes no socket leads to; give REDIS_URL a host')
  if (db) throw new Error(`is a Cluster, which has no database ${db}`)
  return { kind: 'cluster', nodes: [{ host, port }], options }
}

function socketTarget(rest: string): RedisTarget {
  const [, login = '', path, query] = /^(?:([^/]*)@)?(\/[^?]*)(?:\?(.*))?$/.exec(rest) ?? []
  if (!path) throw wrong('names no socket')
  const db = database(new URLSearchParams(query).get('db') ?? '0')
  return { kind: 'single', options: { ...loginOptions(login), path, db } }
}

function sentinelTarget(hosts: string, [name, db = '0', ...more]: string[], options: Options): RedisTarget {
  if (!name) throw wrong('names no master behind the Sentinels')
  if (more.length > 0) throw wrong('has more than a master and a database behind the Sentinels')
  const sentinels = addresses(hosts, 26379)
  const tls = options.tls && tlsOptions('sentinel', options.tls)
  return { kind: 'sentinel', options: { ...options, ...tls, sentinels, name, db: database(db) } }
}

function tlsOptions(kind: RedisTarget['kind'], tls: SecureContextOptions): Options {
  // to Sentinels, and to the primary that they name, ioredis speaks no TLS unless it is told so
  return kind === 'sentinel' ? { tls, sentinelTLS: tls, enableTLSForSentinelMode: true } : { tls }
}

/** The last @ ends who logs in: one that is a part of the password has to be encoded, as a slash has. */
function splitLogin(rest: string): { login: string; place: string } {
  const end = rest.lastIndexOf('@')
  const login = rest.slice(0, Math.max(end, 0))
  if (/[@/]/.test(login))
    throw wrong('has a user or password that is not percent-encoded: write %40 for @ and %2F for /')
  return { login, place: rest.slice(end + 1) }
}

function loginOptions(login: string): Options {
  const colon = login.indexOf(':')
  const [username, password] = colon < 0 ? ['', login] : [login.slice(0, colon), login.slice(colon + 1)]
  return {
    ...(username && { username: decoded(username) }),
    ...(password && { password: decoded(password) })
  }
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw wrong('has a user or password that is not percent-encoded: write %25 for %')
  }
}

function readPlace(place: string): { hosts: string; segments: string[] } {
  const [, hosts, path = ''] = /^([^/?#]*)(\/[^?#]*)?$/.exec(place) ?? []
  if (hosts === undefined) throw wrong('has a part behind ? or #, which means nothing here')
  if (hosts === '') throw wrong('names no host')
  return { hosts, segments: path.split('/').filter(Boolean) }
}

function addresses(hosts: string, port: number): Address[] {
  return hosts.split(',').map(text => address(text, port))
}

function address(text: string, fallback: number): Address {
  const [, bracketed, name, digits] = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::(\d{1,5}))?$/.exec(text) ?? []
  const host = bracketed ?? name
  if (host === undefined)
    throw wrong('has a host that is not host, host:port or [address]:port (a password ends with @)')
  const port = digits === undefined ? fallback : Number(digits)
  if (port < 1 || port > 65_535) throw wrong('has a port that is not from 1 to 65535')
  return { host, port }
}

function database(text: string): number {
  if (!/^\d{1,5}$/.test(text)) throw wrong('has a database that is not a number')
  return Number(text)
}

/** `what` must not repeat anything of the URL. */
function wrong(what: string): ConfigError {
  return new ConfigError(
    `REDIS_URL: ${what}; it must be redis://[user:password@]host[:port][/database], rediss:// for TLS, ` +
      'redis://host,host,… (Cluster), redis+sentinel://host,…/name or unix:///socket'
  )
}

/** Throws a `ConfigError` unless there are the files, and they go together. */
function readTlsFiles(settings: RedisSettings): SecureContextOptions {
  const { REDIS_TLS_CA, REDIS_TLS_CERT, REDIS_TLS_KEY } = settings
  if (Boolean(REDIS_TLS_CERT) !== Boolean(REDIS_TLS_KEY))
    throw new ConfigError('REDIS_TLS_CERT and REDIS_TLS_KEY: one is set without the other; both are needed')
  const files = {
    ...(REDIS_TLS_CA && { ca: pem('REDIS_TLS_CA', REDIS_TLS_CA) }),
    ...(REDIS_TLS_CERT && { cert: pem('REDIS_TLS_CERT', REDIS_TLS_CERT) }),
    ...(REDIS_TLS_KEY && { key: pem('REDIS_TLS_KEY', REDIS_TLS_KEY) })
  }
  try {
    createSecureContext(files)
  } catch (error) {
    const names = TLS_FILES.filter(name => settings[name]).map(name => `${name}=${settings[name]}`)
    throw new ConfigError(`${names.join(', ')}: not what TLS takes (PEM): ${(error as Error).message}`)
  }
  return files
}

function pem(name: string, file: string): Buffer {
  let text
  try {
    text = readFileSync(file)
  } catch (error) {
    throw new ConfigError(`${name}=${file}: can't be read: ${(error as Error).message}`)
  }
  // Node takes a CA without any certificate in it, and then trusts nobody
  if (!text.includes('-----BEGIN ')) throw new ConfigError(`${name}=${file}: has no PEM in it`)
  return text
}
