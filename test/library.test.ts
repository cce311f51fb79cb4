import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { Agent, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import accepts from '@fastify/accepts'
import cors from '@fastify/cors'
import swagger from '@fastify/swagger'
import websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import t, { type Test } from 'tap'
import { WebSocket, WebSocketServer } from 'ws'
import { systemClock, type Clock } from '../src/clock.ts'
import {
  ConfigError,
  Problem,
  readSettings,
  resolveSettings,
  ringside,
  StreamRequest,
  type EventToPublish,
  type Grant,
  type RingsideOptions
} from '../src/index.ts'
import { SocketSink } from '../src/net/socket-sink.ts'
import { ask, build, isProblem, post, type TestServer } from './support/app.ts'
import { makeCertificate } from './support/certificate.ts'
import { openSession, openStream } from './support/http2.ts'
import { eventually, inTime } from './support/inbox.ts'
import { rawConnection } from './support/raw.ts'
import { listen, subscribe } from './support/reader.ts'
import { bearer, SECRET, tokenFor } from './support/tokens.ts'
import { connect } from './support/websocket.ts'

// some of them start processes
t.setTimeout(400_000)

const JSON_BODY = { 'content-type': 'application/json' }

/** A host app with Ringside under /live, not listening. */
async function host(t: Test, options: RingsideOptions = {}, app: FastifyInstance = Fastify()) {
  t.teardown(() => app.close())
  await app.register(ringside, { prefix: '/live', ...options })
  return app
}

async function listening(app: FastifyInstance): Promise<TestServer> {
  const url = await app.listen({ host: '127.0.0.1', port: 0 })
  return { app, url, port: (app.server.address() as AddressInfo).port }
}

t.test('settings may be partial, as text or as the program uses them', async t => {
  t.strictSame(resolveSettings(), readSettings({}))
  const whole = readSettings({
    RING_TTL: '1h',
    CORS_ORIGIN: 'https://a.example,https://b.example',
    DRAIN: '0'
  })
  t.strictSame(resolveSettings(whole), whole, 'settings that were read are settings')
  t.match(
    resolveSettings({
      ...{ RING_SIZE: 5, HEARTBEAT: 1500, RETRY: '3', SEND_BUFFER: 4096, MAX_EVENT_BYTES: '1 KiB' },
      ...{ CORS_ORIGIN: ['https://page.example'], DEMO: false, KEY_PREFIX: 'a:', REDIS_URL: undefined }
    }),
    {
      ...{ RING_SIZE: 5, HEARTBEAT: 1500, RETRY: 3000, SEND_BUFFER: 4096, MAX_EVENT_BYTES: 1024 },
      ...{ CORS_ORIGIN: ['https://page.example'], DEMO: false, KEY_PREFIX: 'a:', REDIS_URL: '' }
    }
  )
  for (const [partial, says] of [
    [{ RING_SIZE: 0 }, /^RING_SIZE=0: .*whole number from 1/],
    [{ RING_SIZE: 1.5 }, /^RING_SIZE=1\.5: /],
    [{ HEARTBEAT: -1 }, /^HEARTBEAT=-1ms: .*duration/],
    [{ RING_TTL: Infinity }, /^RING_TTL=Infinityms: /],
    [{ MAX_EVENT_BYTES: NaN }, /^MAX_EVENT_BYTES=NaN: /],
    [{ RING_SIZ: 5 }, /^RING_SIZ: there is no such setting/],
    [{ SHARDS: 2 }, /memory broker/]
  ] as const) {
    t.throws(() => resolveSettings(partial as object), { message: says, constructor: ConfigError })
  }
  const loading = async () => void (await Fastify().register(ringside, { settings: { RETRY: 'soon' } }))
  await t.rejects(loading(), { message: /^RETRY=soon: / })
})

const SERVERS = [
  ['without StreamRequest', () => Fastify()],
  ['with StreamRequest', () => Fastify({ http: { IncomingMessage: StreamRequest } })]
] as const

for (const [name, make] of SERVERS) {
  t.test(`streams and pages under the prefix, ${name}`, async t => {
    const { app, port } = await listening(await host(t, {}, make()))

    const stream = await listen(t, { port }, '/live/events?topic=a&topic=b/*')
    t.match(stream.response.headers, {
      'content-type': /^text\/event-stream/,
      'ringside-cursor': stream.cursor
    })
    const lines = request({ port, path: '/live/events/a', headers: { accept: 'application/x-ndjson' } }).end()
    t.teardown(() => lines.destroy())
    const line = inTime(
      new Promise<string>((resolve, reject) => {
        lines.on('error', reject)
        lines.on('response', response => response.once('data', (chunk: Buffer) => resolve(chunk.toString())))
      }),
      'a line'
    )
    await inTime(new Promise(resolve => lines.once('response', resolve)), 'the head of the other stream')

    const first = await app.ringside.publish('a', { data: { n: 1 }, type: 'tick' })
    t.match(await stream.next(), { id: first, event: 'tick', data: '{"n":1}' })
    t.match(JSON.parse(await line), { id: first, topic: 'a', type: 'tick', data: { n: 1 } })
    const second = (await post({ port }, '/live/events/b/c', 'text')).json()['id'] as string
    t.match(await stream.next(), { id: second, data: 'text' })

    const resumed = await subscribe(t, { port }, `/live/events/b/c?after=${first}`)
    t.match(await resumed.next(), { id: first, event: 'cursor' })
    t.match(await resumed.next(), { id: second, data: 'text' })

    const page = await app.inject({
      url: `/live/events?topic=a&topic=b/c&rewind=2&limit=1`,
      headers: { accept: 'application/json' }
    })
    t.match(page.json(), { events: [{ id: first, data: { n: 1 } }], more: true, gap: null })

    t.equal((await ask({ port }, '/events/a')).status, 404, 'nothing outside the prefix')
    t.equal((await ask({ port }, '/livez')).status, 404)
    t.equal((await ask({ port }, '/live/livez')).status, 200)
    t.equal((await ask({ port }, '/live/readyz')).status, 200)
    t.match((await ask({ port }, '/live/metrics')).text, /ringside_connections\{transport="sse"\} 2/)
  })

  t.test(`closing the app ends its streams, also on kept connections, ${name}`, async t => {
    const { app, port } = await listening(await host(t, {}, make()))
    const agent = new Agent({ keepAlive: true })
    t.teardown(() => agent.destroy())
    const stream = await listen(t, { port }, '/live/events/a')
    const kept = request({
      port,
      path: '/live/events/a',
      agent,
      headers: { accept: 'text/event-stream' }
    }).end()
    const text = new Promise<string>((resolve, reject) => {
      let text = ''
      kept.on('error', reject)
      kept.on('response', response => {
        response.on('data', (chunk: Buffer) => (text += chunk.toString()))
        response.on('end', () => resolve(text))
      })
    })
    await inTime(new Promise(resolve => kept.once('response', resolve)), 'the head')
    await inTime(app.close(), 'the end of the app')
    t.match((await stream.whole()).at(-1), { event: 'goodbye', data: /shutdown/ })
    t.match(await inTime(text, 'the end of the stream'), /event: goodbye/)
    t.equal(app.ringside.hub.sessions.size, 0)
  })
}

t.test('after the app has closed no timer starts itself or another over', async t => {
  const callbacks = new Set<() => void>()
  let armed = 0
  const clock: Clock = {
    ...systemClock,
    after(ms, callback) {
      callbacks.add(callback)
      armed++
      const timer = systemClock.after(ms, callback)
      return { refresh: () => (armed++, timer.refresh()), cancel: () => timer.cancel() }
    }
  }
  const app = await host(t, { clock, settings: { DEMO: true } })
  const server = await listening(app)
  const stream = await listen(t, server, '/live/events/a?heartbeat=300')
  await app.close()
  await stream.whole()
  const before = armed
  t.ok(before > 0)
  for (const callback of callbacks) callback()
  t.equal(armed, before)
})

t.test('what the host has of its own is untouched, and does not reach inside', async t => {
  const app = Fastify({ ajv: { customOptions: { coerceTypes: false, removeAdditional: 'all' } } })
  t.teardown(() => app.close())
  app.setErrorHandler((error: Error, _request, reply) => reply.code(418).send({ host: error.message }))
  app.setNotFoundHandler((_request, reply) => reply.code(404).send({ host: 'nothing here' }))
  app.removeContentTypeParser('application/json')
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (_request, body, done) =>
    done(null, { parsed: body })
  )
  app.setValidatorCompiler(() => () => ({ error: new Error('refused by the host') }))
  app.setSerializerCompiler(() => () => '"of the host"')
  app.setSchemaErrorFormatter(() => new Error('formatted by the host'))
  await app.register(ringside, { prefix: '/live/', settings: { CORS_ORIGIN: '*' } })
  app.post('/own', async request => request.body)
  app.get('/fails', async () => {
    throw new Error('oh')
  })
  app.get('/checked', { schema: { querystring: { type: 'object' } } }, async () => '')
  const server = await listening(app)

  await t.test('outside', async t => {
    t.match((await post(server, '/own', '{"a":1}', JSON_BODY)).json(), { parsed: '{"a":1}' })
    t.equal((await post(server, '/own', 'x', { 'content-type': 'application/x-ndjson' })).status, 418)
    const failed = await ask(server, '/fails', { headers: { origin: 'https://page.example' } })
    t.equal(failed.status, 418)
    t.notOk(failed.headers['access-control-allow-origin'])
    t.match((await ask(server, '/checked')).json(), { host: 'refused by the host' })
    for (const path of [
      '/nothing',
      '/livestock',
      '/live/nothing',
      '/live/',
      '/live/docs',
      '/live/openapi.json'
    ])
      t.match((await ask(server, path)).json(), { host: 'nothing here' }, path)
    t.equal((await ask(server, '/livestock', { method: 'OPTIONS' })).status, 404)
    t.equal((await ask(server, '/own', { method: 'OPTIONS' })).status, 404)
  })

  await t.test('inside', async t => {
    const stream = await listen(t, server, '/live/events?topic=a&rewind=1&envelope=true&rate=2.5')
    const posted = await post(server, '/live/events/a?ttl=60', '{"n": 12345678901234567890}', JSON_BODY)
    t.equal(posted.status, 201)
    t.match(posted.json(), { id: String, topic: 'a' })
    t.match(await stream.next(), { data: /"data":\{"n":12345678901234567890\}/ })
    const problem = isProblem(
      t,
      await ask(server, '/live/events?topic=a&rewind=-1'),
      400,
      /rewind must be >= 0/
    )
    t.match(problem['errors'], [{ path: 'querystring/rewind' }])
    isProblem(t, await post(server, '/live/events/tickers/A', 'x'), 403, /tickers/)
    const preflight = await ask(server, '/live/events/a', {
      method: 'OPTIONS',
      headers: { origin: 'https://page.example', 'access-control-request-method': 'POST' }
    })
    t.equal(preflight.headers['access-control-allow-origin'], '*')
  })
})

