/** Serving a wish, without a socket: the answer is kept as it is given. */
import t from 'tap'
import { Unwanted, type Asker } from '../../src/asker.ts'
import { LocalBroker } from '../../src/broker/local/broker.ts'
import { BrokerUnavailable } from '../../src/broker/unavailable.ts'
import { resolveSettings } from '../../src/config.ts'
import { formatCursor } from '../../src/event.ts'
import { Readers, type Answer, type ReadSpecial } from '../../src/http/readers.ts'
import type { Wish } from '../../src/http/wish.ts'
import type { Place } from '../../src/hub/connections.ts'
import { Hub } from '../../src/hub/hub.ts'
import type { Session } from '../../src/hub/session.ts'
import { Metrics, type Rejection } from '../../src/metrics.ts'
import { Denied, Problem } from '../../src/problem.ts'
import { idOf } from '../../src/publisher.ts'
import type { GoodbyeReason } from '../../src/wire/format.ts'
import { plain } from '../../src/wire/packing.ts'
import { wakeUp } from '../../src/wire/page.ts'
import { sse } from '../../src/wire/sse.ts'
import { HeldClock, settled } from '../support/clock.ts'

/** An answer, and what became of it. */
class KeptAnswer implements Answer {
  readonly packing = plain
  isGone = false
  /** How it was answered; null as long as it wasn't. */
  ended = false
  how: 'nothing' | 'sent' | 'a stream' | 'a farewell' | 'left' | null = null
  text = ''
  headers: Record<string, string> = {}
  session: Session | null = null
  #places: Place[] = []

  keep(place: Place): void {
    this.#places.push(place)
  }

  /** Its last byte has left. */
  hasLeft(): void {
    for (const place of this.#places) place.release()
    this.#places = []
  }

  head(headers: Readonly<Record<string, string>>, cursor?: string): void {
    Object.assign(this.headers, headers, cursor !== undefined && { cursor })
  }

  nothing(): void {
    this.#is('nothing')
  }

  send(text = ''): void {
    this.#is('sent')
    this.text = text
  }

  stream(session: Session, _stallTimeout: number, preface: readonly Buffer[]): void {
    this.#is('a stream')
    this.session = session
    const sink = { pending: 0, write: (bytes: Buffer) => void (this.text += bytes.toString()), end() {} }
    session.start(sink, preface)
  }

  farewell(bytes: Buffer): () => void {
    this.#is('a farewell')
    this.text = bytes.toString()
    return () => void (this.ended = true)
  }

  leave(): void {
    this.#is('left')
  }

  onClose(): void {}
  offClose(): void {}

  #is(how: NonNullable<KeptAnswer['how']>): void {
    if (this.how) throw new Error(`it is ${how}, and was ${this.how} before`)
    this.how = how
  }
}

const WISH: Wish = {
  filters: ['a'],
  type: 'text/event-stream',
  format: sse(false),
  isCompressed: false,
  rate: undefined,
  heartbeat: undefined,
  limit: 100,
  wait: 0,
  client: 'alice',
  from: { user: 'alice', address: null },
  expires: Infinity,
  needsStream: true,
  isHead: false
}

/** Readers, a broker of their own, and how many places are taken. */
async function setUp(env: { MAX_TURNED_AWAY?: number } = {}) {
  const clock = new HeldClock()
  const settings = resolveSettings({ RETRY: '20ms', ...env })
  const metrics = new Metrics('test')
  const broker = new LocalBroker(settings, clock)
  const hub = new Hub(broker.log, broker.roster, settings, clock, metrics)
  await broker.log.start(hub)
  const house = { places: 0, reads: 0, closed: null as GoodbyeReason | null }
  const limits = {
    read: () => void house.reads++,
    connect: () => {
      house.places++
      return { release: () => void house.places-- }
    }
  }
  const closed = () => house.closed
  const answers = { most: 1e6, mostBy: 'MEMORY' as const }
  const turnedAway = { count: (reason: Rejection) => metrics.connectionsRejected.inc({ reason }) }
  const readers = new Readers({
    ...{ hub, metrics, clock, settings, limits, answers, turnedAway },
    ...{ refusal: closed, closed }
  })
  const rejected = async (reason: string) =>
    (await metrics.connectionsRejected.get()).values.find(({ labels }) => labels.reason === reason)?.value ??
    0
  /** What is opened from now on waits until it is let go. */
  const holdStarts = () => {
    let release = () => {}
    const held = new Promise<void>(resolve => (release = resolve))
    const subscribe = broker.log.subscribe.bind(broker.log)
    broker.log.subscribe = filter => held.then(() => subscribe(filter))
    return { release: () => release() }
  }
  return { readers, hub, log: broker.log, clock, house, rejected, holdStarts }
}

