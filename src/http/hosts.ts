import type { FastifyInstance, FastifyRequest } from 'fastify'
import ipaddr from 'ipaddr.js'
import { Problem, wrong } from '../problem.ts'

/** Refuses a request that says more than once which host it asks: what stands before us may have taken another one. */
export function refuseSecondHost(app: FastifyInstance): void {
  app.addHook('onRequest', (request, _reply, done) => {
    done(countHosts(request) > 1 ? wrong('malformed', 'Host', 'it is given more than once') : undefined)
  })
}

/** RFC 9112, section 3.2. What Node gives by name is the first of them. */
function countHosts({ raw: { rawHeaders } }: FastifyRequest): number {
  let count = 0
  // names and values by turns
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index]!
    if (name.length === 4 && name.toLowerCase() === 'host') count++
  }
  return count
}

/**
 * Answers on loopback only who asks for a host of loopback: `localhost`, 127.0.0.0/8 or `[::1]`. In development mode
 * everyone may do everything, and a page from anywhere can make a name of its own lead to 127.0.0.1 (DNS rebinding). Its
 * browser then takes the server for the page's own origin; but it still says that name in `Host`.
 */
export function answerLoopbackHosts(app: FastifyInstance): void {
  app.addHook('onRequest', (request, _reply, done) => {
    const host = hostOf(request)
    // who names none speaks HTTP/1.0, as no browser does
    if (host === undefined || isLoopback(host)) return done()
    const { localAddress } = request.socket
    done(localAddress && isLoopback(localAddress) ? misdirected(host) : undefined)
  })
}

function misdirected(host: string): Problem {
  return new Problem(
    'misdirected',
    `Host: ${JSON.stringify(host)}: without a key the server answers localhost, 127.0.0.1 and [::1] alone on this machine`
  )
}

/** As the client said it, whatever a proxy that is trusted says besides; without its port. */
function hostOf({ headers }: FastifyRequest): string | undefined {
  const host = headers.host ?? (headers[':authority'] as string | undefined)
  return host?.replace(/:\d*$/, '')
}

function isLoopback(host: string): boolean {
  if (host === 'localhost' || host === '127.0.0.1') return true
  const name = host.replace(/^\[(.*)\]$/, '$1').toLowerCase()
  if (name === 'localhost') return true
  return ipaddr.isValid(name) && ipaddr.process(name).range() === 'loopback'
}
