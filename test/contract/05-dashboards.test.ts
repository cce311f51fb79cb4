import t from 'tap'
import { ask, build, isProblem, post } from '../support/app.ts'
import {
  canonical,
  eventsOf,
  expectStatus,
  follow,
  getJson,
  send,
  versionIn,
  type Where
} from '../support/feeds.ts'
import { eventually } from '../support/inbox.ts'
import { listen, subscribe, type Reader } from '../support/reader.ts'

const MERGE_PATCH = { 'content-type': 'application/merge-patch+json' }
const ID = /^\d+-\d+$/

t.setTimeout(400_000)

t.test('PUT makes a dashboard and replaces it', async t => {
  const server = await build(t)
  const made = await send(server, 'PUT', '/dashboards/ops', ' {"a": 1, "b": [1.50, null] } ')
  t.equal(made.status, 201)
  t.match(made.json(), { id: 'ops', version: ID })
  t.equal(versionIn(made), made.json()['version'])
  const got = await getJson(server, '/dashboards/ops')
  t.equal(got.status, 200)
  t.equal(got.headers['content-type'], 'application/json; charset=utf-8')
  t.equal(got.text, '{"a":1,"b":[1.50,null]}', 'compact')
  t.equal(got.headers.etag, made.headers.etag)

  const replaced = await send(server, 'PUT', '/dashboards/ops', { c: 2 })
  t.equal(replaced.status, 200)
  t.not(replaced.headers.etag, made.headers.etag)
  t.equal((await getJson(server, '/dashboards/ops')).text, '{"c":2}')
})

t.test('numbers keep their digits', async t => {
  const server = await build(t)
  const numbers = '{"a":12345678901234567,"b":1.0,"c":{"d":1e2}}'
  await put(server, 'ops', numbers)
  const reader = await listen(t, server, '/events/dashboards/ops')
  t.equal((await getJson(server, '/dashboards/ops')).text, numbers)
  const patch = '{ "c": { "e": 0.10 }, "f": 76543210987654321 }'
  t.equal((await send(server, 'PATCH', '/dashboards/ops', patch, MERGE_PATCH)).status, 200)
  const merged = '{"a":12345678901234567,"b":1.0,"c":{"d":1e2,"e":0.10},"f":76543210987654321}'
  t.equal((await getJson(server, '/dashboards/ops')).text, merged)
  t.match(await reader.until(1), [{ event: 'patch', data: '{"c":{"e":0.10},"f":76543210987654321}' }])
})

t.test('what is no dashboard is refused and changes nothing', async t => {
  const server = await build(t)
  await put(server, 'ops', { a: 1 })
  for (const body of ['[1]', 'null', '"text"', '1', 'true']) {
    for (const method of ['PUT', 'PATCH'])
      isProblem(t, await send(server, method, '/dashboards/ops', body), 422, /^a dashboard is a JSON object$/)
  }
  isProblem(t, await send(server, 'PUT', '/dashboards/ops', '{"a":'), 400, /not JSON/)
  isProblem(t, await send(server, 'PUT', '/dashboards/ops', ''), 400, /not JSON/)
  const text = { 'content-type': 'text/plain' }
  isProblem(t, await send(server, 'PUT', '/dashboards/ops', '{}', text), 415, /application\/json/)
  isProblem(t, await send(server, 'PATCH', '/dashboards/ops', '{}', text), 415, /merge-patch/)
  isProblem(t, await send(server, 'PUT', '/dashboards/a%2Fb', {}), 400, /segment/)
  isProblem(t, await send(server, 'PUT', '/dashboards/*', {}), 400, /segment/)
  isProblem(t, await post(server, '/events/dashboards/ops', '{}'), 403, /dashboards/)
  t.equal((await getJson(server, '/dashboards/ops')).text, '{"a":1}')
  t.strictSame((await getJson(server, '/dashboards')).json()['dashboards'], [
    { id: 'ops', version: await version(server, 'ops') }
  ])
})

t.test('PATCH is a merge patch: the examples of RFC 7396, appendix A', async t => {
  const server = await build(t)
  const examples: [string, string, string][] = [
    ['{"a":"b"}', '{"a":"c"}', '{"a":"c"}'],
    ['{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'],
    ['{"a":"b"}', '{"a":null}', '{}'],
    ['{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'],
    ['{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'],
    ['{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'],
    ['{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'],
    ['{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'],
    ['{"e":null}', '{"a":1}', '{"e":null,"a":1}'],
    ['{}', '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}']
  ]
  for (const [original, patch, result] of examples) {
    await put(server, 'rfc', original)
    const answer = await send(server, 'PATCH', '/dashboards/rfc', patch, MERGE_PATCH)
    t.equal(answer.status, 200)
    const got = await getJson(server, '/dashboards/rfc')
    t.equal(got.text, result, `${original} and ${patch}`)
    t.equal(got.headers.etag, answer.headers.etag)
    t.equal(answer.json()['version'], versionIn(got))
  }
})

