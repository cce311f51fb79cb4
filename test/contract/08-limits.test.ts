import type { EventEmitter } from 'node:events'
import { constants } from 'node:http2'
import type { Duplex } from 'node:stream'
import t, { type Test } from 'tap'
import {
  ask,
  build,
  isProblem,
  metricsOf,
  post,
  publish,
  type Answer,
  type TestServer
} from '../support/app.ts'
import { makeCertificate } from '../support/certificate.ts'
import { openSession } from '../support/http2.ts'
import { eventually } from '../support/inbox.ts'
import { rawConnection } from '../support/raw.ts'
import { listen, subscribe } from '../support/reader.ts'
import { bearer, SECRET, tokenFor } from '../support/tokens.ts'
import { connect } from '../support/websocket.ts'

/** What a proxy says of who asks: in development mode loopback has no limits. */
const from = (address: string, headers: Record<string, string> = {}) => ({
  'x-forwarded-for': address,
  accept: 'text/event-stream',
  ...headers
})
const ALICE = '203.0.113.1'
const BOB = '203.0.113.2'

/** A server that believes every proxy, with no other limits than these. */
function limited(t: Test, env: Record<string, string>): Promise<TestServer> {
  const none = { MAX_CONNECTIONS_PER_CLIENT: '0', CONNECT_RATE: '0', READ_RATE: '0', WRITE_RATE: '0' }
  return build(t, { TRUST_PROXY: 'true', RETRY: '20ms', ...none, ...env })
}

const rejected = async (server: TestServer, reason: string) =>
  (await metricsOf(server)).get(`ringside_connections_rejected_total{reason="${reason}"}`) ?? 0

t.test('MAX_CONNECTIONS_PER_CLIENT', async t => {
  const server = await limited(t, { MAX_CONNECTIONS_PER_CLIENT: '2' })
  const first = await listen(t, server, '/events/a', from(ALICE))
  await listen(t, server, '/events/b', from(ALICE, { accept: 'text/event-stream, text/html;q=0.1' }))

  t.test(
    'who accepts text/event-stream by name is told to come back, in a stream, with its cursor',
    async t => {
      const stream = await subscribe(t, server, '/events/a', from(ALICE, { 'last-event-id': first.cursor }))
      t.equal(stream.status, 200)
      t.equal(stream.response.headers['content-type'], 'text/event-stream; charset=utf-8')
      const [opened, goodbye, ...rest] = await stream.whole()
      t.match(opened, { id: first.cursor, event: 'cursor', retry: Number })
      t.match(goodbye, { event: 'goodbye', retry: Number })
      t.strictSame(JSON.parse(goodbye!.data!), { reason: 'full', retry: goodbye!.retry })
      t.strictSame(rest, [])
    }
  )

  t.test('every other client gets 429 and Retry-After', async t => {
    for (const accept of ['*/*', 'application/x-ndjson', 'application/json', 'text/*']) {
      const answer = await ask(server, '/events/a', { headers: from(ALICE, { accept }) })
      isProblem(t, answer, 429, /too many connections: .* 2 /)
      t.match(answer.headers['retry-after'], /^[1-9]\d*$/)
    }
    const head = await ask(server, '/events/a', { method: 'HEAD', headers: from(ALICE, { accept: '*/*' }) })
    t.equal(head.status, 429)
  })

  t.test('it is counted why', async t => {
    const before = await rejected(server, 'client_connections')
    await (await subscribe(t, server, '/events/a', from(ALICE))).whole()
    await ask(server, '/events/a', { headers: from(ALICE, { accept: '*/*' }) })
    t.equal(await rejected(server, 'client_connections'), before + 2)
  })

  t.test('what is final comes before it', async t => {
    t.equal((await ask(server, '/events?topic=', { headers: from(ALICE) })).status, 400)
    t.equal((await ask(server, '/events/a', { headers: from(ALICE, { accept: 'text/html' }) })).status, 406)
  })

  t.test('another client is served, and the open streams go on', async t => {
    const other = await listen(t, server, '/events/a', from(BOB))
    await publish(server, 'a', 'x')
    t.match(await other.next(), { data: 'x' })
    t.match(await first.next(), { data: 'x' })
    other.close()
  })

  t.test('there is room as soon as one has gone', async t => {
    const id = first.frames.all.at(-1)!.id!
    first.close()
    await publish(server, 'a', 'missed')
    await eventually(
      () => server.app.ringside.hub.sessions.size,
      size => size === 1,
      'its end'
    )
    const again = await listen(t, server, '/events/a', from(ALICE, { 'last-event-id': id }))
    t.match(await again.next(), { data: 'missed' })
    again.close()
  })
})

