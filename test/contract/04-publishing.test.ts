import t, { type Test } from 'tap'
import {
  ask,
  build,
  isProblem,
  metricsOf,
  post,
  publish,
  publishAll,
  type Answer,
  type TestServer
} from '../support/app.ts'
import { npmClient, undiciClient } from '../support/clients.ts'
import { eventually, inTime } from '../support/inbox.ts'
import { listen, subscribe } from '../support/reader.ts'
import { instances, redisFor } from '../support/redis-system.ts'
import { connect } from '../support/websocket.ts'

const JSON_TYPE = { 'content-type': 'application/json' }
const NDJSON = { 'content-type': 'application/x-ndjson' }

t.test('POST /events/T', async t => {
  const server = await build(t)

  t.test('answers 201 with the id and the topic', async t => {
    const stream = await listen(t, server, '/events/a/b')
    const answer = await post(server, '/events/a/b', 'x')
    t.equal(answer.status, 201)
    t.match(answer.headers['content-type'], /^application\/json/)
    const { id } = await stream.next()
    t.strictSame(answer.json(), { id, topic: 'a/b' })
  })

  const stored: Record<string, [body: string | Buffer, type: string | undefined, data: string]> = {
    'JSON compact': [
      '{ "a" : [ 1 ,\n2 ] , "b c" : " d\\n e " }',
      'application/json',
      '{"a":[1,2],"b c":" d\\n e "}'
    ],
    'JSON with a charset': ['[ ]', 'Application/JSON; charset=utf-8', '[]'],
    'JSON of one value': [' "x" ', 'application/json', '"x"'],
    'JSON with its numbers as they were': [
      '[ 12345678901234567890, 0.1234567890123456789, 1E400, -0, 1.50, 1e2 ]',
      'application/json',
      '[12345678901234567890,0.1234567890123456789,1E400,-0,1.50,1e2]'
    ],
    'JSON with its names in order, and escapes as they were': [
      '{ "2": 0, "1": "\\u00e9\\ud800\\/", "\\"": 1 }',
      'application/json',
      '{"2":0,"1":"\\u00e9\\ud800\\/","\\"":1}'
    ],
    'text as it is': [' { not JSON: é } ', 'text/plain', ' { not JSON: é } '],
    'text with a charset': ['x', 'text/plain;charset=UTF-8', 'x'],
    'what curl -d sends by default': ['a=1&b=%20+ü', 'application/x-www-form-urlencoded', 'a=1&b=%20+ü'],
    'what says nothing of its type, as text': ['{ "a": 1 }', undefined, '{ "a": 1 }'],
    'text that is empty': ['', 'text/plain', ''],
    'text with what stands for what is no text': ['a \ufffd', 'text/plain', 'a \ufffd'],
    'no body at all': ['', undefined, ''],
    'bytes as base64': [Buffer.from([0xff, 0, 0x80]), 'application/octet-stream', '/wCA'],
    'bytes that are none': [Buffer.alloc(0), 'application/octet-stream', '']
  }
  for (const [name, [body, type, data]] of Object.entries(stored)) {
    t.test(`stores ${name}`, async t => {
      const stream = await listen(t, server, '/events/stored')
      const answer = await post(
        server,
        '/events/stored',
        body,
        type === undefined ? {} : { 'content-type': type }
      )
      t.equal(answer.status, 201, answer.text)
      t.match(await stream.next(), { id: answer.json()['id'], data })
    })
  }

  t.test('refuses other media types with 415', async t => {
    for (const type of [
      'application/xml',
      'text/html',
      'multipart/form-data; boundary=x',
      'application/x-ndjson'
    ]) {
      isProblem(t, await post(server, '/events/a', 'x', { 'content-type': type }), 415, /./)
    }
    isProblem(t, await post(server, '/events/a', 'x', { 'content-type': 'nonsense' }), 415, /./)
    const problem = isProblem(
      t,
      await post(server, '/events/a', 'x', { 'content-type': 'text/html' }),
      415,
      /text\/html/
    )
    t.match(
      problem['detail'],
      /application\/json.*text\/plain.*application\/octet-stream/,
      'says what it takes'
    )
  })

  t.test('refuses what is not JSON, or not UTF-8, with 400', async t => {
    for (const body of ['', '{', '{"a":1,}', "{'a':1}", 'NaN', '[1] 2', '\ufeff{}', '"\n"', '01']) {
      isProblem(t, await post(server, '/events/a', body, JSON_TYPE), 400, /JSON/)
    }
    for (const body of ['ff', '80', 'c3', 'eda080', 'f4908080', 'c080'].map(hex => Buffer.from(hex, 'hex'))) {
      isProblem(t, await post(server, '/events/a', body, { 'content-type': 'text/plain' }), 400, /UTF-8/)
      isProblem(
        t,
        await post(server, '/events/a', Buffer.concat([Buffer.from('"'), body, Buffer.from('"')]), JSON_TYPE),
        400,
        /UTF-8/
      )
    }
  })

  t.test('takes ttl in whole seconds', async t => {
    t.equal((await post(server, '/events/a?ttl=1', 'x')).status, 201)
    for (const ttl of ['0', '-1', '1.5', 'x', ''])
      isProblem(t, await post(server, `/events/a?ttl=${ttl}`, 'x'), 400, /ttl/)
  })

  t.test('is what there is: other methods are a 405', async t => {
    for (const method of ['PUT', 'PATCH', 'DELETE']) {
      const answer = await ask(server, '/events/a', { method })
      isProblem(t, answer, 405, new RegExp(method))
      t.equal(answer.headers.allow, 'GET, HEAD, POST')
    }
  })
})

