import { readFileSync } from 'node:fs'
import type { KeyObject } from 'node:crypto'
import { ConfigError } from '../config.ts'

/** EdDSA, and its name of today (RFC 9864, section 2.2). */
export const EDDSA = ['EdDSA', 'Ed25519']

const KINDS = 'RSA of 2048 bits or more, P-256 or Ed25519'

/** Which algorithms a key is for: no more than its kind allows. Undefined for a key that is for none. */
function algorithmsOf({ asymmetricKeyType, asymmetricKeyDetails = {} }: KeyObject): string[] | undefined {
  const { modulusLength = 0, namedCurve } = asymmetricKeyDetails
  // RFC 7518, section 3.3: 2048 bits or more
  if (asymmetricKeyType === 'rsa' && modulusLength >= 2048) return ['RS256']
  if (asymmetricKeyType === 'ec' && namedCurve === 'prime256v1') return ['ES256']
  return asymmetricKeyType === 'ed25519' ? EDDSA : undefined
}

/** The text of a file. Throws a `ConfigError` that begins with `name`. */
export function readFile(name: string, path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new ConfigError(`${name}: can't be read: ${(error as Error).message}`)
  }
}

/** A key as `read` reads it. Throws a `ConfigError` that begins with `name`, and never says what was read. */
export function readKey(name: string, read: () => KeyObject): KeyObject {
  try {
    return read()
  } catch {
    throw new ConfigError(`${name}: has no such key in PEM; it must be ${KINDS}`)
  }
}

/** The algorithms that a key is for. Throws a `ConfigError` that begins with `name` for a kind of key that is not taken. */
export function algorithmsFor(name: string, key: KeyObject): string[] {
  const algorithms = algorithmsOf(key)
  if (algorithms) return algorithms
  throw new ConfigError(`${name}: a key of this kind is not taken; it must be ${KINDS}`)
}
