import t from 'tap'
import { ask, build, isProblem, post, publish, publishAll } from '../support/app.ts'
import { listen, subscribe } from '../support/reader.ts'

const TOPICS: Record<string, string> = {
  'one segment': 'hello',
  'several segments': 'rooms/ops/eu-west',
  'one byte': 'a',
  '256 bytes of ASCII': 'a'.repeat(256),
  '256 bytes of UTF-8': '€'.repeat(85) + 'a',
  'letters of any script': 'météo/東京/🌡',
  'spaces and marks': 'a b/c+d/e?f#g&h=i%20',
  'a star among other letters': 'a*/*b/**',
  'a name that objects have': '__proto__/constructor',
  dots: '../..'
}

const NO_TOPICS: Record<string, string> = {
  'an empty segment': 'a//b',
  'an empty first segment': '/a',
  'an empty last segment': 'a/',
  '257 bytes of ASCII': 'a'.repeat(257),
  '257 bytes of UTF-8': '€'.repeat(85) + 'ab',
  'a line feed': 'a\nb',
  'a carriage return': 'a\rb',
  NUL: 'a\0b',
  'a C1 control': 'a\u0085b',
  'a format character: zero width space joiner': 'a\u200db',
  'a format character: right-to-left override': 'a\u202eb',
  'a byte order mark': '\ufeffa'
}

t.test('a topic', async t => {
  const server = await build(t)

  for (const [name, topic] of Object.entries(TOPICS)) {
    t.test(`may be ${name}`, async t => {
      const query = `/events?topic=${encodeURIComponent(topic)}&envelope=true`
      const stream = await listen(t, server, query)
      const path = topic.split('/').map(encodeURIComponent).join('/').replaceAll('..', '%2E%2E')
      const single = await post(server, `/events/${path}`, 'by path')
      t.equal(single.status, 201)
      t.equal(single.json()['topic'], topic)
      await publishAll(server, [{ topic, data: 'by batch' }])
      const events = await stream.until(2)
      t.match(
        events.map(({ data }) => JSON.parse(data!) as unknown),
        [
          { topic, data: 'by path' },
          { topic, data: 'by batch' }
        ]
      )
    })
  }

  for (const [name, topic] of Object.entries(NO_TOPICS)) {
    t.test(`may not have ${name}`, async t => {
      isProblem(t, await ask(server, `/events?topic=${encodeURIComponent(topic)}`), 400, /topic/)
      const path = topic.split('/').map(encodeURIComponent).join('/')
      isProblem(t, await post(server, `/events/${path}`, 'x'), 400, /topic/)
      const batch = JSON.stringify([{ topic, data: 1 }])
      isProblem(
        t,
        await post(server, '/events', batch, { 'content-type': 'application/json' }),
        400,
        /\/0\/topic/
      )
    })
  }

  t.test('may not have a segment that is just *, which only ends a subscription', async t => {
    for (const topic of ['*', 'a/*', '*/a', 'a/*/b']) {
      isProblem(t, await post(server, `/events/${topic}`, 'x'), 400, /topic/)
    }
    for (const filter of ['*/a', 'a/*/b'])
      isProblem(t, await ask(server, `/events?topic=${filter}`), 400, /topic/)
    for (const filter of ['*', 'a/*', 'a/b/*'])
      t.equal((await subscribe(t, server, `/events?topic=${filter}`)).status, 200)
  })

  t.test('may not be empty', async t => {
    isProblem(t, await ask(server, '/events?topic='), 400, /topic/)
    isProblem(t, await post(server, '/events/', 'x'), 400, /topic/)
  })
})

t.test('a wildcard is exactly one segment, of any value', async t => {
  const server = await build(t)
  const stream = await listen(t, server, '/events?topic=rooms/*&envelope=true')
  const top = await listen(t, server, '/events?topic=*&envelope=true')
  for (const topic of ['rooms/AAPL', 'rooms', 'rooms/AAPL/bid', 'other/AAPL', 'rooms/MSFT', 'end']) {
    await publish(server, topic, topic)
  }
  const seen = (await stream.until(2)).map(({ data }) => (JSON.parse(data!) as { topic: string }).topic)
  t.strictSame(seen, ['rooms/AAPL', 'rooms/MSFT'])
  const seenAtTop = (await top.until(2)).map(({ data }) => (JSON.parse(data!) as { topic: string }).topic)
  t.strictSame(seenAtTop, ['rooms', 'end'])
  t.equal(stream.messages.length, 2)
})

