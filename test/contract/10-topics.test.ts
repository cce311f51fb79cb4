import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { ask, build, isProblem, metricsOf, post, publish, publishAll } from '../support/app.ts'
import { listen, subscribe } from '../support/reader.ts'
import { SECRET } from '../support/tokens.ts'
import { connect } from '../support/websocket.ts'

/** A server with rules for topics, and how they are replaced. */
async function withRules(t: Test, rules: readonly object[], env: Record<string, string> = {}) {
  const TOPICS = join(t.testdir({}), 'topics.json')
  const write = (list: unknown) => writeFileSync(TOPICS, JSON.stringify(list, null, 1))
  write(rules)
  const server = await build(t, { TOPICS, ...env })
  const renew = (list: unknown) => {
    write(list)
    return server.app.ringside.renewRules()
  }
  return { server, renew }
}

const EVENT_STREAM = { accept: 'text/event-stream' }

t.test('ring: a topic keeps as many events as its rule says, whoever listens', async t => {
  const { server } = await withRules(t, [{ match: 'few/**', ring: 2 }])
  const stream = await listen(t, server, '/events?topic=few/a&topic=b')
  const start = stream.cursor
  for (const topic of ['few/a', 'b'])
    await publishAll(
      server,
      [1, 2, 3].map(data => ({ topic, data }))
    )
  t.equal((await stream.until(6)).length, 6, 'who is live gets all')
  const page = async (topic: string) =>
    (await ask(server, `/events/${topic}?after=${start}`, JSON_TYPE)).json()
  t.match(await page('few/a'), {
    gap: { reason: 'expired', topics: ['few/a'] },
    events: [{ data: 2 }, { data: 3 }]
  })
  t.match(await page('b'), { gap: null, events: [{ data: 1 }, { data: 2 }, { data: 3 }] })
})

const JSON_TYPE = { headers: { accept: 'application/json' } }

t.test('ttl: a cursor may be as old as the rules of its topics say', async t => {
  const { server } = await withRules(t, [{ match: 'long', ttl: '365d' }])
  const old = `${Date.now() - 100 * 86_400_000}-0`
  const reason = async (topics: string) => {
    const { gap } = (await ask(server, `/events?${topics}&after=${old}`, JSON_TYPE)).json() as {
      gap: { reason: string }
    }
    return gap.reason
  }
  t.equal(await reason('topic=short'), 'expired', 'too old to be looked for')
  t.equal(await reason('topic=long'), 'unknown', 'looked for, and of another life of the store')
  t.equal(await reason('topic=short&topic=long'), 'unknown')
})

t.test('maxEventBytes: more is 413, by every way in', async t => {
  const { server } = await withRules(t, [
    { match: 'small/*', maxEventBytes: 4 },
    { match: 'dashboards/small', maxEventBytes: '9' }
  ])
  await publish(server, 'small/a', '1234')
  await publish(server, 'large', '12345')
  isProblem(t, await post(server, '/events/small/a', '12345'), 413, /at most 4 .*TOPICS, small\/\*/)
  const batch = JSON.stringify([
    { topic: 'large', data: '12345' },
    { topic: 'small/b', data: '12345' }
  ])
  const type = { 'content-type': 'application/json' }
  isProblem(t, await post(server, '/events', batch, type), 413, /1.*at most 4/)
  const client = await connect(t, server)
  t.match(await client.ask('publish', { topic: 'small/a', data: 'x'.repeat(9) }), { code: 'too_large' })
  const put = (id: string) =>
    ask(server, `/dashboards/${id}`, { method: 'PUT', headers: type, body: '{"a":12345}' })
  t.equal((await put('small')).status, 413)
  t.equal((await put('large')).status, 201)
})

t.test('anonymous: says who has no token, before ANONYMOUS_SUBSCRIBE does', async t => {
  const { server, renew } = await withRules(
    t,
    [
      { match: 'news/inner', anonymous: false },
      { match: 'news/**', anonymous: true },
      { match: 'public/secret', anonymous: false },
      { match: 'notifications/**', anonymous: true }
    ],
    { JWT_SECRET: SECRET, ANONYMOUS_SUBSCRIBE: 'public/**' }
  )
  const may = async (topic: string) => (await ask(server, `/events/${topic}`, JSON_TYPE)).status === 200
  t.ok(await may('news/a'))
  t.ok(await may('news/a/*'))
  t.notOk(await may('news/inner'))
  t.notOk(await may('news/*'), 'a wildcard only where all that it covers may be read')
  t.ok(await may('public/a'))
  t.notOk(await may('public/secret'))
  t.notOk(await may('public/*'))
  t.notOk(await may('other'))
  t.notOk(await may('notifications/alice'), 'nobody reads the inbox of another')
  t.equal((await post(server, '/events/news/a', '1')).status, 401, 'nor is it to publish')
  t.equal(renew([]), 0)
  t.notOk(await may('news/a'))
  t.ok(await may('public/secret'))
})