t.test('a poll that waits takes a place, and gives it back', async t => {
  const server = await limited(t, { MAX_CONNECTIONS_PER_CLIENT: '1' })
  const json = from(ALICE, { accept: 'application/json' })
  const poll = ask(server, '/events/a?wait=60', { headers: json })
  await eventually(
    () => server.app.ringside.hub.sessions.size,
    size => size === 1,
    'a poll that waits'
  )
  isProblem(t, await ask(server, '/events/a', { headers: json }), 429, /connections/)
  await publish(server, 'a', 'x')
  t.equal((await poll).status, 200)
  t.equal((await ask(server, '/events/a', { headers: json })).status, 200)
})

t.test('every way to end gives the place back', async t => {
  const server = await limited(t, { MAX_CONNECTIONS_PER_CLIENT: '1' })
  const free = async (how: string) => {
    const answer = await eventually(
      () => ask(server, '/events/a', { headers: from(ALICE, { accept: 'application/json' }) }),
      ({ status }) => status === 200,
      `a place after ${how}`
    )
    t.equal(answer.status, 200, how)
  }
  const stream = await listen(t, server, '/events/a', from(ALICE))
  stream.close()
  await free('the client has gone')
  await listen(t, server, '/events/a', from(ALICE))
  for (const session of server.app.ringside.hub.sessions) session.goodbye('shutdown', 20)
  await free('a goodbye')
  await ask(server, '/events/a', { method: 'HEAD', headers: from(ALICE) })
  await free('a HEAD')
  t.equal((await ask(server, '/dashboards/none', { headers: from(ALICE) })).status, 404)
  await free('a 404')
  await Promise.all(
    Array.from({ length: 50 }, () => subscribe(t, server, '/events/a', from(ALICE)).then(s => s.close()))
  )
  await free('fifty at once')
})

t.test('who goes while its stream begins gives the place back', async t => {
  const { ca, ...files } = makeCertificate(t.testdir())
  const path = '/notifications?user=alice'
  const lines = `Host: localhost\r\nAccept: text/event-stream\r\nX-Forwarded-For: ${ALICE}\r\n\r\n`
  /** Asks for a stream, and gives back how to go. */
  const ways: Record<string, (server: TestServer) => Promise<() => void>> = {
    'HTTP/1.1': async server => {
      const connection = rawConnection(t, server)
      connection.send(`GET ${path} HTTP/1.1\r\n${lines}`)
      return () => connection.destroy()
    },
    'HTTP/1.0': async server => {
      const connection = rawConnection(t, server)
      connection.send(`GET ${path} HTTP/1.0\r\n${lines}`)
      return () => connection.destroy()
    },
    'HTTP/2': async ({ url }) => {
      const session = await openSession(t, url, ca)
      session.request({ ':path': path, ...from(ALICE) }).on('error', () => {})
      return () => session.destroy()
    },
    'a stream of HTTP/2': async ({ url }) => {
      const stream = (await openSession(t, url, ca)).request({ ':path': path, ...from(ALICE) })
      stream.on('error', () => {})
      return () => stream.close(constants.NGHTTP2_CANCEL)
    }
  }
  for (const [way, open] of Object.entries(ways)) {
    t.test(way, async t => {
      const server = await limited(t, {
        MAX_CONNECTIONS_PER_CLIENT: '1',
        HEARTBEAT: '10m',
        ...(way.endsWith('HTTP/2') && files)
      })
      const { broker, hub } = server.app.ringside
      const { log } = broker
      const read = log.state.bind(log)
      const reads: (() => void)[] = []
      log.state = async topic => {
        await new Promise<void>(resolve => reads.push(resolve))
        return read(topic)
      }
      const served: Duplex[] = []
      const name = way.endsWith('HTTP/2') ? 'stream' : 'connection'
      ;(server.app.server as EventEmitter).on(name, (stream: Duplex) => served.push(stream))
      const leave = await open(server)
      await eventually(
        () => reads.length,
        count => count === 1,
        'a stream that begins'
      )
      t.equal(hub.connections.size, 1)
      leave()
      await eventually(
        () => served[0]!,
        ({ destroyed, readableEnded }) => destroyed || (name === 'connection' && readableEnded),
        'its end'
      )
      reads[0]!()
      await eventually(
        () => hub.connections.size,
        size => size === 0,
        'its place'
      )
      t.equal(hub.sessions.size, 0)
    })
  }
})