/** A preface that waits until it is let go. */
function heldPreface() {
  let release = () => {}
  const special: Required<Pick<ReadSpecial, 'preface'>> = {
    preface: async () => {
      await new Promise<void>(resolve => (release = resolve))
      return [Buffer.from('preface\n\n')]
    }
  }
  return { special, release: () => release() }
}

t.test('a stream begins with its preface', async t => {
  const { readers, house } = await setUp()
  const answer = new KeptAnswer()
  const { special, release } = heldPreface()
  const served = readers.serve(WISH, answer, special)
  await settled()
  t.equal(answer.how, null)
  t.equal(house.places, 1)
  release()
  await served
  t.equal(answer.how, 'a stream')
  t.match(answer.text, /event: cursor[^]*preface/)
  t.match(answer.headers, { cursor: String, 'content-type': /^text\/event-stream/ })
})

t.test('after the preface it is looked again whether a stream can begin', async t => {
  const meanwhile: [
    string,
    (all: Awaited<ReturnType<typeof setUp>>, answer: KeptAnswer) => unknown,
    RegExp
  ][] = [
    ['the token has run out', ({ clock }) => clock.advance(2000), /expired/],
    ['a drain has begun', ({ house }) => (house.closed = 'shutdown'), /shutdown/],
    ['a drain has ended its session', ({ hub }) => hub.connections.drain(0), /shutdown/],
    ['the broker has gone', ({ house }) => (house.closed = 'unavailable'), /unavailable/]
  ]
  for (const [name, happens, says] of meanwhile) {
    for (const needsStream of [true, false]) {
      const all = await setUp()
      const answer = new KeptAnswer()
      const { special, release } = heldPreface()
      const wish = { ...WISH, needsStream, after: '1-1', expires: all.clock.now() + 1000 }
      const served = all.readers.serve(wish, answer, special).catch((error: unknown) => error)
      await settled()
      await happens(all, answer)
      release()
      const error = await served
      if (needsStream) {
        t.equal(answer.how, 'a farewell', name)
        t.match(
          answer.text,
          /id: 1-1\n[^]*event: goodbye\n[^]*id: 1-1\n\n$/,
          'it comes back with its own cursor'
        )
        t.match(answer.text, says)
      } else {
        t.equal(answer.how, null)
        t.type(error, name === 'the token has run out' ? Denied : Problem, name)
      }
      t.equal(all.hub.sessions.size, 0)
      t.equal(all.house.places, 0)
      t.equal(await all.rejected(String(says).slice(1, -1)), 1)
    }
  }
})

t.test('what is read for a reader who has gone is given up', async t => {
  const unwanted = async (asker: Asker): Promise<never> => {
    ;(asker as KeptAnswer).isGone = true
    throw new Unwanted()
  }
  const json = { ...WISH, type: 'application/json' as const, needsStream: false }
  const reads: [string, Wish, ReadSpecial][] = [
    ['a document', json, { document: unwanted }],
    ['whether a stream can be had', WISH, { check: unwanted }],
    ['a preface', WISH, { preface: (_format, _start, _isFresh, asker) => unwanted(asker) }]
  ]
  for (const [name, wish, special] of reads) {
    const { readers, hub, house } = await setUp()
    const answer = new KeptAnswer()
    await readers.serve(wish, answer, special)
    t.equal(answer.how, 'left', name)
    answer.hasLeft()
    t.equal(hub.sessions.size, 0)
    t.equal(house.places, 0)
  }
})

