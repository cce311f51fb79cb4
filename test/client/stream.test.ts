import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { EventSource } from 'eventsource'
import { parser } from '../../src/client/transports.ts'
import { subscribe, type Why } from '../../src/client/client.ts'
import { build, metricsOf, post, publish, publishAll, type TestServer } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { dataOf, dataUntil, isIn, listenTo, type Subscriber } from './subscriber.ts'
import { passing, wayTo } from './way.ts'

// one goes through many silences
t.setTimeout(400_000)

/** Fast enough for a test, where nothing else is said. */
const ENV = { RETRY: '50ms' }

/** Publishes the numbers from `first` to `last` on a topic, as one batch. */
function count(server: TestServer, topic: string, first: number, last: number): Promise<string[]> {
  return publishAll(
    server,
    upTo(last, first).map(data => ({ topic, data }))
  )
}

function upTo(last: number, first = 1): number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index)
}

t.test('an event is told with all that it has; bytes are bytes', async t => {
  const server = await build(t, ENV)
  const listener = listenTo(t, ['a', 'b/*'], { url: server.url })
  await isIn(listener, 'live')
  const started = listener.subscription.cursor
  t.match(started, /^\d+-\d+$/)
  const ids = [
    await publish(server, 'a', 'text, "quoted"\nin two lines'),
    (await post(server, '/events/b/c?type=own', '{"n":1.5}', { 'content-type': 'application/json' })).json()[
      'id'
    ],
    (
      await post(server, '/events/b/d', Uint8Array.of(0, 255, 13, 10), {
        'content-type': 'application/octet-stream'
      })
    ).json()['id']
  ]
  await listener.events.until(() => listener.events.all.length === 3, 'three events')
  t.match(listener.events.all, [
    { id: ids[0], topic: 'a', type: 'message', data: 'text, "quoted"\nin two lines' },
    { id: ids[1], topic: 'b/c', type: 'own', data: { n: 1.5 } },
    { id: ids[2], topic: 'b/d', type: 'message' }
  ])
  t.strictSame(listener.events.all[2]!.data, Uint8Array.of(0, 255, 13, 10))
  t.notOk('encoding' in listener.events.all[2]!)
  t.equal(listener.events.all[0]!.time, Number(String(ids[0]).split('-')[0]))
  t.equal(listener.subscription.cursor, ids[2])
  t.strictSame(listener.states.all, [{ state: 'live', why: undefined }])
})

t.test('it starts where it is told to, catches up, and is live', async t => {
  const server = await build(t, ENV)
  const ids = await count(server, 'a', 1, 5)
  for (const [start, expected] of [
    [{ rewind: 2 }, [4, 5]],
    [{ since: '10m' }, [1, 2, 3, 4, 5]],
    [{ after: ids[2] }, [4, 5]],
    [{ after: '', rewind: 1 }, [5]],
    [{ rate: 100, rewind: 1000 }, [5]],
    [{ types: ['none'], rewind: 5 }, []]
  ] as const) {
    const listener = listenTo<number>(t, 'a', { url: server.url, ...start })
    if (expected.length > 0) await dataUntil(listener, 5)
    await isIn(listener, 'live')
    t.strictSame(dataOf(listener), expected)
    t.strictSame(
      listener.states.all.map(({ state }) => state),
      ['catching-up', 'live'],
      JSON.stringify(start)
    )
    t.strictSame(listener.gaps.all, [])
  }
})

t.test('an address that is none is told at once', async t => {
  for (const url of ['/live', 'nothing', 'http://']) {
    t.throws(() => subscribe('a', { url, onEvent: () => {} }), {
      name: 'TypeError',
      message: `url: ${url} is no address`
    })
  }
})

