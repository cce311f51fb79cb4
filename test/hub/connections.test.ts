import t from 'tap'
import { Connections, type Connection } from '../../src/hub/connections.ts'
import { Metrics } from '../../src/metrics.ts'
import { wakeUp } from '../../src/wire/page.ts'
import { plain } from '../../src/wire/packing.ts'
import { build } from '../support/app.ts'
import { HeldClock } from '../support/clock.ts'
import { connect } from '../support/websocket.ts'
import { Stage } from './stage.ts'

const metrics = new Metrics('test')

function connection(number: number, goodbyes: number[]): Connection {
  return {
    transport: 'ws',
    since: 0,
    expires: Infinity,
    place: undefined,
    client: undefined,
    filters: [],
    readings: [],
    goodbye: () => void goodbyes.push(number)
  }
}

t.test('a drain says goodbye in any order, each as likely as any other', async t => {
  const counts = new Map<string, number>()
  const rounds = 24_000
  for (let round = 0; round < rounds; round++) {
    const connections = new Connections(new HeldClock(), metrics, 2000)
    const goodbyes: number[] = []
    for (let number = 0; number < 4; number++) connections.enter(connection(number, goodbyes))
    await connections.drain(0)
    counts.set(goodbyes.join(), (counts.get(goodbyes.join()) ?? 0) + 1)
  }
  t.equal(counts.size, 24)
  // seven standard deviations
  for (const [order, count] of counts) t.ok(Math.abs(count - rounds / 24) < 220, `${order}: ${count}`)
})

t.test('what is open can be described', async t => {
  t.test('streams and polls, each a connection of its own', async t => {
    const stage = await Stage.begin()
    const since = stage.clock.now()
    const client = { user: 'ann', address: '192.0.2.1' }
    const stream = await stage.open(['b', 'a/*', 'b'], { client })
    await stage.clock.advance(1000)
    const asked = stage.hub.open({ filters: ['c'], format: wakeUp, packing: plain })
    await stage.flow()
    const poll = await asked
    const descriptions = [
      { transport: 'sse', since, user: 'ann', address: '192.0.2.1', filters: ['a/*', 'b'] },
      { transport: 'poll', since: since + 1000, user: null, address: null, filters: ['c'] }
    ]
    t.strictSame(stage.hub.connections.describe(), descriptions)
    stream.session.close('client')
    t.strictSame(stage.hub.connections.describe(), descriptions.slice(1))
    poll.close('answered')
    t.strictSame(stage.hub.connections.describe(), [])
  })

  t.test('a WebSocket, with all that it has subscribed to', async t => {
    const server = await build(t)
    const client = await connect(t, server)
    const filters = () => server.app.ringside.hub.connections.describe().map(({ filters }) => filters)
    t.strictSame(filters(), [[]])
    await client.ask('subscribe', { topics: ['a', 'b/*'] })
    await client.ask('subscribe', { topics: ['c'] })
    t.match(server.app.ringside.hub.connections.describe(), [
      { transport: 'ws', user: null, address: '127.0.0.1', filters: ['a', 'b/*', 'c'] }
    ])
    await client.ask('unsubscribe', { topics: ['b/*'] })
    t.strictSame(filters(), [['a', 'c']])
  })
})
