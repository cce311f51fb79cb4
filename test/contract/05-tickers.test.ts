import t from 'tap'
import { ask, build, isProblem, metricsOf, post } from '../support/app.ts'
import { buildShifted, eventsOf, expectStatus, getJson, send, type Where } from '../support/feeds.ts'
import { eventually } from '../support/inbox.ts'
import { listen, type Reader } from '../support/reader.ts'
import { bearer, SECRET, tokenFor } from '../support/tokens.ts'

const ID = /^\d+-\d+$/

t.setTimeout(400_000)

t.test('POST /tickers', async t => {
  const server = await build(t, { RING_SIZE: '2000' })

  t.test('takes one quote, which becomes an event', async t => {
    const reader = await listen(t, server, '/events/tickers/AAPL')
    const ids = await quote(server, { symbol: 'AAPL', price: 189.25, bid: 189.2, at: null, venues: ['X'] })
    t.equal(ids.length, 1)
    t.match(ids[0], ID)
    const data = '{"symbol":"AAPL","price":189.25,"bid":189.2,"at":null,"venues":["X"]}'
    t.strictSame(await reader.until(1), [{ id: ids[0], event: 'quote', data }])
  })

  t.test('keeps other members, and every number, as they were written', async t => {
    const reader = await listen(t, server, '/events/tickers/BIG')
    const text =
      '{ "symbol": "BIG", "price": 0.12345678901234567890, "volume": 12345678901234567890, "e": 1E2,\n "__proto__": {"a": 1} }'
    const compact =
      '{"symbol":"BIG","price":0.12345678901234567890,"volume":12345678901234567890,"e":1E2,"__proto__":{"a":1}}'
    await quote(server, text)
    await quote(server, `[${text},{"symbol":"OTHER","price":1}]`)
    t.strictSame(
      (await reader.until(2)).map(({ data }) => data),
      [compact, compact]
    )
    t.match((await getJson(server, '/tickers?symbols=BIG')).text, `{"quotes":[${compact}],`)
    const odd = '{"symbol":"ODD","price":0.0000001,"size":9007199254740.993}'
    await quote(server, odd)
    t.match((await getJson(server, '/tickers?symbols=ODD')).text, `{"quotes":[${odd}],`)
  })

  t.test('takes 1000 at once, in order', async t => {
    const before = (await metricsOf(server)).get('ringside_events_published_total{feed="tickers"}')!
    const quotes = Array.from({ length: 1000 }, (_, price) => ({ symbol: `S${price % 10}`, price }))
    const reader = await listen(t, server, '/events/tickers/S3')
    const ids = await quote(server, quotes)
    t.equal(new Set(ids).size, 1000)
    const got = await reader.until(100)
    t.strictSame(
      got.map(({ id, data }) => [id, data]),
      quotes.flatMap((each, index) => (each.symbol === 'S3' ? [[ids[index], JSON.stringify(each)]] : []))
    )
    const after = (await metricsOf(server)).get('ringside_events_published_total{feed="tickers"}')
    t.equal(after, before + 1000)
  })

  t.test('stores nothing when one of them is wrong, and says which', async t => {
    const good = '{"symbol":"NONE","price":1}'
    const bad: [string, RegExp][] = [
      ['{"symbol":"A","price":"1"}', /^\/1\/price /],
      ['{"symbol":"A","price":1e400}', /^\/1\/price/],
      ['{"symbol":"A","price":-1e400}', /^\/1\/price/],
      ['{"symbol":"A","price":null}', /^\/1\/price /],
      ['{"symbol":"A","price":1,"price":true}', /^\/1\/price /],
      ['{"symbol":"A"}', /^\/1 .*price/],
      ['{"price":1}', /^\/1 .*symbol/],
      ['{"symbol":7,"price":1}', /^\/1\/symbol /],
      ['{"symbol":"a/b","price":1}', /^\/1\/symbol /],
      ['1', /^\/1 /],
      ['null', /^\/1 /],
      [`[${good}]`, /^\/1 /]
    ]
    for (const [item, says] of bad) {
      const answer = await send(server, 'POST', '/tickers', `[${good},${item}]`)
      const { errors } = isProblem(t, answer, 400, says)
      t.match(errors, [{ path: /^\/1/ }], item)
    }
    isProblem(t, await send(server, 'POST', '/tickers', '{"symbol":"A","price":"1"}'), 400, /^\/price /)
    isProblem(t, await send(server, 'POST', '/tickers', '[]'), 400, /1 to 1000/)
    const many = Array.from({ length: 1001 }, () => ({ symbol: 'NONE', price: 1 }))
    isProblem(t, await send(server, 'POST', '/tickers', many), 400, /1001/)
    isProblem(t, await post(server, '/tickers', good, { 'content-type': 'text/plain' }), 415, /json/)
    isProblem(t, await send(server, 'POST', '/tickers', '{"symbol":'), 400, /not JSON/)
    t.strictSame((await getJson(server, '/tickers?symbols=NONE,A')).json()['quotes'], [])
  })

  t.test('a symbol is 1 to 32 of certain characters', async t => {
    for (const symbol of ['A', 'brk.b', '^GSPC', 'EURUSD=X', 'BTC-USD', 'a_b:c', '0', 'x'.repeat(32)]) {
      await quote(server, { symbol, price: 1 })
      const path = `/tickers?symbols=${encodeURIComponent(symbol)}`
      t.match((await getJson(server, path)).json(), { quotes: [{ symbol }] })
    }
    for (const symbol of ['', 'x'.repeat(33), 'A B', 'A/B', '*', 'ä', 'A,B', 'A\n', 'A\u0000']) {
      isProblem(t, await send(server, 'POST', '/tickers', { symbol, price: 1 }), 400, /^\/symbol /)
      if (symbol === '*' || symbol === 'A,B') continue
      const path = `/tickers?symbols=${encodeURIComponent(symbol)}`
      isProblem(t, await getJson(server, path), 400, /symbol/)
    }
    isProblem(t, await getJson(server, '/tickers'), 400, /symbols/)
    isProblem(t, await getJson(server, '/tickers?symbols=A,,B'), 400, /symbol/)
    isProblem(t, await getJson(server, `/tickers?symbols=${'A,'.repeat(100)}A`), 400, /100/)
  })

  t.test('a quote is at most as large as an event', async t => {
    const small = await build(t, { MAX_EVENT_BYTES: '100' })
    const sized = (size: number) => {
      const empty = { symbol: 'A', price: 1, text: '' }
      return { ...empty, text: 'x'.repeat(size - JSON.stringify(empty).length) }
    }
    await quote(small, sized(100))
    isProblem(t, await send(small, 'POST', '/tickers', sized(101)), 413, /^a quote of 101 bytes; at most 100/)
    isProblem(t, await send(small, 'POST', '/tickers', [sized(100), sized(101)]), 413, /^\/1.*100/)
  })

  t.test('only it writes tickers', async t => {
    isProblem(t, await post(server, '/events/tickers/AAPL', '1'), 403, /tickers/)
    const batch = [{ topic: 'tickers/AAPL', data: 1 }]
    isProblem(t, await send(server, 'POST', '/events', batch), 403, /tickers/)
  })
})

