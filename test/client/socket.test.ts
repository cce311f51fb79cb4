import t from 'tap'
import { WebSocket } from 'ws'
import { connect, type Member, type Signal } from '../../src/client/client.ts'
import { eventually, Inbox } from '../support/inbox.ts'
import { connectTo, dataOf, isIn, listen } from './connected.ts'
import { startHub, type Message, type SmallHub } from './hub.ts'

t.setTimeout(60_000)

const sent = ({ heard }: SmallHub, op: string): Message[] => heard.all.filter(each => each.op === op)

t.test('each request has its answer', async t => {
  const hub = await startHub(t)
  const connected = connectTo(t, hub, { token: 'a b' })
  const { connection } = connected
  // before there is a connection
  const { events, subscription } = await listen(connection, 'a')
  t.equal(connection.state, 'live')
  t.equal(hub.last.request.url, '/ws?token=a+b')
  t.equal(hub.last.socket.protocol, 'ringside.v1.json')
  t.equal(subscription.cursor, '0-0')
  t.equal(await connection.publish('a', { n: 1 }), '1-0')
  t.equal(await connection.publish('a', 'two', { type: 'own', key: 'mine' }), '2-0')
  t.match(sent(hub, 'publish'), [
    { topic: 'a', data: { n: 1 }, key: /^[0-9a-f]{32}$/ },
    { type: 'own', key: 'mine' }
  ])
  await events.until(() => events.all.length === 2, 'both')
  t.match(events.all, [{ id: '1-0', topic: 'a', type: 'message', time: 1, data: { n: 1 } }, { id: '2-0' }])
  t.notOk('op' in events.all[0]!)
  t.equal(subscription.cursor, '2-0')
  await connection.signal('a', 'typing')
  t.equal(await connection.read(['7-0']), 3)
  await connection.ping()
  const members = new Inbox<readonly Member[]>()
  const membership = await connection.join('room', {
    info: { name: 'x' },
    onMembers: all => members.push(all)
  })
  t.strictSame(members.all, [[{ id: 'me', sub: null, info: { name: 'x' } }]])
  await t.rejects(connection.join('room'), { code: 'bad_request' })
  await membership.leave()
  await membership.leave()
  await subscription.unsubscribe()
  await connection.publish('a', 3)
  await connection.ping()
  t.equal(events.all.length, 2)
  t.strictSame(
    hub.heard.all.map(({ op }) => op),
    [
      'subscribe',
      'publish',
      'publish',
      'signal',
      'read',
      'ping',
      'join',
      'leave',
      'unsubscribe',
      'publish',
      'ping'
    ]
  )
  await t.rejects(connection.publish('a', Uint8Array.of(1)), { name: 'TypeError' })
  t.strictSame(connected.states.all, [{ state: 'live', why: undefined }])
})

t.test('after a break it goes on where it was', async t => {
  const hub = await startHub(t)
  const connected = connectTo(t, hub)
  const { connection } = connected
  const { events } = await listen(connection, 'a')
  const other = await listen(connection, 'b')
  const members = new Inbox<readonly Member[]>()
  await connection.join('room', { onMembers: all => members.push(all) })
  for (const round of [1, 2, 3]) {
    await connection.publish('a', 10 * round)
    hub.cut()
    hub.store({ op: 'publish', topic: 'a', data: 10 * round + 1 })
    // without a connection
    const stored = connection.publish('a', 10 * round + 2)
    await t.rejects(connection.signal('a', 'typing'), { code: 'unavailable' })
    await stored
    await events.until(() => events.all.length === 3 * round, 'what was missed')
  }
  t.strictSame(dataOf(events), [10, 11, 12, 20, 21, 22, 30, 31, 32])
  t.strictSame(dataOf(other.events), [])
  await members.until(() => members.all.length === 4, 'to have joined again')
  const again = sent(hub, 'subscribe').slice(-2)
  t.match(again, [
    { topics: ['a'], after: '7-0' },
    { topics: ['b'], after: '0-0' }
  ])
  t.match(connected.states.all[1], {
    state: 'connecting',
    why: { reason: /the connection was lost/, delay: Number }
  })
})

