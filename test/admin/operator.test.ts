import t, { type Test } from 'tap'
import { LIVE } from '../../src/admin/topics.ts'
import { inForce } from '../../src/admin/settings.ts'
import { readSettings, resolveSettings } from '../../src/config.ts'
import { operator, told } from '../support/admin.ts'
import { ask, build, isProblem, post, type TestServer } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { listen, subscribe, type Reader } from '../support/reader.ts'
import { bearer, SECRET, tokenFor, tokenOf } from '../support/tokens.ts'
import { connect } from '../support/websocket.ts'

const SSE = { accept: 'text/event-stream' }

/** Acts as the log has them. */
const acts: Record<string, unknown>[] = []
let server: TestServer
let alice: { authorization: string }

t.before(async () => {
  server = await build(t, { JWT_SECRET: SECRET, ANONYMOUS_SUBSCRIBE: '**', RETRY: '50ms', DRAIN: '0' })
  server.app.log.info = (fields: unknown) => {
    if (typeof fields === 'object' && fields !== null && 'act' in fields) acts.push({ ...fields })
  }
  alice = bearer(await tokenFor({ subscribe: ['**'], publish: ['**'] }))
})

/** A stream of alice's, by a client that says what it is. */
const stream = (t: Test, path: string, headers: object = {}) =>
  listen(t, server, path, { ...SSE, ...alice, 'user-agent': 'a test', ...headers })

const publish = async (topic: string, body: string) =>
  (await post(server, `/events/${topic}`, body, alice)).json()['id'] as string

t.test('only who operates the server is told, or may do anything', async t => {
  const nobody = await tokenFor({ subscribe: ['**'], publish: ['**'] })
  const wrongly = await tokenOf({ ringside: { admin: 'yes' } })
  const all = [
    ['GET', '/instances'],
    ['GET', '/connections'],
    ['GET', '/topics'],
    ['GET', '/gaps'],
    ['GET', '/settings'],
    ['DELETE', '/connections/x.1'],
    ['DELETE', '/users/alice/connections'],
    ['DELETE', '/topics/a'],
    ['POST', '/instances/x/drain']
  ] as const
  for (const [method, path] of all) {
    const asked = (headers: object) => ask(server, `/admin/api${path}`, { method, headers: { ...headers } })
    isProblem(t, await asked({}), 401, /a token is needed/)
    isProblem(t, await asked(bearer(wrongly)), 401, /claims/)
    const answer = await asked(bearer(nobody))
    isProblem(t, answer, 403, /"admin": true/)
    t.match(answer.headers['www-authenticate'], /insufficient_scope/)
  }
})

t.test('how the instance does, and what is in force', async t => {
  const { body } = await told(server, '/instances')
  t.match(body, {
    instances: [
      {
        ...{ id: /^[0-9a-f]{12}$/, pid: process.pid, worker: null, version: /^\d/, node: process.version },
        ...{ unready: null, draining: false, store: { kind: 'memory', up: true } },
        memory: { limit: Number, held: Number, kinds: { events: Number }, rss: Number },
        eventLoop: { mean: Number, p99: Number, max: Number },
        connections: { sse: Number, ws: Number, lagging: 0 }
      }
    ],
    unanswered: []
  })
  const settings = await told(server, '/settings')
  t.match(settings.body.inForce, [
    {
      instances: [body.instances[0]!.id],
      settings: { RING_SIZE: 1000, RETRY: 50, JWT_SECRET: '***' },
      rules: []
    }
  ])
  t.notMatch(JSON.stringify(settings.body), SECRET)
})

