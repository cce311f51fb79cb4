import t, { type Test } from 'tap'
import { build, metricsOf, publish, type TestServer } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { connect } from '../support/websocket.ts'

/** More in all than the kernel keeps for a connection. */
const EVENTS = 900
const LARGE = 'x'.repeat(20_000)
const SEND_BUFFER = 262_144

t.setTimeout(400_000)

t.test('a WebSocket client that stops reading', async t => {
  const server = await build(t, { RING_SIZE: String(EVENTS), HEARTBEAT: '60s', WS_MESSAGE_RATE: '0' })
  const slow = await connect(t, server)
  await slow.do('subscribe', { topics: ['flood'] })
  await slow.do('subscribe', { topics: ['calm'] })
  await slow.do('join', { topic: 'flood' })
  const [session, calm] = server.app.ringside.hub.sessions
  const other = await connect(t, server)
  await other.do('subscribe', { topics: ['flood', 'calm'] })
  slow.pause()

  let most = 0
  for (let index = 0; index < EVENTS; index++) {
    await publish(server, 'flood', `${index} ${LARGE}`)
    most = Math.max(most, session!.sink.pending)
  }
  await publish(server, 'calm', 'meanwhile')

  t.test('is no longer fed live once SEND_BUFFER waits in its connection, and owns no queue', async t => {
    t.equal(session!.state, 'lagging')
    t.equal(calm!.state, 'lagging', 'with all that it subscribes to')
    t.ok(most > SEND_BUFFER && most < SEND_BUFFER + 2 * LARGE.length, `at most ${most} bytes waited`)
    t.equal((await metricsOf(server)).get('ringside_lagging_connections'), 1)
    t.ok(slow.events.length < EVENTS)
  })

  t.test('disturbs nobody', async t => {
    t.strictSame(numbersOf(await other.until(EVENTS)), upTo(EVENTS))
  })

  t.test('gets no signals, and is not read from', async t => {
    const before = session!.sink.pending
    for (let count = 0; count < 50; count++) await other.do('signal', { topic: 'flood', data: LARGE })
    for (let ref = 1000; ref < 3000; ref++) slow.send({ op: 'ping', ref })
    await other.do('ping')
    t.equal(session!.sink.pending, before, 'nothing more waits than before')
  })

  t.test('is told who came and went all the same', async t => {
    const guest = await connect(t, server)
    await guest.do('join', { topic: 'flood' })
    await guest.do('leave', { topic: 'flood' })
    slow.resume()
    await slow.first('left')
    t.notOk(slow.told.some(({ op }) => op === 'signal'))
  })

  t.test('gets everything in order from the ring when it reads on, and is live again', async t => {
    await slow.until(EVENTS + 1)
    const floods = slow.events.filter(({ topic }) => topic === 'flood')
    t.strictSame(numbersOf(floods), upTo(EVENTS))
    t.ok(slow.events.some(({ data }) => data === 'meanwhile'))
    t.notOk(slow.told.some(({ op }) => op === 'gap'))
    t.match(await slow.answer(2999), { op: 'pong' }, 'and what it sent is answered')
    await publish(server, 'flood', `${EVENTS} live`)
    await slow.until(EVENTS + 2)
    t.equal(session!.state, 'live')
    t.equal((await metricsOf(server)).get('ringside_lagging_connections'), 0)
  })
})

t.test('one that the ring has moved past gets a gap, and what is left in order', async t => {
  const server = await build(t, { RING_SIZE: '50', HEARTBEAT: '60s' })
  const slow = await connect(t, server, { protocols: ['ringside.v1.cbor'] })
  await slow.do('subscribe', { topics: ['flood'] })
  slow.pause()
  for (let index = 0; index < EVENTS; index++) await publish(server, 'flood', `${index} ${LARGE}`)
  slow.resume()
  await slow.messages.until(() => numbersOf(slow.events).at(-1) === EVENTS - 1, 'the last event')
  let last = -1
  let announced = false
  for (const message of slow.told) {
    if (message.op === 'gap') {
      t.match(message, { reason: 'expired', topics: ['flood'], after: String })
      announced = true
      continue
    }
    const [number] = numbersOf([message])
    if (number !== last + 1) t.ok(announced, `${last} to ${number} behind a gap`)
    announced = false
    last = number!
  }
  t.strictSame(numbersOf(slow.events).slice(-50), upTo(EVENTS).slice(-50))
})

t.test('one that drains nothing for STALL_TIMEOUT is ended, whatever it sends', async t => {
  const server = await build(t, { STALL_TIMEOUT: '1s', HEARTBEAT: '60s', WS_MESSAGE_RATE: '0' })
  const slow = await connect(t, server)
  await slow.do('subscribe', { topics: ['flood'] })
  const [session] = server.app.ringside.hub.sessions
  slow.pause()
  await flood(server, () => session!.state === 'lagging')
  let most = 0
  const sending = setInterval(() => {
    for (let ref = 0; ref < 100; ref++) slow.send({ op: 'ping', ref })
    slow.ws.ping()
    most = Math.max(most, session!.sink.pending)
  }, 100)
  t.teardown(() => clearInterval(sending))
  await isStalled(t, server)
  t.ok(most < 2 * SEND_BUFFER, `at most ${most} bytes waited`)
  t.equal(session!.state, 'closed')
})

t.test('one that reads too slowly for who comes and goes is sent away, and not told half of it', async t => {
  const server = await build(t, {
    SEND_BUFFER: '20000',
    HEARTBEAT: '60s',
    WS_MESSAGE_RATE: '0',
    MAX_TOPICS: '10000'
  })
  const slow = await connect(t, server)
  await slow.do('join', { topic: 'room' })
  slow.pause()
  const busy = await connect(t, server)
  const info = 'i'.repeat(1000)
  const closed = async () =>
    (await metricsOf(server)).get('ringside_connections_closed_total{transport="ws",reason="stalled"}')
  for (let ref = 0; (await closed()) !== 1; ref += 500) {
    for (let count = 0; count < 500; count++) {
      busy.send({ op: 'join', ref: ref + count, topic: 'room', info })
      busy.send({ op: 'leave', ref: ref + count, topic: 'room' })
    }
    await busy.answer(ref + 499)
    await busy.do('ping', {})
    busy.messages.all.length = 0
  }
  slow.resume()
  const { code } = await slow.closed
  t.ok(code === 1013 || code === 1006, `${code}`)
  await eventually(
    () => server.app.ringside.broker.roster.members('room').length,
    count => count === 0,
    'nobody to be there'
  )
})

async function flood(server: TestServer, enough: () => boolean): Promise<void> {
  for (let count = 0; !enough(); count++) {
    if (count > 2000) throw new Error('the connection never fills')
    await publish(server, 'flood', `${count} ${LARGE}`)
  }
}

async function isStalled(t: Test, server: TestServer): Promise<void> {
  await eventually(
    () => server.app.ringside.hub.connections.size,
    size => size === 0,
    'the end of the stalled connection'
  )
  const metrics = await metricsOf(server)
  t.equal(metrics.get('ringside_connections_closed_total{transport="ws",reason="stalled"}'), 1)
  t.equal(metrics.get('ringside_lagging_connections'), 0)
}

function numbersOf(events: readonly Record<string, unknown>[]): number[] {
  return events.map(({ data }) => Number(String(data).split(' ')[0]))
}

function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index)
}