t.test('a subscription whose topics have ended is over', async t => {
  const hub = await startHub(t)
  const connected = connectTo(t, hub)
  const { connection } = connected
  const errors = new Inbox<unknown>()
  const over = await listen(connection, ['a', 'b'], { onEnd: error => errors.push(error) })
  const wild = await listen(connection, 'c')
  const tell = (topic: string, type: string) => hub.store({ op: 'publish', topic, type })
  tell('b', 'end')
  tell('b', 'anew')
  tell('a', 'end')
  tell('c', 'message')
  await wild.events.until(() => wild.events.all.length === 1, 'one that goes on')
  t.strictSame(errors.all, [], 'b has begun anew')
  tell('b', 'end')
  await errors.until(() => errors.all.length === 1, 'the end')
  t.strictSame(errors.all, [undefined])
  t.strictSame(
    over.events.all.map(({ topic, type }) => `${topic} ${type}`),
    ['b end', 'b anew', 'a end', 'b end']
  )
  await hub.heard.until(() => sent(hub, 'unsubscribe').length === 1, 'to be given up')
  await over.subscription.unsubscribe()
  hub.cut()
  await hub.heard.until(() => sent(hub, 'subscribe').length === 3, 'what goes on')
  t.strictSame(sent(hub, 'subscribe').at(-1)!.topics, ['c'], 'and nothing else')
  t.equal(sent(hub, 'unsubscribe').length, 1)
})

t.test('a publish without an answer is sent again, and stored once', async t => {
  const hub = await startHub(t)
  const { connection } = connectTo(t, hub)
  const { events } = await listen(connection, 'a')
  hub.answers.set('publish', message => void hub.store(message))
  const ids = Promise.all([1, 2, 3].map(data => connection.publish('a', data)))
  await events.until(() => events.all.length === 3, 'them to be stored')
  hub.answers.clear()
  hub.cut()
  t.strictSame(await ids, ['1-0', '2-0', '3-0'])
  t.strictSame(
    hub.stored.map(({ data }) => data),
    [1, 2, 3]
  )
  const sentOnes = sent(hub, 'publish')
  t.strictSame(sentOnes.slice(3), sentOnes.slice(0, 3), 'the same, in the same order')
})

t.test('a publish is not sent again when the server may have forgotten its key', async t => {
  const hub = await startHub(t)
  const { connection } = connectTo(t, hub)
  hub.answers.set('publish', () => {})
  const published = connection.publish('a', 1)
  const rejected = t.rejects(published, { code: 'unavailable', message: 'there was no answer in time' })
  await hub.heard.until(() => sent(hub, 'publish').length === 1, 'it to be sent')
  const { now } = Date
  t.teardown(() => (Date.now = now))
  Date.now = () => now() + 9 * 60_000 + 1000
  hub.cut()
  await rejected
  t.equal(sent(hub, 'publish').length, 1)
})

t.test('what waits is not sent as a flood, and goes on when it was too much', async t => {
  const hub = await startHub(t)
  const { connection, states } = connectTo(t, hub)
  await states.until(() => connection.state === 'live', 'live')
  let left = 50
  let refused = 0
  hub.answers.set('publish', (message, from) => {
    if (left-- > 0) return hub.do(message, from)
    refused++
    from.say({ op: 'error', ref: message.ref!, code: 'rate_limited', message: 'too many messages' })
    setTimeout(() => (left = 50), 500)
  })
  await Promise.all(Array.from({ length: 180 }, (_, data) => connection.publish('a', data)))
  t.strictSame(
    hub.stored.map(({ data }) => data).sort((a, b) => Number(a) - Number(b)),
    Array.from({ length: 180 }, (_, data) => data)
  )
  t.ok(refused > 2 && refused < 40, `${refused} refused`)
  const many = Promise.all(Array.from({ length: 1100 }, (_, data) => connection.publish('b', data)))
  await t.rejects(many, { code: 'unavailable', message: 'too much waits already' })
})