t.test('no secret is told of any setting', async t => {
  const secret = 'opensesame'
  const given = {
    JWT_SECRET: `${secret}, which is long enough for a key`,
    JWKS_URL: `https://user:${secret}@keys.example/set?key=${secret}`,
    REDIS_URL: `rediss://user:${secret}@/@redis.example:6379/0?password=${secret}`,
    REDIS_SENTINEL_PASSWORD: secret
  }
  const settings = { ...resolveSettings(), ...given, JWT_PUBLIC_KEY: secret, REDIS_TLS_KEY: secret }
  const text = JSON.stringify(inForce(settings, []))
  t.notMatch(text, secret)
  t.match(text, 'rediss://***@redis.example:6379/0?***')
  t.match(text, 'https://***@keys.example/set?***')
  t.equal(inForce(readSettings({}), []).settings['REDIS_URL'], '', 'what is not set has no secret')
})

t.test('connections, by transport, user and topic, page by page', async t => {
  const since = Date.now()
  const one = await stream(t, '/events?topic=a/*&topic=b')
  await listen(t, server, '/events/a/1?rate=2', { ...SSE, ...alice })
  const ws = await connect(t, server, { headers: { ...alice, 'user-agent': 'x'.repeat(500) } })
  await ws.do('subscribe', { topics: ['a/1', 'c/*'], rate: 5 })
  await listen(t, server, '/events/d', SSE)

  const { body } = await told(server, '/connections')
  t.equal(body['total'], 4)
  t.equal(body['next'], null)
  t.match(body.connections, [
    {
      ...{
        id: /^[0-9a-f]{12}\.\d+$/,
        transport: 'sse',
        user: 'alice',
        address: '127.0.0.1',
        agent: 'a test'
      },
      ...{ topics: ['a/*', 'b'], topicCount: 2, lagging: false, lag: Number, backlog: 0, rate: null }
    },
    { transport: 'sse', agent: null, rate: 2 },
    { transport: 'ws', user: 'alice', agent: 'x'.repeat(200), topics: ['a/1', 'c/*'], rate: 5 },
    { transport: 'sse', user: null, topics: ['d'] }
  ])
  t.ok(body.connections.every(each => Number(each['since']) >= since - 1000))

  const ids = async (query: string) =>
    (await told(server, `/connections?${query}`)).body.connections.map(({ id }) => id)
  const [first, second, third, fourth] = body.connections.map(({ id }) => id)
  t.strictSame(await ids('transport=ws'), [third])
  t.strictSame(await ids('user=alice&transport=sse'), [first, second])
  t.strictSame(await ids('topic=a/1'), [first, second, third], 'by its name or by a wildcard')
  t.strictSame(await ids('topic=c/7&user=bob'), [])
  t.strictSame(await ids('state=conflated'), [second, third])
  t.strictSame(await ids('state=lagging'), [])

  const page = await told(server, '/connections?limit=3')
  t.strictSame([page.body.connections.length, page.body['total']], [3, 4])
  one.close()
  await eventually(
    () => ids('user=alice&transport=sse'),
    found => found.length === 1,
    'one that has gone'
  )
  t.strictSame(await ids(`limit=3&after=${String(page.body['next'])}`), [fourth], 'whatever has gone')

  const headers = await operator()
  for (const [query, says] of [
    ['after=x', /after/],
    ['limit=0', /limit/],
    ['transport=tcp', /transport/]
  ] as const)
    isProblem(t, await ask(server, `/admin/api/connections?${query}`, { headers }), 400, says)
  t.match((await told(server, '/instances')).body.instances[0]!.connections, { sse: 2, ws: 1, conflated: 2 })
})

t.test('the busiest topics', async t => {
  await stream(t, '/events/busy')
  await stream(t, '/events?topic=busy&topic=calm')
  for (let count = 0; count < 20; count++) await publish('busy', String(count))
  const { body } = await told(server, '/topics?limit=1')
  t.match(body.topics, [
    { topic: 'busy', subscribers: 2, events: 20, last: { topic: 'busy', type: 'message' } }
  ])
  t.ok(Number(body.topics[0]!['rate']) > 0)
  t.ok(Number(body['total']) >= 2)
})

