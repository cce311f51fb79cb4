/** What becomes of a request: a plain object, or a problem. */
import accepts from '@fastify/accepts'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import { Wishes, type ReadRequest, type Wish } from '../../src/http/wish.ts'
import { Problem } from '../../src/problem.ts'
import { HeldClock } from '../support/clock.ts'

/** Reads requests as wishes. */
async function setUp(t: Test) {
  const clock = new HeldClock()
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(accepts)
  const wishes = new Wishes({ clientOf: () => 'alice' }, clock, { rateOf: (_, asked) => asked }, true)
  let result: Wish | Problem
  app.get<{ Querystring: ReadRequest['query'] & { document?: string } }>('/', async request => {
    Object.assign(request, { grant: { expires: 7 } })
    try {
      result = wishes.read(request, ['a'], request.query.document !== undefined)
    } catch (error) {
      result = error as Problem
    }
    return ''
  })
  const read = async (query: string, headers: Record<string, string> = {}) => {
    await app.inject({ url: `/?${query}`, headers })
    return result
  }
  return { read, clock }
}

const JSON_TYPE = { accept: 'application/json' }

t.test('the type is what Accept chooses, a stream when it leaves the choice', async t => {
  const { read } = await setUp(t)
  for (const [accept, type, needsStream] of [
    ['text/event-stream', 'text/event-stream', true],
    ['*/*', 'text/event-stream', false],
    ['application/x-ndjson', 'application/x-ndjson', false],
    ['application/json', 'application/json', false],
    ['application/json;q=0.1, text/event-stream', 'text/event-stream', true]
  ] as const) {
    t.match(await read('', { accept }), { type, needsStream, isHead: false }, accept)
  }
  t.match(await read('', { accept: 'text/html' }), { statusCode: 406 })
})

t.test('a wish says all that serving it takes', async t => {
  const { read } = await setUp(t)
  t.match(await read('', JSON_TYPE), {
    filters: ['a'],
    client: 'alice',
    expires: 7,
    limit: 100,
    wait: 0,
    rate: undefined,
    heartbeat: undefined,
    after: undefined,
    rewind: undefined,
    since: undefined
  })
})

t.test('since is a duration or a time', async t => {
  const { read, clock } = await setUp(t)
  t.match(await read('since=10m'), { since: clock.now() - 600_000 })
  t.match(await read('since=2026-01-01T00:00:00Z'), { since: Date.parse('2026-01-01T00:00:00Z') })
  for (const since of ['yesterday', '10', '2026', '2026-13-01']) {
    const problem = await read(`since=${since}`)
    t.match(problem, { statusCode: 400, errors: [{ path: 'since' }] }, since)
    t.match((problem as Problem).message, /^since: ".*" is neither a duration nor an ISO time$/)
  }
  t.match(
    await read('since=yesterday&document=', JSON_TYPE),
    { type: 'application/json', since: undefined },
    'a document starts nowhere'
  )
  t.match(await read('since=yesterday', JSON_TYPE), { statusCode: 400 })
  t.match(await read('since=yesterday&document='), { statusCode: 400 }, 'but its stream does')
})

t.test('what clients add when they reconnect wins over after, and the header over all', async t => {
  const { read } = await setUp(t)
  for (const [query, headers, after] of [
    ['', {}, undefined],
    ['after=1-0', {}, '1-0'],
    ['after=1-0&lastEventId=2-0', {}, '2-0'],
    ['lastEventId=2-0&after=1-0', {}, '2-0'],
    ['after=1-0&last_event_id=2-0&lastEventID=3-0', {}, '3-0'],
    ['lastEventID=3-0&after=1-0&last_event_id=2-0', {}, '2-0'],
    ['lastEventId=2-0&lastEventId=3-0', {}, '3-0'],
    ['after=1-0&lastEventId=', {}, '1-0'],
    ['after=&lastEventId=2-0', {}, '2-0'],
    ['after=&after=3-0', {}, '3-0'],
    ['evs_last_event_id=4-0', {}, '4-0'],
    ['after=1-0', { 'last-event-id': '5-0' }, '5-0'],
    ['after=1-0', { 'last-event-id': '' }, '1-0'],
    ['after=nonsense', {}, 'nonsense']
  ] as const) {
    t.equal(((await read(query, headers)) as Wish).after, after, `${query} ${JSON.stringify(headers)}`)
  }
})
