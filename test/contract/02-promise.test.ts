import t, { type Test } from 'tap'
import { build, publish, publishAll, type Address } from '../support/app.ts'
import { curl, npmClient, undiciClient, type Client, type OpenClient } from '../support/clients.ts'
import { startProxy } from '../support/proxy.ts'
import { listen } from '../support/reader.ts'

const RETRY = { RETRY: '50ms' }

const CLIENTS: Record<string, OpenClient> = {
  'eventsource 4': npmClient,
  "undici's EventSource": undiciClient
}

for (const [name, open] of Object.entries(CLIENTS)) {
  t.test(`${name} gets each event exactly once and in order`, async t => {
    t.test('when it is cut in mid-stream, again and again', async t => {
      const { proxy, publishNext, client, expectAll } = await begin(t, open)
      for (let round = 0; round < 5; round++) {
        await publishNext(3)
        await untilData(client, round * 6 + 3)
        proxy.cut()
        await publishNext(3)
        proxy.restore()
        await untilData(client, round * 6 + 6)
      }
      expectAll(30)
    })

    t.test('when it is cut right after the cursor event, before its first event', async t => {
      const { proxy, publishNext, client, expectAll } = await begin(t, open)
      proxy.cut()
      await publishNext(5)
      proxy.restore()
      await untilData(client, 5)
      expectAll(5)
    })

    t.test('when every one of its streams is cut right after the cursor event', async t => {
      const { proxy, publishNext, client, expectAll } = await begin(t, open)
      for (let round = 2; round < 5; round++) {
        proxy.cut()
        proxy.restore()
        await client.received.until(() => cursorsOf(client).length === round, `cursor event ${round}`)
        t.equal(new Set(cursorsOf(client)).size, 1, 'the position stands still while it has got nothing')
      }
      proxy.cut()
      await publishNext(4)
      proxy.restore()
      await untilData(client, 4)
      expectAll(4)
    })

    t.test('and a gap when the ring has moved on, before any later event', async t => {
      const { proxy, publishNext, client } = await begin(t, open, { RING_SIZE: '2' })
      await publishNext(1)
      await untilData(client, 1)
      proxy.cut()
      await publishNext(4)
      proxy.restore()
      await untilData(client, 3)
      t.strictSame(
        client.received.all.map(({ type, data }) => (type === 'message' ? Number(data) : type)),
        ['cursor', 0, 'cursor', 'gap', 3, 4]
      )
      const gap = client.received.all.find(({ type }) => type === 'gap')!
      t.match(JSON.parse(gap.data), { reason: 'expired', topics: ['promise'] })
    })
  })
}

t.test('curl gets what it missed with -H Last-Event-ID', async t => {
  const server = await build(t)
  const url = `${server.url}/events?topic=promise`
  const first = curl(t, url)
  const { id: start } = await first.frames.next()
  await publish(server, 'promise', '0')
  const { id } = await first.frames.next()
  first.close()
  await first.exited
  await publish(server, 'promise', '1')

  for (const [cursor, expected] of [
    [id, ['1', '2']],
    [start, ['0', '1', '2']]
  ] as const) {
    const again = curl(t, url, ['-H', `Last-Event-ID: ${cursor}`])
    t.match(await again.frames.next(), { id: cursor, event: 'cursor' })
    if (expected.length === 2) await publish(server, 'promise', '2')
    await again.frames.until(() => again.frames.all.length > expected.length, 'what it missed')
    t.strictSame(
      again.frames.all.slice(1).map(({ data }) => data),
      expected
    )
    again.close()
  }
})

t.test('a publish that was answered is stored: whoever comes later finds it', async t => {
  const server = await build(t)
  for (let index = 0; index < 20; index++) {
    const id = await publish(server, 'stored', String(index))
    const stream = await listen(t, server, '/events/stored?rewind=1')
    t.match(await stream.next(), { id, data: String(index) })
  }
})

t.test('several topics come in one order, that of the ids, live and replayed', async t => {
  const server = await build(t)
  const path = '/events?topic=x&topic=y/*&topic=z'
  const live = await listen(t, server, path)
  const events = Array.from({ length: 300 }, (_, index) => ({
    topic: ['x', 'y/1', 'y/2', 'z'][index % 4]!,
    data: index
  }))
  for (let from = 0; from < events.length; from += 50) await publishAll(server, events.slice(from, from + 50))
  const numbers = events.map(({ data }) => String(data))
  t.strictSame(
    (await live.until(300)).map(({ data }) => data),
    numbers
  )
  const replayed = await listen(t, server, path, { 'last-event-id': live.cursor })
  t.strictSame(
    (await replayed.until(300)).map(({ data }) => data),
    numbers
  )
  t.strictSame(
    replayed.messages.map(({ id }) => id),
    live.messages.map(({ id }) => id)
  )
})

async function begin(t: Test, open: OpenClient, env: Record<string, string> = {}) {
  const server: Address = await build(t, { ...RETRY, ...env })
  const proxy = await startProxy(t, server)
  const client = open(t, `${proxy.url}/events?topic=promise`)
  await client.received.until(() => cursorsOf(client).length === 1, 'the cursor event')
  let published = 0
  return {
    proxy,
    client,
    async publishNext(count: number) {
      for (let index = 0; index < count; index++) await publish(server, 'promise', String(published++))
    },
    expectAll(count: number) {
      const wanted = Array.from({ length: count }, (_, index) => String(index))
      t.strictSame(dataOf(client), wanted)
      t.notOk(client.received.all.some(({ type }) => type === 'gap'))
    }
  }
}

function dataOf({ received }: Client): string[] {
  return received.all.filter(({ type }) => type === 'message').map(({ data }) => data)
}

function cursorsOf({ received }: Client): string[] {
  return received.all.filter(({ type }) => type === 'cursor').map(({ data }) => data)
}

function untilData(client: Client, count: number): Promise<void> {
  return client.received.until(() => dataOf(client).length >= count, `${count} events`)
}