t.test('MAX_EVENT_BYTES', async t => {
  const server = await build(t)
  const stream = await listen(t, server, '/events/size')

  t.test('is 61440 by default: so many are taken, one more is a 413', async t => {
    const exact: [body: string | Buffer, headers: Record<string, string>][] = [
      ['x'.repeat(61_440), {}],
      ['é'.repeat(30_720), {}],
      [Buffer.alloc(61_440, 0xff), { 'content-type': 'application/octet-stream' }],
      [JSON.stringify('x'.repeat(61_438)), JSON_TYPE],
      [` ${JSON.stringify('x'.repeat(61_438))}\n  `, JSON_TYPE]
    ]
    for (const [body, headers] of exact)
      t.equal((await post(server, '/events/size', body, headers)).status, 201)
    await stream.until(exact.length)
    const over: typeof exact = [
      ['x'.repeat(61_441), {}],
      [`${'é'.repeat(30_720)}x`, {}],
      [Buffer.alloc(61_441, 0xff), { 'content-type': 'application/octet-stream' }],
      [JSON.stringify('x'.repeat(61_439)), JSON_TYPE],
      ['x'.repeat(1_000_000), {}]
    ]
    for (const [body, headers] of over)
      isProblem(t, await post(server, '/events/size', body, headers), 413, /./)
    t.match(
      isProblem(t, await post(server, '/events/size', 'x'.repeat(61_441)), 413, /61441.*61440/)['errors'],
      [{ path: 'data', message: /61441/ }]
    )
    t.equal(stream.messages.length, exact.length)
  })

  t.test('counts for each event of a batch, and its index is named', async t => {
    const fits = { topic: 'size', data: 'x'.repeat(61_438) }
    t.equal((await publishAll(server, [fits, fits, fits])).length, 3)
    const batch = JSON.stringify([fits, { topic: 'size', data: 'x'.repeat(61_439) }, fits])
    const problem = isProblem(t, await post(server, '/events', batch, JSON_TYPE), 413, /\/1\/data.*61441/)
    t.match(problem['errors'], [{ path: '/1/data' }])
  })

  t.test('can be set', async t => {
    const small = await build(t, { MAX_EVENT_BYTES: '10' })
    t.equal((await post(small, '/events/a', '0123456789')).status, 201)
    isProblem(t, await post(small, '/events/a', '0123456789x'), 413, /11.*10/)
  })
})

