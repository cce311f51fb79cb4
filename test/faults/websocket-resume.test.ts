/** The promise over WebSocket: a client that is cut, sent to other instances, and comes back with its last id. */
import t, { type Test } from 'tap'
import type { TestServer } from '../support/app.ts'
import { startProxy } from '../support/proxy.ts'
import { instances, redisFor, Stream } from '../support/redis-system.ts'
import { connect, type Message, type Protocol, type WsClient } from '../support/websocket.ts'

t.setTimeout(400_000)

/** What a careful client is: it keeps a cursor for each subscription, and comes back with them. */
class Follower {
  readonly got: string[] = []
  readonly gaps: Message[] = []
  connections = 0
  readonly #subscriptions: { topics: string[]; after?: string }[]
  readonly #dial: () => Promise<WsClient>
  readonly #done: Promise<void>
  #client: WsClient | undefined
  #stopped = false

  constructor(topics: readonly string[][], dial: () => Promise<WsClient>) {
    this.#subscriptions = topics.map(each => ({ topics: each }))
    this.#dial = dial
    this.#done = this.#run()
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      const client = await this.#dial().catch(() => null)
      if (!client) continue
      this.connections++
      this.#client = client
      let read = 0
      const take = () => {
        for (const message of client.messages.all.slice(read)) this.#take(message)
        read = client.messages.all.length
      }
      client.ws.on('message', take)
      for (const [ref, subscription] of this.#subscriptions.entries()) {
        client.send({ op: 'subscribe', ref, ...subscription })
      }
      await client.closed
    }
  }

  #take(message: Message): void {
    const { op, ref } = message
    const cursor = (message['cursor'] ?? message['id']) as string | undefined
    if (op === 'error') {
      if (message['code'] !== 'unavailable') throw new Error(JSON.stringify(message))
      return this.cut() // it comes back
    }
    if (op === 'gap') this.gaps.push(message)
    if (op === 'event') this.got.push(`${String(message['topic'])} ${String(message['data'])}`)
    if (cursor === undefined) return
    const covers = (topics: string[]) =>
      op === 'event'
        ? topics.some(
            topic =>
              topic === message['topic'] ||
              topic.replace('*', '') === String(message['topic']).replace(/[^/]*$/, '')
          )
        : op === 'cursor' && String(message['topics']) === String([...topics].sort())
    const own =
      op === 'ok'
        ? this.#subscriptions[ref as number]
        : this.#subscriptions.find(({ topics }) => covers(topics))
    own!.after = cursor
  }

  cut(): void {
    this.#client?.ws.terminate()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.cut()
    await this.#done
  }
}

for (const protocol of ['ringside.v1.json', 'ringside.v1.cbor'] as Protocol[]) {
  t.test(
    `${protocol}: cut again and again, from instance to instance, while Redis drops connections`,
    async t => {
      const redis = await redisFor(t)
      const servers = await instances(t, redis.url, 2, { HEARTBEAT: '100ms', RING_SIZE: '100000' })
      const proxies = await Promise.all(servers.map(server => startProxy(t, server)))
      const topics = ['a', 'b', 'c/1', 'c/2']
      let turn = 0
      const followers = [[['a', 'b', 'c/*']], [['a'], ['c/*'], ['b']]].map(
        each => new Follower(each, () => connect(t, proxies[turn++ % 2]!, { protocols: [protocol] }))
      )
      // not before each knows where it starts
      await Promise.all(followers.map(follower => begun(t, servers, follower)))
      const stream = new Stream(servers, topics)
      for (let round = 0; round < 12; round++) {
        await stream.more(15)
        if (round % 3 === 0) followers[round % 2]!.cut()
        if (round % 3 === 1) {
          proxies[round % 2]!.cut()
          proxies[round % 2]!.restore()
        }
        if (round % 3 === 2) await redis.command('CLIENT', 'KILL', 'TYPE', round % 2 ? 'pubsub' : 'normal')
      }
      await stream.more(15)
      await stream.stop()
      const expected = stream.stored.map(({ topic, data }) => `${topic} ${data}`)
      for (const follower of followers) {
        await waitFor(() => follower.got.includes(expected.at(-1)!) && follower.got.length >= expected.length)
        t.strictSame([...follower.got].sort(), [...expected].sort(), 'each once')
        for (const topic of topics) {
          const of = (all: readonly string[]) => all.filter(each => each.startsWith(`${topic} `))
          t.strictSame(of(follower.got), of(expected), `${topic} in order`)
        }
        t.strictSame(follower.gaps, [])
        t.ok(follower.connections > 3, `over ${follower.connections} connections`)
        await follower.stop()
      }
      t.strictSame(followers[0]!.got, expected, 'one subscription: in order over all topics')
    }
  )
}

/** Resolves when its subscriptions are there. */
async function begun(t: Test, servers: readonly TestServer[], follower: Follower): Promise<void> {
  await waitFor(() => follower.connections > 0)
  await waitFor(() => servers.reduce((sum, { app }) => sum + app.ringside.hub.sessions.size, 0) === 4)
  t.pass('all have begun')
}

async function waitFor(isSo: () => boolean): Promise<void> {
  const started = Date.now()
  while (!isSo()) {
    if (Date.now() - started > 20_000) throw new Error('waited in vain')
    await new Promise(resolve => setTimeout(resolve, 10))
  }
}