t.test('Idempotency-Key: sent again, quotes are not stored again', async t => {
  const server = await build(t)
  const reader = await listen(t, server, '/events/tickers/*')
  const quotes = [
    { symbol: 'A', price: 1 },
    { symbol: 'B', price: 2 }
  ]
  const key = { 'idempotency-key': 'k' }
  const first = await send(server, 'POST', '/tickers', quotes, key)
  t.notOk('idempotent-replayed' in first.headers)
  await quote(server, { symbol: 'A', price: 3 })
  const again = await send(server, 'POST', '/tickers', quotes, key)
  t.equal(again.status, 201)
  t.equal(again.headers['idempotent-replayed'], 'true')
  t.strictSame(again.json(), first.json())
  const other = [quotes[0], { symbol: 'B', price: 4 }]
  isProblem(t, await send(server, 'POST', '/tickers', other, key), 422, /Idempotency-Key/)
  await quote(server, { symbol: 'B', price: 5 })
  t.strictSame(pricesOf(await reader.until(4)), [1, 2, 3, 5])
  t.strictSame(pricesOf(reader.messages), [1, 2, 3, 5])
  t.match((await getJson(server, '/tickers?symbols=A')).json(), { quotes: [{ price: 3 }] })
})

t.test(
  'DELETE /tickers/:symbol ends it: told as deleted, then in no list until there is another',
  async t => {
    const server = await build(t)
    await quote(server, [
      { symbol: 'OLD', price: 1 },
      { symbol: 'NEW', price: 2.0 }
    ])
    const reader = await listen(t, server, '/events?topic=tickers/*')
    t.equal((await send(server, 'DELETE', '/tickers/OLD')).status, 204)
    t.match(await reader.first('deleted'), { id: ID, event: 'deleted', data: '{"symbol":"OLD"}' })
    isProblem(t, await send(server, 'DELETE', '/tickers/OLD'), 404, /^there is no quote of OLD$/)
    isProblem(t, await send(server, 'DELETE', '/tickers/NONE'), 404, /NONE/)
    isProblem(t, await send(server, 'DELETE', '/tickers/*'), 400, /symbol/)
    const listed = async (symbols: string) =>
      ((await getJson(server, `/tickers?symbols=${symbols}`)).json()['quotes'] as { symbol: string }[]).map(
        ({ symbol }) => symbol
      )
    for (const symbols of ['*', 'OLD,NEW']) t.strictSame(await listed(symbols), ['NEW'])
    await quote(server, { symbol: 'OLD', price: 3 })
    t.strictSame(await listed('*'), ['NEW', 'OLD'])
    t.equal((await send(server, 'DELETE', '/tickers/OLD')).status, 204, 'and once more')
  }
)

