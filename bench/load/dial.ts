import { connect, type Socket, type TcpNetConnectOpts } from 'node:net'
import { connect as connectTls } from 'node:tls'

/** How a peer is spoken to: HTTP/1.1 in the clear or over TLS, or HTTP/2 over TLS. */
export type Transport = 'plain' | 'tls' | 'http2'

/** Connects to a server on this machine, whatever its certificate. Small packets aren't held back. */
export function dial(transport: Transport, options: TcpNetConnectOpts): Socket {
  const where = { host: '127.0.0.1', noDelay: true, ...options }
  if (transport === 'plain') return connect(where)
  const ALPNProtocols = [transport === 'http2' ? 'h2' : 'http/1.1']
  return connectTls({ ...where, ALPNProtocols, rejectUnauthorized: false }).setNoDelay()
}