t.test('it shares an app with the same plugins, before it and after it', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(cors, { origin: 'https://host.example' })
  await app.register(accepts)
  await app.register(swagger, { openapi: { info: { title: 'Host', version: '1' } } })
  await app.register(ringside, { prefix: '/live', pages: true })
  await app.ready()
  t.match((await app.inject('/live/livez')).headers, {
    'access-control-allow-origin': 'https://host.example'
  })
  t.match((await app.inject('/live/openapi.json')).json(), { info: { title: 'Ringside' } })

  const later = Fastify()
  t.teardown(() => later.close())
  await later.register(ringside, { prefix: '/live', settings: { CORS_ORIGIN: ['https://page.example'] } })
  await later.register(cors, { origin: 'https://host.example' })
  await later.register(accepts)
  later.get('/own', async request => request.accepts().type(['json']))
  t.equal((await later.inject('/live/livez')).statusCode, 200)
  const own = await later.inject({ url: '/own', headers: { accept: 'application/json' } })
  t.equal(own.body, 'json')
  t.equal(own.headers['access-control-allow-origin'], 'https://host.example')
})

t.test('two of them in one server, each in its part of the app', async t => {
  const app = Fastify({ http: { IncomingMessage: StreamRequest } })
  t.teardown(() => app.close())
  const publish: ((data: string) => Promise<string>)[] = []
  for (const prefix of ['/one', '/two']) {
    await app.register(async part => {
      await part.register(ringside, { prefix })
      publish.push(data => part.ringside.publish('a', { data }))
    })
  }
  const server = await listening(app)
  const [one, two] = [await listen(t, server, '/one/events/a'), await listen(t, server, '/two/events/a')]
  await publish[0]!('for one')
  await publish[1]!('for two')
  t.match(await one.next(), { data: 'for one' })
  t.match(await two.next(), { data: 'for two' })
  for (const prefix of ['one', 'two']) {
    const client = await connect(t, server, { path: `/${prefix}/ws` })
    await client.do('subscribe', { topics: ['a'], rewind: 1 })
    t.match(await client.until(1), [{ data: `for ${prefix}` }])
  }
})