t.test('what the server refuses is rejected, and the connection stays', async t => {
  const hub = await startHub(t)
  const { connection } = connectTo(t, hub)
  const refuse =
    (code: string) =>
    (message: Message, { say }: { say(message: Message): void }) =>
      say({ op: 'error', ref: message.ref!, code, message: `${message.op} is not for you` })
  for (const op of ['subscribe', 'publish', 'join', 'signal', 'read'])
    hub.answers.set(op, refuse('forbidden'))
  const expected = { name: 'RingsideError', code: 'forbidden' }
  await t.rejects(listen(connection, 'a'), { ...expected, message: 'subscribe is not for you' })
  await t.rejects(connection.publish('a', 1), { ...expected, message: 'publish is not for you' })
  await t.rejects(connection.join('a'), { ...expected, message: 'join is not for you' })
  await t.rejects(connection.signal('a', 1), expected)
  await t.rejects(connection.read([]), expected)
  hub.answers.set('signal', refuse('rate_limited'))
  await t.rejects(connection.signal('a', 1), { code: 'rate_limited' })
  t.equal(connection.state, 'live')
  hub.answers.clear()
  // one that had been taken, and is not any more
  const ended = new Inbox<Error | undefined>()
  await listen(connection, 'a', { onEnd: error => ended.push(error) })
  hub.answers.set('subscribe', refuse('forbidden'))
  hub.cut()
  t.match(await ended.next(), expected)
  hub.cut()
  await eventually(
    () => sent(hub, 'subscribe').length,
    count => count === 3,
    'no fourth'
  )
})

t.test('what comes right after an answer is not missed; nor is a gap that is told before it', async t => {
  const hub = await startHub(t)
  const { connection } = connectTo(t, hub)
  hub.answers.set('subscribe', ({ ref, after }, { say, socket }) => {
    const event = (n: number) => ({
      op: 'event',
      id: `${n}-0`,
      topic: 'a',
      type: 'message',
      time: 1,
      data: n
    })
    // in one packet
    const tcp = (socket as unknown as { _socket: { cork(): void; uncork(): void } })._socket
    tcp.cork()
    say(event(1)) // of a subscription that was given up
    if (after) say({ op: 'gap', reason: 'unknown', topics: ['a'], after })
    say({ op: 'ok', ref: ref!, cursor: '2-0' })
    if (after !== 'lost') for (const n of [3, 4]) say(event(n))
    tcp.uncork()
  })
  const fresh = await listen(connection, 'a')
  await fresh.events.until(() => fresh.events.all.length === 2, 'two')
  t.strictSame(dataOf(fresh.events), [3, 4])
  await fresh.subscription.unsubscribe()
  const lost = await listen(connection, 'a', { after: 'lost' })
  t.match(lost.gaps.all, [{ reason: 'unknown', topics: ['a'], after: 'lost' }])
  t.equal(lost.subscription.cursor, '2-0')
})

t.test('signals, members and cursors reach whom they are for; bytes are bytes', async t => {
  const hub = await startHub(t)
  const { connection } = connectTo(t, hub)
  const told: unknown[] = []
  const tell = (what: string) => ({
    onSignal: (signal: Signal) => told.push([what, 'signal', signal.topic, signal.from, signal.data]),
    onJoined: ({ id }: Member, topic: string) => told.push([what, 'joined', topic, id]),
    onLeft: ({ id }: Member, topic: string) => told.push([what, 'left', topic, id])
  })
  const a = await listen(connection, 'a', tell('a'))
  const all = await listen(connection, 'b/*', tell('b/*'))
  await connection.join('b/1', tell('room'))
  const member = { id: 'm', sub: null, info: null }
  hub.last.say({ op: 'signal', topic: 'a', from: 'x', data: 'AP8=', encoding: 'base64' })
  hub.last.say({ op: 'joined', topic: 'b/1', member })
  hub.last.say({ op: 'left', topic: 'b/2', member })
  hub.last.say({
    op: 'event',
    id: '9-0',
    topic: 'b/2',
    type: 'message',
    time: 1,
    data: 'AP8=',
    encoding: 'base64'
  })
  hub.last.say({ op: 'cursor', cursor: '10-0', topics: ['a'] })
  hub.last.say({ op: 'cursor', cursor: '11-0' })
  await connection.ping()
  t.strictSame(told, [
    ['a', 'signal', 'a', 'x', Uint8Array.of(0, 255)],
    ['b/*', 'joined', 'b/1', 'm'],
    ['room', 'joined', 'b/1', 'm'],
    ['b/*', 'left', 'b/2', 'm']
  ])
  t.match(all.events.all, [{ topic: 'b/2', data: Uint8Array.of(0, 255) }])
  t.strictSame([a.subscription.cursor, all.subscription.cursor], ['10-0', '9-0'])
})

