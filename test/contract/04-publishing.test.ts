import t, { type Test } from 'tap'
import { ask, build, isProblem, post, publishAll, type Answer, type TestServer } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { listen } from '../support/reader.ts'

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