t.test('only who may publish a ticker may end it', async t => {
  const server = await build(t, { JWT_SECRET: SECRET })
  const of = async (symbol: string) => bearer(await tokenFor({ publish: [`tickers/${symbol}`] }))
  await send(server, 'POST', '/tickers', { symbol: 'A', price: 1 }, await of('A'))
  t.equal((await send(server, 'DELETE', '/tickers/A')).status, 401)
  isProblem(t, await send(server, 'DELETE', '/tickers/A', undefined, await of('B')), 403, /tickers\/A/)
  t.equal((await send(server, 'DELETE', '/tickers/A', undefined, await of('*'))).status, 204)
})

t.test('GET /tickers as a stream', async t => {
  const server = await build(t)
  const ids = await quote(server, [
    { symbol: 'A', price: 1 },
    { symbol: 'B', price: 2 },
    { symbol: 'A', price: 3 },
    { symbol: 'C', price: 4 }
  ])

  t.test('begins with the latest of each symbol, with its own id, then is live', async t => {
    const reader = await listen(t, server, '/tickers?symbols=B,A,D,A')
    t.strictSame(
      (await reader.until(2)).map(({ id, event, data }) => [id, event, data]),
      [
        [ids[1], 'quote', '{"symbol":"B","price":2}'],
        [ids[2], 'quote', '{"symbol":"A","price":3}']
      ]
    )
    await quote(server, { symbol: 'C', price: 5 })
    const [live, born] = await quote(server, [
      { symbol: 'A', price: 6 },
      { symbol: 'D', price: 7 }
    ])
    t.match((await reader.until(4)).slice(2), [
      { id: live, data: '{"symbol":"A","price":6}' },
      { id: born, data: '{"symbol":"D","price":7}' }
    ])
  })

  t.test('symbols=* is all of them, and those that come', async t => {
    const reader = await listen(t, server, '/tickers?symbols=*')
    const latest = (await getJson(server, '/tickers?symbols=*')).json()['quotes'] as { symbol: string }[]
    t.strictSame(latest.map(({ symbol }) => symbol).sort(), ['A', 'B', 'C', 'D'])
    t.strictSame(
      (await reader.until(4)).map(({ data }) => JSON.parse(data!) as unknown),
      latest
    )
    await quote(server, { symbol: 'NEW', price: 8 })
    t.match((await reader.until(5)).at(-1), { data: '{"symbol":"NEW","price":8}' })
  })

  t.test('with a cursor it is only what was missed', async t => {
    const [cursor] = await quote(server, { symbol: 'A', price: 10 })
    const missed = await quote(server, [
      { symbol: 'A', price: 11 },
      { symbol: 'C', price: 12 },
      { symbol: 'A', price: 13 }
    ])
    const byHeader = { accept: 'text/event-stream', 'last-event-id': cursor! }
    const readers = [
      await listen(t, server, '/tickers?symbols=A,B', byHeader),
      await listen(t, server, `/tickers?symbols=A,B&after=${cursor}`)
    ]
    const [live] = await quote(server, { symbol: 'B', price: 14 })
    for (const reader of readers) {
      t.equal(reader.cursor, cursor)
      t.strictSame(
        (await reader.until(3)).map(({ id }) => id),
        [missed[0], missed[2], live]
      )
    }
  })

  t.test('its cursor events lead on from wherever it was cut', async t => {
    const reader = await listen(t, server, '/tickers?symbols=*')
    const count = (await getJson(server, '/tickers?symbols=*')).json()['quotes'] as unknown[]
    await reader.until(count.length)
    const seen = reader.frames.all.findLast(({ id }) => id !== undefined)!.id!
    reader.close()
    const [missed] = await quote(server, { symbol: 'B', price: 20 })
    const next = await listen(t, server, `/tickers?symbols=*&after=${seen}`)
    t.strictSame(
      (await next.until(1)).map(({ id }) => id),
      [missed]
    )
    t.notOk(next.frames.all.some(({ event }) => event === 'gap'))
  })

  t.test('rate: the newest of each symbol, and no more than so many a second', async t => {
    const reader = await listen(t, server, '/tickers?symbols=A,R&rate=2')
    await reader.until(1)
    for (let price = 100; price < 150; price++) {
      await quote(server, [
        { symbol: 'A', price },
        { symbol: 'R', price }
      ])
    }
    const last = (symbol: string) => lastPrice(reader, symbol)
    await reader.frames.until(() => last('A') === 149 && last('R') === 149, 'the newest of both')
    const prices = pricesOf(reader.messages.filter(({ data }) => data!.includes('"R"')))
    t.ok(prices.length < 25, `${prices.length} of 50`)
    t.strictSame(
      prices,
      [...new Set(prices)].sort((a, b) => a - b)
    )
    t.notOk(reader.frames.all.some(({ event }) => event === 'gap'))
  })

  t.test('envelope and ndjson hold for them too', async t => {
    const [id] = await quote(server, { symbol: 'E', price: 1 })
    const reader = await listen(t, server, '/tickers?symbols=E&envelope=true')
    const [first] = await reader.until(1)
    const envelope = { id, topic: 'tickers/E', type: 'quote', time: Number, data: { symbol: 'E', price: 1 } }
    t.match(JSON.parse(first!.data!), envelope)
    const page = await getJson(server, '/events/tickers/E?rewind=1')
    t.match(page.json(), { events: [envelope] })
  })
})

