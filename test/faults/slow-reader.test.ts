import { connect } from 'node:net'
import t, { type Test } from 'tap'
import type { Session } from '../../src/hub/session.ts'
import { build, metricsOf, publish, type TestServer } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { rawConnection } from '../support/raw.ts'
import { listen, type Reader } from '../support/reader.ts'

/** More in all than the kernel keeps for a connection. */
const EVENTS = 900
const LARGE = 'x'.repeat(20_000)
const SEND_BUFFER = 262_144

t.setTimeout(400_000)

t.test('a reader that stops reading', async t => {
  const server = await build(t, { RING_SIZE: String(EVENTS), HEARTBEAT: '60s' })
  const slow = await listen(t, server, '/events/flood')
  const [session] = server.app.ringside.hub.sessions
  const other = await listen(t, server, '/events/flood')
  const bystander = await listen(t, server, '/events/quiet')
  slow.pause()

  let most = 0
  for (let index = 0; index < EVENTS; index++) {
    await publish(server, 'flood', `${index} ${LARGE}`)
    most = Math.max(most, session!.sink.pending)
  }

  t.test('is no longer fed live once SEND_BUFFER waits in its connection, and owns no queue', async t => {
    t.equal(session!.state, 'lagging')
    t.ok(most > SEND_BUFFER && most < SEND_BUFFER + 2 * LARGE.length, `at most ${most} bytes waited`)
    t.equal((await metricsOf(server)).get('ringside_lagging_connections'), 1)
    t.ok(slow.messages.length < EVENTS)
  })

  t.test('disturbs nobody', async t => {
    t.strictSame(numbersOf(await other.until(EVENTS)), upTo(EVENTS))
    await publish(server, 'quiet', 'x')
    await bystander.until(1)
  })

  t.test('gets everything in order from the ring when it reads on, and is live again', async t => {
    slow.resume()
    t.strictSame(numbersOf(await slow.until(EVENTS)), upTo(EVENTS))
    t.notOk(slow.frames.all.some(({ event }) => event === 'gap'))
    await publish(server, 'flood', `${EVENTS} live`)
    t.match((await slow.until(EVENTS + 1)).at(-1), { data: `${EVENTS} live` })
    t.equal(session!.state, 'live')
    t.equal((await metricsOf(server)).get('ringside_lagging_connections'), 0)
  })
})

t.test('a reader that the ring has moved past gets a gap, and what is left in order', async t => {
  const server = await build(t, { RING_SIZE: '50', HEARTBEAT: '60s' })
  const slow = await listen(t, server, '/events/flood')
  slow.pause()
  for (let index = 0; index < EVENTS; index++) await publish(server, 'flood', `${index} ${LARGE}`)
  slow.resume()
  await slow.frames.until(() => numbersOf(slow.messages).at(-1) === EVENTS - 1, 'the last event')

  const gaps = slow.frames.all.filter(({ event }) => event === 'gap')
  t.ok(gaps.length > 0)
  for (const { data } of gaps)
    t.match(JSON.parse(data!), { reason: 'expired', topics: ['flood'], after: String })
  const numbers = numbersOf(slow.messages)
  t.strictSame(
    numbers,
    [...new Set(numbers)].sort((a, b) => a - b),
    'each once and in order'
  )
  t.strictSame(missingWithoutGap(slow), [], 'nothing is missing but where a gap says so')
  t.strictSame(numbers.slice(-50), upTo(EVENTS).slice(-50))
})

