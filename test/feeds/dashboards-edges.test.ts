import t from 'tap'
import { build, isProblem } from '../support/app.ts'
import {
  buildShifted,
  canonical,
  eventsOf,
  expectStatus,
  follow,
  getJson,
  send,
  versionIn
} from '../support/feeds.ts'
import { eventually } from '../support/inbox.ts'
import { subscribe } from '../support/reader.ts'

t.setTimeout(400_000)

t.test('a cursor that has grown too old is answered with one snapshot, and no gap', async t => {
  const server = await buildShifted(t, { RING_TTL: '1h' })
  const after = versionIn(await send(server, 'PUT', '/dashboards/ops', { n: 0 }))
  await send(server, 'PATCH', '/dashboards/ops', { n: 1 })
  server.clock.advance(2 * 3_600_000)
  await eventually(
    () => server.app.ringside.broker.log.position(),
    ([position]) => position!.ms > server.clock.now() - 3_600_000,
    'a position of the new time'
  )
  const fresh = await subscribe(t, server, '/dashboards/ops')
  const resumed = await subscribe(t, server, `/dashboards/ops?after=${after}`)
  for (const reader of [fresh, resumed]) await reader.first('cursor')
  const next = versionIn(await send(server, 'PATCH', '/dashboards/ops', { n: 2 }))
  for (const reader of [fresh, resumed]) {
    await reader.frames.until(() => reader.frames.all.some(({ id }) => id === next), 'the next patch')
    t.strictSame(
      eventsOf(reader.frames.all).map(({ event, data }) => [event, data]),
      [
        ['snapshot', '{"n":1}'],
        ['patch', '{"n":2}']
      ]
    )
  }
})

t.test('a number that no page could keep is refused', async t => {
  const server = await build(t)
  for (const body of ['{"a":1e400}', '{"b":{"c":[0,-1e400]}}']) {
    isProblem(t, await send(server, 'PUT', '/dashboards/n', body), 422, /^\/[ab].* is not a finite number/)
  }
  await send(server, 'PUT', '/dashboards/n', '{"a":1,"n":12345678901234567890}')
  const page = await subscribe(t, server, '/dashboards/n')
  await page.first('cursor')
  isProblem(
    t,
    await send(server, 'PATCH', '/dashboards/n', '{"a":1e400}'),
    422,
    /^\/a: is not a finite number/
  )
  for (const body of ['{"d":98765432109876543210}', '{"e":1}'])
    await expectStatus(200, send(server, 'PATCH', '/dashboards/n', body))
  const got = await expectStatus(200, getJson(server, '/dashboards/n'))
  t.match(got.json(), { a: 1, n: Number('12345678901234567890'), d: Number('98765432109876543210'), e: 1 })
  await page.frames.until(() => page.frames.all.some(({ id }) => id === versionIn(got)), 'the last patch')
  t.equal([...follow(page.frames.all).values()].at(-1), canonical(got.text))
  t.equal(eventsOf(page.frames.all).length, 3, 'nothing was told of what was refused')
})

t.test('what is nested too deep is refused, not a failure', async t => {
  const server = await build(t)
  const deep = (levels: number) => '{"a":'.repeat(levels) + '1' + '}'.repeat(levels)
  await send(server, 'PUT', '/dashboards/ok', '{}')
  isProblem(t, await send(server, 'PATCH', '/dashboards/ok', deep(20_000)), 422, /deep/)
  t.equal((await getJson(server, '/dashboards/ok')).text, '{}')
  const put = await send(server, 'PUT', '/dashboards/deep', deep(9000))
  isProblem(t, put, 422, /deep/)
  await expectStatus(201, send(server, 'PUT', '/dashboards/deep', deep(50)))
  await expectStatus(200, send(server, 'PATCH', '/dashboards/deep', { b: 1 }))
})

t.test('tags as RFC 9110 compares them', async t => {
  const server = await build(t)
  const tag = (await send(server, 'PUT', '/dashboards/ops', { a: 1 })).headers.etag!
  for (const method of ['PUT', 'PATCH', 'DELETE']) {
    const body = method === 'DELETE' ? undefined : { a: 2 }
    const weak = await send(server, method, '/dashboards/ops', body, { 'if-match': `W/${tag}` })
    isProblem(t, weak, 412, /version/)
  }
  for (const given of ['*', `W/${tag}`, `"x", ${tag}`, `"x", W/${tag}`]) {
    const same = await getJson(server, '/dashboards/ops', { 'if-none-match': given })
    t.strictSame([same.status, same.text, same.headers.etag], [304, '', tag], given)
  }
  t.equal((await getJson(server, '/dashboards/ops', { 'if-none-match': '"x"' })).status, 200)
})

t.test('rate: a page that is told less often still holds what GET returns', async t => {
  const server = await build(t)
  await send(server, 'PUT', '/dashboards/r', {})
  const page = await subscribe(t, server, '/dashboards/r?rate=5')
  await page.first('cursor')
  for (let n = 0; n < 30; n++) await send(server, 'PATCH', '/dashboards/r', { [`k${n}`]: n })
  const got = await expectStatus(200, getJson(server, '/dashboards/r'))
  const held = () => [...follow(page.frames.all).values()].at(-1)
  await page.frames.until(() => held() === canonical(got.text), 'what GET returns')
  t.ok(eventsOf(page.frames.all).length < 25, `${eventsOf(page.frames.all).length} events`)
})