t.test('GET as JSON: 304 while nothing has changed', async t => {
  const server = await build(t)
  await put(server, 'ops', { a: 1 })
  const { headers } = await getJson(server, '/dashboards/ops')
  const same = await getJson(server, '/dashboards/ops', { 'if-none-match': headers.etag! })
  t.equal(same.status, 304)
  t.equal(same.text, '')
  t.equal(same.headers.etag, headers.etag)
  await patch(server, 'ops', { a: 2 })
  const changed = await getJson(server, '/dashboards/ops', { 'if-none-match': headers.etag! })
  t.equal(changed.status, 200)
  t.equal(changed.text, '{"a":2}')
  const head = await ask(server, '/dashboards/ops', {
    method: 'HEAD',
    headers: { accept: 'application/json' }
  })
  t.equal(head.status, 200)
  t.equal(head.headers.etag, changed.headers.etag)
  t.equal(head.text, '')
})

t.test('If-Match: 412 when the version is another, and nothing changes', async t => {
  const server = await build(t)
  const first = await put(server, 'ops', { a: 1 })
  const second = await patch(server, 'ops', { a: 2 })
  for (const method of ['PUT', 'PATCH', 'DELETE']) {
    const body = method === 'DELETE' ? undefined : { a: 'lost' }
    for (const etag of [`"${first}"`, '"nonsense"', '""']) {
      isProblem(t, await send(server, method, '/dashboards/ops', body, { 'if-match': etag }), 412, /version/)
    }
    const nothing = await send(server, method, '/dashboards/none', body, { 'if-match': '*' })
    isProblem(t, nothing, 412, /none/)
  }
  t.equal(await version(server, 'ops'), second)
  t.equal((await getJson(server, '/dashboards/none')).status, 404)

  const third = await send(server, 'PATCH', '/dashboards/ops', { a: 3 }, { 'if-match': `"${second}"` })
  t.equal(third.status, 200)
  const list = `"other", "${versionIn(third)}"`
  t.equal((await send(server, 'PUT', '/dashboards/ops', { a: 4 }, { 'if-match': list })).status, 200)
  t.equal((await send(server, 'PATCH', '/dashboards/ops', { a: 5 }, { 'if-match': '*' })).status, 200)
  const last = await version(server, 'ops')
  t.equal(
    (await send(server, 'DELETE', '/dashboards/ops', undefined, { 'if-match': `"${last}"` })).status,
    204
  )
  isProblem(t, await getJson(server, '/dashboards/ops'), 404, /ops/)
})

t.test('of two that change the same version, one is told 412', async t => {
  const server = await build(t)
  const etag = `"${await put(server, 'ops', { n: 0 })}"`
  const answers = await Promise.all(
    Array.from({ length: 10 }, (_, n) =>
      send(server, 'PATCH', '/dashboards/ops', { n }, { 'if-match': etag })
    )
  )
  t.strictSame(answers.map(({ status }) => status).sort(), [200, ...Array<number>(9).fill(412)])
  const won = answers.findIndex(({ status }) => status === 200)
  t.equal((await getJson(server, '/dashboards/ops')).text, JSON.stringify({ n: won }))
})

t.test('DELETE ends it: told as deleted, then 404 until it is PUT again', async t => {
  const server = await build(t)
  await put(server, 'ops', { a: 1 })
  await put(server, 'other', {})
  const reader = await subscribe(t, server, '/dashboards/ops')
  await reader.first('snapshot')
  t.equal((await send(server, 'DELETE', '/dashboards/ops')).status, 204)
  t.match(await reader.first('deleted'), { id: ID, event: 'deleted' })
  for (const [method, body] of [['GET'], ['PATCH', { a: 1 }], ['DELETE']] as [string, object?][]) {
    isProblem(t, await send(server, method, '/dashboards/ops', body), 404, /ops/)
  }
  const stream = await ask(server, '/dashboards/ops', { headers: { accept: 'text/event-stream' } })
  isProblem(t, stream, 404, /ops/)
  t.match((await getJson(server, '/dashboards')).json(), { dashboards: [{ id: 'other' }] })
  t.equal((await send(server, 'PUT', '/dashboards/ops', { b: 1 })).status, 201)
  await reader.frames.until(() => eventsOf(reader.frames.all).length === 3, 'the new one')
  t.strictSame(types(reader), ['snapshot', 'deleted', 'snapshot'])
  t.equal(heldBy(reader), canonical('{"b":1}'))
})