t.test('CONNECT_RATE', async t => {
  const server = await limited(t, { CONNECT_RATE: '3' })

  t.test('so many new streams a second are served; who comes past it is turned away', async t => {
    const { result: streams, most } = await timed(3, () =>
      Promise.all(Array.from({ length: 12 }, () => subscribe(t, server, '/events/a', from(ALICE))))
    )
    const first = await Promise.all(streams.map(async stream => (await stream.next()).event))
    const served = first.filter(event => event === 'cursor').length
    t.ok(served >= 3 && served <= most, `${served} of at most ${most}`)
    t.equal(first.filter(event => event === 'goodbye').length, 12 - served)
    t.equal(await rejected(server, 'client_rate'), 12 - served)
    for (const stream of streams) stream.close()
  })

  t.test('with 429 and Retry-After for all others', async t => {
    const answers = await flood(server, 6, '/events/a', {
      headers: from(ALICE, { accept: 'application/x-ndjson' })
    })
    const refused = answers.find(({ status }) => status === 429)
    isProblem(t, refused!, 429, /too many new streams: .* 3 a second/)
    t.match(refused!.headers['retry-after'], /^[1-9]\d*$/)
  })

  t.test('a poll is no new stream', async t => {
    const answers = await flood(server, 12, '/events/a', {
      headers: from(ALICE, { accept: 'application/json' })
    })
    t.ok(answers.every(({ status }) => status === 200))
  })

  t.test('the more come at once, the longer they are told to wait', async t => {
    const streams = await Promise.all(
      Array.from({ length: 200 }, () => subscribe(t, server, '/events/a', from(BOB)))
    )
    const frames = await Promise.all(streams.map(stream => stream.next()))
    const retries = frames.filter(({ event }) => event === 'goodbye').map(({ retry }) => retry!)
    // the last of 200 draws from some 66 s
    t.ok(Math.max(...retries) > 2000, `${Math.max(...retries)} ms`)
    t.ok(new Set(retries).size > retries.length / 2, 'each its own')
    for (const stream of streams) stream.close()
  })
})

