import t from 'tap'
import { LIVE } from '../../src/admin/topics.ts'
import { operator, told } from '../support/admin.ts'
import { ask, isProblem, post, type TestServer } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { listen } from '../support/reader.ts'
import { instance, instances, redisFor } from '../support/redis-system.ts'
import { bearer, SECRET, tokenFor } from '../support/tokens.ts'
import { connect } from '../support/websocket.ts'

const SSE = { accept: 'text/event-stream' }
const ENV = { JWT_SECRET: SECRET, DRAIN: '0' }

// a Redis takes its time
t.setTimeout(200_000)

t.test('instances on one Redis', async t => {
  const redis = await redisFor(t)
  const [one, two] = (await instances(t, redis.url, 2, ENV)) as [TestServer, TestServer]
  const alice = bearer(await tokenFor({ subscribe: ['**'], publish: ['**'] }))
  const all = () =>
    eventually(
      async () => (await told(one, '/instances')).body,
      body => body.instances.length === 2 && body.unanswered.length === 0,
      'both instances'
    )
  const stream = (server: TestServer, path: string, headers: object = {}) =>
    listen(t, server, path, { ...SSE, ...alice, ...headers })

  t.test('each tells of all', async t => {
    const { instances } = await all()
    await eventually(
      async () => (await told(two, '/instances')).body,
      body => body.instances.length === 2,
      'both, seen from the other one'
    )
    t.match(instances, [{ store: { kind: 'redis', up: true } }, { store: { kind: 'redis', up: true } }])
    await stream(one, '/events/a')
    await stream(two, '/events/a')
    await stream(two, '/events/b')
    const { body } = await told(one, '/connections')
    t.equal(body['total'], 3)
    t.equal(new Set(body.connections.map(({ instance }) => instance)).size, 2)
    const pages: string[] = []
    for (let after: string | null | undefined; ;) {
      const page = await told(two, `/connections?limit=1${after ? `&after=${after}` : ''}`)
      pages.push(...page.body.connections.map(({ id }) => id))
      after = page.body['next'] as string | null
      if (after === null || pages.length > 5) break
    }
    t.strictSame(
      pages,
      body.connections.map(({ id }) => id),
      'page by page, from the other one'
    )
    const topics = (await told(one, '/topics')).body.topics
    t.match(
      topics.find(({ topic }) => topic === 'a'),
      { subscribers: 2 }
    )
    const { inForce } = (await told(one, '/settings')).body
    t.equal(inForce.length, 1)
    t.equal(inForce[0]!.instances.length, 2, 'both have the same settings')
    t.match(inForce[0]!.settings, { REDIS_URL: /^redis:\/\// })
  })

  t.test('connections of another instance are ended', async t => {
    const reader = await stream(two, '/events/far')
    const { connections } = (await told(one, '/connections?topic=far')).body
    const path = `/connections/${connections[0]!.id}`
    t.strictSame((await told(one, path, { method: 'DELETE' })).body, { disconnected: 1 })
    await reader.whole()
    t.equal((await told(one, path, { method: 'DELETE' })).status, 404)

    const bob = bearer(await tokenFor({ subscribe: ['**'] }, 'bob'))
    const [here, there] = [await stream(one, '/events/c', bob), await stream(two, '/events/c', bob)]
    const { body } = await told(two, '/users/bob/connections', { method: 'DELETE' })
    t.strictSame(body, { disconnected: 2, unanswered: [] })
    await here.whole()
    await there.whole()
  })

  t.test('a topic is deleted on all of them', async t => {
    const live = await stream(two, '/events/jobs/1')
    const ids: string[] = []
    for (const data of ['one', 'two']) {
      ids.push((await post(one, '/events/jobs/1', data, alice)).json()['id'] as string)
    }
    await live.until(2)
    t.equal((await told(one, '/topics/jobs/1', { method: 'DELETE' })).status, 200)
    t.match(JSON.parse((await live.first('gap')).data!), { reason: 'lost', topics: ['jobs/1'] })
    for (const server of [one, two]) {
      const resumed = await stream(server, '/events/jobs/1', { 'last-event-id': ids[0] })
      t.match(JSON.parse((await resumed.first('gap')).data!), { reason: 'lost' })
      t.notOk(resumed.messages.some(({ data }) => data === 'two'))
      const whole = await stream(server, '/events/jobs/*', { 'last-event-id': ids[1] })
      const at = whole.messages.length
      await post(server, '/events/jobs/1', 'three', alice)
      await whole.frames.until(() => whole.messages.length > at, 'what comes after')
      t.notOk(
        whole.frames.all.some(({ event }) => event === 'gap'),
        'nothing was missed'
      )
    }
  })

  t.test('what happens on each is told on all', async t => {
    const headers = await operator()
    const ws = await connect(t, one, { headers })
    await ws.do('subscribe', { topics: [LIVE.instances, LIVE.gaps] })
    const ids = () =>
      new Set(
        ws.events.filter(({ type }) => type === 'instances').map(({ data }) => (data as { id: string }).id)
      )
    await ws.messages.until(() => ids().size === 2, 'both instances')
    await stream(two, '/events/far?after=nonsense').catch(() => {})
    const isGap = ({ type, data }: Record<string, unknown>) =>
      type === 'gaps' && JSON.stringify(data).includes('"far"')
    await ws.messages.until(() => ws.events.some(isGap), 'a gap of the other instance')
    t.equal(
      (await ask(one, `/events/${encodeURIComponent(LIVE.gaps)}`, { headers: { ...SSE, ...alice } })).status,
      403
    )
  })

  t.test('another instance is drained', async t => {
    const { instances } = await all()
    const ids = instances.map(({ id }) => id)
    const third = await instance(t, redis.url, ENV)
    const { body } = await eventually(
      () => told(one, '/instances'),
      ({ body }) => body.instances.length === 3,
      'a third one'
    )
    const id = body.instances.map(({ id }) => id).find(each => !ids.includes(each))!
    const reader = await stream(third, '/events/a')
    t.equal((await told(one, `/instances/${id}/drain`, { method: 'POST' })).status, 202)
    await reader.whole()
    t.equal((await ask(third, '/readyz')).status, 503)
    const after = (await told(one, '/instances')).body.instances
    t.equal(after.find(each => each.id === id)!.draining, true)

    t.test('one that is gone is not asked any more', async () => {
      await third.app.close()
      await eventually(
        async () => (await told(one, '/instances')).body,
        ({ instances, unanswered }) => instances.length === 2 && unanswered.length === 0,
        'two instances'
      )
    })
  })

  t.test('an instance that does not answer is named', async t => {
    const { roster } = two.app.ringside.broker
    const signal = roster.signal.bind(roster)
    roster.signal = () => Promise.resolve()
    const { body } = await told(one, '/instances')
    roster.signal = signal
    t.equal(body.instances.length, 1)
    t.equal(body.unanswered.length, 1)
    t.not(body.unanswered[0]!.id, body.instances[0]!.id)

    roster.signal = () => Promise.resolve()
    const headers = await operator()
    const path = `/admin/api/instances/${body.unanswered[0]!.id}/drain`
    const answer = await ask(one, path, { method: 'POST', headers })
    roster.signal = signal
    isProblem(t, answer, 503, /does not answer/)
  })

  t.test('while Redis is away an instance tells of itself, and that others did not answer', async t => {
    await redis.stop()
    const { body, status } = await eventually(
      () => told(one, '/instances'),
      ({ body }) => body.unanswered?.length === 1,
      'only one instance'
    )
    t.equal(status, 200)
    t.match(body.instances, [{ store: { up: false }, unready: String }])
    const headers = await operator()
    const cleared = await ask(one, '/admin/api/topics/jobs/1', { method: 'DELETE', headers })
    isProblem(t, cleared, 503, /Redis/)
  })
})