t.test('neither a page nor a head is answered once it is too late', async t => {
  const meanwhile: [string, (all: Awaited<ReturnType<typeof setUp>>, answer: KeptAnswer) => unknown][] = [
    ['the token has run out', ({ clock }) => clock.advance(2000)],
    ['a drain has begun', ({ house }) => (house.closed = 'shutdown')],
    ['the client has gone', (_all, answer) => (answer.isGone = true)]
  ]
  for (const [name, happens] of meanwhile) {
    for (const asked of [{ type: 'application/json' as const, format: wakeUp }, { isHead: true }]) {
      const all = await setUp()
      const answer = new KeptAnswer()
      const hold = all.holdStarts()
      const wish = { ...WISH, ...asked, needsStream: false, expires: all.clock.now() + 1000 }
      const served = all.readers.serve(wish, answer).catch((error: unknown) => error)
      await settled()
      await happens(all, answer)
      hold.release()
      const isGone = name === 'the client has gone'
      t.type(await served, isGone ? 'undefined' : Problem, name)
      t.equal(answer.how, isGone ? 'left' : null)
      t.equal(all.hub.sessions.size, 0)
      answer.hasLeft()
      t.equal(all.house.places, 0)
    }
  }
})

t.test('who has gone meanwhile is not answered', async t => {
  for (const isBeginning of [true, false]) {
    const { readers, hub, house } = await setUp()
    const answer = new KeptAnswer()
    const { special, release } = heldPreface()
    answer.isGone = isBeginning
    const served = readers.serve(WISH, answer, special)
    await settled()
    answer.isGone = true
    release()
    await served
    t.equal(answer.how, 'left', isBeginning ? 'as its start was looked for' : 'as its preface was made')
    t.equal(hub.sessions.size, 0)
    t.equal(house.places, 0)
  }
})

t.test('a preface that fails ends the session', async t => {
  for (const [error, expected] of [
    [new BrokerUnavailable('away'), null],
    [new Error('a mistake'), /a mistake/]
  ] as const) {
    const { readers, hub, house } = await setUp()
    const answer = new KeptAnswer()
    const served = readers.serve(WISH, answer, { preface: () => Promise.reject(error) })
    if (expected) await t.rejects(served, expected)
    else await served
    t.equal(answer.how, expected ? null : 'a farewell')
    if (!expected) t.match(answer.text, /unavailable/)
    t.equal(hub.sessions.size, 0)
    t.equal(house.places, 0)
  }
})

t.test('a feed says where a stream starts that was given no start', async t => {
  const { readers, log, clock } = await setUp()
  const ids: string[] = []
  for (const data of ['one', 'two', 'three']) {
    const [appended] = await log.append([{ topic: 'a', type: 'message', data }])
    ids.push(formatCursor(idOf(appended!)))
  }
  const special: ReadSpecial = { fresh: { rewind: 1 } }
  for (const [start, expected] of [
    [{}, ['three']],
    [{ rewind: 2 }, ['two', 'three']],
    [{ since: clock.now() - 1000 }, ['one', 'two', 'three']],
    [{ after: ids[0] }, ['two', 'three']]
  ] as const) {
    const answer = new KeptAnswer()
    await readers.serve({ ...WISH, ...start }, answer, special)
    await clock.live(1000)
    const events = [...answer.text.matchAll(/^data: (\w+)$/gm)].map(([, data]) => data)
    t.strictSame(events, expected, JSON.stringify(start))
  }
})

t.test('a document is served by a server that takes nobody, and a head opens no stream', async t => {
  const { readers, hub, house } = await setUp()
  house.closed = 'shutdown'
  const document = new KeptAnswer()
  await readers.serve({ ...WISH, type: 'application/json' }, document, {
    document: async () => ({ parts: ['{', '}'], cursor: '1-0', etag: '"1-0"' })
  })
  t.match(document, { how: 'sent', text: '{}', headers: { cursor: '1-0', etag: '"1-0"' } })

  house.closed = null
  const head = new KeptAnswer()
  await readers.serve({ ...WISH, isHead: true }, head)
  t.match(head, { how: 'sent', text: '', headers: { cursor: String } })
  t.equal(hub.sessions.size, 0)

  house.closed = 'shutdown'
  const farewell = new KeptAnswer()
  await readers.serve({ ...WISH, isHead: true }, farewell)
  t.match(farewell, { how: 'a farewell', text: '' }, 'nor has a farewell to a HEAD any content')
})