t.test('a connection is ended, and its client comes back', async t => {
  const first = await stream(t, '/events/orders')
  const other = await stream(t, '/events/orders')
  const { connections } = (await told(server, '/connections?topic=orders')).body
  acts.length = 0
  const path = `/connections/${connections[0]!.id}`
  t.strictSame(await told(server, path, { method: 'DELETE' }), { status: 200, body: { disconnected: 1 } })
  t.match(acts, [{ act: 'disconnect', by: 'ops', connection: connections[0]!.id }])
  const { data } = await first.first('goodbye')
  t.match(JSON.parse(data!), { reason: 'shutdown', retry: Number })
  await first.whole()

  await publish('orders', 'meanwhile')
  const back = await stream(t, '/events/orders', { 'last-event-id': lastId(first) })
  t.match(await back.until(1), [{ data: 'meanwhile' }])
  t.match(await other.until(1), [{ data: 'meanwhile' }], 'another one goes on')

  const headers = await operator()
  const end = (id: string) => ask(server, `/admin/api/connections/${id}`, { method: 'DELETE', headers })
  isProblem(t, await end(connections[0]!.id), 404, /no connection/)
  isProblem(t, await end('0123456789ab.1'), 404, /no connection/)
})

t.test('all connections of a user are ended', async t => {
  const token = await tokenFor({ subscribe: ['**'] }, 'bob')
  const streams = [await stream(t, '/events/x', bearer(token)), await stream(t, '/events/y', bearer(token))]
  const ws = await connect(t, server, { headers: bearer(token) })
  const mine = await stream(t, '/events/x')
  acts.length = 0
  const { body } = await told(server, '/users/bob/connections', { method: 'DELETE' })
  t.strictSame(body, { disconnected: 3, unanswered: [] })
  t.match(acts, [{ act: 'disconnect user', by: 'ops', user: 'bob', disconnected: 3 }])
  for (const reader of streams) await reader.whole()
  t.equal((await ws.closed).code, 1001)
  await publish('x', '1')
  await mine.until(1)
})

t.test('what is held of a topic is deleted: who has not had it is told that it is lost', async t => {
  const before = await stream(t, '/events/jobs/1')
  const one = await publish('jobs/1', 'one')
  const two = await publish('jobs/1', 'two')
  await publish('jobs/2', 'other')
  await before.until(2)
  acts.length = 0
  const { body } = await told(server, '/topics/jobs%2F1', { method: 'DELETE' })
  t.strictSame(body, { topic: 'jobs/1', unanswered: [] })
  t.match(acts, [{ act: 'clear topic', by: 'ops', topic: 'jobs/1' }])
  t.match(
    JSON.parse((await before.first('gap')).data!),
    { reason: 'lost', topics: ['jobs/1'] },
    'who is live'
  )

  const resumed = await stream(t, '/events/jobs/1', { 'last-event-id': one })
  t.match(JSON.parse((await resumed.first('gap')).data!), { reason: 'lost', topics: ['jobs/1'] })
  const family = await stream(t, '/events/jobs/*', { 'last-event-id': one })
  t.match(JSON.parse((await family.first('gap')).data!), { reason: 'lost', topics: ['jobs/1'] })
  t.match(await family.until(1), [{ data: 'other' }], 'of other topics nothing is gone')
  const whole = await stream(t, '/events/jobs/1', { 'last-event-id': two })
  await publish('jobs/1', 'three')
  for (const reader of [before, resumed, whole]) {
    await reader.frames.until(() => reader.messages.at(-1)?.data === 'three', 'what comes after')
  }
  t.notOk(
    whole.frames.all.some(({ event }) => event === 'gap'),
    'who had it all has missed nothing'
  )

  const headers = await operator()
  const clear = (topic: string) => ask(server, `/admin/api/topics/${topic}`, { method: 'DELETE', headers })
  isProblem(t, await clear('nothing%2Fhere'), 404, /nothing is known/)
  isProblem(t, await clear('%24ringside%2Finstances'), 404, /nothing is known/)
  isProblem(t, await clear('a%2F%2Fb'), 400, /not a topic/)
})

