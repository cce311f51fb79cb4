import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import type { Test } from 'tap'
import type { Address } from './app.ts'
import { reset } from './reset.ts'

/** A TCP proxy before a server, which can lose connections as a network does. */
export interface Proxy extends Address {
  /** How many connections were opened through it. */
  readonly opened: () => number
  /** Cuts every connection now, and holds new ones until `restore`. */
  cut(): void
  /** Lets the held ones, and all that come, through. */
  restore(): void
}

export async function startProxy(t: Test, target: Pick<Address, 'port'>): Promise<Proxy> {
  const pairs = new Set<readonly [Socket, Socket]>()
  const held = new Set<Socket>()
  let holding = false
  let opened = 0

  function join(client: Socket): void {
    const upstream = connect({ host: '127.0.0.1', port: target.port })
    const pair = [client, upstream] as const
    pairs.add(pair)
    for (const [one, other] of [pair, [upstream, client] as const]) {
      one.on('error', () => {})
      one.on('close', () => {
        other.destroy()
        pairs.delete(pair)
      })
      one.pipe(other)
    }
  }

  function cutAll(): void {
    for (const [client, upstream] of [...pairs]) {
      reset(client)
      upstream.destroy()
    }
  }

  const server = createServer({ pauseOnConnect: true }, client => {
    opened++
    client.on('error', () => {})
    if (!holding) return join(client)
    held.add(client)
    client.on('close', () => held.delete(client))
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    cutAll()
    for (const client of held) client.destroy()
    server.close()
  })

  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    opened: () => opened,
    cut() {
      holding = true
      cutAll()
    },
    restore() {
      holding = false
      for (const client of held) join(client)
      held.clear()
    }
  }
}