t.test('POST /events, a batch', async t => {
  const server = await build(t)

  for (const [name, headers, write] of [
    ['a JSON array', JSON_TYPE, (items: string[]) => `[ ${items.join(' ,\n')} ]`],
    ['ndjson', NDJSON, (items: string[]) => items.join('\n')],
    [
      'ndjson with an end to each line, empty ones, and CRLF',
      NDJSON,
      (items: string[]) => `\r\n${items.join('\r\n\r\n')}\r\n`
    ]
  ] as const) {
    t.test(`as ${name}: 201 with the ids in order, and all values as they were`, async t => {
      const stream = await listen(t, server, '/events?topic=b/*')
      const items = [
        '{"topic":"b/1","data":{ "a" : 1 }}',
        '{"topic":"b/2","type":"quote","data":[ 1, "x" ]}',
        '{"data":null,"topic":"b/1"}',
        '{"topic":"b/3","data":"text","ttl":60}',
        '{"topic":"b/1","data":false,"unknown":{"data":1}}',
        '{"topic":"b/1","data":12345678901234567890}',
        '{"topic":"b/1","data":{"n":[0.1234567890123456789, 1E400]}}'
      ]
      const answer = await post(server, '/events', write(items), headers)
      t.equal(answer.status, 201, answer.text)
      const frames = await stream.until(7)
      t.strictSame(answer.json(), { ids: frames.map(({ id }) => id) })
      t.strictSame(
        frames.map(({ event, data }) => [event, data]),
        [
          [undefined, '{"a":1}'],
          ['quote', '[1,"x"]'],
          [undefined, 'null'],
          [undefined, '"text"'],
          [undefined, 'false'],
          [undefined, '12345678901234567890'],
          [undefined, '{"n":[0.1234567890123456789,1E400]}']
        ]
      )
    })
  }

  t.test('has 1 to 1000 events', async t => {
    const events = (count: number) => Array.from({ length: count }, (_, data) => ({ topic: 'many', data }))
    const stream = await listen(t, server, '/events/many')
    const ids = await publishAll(server, events(1000))
    t.equal(new Set(ids).size, 1000)
    t.strictSame(
      (await stream.until(1000)).map(({ id }) => id),
      ids
    )
    isProblem(t, await post(server, '/events', JSON.stringify(events(1001)), JSON_TYPE), 400, /1001/)
    const lines = events(1001)
      .map(event => JSON.stringify(event))
      .join('\n')
    isProblem(t, await post(server, '/events', lines, NDJSON), 400, /1001/)
    isProblem(t, await post(server, '/events', '[]', JSON_TYPE), 400, /0/)
    isProblem(t, await post(server, '/events', '', NDJSON), 400, /0/)
    isProblem(t, await post(server, '/events', '', JSON_TYPE), 400, /JSON/)
    t.equal(stream.messages.length, 1000)
  })

  t.test('is refused whole when one of it is bad, which is named by its index', async t => {
    const stream = await listen(t, server, '/events/whole')
    const good = '{"topic":"whole","data":1}'
    const bad: Record<string, [item: string, status: number, names: RegExp]> = {
      'no topic': ['{"data":1}', 400, /\/2/],
      'no data': ['{"topic":"whole"}', 400, /\/2/],
      'a topic that is none': ['{"topic":"a//b","data":1}', 400, /\/2\/topic/],
      'a topic that is a number': ['{"topic":1,"data":1}', 400, /\/2\/topic/],
      'a type that is none': ['{"topic":"whole","data":1,"type":"a b"}', 400, /\/2\/type/],
      'a reserved type': ['{"topic":"whole","data":1,"type":"gap"}', 422, /\/2\/type/],
      'a ttl that is none': ['{"topic":"whole","data":1,"ttl":0}', 400, /\/2\/ttl/],
      'a ttl as text': ['{"topic":"whole","data":1,"ttl":"60"}', 400, /\/2\/ttl/],
      'an event that is null': ['null', 400, /\/2/],
      'an event that is a list': ['["whole",1]', 400, /\/2/]
    }
    for (const [name, [item, status, names]] of Object.entries(bad)) {
      t.test(name, async t => {
        for (const [body, headers] of [
          [`[${good},${good},${item}]`, JSON_TYPE],
          [`${good}\n${good}\n${item}`, NDJSON]
        ] as const) {
          const problem = isProblem(t, await post(server, '/events', body, headers), status, names)
          t.match(problem['errors'], [{ path: names, message: String }])
        }
      })
    }
    t.test('a line that is not JSON', async t => {
      isProblem(t, await post(server, '/events', `${good}\n${good}\n{"topic":`, NDJSON), 400, /\/2.*JSON/)
    })
    t.test('and nothing of it was stored', async t => {
      await post(server, '/events/whole', 'the only one')
      t.match(await stream.next(), { data: 'the only one' })
    })
  })

  t.test('is a list', async t => {
    for (const body of ['{}', '{"topic":"a","data":1}', '"x"', 'null', '1']) {
      isProblem(t, await post(server, '/events', body, JSON_TYPE), 400, /array/)
    }
    isProblem(t, await post(server, '/events', Buffer.from([0x5b, 0xff, 0x5d]), JSON_TYPE), 400, /UTF-8/)
  })

  t.test('has at most MAX_BATCH_BYTES', async t => {
    const small = await build(t, { MAX_BATCH_BYTES: '1000' })
    const item = `{"topic":"a","data":"${'x'.repeat(200)}"}`
    const array = (count: number) => `[${Array.from({ length: count }, () => item).join(',')}]`
    t.equal((await post(small, '/events', array(4), JSON_TYPE)).status, 201)
    isProblem(t, await post(small, '/events', array(5), JSON_TYPE), 413, /MAX_BATCH_BYTES/)
    isProblem(t, await post(small, '/events', `${item}\n`.repeat(5), NDJSON), 413, /MAX_BATCH_BYTES/)
    const quotes = JSON.stringify({ symbol: 'A', price: 1, x: 'x'.repeat(1000) })
    isProblem(t, await post(small, '/tickers', quotes, JSON_TYPE), 413, /MAX_BATCH_BYTES/)
  })

  t.test('is refused by the size of an item before any is parsed', async t => {
    const large = `[{"topic":"a","data":[${'1,'.repeat(70_000)}`
    isProblem(t, await post(server, '/events', `${large}]}`, JSON_TYPE), 400, /JSON/)
    isProblem(t, await post(server, '/events', `${large}}}]`, JSON_TYPE), 413, /\/0/)
  })

  t.test('has no other media type', async t => {
    for (const type of ['text/plain', 'application/octet-stream', 'application/xml']) {
      isProblem(t, await post(server, '/events', '[]', { 'content-type': type }), 415, new RegExp(type))
    }
    isProblem(t, await post(server, '/events', '[]'), 415, /./)
  })
})