t.test('an event type', async t => {
  const server = await build(t)

  t.test('is the name of the event; message when there is none, which needs no line', async t => {
    const stream = await listen(t, server, '/events/typed')
    await post(server, '/events/typed', '1')
    await post(server, '/events/typed?type=message', '2')
    await post(server, '/events/typed?type=quote', '3')
    await publishAll(server, [
      { topic: 'typed', data: 4 },
      { topic: 'typed', data: 5, type: 'A-z_0.9:' }
    ])
    const events = await stream.until(5)
    t.strictSame(
      events.map(({ event, data }) => [event, data]),
      [
        [undefined, '1'],
        [undefined, '2'],
        ['quote', '3'],
        [undefined, '4'],
        ['A-z_0.9:', '5']
      ]
    )
  })

  t.test('has 1 to 64 of A-Z a-z 0-9 _ . : -', async t => {
    t.equal((await post(server, `/events/typed?type=${'x'.repeat(64)}`, '')).status, 201)
    for (const type of ['', 'x'.repeat(65), 'a b', 'é', 'a/b', 'a\nb', 'a\r', 'a\0']) {
      isProblem(t, await post(server, `/events/typed?type=${encodeURIComponent(type)}`, 'x'), 400, /type/)
      const batch = JSON.stringify([{ topic: 'typed', type, data: 1 }])
      isProblem(t, await post(server, '/events', batch, { 'content-type': 'application/json' }), 400, /type/)
    }
  })

  for (const type of ['open', 'error', 'cursor', 'gap', 'goodbye', 'snapshot', 'heartbeat']) {
    t.test(`may not be ${type}, which is reserved`, async t => {
      isProblem(t, await post(server, `/events/typed?type=${type}`, 'x'), 422, new RegExp(type))
      const batch = JSON.stringify([
        { topic: 'typed', data: 1 },
        { topic: 'typed', type, data: 1 }
      ])
      const problem = isProblem(
        t,
        await post(server, '/events', batch, { 'content-type': 'application/json' }),
        422,
        /\/1\//
      )
      t.match(problem['errors'], [{ path: '/1/type', message: new RegExp(type) }])
    })
  }
})

t.test('an id', async t => {
  const server = await build(t)
  const before = Date.now()
  const ids = [
    await publish(server, 'a', '1'),
    ...(await publishAll(server, [
      { topic: 'b', data: 2 },
      { topic: 'a', data: 3 }
    ]))
  ]
  ids.push(await publish(server, 'c', '4'))

  t.test('is <ms>-<seq>, of the time of the broker', async t => {
    for (const id of ids) {
      t.match(id, /^\d{13}-\d+$/)
      const ms = Number(id.split('-')[0])
      t.ok(ms >= before && ms <= Date.now() + 1, id)
    }
  })

  t.test('only grows, whatever the topic', async t => {
    const keys = ids.map(id => id.split('-').map(Number) as [number, number])
    for (const [index, [ms, seq]] of keys.entries()) {
      const [msBefore, seqBefore] = keys[index - 1] ?? [0, 0]
      t.ok(ms > msBefore || (ms === msBefore && seq > seqBefore), ids.join(' '))
    }
  })

  t.test('needs no CORS preflight as a Last-Event-ID', async t => {
    for (const id of ids) t.match(id, /^[A-Za-z0-9\-._~]{1,128}$/)
  })
})

t.test('data is text, or bytes that text transports carry as base64', async t => {
  const server = await build(t)
  const plain = await listen(t, server, '/events/data')
  const enveloped = await listen(t, server, '/events/data?envelope=true')
  await post(server, '/events/data', Buffer.from([0, 255, 10, 13, 128]), {
    'content-type': 'application/octet-stream'
  })
  await post(server, '/events/data', 'text')
  t.strictSame(
    (await plain.until(2)).map(({ data }) => data),
    ['AP8KDYA=', 'text']
  )
  const [bytes, text] = (await enveloped.until(2)).map(
    ({ data }) => JSON.parse(data!) as Record<string, unknown>
  )
  t.match(bytes, { encoding: 'base64', data: 'AP8KDYA=' })
  t.notOk('encoding' in text!)
})

t.test('the ring holds the last RING_SIZE events', async t => {
  const server = await build(t, { RING_SIZE: '3' })
  const first = await publish(server, 'ring', '0')
  for (const data of ['1', '2', '3']) await publish(server, 'ring', data)
  const exact = await listen(t, server, `/events/ring?after=${first}`)
  t.strictSame(
    (await exact.until(3)).map(({ data }) => data),
    ['1', '2', '3']
  )
  t.notOk(exact.frames.all.some(({ event }) => event === 'gap'))
  await publish(server, 'ring', '4')
  const late = await listen(t, server, `/events/ring?after=${first}`)
  t.match(await late.next(), { event: 'gap' })
  t.strictSame(
    (await late.until(3)).map(({ data }) => data),
    ['2', '3', '4']
  )
})
