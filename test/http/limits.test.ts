import Fastify, { type FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import { Limits, type Excess, type LimitsOptions } from '../../src/http/limits.ts'
import type { Place } from '../../src/hub/connections.ts'
import { Metrics } from '../../src/metrics.ts'
import { HeldClock } from '../support/clock.ts'

const NONE = {
  MAX_CONNECTIONS_PER_CLIENT: 0,
  CONNECT_RATE: 0,
  READ_RATE: 0,
  WRITE_RATE: 0,
  WRITE_BYTES: 0
}

interface Setup extends Partial<LimitsOptions['settings']> {
  readonly development?: boolean
  readonly tally?: LimitsOptions['tally']
}

/** There are no other instances. */
const ALONE = { count: () => Promise.resolve(new Map<string, number>()) }

interface Who {
  readonly address?: string
  readonly sub?: string | null
  readonly headers?: Record<string, string>
}

/** Limits, and a way to ask as anybody; `use` is given the request. */
function setUp(t: Test, { development = false, tally = ALONE, ...settings }: Setup) {
  const clock = new HeldClock()
  const metrics = new Metrics('0.0.0')
  const limits = new Limits({ tally, settings: { ...NONE, ...settings }, clock, metrics, development })
  const log: string[] = []
  const app = Fastify({
    logger: { level: 'warn', stream: { write: line => log.push((JSON.parse(line) as { msg: string }).msg) } }
  })
  t.teardown(() => app.close())
  const uses: ((request: FastifyRequest) => Promise<void>)[] = []
  app.post('/', request => uses.shift()!(request))

  function as<T>(
    { address = '203.0.113.1', sub = null, headers = {} }: Who,
    use: (request: FastifyRequest) => T | Promise<T>
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      uses.push(async request => {
        Object.assign(request, { grant: { sub } })
        resolve(await use(request))
      })
      app.inject({ method: 'POST', url: '/', remoteAddress: address, headers }).catch(reject)
    })
  }
  return { limits, clock, metrics, as, log }
}

t.test('a client is its user, else its address', async t => {
  const { limits, as } = setUp(t, {})
  const nameOf = (who: Who) => as(who, request => limits.clientOf(request))
  t.equal(await nameOf({ sub: 'alice' }), await nameOf({ sub: 'alice', address: '203.0.113.2' }))
  t.not(await nameOf({ sub: 'alice' }), await nameOf({ sub: 'bob' }))
  t.equal(await nameOf({ sub: null }), await nameOf({}))
  t.not(await nameOf({ sub: '203.0.113.1' }), await nameOf({ address: '203.0.113.1' }))
  t.not(await nameOf({ sub: '' }), await nameOf({}), 'a user whose name is empty is one')
  t.equal(await nameOf({ address: '2001:db8::1' }), await nameOf({ address: '2001:db8::2' }))
  t.not(await nameOf({ address: '2001:db8::1' }), await nameOf({ address: '2001:db8:0:1::1' }))
  t.equal(await nameOf({ address: '::ffff:203.0.113.1' }), await nameOf({}))
  t.not(await nameOf({ address: '::' }), null)
  for (const zone of ['eth0', 'br-lan', 'eth0.100'])
    t.equal(await nameOf({ address: `fe80::1%${zone}` }), await nameOf({ address: 'fe80::1' }), zone)
  t.type(await nameOf({ address: '127.0.0.1' }), 'string', 'with keys loopback is an address like any other')
})

t.test('in development mode a user is what the query says, and does not count', async t => {
  const { limits, as } = setUp(t, { development: true })
  const nameOf = (who: Who) => as(who, request => limits.clientOf(request))
  t.equal(await nameOf({ sub: 'alice' }), await nameOf({ sub: 'bob' }))
  for (const address of ['127.0.0.1', '127.1.2.3', '::1', '::ffff:127.0.0.1'])
    t.equal(await nameOf({ address }), null, address)
})