t.test('GET /tickers as JSON', async t => {
  const server = await build(t)

  t.test('has no quotes while there are none', async t => {
    const answer = await getJson(server, '/tickers?symbols=*')
    t.match(answer.json(), { quotes: [], cursor: ID })
    t.equal(answer.headers['content-type'], 'application/json; charset=utf-8')
    t.equal(answer.headers['ringside-cursor'], answer.json()['cursor'])
  })

  t.test('nothing is missing after its cursor, while quotes come', async t => {
    let published = 0
    let stop = false
    const publishing = (async () => {
      while (!stop) await quote(server, { symbol: 'N', price: published++ })
    })()
    const starts: { price: number; reader: Reader }[] = []
    while (starts.length < 10) {
      const { quotes, cursor } = (await getJson(server, '/tickers?symbols=N')).json() as {
        quotes: { price: number }[]
        cursor: string
      }
      if (quotes.length === 0) continue
      const reader = await listen(t, server, `/tickers?symbols=N&after=${cursor}`)
      starts.push({ price: quotes[0]!.price, reader })
    }
    stop = true
    await publishing
    for (const { price, reader } of starts) {
      await reader.frames.until(
        () => lastPrice(reader, 'N') === published - 1 || price === published - 1,
        'the last'
      )
      const prices = pricesOf(reader.messages)
      const from = prices[0] ?? published
      t.ok(from <= price + 1, `${price}, then from ${from}`)
      t.strictSame(
        prices,
        Array.from({ length: published - from }, (_, index) => from + index)
      )
    }
  })

  t.test('HEAD gives its headers, 406 what it has not', async t => {
    const head = await ask(server, '/tickers?symbols=*', { method: 'HEAD' })
    t.equal(head.status, 200)
    t.equal(head.headers['content-type'], 'text/event-stream; charset=utf-8')
    const html = await ask(server, '/tickers?symbols=*', { headers: { accept: 'text/html' } })
    isProblem(t, html, 406, /text\/html/)
  })
})