for (const [name, make] of SERVERS) {
  t.test(`a request that asks to upgrade to something else is answered as any other, ${name}`, async t => {
    const server = await listening(await host(t, {}, make()))
    const connection = rawConnection(t, server)
    const asks = 'Host: localhost\r\nConnection: keep-alive, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n'
    connection.send(`GET /live/livez HTTP/1.1\r\n${asks}\r\n`)
    t.match(await connection.until('"ok"}'), /^HTTP\/1\.1 200 /)
    connection.send(`POST /live/events/a HTTP/1.1\r\n${asks}Content-Length: 6\r\n\r\nup`)
    connection.send('grad')
    await connection.until('"topic":"a"}')
    connection.send(`GET /live/ws HTTP/1.1\r\n${asks}\r\n`)
    await connection.until('Upgrade Required')
    connection.send(
      'GET /live/events?topic=a&rewind=1 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n'
    )
    await connection.until('data: upgrad')
  })

  t.test(`WebSockets under the prefix, ${name}`, async t => {
    const { app, port } = await listening(await host(t, {}, make()))
    const client = await connect(t, { port }, { path: '/live/ws?user=alice' })
    const stream = await listen(t, { port }, '/live/events?topic=a')
    await client.do('subscribe', { topics: ['a'] })
    const id = await app.ringside.publish('a', { data: { n: 1 } })
    t.match(await client.until(1), [{ id, topic: 'a', data: { n: 1 } }])
    t.match(await client.do('publish', { topic: 'a', data: 2 }), { op: 'ok', id: String })
    await stream.until(2)
    await t.rejects(connect(t, { port }, { path: '/ws' }), /404/, 'nothing outside the prefix')
    await t.rejects(connect(t, { port }, { path: '/live/events/a' }), /200/, 'nor elsewhere under it')
    const { closed } = client
    await inTime(app.close(), 'the end of the app')
    t.match(await closed, { code: 1001, reason: /shutdown/ })
    t.equal(app.ringside.hub.connections.size, 0)
  })

  t.test(`a host with WebSockets of its own, ${name}`, async t => {
    const echo = (socket: WebSocket) => void socket.on('message', (text: Buffer) => socket.send(text))
    const own = make()
    await own.register(websocket, { options: { maxPayload: 100 } })
    own.get('/own', { websocket: true }, echo)
    const server = await listening(await host(t, { settings: { WS_MAX_BYTES: 50 } }, own))
    await echoes(t, server, '/own')
    const client = await connect(t, server, { path: '/live/ws', protocols: ['x', 'ringside.v1.json'] })
    t.equal(client.ws.protocol, 'ringside.v1.json')
    t.match(await client.do('subscribe', { topics: ['a'] }), { op: 'ok' })
    const stream = await listen(t, server, '/live/events?topic=a')
    await client.do('publish', { topic: 'a', data: 1 })
    await client.until(1)
    await stream.until(1)
    client.send({ op: 'ping', ref: 'x'.repeat(60) })
    t.equal((await client.closed).code, 1009, 'its larger limit is not ours')

    const others = make()
    const wss = new WebSocketServer({ noServer: true })
    wss.on('connection', echo)
    others.server.on('upgrade', (request, socket, head) => {
      if (request.url === '/own') wss.handleUpgrade(request, socket, head, ws => wss.emit('connection', ws))
    })
    const beside = await listening(await host(t, {}, others))
    await echoes(t, beside, '/own')
    await (await connect(t, beside, { path: '/live/ws' })).do('ping')
    await listen(t, beside, '/live/events?topic=a')
    await echoes(t, beside, '/own')
  })
}

