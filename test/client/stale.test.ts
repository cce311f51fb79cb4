/** An instance is cut off from its Redis while others publish: its clients are told so, and then what they missed. */
import { request } from 'node:http'
import t, { type Test } from 'tap'
import { connectTo, dataOf, isIn as socketIsIn, listen as listenOn } from './connected.ts'
import { dataUntil, isIn, listenTo } from './subscriber.ts'
import { publish, type Address } from '../support/app.ts'
import { Inbox } from '../support/inbox.ts'
import { listen } from '../support/reader.ts'
import { startRedisProxy } from '../support/redis-proxy.ts'
import { cursorOf, instance, ready, redisFor, toldUntil } from '../support/redis-system.ts'
import { connect } from '../support/websocket.ts'

/** How soon a client has to know, in milliseconds. */
const SOON_MS = 5000

t.test('cut off without a word, on every transport', async t => {
  const redis = await redisFor(t)
  const proxy = await startRedisProxy(t, redis.port)
  // signs of life come while it is cut off, and must not end it
  const cutOff = await instance(t, proxy.url, { HEARTBEAT: '1s' })
  const other = await instance(t, redis.url)
  const sse = await listen(t, cutOff, '/events?topic=x')
  const conflated = await listen(t, cutOff, '/events?topic=x&rate=5')
  const lines = await readLines(t, cutOff, '/events?topic=x')
  const ws = await connect(t, cutOff)
  await ws.ask('subscribe', { topics: ['x'] })
  await ws.ask('subscribe', { topics: ['y'] })
  const cbor = await connect(t, cutOff, { protocols: ['ringside.v1.cbor'] })
  await cbor.ask('subscribe', { topics: ['x'] })
  const page = listenTo(t, 'x', { url: cutOff.url })
  const socket = connectTo(t, cutOff)
  const events = await listenOn(socket.connection, 'x')
  await isIn(page, 'live')
  await publish(other, 'x', '1')
  await toldUntil(sse, '1')
  await dataUntil(page, 1)

  const cut = Date.now()
  proxy.blackHole()
  await publish(other, 'x', '2')
  const stale = await sse.first('stale')
  await Promise.all([
    conflated.first('stale'),
    lines.until(() => lines.all.some(({ type }) => type === 'stale'), 'a stale line'),
    ...[ws, cbor].map(({ messages }) =>
      messages.until(() => messages.all.some(({ op }) => op === 'stale'), 'stale')
    ),
    isIn(page, 'stale'),
    socketIsIn(socket, 'stale')
  ])
  const took = Date.now() - cut
  t.ok(took < SOON_MS, `all know it within ${took} ms`)
  const { since } = JSON.parse(stale.data!) as { since: number }
  t.ok(since > cut - 2000 && since <= cut + 500, 'since it was heard from last')
  t.match(lines.all.at(-1), { type: 'stale', since: Number })
  t.match(ws.messages.all.filter(({ op }) => op === 'stale')[0], { op: 'stale', since: Number })
  t.equal(stale.id, cursorOf(sse), 'with its cursor')

  const before = sse.frames.all.length
  await sse.frames.until(() => sse.frames.all.length >= before + 2, 'signs of life')
  t.ok(sse.frames.all.slice(before).every(({ event, id }) => event === 'stale' && id === stale.id))
  t.equal(page.subscription.state, 'stale')
  t.equal(socket.connection.state, 'stale')

  proxy.heal()
  await ready(cutOff)
  t.strictSame(await toldUntil(sse, '2'), ['1', '2'])
  t.strictSame(await toldUntil(conflated, '2'), ['1', '2'])
  await Promise.all([isIn(page, 'live'), socketIsIn(socket, 'live')])
  t.strictSame(await dataUntil(page, 2), [1, 2], 'it knows what it has missed')
  t.strictSame(dataOf(events.events), [1, 2])
  for (const reader of [sse, conflated]) {
    const back = () => reader.frames.all.slice(reader.frames.all.findIndex(({ data }) => data === '2'))
    await reader.frames.until(() => back().length > 1, 'the end of it')
    t.match(back()[1], { event: 'cursor', data: `{"cursor":"${back()[1]!.id}"}` }, 'then a cursor')
  }
  await lines.until(() => lines.all.at(-1)?.type === 'cursor', 'its end')
  t.match(lines.all.slice(-2), [
    { type: 'message', data: 2 },
    { type: 'cursor', cursor: String }
  ])
  for (const { messages } of [ws, cbor]) {
    const cursors = () => messages.all.slice(messages.all.findLastIndex(({ op }) => op === 'stale'))
    await messages.until(
      () => cursors().some(({ op, topics }) => op === 'cursor' && String(topics) === 'x'),
      'a cursor'
    )
    const told = cursors().filter(
      ({ op, topics }) => op === 'event' || (op === 'cursor' && String(topics) === 'x')
    )
    t.match(told.slice(0, 2), [
      { op: 'event', data: 2 },
      { op: 'cursor', cursor: String }
    ])
  }
})

t.test('what is back at once is told nobody', async t => {
  const redis = await redisFor(t)
  const proxy = await startRedisProxy(t, redis.port)
  const server = await instance(t, proxy.url)
  const reader = await listen(t, server, '/events?topic=x')
  const opened = proxy.opened()
  proxy.cut()
  await ready(server)
  await publish(server, 'x', '1')
  t.strictSame(await toldUntil(reader, '1'), ['1'])
  t.ok(proxy.opened() > opened)
  t.notOk(reader.frames.all.some(({ event }) => event === 'stale'))
})

/** The lines of an ndjson stream. */
function readLines(t: Test, { port }: Address, path: string): Promise<Inbox<Record<string, unknown>>> {
  const headers = { accept: 'application/x-ndjson' }
  return new Promise(resolve => {
    const sent = request({ host: '127.0.0.1', port, path, headers, agent: false }, response => {
      const lines = new Inbox<Record<string, unknown>>()
      response.on('error', () => {}) // the test is over
      let rest = ''
      response.setEncoding('utf8').on('data', (text: string) => {
        const whole = (rest + text).split('\n')
        rest = whole.pop()!
        for (const line of whole) if (line !== '') lines.push(JSON.parse(line) as Record<string, unknown>)
      })
      resolve(lines)
    })
    sent.on('error', () => {})
    t.teardown(() => sent.destroy())
    sent.end()
  })
}