t.test('WRITE_RATE', async t => {
  const server = await limited(t, { WRITE_RATE: '5' })

  t.test('so many publishes a second are stored; the others get 429 and Retry-After', async t => {
    const { result: answers, most } = await timed(5, () =>
      flood(server, 20, '/events/a', { method: 'POST', body: 'x', headers: from(ALICE) })
    )
    const stored = answers.filter(({ status }) => status === 201).length
    t.ok(stored >= 5 && stored <= most, `${stored} of at most ${most}`)
    const refused = answers.filter(({ status }) => status === 429)
    t.equal(refused.length, 20 - stored)
    for (const answer of refused) {
      isProblem(t, answer, 429, /too many writes: .* 5 a second/)
      t.equal(answer.headers['retry-after'], '1')
    }
    const metrics = await metricsOf(server)
    t.equal(metrics.get('ringside_writes_rejected_total'), 20 - stored)
    t.equal(metrics.get('ringside_events_published_total{feed="events"}'), stored)
  })

  t.test('also for who accepts text/event-stream: a publish is no stream', async t => {
    const answers = await flood(server, 10, '/events/a', { method: 'POST', body: 'x', headers: from(ALICE) })
    t.ok(answers.every(({ status }) => status === 201 || status === 429))
  })

  t.test('a second later they are taken again', async t => {
    await flood(server, 10, '/events/a', { method: 'POST', body: 'x', headers: from(ALICE) })
    const { status } = await eventually(
      () => post(server, '/events/a', 'x', from(ALICE)),
      answer => answer.status === 201,
      'the next second'
    )
    t.equal(status, 201)
  })

  t.test('a batch is one, and every feed counts', async t => {
    const batch = JSON.stringify(Array.from({ length: 100 }, () => ({ topic: 'a', data: 1 })))
    const json = { 'content-type': 'application/json' }
    const writes: [string, string, string?][] = [
      ['POST', '/events', batch],
      ['POST', '/tickers', '{"symbol":"A","price":1}'],
      ['PUT', '/dashboards/ops', '{}'],
      ['PATCH', '/dashboards/ops', '{}'],
      ['DELETE', '/dashboards/ops'],
      ['POST', '/notifications', '{"to":"bob","title":"Hi"}'],
      ['POST', '/notifications/read?user=bob', '{"all":true}'],
      ['POST', '/notifications/1-0/read?user=bob'],
      ['DELETE', '/notifications/1-0?user=bob']
    ]
    for (const [index, [method, path, body]] of writes.entries()) {
      // each from a client that has not written yet
      const headers = from(`198.51.100.${index}`, json)
      const answers = await flood(server, 10, path, {
        method,
        headers,
        ...(body !== undefined && { body })
      })
      t.ok(answers[0]!.status !== 429, `${method} ${path}: ${answers[0]!.text}`)
      t.ok(
        answers.some(({ status }) => status === 429),
        `${method} ${path} counts`
      )
    }
  })

  t.test('what is no write, or nowhere, does not count', async t => {
    const headers = from('198.51.100.99')
    await flood(server, 10, '/nothing', { method: 'POST', headers })
    await flood(server, 10, '/livez', { headers })
    await flood(server, 10, '/events/a', { method: 'OPTIONS', headers })
    t.equal((await post(server, '/events/a', 'x', headers)).status, 201)
  })

  t.test('a body that is refused is not read', async t => {
    const headers = from('198.51.100.100', { 'content-type': 'nonsense' })
    const answers = await flood(server, 10, '/events/a', { method: 'POST', body: 'x', headers })
    t.strictSame([...new Set(answers.map(({ status }) => status))].sort(), [415, 429])
  })

  t.test('another client can write, and the program itself', async t => {
    t.equal((await post(server, '/events/a', 'x', from(BOB))).status, 201)
    for (let count = 0; count < 20; count++) await server.app.ringside.publish('a', { data: count })
  })
})

t.test('a client is its address', async t => {
  const server = await limited(t, { MAX_CONNECTIONS_PER_CLIENT: '1' })
  const isSame = async (t: Test, one: string, other: string) => {
    const stream = await listen(t, server, '/events/a', from(one))
    const { status } = await ask(server, '/events/a', {
      headers: from(other, { accept: 'application/json' })
    })
    stream.close()
    await eventually(
      () => server.app.ringside.hub.sessions.size,
      size => size === 0,
      'its end'
    )
    return status === 429
  }
  t.ok(await isSame(t, '203.0.113.7', '203.0.113.7'))
  t.notOk(await isSame(t, '203.0.113.7', '203.0.113.8'))

  t.test('of IPv6 the first 64 bits: a subscriber of a network has all of them', async t => {
    t.ok(await isSame(t, '2001:db8:1:2::1', '2001:0db8:0001:0002:ffff:ffff:ffff:ffff'))
    t.notOk(await isSame(t, '2001:db8:1:2::1', '2001:db8:1:3::1'))
  })

  t.test('what is IPv4 in IPv6 is IPv4', async t => {
    t.ok(await isSame(t, '::ffff:203.0.113.7', '203.0.113.7'))
    t.ok(await isSame(t, '::ffff:cb00:7107', '203.0.113.7'))
    t.notOk(await isSame(t, '::ffff:203.0.113.7', '::ffff:203.0.113.8'))
  })

  t.test('what a proxy says that is none stands for the proxy, which has no limits on loopback', async t => {
    for (const none of ['unknown', '203.0.113.7:4711', '1', '0x7f.1', '"><script>', 'x'.repeat(5000)]) {
      t.notOk(await isSame(t, none, none), none.slice(0, 20))
    }
  })
})