const ROUTERS: readonly [name: string, prefix: string, options: FastifyServerOptions, path: string][] = [
  ['a prefix with a parameter', '/:tenant/live', {}, '/acme/live/ws'],
  ['rewriteUrl', '/live', { rewriteUrl: ({ url = '' }) => url.replace(/^\/api/, '/live') }, '/api/ws?user=a'],
  ['ignoreTrailingSlash', '/live', { routerOptions: { ignoreTrailingSlash: true } }, '/live/ws/'],
  ['ignoreDuplicateSlashes', '/live', { routerOptions: { ignoreDuplicateSlashes: true } }, '//live//ws'],
  ['caseSensitive: false', '/live', { routerOptions: { caseSensitive: false } }, '/LIVE/Ws'],
  [
    'useSemicolonDelimiter',
    '/live',
    { routerOptions: { useSemicolonDelimiter: true } as object },
    '/live/ws;user=a'
  ],
  ['an encoded path', '/live', {}, '/l%69ve/ws']
]

for (const [name, prefix, options, path] of ROUTERS) {
  t.test(`the WebSocket is found where the router finds it: ${name}`, async t => {
    const app = Fastify({ http: { IncomingMessage: StreamRequest }, ...options })
    // what is not for Ringside is left to others, so that it has to know what is
    app.server.on('upgrade', ignore)
    const server = await listening(await host(t, { prefix }, app))
    const client = await connect(t, server, { path })
    t.match(await client.do('ping'), { op: 'pong' })
  })
}

t.test('a stream whose path is written in another way is taken from Node as well', async t => {
  const app = Fastify({ http: { IncomingMessage: StreamRequest }, routerOptions: { caseSensitive: false } })
  const server = await listening(await host(t, {}, app))
  await listen(t, server, '/LIVE/%65vents/a')
  t.ok([...app.ringside.hub.sessions][0]!.sink instanceof SocketSink)
})