t.test('GET /dashboards lists them with their versions', async t => {
  const server = await build(t)
  t.strictSame((await getJson(server, '/dashboards')).json(), { dashboards: [] })
  const versions = {
    b: await put(server, 'b', {}),
    ä: await put(server, '%C3%A4', {}),
    a: await put(server, 'a', {})
  }
  t.strictSame((await getJson(server, '/dashboards')).json(), {
    dashboards: [
      { id: 'a', version: versions.a },
      { id: 'b', version: versions.b },
      { id: 'ä', version: versions.ä }
    ]
  })
})

t.test('a stream', async t => {
  t.test('is a snapshot, then each patch; a PUT is a snapshot', async t => {
    const server = await build(t)
    await put(server, 'ops', { a: { b: 1 } })
    const reader = await subscribe(t, server, '/dashboards/ops')
    await reader.first('cursor')
    t.strictSame(types(reader), ['snapshot'])
    t.equal(heldBy(reader), canonical('{"a":{"b":1}}'))
    const ids = [
      await patch(server, 'ops', { a: { c: null, d: [null] } }),
      await put(server, 'ops', { e: 1 }),
      await patch(server, 'ops', { e: null })
    ]
    await reader.frames.until(() => reader.frames.all.some(({ id }) => id === ids[2]), 'the last patch')
    t.strictSame(
      eventsOf(reader.frames.all)
        .slice(1)
        .map(({ id, event, data }) => [id, event, data]),
      [
        [ids[0], 'patch', '{"a":{"c":null,"d":[null]}}'],
        [ids[1], 'snapshot', '{"e":1}'],
        [ids[2], 'patch', '{"e":null}']
      ]
    )
    t.equal(heldBy(reader), canonical('{}'))
  })

  t.test('after the version of an ETag misses nothing, and brings nothing twice', async t => {
    const server = await build(t)
    await put(server, 'ops', { n: 0 })
    const { headers } = await getJson(server, '/dashboards/ops')
    const after = headers.etag!.slice(1, -1)
    t.equal(headers['ringside-cursor'], after)
    const missed = [await patch(server, 'ops', { n: 1 }), await patch(server, 'ops', { n: 2 })]
    await put(server, 'other', {})
    const readers = [
      await subscribe(t, server, `/dashboards/ops?after=${after}`),
      await subscribe(t, server, '/dashboards/ops', { accept: 'text/event-stream', 'last-event-id': after })
    ]
    const live = await patch(server, 'ops', { n: 3 })
    for (const reader of readers) {
      t.match(await reader.next(), { event: 'cursor', id: after })
      t.strictSame(
        (await reader.until(3)).map(({ id, event, data }) => [id, event, data]),
        [...missed, live].map((id, index) => [id, 'patch', JSON.stringify({ n: index + 1 })])
      )
    }
  })

  t.test('with a cursor that the ring no longer covers is a new snapshot, and no gap', async t => {
    const server = await build(t, { RING_SIZE: '3' })
    const first = await put(server, 'ops', { n: 0 })
    await patchTimes(server, 'ops', 5)
    let last = await version(server, 'ops')
    for (const after of [first, 'nonsense', '1-0', '999999999999999-0']) {
      const reader = await subscribe(t, server, `/dashboards/ops?after=${after}`)
      await reader.first('cursor')
      t.strictSame(types(reader), ['snapshot'], after)
      t.equal(heldBy(reader), canonical((await getJson(server, '/dashboards/ops')).text))
      last = await patch(server, 'ops', { after })
      await reader.frames.until(() => reader.frames.all.some(({ id }) => id === last), 'what comes next')
      t.strictSame(types(reader), ['snapshot', 'patch'])
    }
  })

  t.test('passes over what belongs to other dashboards', async t => {
    const server = await build(t)
    await put(server, 'a', {})
    await put(server, 'b', {})
    const reader = await subscribe(t, server, '/dashboards/a')
    await reader.first('cursor')
    await patch(server, 'b', { b: 1 })
    await patch(server, 'a', { a: 1 })
    t.strictSame(
      (await reader.until(2)).map(({ data }) => data),
      ['{}', '{"a":1}']
    )
  })

  t.test('is made of ordinary events for who reads the topic', async t => {
    const server = await build(t)
    await put(server, 'ops', { a: 1 })
    const reader = await listen(t, server, '/events/dashboards/ops?rewind=10')
    await patch(server, 'ops', { a: 2 })
    await reader.frames.until(() => types(reader).length === 2, 'both')
    t.strictSame(types(reader), ['snapshot', 'patch'])
    const page = await getJson(server, '/events/dashboards/*?rewind=10')
    t.match(page.json(), {
      events: [
        { topic: 'dashboards/ops', type: 'snapshot', data: { a: 1 } },
        { topic: 'dashboards/ops', type: 'patch', data: { a: 2 } }
      ]
    })
  })

  t.test('HEAD gives its headers', async t => {
    const server = await build(t)
    await put(server, 'ops', {})
    const head = await ask(server, '/dashboards/ops', { method: 'HEAD' })
    t.equal(head.status, 200)
    t.equal(head.headers['content-type'], 'text/event-stream; charset=utf-8')
    t.equal((await ask(server, '/dashboards/none', { method: 'HEAD' })).status, 404)
  })
})

