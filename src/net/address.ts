import ipaddr from 'ipaddr.js'

/** Of how many addresses it is remembered whose they are. */
const MAX_SITES = 1000

/** Who is behind an address. */
export interface Site {
  /** An address of IPv4; of IPv6 the part that a single site is given at least (RFC 6177). */
  readonly name: string
  readonly isLoopback: boolean
}

/** Those of addresses that were asked for lately: to read an address takes a while. */
const sites = new Map<string, Site>()

/** Whose an address is, which must be one. */
export function siteOf(text: string): Site {
  const known = sites.get(text)
  if (known) return known
  // a zone may be more than is read as one, and what is IPv4 in IPv6 is IPv4
  const address = ipaddr.process(text.replace(/%.*$/, ''))
  const name = address instanceof ipaddr.IPv4 ? address.toString() : address.parts.slice(0, 4).join(':')
  const site = { name, isLoopback: address.range() === 'loopback' }
  if (sites.size >= MAX_SITES) sites.clear()
  sites.set(text, site)
  return site
}