t.test('Idempotency-Key', async t => {
  const server = await build(t)
  const keyed = (key: string, type?: string) => ({
    'idempotency-key': key,
    ...(type !== undefined && { 'content-type': type })
  })

  t.test('the same key again stores nothing and answers with the first id', async t => {
    const stream = await listen(t, server, '/events/once')
    const first = await post(server, '/events/once', 'x', keyed('k1'))
    isFirst(t, first)
    for (let count = 0; count < 3; count++)
      isReplay(t, await post(server, '/events/once', 'x', keyed('k1')), first)
    await post(server, '/events/once', 'end')
    t.strictSame(
      (await stream.until(2)).map(({ data }) => data),
      ['x', 'end']
    )
  })

  t.test('many at once with one key store one', async t => {
    const stream = await listen(t, server, '/events/race')
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => post(server, '/events/race', 'x', keyed('race')))
    )
    t.equal(new Set(answers.map(({ text }) => text)).size, 1)
    t.equal(answers.filter(({ headers }) => headers['idempotent-replayed'] === 'true').length, 19)
    await post(server, '/events/race', 'end')
    t.strictSame(
      (await stream.until(2)).map(({ data }) => data),
      ['x', 'end']
    )
  })

  t.test('for another event is a 422, and stores nothing', async t => {
    const stream = await listen(t, server, '/events/other')
    isFirst(t, await post(server, '/events/other', 'x', keyed('k2')))
    for (const [path, body, type] of [
      ['/events/other', 'y', undefined],
      ['/events/other?type=quote', 'x', undefined],
      ['/events/other', '"x"', 'application/json']
    ] as const) {
      isProblem(t, await post(server, path, body, keyed('k2', type)), 422, /Idempotency-Key/)
    }
    await post(server, '/events/other', 'end')
    t.strictSame(
      (await stream.until(2)).map(({ data }) => data),
      ['x', 'end']
    )
  })

  t.test('belongs to its topic: on another one it is another key', async t => {
    isFirst(t, await post(server, '/events/mine', 'x', keyed('order-17')))
    isFirst(t, await post(server, '/events/yours', 'y', keyed('order-17')))
  })

  t.test('has 1 to 255 visible characters', async t => {
    isFirst(t, await post(server, '/events/long', 'x', keyed('k'.repeat(255))))
    for (const key of ['k'.repeat(256), '', 'a b', 'a\tb', 'caf\u00e9']) {
      isProblem(t, await post(server, '/events/long', 'x', keyed(key)), 400, /idempotency-key/i)
      isProblem(
        t,
        await post(server, '/events', '[{"topic":"a","data":1}]', keyed(key, 'application/json')),
        400,
        /idempotency-key/i
      )
    }
  })

  t.test('covers each item of a batch', async t => {
    const stream = await listen(t, server, '/events/batch')
    const batch = (values: number[]) => JSON.stringify(values.map(data => ({ topic: 'batch', data })))
    const send = (values: number[], key: string) =>
      post(server, '/events', batch(values), keyed(key, 'application/json'))
    const first = await send([1, 2, 3], 'b1')
    isFirst(t, first)
    isReplay(t, await send([1, 2, 3], 'b1'), first)
    const longer = await send([1, 2, 3, 4], 'b1')
    t.equal(longer.status, 201)
    const ids = longer.json()['ids'] as string[]
    t.strictSame(ids.slice(0, 3), first.json()['ids'])
    t.equal((await stream.until(4))[3]!.id, ids[3])
    isProblem(t, await send([1, 9, 3], 'b1'), 422, /item 1|\/1/)
    await post(server, '/events/batch', 'end')
    t.strictSame(
      (await stream.until(5)).map(({ data }) => data),
      ['1', '2', '3', '4', 'end']
    )
  })

  t.test('that was used for another batch refuses it whole: nothing of it is stored', async t => {
    const stream = await listen(t, server, '/events/refused')
    const headers = keyed('b2', 'application/json')
    isFirst(t, await post(server, '/events', '[{"topic":"refused","data":1}]', headers))
    const other = '[{"topic":"refused","data":2},{"topic":"refused","data":3}]'
    isProblem(t, await post(server, '/events', other, headers), 422, /Idempotency-Key/)
    await post(server, '/events/refused', 'end')
    t.strictSame(
      (await stream.until(2)).map(({ data }) => data),
      ['1', 'end']
    )
  })

  t.test('of a batch is no other key that somebody may use', async t => {
    const headers = keyed('b3', 'application/json')
    isFirst(
      t,
      await post(server, '/events', '[{"topic":"mixed","data":1},{"topic":"mixed","data":2}]', headers)
    )
    for (const key of ['b3-0', 'b3:0', 'b3/0', 'b30', 'b3#0', 'b3,0', '"b3"0']) {
      isFirst(t, await post(server, '/events/mixed', 'other', keyed(key)))
    }
  })

  t.test('that is not given never makes two events one', async t => {
    const answers = [await post(server, '/events/same', 'x'), await post(server, '/events/same', 'x')]
    t.not(answers[0]!.text, answers[1]!.text)
    for (const answer of answers) isFirst(t, answer)
  })
})

