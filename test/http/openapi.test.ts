import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Validator } from '@seriousme/openapi-schema-validator'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import { ringside } from '../../src/app.ts'
import { ask, build, type Answer, type Ask, type TestServer } from '../support/app.ts'
import { launchChromium, violationsOf } from '../support/browser.ts'
import { describe, examplesOf, operationsOf, wrongIn, type Description } from '../support/description.ts'
import { eventually } from '../support/inbox.ts'
import { subscribe } from '../support/reader.ts'
import { instance, redisFor, unready } from '../support/redis-system.ts'
import { StrictParser } from '../support/sse-parser.ts'
import { bearer, SECRET, tokenFor, tokenOf } from '../support/tokens.ts'

const PROBLEM = 'application/problem+json'
const SSE = 'text/event-stream'
const NDJSON = 'application/x-ndjson'
const JSON_BODY = { 'content-type': 'application/json' }
const keyed = (key: string) => ({ ...JSON_BODY, 'idempotency-key': key })

const FILES = [
  ...readdirSync(fileURLToPath(new URL('../../public', import.meta.url))),
  ...['client.js', 'client.js.map', 'client-socket.js', 'client-socket.js.map']
]

// Chromium and a Redis take their time
t.setTimeout(400_000)

t.test('it is OpenAPI 3.1, by its schema', async t => {
  const description = await describe(await build(t))
  const validator = new Validator()
  t.strictSame(await validator.validate(structuredClone(description) as unknown as Record<string, unknown>), {
    valid: true
  })
  t.equal(validator.version, '3.1')
  t.match(description.info, { title: 'Ringside', version: /^\d+\.\d+\.\d+/, license: { name: 'MIT' } })
  t.strictSame(description.servers, [{ url: '.' }], 'where it came from')
  t.match(description.info.description, /`GET \/ws`.*`ringside\.v1\.cbor`/, 'what has no operation')
  t.match(description.components.securitySchemes, {
    bearer: { type: 'http', scheme: 'bearer' },
    cookie: { type: 'apiKey', in: 'cookie', name: 'ringside_token' },
    query: { type: 'apiKey', in: 'query', name: 'token' }
  })
  t.strictSame(description.security[0], {}, 'development mode asks for none')
})

