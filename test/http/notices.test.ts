import Fastify from 'fastify'
import t from 'tap'
import { Notices } from '../../src/http/notices.ts'
import { TurnedAway } from '../../src/http/turned-away.ts'
import { Metrics } from '../../src/metrics.ts'
import { HeldClock } from '../support/clock.ts'

t.test('what happens often is said at once, and then once a minute with how often it did', async t => {
  const clock = new HeldClock()
  const notices = new Notices(clock)
  const said: string[] = []
  const note = (what: string) => notices.note(what, count => said.push(`${what} ${count}`))
  note('a')
  t.strictSame(said, ['a 1'])
  for (let index = 0; index < 5; index++) note('a')
  note('b')
  t.strictSame(said.splice(0), ['a 1', 'b 1'])
  await clock.advance(59_999)
  t.strictSame(said, [])
  await clock.advance(1)
  t.strictSame(said.splice(0), ['a 5'], 'what was not said meanwhile')
  note('b')
  t.strictSame(said.splice(0), ['b 1'], 'a minute of silence, and it is new')
  await clock.advance(120_000)
  t.equal(clock.timers, 0, 'nothing is kept of what has stopped')
})

t.test('clients can not fill the log by saying something else each time', async t => {
  const clock = new HeldClock()
  const notices = new Notices(clock)
  let said = 0
  for (let index = 0; index < 10_000; index++) notices.note(`origin ${index}`, () => said++)
  t.equal(said, 100)
  t.equal(clock.timers, 100)
})

t.test('who is turned away is counted and said by the reason', async t => {
  const clock = new HeldClock()
  const metrics = new Metrics('test')
  const lines: object[] = []
  const app = Fastify({ logger: { stream: { write: line => lines.push(JSON.parse(line) as object) } } })
  const turnedAway = new TurnedAway(metrics, new Notices(clock), app.log)
  for (let index = 0; index < 1000; index++) turnedAway.count('full')
  turnedAway.count('client_rate')
  await clock.advance(60_000)
  t.match(lines, [
    { level: 40, reason: 'full', count: 1, msg: /^turned away 1: .*MAX_CONNECTIONS/ },
    { level: 30, reason: 'client_rate', count: 1, msg: /CONNECT_RATE/ },
    { level: 40, reason: 'full', count: 999, msg: /^turned away 999: / }
  ])
  t.equal(lines.length, 3)
  const { values } = await metrics.connectionsRejected.get()
  t.equal(values.find(({ labels }) => labels.reason === 'full')!.value, 1000)
})