function ignore(): void {}

async function echoes(t: Test, { port }: TestServer, path: string): Promise<void> {
  const ws = new WebSocket(`ws://127.0.0.1:${port}${path}`)
  t.teardown(() => ws.terminate())
  ws.on('open', () => ws.send('hello'))
  const text = new Promise<string>((resolve, reject) => {
    ws.on('message', (message: Buffer) => resolve(message.toString()))
    ws.on('error', reject)
  })
  t.equal(await inTime(text, 'an echo'), 'hello')
  ws.terminate()
}

t.test('a stream that is injected, as a stream', async t => {
  const app = await host(t)
  const abort = new AbortController()
  const answer = await app.inject({
    url: '/live/events/a',
    headers: { accept: 'text/event-stream' },
    payloadAsStream: true,
    signal: abort.signal
  })
  t.equal(answer.statusCode, 200)
  let bytes = 0
  const stream = answer.stream()
  stream.on('error', ignore)
  for (let n = 0; n < 4; n++) await app.ringside.publish('a', { data: 'x'.repeat(30_000) })
  stream.on('data', (chunk: Buffer) => (bytes += chunk.length))
  await eventually(
    () => bytes,
    bytes => bytes > 120_000,
    'what was more than the stream holds'
  )
  abort.abort()
  await eventually(
    () => app.ringside.hub.sessions.size,
    size => size === 0,
    'its end'
  )
})

t.test('a poll that is injected keeps the process until it is answered', async t => {
  const code = `
    import Fastify from 'fastify'
    import { ringside } from '${new URL('../src/index.ts', import.meta.url).href}'
    const app = Fastify()
    await app.register(ringside, { prefix: '/live' })
    const answer = await app.inject({ url: '/live/events/a?wait=1', headers: { accept: 'application/json' } })
    console.log(answer.statusCode)
    await app.close()`
  const child = spawn(process.execPath, ['--import=tsx', '--input-type=module', '--eval', code])
  t.teardown(() => child.kill())
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => (output += chunk.toString()))
  const status = new Promise(resolve => child.on('close', resolve))
  t.equal(await inTime(status, 'its end', () => output), 0, output)
  t.equal(output, '200\n')
})

const TIME_OUTS = [
  ...(['connectionTimeout', 'requestTimeout', 'handlerTimeout'] as const).flatMap(name =>
    SERVERS.map(([kind, _make], index) => [name, kind, index === 1] as const)
  )
]

t.test("the host's handlerTimeout says when to come back", async t => {
  const app = await host(t, { grant: () => new Promise<Grant>(ignore) }, Fastify({ handlerTimeout: 50 }))
  const answer = await app.inject({ method: 'PUT', url: '/live/dashboards/a', payload: {} })
  t.match(answer, { statusCode: 503, headers: { 'retry-after': '1' } })
})

t.test('it can be registered by an import', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(import('../src/index.ts'), { prefix: '/live' })
  t.equal((await app.inject('/live/livez')).statusCode, 200)
})

for (const [name, kind, takes] of TIME_OUTS) {
  t.test(`the host's ${name} ends neither streams nor held polls, ${kind}`, async t => {
    const app = Fastify({ [name]: 300, ...(takes && { http: { IncomingMessage: StreamRequest } }) })
    const server = await listening(await host(t, { settings: { HEARTBEAT: '60s' } }, app))
    const stream = await listen(t, server, '/live/events/a')
    const poll = await ask(server, '/live/events/a?wait=1', { headers: { accept: 'application/json' } })
    t.equal(poll.status, 200, poll.text)
    await app.ringside.publish('a', { data: 'still here' })
    t.match(await stream.next(), { data: 'still here' })
  })
}

t.test("the host's time-outs end neither streams nor held polls, over HTTP/2", async t => {
  const { TLS_CERT, TLS_KEY, ca } = makeCertificate(t.testdir())
  const app = Fastify({
    ...{ http2: true, connectionTimeout: 300, http2SessionTimeout: 300 },
    https: { cert: readFileSync(TLS_CERT), key: readFileSync(TLS_KEY) }
  }) as unknown as FastifyInstance
  const { url } = await listening(await host(t, { settings: { HEARTBEAT: '60s' } }, app))
  const [polls, streams] = [await openSession(t, url, ca), await openSession(t, url, ca)]
  const { frames } = await openStream(streams, '/live/events/a', { accept: 'text/event-stream' })
  const poll = await openStream(polls, '/live/events/a?wait=1', { accept: 'application/json' })
  t.equal(poll.headers[':status'], 200)
  await app.ringside.publish('a', { data: 'still here' })
  await frames.until(() => frames.all.at(-1)?.data === 'still here', 'an event')
  await inTime(new Promise(resolve => polls.once('close', resolve)), 'the end of the one that idles')
})