t.test('with keys a client is its user, wherever it is, and loopback is limited', async t => {
  const server = await limited(t, {
    JWT_SECRET: SECRET,
    ANONYMOUS_SUBSCRIBE: '**',
    MAX_CONNECTIONS_PER_CLIENT: '1',
    WRITE_RATE: '1'
  })
  const may = { subscribe: ['**'], publish: ['**'] }
  const alice = bearer(await tokenFor(may, 'alice'))
  const bob = bearer(await tokenFor(may, 'bob'))
  const poll = async (address: string, token: Record<string, string> = {}) => {
    const headers = { ...from(address, token), accept: 'application/json' }
    return (await ask(server, '/events/a', { headers })).status
  }
  await listen(t, server, '/events/a', from(ALICE, alice))
  t.equal(await poll(BOB, alice), 429, 'the same user elsewhere')
  t.equal(await poll(ALICE, bob), 200, 'another user there')
  t.equal(await poll(ALICE), 200, 'nobody known there')
  await listen(t, server, '/events/a', from('127.0.0.1'))
  t.equal(await poll('127.0.0.1'), 429, 'loopback')

  t.equal((await post(server, '/events/a', 'x', from(ALICE, alice))).status, 201)
  const answers = await flood(server, 5, '/events/a', {
    method: 'POST',
    body: 'x',
    headers: from(BOB, alice)
  })
  t.ok(answers.some(({ status }) => status === 429))
  t.equal((await post(server, '/events/a', 'x', from(ALICE, bob))).status, 201)
  t.equal((await post(server, '/events/a', 'x', from(ALICE))).status, 401, 'who may not write at all')
})

t.test('WebSockets count as streams do', async t => {
  const server = await limited(t, { MAX_CONNECTIONS_PER_CLIENT: '2', CONNECT_RATE: '5', WRITE_RATE: '3' })
  const open = (address: string) => connect(t, server, { headers: from(address) })

  t.test('in MAX_CONNECTIONS_PER_CLIENT', async t => {
    const stream = await listen(t, server, '/events/a', from(ALICE))
    const ws = await open(ALICE)
    await ws.do('subscribe', { topics: ['a'] })
    await ws.do('subscribe', { topics: ['b'] })
    const third = await (await open(ALICE)).closed
    t.equal(third.code, 1013)
    t.match(JSON.parse(third.reason), { reason: 'full', retry: Number })
    isProblem(t, await ask(server, '/events/a', { headers: from(ALICE, { accept: '*/*' }) }), 429, /connec/)
    t.equal(await rejected(server, 'client_connections'), 2)
    stream.close()
    ws.ws.close()
    await eventually(
      () => server.app.ringside.hub.connections.size,
      size => size === 0,
      'their end'
    )
    t.match(await (await open(ALICE)).do('ping'), { op: 'pong' })
  })

  t.test('in CONNECT_RATE', async t => {
    const clients = await Promise.all(Array.from({ length: 20 }, () => open(BOB)))
    const closed = await Promise.all(clients.slice(-3).map(client => client.closed))
    t.ok(closed.every(({ code }) => code === 1013))
    t.ok((await rejected(server, 'client_rate')) + (await rejected(server, 'client_connections')) > 10)
  })

  t.test('in WRITE_RATE', async t => {
    const carol = '203.0.113.3'
    const ws = await open(carol)
    const answers = await Promise.all(
      Array.from({ length: 10 }, () => ws.ask('publish', { topic: 'a', data: 1 }))
    )
    const refused = answers.filter(({ op }) => op === 'error')
    t.ok(refused.length >= 1 && refused.length <= 7, `${refused.length} of 10`)
    for (const answer of refused) t.match(answer, { code: 'rate_limited', message: /too many writes/ })
    const over = await flood(server, 5, '/events/a', { method: 'POST', body: 'x', headers: from(carol) })
    t.ok(
      over.some(({ status }) => status === 429),
      'together with what comes by POST'
    )
    t.match(await ws.do('ping'), { op: 'pong' }, 'the connection stays')
  })
})