t.test('a poll that is ended while it is read for is answered what there is', async t => {
  const { clock, readers, hub, log } = await setUp()
  await clock.advance(10)
  await log.append([{ topic: 'b', type: 'message', data: '1' }])
  const range = log.range.bind(log)
  let isAsked = () => {}
  const asked = new Promise<void>(resolve => (isAsked = resolve))
  let release = () => {}
  const held = new Promise<void>(resolve => (release = resolve))
  log.range = (...question) => {
    isAsked()
    return held.then(() => range(...question))
  }
  const answer = new KeptAnswer()
  const wish: Wish = {
    ...WISH,
    type: 'application/json',
    format: wakeUp,
    wait: 30_000,
    after: formatCursor(log.birth)
  }
  const timers = clock.timers
  const served = readers.serve(wish, answer, {})
  await clock.turns()
  await asked
  await hub.connections.drain(0)
  release()
  await served
  t.equal(answer.how, 'sent')
  t.match(JSON.parse(answer.text), { events: [], gap: null })
  t.equal(clock.timers, timers + 1, 'the filter stays for a while, and nothing waits')
})

t.test(
  'pages and documents count as reads, and have their places until their last byte has left',
  async t => {
    const { readers, house, hub } = await setUp()
    const wish = { ...WISH, type: 'application/json' as const, format: wakeUp }
    const document = async () => ({ parts: ['{}'], cursor: '1-0' })
    for (const special of [{}, { document }]) {
      const before = house.reads
      const answer = new KeptAnswer()
      await readers.serve(wish, answer, special)
      t.equal(answer.how, 'sent')
      t.equal(house.reads, before + 1)
      t.equal(hub.connections.size, 0)
      t.equal(house.places, 1)
      answer.hasLeft()
      t.equal(house.places, 0)
    }
    const stream = new KeptAnswer()
    await readers.serve(WISH, stream)
    t.equal(house.reads, 2, 'a stream is none')
  }
)

t.test('a document that is too large is refused', async t => {
  const { readers } = await setUp()
  const document = async () => ({ parts: ['x'.repeat(6e5), 'x'.repeat(6e5)], cursor: '1-0' })
  const wish = { ...WISH, type: 'application/json' as const, format: wakeUp }
  await t.rejects(readers.serve(wish, new KeptAnswer(), { document }), {
    statusCode: 422,
    message: 'this is 1200000 bytes; at most 1000000 can be read at once (MEMORY)'
  })
})

t.test(
  'a stream that is turned away ends a second later: some clients come back as soon as it has',
  async t => {
    const { clock, readers } = await setUp()
    const answer = new KeptAnswer()
    readers.turnAway(WISH, answer, 'full')
    t.equal(answer.how, 'a farewell')
    t.match(answer.text, 'event: goodbye')
    await clock.advance(999)
    t.notOk(answer.ended)
    await clock.advance(1)
    t.ok(answer.ended)
    const head = new KeptAnswer()
    readers.turnAway({ ...WISH, isHead: true }, head, 'full')
    t.ok(head.ended, 'a head has nothing to come back for')
  }
)

t.test(
  'at most MAX_TURNED_AWAY of them wait; those past it end at once, and all when the server closes',
  async t => {
    const { clock, readers } = await setUp({ MAX_TURNED_AWAY: 2 })
    const turnAway = () => {
      const answer = new KeptAnswer()
      readers.turnAway(WISH, answer, 'full')
      return answer
    }
    const [first, second, third] = [turnAway(), turnAway(), turnAway()]
    t.strictSame(
      [first, second, third].map(({ ended }) => ended),
      [false, false, true]
    )
    await clock.advance(1000)
    t.ok(first.ended && second.ended, 'each has its second')
    const fourth = turnAway()
    t.notOk(fourth.ended, 'there is room again')
    readers.close()
    t.ok(fourth.ended, 'the server would wait for it')
    t.ok(turnAway().ended)
  }
)