for (const prefix of ['', '/live']) {
  t.test(`every route is in it but the pages and the WebSocket, under ${prefix || '/'}`, async t => {
    const app = Fastify()
    t.teardown(() => app.close())
    const routes: string[] = []
    app.addHook('onRoute', ({ method, url, schema }) => {
      // no page is written to: this answers all other methods of a path with 405
      if (schema?.hide && [method].flat().some(each => !['GET', 'HEAD'].includes(each))) return
      routes.push(...[method].flat().map(each => `${each} ${url.slice(prefix.length)}`))
    })
    await app.register(ringside, { prefix, pages: true })
    await app.ready()
    const { paths } = (await app.inject(`${prefix}/openapi.json`)).json<Description>()
    const described = Object.entries(paths).flatMap(([path, operations]) => {
      return Object.keys(operations).map(
        method => `${method.toUpperCase()} ${path.replace(/\{(\w+)\}/g, ':$1')}`
      )
    })
    // OpenAPI has no words for what comes after the handshake of a WebSocket
    const isHidden = (route: string) =>
      /^(GET|HEAD) \/(docs(\/.*)?|(assets|examples)\/.*|ws|admin)?$/.test(route) ||
      FILES.includes(route.replace(/^(GET|HEAD) \//, ''))
    const shown = routes
      .filter(route => !isHidden(route) && !route.startsWith('OPTIONS '))
      .map(route => route.replace('*', ':topic'))
    t.strictSame([...new Set(shown)].sort(), described.sort())
  })
}

t.test('every operation says what it is, what it takes and what it answers', async t => {
  const description = await describe(await build(t))
  const tags = description.tags.map(({ name }) => name)
  const operations = operationsOf(description)
  t.equal(new Set(operations.map(({ operationId }) => operationId)).size, operations.length)
  for (const { operationId, method, path, summary, tags: own, parameters = [], ...rest } of operations) {
    t.match(operationId, /^[a-z][A-Za-z]+$/)
    t.match(summary, /^[A-Z].*[^.]$/, operationId)
    t.ok(own.length === 1 && tags.includes(own[0]!), `${operationId}: a tag`)
    const inPath = parameters.filter(parameter => parameter.in === 'path').map(({ name }) => `{${name}}`)
    t.strictSame(inPath, path.match(/\{\w+\}/g) ?? [], operationId)
    for (const parameter of parameters) {
      t.match(
        parameter,
        { description: String, schema: { type: String } },
        `${operationId} ${parameter.name}`
      )
      if (parameter.required) t.ok('example' in parameter, `${operationId} ${parameter.name}: an example`)
    }
    const statuses = Object.keys(rest.responses)
    t.ok(
      statuses.some(status => status.startsWith('2')),
      `${operationId}: an answer`
    )
    if (!['operations', 'operator'].includes(own[0]!)) {
      t.ok(
        ['401', '503'].every(status => statuses.includes(status)),
        `${operationId}: errors`
      )
    }
    for (const [status, { description: says, headers, content }] of Object.entries(rest.responses)) {
      t.match(says, /^[A-Z]/, `${operationId} ${status}`)
      t.notMatch(says, /^Default/)
      if (['429', '503'].includes(status)) t.match(headers, { 'Retry-After': Object })
      if (method === 'head') t.equal(content, undefined, `${operationId} has no content`)
      else if (Number(status) >= 400) {
        t.strictSame(Object.keys(content!), [PROBLEM])
        t.strictSame(content![PROBLEM]!.schema, { $ref: '#/components/schemas/Problem' })
        t.ok(examplesOf(content![PROBLEM]!).length > 0, `${operationId} ${status}: an example`)
      }
    }
  }
  t.strictSame(
    operations
      .filter(({ responses }) => SSE in (responses['200']?.content ?? {}))
      .map(({ parameters }) => parameters!.some(({ name }) => name === 'Last-Event-ID')),
    [true, true, true, true, true],
    'what is resumed'
  )
  const required = operations.flatMap(({ operationId, method, parameters = [] }) =>
    parameters
      .filter(parameter => method !== 'head' && parameter.in === 'query' && parameter.required)
      .map(({ name }) => `${operationId} ${name}`)
  )
  t.strictSame(required, ['readTopics topic', 'readQuotes symbols'], 'without them it is 400')
})

t.test('every example is what its schema says', async t => {
  const description = await describe(await build(t))
  for (const { operationId, parameters = [], requestBody, responses } of operationsOf(description)) {
    const bodies = Object.values(responses).flatMap(({ content = {} }) => Object.entries(content))
    for (const [type, media] of [...Object.entries(requestBody?.content ?? {}), ...bodies]) {
      if (type !== 'application/octet-stream') t.ok(examplesOf(media).length > 0, `${operationId}: ${type}`)
      for (const example of examplesOf(media)) {
        fits(t, description, media.schema, example, `${operationId}: ${type}`)
        if (type === SSE) framesOf(String(example))
        if (type === NDJSON) for (const line of String(example).trimEnd().split('\n')) JSON.parse(line)
      }
    }
    for (const { name, schema, ...parameter } of parameters) {
      for (const example of examplesOf({ schema, ...parameter })) {
        fits(t, description, schema, example, `${operationId}: ${name}`)
      }
    }
  }
})

// --- what the server does is what it says ---

/** A request, and the status that it is answered with. */
type Row = readonly [operationId: string, status: number, path: string, request?: Ask]

const LARGE = 'x'.repeat(61_441)

/** In this order: what is there, is there since a row before. */
const ROWS: readonly Row[] = [
  ['readTopics', 200, '/events?topic=a&topic=b/*', { headers: { accept: 'application/json' } }],
  ['readTopics', 400, '/events'],
  ['readTopics', 400, '/events?topic=a&rewind=-1'],
  ['readTopics', 406, '/events?topic=a', { headers: { accept: 'text/html' } }],
  ['readTopic', 400, '/events/a//b'],
  ['readTopic', 400, '/events/a?rewind=-1'],
  ['readTopic', 406, '/events/a', { headers: { accept: 'text/html' } }],
  ['readTopic', 200, '/events/tickers%2FAAPL?rewind=1', { headers: { accept: 'application/json' } }],

  ['publish', 201, '/events/a', { body: '', headers: { 'idempotency-key': 'k' } }],
  ['publish', 201, '/events/a', { body: '', headers: { 'idempotency-key': 'k' } }],
  ['publish', 201, '/events/a%2Fb', { body: LARGE.slice(1), headers: { 'content-type': 'text/plain' } }],
  [
    'publish',
    201,
    '/events/a?type=b&ttl=60',
    { body: '\0\xff', headers: { 'content-type': 'application/octet-stream' } }
  ],
  ['publish', 400, '/events/a//b', { body: 'x' }],
  ['publish', 403, '/events/tickers/AAPL', { body: 'x' }],
  ['publish', 413, '/events/a', { body: LARGE }],
  ['publish', 415, '/events/a', { body: 'x', headers: { 'content-type': 'text/html' } }],
  ['publish', 422, '/events/a?type=cursor', { body: 'x' }],
  ['publish', 422, '/events/a', { body: 'another', headers: { 'idempotency-key': 'k' } }],

  ['publish', 422, '/events/jobs%2F17?end=true&type=done', { body: 'x' }],
  ['publish', 201, '/events/jobs%2F17?end=true', { body: 'x' }],
  ['publish', 409, '/events/jobs%2F17', { body: 'x' }],
  ['readTopic', 204, '/events/jobs%2F17'],
  ['readTopics', 204, '/events?topic=jobs/17'],
  ['readTopic', 200, '/events/jobs%2F17', { headers: { accept: 'application/json' } }],

  ['publishBatch', 201, '/events', { body: '[{"topic":"b","data":1}]', headers: keyed('publishBatch') }],
  ['publishBatch', 201, '/events', { body: '[{"topic":"b","data":1}]', headers: keyed('publishBatch') }],
  ['publishBatch', 400, '/events', { body: '[{"topic":"a//b","data":1}]', headers: JSON_BODY }],
  ['publishBatch', 403, '/events', { body: '[{"topic":"tickers/AAPL","data":1}]', headers: JSON_BODY }],
  [
    'publishBatch',
    413,
    '/events',
    { body: `[{"topic":"b","data":"${LARGE.slice(2)}"}]`, headers: JSON_BODY }
  ],
  ['publishBatch', 415, '/events', { body: '[]', headers: { 'content-type': 'text/plain' } }],
  ['publishBatch', 409, '/events', { body: '[{"topic":"jobs/17","data":1}]', headers: JSON_BODY }],
  ['publishBatch', 422, '/events', { body: '[{"topic":"b","type":"cursor","data":1}]', headers: JSON_BODY }],

  [
    'publishQuotes',
    201,
    '/tickers',
    { body: '{"symbol":"MSFT","price":1}', headers: keyed('publishQuotes') }
  ],
  [
    'publishQuotes',
    201,
    '/tickers',
    { body: '{"symbol":"MSFT","price":1}', headers: keyed('publishQuotes') }
  ],
  ['publishQuotes', 400, '/tickers', { body: '{"symbol":"MSFT","price":"1"}', headers: JSON_BODY }],
  ['publishQuotes', 413, '/tickers', { body: padded({ symbol: 'MSFT', price: 1 }), headers: JSON_BODY }],
  ['publishQuotes', 415, '/tickers', { body: '{}', headers: { 'content-type': 'text/plain' } }],
  [
    'publishQuotes',
    422,
    '/tickers',
    { body: '{"symbol":"MSFT","price":2}', headers: keyed('publishQuotes') }
  ],
  ['readQuotes', 200, '/tickers?symbols=MSFT', { headers: { accept: 'application/json' } }],
  ['readQuotes', 400, '/tickers?symbols=MSFT&rewind=-1'],
  ['readQuotes', 400, '/tickers?symbols=A/B'],
  ['readQuotes', 406, '/tickers?symbols=MSFT', { headers: { accept: 'text/html' } }],

  ['readDashboard', 400, '/dashboards/ops?rewind=-1'],
  ['readDashboard', 400, '/dashboards/*'],
  ['readDashboard', 404, '/dashboards/ops'],
  ['deleteQuote', 400, '/tickers/*'],
  ['deleteQuote', 404, '/tickers/AAPL'],
  ['deleteQuote', 204, '/tickers/MSFT'],
  ['putDashboard', 400, '/dashboards/*', { body: '{}', headers: JSON_BODY }],
  ['putDashboard', 412, '/dashboards/ops', { body: '{}', headers: { ...JSON_BODY, 'if-match': '*' } }],
  ['putDashboard', 413, '/dashboards/ops', { body: padded({}), headers: JSON_BODY }],
  ['putDashboard', 415, '/dashboards/ops', { body: '{}', headers: { 'content-type': 'text/plain' } }],
  ['putDashboard', 422, '/dashboards/ops', { body: '[]', headers: JSON_BODY }],
  ['patchDashboard', 400, '/dashboards/*', { body: '{}', headers: JSON_BODY }],
  ['patchDashboard', 404, '/dashboards/ops', { body: '{}', headers: JSON_BODY }],
  ['patchDashboard', 412, '/dashboards/ops', { body: '{}', headers: { ...JSON_BODY, 'if-match': '*' } }],
  ['deleteDashboard', 400, '/dashboards/*'],
  ['deleteDashboard', 404, '/dashboards/ops'],
  ['deleteDashboard', 412, '/dashboards/ops', { headers: { 'if-match': '*' } }],
  ['putDashboard', 201, '/dashboards/ops', { body: '{}', headers: JSON_BODY }],
  ['putDashboard', 200, '/dashboards/ops', { body: '{"a":1}', headers: { ...JSON_BODY, 'if-match': '*' } }],
  ['patchDashboard', 200, '/dashboards/ops', { body: '{"a":null}', headers: JSON_BODY }],
  ['patchDashboard', 413, '/dashboards/ops', { body: padded({}), headers: JSON_BODY }],
  ['patchDashboard', 415, '/dashboards/ops', { body: '{}', headers: { 'content-type': 'text/plain' } }],
  ['patchDashboard', 422, '/dashboards/ops', { body: '[]', headers: JSON_BODY }],
  ['listDashboards', 200, '/dashboards'],
  ['readDashboard', 200, '/dashboards/ops', { headers: { accept: 'application/json' } }],
  [
    'readDashboard',
    304,
    '/dashboards/ops',
    { headers: { accept: 'application/json', 'if-none-match': '*' } }
  ],
  ['readDashboard', 406, '/dashboards/ops', { headers: { accept: 'text/html' } }],
  ['deleteDashboard', 204, '/dashboards/ops'],

  [
    'sendNotifications',
    201,
    '/notifications',
    { body: '{"to":"bob","title":"Hi"}', headers: keyed('sendNotifications') }
  ],
  [
    'sendNotifications',
    201,
    '/notifications',
    { body: '{"to":"bob","title":"Hi"}', headers: keyed('sendNotifications') }
  ],
  ['sendNotifications', 400, '/notifications', { body: '{"to":"a/b","title":"Hi"}', headers: JSON_BODY }],
  [
    'sendNotifications',
    400,
    '/notifications',
    { body: '{"to":"bob","title":"Hi","url":"javascript:1"}', headers: JSON_BODY }
  ],
  [
    'sendNotifications',
    413,
    '/notifications',
    { body: padded({ title: 'Hi', priority: 'normal' }).replace('{', '{"to":"bob",'), headers: JSON_BODY }
  ],
  ['sendNotifications', 415, '/notifications', { body: '{}', headers: { 'content-type': 'text/plain' } }],
  [
    'sendNotifications',
    422,
    '/notifications',
    { body: '{"to":"bob","title":"Ho"}', headers: keyed('sendNotifications') }
  ],
  ['readNotifications', 200, '/notifications?user=bob', { headers: { accept: 'application/json' } }],
  ['readNotifications', 400, '/notifications'],
  ['readNotifications', 400, '/notifications?user=bob&rewind=-1'],
  ['readNotifications', 406, '/notifications?user=bob', { headers: { accept: 'text/html' } }],
  [
    'markNotificationsRead',
    200,
    '/notifications/read?user=bob',
    { body: '{"all":true}', headers: JSON_BODY }
  ],
  ['markNotificationsRead', 400, '/notifications/read', { body: '{"all":true}', headers: JSON_BODY }],
  [
    'markNotificationsRead',
    413,
    '/notifications/read?user=bob',
    { body: 'x'.repeat(262_145), headers: JSON_BODY }
  ],
  [
    'markNotificationsRead',
    415,
    '/notifications/read?user=bob',
    { body: '{}', headers: { 'content-type': 'text/plain' } }
  ],
  ['markNotificationRead', 400, '/notifications/1795415443570-0/read'],
  ['markNotificationRead', 404, '/notifications/1795415443570-0/read?user=bob'],
  ['deleteNotification', 400, '/notifications/1795415443570-0'],
  ['deleteNotification', 404, '/notifications/1795415443570-0?user=bob'],

  ['listInstances', 200, '/admin/api/instances'],
  ['listConnections', 200, '/admin/api/connections'],
  ['listConnections', 400, '/admin/api/connections?after=x'],
  ['listTopics', 200, '/admin/api/topics'],
  ['listGaps', 200, '/admin/api/gaps'],
  ['showSettings', 200, '/admin/api/settings'],
  ['disconnect', 404, '/admin/api/connections/x.1'],
  ['disconnectUser', 200, '/admin/api/users/bob/connections'],
  ['clearTopic', 400, '/admin/api/topics/a%2F%2Fb'],
  ['clearTopic', 404, '/admin/api/topics/jobs%2F18'],
  ['clearTopic', 200, '/admin/api/topics/jobs%2F17'],
  ['drainInstance', 404, '/admin/api/instances/x/drain'],

  ['live', 200, '/livez'],
  ['ready', 200, '/readyz'],
  ['metrics', 200, '/metrics'],
  ['describe', 200, '/openapi.json']
]

t.test('the server answers as it says', async t => {
  const server = await build(t, { DRAIN: '0' })
  const claims = new Claims(await describe(server))

  for (const row of ROWS) await claims.check(t, server, ...row)

  t.test('the examples of bodies are taken', async t => {
    for (const { operationId, path, requestBody } of claims.operations) {
      for (const [type, media] of Object.entries(requestBody?.content ?? {})) {
        for (const example of examplesOf(media)) {
          const body = typeof example === 'string' ? example : JSON.stringify(example)
          const where = `${path.replace('{topic}', 'orders').replace('{id}', 'ops')}?user=alice`
          await claims.check(t, server, operationId, null, where, { body, headers: { 'content-type': type } })
        }
      }
    }
  })

  t.test('a notification is marked and deleted', async t => {
    const send = { body: '{"to":"carol","title":"Hi"}', headers: JSON_BODY }
    const { ids } = (await ask(server, '/notifications', { method: 'POST', ...send })).json()
    const { carol } = ids as { carol: string }
    await claims.check(t, server, 'markNotificationRead', 200, `/notifications/${carol}/read?user=carol`)
    await claims.check(t, server, 'deleteNotification', 200, `/notifications/${carol}?user=carol`)
  })

  t.test('a connection is ended', async t => {
    await subscribe(t, server, '/events/a')
    const { connections } = (await ask(server, '/admin/api/connections')).json()
    const [{ id }] = connections as [{ id: string }]
    await claims.check(t, server, 'disconnect', 200, `/admin/api/connections/${id}`)
  })

  t.test('the streams begin as the examples do, and end with the server', async t => {
    const post = (path: string, body: object, method = 'POST') =>
      ask(server, path, { method, body: JSON.stringify(body), headers: JSON_BODY })
    await post('/dashboards/ops', claims.example('putDashboard'), 'PUT')
    await post('/notifications/read?user=alice', { all: true })
    const streams: [operationId: string, path: string][] = [
      ['readTopics', '/events?topic=tickers/AAPL'],
      ['readTopic', '/events/tickers/AAPL'],
      ['readQuotes', '/tickers?symbols=AAPL'],
      ['readDashboard', '/dashboards/ops'],
      ['readNotifications', '/notifications?user=alice']
    ]
    const wanted = streams.flatMap(([operationId, path]) =>
      [SSE, NDJSON].map(accept => ({ operationId, path, accept }))
    )
    const answers = wanted.map(({ path, accept }) => ask(server, path, { headers: { accept } }))
    const { sessions } = server.app.ringside.hub
    await eventually(
      () => [...sessions].filter(({ state }) => state === 'live').length,
      count => count === wanted.length,
      'streams that are live'
    )
    await post('/tickers', claims.example('publishQuotes'))
    await post('/dashboards/ops', claims.example('patchDashboard'), 'PATCH')
    await post('/notifications', { ...claims.example('sendNotifications'), to: 'alice' })
    await server.app.ringside.drain()
    for (const [index, { operationId, path, accept }] of wanted.entries()) {
      const answer = await answers[index]!
      claims.holds(t, operationId, path, answer)
      const example = claims.operation(operationId).responses['200']!.content![accept]!.example as string
      t.ok(blank(answer.text).startsWith(blank(example)), `${operationId} ${accept}`, {
        found: answer.text,
        wanted: example
      })
    }
  })

  t.test('with keys it asks who comes', async t => {
    const server = await build(t, { JWT_SECRET: SECRET })
    const token = await tokenFor({ subscribe: ['public'] })
    const cookie = { cookie: `ringside_token=${token}` }
    for (const { operationId, method, path, responses } of claims.operations) {
      if (method === 'head') continue
      const url = path.replace(/\{\w+\}/g, 'x')
      if (responses['401']) await claims.check(t, server, operationId, 401, url)
      else await claims.check(t, server, operationId, 200, url)
      if (method !== 'get') await claims.check(t, server, operationId, 403, url, { headers: cookie })
    }
    const nobody = await tokenOf({ sub: undefined })
    for (const [operationId, path, given] of [
      ['readTopics', '/events?topic=tickers/AAPL', token],
      ['readTopic', '/events/tickers%2FAAPL', token],
      ['readQuotes', '/tickers?symbols=AAPL', token],
      ['readDashboard', '/dashboards/ops', token],
      ['readNotifications', '/notifications', nobody],
      ['listInstances', '/admin/api/instances', token],
      ['listConnections', '/admin/api/connections', token],
      ['listTopics', '/admin/api/topics', token],
      ['listGaps', '/admin/api/gaps', token],
      ['showSettings', '/admin/api/settings', token],
      ['disconnect', '/admin/api/connections/x', token],
      ['disconnectUser', '/admin/api/users/x/connections', token],
      ['clearTopic', '/admin/api/topics/x', token],
      ['drainInstance', '/admin/api/instances/x/drain', token]
    ] as const) {
      await claims.check(t, server, operationId, 403, path, { headers: bearer(given) })
    }
  })

  t.test('it sends no document that is too large', async t => {
    const server = await build(t, { MEMORY: '1MiB' })
    for (const symbol of ['A', 'B', 'C'])
      await ask(server, '/tickers', {
        method: 'POST',
        body: JSON.stringify({ symbol, price: 1, body: 'x'.repeat(50_000 - 34) }),
        headers: JSON_BODY
      })
    await claims.check(t, server, 'readQuotes', 422, '/tickers?symbols=*', {
      headers: { accept: 'application/json' }
    })
  })

  t.test('it takes no more readers while it stops', async t => {
    for (const [operationId, path] of [
      ['readTopics', '/events?topic=a'],
      ['readTopic', '/events/a'],
      ['readQuotes', '/tickers?symbols=A'],
      ['readDashboard', '/dashboards/ops'],
      ['readNotifications', '/notifications?user=bob'],
      ['ready', '/readyz']
    ] as const) {
      await claims.check(t, server, operationId, 503, path)
    }
    const { instances } = (await ask(server, '/admin/api/instances')).json()
    const [{ id }] = instances as [{ id: string }]
    await claims.check(t, server, 'drainInstance', 202, `/admin/api/instances/${id}/drain`)
    const turned = await ask(server, '/events/a', { headers: { accept: SSE } })
    t.match(framesOf(turned.text), [{ event: 'goodbye', data: /shutdown/ }], 'an EventSource comes back')
    claims.holds(t, 'readTopic', '/events/a', turned)
  })

  t.test('it stores nothing without its Redis', async t => {
    const redis = await redisFor(t)
    const server = await instance(t, redis.url)
    await redis.stop()
    await unready(server)
    const id = '1795415443570-0'
    for (const [operationId, path, body] of [
      ['publish', '/events/a', '1'],
      ['publishBatch', '/events', '[{"topic":"a","data":1}]'],
      ['publishQuotes', '/tickers', '{"symbol":"A","price":1}'],
      ['deleteQuote', '/tickers/A'],
      ['listDashboards', '/dashboards'],
      ['putDashboard', '/dashboards/ops', '{}'],
      ['patchDashboard', '/dashboards/ops', '{}'],
      ['deleteDashboard', '/dashboards/ops'],
      ['sendNotifications', '/notifications', '{"to":"bob","title":"Hi"}'],
      ['markNotificationsRead', '/notifications/read?user=bob', '{"all":true}'],
      ['markNotificationRead', `/notifications/${id}/read?user=bob`],
      ['deleteNotification', `/notifications/${id}?user=bob`],
      ['clearTopic', '/admin/api/topics/a']
    ] as const) {
      const request = body === undefined ? {} : { body, headers: JSON_BODY }
      await claims.check(t, server, operationId, 503, path, request)
    }
  })

  t.test('it refuses what is past the limits of a client', async t => {
    const reads = [
      ['readTopics', '/events?topic=a'],
      ['readTopic', '/events/a'],
      ['readQuotes', '/tickers?symbols=A'],
      ['readDashboard', '/dashboards/ops'],
      ['readNotifications', '/notifications?user=bob']
    ] as const
    const id = '1795415443570-0'
    const writes = [
      ['publish', '/events/a'],
      ['publishBatch', '/events'],
      ['publishQuotes', '/tickers'],
      ['deleteQuote', '/tickers/A'],
      ['putDashboard', '/dashboards/ops'],
      ['patchDashboard', '/dashboards/ops'],
      ['deleteDashboard', '/dashboards/ops'],
      ['sendNotifications', '/notifications'],
      ['markNotificationsRead', '/notifications/read?user=bob'],
      ['markNotificationRead', `/notifications/${id}/read?user=bob`],
      ['deleteNotification', `/notifications/${id}?user=bob`]
    ] as const
    // whoever comes over a proxy is not on loopback, which has no limits
    const headers = { 'x-forwarded-for': '203.0.113.1', accept: NDJSON }
    const put = { method: 'PUT', body: '{}', headers: JSON_BODY }
    const limited = await build(t, { TRUST_PROXY: 'true', CONNECT_RATE: '0' })
    await ask(limited, '/dashboards/ops', put)
    for (let count = 0; count < 100; count++) await subscribe(t, limited, '/events/a', headers)
    for (const [operationId, path] of reads) {
      await claims.check(t, limited, operationId, 429, path, { headers })
    }

    const fast = await build(t, { TRUST_PROXY: 'true', MAX_CONNECTIONS_PER_CLIENT: '0' })
    await ask(fast, '/dashboards/ops', put)
    for (const [operations, count] of [[reads, 50] as const, [writes, 150] as const]) {
      for (const [operationId, path] of operations) {
        const method = claims.operation(operationId).method.toUpperCase()
        // on a slow machine fewer of them come within one second
        let refused: NonNullable<Awaited<ReturnType<typeof refusal>>>[] = []
        for (let many = count; refused.length === 0 && many < 20 * count; many *= 2) {
          const answers = await Promise.all(
            Array.from({ length: many }, () => refusal(`${fast.url}${path}`, { method, headers }))
          )
          refused = answers.filter(answer => answer !== null)
        }
        t.ok(refused.length > 0, `${operationId}: some are refused`)
        for (const answer of refused) claims.holds(t, operationId, path, answer)
      }
    }
  })

  t.test('and all that it says was answered here', async t => {
    t.strictSame(claims.unseen, [])
  })
})

t.test('/docs shows it, and asks the server', async t => {
  const browser = await launchChromium()
  t.teardown(() => browser.close())
  for (const [path, prefix] of [
    ['', ''],
    ['/app', '/:tenant/live']
  ] as const) {
    const where = `${path}${prefix.replace(':tenant', 'acme')}`
    t.test(`at ${where}/docs`, async t => {
      // a path that a proxy in front takes off again
      const app = Fastify({ rewriteUrl: ({ url = '' }) => url.slice(url.startsWith(path) ? path.length : 0) })
      t.teardown(() => app.close())
      await app.register(ringside, { prefix, pages: true })
      const url = `${await app.listen({ host: '127.0.0.1', port: 0 })}${where}`
      const page = await browser.newPage()
      const wrong: string[] = []
      page.on('pageerror', error => wrong.push(String(error)))
      page.on('console', message => message.type() === 'error' && wrong.push(message.text()))
      page.on('request', request => {
        if (!request.url().startsWith(`${url}/`) && !request.url().startsWith('data:'))
          wrong.push(request.url())
      })
      for (const entry of ['docs', 'docs?from=a', 'docs/?from=a', 'docs/static/index.html']) {
        await page.goto(`${url}/${entry}`)
        t.equal(page.url(), `${url}/docs/`)
      }
      await page.click('#operations-events-publish .opblock-summary')
      await page.waitForSelector('#operations-events-publish .responses-table .example')
      t.match(await page.textContent('.info .title'), /Ringside/)
      t.match(await page.textContent('#operations-events-publish'), /61441 bytes/, 'an example of an error')

      const read = '#operations-events-readTopics'
      await page.click(`${read} .opblock-summary`)
      await page.click(`${read} .try-out__btn`)
      await page.click(`${read} .execute`)
      await page.waitForSelector(`${read} .ringside-log td >> text=cursor`)
      t.equal(await page.textContent(`${read} .live-responses-table .response-col_status >> nth=1`), '200')

      for (const foreign of ['.topbar', '.servers', '.opblock-head'])
        t.equal(await page.locator(foreign).first().isVisible(), false, foreign)
      for (const colorScheme of ['light', 'dark'] as const) {
        await page.emulateMedia({ colorScheme })
        // it looks for that once
        await page.goto(`${url}/docs/`)
        await page.waitForSelector('.opblock')
        t.strictSame(await violationsOf(page, ['color-contrast']), [], colorScheme)
      }
      t.strictSame(wrong, [])
    })
  }
})

/** What a description says that a server does, and what of it was seen. */
class Claims {
  readonly operations: ReturnType<typeof operationsOf>
  readonly #description: Description
  readonly #seen = new Set<string>()

  constructor(description: Description) {
    this.#description = description
    this.operations = operationsOf(description)
  }

  operation(operationId: string) {
    return this.operations.find(operation => operation.operationId === operationId)!
  }

  /** The example of what it takes as JSON. */
  example(operationId: string): object {
    return this.operation(operationId).requestBody!.content['application/json']!.example as object
  }

  /** Asks, and a GET without its content, too. `status`: null for any that is no error. */
  async check(
    t: Test,
    server: Pick<TestServer, 'port'>,
    operationId: string,
    status: number | null,
    path: string,
    request: Ask = {}
  ): Promise<void> {
    const { method } = this.operation(operationId)
    const answer = await ask(server, path, { ...request, method: method.toUpperCase() })
    if (status === null) t.ok(answer.status < 300, `${operationId}: ${answer.status} ${answer.text}`)
    else t.equal(answer.status, status, `${operationId} ${path}: ${answer.text}`)
    this.holds(t, operationId, path, answer)
    if (method !== 'get') return
    const head = await ask(server, path, { ...request, method: 'HEAD' })
    t.equal(head.status, answer.status, `HEAD ${path}`)
    t.equal(head.text, '')
    this.holds(t, `${operationId}Head`, path, head)
  }

  /** Asserts that an answer is one that is described. */
  holds(t: Test, operationId: string, path: string, { status, headers, text }: Answer): void {
    const operation = this.operation(operationId)
    const what = `${operationId} ${status}`
    t.match(path.split('?')[0], new RegExp(`^${operation.path.replace(/\{\w+\}/g, '.+')}$`), what)
    const response = operation.responses[status]
    if (!response) return void t.fail(`${what} is not described: ${path}`)
    this.#seen.add(what)
    const names = Object.keys(response.headers ?? {})
    for (const name of names) if (name.toLowerCase() in headers) this.#seen.add(`${what} ${name}`)
    for (const name of ['ETag', 'Idempotent-Replayed', 'Retry-After', 'Ringside-Cursor']) {
      if (name.toLowerCase() in headers) t.ok(names.includes(name), `${what} has ${name}`)
    }
    if (text === '') return
    const type = headers['content-type']!.split(';')[0]!
    const media = response.content?.[type]
    if (!media) return void t.fail(`${what} as ${type} is not described`)
    this.#seen.add(`${what} ${type}`)
    const body: unknown = /json$/.test(type) && type !== NDJSON ? JSON.parse(text) : text
    fits(t, this.#description, media.schema, body, what)
    if (type === PROBLEM) this.#seen.add(`${what} ${text}`)
  }

  /** What was said, and has not been seen. */
  get unseen(): string[] {
    const said = this.operations.flatMap(({ operationId, responses }) =>
      Object.entries(responses).flatMap(([status, { headers = {}, content = {} }]) => {
        const what = `${operationId} ${status}`
        const problems = (content[PROBLEM] ? examplesOf(content[PROBLEM]) : []).map(
          problem => `${what} ${JSON.stringify(problem)}`
        )
        const names = [...Object.keys(headers), ...Object.keys(content)]
        return [what, ...names.map(name => `${what} ${name}`), ...problems]
      })
    )
    return said.filter(each => !this.#seen.has(each))
  }
}

/** The answer, where it is a 429; what is served is not waited for. */
async function refusal(url: string, request: RequestInit): Promise<Answer | null> {
  const response = await fetch(url, request)
  const { status, headers } = response
  if (status !== 429) return response.body?.cancel().then(() => null) ?? null
  const text = await response.text()
  return {
    status,
    text,
    headers: Object.fromEntries(headers),
    json: () => JSON.parse(text) as Record<string, unknown>
  }
}

/** Asserts that a value is what a schema of the description says. */
function fits(t: Test, description: Description, schema: object, value: unknown, what: string): void {
  t.strictSame(wrongIn(description, schema, value), [], `${what}: ${JSON.stringify(value).slice(0, 200)}`)
}

function framesOf(text: string) {
  const parser = new StrictParser()
  const frames = parser.push(Buffer.from(text))
  parser.end()
  return frames
}

/** A stream without what is another one each time: ids and times. */
function blank(text: string): string {
  return text.replace(/\b\d{13}(-\d+)?\b/g, '…')
}

/** JSON of 61,500 bytes: more than an event may have. */
function padded(value: object): string {
  const empty = { ...value, body: '' }
  return JSON.stringify({ ...empty, body: 'x'.repeat(61_500 - JSON.stringify(empty).length) })
}