t.test('READ_RATE', async t => {
  const MAY = { subscribe: ['**'] }
  const server = await limited(t, { READ_RATE: '3', JWT_SECRET: SECRET, ANONYMOUS_SUBSCRIBE: '**' })
  const json = (address: string) => from(address, { accept: 'application/json' })
  const alice = { ...json(ALICE), ...bearer(await tokenFor(MAY, 'alice')) }

  t.test('counts pages, documents and inboxes, whatever comes of them', async t => {
    const paths = ['/events/a', '/tickers?symbols=*', '/dashboards', '/dashboards/none', '/notifications']
    for (const [index, path] of paths.entries()) {
      const headers = { ...json(ALICE), ...bearer(await tokenFor(MAY, `user-${index}`)) }
      const { result, most } = await timed(3, () => flood(server, 10, path, { headers }))
      const refused = result.filter(({ status }) => status === 429)
      t.ok(refused.length >= 10 - most && refused.length < 10, `${refused.length} of ${path}`)
      for (const answer of refused) {
        isProblem(t, answer, 429, /too many reads: .* 3 a second/)
        t.equal(answer.headers['retry-after'], '1')
      }
    }
  })

  t.test('is counted', async t => {
    const before = (await metricsOf(server)).get('ringside_reads_rejected_total')!
    const answers = await flood(server, 10, '/events/a', { headers: alice })
    const refused = answers.filter(({ status }) => status === 429).length
    t.equal((await metricsOf(server)).get('ringside_reads_rejected_total')! - before, refused)
  })

  t.test('counts subscriptions on a WebSocket, together with what comes by GET', async t => {
    const ws = await connect(t, server, { headers: from(BOB) })
    const topics = Array.from({ length: 10 }, (_, index) => `t/${index}`)
    const answers = await Promise.all(topics.map(topic => ws.ask('subscribe', { topics: [topic] })))
    const refused = answers.filter(({ op }) => op === 'error')
    t.ok(refused.length >= 1 && refused.length <= 7, `${refused.length} of 10`)
    for (const answer of refused) t.match(answer, { code: 'rate_limited', message: /too many reads/ })
    const over = await flood(server, 5, '/events/a', { headers: json(BOB) })
    t.ok(over.some(({ status }) => status === 429))
    t.match(await ws.do('ping'), { op: 'pong' }, 'the connection stays')
  })

  t.test('counts no stream', async t => {
    for (let count = 0; count < 6; count++)
      (await listen(t, server, '/events/a', from('203.0.113.9'))).close()
  })
})

t.test('in development mode loopback is not limited', async t => {
  const one = { MAX_CONNECTIONS_PER_CLIENT: '1', CONNECT_RATE: '1', READ_RATE: '1', WRITE_RATE: '1' }
  for (const [name, headers] of [
    ['as it connects', { accept: 'text/event-stream' }],
    ['behind a proxy', from('::1')],
    ['behind a proxy, by IPv4', from('127.9.9.9')]
  ] as const) {
    t.test(name, async t => {
      const server = await build(t, { ...one, ...('x-forwarded-for' in headers && { TRUST_PROXY: 'true' }) })
      for (let count = 0; count < 5; count++) {
        await listen(t, server, '/events/a', headers)
        t.equal((await post(server, '/events/a', 'x', headers)).status, 201)
        const page = await ask(server, '/events/a', { headers: { ...headers, accept: 'application/json' } })
        t.equal(page.status, 200)
      }
    })
  }
})

t.test('0 is no limit', async t => {
  const server = await limited(t, {})
  for (let count = 0; count < 5; count++) {
    await listen(t, server, '/events/a', from(ALICE))
    t.equal((await post(server, '/events/a', 'x', from(ALICE))).status, 201)
  }
})

t.test('a server that is full says so before it looks at a client, and counts no new stream', async t => {
  const server = await limited(t, {
    MAX_CONNECTIONS: '1',
    MAX_CONNECTIONS_PER_CLIENT: '1',
    CONNECT_RATE: '2'
  })
  const stream = await listen(t, server, '/events/a', from(ALICE))
  for (let count = 0; count < 10; count++) {
    isProblem(
      t,
      await ask(server, '/events/a', { headers: from(ALICE, { accept: '*/*' }) }),
      503,
      /all connections/
    )
  }
  stream.close()
  await eventually(
    () => server.app.ringside.hub.sessions.size,
    size => size === 0,
    'room'
  )
  await listen(t, server, '/events/a', from(ALICE))
})

/** Asks so many times at once. */
function flood(
  server: TestServer,
  count: number,
  path: string,
  request: Parameters<typeof ask>[2]
): Promise<Answer[]> {
  return Promise.all(Array.from({ length: count }, () => ask(server, path, request)))
}

/** What came of it, and the most that a rate may have let through meanwhile. */
async function timed<T>(rate: number, run: () => Promise<T>): Promise<{ result: T; most: number }> {
  const started = performance.now()
  const result = await run()
  return { result, most: rate * (1 + Math.ceil((performance.now() - started) / 1000)) }
}