t.test('only the streams of Ringside are taken from Node', async t => {
  const app = Fastify({ http: { IncomingMessage: StreamRequest } })
  const closed = new Map<string, Promise<void>>()
  const paths = ['/admin/events', '/events', '/live/eventsource', '/live2/events/a', '/live/own/events']
  for (const path of paths) {
    app.get(path, (request, reply) => {
      closed.set(path, new Promise(resolve => request.raw.on('close', resolve)))
      reply.hijack()
      reply.raw.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: 1\n\n')
    })
  }
  const server = await listening(await host(t, {}, app))
  for (const path of paths) {
    const connection = rawConnection(t, server)
    connection.send(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n`)
    await connection.until('data: 1')
    connection.destroy()
    await inTime(closed.get(path)!, `the host is told that a client of ${path} has gone`)
  }

  const { hub } = app.ringside
  await app.inject({ method: 'PUT', url: '/live/dashboards/a', headers: JSON_BODY, payload: '{}' })
  const named = [
    '/live/events/a',
    '/live/events/a/b?rewind=1',
    '/live/events?topic=a',
    '/live/tickers?symbols=A',
    '/live/dashboards/a',
    '/live/notifications?user=alice'
  ]
  const cases = [
    ...named.map(path => [path, 'text/event-stream', true] as const),
    ...named.map(path => [path, 'application/x-ndjson', true] as const),
    ['/live/events/a', '*/*', true] as const,
    ['/live/tickers?symbols=A', '*/*', false] as const
  ]
  for (const [path, accept, isTaken] of cases) {
    const connection = rawConnection(t, server)
    connection.send(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nAccept: ${accept}\r\n\r\n`)
    await connection.until('\r\n\r\n')
    const session = await eventually(
      () => [...hub.sessions].at(-1),
      session => session?.state === 'live',
      'a stream'
    )
    t.equal(session!.sink instanceof SocketSink, isTaken, `${path} ${accept}`)
    connection.destroy()
    await eventually(
      () => hub.sessions.size,
      size => size === 0,
      'its end'
    )
  }
})

t.test('with pages there are all of them under the prefix', async t => {
  const server = await listening(await host(t, { pages: true }))
  t.match((await ask(server, '/live/')).headers['content-type'], /^text\/html/)
  t.equal((await ask(server, '/live/docs/')).status, 200)
  t.match((await ask(server, '/live/openapi.json')).json(), {
    servers: [{ url: '.' }],
    paths: { '/events': {}, '/livez': {} }
  })
  isProblem(t, await ask(server, '/live/nothing'), 404, /GET \/live\/nothing/)
  t.notMatch((await ask(server, '/nothing')).headers['content-type'], /problem/)
})

t.test('the host says who may what, and how many', async t => {
  const app = await host(t, {
    settings: { CORS_ORIGIN: 'https://page.example', MAX_CONNECTIONS: 5 },
    maxConnections: 1,
    grant: async ({ headers }, reply): Promise<Grant> => {
      if (headers['x-user'] === 'mallory') throw new Problem('forbidden', 'not you')
      if (headers['x-user'] === undefined) {
        reply.header('www-authenticate', 'Session')
        throw new Problem('unauthorized', 'who are you?')
      }
      const mine = (topic: string) => topic.startsWith('a')
      return { sub: 'alice', maySubscribe: mine, mayPublish: mine, expires: Infinity }
    }
  })
  app.get('/own', async () => 'open')
  const server = await listening(app)
  const user = { 'x-user': 'alice' }
  t.equal((await ask(server, '/own')).text, 'open')
  t.equal((await ask(server, '/live/livez')).status, 200)
  const unknown = await ask(server, '/live/events/a')
  isProblem(t, unknown, 401, /who are you/)
  t.equal(unknown.headers['www-authenticate'], 'Session')
  isProblem(t, await post(server, '/live/events/a', 'x'), 401, /who are you/)
  isProblem(t, await post(server, '/live/events/a', 'x', { 'x-user': 'mallory' }), 403, /not you/)
  const preflight = { origin: 'https://page.example', 'access-control-request-method': 'POST' }
  t.equal((await ask(server, '/live/events/a', { method: 'OPTIONS', headers: preflight })).status, 204)
  t.equal((await post(server, '/live/events/a', 'x', user)).status, 201)
  for (const answer of [
    await post(server, '/live/events/b', 'x', user),
    await ask(server, '/live/events/b', { headers: user }),
    await ask(server, '/live/events/a?topic=notifications/bob', { headers: user })
  ]) {
    isProblem(t, answer, 403, /may not/)
    t.notOk(answer.headers['www-authenticate'], 'the host does not know tokens')
  }
  const inbox = await ask(server, '/live/notifications', { headers: { ...user, accept: 'application/json' } })
  t.match(inbox.json(), { unread: 0 })
  await listen(t, server, '/live/events/a', { ...user, accept: 'text/event-stream' })
  const second = await subscribe(t, server, '/live/events/a', { ...user, accept: 'text/event-stream' })
  t.match((await second.whole()).at(-1), { event: 'goodbye', data: /full/ })
})