t.test('a connection that breaks: it goes on at its cursor', async t => {
  const server = await build(t, ENV)
  const way = await wayTo(t, server)
  const listener = listenTo<number>(t, 'a', { url: way.url })
  await isIn(listener, 'live')
  let last = 0
  for (const round of upTo(4)) {
    await count(server, 'a', last + 1, last + round)
    last += round
    await dataUntil(listener, last)
    const { cursor } = listener.subscription
    way.cut()
    await count(server, 'a', last + 1, last + 3)
    last += 3
    await dataUntil(listener, last)
    t.equal(way.passed.at(-1)!.query.get('after'), cursor)
  }
  t.strictSame(dataOf(listener), upTo(last))
  t.match(listener.states.all[1], {
    state: 'connecting',
    why: { reason: 'the connection was lost', delay: Number }
  })
  t.ok(listener.states.all[1]!.why!.delay! <= 50, 'the window that the server has named')
})

t.test('a connection that breaks before its first event', async t => {
  const server = await build(t, ENV)
  const way = await wayTo(t, server)
  const listener = listenTo<number>(t, 'a', { url: way.url })
  await isIn(listener, 'live')
  way.cut()
  await count(server, 'a', 1, 3)
  t.strictSame(await dataUntil(listener, 3), [1, 2, 3])
})

t.test('a connection that dies without a word is noticed by its heartbeats', async t => {
  const server = await build(t, { ...ENV, HEARTBEAT: '60s' })
  const way = await wayTo(t, server)
  const listener = listenTo<number>(t, 'a', { url: way.url, heartbeat: 1 })
  await isIn(listener, 'live')
  const { cursor } = listener.subscription
  await eventually(
    () => listener.subscription.cursor,
    now => now !== cursor,
    'a heartbeat with a younger cursor'
  )
  way.silence()
  const silent = Date.now()
  await count(server, 'a', 1, 3)
  t.strictSame(await dataUntil(listener, 3), [1, 2, 3])
  const [, again] = await passing(way, ({ streams }) => streams, 2)
  t.ok(again!.at - silent > 1400 && again!.at - silent < 4000, `after ${again!.at - silent} ms`)
  t.match(listener.states.all[1], { state: 'connecting', why: { reason: 'nothing came through' } })
})

t.test('what a proxy holds back is polled, until streams come through again', async t => {
  const server = await build(t, { ...ENV, RING_SIZE: '2000' })
  const way = await wayTo(t, server)
  way.mode = 'held back'
  const listener = listenTo<number>(t, 'a', { url: way.url, patience: 200, streamAgain: 400 })
  await isIn(listener, 'polling')
  t.strictSame(listener.states.all, [
    { state: 'connecting', why: { reason: 'nothing came through' } },
    { state: 'polling', why: undefined }
  ])
  await count(server, 'a', 1, 3)
  await dataUntil(listener, 3)
  // more than a page
  await count(server, 'a', 4, 1003)
  await count(server, 'a', 1004, 1010)
  await dataUntil(listener, 1010)
  const [poll] = await passing(way, ({ query }) => query.has('wait'))
  t.match(poll, { headers: { accept: 'application/json' } })
  t.ok(Number(poll!.query.get('wait')) >= 20)
  // it looks now and then
  await passing(way, ({ streams }) => streams, 3)
  t.equal(listener.subscription.state, 'polling')
  way.mode = 'open'
  await isIn(listener, 'live')
  await count(server, 'a', 1011, 1020)
  t.strictSame(await dataUntil(listener, 1020), upTo(1020))
  await eventually(
    () => way.streams,
    streams => streams === 1,
    'one connection'
  )
  await eventually(
    () => metricsOf(server),
    metrics => metrics.get('ringside_connections{transport="poll"}') === 0,
    'no poll any more'
  )
})