t.test('gaps and refusals are kept for a while, with their reasons', async t => {
  await subscribe(t, server, '/events/told?after=nonsense', { ...SSE, ...alice })
  await ask(server, '/events/secret', { headers: { ...SSE, ...bearer(await tokenFor({}, 'eve')) } })
  const { body } = await eventually(
    () => told(server, '/gaps'),
    ({ body }) =>
      body.gaps.some(({ topics }) => String(topics) === 'told') &&
      body.refusals.some(({ what, reason }) => what === 'access' && reason === 'forbidden'),
    'a gap and a refusal'
  )
  const gap = body.gaps.find(({ topics }) => String(topics) === 'told')
  t.match(gap, {
    reason: 'unknown',
    transport: 'sse',
    topicCount: 1,
    count: 1,
    instance: String,
    time: Number
  })
  t.ok(body.gaps.length <= 500 && body.refusals.length <= 500)
})

// --- $ringside/ ---

t.test('what happens is live, for who operates the server alone', async t => {
  const headers = { ...SSE, ...(await operator()) }
  const query = Object.values(LIVE)
    .map(topic => `topic=${encodeURIComponent(topic)}`)
    .join('&')
  const reader = await listen(t, server, `/events?${query}&envelope=true`, headers)
  await subscribe(t, server, '/events/shown?after=nonsense', { ...SSE, ...alice })
  const of = (topic: string) =>
    reader.messages.map(({ data }) => JSON.parse(data!) as Envelope).filter(each => each.topic === topic)
  await reader.frames.until(
    () => Object.values(LIVE).every(topic => of(topic).length > 0),
    'each of the topics'
  )
  t.match(of(LIVE.instances)[0], {
    type: 'instances',
    data: { pid: process.pid, connections: { sse: Number } }
  })
  t.match(of(LIVE.connections)[0], { data: { instance: String, ws: Number } })
  t.match(of(LIVE.topics)[0], { data: { instance: String, rows: Array, total: Number } })
  const isShown = ({ data }: Envelope) => data.gaps!.some(({ topics }) => topics[0] === 'shown')
  await reader.frames.until(() => of(LIVE.gaps).some(isShown), 'the gap')
  const ws = await connect(t, server, { headers: await operator() })
  await ws.do('subscribe', { topics: ['$ringside/*'] })
  await ws.until(2)
  const asked = { headers: { ...(await operator()), accept: 'application/json' } }
  const page = await ask(server, `/events?${query}&since=1m`, asked)
  t.strictSame(page.json()['events'], [], 'nothing of it is stored')
  const { topics } = (await told(server, '/topics')).body
  t.notOk(
    topics.some(({ topic }) => String(topic).startsWith('$')),
    'nor is it among the topics'
  )
})

t.test('nobody else reads the topics of the operator, whatever the token says', async t => {
  const greedy = bearer(
    await tokenFor({
      subscribe: ['**', '$ringside/**', '$ringside/*', '*/*', '*/instances', '$ringside/instances'],
      publish: ['**', '$ringside/**']
    })
  )
  // somebody listens, so that there is something to see
  await listen(t, server, '/events/%24ringside%2Finstances', { ...SSE, ...(await operator()) })
  for (const filter of ['$ringside/instances', '$ringside/*', '$ringside', '$ringside/exchange']) {
    const name = encodeURIComponent(filter)
    for (const accept of ['text/event-stream', 'application/x-ndjson', 'application/json']) {
      for (const path of [
        `/events/${name}`,
        `/events?topic=a&topic=${name}`,
        `/events/${name}?wait=1&rewind=9`
      ]) {
        isProblem(t, await ask(server, path, { headers: { accept, ...greedy } }), 403, /may not be read/)
        isProblem(t, await ask(server, path, { headers: { accept } }), 401, /a token is needed/)
      }
    }
  }
  const everything = await stream(
    t,
    '/events?topic=*&topic=*/instances'.replace('*/instances', 'a/*'),
    greedy
  )
  const ws = await connect(t, server, { headers: greedy })
  for (const topic of ['$ringside/instances', '$ringside/*']) {
    t.match(await ws.ask('subscribe', { topics: ['a', topic] }), { op: 'error', code: 'forbidden' })
  }
  t.match(await ws.ask('join', { topic: '$ringside/exchange' }), { op: 'error', code: 'forbidden' })
  const anonymous = await connect(t, server)
  t.match(await anonymous.ask('subscribe', { topics: ['$ringside/*'] }), { op: 'error', code: 'forbidden' })
  const watcher = await connect(t, server, { headers: await operator() })
  await watcher.do('subscribe', { topics: [LIVE.instances] })
  await watcher.until(2)
  t.strictSame([everything.messages, ws.events, anonymous.events], [[], [], []], 'while others were told')
})