t.test('concurrent patches are all applied, one after the other', async t => {
  const server = await build(t)
  await put(server, 'ops', {})
  const reader = await subscribe(t, server, '/dashboards/ops')
  await reader.first('cursor')
  const names = Array.from({ length: 100 }, (_, index) => `n${index}`)
  const versions = await Promise.all(names.map(name => patch(server, 'ops', { [name]: 1, list: [name] })))
  t.equal(new Set(versions).size, 100)
  const { list, ...members } = (await getJson(server, '/dashboards/ops')).json()
  t.strictSame(Object.keys(members).sort(), [...names].sort())
  const last = await version(server, 'ops')
  t.strictSame(list, [names[versions.indexOf(last)]], 'the last one wins')
  await reader.frames.until(() => reader.frames.all.some(({ id }) => id === last), 'the last patch')
  t.equal(heldBy(reader), canonical((await getJson(server, '/dashboards/ops')).text))
  t.equal(types(reader).length, 101)
})

t.test('a dashboard may be as large as an event', async t => {
  const server = await build(t, { MAX_EVENT_BYTES: '1000', RING_SIZE: '100' })
  const whole = { text: 'x'.repeat(1000 - '{"text":""}'.length) }
  const before = await put(server, 'ops', whole)
  const tooLarge: [string, object][] = [
    ['PUT', { text: `${whole.text}x` }],
    ['PUT', { text: 'ä'.repeat(600) }],
    ['PATCH', { b: 1 }]
  ]
  for (const [method, body] of tooLarge) {
    isProblem(t, await send(server, method, '/dashboards/ops', body), 413, /1000/)
  }
  t.equal((await send(server, 'PUT', '/dashboards/ops', { text: 'x'.repeat(10_000) })).status, 413)
  const got = await getJson(server, '/dashboards/ops')
  t.equal(got.text, JSON.stringify(whole))
  t.equal(versionIn(got), before)
  const { events } = (await getJson(server, '/events/dashboards/ops?rewind=100')).json()
  t.match(events, [{ id: before }])
  t.equal((events as unknown[]).length, 1, 'nothing was told')
})

t.test('a reader that was too slow for the ring is given a snapshot', async t => {
  const server = await build(t, { RING_SIZE: '20', HEARTBEAT: '60s' })
  await put(server, 'ops', {})
  const slow = await subscribe(t, server, '/dashboards/ops')
  await slow.first('cursor')
  const [session] = server.app.ringside.hub.sessions
  slow.pause()
  const text = 'x'.repeat(50_000)
  let n = 0
  while (session!.state !== 'lagging') await patch(server, 'ops', { n: ++n, text })
  for (let more = 0; more < 40; more++) await patch(server, 'ops', { n: ++n, text })
  await patch(server, 'ops', { last: true, text: null })
  slow.resume()
  // its id is the version, or a later position: the broker ticks meanwhile
  const whole = canonical(JSON.stringify({ n, last: true }))
  await slow.frames.until(() => heldBy(slow) === whole, 'the last version')
  t.ok(types(slow).filter(type => type === 'snapshot').length >= 2)
  t.notOk(types(slow).includes('gap'))
  const live = await patch(server, 'ops', { live: 1 })
  await slow.frames.until(() => slow.frames.all.some(({ id }) => id === live), 'what comes next')
  t.equal(heldBy(slow), canonical(JSON.stringify({ n, last: true, live: 1 })))
  await eventually(
    () => session!.state,
    state => state === 'live',
    'a live session'
  )
})

async function put(server: Where, id: string, document: object | string): Promise<string> {
  const answer = await send(server, 'PUT', `/dashboards/${id}`, document)
  if (answer.status > 201) throw new Error(`not put: ${answer.text}`)
  return versionIn(answer)
}

async function patch(server: Where, id: string, document: object): Promise<string> {
  return versionIn(await expectStatus(200, send(server, 'PATCH', `/dashboards/${id}`, document, MERGE_PATCH)))
}

/** Counts `n` up to `count`; answers with the last version. */
async function patchTimes(server: Where, id: string, count: number): Promise<string> {
  let last = ''
  for (let n = 1; n <= count; n++) last = await patch(server, id, { n })
  return last
}

async function version(server: Where, id: string): Promise<string> {
  return versionIn(await expectStatus(200, getJson(server, `/dashboards/${id}`)))
}

function types({ frames }: Reader): string[] {
  return eventsOf(frames.all).map(({ event }) => event!)
}

/** What a page holds that has been told all this. */
function heldBy({ frames }: Reader): string | undefined {
  return [...follow(frames.all).values()].at(-1)
}
