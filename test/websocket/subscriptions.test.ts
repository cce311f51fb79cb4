import t from 'tap'
import { build } from '../support/app.ts'
import { connect } from '../support/websocket.ts'

t.test('a subscription is counted before it is compared', async t => {
  const server = await build(t, { MAX_TOPICS: '100', WS_MAX_BYTES: '8 MiB' })
  const client = await connect(t, server)
  const topics = (count: number, name: string) =>
    Array.from({ length: count }, (_, index) => `${name}/${index}`)
  await client.do('subscribe', { topics: topics(99, 'held') })
  let standstill = 0
  let last = performance.now()
  const { Subscriptions } = await import('../../src/websocket/subscriptions.ts')
  const add = Subscriptions.prototype.add
  t.teardown(() => (Subscriptions.prototype.add = add))
  Subscriptions.prototype.add = function (...args) {
    last = performance.now()
    const adding = add.apply(this, args)
    standstill = Math.max(standstill, performance.now() - last)
    return adding
  }
  for (let count = 0; count < 5; count++) {
    const answer = await client.ask('subscribe', { topics: [...topics(9_800, 'new'), 'a//b'] })
    t.match(answer, { op: 'error', code: 'bad_request', message: /9900 on this connection; at most 100/ })
  }
  t.ok(standstill < 60, `${standstill} ms`)
})

t.test('10,000 topics are compared with 5,000 at once', async t => {
  const server = await build(t, { MAX_TOPICS: '10000', WS_MAX_BYTES: '8 MiB' })
  const client = await connect(t, server)
  const topics = (count: number) => Array.from({ length: count }, (_, index) => `a/${index}/b`)
  await client.do('subscribe', { topics: topics(5000) })
  const asked = Array.from({ length: 5000 }, (_, index) => `b/${index}/c`)
  const started = performance.now()
  const answer = await client.ask('subscribe', { topics: [...asked.slice(1), 'a/7/*'] })
  t.match(answer, { op: 'error', message: 'topics: a/7/* overlaps with a/7/b, which is subscribed already' })
  t.ok(performance.now() - started < 500, `${performance.now() - started} ms`)
})