t.test('a client has so many connections', async t => {
  const { limits } = setUp(t, { MAX_CONNECTIONS_PER_CLIENT: 2 })
  const places = [given(limits.connect('alice', true)), given(limits.connect('alice', false))]
  t.match(limits.connect('alice', true), { limit: 'client_connections', detail: / 2 / })
  const other = given(limits.connect('bob', true))
  places[0]!.release()
  places[0] = given(limits.connect('alice', true))
  t.match(limits.connect('alice', false), { limit: 'client_connections' })
  for (const place of [...places, other]) place.release()
  t.equal(limits.size, 0, 'nothing is kept of those who are gone')
})

t.test('a client opens so many streams a second, and so many at once', async t => {
  const { limits, clock } = setUp(t, { CONNECT_RATE: 4 })
  const opened = (count: number) =>
    Array.from({ length: count }, () => limits.connect('alice', true)).filter(each => !('limit' in each))
      .length
  t.equal(opened(10), 4)
  t.match(limits.connect('alice', true), { limit: 'client_rate', detail: / 4 a second/ })
  given(limits.connect('alice', false)).release() // a poll is no stream
  given(limits.connect('bob', true))
  await clock.advance(500)
  t.equal(opened(10), 2)
  await clock.advance(250)
  t.equal(opened(10), 1)
  await clock.advance(100_000)
  t.equal(opened(10), 4, 'no more, however long it was idle')
})

t.test('the more come at once, the longer those who are turned away shall wait', async t => {
  const { limits, clock } = setUp(t, { CONNECT_RATE: 10 })
  const windows = () =>
    Array.from({ length: 1010 }, () => limits.connect('office', true)).flatMap(each =>
      'limit' in each ? [each.window!] : []
    )
  const first = windows()
  t.equal(first.length, 1000)
  t.equal(first[0], 100)
  t.equal(first[500], 50_100, 'so long it takes to serve all of them')
  t.equal(first.at(-1), 60_000, 'a minute at most')
  await clock.advance(500)
  t.equal(windows()[0], 59_600, 'those who wait still are among them')
})

t.test('a client writes so much a second', async t => {
  const { limits, clock, metrics } = setUp(t, { WRITE_RATE: 2 })
  limits.write('alice')
  limits.write('alice')
  for (let count = 0; count < 3; count++) {
    t.match(refusal(limits), { statusCode: 429, retryAfter: 1, message: / 2 a second/ })
  }
  limits.write('bob')
  limits.write(null)
  await clock.advance(500)
  limits.write('alice')
  t.match(refusal(limits), { statusCode: 429 })
  t.match((await metrics.writesRejected.get()).values, [{ value: 4 }])
})

t.test('a client reads so much a second', async t => {
  const { limits, clock, metrics } = setUp(t, { READ_RATE: 2 })
  const read = (client: string | null) => limits.read(client)
  for (let count = 0; count < 2; count++) limits.read('alice')
  for (let count = 0; count < 3; count++)
    t.match(refusal(limits, read), { statusCode: 429, retryAfter: 1, message: / 2 a second/ })
  limits.read('bob')
  for (let count = 0; count < 10; count++) limits.read(null)
  await clock.advance(500)
  limits.read('alice')
  t.match(refusal(limits, read), { statusCode: 429 })
  t.match((await metrics.readsRejected.get()).values, [{ value: 4 }])
  await clock.advance(5000)
  t.equal(limits.size, 0)
})

t.test('a write that was refused for another reason counts as well', t => {
  const { limits } = setUp(t, { WRITE_RATE: 2 })
  limits.countWrite('alice')
  limits.write('alice')
  t.match(refusal(limits), { statusCode: 429 })
  limits.countWrite('alice')
  limits.countWrite(null)
  t.end()
})

t.test('a flood of clients is forgotten as soon as it is over', async t => {
  const { limits, clock } = setUp(t, { CONNECT_RATE: 1, WRITE_RATE: 1 })
  for (let second = 0; second < 10; second++) {
    for (let index = 0; index < 1000; index++) {
      given(limits.connect(`${second}/${index}`, true)).release()
      limits.write(`${second}/${index}`)
    }
    t.ok(limits.size <= 4000, `${limits.size} in second ${second}`)
    await clock.advance(1000)
  }
  await clock.advance(2000)
  t.equal(limits.size, 0)
  limits.write('alice')
  t.match(refusal(limits), { statusCode: 429 }, 'and it all begins anew')
})

