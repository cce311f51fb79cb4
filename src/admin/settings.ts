import type { Settings } from '../config.ts'
import type { Rule } from '../rules/rules.ts'

/** What is in force on an instance: settings by their names, and the rules for topics in their order. No secret is in it. */
export interface InForce {
  readonly settings: Readonly<Record<string, unknown>>
  readonly rules: readonly Rule[]
}

/** Settings of which no more may be told than that they are set: keys, and what opens doors. */
const SECRETS: ReadonlySet<string> = new Set([
  'JWT_SECRET',
  'JWT_PUBLIC_KEY',
  'REDIS_SENTINEL_PASSWORD',
  'REDIS_TLS_CA',
  'REDIS_TLS_CERT',
  'REDIS_TLS_KEY'
] satisfies (keyof Settings)[])

/** What stands for what is not told. */
const HIDDEN = '***'

/** What is in force, without what is secret. */
export function inForce(settings: Settings, rules: readonly Rule[]): InForce {
  const told = Object.entries(settings).map(([name, value]) => [name, toldOf(name, value)])
  return { settings: Object.fromEntries(told) as InForce['settings'], rules }
}

function toldOf(name: string, value: unknown): unknown {
  if (SECRETS.has(name)) return value === '' ? '' : HIDDEN
  return name.endsWith('_URL') && typeof value === 'string' ? withoutSecrets(value) : value
}

/** A URL without the user and password in it, and without its query, which may hold others. */
function withoutSecrets(url: string): string {
  // the last one: a password that was not escaped may have an @ itself
  return url.replace(/(?<=^[^:]*:\/\/).*@/s, `${HIDDEN}@`).replace(/\?.*$/s, `?${HIDDEN}`)
}