t.test('topics that end', async t => {
  const server = await build(t, { RETRY: '20ms' })
  const end = (topic: string, body = '{"all":3}', headers = {}) =>
    post(server, `/events/${topic}?end=true`, body, headers)
  const page = async (path: string) => {
    const answer = await ask(server, path, { headers: { accept: 'application/json' } })
    return answer.json() as { events: { type: string }[]; more: boolean; ended?: true }
  }
  const isOver = async (t: Test, path: string, headers = {}) => {
    const answer = await ask(server, path, { headers })
    t.equal(answer.status, 204, `${path} ${JSON.stringify(headers)}`)
    t.equal(answer.text, '')
    return answer
  }

  t.test('who reads gets everything up to the end, and the stream is closed behind it', async t => {
    const stream = await listen(t, server, '/events/jobs/1')
    const lines = ask(server, '/events/jobs/1', { headers: { accept: 'application/x-ndjson' } })
    const enveloped = await listen(t, server, '/events/jobs/1?envelope=true')
    const wildcard = await listen(t, server, '/events/jobs/*')
    await eventually(
      () => server.app.ringside.hub.sessions.size,
      size => size === 4,
      'all of them'
    )
    await publish(server, 'jobs/1', 'one')
    const answer = await end('jobs/1')
    t.equal(answer.status, 201)
    const { id } = answer.json() as { id: string }
    t.strictSame(
      (await stream.whole()).slice(1).map(({ event, data, id }) => [event, data, id]),
      [
        [undefined, 'one', stream.frames.all[1]!.id],
        ['end', '{"all":3}', id]
      ],
      'and no goodbye'
    )
    const last = (await lines).text.trimEnd().split('\n').at(-1)!
    t.match(JSON.parse(last), { id, topic: 'jobs/1', type: 'end', data: { all: 3 } })
    t.match(JSON.parse((await enveloped.whole()).at(-1)!.data!), { type: 'end', data: { all: 3 } })
    await publish(server, 'jobs/2', 'other')
    t.match((await wildcard.until(3)).at(-1), { data: 'other' }, 'new topics may come')
    wildcard.close()
  })

  t.test('who comes back past the end is answered 204; who comes before it, the rest', async t => {
    const first = await publish(server, 'jobs/3', 'one')
    const two = await publish(server, 'jobs/3', 'two')
    const { id } = (await end('jobs/3', '')).json() as { id: string }
    const answer = await isOver(t, '/events/jobs/3', { accept: 'text/event-stream', 'last-event-id': id })
    t.equal(answer.headers['ringside-cursor'], id)
    t.match(answer.headers, { vary: /Accept/, 'cache-control': 'no-cache' })
    await isOver(t, `/events/jobs/3?after=${id}`)
    await isOver(t, `/events/jobs/3?after=${id}`, { accept: 'application/x-ndjson' })
    await isOver(t, '/events/jobs/3', { accept: 'text/event-stream' })
    await isOver(t, '/events?topic=jobs/1&topic=jobs/3')
    t.equal((await ask(server, `/events/jobs/3?after=${id}`, { method: 'HEAD' })).status, 204)
    t.equal((await ask(server, `/events/jobs/3?after=${first}`, { method: 'HEAD' })).status, 200)
    for (const [query, expected] of [
      [`after=${first}`, ['two', '']],
      ['rewind=100', ['one', 'two', '']],
      ['since=1h&rate=1', ['']]
    ] as const) {
      const stream = await listen(t, server, `/events/jobs/3?${query}`)
      t.strictSame(
        (await stream.whole()).slice(1).map(({ data }) => data),
        expected,
        query
      )
    }
    const gap = await subscribe(t, server, `/events/jobs/3?after=nonsense`)
    t.strictSame(
      (await gap.whole()).map(({ event }) => event),
      ['gap', 'cursor'],
      'a gap is told before'
    )
    const both = await listen(t, server, `/events?topic=jobs/3&topic=open&after=${two}`)
    await publish(server, 'open', 'x')
    t.strictSame(
      (await both.until(2)).map(({ data }) => data),
      ['', 'x'],
      'one of them goes on'
    )
    await end('open')
    await both.whole()
  })

  for (const [name, open] of Object.entries({ npmClient, undiciClient })) {
    t.test(`an EventSource stays away then: ${name}`, async t => {
      const topic = `jobs/${name}`
      const client = open(t, `${server.url}/events/${topic}`, ['end'])
      await client.received.next('the cursor')
      await publish(server, topic, 'one')
      await end(topic)
      await client.received.until(() => client.received.all.at(-1)?.type === 'end', 'the end')
      // the end of the stream, and the 204
      await eventually(client.errors, errors => errors === 2, 'it gives up')
      t.equal(client.received.all.length, 3)
    })
  }

  t.test('a page says that it is the last', async t => {
    const before = await page('/events/jobs/4')
    t.notOk('ended' in before)
    const first = await publish(server, 'jobs/4', 'one')
    const waiting = page(`/events/jobs/4?after=${first}&wait=60`)
    await publish(server, 'jobs/4', 'two')
    t.notOk('ended' in (await waiting))
    await end('jobs/4')
    const all = await page('/events/jobs/4?rewind=10')
    t.match(all, { more: false, ended: true })
    t.equal(all.events.length, 3)
    t.notOk('ended' in (await page('/events/jobs/4?rewind=10&limit=2')), 'unless there is more')
    const last = all.events.at(-1) as unknown as { id: string }
    const none = page(`/events/jobs/4?after=${last.id}&wait=60`)
    t.match(await inTime(none, 'an answer at once'), { events: [], ended: true })
    t.notOk('ended' in (await page(`/events?topic=jobs/4&topic=jobs/none&after=${last.id}`)))
  })

  t.test('what comes later is refused with 409', async t => {
    await end('jobs/5', 'x', { 'idempotency-key': 'k' })
    const problem = isProblem(t, await post(server, '/events/jobs/5', 'x'), 409, /jobs\/5 has ended/)
    t.match(problem['errors'], [{ path: 'topic' }])
    isProblem(t, await end('jobs/5'), 409, /ended/)
    const again = await end('jobs/5', 'x', { 'idempotency-key': 'k' })
    t.equal(again.status, 201)
    t.equal(again.headers['idempotent-replayed'], 'true')
    const batch = '[{"topic":"jobs/6","data":1},{"topic":"jobs/5","data":2}]'
    t.match(isProblem(t, await post(server, '/events', batch, JSON_TYPE), 409, /\/1\/topic/)['errors'], [
      { path: '/1/topic' }
    ])
    t.equal((await page('/events/jobs/6?rewind=1')).events.length, 0, 'all or nothing')
    const client = await connect(t, server)
    t.match(await client.ask('publish', { topic: 'jobs/5', data: 1 }), {
      op: 'error',
      code: 'bad_request',
      message: /has ended/
    })
    await t.rejects(server.app.ringside.publish('jobs/5', { data: 1 }), /has ended/)
  })

  t.test('the program ends them as well, and a WebSocket stays', async t => {
    const client = await connect(t, server)
    await client.do('subscribe', { topics: ['jobs/7'] })
    await server.app.ringside.publish('jobs/7', { data: { all: 1 }, end: true })
    await client.messages.until(() => client.told.length > 0, 'the end')
    t.match(client.told[0], { op: 'event', topic: 'jobs/7', type: 'end', data: { all: 1 } })
    await client.do('unsubscribe', { topics: ['jobs/7'] })
    await t.rejects(server.app.ringside.publish('jobs/8', { data: 1, end: true, ttl: 5 }), /ttl/)
  })

  t.test('says what an end can not be', async t => {
    isProblem(t, await post(server, '/events/jobs/9?end=true&type=done', 'x'), 422, /type/)
    isProblem(t, await post(server, '/events/jobs/9?end=true&ttl=60', 'x'), 422, /ttl/)
    isProblem(t, await post(server, '/events/jobs/9?end=1', 'x'), 400, /end/)
    isProblem(t, await post(server, '/events/jobs/9?type=end', 'x'), 422, /reserved/)
    isProblem(t, await post(server, '/events/tickers/AAPL?end=true', 'x'), 403, /tickers/)
    t.equal((await post(server, '/events/jobs/9?end=true&type=end', 'x')).status, 201)
    t.equal((await post(server, '/events/jobs/10?end=false', 'x')).status, 201)
    t.equal((await post(server, '/events/jobs/10', 'x')).status, 201)
  })

  t.test('is counted as what it is', async t => {
    const metrics = await metricsOf(server)
    t.ok(metrics.get('ringside_connections_closed_total{transport="sse",reason="ended"}')! > 5)
    t.equal(metrics.get('ringside_connections{transport="sse"}'), 0)
  })
})