t.test('nobody writes there but the server', async t => {
  const greedy = bearer(
    await tokenOf({ sub: 'eve', ringside: { publish: ['**', '$ringside/**'], subscribe: ['**'] } })
  )
  const admin = bearer(await tokenOf({ ringside: { publish: ['**'], subscribe: ['**'], admin: true } }))
  const batch = JSON.stringify([
    { topic: 'a', data: 1 },
    { topic: '$ringside/gaps', data: 1 }
  ])
  const json = { 'content-type': 'application/json' }
  for (const headers of [greedy, admin]) {
    isProblem(t, await post(server, '/events/%24ringside%2Fgaps', 'x', headers), 403, /by the server alone/)
    isProblem(t, await post(server, '/events/%24ringside%2Fgaps?end=true', 'x', headers), 403, /server alone/)
    isProblem(t, await post(server, '/events', batch, { ...headers, ...json }), 403, /1.*server alone/)
    const ws = await connect(t, server, { headers })
    for (const [op, message] of [
      ['publish', { topic: '$ringside/gaps', data: 1 }],
      ['signal', { topic: '$ringside/exchange', data: 1 }],
      ['join', { topic: '$ringside/exchange' }]
    ] as const)
      t.match(await ws.ask(op, message), { op: 'error', code: 'forbidden' }, op)
  }
  await t.rejects(server.app.ringside.publish('$ringside/gaps', { data: 1 }), /by the server alone/)
})

t.test('in development mode everybody operates the server, and writes there no more than others', async t => {
  const server = await build(t)
  t.equal((await ask(server, '/admin/api/instances')).status, 200)
  isProblem(t, await post(server, '/events/%24ringside%2Fgaps', 'x'), 403, /by the server alone/)
  const ws = await connect(t, server)
  t.match(await ws.ask('signal', { topic: '$ringside/exchange', data: 1 }), { code: 'forbidden' })

  t.test('one that is drained takes no more streams', async t => {
    const reader = await listen(t, server, '/events/a')
    const { instances } = (await ask(server, '/admin/api/instances')).json() as {
      instances: { id: string }[]
    }
    const [{ id }] = instances as [{ id: string }]
    const drained = await ask(server, `/admin/api/instances/${id}/drain`, { method: 'POST' })
    t.strictSame([drained.status, drained.json()], [202, { instance: id, draining: true }])
    t.match(JSON.parse((await reader.first('goodbye')).data!), { reason: 'shutdown' })
    t.equal((await ask(server, '/readyz')).status, 503)
    const after = (await ask(server, '/admin/api/instances')).json() as { instances: object[] }
    t.match(after.instances, [{ draining: true, unready: 'the server is stopping' }])
    isProblem(t, await ask(server, '/admin/api/instances/x/drain', { method: 'POST' }), 404, /no instance/)
  })
})

/** An event of the operator's topics. */
interface Envelope {
  readonly topic: string
  readonly data: { readonly gaps?: readonly { readonly topics: readonly string[] }[] }
}

/** The id that a reader would come back with. */
function lastId({ frames }: Reader): string {
  return frames.all.findLast(({ id }) => id !== undefined)!.id!
}
