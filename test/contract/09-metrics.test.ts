import Fastify from 'fastify'
import t, { type Test } from 'tap'
import { ringside } from '../../src/app.ts'
import { ask, build, metricsOf, post, publish, publishAll, type TestServer } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { listen, subscribe } from '../support/reader.ts'
import { SECRET, tokenOf } from '../support/tokens.ts'
import { connect } from '../support/websocket.ts'

const KINDS: Record<string, string> = {
  ringside_connections: 'gauge',
  ringside_connections_opened_total: 'counter',
  ringside_connections_closed_total: 'counter',
  ringside_connections_rejected_total: 'counter',
  ringside_connection_duration_seconds: 'histogram',
  ringside_events_published_total: 'counter',
  ringside_events_delivered_total: 'counter',
  ringside_bytes_sent_total: 'counter',
  ringside_delivery_seconds: 'histogram',
  ringside_resumes_total: 'counter',
  ringside_replayed_events_total: 'counter',
  ringside_gaps_total: 'counter',
  ringside_lagging_connections: 'gauge',
  ringside_topics: 'gauge',
  ringside_broker_up: 'gauge',
  ringside_broker_recoveries_total: 'counter',
  ringside_auth_failures_total: 'counter',
  ringside_broker_seconds: 'histogram',
  ringside_ws_messages_total: 'counter',
  ringside_build_info: 'gauge'
}