t.test('topics that end on another instance, in several shards', async t => {
  const redis = await redisFor(t)
  const [here, there] = (await instances(t, redis.url, 2, { SHARDS: '3' })) as [TestServer, TestServer]
  const topics = Array.from({ length: 6 }, (_, index) => `jobs/${index}`)
  const all = `/events?${topics.map(topic => `topic=${topic}`).join('&')}`
  const stream = await listen(t, there, all)
  const one = await listen(t, there, '/events/jobs/0')
  for (const topic of topics) {
    await publish(here, topic, topic)
    t.equal((await post(here, `/events/${topic}?end=true`, topic)).status, 201)
  }
  t.match((await one.whole()).at(-1), { event: 'end', data: 'jobs/0' })
  t.equal((await stream.whole()).length, 1 + 2 * topics.length)
  const { id } = stream.frames.all.at(-1)!
  for (const server of [here, there]) {
    t.equal((await ask(server, `${all}&after=${id}`)).status, 204)
    t.equal((await ask(server, `/events/jobs/3?after=${id}`)).status, 204)
    const rest = await listen(t, server, `${all}&after=${stream.cursor}`)
    t.equal((await rest.whole()).length, 1 + 2 * topics.length)
    isProblem(t, await post(server, '/events/jobs/3', 'x'), 409, /ended/)
  }
})

t.test('a publish reaches who listens, and who comes later', async t => {
  const server = await build(t)
  const answer = await post(server, '/events/now', 'x')
  const late = await listen(t, server, '/events/now?rewind=1')
  t.match(await late.next(), { id: answer.json()['id'], data: 'x' })
  await eventually(
    () => watched(server),
    count => count === 1,
    'one topic that is watched'
  )
})

async function watched({ app }: TestServer): Promise<number> {
  const { values } = await app.ringside.metrics.topics.get()
  return values[0]!.value
}

function isFirst(t: Test, answer: Answer): void {
  t.equal(answer.status, 201, answer.text)
  t.notOk('idempotent-replayed' in answer.headers)
}

function isReplay(t: Test, answer: Answer, first: Answer): void {
  t.equal(answer.status, 201)
  t.equal(answer.headers['idempotent-replayed'], 'true')
  t.strictSame(answer.json(), first.json())
}