t.test('a reader that drains nothing for STALL_TIMEOUT is ended', async t => {
  t.test('when more than SEND_BUFFER waits in its connection', async t => {
    const server = await build(t, { STALL_TIMEOUT: '1s', HEARTBEAT: '60s' })
    const { session } = await stopReading(t, server)
    await flood(server, () => session.state === 'lagging')
    await isStalled(t, server, session)
  })

  t.test('when less waits, and it is told its cursor in between', async t => {
    const server = await build(t, { STALL_TIMEOUT: '1s', HEARTBEAT: '100ms', SEND_BUFFER: '512 MiB' })
    const { session } = await stopReading(t, server)
    await flood(server, () => session.sink.pending > 1_000_000)
    await isStalled(t, server, session)
  })

  t.test('not one that drains slowly', async t => {
    const server = await build(t, { STALL_TIMEOUT: '2s', HEARTBEAT: '60s', RING_SIZE: '2000' })
    const { slow, session } = await stopReading(t, server)
    const count = await flood(server, () => session.state === 'lagging')
    // a piece every quarter of a second: for longer than the time-out in all
    const piece = Math.ceil((count * LARGE.length) / 12)
    let due = slow.bytes + piece
    let pieces = 0
    slow.response.on('data', () => {
      if (slow.bytes < due) return
      due += piece
      pieces++
      slow.pause()
      setTimeout(() => slow.resume(), 250)
    })
    slow.resume()
    t.strictSame(numbersOf(await slow.until(count)), upTo(count))
    t.ok(pieces > 6, `in ${pieces} pieces`)
    t.equal(
      (await metricsOf(server)).get('ringside_connections_closed_total{transport="sse",reason="stalled"}'),
      0
    )
  })
})

t.test('an answer of which nothing is taken for STALL_TIMEOUT is ended', async t => {
  const server = await build(t, { STALL_TIMEOUT: '1s', MAX_PAGE_BYTES: '4 MiB' })
  for (let index = 0; index < 500; index++) await publish(server, 'large', LARGE)
  const page = (query: string) =>
    `GET /events/large?${query} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n`

  t.test('with its connection', async t => {
    const socket = connect({ port: server.port, host: '127.0.0.1' })
    t.teardown(() => socket.destroy())
    socket.on('error', () => {}).write(page('rewind=500&limit=500').repeat(6)) // more than the system takes
    await eventually(
      () => connectionsOf(server),
      count => count === 1,
      'the connection'
    )
    await eventually(
      () => connectionsOf(server),
      count => count === 0,
      'its end'
    )
  })

  t.test('and what comes behind one that is taken may wait for longer', async t => {
    const connection = rawConnection(t, server)
    connection.send(page('rewind=5') + page('wait=3'))
    const text = await connection.until(/"events":\[\]/)
    t.equal(text.split('HTTP/1.1 200').length, 3)
  })
})

async function stopReading(t: Test, server: TestServer): Promise<{ slow: Reader; session: Session }> {
  const slow = await listen(t, server, '/events/flood')
  const [session] = server.app.ringside.hub.sessions
  slow.pause()
  return { slow, session: session! }
}

/** Publishes until something is true, and answers with how many events that took. */
async function flood(server: TestServer, enough: () => boolean): Promise<number> {
  let count = 0
  while (!enough()) {
    if (count > 2000) throw new Error('the connection never fills')
    await publish(server, 'flood', `${count++} ${LARGE}`)
  }
  return count
}

async function isStalled(t: Test, server: TestServer, session: Session): Promise<void> {
  await eventually(
    () => session.state,
    state => state === 'closed',
    'the end of the stalled connection'
  )
  const metrics = await metricsOf(server)
  t.equal(metrics.get('ringside_connections_closed_total{transport="sse",reason="stalled"}'), 1)
  t.equal(metrics.get('ringside_connections{transport="sse"}'), 0)
  t.equal(metrics.get('ringside_lagging_connections'), 0)
  await eventually(
    () => connectionsOf(server),
    count => count === 0,
    'no connection'
  )
}

function connectionsOf({ app }: TestServer): Promise<number> {
  return new Promise((resolve, reject) => {
    app.server.getConnections((error, count) => (error ? reject(error) : resolve(count)))
  })
}

function numbersOf(frames: readonly { data?: string }[]): number[] {
  return frames.map(({ data }) => Number(data!.split(' ')[0]))
}

function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index)
}

/** Where a number is missing and no gap stands before what follows it. */
function missingWithoutGap({ frames }: Reader): string[] {
  const missing: string[] = []
  let last = -1
  let announced = false
  for (const { event, data } of frames.all) {
    if (event === 'gap') announced = true
    if (event !== undefined || data === undefined) continue
    const number = Number(data.split(' ')[0])
    if (number !== last + 1 && !announced) missing.push(`${last} to ${number}`)
    last = number
    announced = false
  }
  return missing
}