t.test('GET /metrics is the Prometheus text format', async t => {
  const server = await build(t)
  const answer = await ask(server, '/metrics')
  t.equal(answer.status, 200)
  t.match(answer.headers['content-type'], /^text\/plain; version=0\.0\.4/)
  t.ok(answer.text.endsWith('\n'))

  t.test('with every metric, its help and its kind', async t => {
    for (const [name, kind] of Object.entries(KINDS)) {
      t.match(answer.text, new RegExp(`^# TYPE ${name} ${kind}$`, 'm'))
      t.match(answer.text, new RegExp(`^# HELP ${name} \\S`, 'm'))
    }
    t.match(answer.text, /^process_resident_memory_bytes /m, "and Node's own")
    t.match(answer.text, /^nodejs_eventloop_lag_seconds /m)
  })

  t.test('whose names follow the rules: counters end in _total, times are seconds', async t => {
    for (const [, name, kind] of answer.text.matchAll(/^# TYPE (ringside_\S+) (\S+)$/gm)) {
      t.equal(kind === 'counter', name!.endsWith('_total'), name!)
      if (kind === 'histogram') t.match(name, /_seconds$/)
    }
  })

  t.test('and says what runs', async t => {
    const { version } = (await import('../../package.json', { with: { type: 'json' } })).default
    t.match(answer.text, `ringside_build_info{version="${version}",node="${process.version}"} 1`)
  })
})

t.test('each counter is there from the start, with 0 for all that it may count', async t => {
  const server = await build(t, { RING_SIZE: '10', JWT_SECRET: SECRET, ANONYMOUS_SUBSCRIBE: '**' })
  const before = await countersOf(server)
  t.ok(before.size > 150, `${before.size} of them`)
  for (const [name, value] of before) {
    // the scrape itself is a request
    if (!name.includes('/metrics')) t.equal(value, 0, name)
  }
  for (const reason of ['expired', 'unknown', 'lost'])
    t.ok(before.has(`ringside_gaps_total{reason="${reason}"}`))

  t.test('so that none appears as something happens for the first time', async t => {
    const token = await tokenOf({ ringside: { publish: ['**'], subscribe: ['**'] } })
    const headers = { authorization: `Bearer ${token}` }
    const stream = await listen(t, server, '/events/m?rewind=1')
    const { id } = (await post(server, '/events/m', 'x', headers)).json()
    await stream.until(1)
    await post(server, '/events/m', 'x')
    await post(server, '/events/m?type=gap', 'x', headers)
    await post(server, '/nothing', 'x')
    await ask(server, '/events/m?after=nonsense', { headers: { accept: 'application/json' } })
    await ask(server, '/events/m', { method: 'PATCH' })
    for (let index = 0; index < 12; index++) await post(server, '/events/m', 'x', headers)
    const back = await subscribe(t, server, '/events/m', { 'last-event-id': String(id) })
    await back.first('gap')
    stream.close()
    back.close()
    const socket = await connect(t, server, { headers })
    await socket.ask('subscribe', { topics: ['m'] })
    await socket.ask('nonsense', {})
    const after = await countersOf(server)
    t.strictSame(
      [...after.keys()].filter(name => !before.has(name) && !/status="[13]xx"/.test(name)),
      []
    )
    t.equal(after.get('ringside_gaps_total{reason="expired"}'), 1)
    t.equal(after.get('ringside_writes_failed_total{reason="unauthorized"}'), 1)
    t.equal(after.get('ringside_writes_failed_total{reason="refused"}'), 1)
    t.equal(
      after.get('ringside_reconnects_total{transport="sse"}'),
      1,
      'a poll comes with a cursor each time'
    )
    t.equal(after.get('ringside_http_requests_total{method="POST",route="/events/*",status="2xx"}'), 13)
    t.equal(after.get('ringside_http_requests_total{method="POST",route="/events/*",status="4xx"}'), 2)
    t.equal(after.get('ringside_http_requests_total{method="GET",route="/events/*",status="2xx"}'), 3)
    t.equal(after.get('ringside_http_request_seconds_count{method="GET",route="/events/*"}'), 3)
    t.equal(after.get('ringside_http_requests_total{method="GET",route="/ws",status="1xx"}'), 1)
    t.equal(after.get('ringside_http_requests_total{method="other",route="other",status="4xx"}'), 2)
  })
})

t.test('HEAD counts as GET, once; beneath a prefix the routes are the same', async t => {
  const app = Fastify()
  await app.register(ringside, { prefix: '/live', settings: { DEMO: false } })
  t.teardown(() => app.close())
  await app.inject({ method: 'HEAD', url: '/live/livez' })
  await app.inject('/live/livez')
  const { body } = await app.inject('/live/metrics')
  t.match(body, 'ringside_http_requests_total{method="GET",route="/livez",status="2xx"} 2\n')
  t.notMatch(body, 'route="/live/')
})

t.test('what turns clients away is there as a gauge, and nothing where there is no limit', async t => {
  const limited = await metricsOf(await build(t, { MAX_CONNECTIONS: '50', MEMORY: '64 MiB', READ_RATE: '0' }))
  t.equal(limited.get('ringside_connections_limit'), 50)
  t.ok(limited.get('ringside_sockets_limit')! > 100)
  t.ok(limited.get('ringside_sockets')! >= 1)
  t.equal(limited.get('ringside_client_connections_limit'), 100)
  t.equal(limited.get('ringside_client_rate_limit{of="connects"}'), 20)
  t.equal(limited.get('ringside_client_rate_limit{of="writes"}'), 100)
  t.notOk(limited.has('ringside_client_rate_limit{of="reads"}'))
  t.equal(limited.get('ringside_size_limit_bytes{of="event"}'), 61_440)
  t.equal(limited.get('ringside_memory_limit_bytes'), 2 ** 26)
  t.equal(limited.get('ringside_memory_kind_limit_bytes{kind="states"}'), 2 ** 25)
  const free = await metricsOf(await build(t, { MAX_CONNECTIONS: '0' }))
  t.notOk(free.has('ringside_connections_limit'))
  t.notOk(free.has('ringside_certificate_expiry_timestamp_seconds'), 'there is none')
  t.notOk(free.has('ringside_keys_fetched_timestamp_seconds'))
})

t.test('readiness, draining, and each worker apart', async t => {
  const server = await build(t, { DRAIN: '30s' })
  const stream = await listen(t, server, '/events/m')
  const before = await metricsOf(server)
  t.equal(before.get('ringside_ready'), 1)
  t.equal(before.get('ringside_writable'), 1)
  t.equal(before.get('ringside_draining'), 0)
  t.equal(before.get('ringside_worker_connections{worker="0"}'), 1)
  t.ok(before.get('ringside_worker_resident_memory_bytes{worker="0"}')! > 1e7)
  t.ok(before.get('ringside_worker_eventloop_active_seconds_total{worker="0"}')! > 0)
  const started = before.get('ringside_worker_start_time_seconds{worker="0"}')! * 1000
  t.ok(started < Date.now() && started > Date.now() - 600_000)
  void server.app.ringside.drain()
  const after = await metricsOf(server)
  t.equal(after.get('ringside_ready'), 0)
  t.equal(after.get('ringside_draining'), 1)
  stream.close()
})

t.test('how long a client may be away: by the shortest full ring, by feed', async t => {
  const server = await build(t, { RING_SIZE: '5', RING_TTL: '1h' })
  const streams = await Promise.all(
    ['/events/busy', '/events/quiet', '/events/*', '/events/tickers/AAPL'].map(path =>
      listen(t, server, path)
    )
  )
  for (let index = 0; index < 8; index++) await publish(server, 'busy', 'x'.repeat(100))
  await publish(server, 'quiet', 'x')
  await streams[0]!.until(8)
  await streams[1]!.until(1)
  const metrics = await metricsOf(server)
  const reach = (feed: string) => metrics.get(`ringside_ring_reach_seconds{feed="${feed}"}`)!
  t.ok(reach('events') < 30, `${reach('events')} s`)
  t.equal(reach('tickers'), 3600, 'none is full: as long as events are kept')
  // the topics' own, and those of their wildcard
  t.equal(metrics.get('ringside_ring_events{feed="events"}'), 5 + 1 + 5)
  t.ok(metrics.get('ringside_ring_bytes{feed="events"}')! > 1000)
  t.ok(metrics.get('ringside_ring_oldest_event_seconds{feed="events"}')! >= reach('events'))
  for (const stream of streams) stream.close()
})

t.test('they move', async t => {
  const server = await build(t, { RING_SIZE: '10', MAX_CONNECTIONS: '3' })
  const changes = watch(server)

  t.test('when a stream opens, and closes', async t => {
    const stream = await listen(t, server, '/events?topic=m&topic=n/*')
    await changes(t, {
      'ringside_connections{transport="sse"}': 1,
      'ringside_connections_opened_total{transport="sse"}': 1,
      ringside_topics: 2,
      ringside_broker_up: 1
    })
    stream.close()
    await eventually(
      () => server.app.ringside.hub.sessions.size,
      size => size === 0,
      'the end of it'
    )
    await changes(t, {
      'ringside_connections{transport="sse"}': -1,
      'ringside_connections_closed_total{transport="sse",reason="client"}': 1,
      'ringside_connection_duration_seconds_count{transport="sse"}': 1,
      ringside_topics: -2
    })
  })

  t.test('when events are published and delivered', async t => {
    const one = await listen(t, server, '/events/m')
    const two = await listen(t, server, '/events/m')
    await changes(t, {})
    await publish(server, 'm', 'x')
    await publishAll(server, [
      { topic: 'm', data: 1 },
      { topic: 'm', data: 2 },
      { topic: 'unheard', data: 3 }
    ])
    await Promise.all([one.until(3), two.until(3)])
    const changed = await changes(t, {
      'ringside_events_published_total{feed="events"}': 4,
      'ringside_events_delivered_total{transport="sse"}': 6
    })
    t.ok(changed.get('ringside_bytes_sent_total{transport="sse"}')! > 0)
    t.ok(changed.get('ringside_delivery_seconds_count')! > 0)
    t.ok(changed.get('ringside_broker_seconds_count{op="append"}')! > 0)
    one.close()
    two.close()
    await eventually(
      () => server.app.ringside.hub.sessions.size,
      size => size === 0,
      'the end of both'
    )
  })

  t.test('when an event is refused, or replayed by its key: not', async t => {
    await changes(t, {})
    await post(server, '/events/m?type=gap', 'x')
    await post(server, '/events/m', 'x', { 'idempotency-key': 'k' })
    await post(server, '/events/m', 'x', { 'idempotency-key': 'k' })
    await changes(t, { 'ringside_events_published_total{feed="events"}': 1 })
  })

  t.test('when streams resume: with nothing missed, with a replay, or with a gap', async t => {
    const last = await publish(server, 'r', '0')
    await changes(t, {})
    const live = await listen(t, server, `/events/r?after=${last}`)
    await changes(t, { 'ringside_resumes_total{outcome="live"}': 1 })

    await publish(server, 'r', '1')
    await live.until(1)
    const replayed = await listen(t, server, `/events/r?after=${last}`)
    await replayed.until(1)
    const { size } = await changes(t, { 'ringside_resumes_total{outcome="replayed"}': 1 })
    t.ok(size > 0)
    const metrics = await metricsOf(server)
    const sources = ['memory', 'broker'].map(
      source => metrics.get(`ringside_replayed_events_total{source="${source}"}`) ?? 0
    )
    t.equal(sources[0]! + sources[1]!, 1)

    const unknown = await subscribe(t, server, '/events/r?after=nonsense')
    await unknown.first('cursor')
    await changes(t, {
      'ringside_resumes_total{outcome="gap"}': 1,
      'ringside_gaps_total{reason="unknown"}': 1
    })

    const fourth = await ask(server, '/events/r', { headers: { accept: 'text/event-stream' } })
    t.equal(fourth.status, 200)
    await changes(t, { 'ringside_connections_rejected_total{reason="full"}': 1 })
    for (const stream of [live, replayed, unknown]) stream.close()
    await eventually(
      () => server.app.ringside.hub.sessions.size,
      size => size === 0,
      'the end of all'
    )

    for (let index = 0; index < 12; index++) await publish(server, 'r', String(index))
    const expired = await listen(t, server, `/events/r?after=${last}`)
    await expired.until(10)
    await changes(t, {
      'ringside_resumes_total{outcome="gap"}': 1,
      'ringside_gaps_total{reason="expired"}': 1
    })
  })
})

t.test('the bytes sent are what came', async t => {
  const server = await build(t)
  const stream = await listen(t, server, '/events/bytes')
  for (let index = 0; index < 20; index++) await publish(server, 'bytes', 'é'.repeat(index * 100))
  await stream.until(20)
  const sent = (await metricsOf(server)).get('ringside_bytes_sent_total{transport="sse"}')!
  // with the sizes of the chunks, and perhaps the head
  t.ok(sent >= stream.bytes && sent < stream.bytes + 21 * 10 + 1000, `${sent} sent, ${stream.bytes} came`)
})

t.test('no label takes a value that clients choose', async t => {
  const server = await build(t)
  const chosen = 'chosen-by-a-client'
  const stream = await listen(t, server, `/events/${chosen}`, {
    'last-event-id': '',
    'user-agent': chosen,
    accept: '*/*'
  })
  await post(server, `/events/${chosen}?type=${chosen}`, chosen, { 'idempotency-key': chosen })
  await stream.until(1)
  await subscribe(t, server, `/events?topic=${chosen}&after=${chosen}`)
  await ask(server, `/${chosen}`)
  const { text } = await ask(server, '/metrics')
  t.notMatch(text, chosen)
  t.notMatch(text, '127.0.0.1')
})

/** The samples of all counters and histograms of ours. */
async function countersOf(server: TestServer): Promise<Map<string, number>> {
  const { text } = await ask(server, '/metrics')
  const kinds = new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, kind]) => [name!, kind!]))
  const isCounter = (sample: string) => {
    const name = sample.replace(/\{.*/, '')
    return (
      kinds.get(name) === 'counter' || kinds.get(name.replace(/_(bucket|sum|count)$/, '')) === 'histogram'
    )
  }
  const samples = [...(await metricsOf(server))].filter(
    ([sample]) => /^ringside_(?!worker)/.test(sample) && isCounter(sample)
  )
  return new Map(samples)
}

/** Compares the metrics with those of the call before: they must have moved by so much. Answers with all that moved. */
function watch(server: TestServer) {
  let before = new Map<string, number>()
  return async (t: Test, moved: Record<string, number>) => {
    const now = await metricsOf(server)
    const changed = new Map<string, number>()
    for (const [name, value] of now) changed.set(name, value - (before.get(name) ?? 0))
    for (const [name, by] of Object.entries(moved)) t.equal(changed.get(name), by, name)
    before = now
    return changed
  }
}