t.test('a host that knows its users by a cookie is protected from the pages of others', async t => {
  const everything = { maySubscribe: () => true, mayPublish: () => true, expires: Infinity }
  const server = await listening(
    await host(t, {
      settings: { CORS_ORIGIN: 'https://page.example' },
      grant: ({ headers }) => ({ sub: headers.cookie ? 'alice' : null, ...everything })
    })
  )
  const cookie = 'session=1'
  isProblem(t, await post(server, '/live/events/a', 'x', { cookie }), 403, /Origin/)
  isProblem(
    t,
    await post(server, '/live/events/a', 'x', { cookie, origin: 'https://evil.example' }),
    403,
    /evil/
  )
  t.equal((await post(server, '/live/events/a', 'x', { cookie, origin: 'https://page.example' })).status, 201)
  t.equal((await post(server, '/live/events/a', 'x')).status, 201)
  isProblem(t, await ask(server, '/live/notifications'), 403, /user/)
  isProblem(
    t,
    await ask(server, '/live/events?topic=notifications/*', { headers: { cookie } }),
    403,
    /may not/
  )
})

t.test('what the host grants may run out', async t => {
  const app = await host(t, {
    grant: () => ({
      sub: null,
      maySubscribe: () => true,
      mayPublish: () => true,
      expires: Date.now() + 500
    })
  })
  const stream = await listen(t, await listening(app), '/live/events/a')
  t.match((await stream.whole()).at(-1), { event: 'goodbye', data: /expired/ })
})

t.test('settings have keys for it as for the server', async t => {
  const server = await listening(await host(t, { settings: { JWT_SECRET: SECRET } }))
  t.equal((await ask(server, '/live/events/a')).status, 401)
  const token = await tokenFor({ publish: ['a'] })
  t.equal((await post(server, '/live/events/a', 'x', bearer(token))).status, 201)
  for (const [settings, message] of [
    [{ JWT_SECRET: 'short' }, /^JWT_SECRET.*32 bytes/],
    [{ JWT_PUBLIC_KEY: '/no/such/file' }, /^JWT_PUBLIC_KEY=\/no\/such\/file/],
    [{ JWT_SECRET: SECRET, ANONYMOUS_SUBSCRIBE: 'a//b' }, /^ANONYMOUS_SUBSCRIBE=a\/\/b/]
  ] as const) {
    await t.rejects(host(t, { settings }), { name: 'ConfigError', message })
  }
})

t.test('publishing from the program', async t => {
  const app = await host(t, { settings: { MAX_EVENT_BYTES: 14 } })
  const { publish } = app.ringside
  const bytes = new Uint8Array([1, 2, 255])
  const circle: unknown[] = []
  circle.push(circle)

  const ids = [
    await publish('a', { data: ' as it is ' }),
    await publish('a', { data: { a: [1, null] } }),
    await publish('a', { data: null, type: 'nil', ttl: 60 }),
    await publish('a', { data: bytes, key: 'once' })
  ]
  t.equal(await publish('a', { data: bytes, key: 'once' }), ids[3], 'the same key gives the same id')
  bytes.fill(0)
  const { events } = (
    await app.inject({ url: '/live/events/a?rewind=9', headers: { accept: 'application/json' } })
  ).json<{ events: unknown[] }>()
  t.match(events, [
    { id: ids[0], type: 'message', data: ' as it is ' },
    { id: ids[1], type: 'message', data: { a: [1, null] } },
    { id: ids[2], type: 'nil', data: null },
    { id: ids[3], data: 'AQL/', encoding: 'base64' }
  ])
  t.equal(events.length, 4)

  const refused: [topic: string, event: EventToPublish, statusCode: number, message: RegExp][] = [
    ['a//b', { data: '' }, 400, /a\/\/b.*not a topic/],
    ['a/*', { data: '' }, 400, /not a topic/],
    ['tickers/A', { data: '' }, 403, /tickers/],
    ['a', { data: '', type: 'cursor' }, 422, /cursor is reserved/],
    ['a', { data: '', type: 'two words' }, 400, /type/],
    ['a', { data: '', ttl: 0.5 }, 400, /ttl/],
    ['a', { data: '', key: '' }, 400, /key/],
    ['a', { data: 'another', key: 'once' }, 422, /Idempotency-Key/],
    ['a', { data: 'fifteen letters' }, 413, /15 bytes; at most 14/],
    ['a', { data: undefined }, 400, /data: is not JSON: undefined/],
    ['a', { data: 1n }, 400, /data: is not JSON/],
    ['a', { data: circle }, 400, /data: is not JSON/]
  ]
  for (const [topic, event, statusCode, message] of refused) {
    await t.rejects(publish(topic, event), { constructor: Problem, statusCode, message }, String(message))
  }
})