t.test('presence: where it is false there are neither members nor signals', async t => {
  const { server, renew } = await withRules(t, [{ match: 'quiet/**', presence: false }])
  const client = await connect(t, server)
  await client.do('join', { topic: 'loud' })
  for (const [op, message] of [
    ['join', { topic: 'quiet/a' }],
    ['leave', { topic: 'quiet/a' }],
    ['signal', { topic: 'quiet/a', data: 1 }]
  ] as const)
    t.match(await client.ask(op, message), { code: 'forbidden', message: /neither members nor signals/ }, op)
  await client.do('signal', { topic: 'loud', data: 1 })
  renew([{ match: '**', presence: false }])
  t.match(await client.ask('signal', { topic: 'loud', data: 1 }), { code: 'forbidden' })
  await client.do('leave', { topic: 'loud' })
})

t.test('rate: no subscriber is served faster', async t => {
  const { server } = await withRules(t, [
    { match: 'fast/**', rate: 0.1 },
    { match: 'faster', rate: 5 }
  ])
  const streams = await Promise.all([
    listen(t, server, '/events/fast/a'),
    listen(t, server, '/events/fast/*?rate=100'),
    listen(t, server, '/events?topic=fast/a&topic=faster'),
    listen(t, server, '/events?topic=fast/a&topic=free&rate=50')
  ])
  const free = await listen(t, server, '/events/free')
  const client = await connect(t, server)
  await client.do('subscribe', { topics: ['fast/a'] })
  await publish(server, 'fast/a', 'first')
  for (const stream of streams) t.match(await stream.until(1), [{ data: 'first' }])
  await publish(server, 'fast/a', 'second')
  await publish(server, 'free', 'third')
  await free.until(1)
  await publish(server, 'free', 'fourth')
  t.match(await free.until(2), [{ data: 'third' }, { data: 'fourth' }], 'others get all at once')
  for (const stream of streams) t.equal(stream.messages.length, 1)
  t.equal(client.told.filter(({ op }) => op === 'event').length, 1)
  const page = (await ask(server, '/events/fast/a?rewind=9', JSON_TYPE)).json()
  t.match(page, { events: [{ data: 'first' }, { data: 'second' }] }, 'a page has all')

  t.test('and with others that have none only who asks for one', async t => {
    const mixed = await ask(server, '/events?topic=fast/a&topic=free', { headers: EVENT_STREAM })
    isProblem(t, mixed, 422, /fast\/a.* 0.1 a second.*ask for a rate/)
    t.equal((await ask(server, '/events?topic=*', JSON_TYPE)).status, 200)
    isProblem(t, await ask(server, '/events?topic=*', { headers: EVENT_STREAM }), 422, /ask for a rate/)
    t.match(await client.ask('subscribe', { topics: ['faster', 'free'] }), { code: 'bad_request' })
  })
})

t.test('maxSubscribers: streams past it are turned away, and come back', async t => {
  const { server } = await withRules(t, [{ match: 'room/**', maxSubscribers: 2 }])
  const first = await listen(t, server, '/events/room/a')
  const client = await connect(t, server)
  await client.do('subscribe', { topics: ['room/*'] })
  const full = await subscribe(t, server, '/events/room/a', {
    ...EVENT_STREAM,
    'last-event-id': '1700000000000-0'
  })
  t.equal(full.status, 200, 'an EventSource comes back by itself')
  t.match(await full.next(), { event: 'cursor', id: '1700000000000-0' })
  t.match(await full.next(), { event: 'goodbye', data: /"full"/ })
  const refused = await ask(server, '/events/room/a', { headers: { accept: 'application/x-ndjson' } })
  isProblem(t, refused, 503, /room\/a.* 2 subscribers/)
  t.ok(Number(refused.headers['retry-after']) >= 1)
  t.match(await client.ask('subscribe', { topics: ['room/a', 'b'] }), { code: 'bad_request' }, 'overlaps')
  const another = await connect(t, server)
  t.match(await another.ask('subscribe', { topics: ['room/a'] }), { code: 'unavailable', message: /room\/a/ })
  t.equal((await ask(server, '/events/room/a', JSON_TYPE)).status, 200, 'a page takes no place')
  const metrics = await metricsOf(server)
  t.equal(metrics.get('ringside_connections_rejected_total{reason="topic_subscribers"}'), 2)
  await listen(t, server, '/events/room/b')
  await client.do('unsubscribe', { topics: ['room/*'] })
  t.equal((await listen(t, server, '/events/room/a', EVENT_STREAM)).status, 200)
  t.equal(first.status, 200)
})