t.test('a rate holds for polls as well', async t => {
  const server = await build(t, ENV)
  const way = await wayTo(t, server)
  way.mode = 'held back'
  const listener = listenTo<number>(t, 'a', { url: way.url, patience: 50, rate: 2 })
  await isIn(listener, 'polling')
  for (const number of upTo(12)) {
    await count(server, 'a', number, number)
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  const got = await dataUntil(listener, 12)
  t.ok(got.length >= 2 && got.length <= 5, `${got.length} of 12`)
  t.strictSame(
    got,
    [...got].sort((a, b) => a - b)
  )
})

t.test('streams that begin and then give nothing are polled the second time', async t => {
  const server = await build(t, ENV)
  const way = await wayTo(t, server)
  const listener = listenTo<number>(t, 'a', { url: way.url, heartbeat: 1 })
  for (const round of [1, 2]) {
    await passing(way, ({ streams }) => streams, round)
    await isIn(listener, round === 1 ? 'live' : 'catching-up')
    way.silence()
    await isIn(listener, 'connecting')
  }
  await count(server, 'a', 1, 3)
  t.strictSame(await dataUntil(listener, 3), [1, 2, 3])
  t.equal(listener.subscription.state, 'polling')
})

t.test('neither a stream nor a page comes through: it keeps trying', async t => {
  const server = await build(t, ENV)
  const way = await wayTo(t, server)
  way.mode = 'refused'
  const listener = listenTo<number>(t, 'a', { url: way.url })
  await listener.states.until(() => listener.states.all.filter(({ why }) => why).length >= 3, 'attempts')
  t.match(listener.states.all[0], {
    state: 'connecting',
    why: { reason: 'the server answered 502', delay: Number }
  })
  t.notOk(
    way.passed.some(({ streams }) => !streams),
    'a 502 is no reason to poll'
  )
  way.mode = 'open'
  await isIn(listener, 'live')
  await count(server, 'a', 1, 2)
  t.strictSame(await dataUntil(listener, 2), [1, 2])
})

t.test('polls that fail: streams are tried again', async t => {
  const server = await build(t, ENV)
  const way = await wayTo(t, server)
  way.mode = 'held back'
  const listener = listenTo<number>(t, 'a', { url: way.url, patience: 100 })
  await isIn(listener, 'polling')
  way.mode = 'refused'
  way.cut()
  const polls = () => way.passed.filter(({ streams }) => !streams).length
  const before = polls()
  await eventually(polls, now => now >= before + 2, 'two polls in vain')
  way.mode = 'open'
  await isIn(listener, 'live')
  await count(server, 'a', 1, 2)
  t.strictSame(await dataUntil(listener, 2), [1, 2])
})

t.test('a gap is told before what comes after it', async t => {
  const server = await build(t, { ...ENV, RING_SIZE: '3' })
  const way = await wayTo(t, server)
  const listener = listenTo<number>(t, 'a', { url: way.url })
  await isIn(listener, 'live')
  for (const mode of ['open', 'held back'] as const) {
    const { cursor } = listener.subscription
    const before = listener.events.all.length
    // not before all is stored
    way.mode = 'refused'
    way.cut()
    await count(server, 'a', 1, 10)
    way.mode = mode
    await listener.events.until(() => listener.events.all.length === before + 3, 'what is left')
    t.strictSame(dataOf(listener).slice(before), [8, 9, 10], mode)
    t.match(listener.gaps.all.at(-1), { reason: 'expired', topics: ['a'], after: cursor })
  }
  t.equal(listener.gaps.all.length, 2)
})

t.test('a cursor of another life is replaced', async t => {
  const server = await build(t, ENV)
  const way = await wayTo(t, server)
  const listener = listenTo<number>(t, 'a', { url: way.url, after: 'nonsense' })
  await isIn(listener, 'live')
  t.match(listener.gaps.all, [{ reason: 'unknown', topics: ['a'], after: 'nonsense' }])
  t.match(listener.subscription.cursor, /^\d+-\d+$/)
  way.cut()
  await count(server, 'a', 1, 2)
  t.strictSame(await dataUntil(listener, 2), [1, 2])
  t.equal(listener.gaps.all.length, 1)
})

t.test('topics that have ended: it is told everything, and settles', async t => {
  const server = await build(t, ENV)
  const way = await wayTo(t, server)
  // a browser has its own: see browser.test.ts
  Object.assign(globalThis, { EventSource })
  t.teardown(() => Reflect.deleteProperty(globalThis, 'EventSource'))
  const end = (topic: string) => post(server, `/events/${topic}?end=true`, '3')
  const settled = { state: 'ended', why: { reason: 'all its topics have ended' } }
  for (const [how, options, mode] of [
    ['fetch', {}, 'open'],
    ['source', { types: ['message'] }, 'open'],
    ['poll', { patience: 50, streamAgain: 100 }, 'held back']
  ] as const) {
    way.mode = mode
    const topics = [`${how}/1`, `${how}/2`]
    const listener = listenTo(t, topics, { url: way.url, ...options })
    await isIn(listener, mode === 'open' ? 'live' : 'polling')
    await publish(server, topics[0]!, '1')
    await publish(server, topics[1]!, '2')
    await end(topics[0]!)
    await dataUntil(listener, 2)
    t.not(listener.subscription.state, 'ended', 'one of them goes on')
    await end(topics[1]!)
    await isIn(listener, 'ended')
    t.strictSame(dataOf(listener), how === 'source' ? [1, 2] : [1, 2, 3, 3])
    t.strictSame(listener.states.all.at(-1), settled)
    const asked = () => way.passed.filter(({ query }) => query.getAll('topic').includes(topics[0]!))
    if (mode === 'open') t.equal(asked().length, 1, 'it does not come back')
    const before = asked().length
    // who comes later, with what it has
    const { cursor } = listener.subscription
    const late = listenTo(t, topics, { url: way.url, ...options, after: cursor })
    await isIn(late, 'ended')
    t.strictSame(dataOf(late), [])
    t.strictSame(late.states.all.at(-1), settled)
    await new Promise(resolve => setTimeout(resolve, 300))
    t.ok(asked().length <= before + 3, `${how}: and stays away`)
    late.subscription.close()
    t.equal(late.subscription.state, 'closed')
  }
})

t.test('close: nothing more is told, also from within a callback', async t => {
  const server = await build(t, ENV)
  const ids = await count(server, 'a', 1, 10)
  for (const [mode, patience] of [
    ['open', 5000],
    ['held back', 100]
  ] as const) {
    const way = await wayTo(t, server)
    way.mode = mode
    const listener = listenTo<number>(t, 'a', {
      ...{ url: way.url, rewind: 10, patience },
      onEvent({ data }) {
        if (data === 3) listener.subscription.close()
      }
    })
    await dataUntil(listener, 3)
    t.equal(listener.subscription.state, 'closed')
    t.equal(listener.subscription.cursor, ids[2])
    await eventually(
      () => metricsOf(server),
      metrics => ['sse', 'poll'].every(each => !metrics.get(`ringside_connections{transport="${each}"}`)),
      'the end of its connection'
    )
    t.strictSame(dataOf(listener), [1, 2, 3], mode)
    t.notOk(listener.states.all.some(({ state }) => state === 'closed'))
    listener.subscription.close()
  }
})

// --- what the server says about coming back ---

type Answer = (request: IncomingMessage, response: ServerResponse) => void

/** A server that gives these answers, one after the other; the last one again and again. */
async function answering(t: Test, ...answers: Answer[]) {
  const at: number[] = []
  const headers: IncomingMessage['headers'][] = []
  const server = createServer((request, response) => {
    answers[Math.min(at.length, answers.length - 1)]!(request, response)
    at.push(Date.now())
    headers.push(request.headers)
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hub`, at, headers }
}

function refusing(status: number, detail?: string, headers: Record<string, string> = {}): Answer {
  return (_request, response) =>
    response
      .writeHead(status, { 'content-type': 'application/problem+json', ...headers })
      .end(detail && JSON.stringify({ status, detail }))
}

function streaming(...blocks: string[]): Answer {
  return (_request, response) =>
    response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' }).write(blocks.join(''))
}

const opening = 'retry: 50\nid: 1-0\nevent: cursor\ndata: {"cursor":"1-0"}\n\n'
const goodbye = (reason: string, retry: number) =>
  `retry: ${retry}\nevent: goodbye\ndata: ${JSON.stringify({ reason, retry })}\n\n`

t.test('a refusal is final, and says why', async t => {
  for (const status of [400, 401, 403, 404, 406, 410]) {
    const server = await answering(t, refusing(status, status === 403 ? 'a is not for you' : undefined))
    const listener = listenTo(t, 'a', { url: server.url })
    await isIn(listener, 'closed')
    const reason = status === 403 ? 'a is not for you' : `the server answered ${status}`
    t.strictSame(listener.states.all, [{ state: 'closed', why: { reason } }])
    t.equal(server.at.length, 1)
  }
  const server = await build(t, ENV)
  const listener = listenTo(t, 'a//b', { url: server.url })
  await isIn(listener, 'closed')
  t.match(listener.states.all, [
    { state: 'closed', why: { reason: /"a\/\/b" is neither a topic nor a wildcard/ } }
  ])
})

t.test('what may pass is tried again', async t => {
  const html: Answer = (_request, response) =>
    response.writeHead(200, { 'content-type': 'text/html' }).end('<p>Log in')
  const broken = streaming(opening, 'id: 2-0\ndata: {"not JSON\n\n')
  const reset: Answer = request => request.socket.destroy()
  for (const [name, answer] of Object.entries({
    html,
    broken,
    reset,
    408: refusing(408),
    429: refusing(429),
    500: refusing(500)
  })) {
    const server = await answering(t, streaming(opening, goodbye('full', 1)), answer, streaming(opening))
    const listener = listenTo(t, 'a', { url: server.url })
    await listener.states.until(() => server.at.length === 3, 'a third attempt')
    await isIn(listener, 'live')
    t.equal(listener.subscription.cursor, '1-0', name)
  }
})

t.test('it comes back not before the server wants it to', async t => {
  const dated: Answer = (request, response) =>
    refusing(503, 'full', { 'retry-after': new Date(Date.now() + 2500).toUTCString() })(request, response)
  for (const [name, answer, least, most] of [
    ['Retry-After', refusing(503, 'full', { 'retry-after': '1' }), 1000, 4000],
    ['Retry-After, a date', dated, 1400, 6000],
    ['goodbye', streaming(opening, goodbye('shutdown', 700)), 690, 1100]
  ] as const) {
    const server = await answering(t, answer, streaming(opening))
    const listener = listenTo(t, 'a', { url: server.url })
    await listener.states.until(() => server.at.length === 2, 'a second attempt')
    const took = server.at[1]! - server.at[0]!
    t.ok(took >= least && took <= most, `${name}: ${took} ms`)
  }
})

/** Why it waits, once it does. */
async function whyOf({ states }: Subscriber): Promise<Why> {
  const found = () => states.all.find(({ why }) => why)?.why
  await states.until(() => found() !== undefined, 'a reason')
  return found()!
}

t.test('a wait longer than a timer knows is no loop', async t => {
  const month = 2_592_000
  for (const [name, answer, floor] of [
    ['Retry-After', refusing(503, 'full', { 'retry-after': String(month) }), 1000 * month],
    ['goodbye', streaming(opening, goodbye('shutdown', 3e9)), 3e9]
  ] as const) {
    const server = await answering(t, answer)
    const listener = listenTo(t, 'a', { url: server.url })
    const why = await whyOf(listener)
    t.ok(why.delay! >= floor, name)
    // a loop would ask hundreds of times meanwhile
    const other = await answering(t, streaming(opening, goodbye('full', 300)), streaming(opening))
    listenTo(t, 'a', { url: other.url })
    await eventually(
      () => other.at.length,
      asked => asked === 2,
      'a second attempt elsewhere'
    )
    t.equal(server.at.length, 1, name)
  }
  const server = await answering(
    t,
    (_request, response) => void setTimeout(streaming(opening), 200, _request, response)
  )
  await isIn(listenTo(t, 'a', { url: server.url, patience: Infinity }), 'live')
  t.match(server.headers, [{ accept: 'text/event-stream' }], 'whoever has all the patience does not poll')
  t.equal(server.at.length, 1)
  for (const [option, value] of [
    ['patience', NaN],
    ['patience', -1],
    ['streamAgain', NaN],
    ['heartbeat', 0]
  ] as const) {
    t.throws(() => subscribe('a', { url: server.url, [option]: value, onEvent: () => {} }), {
      name: 'TypeError',
      message: `${option}: ${value} is no number`
    })
  }
})

t.test('a date is by the clock of the server, where that is known', async t => {
  const dated: Answer = (request, response) =>
    refusing(503, 'full', {
      date: 'Wed, 01 Jan 2020 00:00:00 GMT',
      'retry-after': 'Wed, 01 Jan 2020 00:01:00 GMT'
    })(request, response)
  const server = await answering(t, dated)
  const listener = listenTo(t, 'a', { url: server.url })
  const why = await whyOf(listener)
  t.ok(why.delay! >= 60_000 && why.delay! < 63_000, `${why.delay}`)
})

t.test('stale: until the next cursor, whatever comes before it; a quiet cursor changes nothing', async t => {
  let say!: (text: string) => void
  const server = await answering(t, (request, response) => {
    streaming(opening)(request, response)
    say = text => response.write(text)
  })
  const listener = listenTo<number>(t, 'a', { url: server.url })
  await isIn(listener, 'live')
  const event = (number: number) =>
    `data: ${JSON.stringify({ id: `${number}-0`, topic: 'a', type: 'message', time: Date.now(), data: number })}\nid: ${number}-0\n\n`
  const cursor = (id: string) => `event: cursor\ndata: {"cursor":"${id}"}\nid: ${id}\n\n`
  say(cursor('2-0') + event(3))
  await dataUntil(listener, 3)
  say(`event: stale\ndata: {"since":1795415440000}\nid: 3-0\n\n`)
  await isIn(listener, 'stale')
  say(`event: heartbeat\ndata: {"time":1,"cursor":"3-0"}\nid: 3-0\n\n${event(4)}`)
  await dataUntil(listener, 4)
  t.equal(listener.subscription.state, 'stale')
  say(cursor('5-0'))
  await isIn(listener, 'live')
  t.equal(listener.subscription.cursor, '5-0')
  t.strictSame(listener.states.all, [
    { state: 'live', why: undefined },
    { state: 'stale', why: { reason: 'the server is cut off from its store', since: 1795415440000 } },
    { state: 'live', why: undefined }
  ])
})

t.test('goodbye says why, and when it will be back', async t => {
  const server = await build(t, ENV)
  const listener = listenTo<number>(t, 'a', { url: server.url })
  await isIn(listener, 'live')
  await server.app.ringside.hub.connections.drain(0)
  await isIn(listener, 'connecting')
  t.match(listener.states.all.at(-1), {
    state: 'connecting',
    why: { reason: 'the server said goodbye (shutdown)', delay: Number }
  })
  await count(server, 'a', 1, 2)
  t.strictSame(await dataUntil(listener, 2), [1, 2])
})

t.test('a token goes along as a header, and is renewed when it is no longer good', async t => {
  const bearer =
    (token: string, answer: Answer): Answer =>
    (request, response) =>
      (request.headers.authorization === `Bearer ${token}` ? answer : refusing(401, 'no good'))(
        request,
        response
      )
  const server = await answering(
    t,
    bearer('one', streaming(opening, goodbye('expired', 60_000))),
    bearer('two', streaming(opening))
  )
  const tokens = ['two']
  const listener = listenTo(t, 'a', { url: server.url, token: 'one', onToken: async () => tokens.shift()! })
  await listener.states.until(() => server.at.length === 2, 'a second attempt')
  await isIn(listener, 'live')
  t.strictSame(
    server.headers.map(({ authorization }) => authorization),
    ['Bearer one', 'Bearer two']
  )

  const strict = await answering(t, bearer('none', streaming(opening)))
  for (const onToken of [() => 'wrong', () => Promise.reject(new Error('logged out'))]) {
    const before = strict.at.length
    const refused = listenTo(t, 'a', { url: strict.url, token: 'old', onToken })
    await isIn(refused, 'closed')
    t.match(refused.states.all, [{ state: 'closed', why: { reason: 'no good' } }])
    t.ok(strict.at.length - before <= 2, 'no third attempt')
  }
})

t.test('headers go along', async t => {
  const server = await answering(t, streaming(opening))
  const listener = listenTo(t, 'a', { url: server.url, headers: { 'x-tenant': 'one' } })
  await isIn(listener, 'live')
  t.match(server.headers, [{ accept: 'text/event-stream', 'x-tenant': 'one' }])
})

// --- the parser ---

/** What a parser makes of a text that comes in these pieces. */
function parse(...pieces: string[]) {
  const frames: [type: string, data: string, id: string | undefined][] = []
  const retries: number[] = []
  const push = parser(
    (...frame) => frames.push(frame),
    ms => retries.push(ms)
  )
  for (const piece of pieces) push(piece)
  return { frames, retries }
}

t.test('text/event-stream is read as the standard has it', async t => {
  for (const [text, frames] of [
    // the examples of the standard
    ['data: YHOO\ndata: +2\ndata: 10\n\n', [['message', 'YHOO\n+2\n10', undefined]]],
    [
      ': test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n',
      [
        ['message', 'first event', '1'],
        ['message', 'second event', ''],
        ['message', ' third event', undefined]
      ]
    ],
    [
      'data\n\ndata\ndata\n\ndata:',
      [
        ['message', '', undefined],
        ['message', '\n', undefined]
      ]
    ],
    [
      'data:test\n\ndata: test\n\n',
      [
        ['message', 'test', undefined],
        ['message', 'test', undefined]
      ]
    ],
    // every line end
    [
      'event: a\rdata: 1\r\rdata: 2\r\n\r\ndata: 3\n\n',
      [
        ['a', '1', undefined],
        ['message', '2', undefined],
        ['message', '3', undefined]
      ]
    ],
    // an id alone moves the cursor; one with a NUL is none; a block that isn't ended is none
    [':\nid: 7\n\nid: a\0b\n\nid: 8\ndata: cut', [['', '', '7']]],
    ['event: x\n\nunknown: y\ndata: a\u2028b: c\n\n', [['message', 'a\u2028b: c', undefined]]]
  ] as const) {
    t.strictSame(parse(text).frames, frames)
  }
  t.strictSame(parse('retry: 10\nretry: 1.5\nretry: -1\nretry\nretry:20\n\n').retries, [10, 20])
})

t.test('however it is cut into pieces', async t => {
  const line = fc.constantFrom(
    'data: a',
    'data:',
    'data',
    'id: 1',
    'event: e',
    ': c',
    'retry: 5',
    '',
    '',
    'data: ü€😀'
  )
  const end = fc.constantFrom('\n', '\r\n', '\r')
  fc.assert(
    fc.property(fc.array(fc.tuple(line, end)), fc.array(fc.nat(200)), (lines, cuts) => {
      const text = `${lines.flat().join('')}\n`
      const places = [...new Set(cuts.map(cut => cut % text.length))].sort((a, b) => a - b)
      const pieces = [...places, text.length].map((place, index) => text.slice(places[index - 1] ?? 0, place))
      t.strictSame(parse(...pieces), parse(text))
    }),
    { numRuns: 300 }
  )
})

t.end()