t.test('an allowance is not forgotten before it is whole', async t => {
  const { limits, clock } = setUp(t, { WRITE_RATE: 10 })
  await clock.advance(900)
  for (let count = 0; count < 10; count++) limits.write('alice')
  for (let step = 0; step < 5; step++) {
    await clock.advance(100)
    limits.write('alice')
    t.match(refusal(limits), { statusCode: 429 })
  }
})

t.test('0 is no limit', async t => {
  const { limits } = setUp(t, {})
  for (let count = 0; count < 1000; count++) {
    given(limits.connect('alice', true))
    limits.write('alice')
  }
  t.equal(limits.size, 1)
})

t.test('that a proxy is not trusted is logged, once', async t => {
  const { limits, as, log } = setUp(t, {})
  const ask = (headers: Record<string, string>) => as({ headers }, request => limits.clientOf(request))
  await ask({})
  t.strictSame(log, [])
  const name = await ask({ 'x-forwarded-for': '198.51.100.1' })
  t.equal(await ask({ 'x-forwarded-for': '198.51.100.2' }), name, 'all whom it asks for are one')
  t.equal(log.length, 1)
  t.match(log[0], /203\.0\.113\.1 .*TRUST_PROXY/)
})

t.test('a client that writes to several instances has one rate', async t => {
  const told: ReadonlyMap<string, number>[] = []
  let others: [string, number][] = []
  const tally = {
    count: (counts: ReadonlyMap<string, number>) => {
      told.push(counts)
      return Promise.resolve(new Map(others))
    }
  }
  const { limits, clock } = setUp(t, { WRITE_RATE: 100, tally })
  const written = (client: string, count: number) => {
    let stored = 0
    for (let index = 0; index < count; index++) if (!throws(() => limits.write(client))) stored++
    return stored
  }
  /** Tries so often, spread over a second; gives back how often it could. */
  const second = async (count: number) => {
    let stored = 0
    for (let step = 0; step < 10; step++) {
      stored += written('alice', count / 10)
      await clock.advance(100)
    }
    return stored
  }
  await second(200)
  t.strictSame(
    told.map(counts => [...counts]),
    [[['alice', 200]]],
    'the others are told how much it asked for'
  )
  told.length = 0
  written('alice', 100) // all that is left
  for (let count = 0; count < 200; count++) throws(() => limits.write('alice'))
  await clock.advance(1000)
  t.strictSame(
    told.map(counts => [...counts]),
    [[['alice', 300]]],
    'also of what was refused'
  )

  others = [['alice', 600]]
  await second(200)
  const quarter = await second(200)
  t.ok(quarter >= 24 && quarter <= 26, `${quarter}: the part of its rate that it asks for here`)

  await clock.advance(3000)
  t.equal(written('alice', 100), 25, 'it keeps its part when it rests')
  await clock.advance(1000)

  others = [['alice', 50]]
  await second(40)
  t.equal(await second(40), 40, 'all together are within the rate')

  others = []
  await second(200)
  const whole = await second(200)
  t.ok(whole >= 99 && whole <= 101, `${whole}: where nothing is known of others it is limited here alone`)

  told.length = 0
  written('bob', 1)
  await clock.advance(1000)
  await clock.advance(1000)
  t.notOk(
    told.some(counts => counts.has('bob')),
    'a quiet one is not told of'
  )
})

function throws(run: () => void): boolean {
  try {
    run()
    return false
  } catch {
    return true
  }
}

function given(answer: Place | Excess): Place {
  if ('limit' in answer) throw new Error(answer.detail)
  return answer
}

/** What another write of alice's is answered; or something else that she does. */
function refusal(limits: Limits, act = (client: string) => limits.write(client)): unknown {
  try {
    act('alice')
    return null
  } catch (error) {
    return error
  }
}
