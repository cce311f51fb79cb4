import { createPublicKey, type KeyObject } from 'node:crypto'
import type { CryptoKey, JWTVerifyGetKey } from 'jose'
import type { Clock } from '../clock.ts'
import { ConfigError, type Settings } from '../config.ts'
import { algorithmsFor, readFile, readKey } from './pem.ts'
import { RemoteKeys, type Logger } from './remote-keys.ts'

/** A key and what it may check: one is never taken for the algorithm of another kind (RFC 8725, section 3.1). */
export interface Key {
  readonly algorithms: readonly string[]
  readonly key: Uint8Array | KeyObject | JWTVerifyGetKey<CryptoKey>
}

/**
 * The keys that are configured. Begins to fetch those that have a URL: `changed` is called whenever they may be others.
 * Throws a `ConfigError`.
 */
export function readKeys(
  { JWT_SECRET, JWT_PUBLIC_KEY, JWKS_URL }: Pick<Settings, 'JWT_SECRET' | 'JWT_PUBLIC_KEY' | 'JWKS_URL'>,
  clock: Clock,
  changed: () => void,
  logger: Logger
): Key[] {
  return [
    ...(JWT_SECRET ? [{ algorithms: ['HS256'], key: new TextEncoder().encode(JWT_SECRET) }] : []),
    ...(JWT_PUBLIC_KEY ? [readPublicKey(JWT_PUBLIC_KEY)] : []),
    ...(JWKS_URL ? [new RemoteKeys(readUrl(JWKS_URL), clock, changed, logger)] : [])
  ]
}

function readPublicKey(setting: string): Key {
  const isText = setting.includes('-----BEGIN ')
  const name = isText ? 'JWT_PUBLIC_KEY' : `JWT_PUBLIC_KEY=${setting}`
  const pem = isText ? unescape(setting) : readFile(name, setting)
  if (/-----BEGIN [A-Z ]*PRIVATE KEY/.test(pem))
    throw new ConfigError(`${name}: is a private key; the server needs the public one`)
  const key = readKey(name, () => createPublicKey(pem))
  return { key, algorithms: algorithmsFor(name, key) }
}

/** An environment variable may have its line ends written out. */
function unescape(pem: string): string {
  return pem.replaceAll('\\n', '\n')
}

function readUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url && url.username === '' && url.password === '') return url
  throw new ConfigError('JWKS_URL: not allowed; it must be an https or http URL without a user')
}