t.test('ephemeral: whoever is live gets it, and nobody finds it later', async t => {
  const { server, renew } = await withRules(t, [{ match: 'live/**', ephemeral: true }])
  const stream = await listen(t, server, '/events?topic=live/a&topic=s')
  const client = await connect(t, server)
  await client.do('subscribe', { topics: ['live/*', 's'] })
  const polled = ask(server, `/events?topic=live/a&topic=s&after=${stream.cursor}&wait=60`, JSON_TYPE)
  const json = { 'content-type': 'application/json', 'idempotency-key': 'once' }
  const first = await post(server, '/events/live/a?ttl=5', '1', json)
  t.match([first.status, first.json()], [201, { id: /^\d+-\d+$/, topic: 'live/a' }])
  const again = await post(server, '/events/live/a?ttl=5', '1', json)
  t.strictSame([again.json(), again.headers['idempotent-replayed']], [first.json(), 'true'])
  const { id } = await client.do('publish', { topic: 'live/a', data: 2 })
  const batch = ['live/a', 's', 'live/a'].map((topic, index) => ({ topic, data: index + 3 }))
  const ids = await publishAll(server, batch)
  const all = [(first.json() as { id: string }).id, id as string, ...ids]
  t.strictSame(
    (await stream.until(5)).map(({ id, data }) => [id, data]),
    all.map((id, index) => [id, String(index + 1)])
  )
  t.strictSame(
    (await client.until(5)).map(({ id, data }) => [id, data]),
    all.map((id, index) => [id, index + 1])
  )
  t.match((await polled).json(), { events: [{ data: 4 }], gap: null }, 'who polls waits for what is stored')

  t.test('its id is a cursor', async t => {
    for (const start of [`after=${stream.cursor}`, `after=${all[1]}`, 'rewind=9', 'since=1h']) {
      const page = (await ask(server, `/events?topic=live/a&topic=s&${start}`, JSON_TYPE)).json()
      t.match(page, { gap: null, more: false }, start)
      t.match(page.events, [{ topic: 's', data: 4 }], start)
      t.equal((page.events as unknown[]).length, 1)
    }
    const back = await listen(t, server, '/events?topic=live/a&topic=s', {
      ...EVENT_STREAM,
      'last-event-id': all[4]!
    })
    t.equal(back.cursor, all[4])
    await publish(server, 'live/a', 'next')
    t.match(await back.until(1), [{ data: 'next' }])
    t.notOk(back.frames.all.some(({ event }) => event === 'gap'))
  })

  t.test('it has no end', async t => {
    const refused = await post(server, '/events/live/a?end=true', '1')
    isProblem(t, refused, 422, /live\/a can't end.*not stored.*TOPICS, live\/\*\*/)
    await t.rejects(server.app.ringside.publish('live/a', { data: 1, end: true }), /can't end/)
  })

  t.test('what feeds write is stored, also under a rule for all topics', async t => {
    renew([{ match: '**', ephemeral: true }])
    const object = { method: 'PUT', headers: { 'content-type': 'application/json' }, body: '{"a":1}' }
    t.equal((await ask(server, '/dashboards/ops', object)).status, 201)
    t.match((await ask(server, '/dashboards/ops', JSON_TYPE)).json(), { a: 1 })
    const type = { 'content-type': 'application/json' }
    await post(server, '/tickers', '{"symbol":"A","price":1}', type)
    t.match((await ask(server, '/tickers?symbols=*', JSON_TYPE)).json(), { quotes: [{ symbol: 'A' }] })
    await post(server, '/notifications', '{"to":"alice","title":"Hello"}', type)
    t.match((await ask(server, '/notifications?user=alice', JSON_TYPE)).json(), { unread: 1 })
    const shown = (await ask(server, '/openapi.json')).json()
    t.match(shown, { 'x-ringside-topics': [{ match: '**', ephemeral: true }] })
    t.throws(() => renew([{ match: 'tickers/*', ephemeral: true }]), /line \d+: ephemeral: .*\/tickers/)
  })
})

t.test('what is in force is shown, and a wrong file changes nothing', async t => {
  const { server, renew } = await withRules(t, [{ match: 'a', ring: 2, ttl: '7d' }])
  const shown = async () => (await ask(server, '/openapi.json')).json()
  t.match(await shown(), {
    'x-ringside-topics': [{ match: 'a', ring: 2, ttl: 604_800 }],
    info: { description: /"ring":2/ }
  })
  t.throws(() => renew([{ match: 'a' }, { match: 'b', ring: -1 }]), {
    message: /^TOPICS=.*topics\.json: line \d+: ring: -1 is not allowed; it must be a whole number from 1/
  })
  t.match((await shown())['x-ringside-topics'], [{ match: 'a', ring: 2 }])
  t.equal(renew([]), 0)
  t.strictSame((await shown())['x-ringside-topics'], [])
  const { text } = await ask(server, '/docs/json')
  t.notMatch(text, '"ring":2')
})