t.test('how the server closes says whether to come back', async t => {
  const hub = await startHub(t)
  const connected = connectTo(t, hub)
  const { connection, states } = connected
  await isIn(connected, 'live')
  const before = Date.now()
  hub.last.socket.close(1013, JSON.stringify({ reason: 'full', retry: 400 }))
  await eventually(
    () => hub.connections.length,
    count => count === 2,
    'another connection'
  )
  t.ok(Date.now() - before >= 390, 'not before it is wanted')
  t.match(states.all[1], {
    state: 'connecting',
    why: { reason: 'the server said goodbye (full)', delay: 400 }
  })
  await isIn(connected, 'live')
  // too big
  hub.answers.set('publish', (message, { socket }) => {
    if (String(message.data).length > 100) socket.close(1009, 'too big')
  })
  const [small, big] = [connection.publish('a', 1), connection.publish('a', 'x'.repeat(200))]
  await t.rejects(big, { code: 'too_large', message: 'too big' })
  hub.answers.clear()
  t.equal(await small, '1-0')
  t.strictSame(
    hub.stored.map(({ data }) => data),
    [1]
  )
  // for good
  hub.answers.set('publish', (_message, { socket }) => socket.close(1008, 'too many messages'))
  await t.rejects(connection.publish('a', 2), { code: 'closed', message: 'too many messages' })
  t.match(states.all.at(-1), { state: 'closed', why: { reason: 'too many messages' } })
})

t.test('a token that is no longer good is renewed, or ends it', async t => {
  const hub = await startHub(t)
  const tokens = ['two', 'three']
  hub.refuses = ({ url = '' }) => (/token=(one|three)$/.test(url) ? 0 : 401)
  const connected = connectTo(t, hub, { token: 'one', onToken: async () => tokens.shift()! })
  await isIn(connected, 'live')
  hub.last.socket.close(4401, JSON.stringify({ reason: 'expired' }))
  // the second is not let in, and nobody asks for a third
  await isIn(connected, 'closed')
  t.match(connected.states.all.at(-1), { state: 'closed', why: { reason: 'not for you' } })
  t.strictSame(tokens, ['three'])

  const next = connectTo(t, hub, { token: 'zero', onToken: () => 'three' })
  await isIn(next, 'live')
  t.match(hub.last.request.url, /three/)
  const other = connectTo(t, hub, { token: 'one' })
  await isIn(other, 'live')
  hub.last.socket.close(4401, JSON.stringify({ reason: 'expired' }))
  await isIn(other, 'closed')
  t.match(other.states.all.at(-1)?.why, { reason: 'the server said goodbye (expired)' })
})

t.test('who may not connect does not try again', async t => {
  const hub = await startHub(t)
  for (const status of [401, 403]) {
    let asked = 0
    hub.refuses = () => {
      asked++
      return status
    }
    const connected = connectTo(t, hub)
    await isIn(connected, 'closed')
    t.match(connected.states.all.at(-1)?.why, { reason: 'not for you' })
    t.equal(asked, 2, `one attempt, and a look at why: ${status}`)
    await t.rejects(connected.connection.publish('a', 1), { code: 'closed' })
  }
})

