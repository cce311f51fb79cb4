import { isIP } from 'node:net'
import { compile as compileProxies } from '@fastify/proxy-addr'
import { ConfigError, hasKeys, type Settings } from '../config.ts'
import { siteOf } from '../net/address.ts'

/** Throws a `ConfigError` where everyone who reaches the address could do everything, and nobody has asked for that. */
export function requireLoopback(settings: Settings): void {
  const { HOST, INSECURE } = settings
  const loopback = HOST === 'localhost' || HOST === '::1' || (isIP(HOST) === 4 && HOST.startsWith('127.'))
  if (loopback || INSECURE || hasKeys(settings)) return
  throw new ConfigError(
    `HOST=${HOST}: without a key everyone may do everything, so only a loopback address is allowed; set JWT_SECRET, JWT_PUBLIC_KEY or JWKS_URL; INSECURE=true overrides it`
  )
}

/** The proxies that are believed about who asks, as Fastify takes them. Throws a `ConfigError`. */
export function trustedProxies(text: string): boolean | string[] {
  if (text === 'true' || text === 'false') return text === 'true'
  const addresses = text.split(',').map(address => address.trim())
  try {
    // `1`, which elsewhere is a number of proxies, would be taken for 0.0.0.1
    const short = addresses.find(
      address => /^[\d.]+(\/|$)/.test(address) && isIP(address.split('/')[0]!) === 0
    )
    if (short !== undefined) throw new TypeError(`invalid IP address: ${short}`)
    compileProxies(addresses)
  } catch (error) {
    throw new ConfigError(
      `TRUST_PROXY=${text}: it must be true, false or a list of addresses: ${(error as Error).message}`
    )
  }
  return addresses
}

/**
 * Which addresses may have any number of idle sockets: those of proxies that are believed, which stand for many clients,
 * and loopback in development mode.
 */
export function exemptAddresses(settings: Settings): (address: string) => boolean {
  const proxies = trustedProxies(settings.TRUST_PROXY)
  if (proxies === true) return () => true
  const isProxy = proxies ? compileProxies(proxies) : () => false
  const isDevelopment = !hasKeys(settings)
  return address => isProxy(address, 0) || (isDevelopment && siteOf(address).isLoopback)
}
