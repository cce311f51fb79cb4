/** That each write counts once, whatever becomes of it. */
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import { ringside } from '../../src/index.ts'
import { HeldClock } from '../support/clock.ts'

const RATE = 10
const JSON_BODY = { 'content-type': 'application/json' }

interface Ask {
  readonly method: 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  readonly url: string
  readonly payload?: string
  readonly headers?: Record<string, string>
}

/** An app whose time stands still, so that nobody gets a write back; each client is an address. */
async function setUp(t: Test) {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(ringside, {
    clock: new HeldClock(),
    settings: { WRITE_RATE: RATE, MAX_EVENT_BYTES: 100 },
    grant: ({ headers }) => ({
      sub: null,
      expires: Infinity,
      maySubscribe: () => true,
      mayPublish: topic => topic !== 'secret',
      publishesNothing: headers['x-reader'] !== undefined
    })
  })
  const ask = async (client: number, request: Ask) => {
    const answer = await app.inject({ ...request, remoteAddress: `203.0.113.${client}` })
    return answer.statusCode
  }
  /** How many writes a client has left. */
  const left = async (client: number) => {
    for (let count = 0; ; count++) {
      if ((await ask(client, { method: 'POST', url: '/events/a', payload: 'x' })) === 429) return count
    }
  }
  return { app, ask, left }
}

t.test('a write counts once, also one that is refused or changes nothing', async t => {
  const { ask, left } = await setUp(t)
  const batch = JSON.stringify(Array.from({ length: 20 }, () => ({ topic: 'a', data: 1 })))
  const users = JSON.stringify({ to: Array.from({ length: 20 }, (_, user) => `${user}`), title: 'x' })
  const events = { method: 'POST', url: '/events/a' } as const
  const cases: [status: number, request: Ask][] = [
    [201, { ...events, payload: 'x' }],
    [201, { ...events, url: '/events', payload: batch, headers: JSON_BODY }],
    [201, { ...events, url: '/notifications', payload: users, headers: JSON_BODY }],
    [201, { ...events, url: '/tickers', payload: '{"symbol":"A","price":1}', headers: JSON_BODY }],
    [201, { method: 'PUT', url: '/dashboards/a', payload: '{}', headers: JSON_BODY }],
    [204, { method: 'DELETE', url: '/dashboards/a' }],
    [400, { ...events, payload: '{', headers: JSON_BODY }],
    [400, { ...events, url: '/events/a?ttl=x', payload: 'x' }],
    [400, { ...events, url: '/events/a//b', payload: 'x' }],
    [403, { ...events, url: '/events/secret', payload: 'x' }],
    [403, { ...events, url: '/events/tickers/A', payload: 'x' }],
    [403, { ...events, url: '/events', payload: batch, headers: { ...JSON_BODY, 'x-reader': '' } }],
    [403, { ...events, url: '/events', payload: '[{"topic":"secret","data":1}]', headers: JSON_BODY }],
    [404, { method: 'DELETE', url: '/dashboards/none' }],
    [404, { method: 'PATCH', url: '/dashboards/none', payload: '{}', headers: JSON_BODY }],
    [403, { ...events, url: '/notifications/read', payload: '{"all":true}', headers: JSON_BODY }],
    [413, { ...events, payload: 'x'.repeat(101) }],
    [413, { ...events, payload: 'x'.repeat(10_000) }],
    [415, { ...events, payload: 'x', headers: { 'content-type': 'text/html' } }],
    [422, { ...events, url: '/events/a?type=cursor', payload: 'x' }]
  ]
  for (const [client, [status, request]] of cases.entries()) {
    const what = `${request.method} ${request.url}: ${status}`
    t.equal(await ask(client, request), status, what)
    t.equal(await left(client), RATE - 1, what)
  }
})

t.test('who is past the rate is told so before all else', async t => {
  const { ask, left } = await setUp(t)
  await left(0)
  for (const url of ['/events/secret', '/events/a//b', '/events/a?ttl=x', '/events', '/notifications/read'])
    t.equal(await ask(0, { method: 'POST', url, payload: '{', headers: JSON_BODY }), 429, url)
  t.equal(await ask(0, { method: 'POST', url: '/nowhere' }), 404)
})

t.test('a flood of bad writes is held to the rate', async t => {
  const { ask } = await setUp(t)
  const bad = { method: 'POST', url: '/events/secret', payload: 'x' } as const
  const answers = []
  for (let count = 0; count < 2 * RATE; count++) answers.push(await ask(0, bad))
  t.equal(answers.filter(status => status === 403).length, RATE)
  t.equal(answers.filter(status => status === 429).length, RATE)
})

t.test('marking what is read already counts as well', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(ringside, { clock: new HeldClock(), settings: { WRITE_RATE: 1 } })
  const mark = () =>
    app.inject({
      method: 'POST',
      url: '/notifications/read?user=alice',
      payload: '{"all":true}',
      headers: JSON_BODY,
      remoteAddress: '203.0.113.1'
    })
  t.equal((await mark()).statusCode, 200)
  t.equal((await mark()).statusCode, 429)
})
