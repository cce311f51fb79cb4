import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { reset } from './reset.ts'
import type { Test } from 'tap'

/** A TCP proxy before a Redis, which can be slow or dead in the ways that a network is. */
export interface RedisProxy {
  readonly url: string
  /** How many connections were opened through it. */
  readonly opened: () => number
  /** How many bytes came from the server on connections that subscribe. */
  readonly announced: () => number
  /** How many ticks came from the server. */
  readonly ticks: () => number
  /** Keeps back what the server sends on connections that subscribe, those of now and those to come. */
  holdAnnouncements(): void
  /** Passes on what was kept back, in order. */
  releaseAnnouncements(): void
  /** Keeps back what the server sends on connections of now that don't subscribe. */
  holdAnswers(): void
  /** The same, as soon as a connection subscribes. */
  holdAnswersOnceSubscribed(): void
  releaseAnswers(): void
  /** From now on no connection, of now or to come, carries anything in either direction, nor tells that it is dead. */
  blackHole(): void
  /** New connections work again; those that are dead stay dead. */
  heal(): void
  /** Has the server say something else than it does, of as many bytes; null: as it is. */
  rewrite(words: readonly [string, string] | null): void
  /** Cuts every connection. */
  cut(): void
}

interface Pair {
  readonly client: Socket
  readonly server: Socket
  subscribes: boolean
  dead: boolean
  answersHeld: boolean
  held: Buffer[]
}

export async function startRedisProxy(t: Test, port: number): Promise<RedisProxy> {
  const pairs = new Set<Pair>()
  let holding = false
  let dead = false
  let opened = 0
  let announced = 0
  let ticks = 0
  let holdsOnceSubscribed = false
  let rewriting: readonly [string, string] | null = null

  const rewritten = (chunk: Buffer) =>
    rewriting ? Buffer.from(chunk.toString('latin1').replaceAll(...rewriting), 'latin1') : chunk

  const holdAnswers = () => {
    for (const pair of pairs) pair.answersHeld = true
  }
  const isHeld = (pair: Pair) => (pair.subscribes ? holding : pair.answersHeld)

  const proxy = createServer(client => {
    const server = connect({ host: '127.0.0.1', port })
    const pair: Pair = { client, server, subscribes: false, dead, answersHeld: false, held: [] }
    pairs.add(pair)
    opened++
    client.on('data', (chunk: Buffer) => {
      if (/\r\ns?subscribe\r\n/i.test(chunk.toString('latin1'))) {
        pair.subscribes = true
        if (holdsOnceSubscribed) holdAnswers()
      }
      if (!pair.dead) server.write(chunk)
    })
    server.on('data', (answer: Buffer) => {
      const chunk = rewritten(answer)
      if (pair.subscribes) announced += chunk.length
      if (pair.subscribes && /message\r\n[^\n]*\n[^\r]*:i:/.test(chunk.toString('latin1'))) ticks++
      if (isHeld(pair)) pair.held.push(chunk)
      else if (!pair.dead) client.write(chunk)
    })
    for (const [socket, other] of [[client, server] as const, [server, client] as const]) {
      socket.on('error', () => {}) // 'close' follows
      socket.on('close', () => {
        pairs.delete(pair)
        if (!pair.dead || socket === client) other.destroy()
      })
    }
  })
  await new Promise<void>(resolve => proxy.listen(0, '127.0.0.1', resolve))

  const passOn = () => {
    for (const pair of pairs) {
      if (isHeld(pair)) continue
      for (const chunk of pair.held.splice(0)) if (!pair.dead) pair.client.write(chunk)
    }
  }
  const cut = () => {
    for (const { client, server } of [...pairs]) {
      reset(client)
      server.destroy()
    }
  }
  t.teardown(() => {
    cut()
    proxy.close()
  })
  return {
    url: `redis://127.0.0.1:${(proxy.address() as AddressInfo).port}`,
    opened: () => opened,
    announced: () => announced,
    ticks: () => ticks,
    holdAnnouncements: () => void (holding = true),
    releaseAnnouncements() {
      holding = false
      passOn()
    },
    holdAnswers,
    holdAnswersOnceSubscribed: () => void (holdsOnceSubscribed = true),
    releaseAnswers() {
      holdsOnceSubscribed = false
      for (const pair of pairs) pair.answersHeld = false
      passOn()
    },
    blackHole() {
      dead = true
      for (const pair of pairs) pair.dead = true
    },
    heal: () => void (dead = false),
    rewrite: words => void (rewriting = words),
    cut
  }
}