// --- examples ---

const EXAMPLES = fileURLToPath(new URL('../examples/', import.meta.url))

interface Example {
  readonly said: (what: RegExp) => Promise<RegExpExecArray>
  readonly code: Promise<number | null>
}

function run(t: Test, command: string, args: readonly string[], env: Record<string, string> = {}): Example {
  const child = spawn(command, args, { cwd: EXAMPLES, env: { PATH: process.env['PATH'], ...env } })
  let output = ''
  const code = new Promise<number | null>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', resolve)
  })
  t.teardown(() => {
    child.kill()
    return code
  })
  const said = (what: RegExp) =>
    inTime(
      new Promise<RegExpExecArray>((resolve, reject) => {
        const look = () => {
          const found = what.exec(output)
          if (found) resolve(found)
        }
        child.stdout.on('data', look)
        child.on('close', () => reject(new Error(`it has ended: ${output}`)))
        look()
      }),
      String(what),
      () => output
    )
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => (output += chunk.toString()))
  }
  return { said, code: inTime(code, `the end of ${args.join(' ')}`, () => output) }
}

for (const [command, file] of [
  [process.execPath, 'publish.js'],
  ['sh', 'publish.sh'],
  ['python3', 'publish.py']
] as const) {
  const skip = command === 'python3' && !(await exists(command)) && 'there is no python3 here'
  t.test(`examples/publisher/${file}`, { skip }, async t => {
    const { url, port } = await build(t)
    const stream = await listen(t, { port }, '/events/shop/orders')
    const publisher = run(t, command, [`publisher/${file}`, 'shop/orders', 'tea & "cake"'], {
      RINGSIDE_URL: url
    })
    const [, id] = await publisher.said(/^\{"id":"([^"]+)","topic":"shop\/orders"\}\n/)
    t.equal(await publisher.code, 0)
    t.match(await stream.next(), { id, data: 'tea & "cake"' })
    const refused = run(t, command, [`publisher/${file}`, 'tickers/A', 'x'], { RINGSIDE_URL: url })
    await refused.said(/"status":403/)
    t.not(await refused.code, 0)
  })
}

function exists(command: string): Promise<boolean> {
  return new Promise(resolve => {
    const child = spawn(command, ['--version'], { stdio: 'ignore' })
    child.on('error', () => resolve(false))
    child.on('close', code => resolve(code === 0))
  })
}

t.test('examples/page', async t => {
  const page = run(t, process.execPath, ['page/serve.js'], { PORT: '0' })
  const [, port] = await page.said(/^http:\/\/127\.0\.0\.1:(\d+)\n/)
  const answer = await ask({ port: Number(port) }, '/?topic=a')
  t.equal(answer.status, 200)
  t.match(answer.headers['content-type'], /^text\/html/)
  t.match(answer.text, /new EventSource\(/)
  t.equal((await ask({ port: Number(port) }, '/serve.js')).status, 404)
})

t.test('examples/fastify-plugin', async t => {
  const shop = run(t, process.execPath, ['fastify-plugin/app.js'], { PORT: '0' })
  const [, text] = await shop.said(/^http:\/\/127\.0\.0\.1:(\d+)\n/)
  const port = Number(text)
  const headers = { authorization: 'Bearer letmein', accept: 'text/event-stream' }
  const stream = await listen(t, { port }, '/live/events/orders', headers)
  const answer = await post({ port }, '/orders', '{"item":"tea"}', JSON_BODY)
  t.equal(answer.status, 201)
  t.match(await stream.next(), { id: answer.json()['id'], event: 'order', data: '{"item":"tea"}' })
  t.equal((await post({ port }, '/orders', '{}', JSON_BODY)).status, 400)
  t.equal((await ask({ port }, '/live/events/orders')).status, 401)
})