t.test(
  'a WebSocket alone that is refused, as for its Origin, is named, and what waits for it settles',
  async t => {
    const hub = await startHub(t)
    const { refuses } = hub
    const { random } = Math
    t.teardown(() => (Math.random = random))
    Math.random = () => 0.01 // so it is back at once
    // a page is shown no more of it, and a fetch of the same origin sends no Origin
    hub.refuses = ({ headers }) => (headers.upgrade ? 403 : 0)
    const connected = connectTo(t, hub)
    const published = connected.connection.publish('a', 1)
    await t.rejects(published, { code: 'closed', message: /opens no WebSocket: it is refused \(403\)/ })
    const reasons = connected.states.all.flatMap(({ why }) => why?.reason ?? [])
    t.ok(
      reasons.every(reason => reason.includes('opens no WebSocket')),
      String(reasons)
    )
    t.equal(connected.states.all.at(-1)!.state, 'closed')
    // one that has been open is not refused for good
    hub.refuses = refuses
    const other = connectTo(t, hub)
    await isIn(other, 'live')
    hub.refuses = ({ headers }) => (headers.upgrade ? 403 : 0)
    hub.cut()
    await other.states.until(() => other.states.all.filter(({ why }) => why).length > 3, 'some attempts')
    hub.refuses = refuses
    await isIn(other, 'live')
    // nothing at this address
    hub.refuses = () => 404
    const lost = connectTo(t, hub)
    await t.rejects(lost.connection.publish('a', 1), { code: 'closed', message: /not for you/ })
    t.equal(lost.states.all.filter(({ why }) => why).length, 3, 'the third attempt is the last')
  }
)

t.test('stale: until the next cursor', async t => {
  const hub = await startHub(t)
  const connected = connectTo(t, hub)
  await listen(connected.connection, 'a')
  hub.last.say({ op: 'stale', since: 1795415440000 })
  await isIn(connected, 'stale')
  await connected.connection.ping()
  t.equal(connected.connection.state, 'stale')
  hub.last.say({ op: 'cursor', cursor: '1-0' })
  await isIn(connected, 'live')
  t.match(connected.states.all[1], { state: 'stale', why: { since: 1795415440000 } })
})

t.test('what is given up needs no connection', async t => {
  const hub = await startHub(t)
  const connected = connectTo(t, hub)
  const { connection } = connected
  const [one, other] = [await listen(connection, 'a'), await listen(connection, 'b')]
  const room = await connection.join('room')
  hub.answers.set('unsubscribe', () => hub.cut())
  await one.subscription.unsubscribe()
  await isIn(connected, 'connecting')
  await Promise.all([other.subscription.unsubscribe(), room.leave()])
  await isIn(connected, 'live')
  await connection.ping()
  t.strictSame(
    hub.heard.all.map(({ op }) => op).filter(op => op !== 'ping'),
    ['subscribe', 'subscribe', 'join', 'unsubscribe']
  )
})

t.test('a connection that dies without a word is noticed', async t => {
  const hub = await startHub(t)
  const connected = connectTo(t, hub, { heartbeat: 1 })
  await isIn(connected, 'live')
  await eventually(
    () => sent(hub, 'ping').length,
    count => count > 0,
    'a ping'
  )
  hub.answers.set('ping', () => {})
  await isIn(connected, 'connecting')
  t.match(connected.states.all.at(-1)?.why, { reason: 'there was no sign of life' })
  await isIn(connected, 'live')
})

t.test('close: what has no answer is rejected, and nothing is told any more', async t => {
  const hub = await startHub(t)
  const connected = connectTo(t, hub)
  const { connection } = connected
  const { events } = await listen(connection, 'a')
  hub.answers.set('publish', () => {})
  const rejected = t.rejects(connection.publish('a', 1), { code: 'closed' })
  connection.close()
  await rejected
  t.equal(connection.state, 'closed')
  hub.store({ op: 'publish', topic: 'a', data: 1 })
  await t.rejects(connection.subscribe('a', { onEvent: () => {} }), { code: 'closed' })
  await t.rejects(connection.join('a'), { code: 'closed' })
  await t.rejects(connection.ping(), { code: 'closed' })
  await eventually(
    () => hub.last.socket.readyState,
    state => state === WebSocket.CLOSED,
    'the end of its connection'
  )
  t.strictSame(events.all, [])
  t.notOk(connected.states.all.some(({ state }) => state === 'closed'))
})

t.test('without a WebSocket it says what to do', { skip: 'WebSocket' in globalThis }, async t => {
  t.throws(() => connect({ url: 'http://127.0.0.1' }), { name: 'TypeError', message: /^WebSocket: / })
  for (const heartbeat of [0, NaN, 0.5])
    t.throws(() => connect({ heartbeat, url: 'http://127.0.0.1', WebSocket }), { message: /^heartbeat: / })
  t.throws(() => connect({ url: 'nothing', WebSocket }), { name: 'TypeError', message: /^url: nothing / })
})

t.end()