t.test('a quote that its ring no longer holds still comes first', async t => {
  const server = await buildShifted(t, { RING_TTL: '1s' })
  const [old] = await quote(server, { symbol: 'OLD', price: 1 })
  server.clock.advance(60_000)
  const [young] = await quote(server, { symbol: 'YOUNG', price: 2 })
  for (const symbols of ['OLD,YOUNG', '*']) {
    const reader = await listen(t, server, `/tickers?symbols=${symbols}`)
    t.strictSame(
      (await reader.until(2)).map(({ id, event, data }) => [id, event, data]),
      [
        [old, 'quote', '{"symbol":"OLD","price":1}'],
        [young, 'quote', '{"symbol":"YOUNG","price":2}']
      ]
    )
    t.strictSame(
      eventsOf(reader.frames.all).map(({ event }) => event),
      ['quote', 'quote']
    )
    reader.close()
  }
  const alone = await listen(t, server, '/tickers?symbols=OLD')
  t.match(await alone.until(1), [{ id: old }])
  const position = await server.app.ringside.broker.log.position()
  await eventually(
    () => alone.frames.all.findLast(({ id }) => id !== undefined)!.id!,
    id => id !== old,
    'a cursor that is younger than the quote'
  )
  t.ok(position[0]!.ms > Number(old!.split('-')[0]) + 1000)
  const [next] = await quote(server, { symbol: 'OLD', price: 3 })
  t.match((await alone.until(2)).at(-1), { id: next })
  t.match((await getJson(server, '/tickers?symbols=OLD,YOUNG')).json(), {
    quotes: [{ symbol: 'YOUNG' }, { symbol: 'OLD', price: 3 }]
  })
})

/** Publishes quotes; the answer is their ids. */
async function quote(server: Where, quotes: unknown): Promise<string[]> {
  const answer = await expectStatus(201, send(server, 'POST', '/tickers', quotes))
  return answer.json()['ids'] as string[]
}

function pricesOf(frames: readonly { data?: string }[]): number[] {
  return frames.map(({ data }) => (JSON.parse(data!) as { price: number }).price)
}

function lastPrice({ messages }: Reader, symbol: string): number | undefined {
  const last = messages.findLast(({ data }) => data!.includes(`"symbol":"${symbol}"`))
  return last && pricesOf([last])[0]
}
