import { request } from 'node:http'
import t, { type Test } from 'tap'
import { ask, build, isProblem, metricsOf, publish, publishAll, type Answer } from '../support/app.ts'
import { buildShifted, expectStatus, getJson, type Where } from '../support/feeds.ts'
import { eventually, Inbox, inTime } from '../support/inbox.ts'
import { randomFrom } from '../support/random.ts'

const ID = /^\d+-\d+$/
const NDJSON = { accept: 'application/x-ndjson' }

interface Page {
  readonly events: readonly { readonly id: string; readonly topic: string; readonly data: unknown }[]
  readonly cursor: string
  readonly gap: { readonly reason: string; readonly topics: string[]; readonly after: string } | null
  readonly more: boolean
}

t.setTimeout(400_000)

t.test('a page', async t => {
  const server = await build(t)
  const { cursor: start } = await pageOf(server, '/events/a')
  const ids = await publishAll(
    server,
    Array.from({ length: 250 }, (_, index) => ({ topic: 'a', type: 'number', data: { index } }))
  )

  t.test('has events as in the envelope, oldest first, 100 unless told, and where to go on', async t => {
    const answer = await getJson(server, `/events/a?after=${start}`)
    t.equal(answer.status, 200)
    t.equal(answer.headers['content-type'], 'application/json; charset=utf-8')
    t.equal(answer.headers['ringside-cursor'], start, 'where it started')
    const page = answer.json() as unknown as Page
    t.strictSame(Object.keys(page), ['events', 'cursor', 'gap', 'more'])
    t.strictSame(page.events[7], {
      id: ids[7],
      topic: 'a',
      type: 'number',
      time: Number(ids[7]!.split('-')[0]),
      data: { index: 7 }
    })
    t.strictSame(idsOf(page), ids.slice(0, 100))
    t.strictSame([page.gap, page.more], [null, true])
    t.equal(page.cursor, ids[99])
  })

  t.test('has as many as limit says, and more says whether there are others', async t => {
    const found: string[] = []
    let page: Page
    let after = start
    do {
      page = await pageOf(server, `/events/a?after=${after}&limit=50`)
      found.push(...idsOf(page))
      after = page.cursor
    } while (page.more)
    t.strictSame(found, ids)
    t.equal(page.events.length, 50, 'the last page is full, and there is no empty one')
    t.strictSame(idsOf(await pageOf(server, `/events/a?after=${start}&limit=1`)), [ids[0]])
    t.strictSame(idsOf(await pageOf(server, `/events/a?after=${start}&limit=1000`)), ids)
    for (const limit of ['0', '1001', '-1', '1.5', 'x'])
      isProblem(t, await getJson(server, `/events/a?limit=${limit}`), 400, /limit/)
    for (const wait of ['0', '61', 'x'])
      isProblem(t, await getJson(server, `/events/a?wait=${wait}`), 400, /wait/)
  })

  t.test('is empty with nothing after its cursor', async t => {
    const page = await pageOf(server, `/events/a?after=${ids.at(-1)}`)
    t.match(page, { events: [], gap: null, more: false, cursor: ID })
    t.equal(page.events.length, 0)
    const fresh = await pageOf(server, '/events/a')
    t.equal(fresh.events.length, 0, 'without a cursor it starts now')
  })

  t.test('takes rewind and since', async t => {
    t.strictSame(idsOf(await pageOf(server, '/events/a?rewind=3')), ids.slice(-3))
    t.strictSame(idsOf(await pageOf(server, '/events/a?since=10m&limit=1000')), ids)
  })

  t.test('is of several topics, in id order', async t => {
    const { cursor } = await pageOf(server, '/events?topic=b/*&topic=a')
    const mixed = ['b/1', 'a', 'b/2', 'c', 'a', 'b/1'].map(topic => ({ topic, data: 1 }))
    const stored = await publishAll(server, mixed)
    const page = await pageOf(server, `/events?topic=b/*&topic=a&after=${cursor}`)
    t.strictSame(
      idsOf(page),
      stored.filter((_, index) => index !== 3)
    )
  })

  t.test('says that text which is no JSON is a string, and bytes are base64', async t => {
    await publish(server, 'text', 'not {json')
    const bytes = { 'content-type': 'application/octet-stream' }
    await ask(server, '/events/text', { method: 'POST', headers: bytes, body: new Uint8Array([0, 255]) })
    t.match((await pageOf(server, '/events/text?rewind=2')).events, [
      { data: 'not {json' },
      { data: 'AP8=', encoding: 'base64' }
    ])
  })

  t.test('HEAD gives its headers, and leaves nothing behind', async t => {
    const headers = { accept: 'application/json' }
    const head = await ask(server, '/events/a?wait=60', { method: 'HEAD', headers })
    t.equal(head.status, 200)
    t.equal(head.headers['content-type'], 'application/json; charset=utf-8')
    t.match(head.headers['ringside-cursor'], ID)
    t.equal(head.text, '')
    await noneConnected(server, 'poll')
  })
})

t.test('wait', async t => {
  const server = await build(t)

  t.test('returns with the first event', async t => {
    const { cursor } = await pageOf(server, '/events/a')
    const answer = getJson(server, `/events/a?after=${cursor}&wait=60`)
    await connected(server, 'poll')
    await publish(server, 'other', 'x')
    const id = await publish(server, 'a', 'first')
    const page = (await inTime(answer, 'the first event')).json() as unknown as Page
    t.match(page, { events: [{ id, data: 'first' }], gap: null, more: false })
    t.equal(page.events.length, 1)
    t.strictSame((await pageOf(server, `/events/a?after=${page.cursor}`)).events, [])
  })

  t.test('returns at once when there is something', async t => {
    const { cursor } = await pageOf(server, '/events/a')
    const id = await publish(server, 'a', 'there')
    const answer = await inTime(getJson(server, `/events/a?after=${cursor}&wait=60`), 'what is there')
    t.match(answer.json(), { events: [{ id }] })
    const unknown = await inTime(getJson(server, '/events/a?after=nonsense&wait=60'), 'the gap')
    t.match(unknown.json(), { gap: { reason: 'unknown' } })
  })

  t.test('returns after so many seconds with nothing', async t => {
    const { cursor } = await pageOf(server, '/events/a')
    const started = performance.now()
    const page = await pageOf(server, `/events/a?after=${cursor}&wait=1`)
    t.ok(performance.now() - started > 950)
    t.match(page, { events: [], gap: null, more: false, cursor: ID })
    t.equal(page.events.length, 0)
  })

  t.test('wakes all that wait, for any topic of theirs', async t => {
    const answers = ['/events/a', '/events?topic=x&topic=a', '/events/a'].map(path =>
      getJson(server, `${path}${path.includes('?') ? '&' : '?'}wait=60`)
    )
    await connected(server, 'poll', 3)
    const id = await publish(server, 'a', 'all')
    for (const answer of await inTime(Promise.all(answers), 'all of them'))
      t.strictSame(idsOf(answer.json() as unknown as Page), [id])
    await noneConnected(server, 'poll')
  })

  t.test('a client that goes away leaves nothing behind', async t => {
    const before = await metricsOf(server)
    const closed = 'ringside_connections_closed_total{transport="poll",reason="client"}'
    const waiting = request({
      host: '127.0.0.1',
      port: server.port,
      path: '/events/a?wait=60',
      headers: { accept: 'application/json' },
      agent: false
    })
    waiting.on('error', () => {}) // it is we who break it off
    waiting.end()
    await connected(server, 'poll')
    waiting.destroy()
    await noneConnected(server, 'poll')
    t.equal((await metricsOf(server)).get(closed), (before.get(closed) ?? 0) + 1)
    t.equal(server.app.ringside.hub.sessions.size, 0)
  })

  t.test('a drain answers those that wait', async t => {
    const stopping = await build(t)
    const answer = getJson(stopping, '/events/a?wait=60')
    await connected(stopping, 'poll')
    await inTime(stopping.app.ringside.drain(), 'the end of the drain')
    const { status, headers, json } = await inTime(answer, 'an answer')
    t.equal(status, 200)
    t.equal(headers.connection, 'close')
    t.match(json(), { events: [], gap: null, cursor: headers['ringside-cursor'] })
    const late = await getJson(stopping, '/events/a')
    isProblem(t, late, 503, /stopping/)
    t.match(late.headers['retry-after'], /^\d+$/)
  })
})

t.test('a page announces what is missing', async t => {
  t.test('what a ring no longer holds', async t => {
    const server = await build(t, { RING_SIZE: '3' })
    const ids = await publishAll(
      server,
      Array.from({ length: 8 }, (_, data) => ({ topic: 'a', data }))
    )
    const page = await pageOf(server, `/events?topic=a&topic=b&after=${ids[0]}`)
    t.strictSame(page.gap, { reason: 'expired', topics: ['a'], after: ids[0]! })
    t.strictSame(idsOf(page), ids.slice(5))
    const next = await pageOf(server, `/events?topic=a&topic=b&after=${page.cursor}`)
    t.strictSame([next.gap, next.events], [null, []])
    t.equal((await pageOf(server, `/events/a?after=${ids[4]}`)).gap, null, 'all that follows is there')
  })

  t.test('a cursor that is too old', async t => {
    const server = await buildShifted(t, { RING_TTL: '1h' })
    const old = await publish(server, 'a', '1')
    server.clock.advance(2 * 3_600_000)
    const id = await publish(server, 'a', '2')
    const page = await pageOf(server, `/events/a?after=${old}`)
    t.strictSame(page.gap, { reason: 'expired', topics: ['a'], after: old })
    t.strictSame(idsOf(page), [id])
    t.equal((await pageOf(server, `/events/a?after=${page.cursor}`)).gap, null)
  })

  t.test('a cursor that is none', async t => {
    const server = await build(t)
    for (const after of ['nonsense', '999999999999999-0', '1-2-3']) {
      const page = await pageOf(server, `/events/a?after=${after}`)
      t.match(page, { events: [], gap: { reason: 'unknown', topics: ['a'], after }, more: false })
      t.match(page.cursor, ID)
      const id = await publish(server, 'a', after)
      const next = await pageOf(server, `/events/a?after=${page.cursor}`)
      t.strictSame([next.gap, idsOf(next)], [null, [id]])
    }
    const header = await getJson(server, '/events/a', { 'last-event-id': 'nonsense' })
    t.match(header.json(), { gap: { reason: 'unknown' } })
    t.equal((await pageOf(server, '/events/a?after=')).gap, null, 'an empty one is none')
  })
})

t.test('ndjson', async t => {
  const server = await build(t, { RING_SIZE: '3', HEARTBEAT: '100ms' })

  t.test('is an event a line', async t => {
    const lines = await readLines(t, server, '/events?topic=a&topic=b')
    t.equal(lines.headers['content-type'], 'application/x-ndjson; charset=utf-8')
    t.equal(lines.headers['cache-control'], 'no-cache, no-transform')
    t.match(lines.headers['ringside-cursor'], ID)
    const ids = [
      await publish(server, 'a', '{"text":"a\\nb"}'),
      await publish(server, 'b', 'two\nlines\r\n'),
      await publish(server, 'a', '7')
    ]
    t.strictSame(await lines.first(3), [
      { id: ids[0], topic: 'a', type: 'message', time: timeOf(ids[0]!), data: { text: 'a\nb' } },
      { id: ids[1], topic: 'b', type: 'message', time: timeOf(ids[1]!), data: 'two\nlines\r\n' },
      { id: ids[2], topic: 'a', type: 'message', time: timeOf(ids[2]!), data: 7 }
    ])
  })

  t.test('goes on after a cursor, and a gap is a line', async t => {
    const ids = await publishAll(
      server,
      Array.from({ length: 6 }, (_, data) => ({ topic: 'n', data }))
    )
    const whole = await readLines(t, server, `/events/n?after=${ids[2]}`)
    t.match(await whole.first(3), [{ id: ids[3] }, { id: ids[4] }, { id: ids[5] }])
    t.equal(whole.headers['ringside-cursor'], ids[2])
    const torn = await readLines(t, server, `/events/n?after=${ids[0]}`)
    t.strictSame((await torn.first(1))[0], { type: 'gap', reason: 'expired', topics: ['n'], after: ids[0] })
    t.match((await torn.first(4)).slice(1), [{ id: ids[3] }, { id: ids[4] }, { id: ids[5] }])
    const unknown = await readLines(t, server, '/events/n?after=nonsense')
    t.strictSame(await unknown.first(1), [
      { type: 'gap', reason: 'unknown', topics: ['n'], after: 'nonsense' }
    ])
  })

  t.test('has an empty line for a heartbeat', async t => {
    const lines = await readLines(t, server, '/events/quiet')
    await lines.all.until(() => lines.all.all.filter(line => line === '').length >= 2, 'heartbeats')
    t.ok(lines.all.all.every(line => line === ''))
  })

  t.test('is told of the end', async t => {
    const stopping = await build(t)
    const lines = await readLines(t, stopping, '/events/a')
    await stopping.app.ringside.drain()
    t.match(await lines.first(1), [{ type: 'goodbye', reason: 'shutdown', retry: Number }])
  })
})

t.test('the metrics tell polls and ndjson apart', async t => {
  const server = await build(t)
  const lines = await readLines(t, server, '/events/a')
  const id = await publish(server, 'a', '1')
  await lines.first(1)
  await pageOf(server, '/events/a?rewind=1')
  const answer = getJson(server, '/events/b?wait=60')
  await connected(server, 'poll')
  const metrics = await metricsOf(server)
  const of = (name: string, transport: string) => metrics.get(`ringside_${name}{transport="${transport}"}`)
  t.equal(of('connections', 'ndjson'), 1)
  t.equal(of('connections_opened_total', 'ndjson'), 1)
  t.equal(of('connections_opened_total', 'poll'), 2)
  t.equal(of('events_delivered_total', 'ndjson'), 1)
  t.equal(of('events_delivered_total', 'poll'), 1)
  t.ok(of('bytes_sent_total', 'ndjson')! > id.length)
  t.ok(of('bytes_sent_total', 'poll')! > id.length)
  t.equal(metrics.get('ringside_connections_closed_total{transport="poll",reason="answered"}'), 1)
  await publish(server, 'b', '1')
  await answer
  await noneConnected(server, 'poll')
  lines.close()
  await noneConnected(server, 'ndjson')
})

t.test('a poller that stops and comes back gets everything once', async t => {
  const server = await build(t, { RING_SIZE: '5000' })
  for (const seed of [1, 2, 3, 4]) {
    const random = randomFrom(seed)
    const topics = [`s${seed}/a`, `s${seed}/b`]
    let { cursor } = await pageOf(server, `/events/s${seed}/*`)
    const stored: string[] = []
    let done = false
    const publishing = (async () => {
      for (let batch = 0; batch < 60; batch++) {
        const size = 1 + Math.floor(random() * 12)
        const events = Array.from({ length: size }, () => ({
          topic: topics[Math.floor(random() * 2)]!,
          data: 1
        }))
        stored.push(...(await publishAll(server, events)))
      }
      done = true
    })()
    const got: string[] = []
    for (;;) {
      const last = done
      const limit = 1 + Math.floor(random() * 30)
      const wait = random() < 0.3 ? '&wait=1' : ''
      const page = await pageOf(server, `/events/s${seed}/*?after=${cursor}&limit=${limit}${wait}`)
      if (page.gap) throw new Error(`a gap: ${page.gap.reason}`)
      if (page.events.length > limit) throw new Error(`${page.events.length} of at most ${limit}`)
      // one that was cut before it had its answer asks again from where it was
      if (random() < 0.2) continue
      got.push(...idsOf(page))
      ;({ cursor } = page)
      if (last && !page.more) break
    }
    await publishing
    t.strictSame(got, stored, `seed ${seed}`)
  }
})

async function pageOf(server: Where, path: string): Promise<Page> {
  return (await expectStatus(200, getJson(server, path))).json() as unknown as Page
}

t.test('a page ends once its events have MAX_PAGE_BYTES', async t => {
  const server = await build(t, { MAX_PAGE_BYTES: '10000' })
  const { cursor: start } = await pageOf(server, '/events/a')
  const sizes = [4000, 4000, 4000, 100, 20_000, 20_000, 1]
  const ids = await publishAll(
    server,
    sizes.map(size => ({ topic: 'a', data: 'x'.repeat(size) }))
  )
  const pages = [ids.slice(0, 3), ids.slice(3, 5), ids.slice(5, 6), ids.slice(6)]
  let cursor = start
  for (const [index, expected] of pages.entries()) {
    const page = await pageOf(server, `/events/a?after=${cursor}`)
    t.strictSame(idsOf(page), expected)
    t.equal(page.more, index < pages.length - 1)
    // of the last one it is how far the server has come
    if (page.more) t.equal(page.cursor, expected.at(-1))
    cursor = page.cursor
  }
  t.strictSame(idsOf(await pageOf(server, `/events/a?after=${start}&limit=2`)), ids.slice(0, 2))
  const waited = await pageOf(server, `/events/a?after=${start}&wait=10`)
  t.strictSame(idsOf(waited), pages[0])
  const newest = await pageOf(server, `/events/a?after=${start}&rate=1`)
  t.strictSame(idsOf(newest), ids.slice(-1), 'also of a conflated view')
})

function idsOf({ events }: Page): string[] {
  return events.map(({ id }) => id)
}

function timeOf(id: string): number {
  return Number(id.split('-')[0])
}

/** Resolves once so many are connected. */
async function connected(server: Where, transport: string, count = 1): Promise<void> {
  await eventually(
    () => metricsOf(server),
    metrics => metrics.get(`ringside_connections{transport="${transport}"}`) === count,
    `${count} that are connected`
  )
}

function noneConnected(server: Where, transport: string): Promise<void> {
  return connected(server, transport, 0)
}

/** A client that reads lines. */
function readLines(t: Test, { port }: Where, path: string) {
  const opened = new Promise<Lines>((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, path, headers: NDJSON, agent: false })
    t.teardown(() => sent.destroy())
    sent.on('error', reject)
    sent.on('response', response => {
      const all = new Inbox<string>()
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        const lines = (text + chunk).split('\n')
        text = lines.pop()!
        for (const line of lines) all.push(line)
      })
      response.on('error', () => {}) // 'close' follows
      response.on('close', () => all.end('the stream has ended'))
      const first = async (count: number) => {
        const filled = () => all.all.filter(line => line !== '')
        await all.until(() => filled().length >= count, `${count} lines`)
        return filled()
          .slice(0, count)
          .map(line => JSON.parse(line) as unknown)
      }
      resolve({ all, first, headers: response.headers, close: () => sent.destroy() })
    })
    sent.end()
  })
  return inTime(opened, `an answer to ${path}`)
}

interface Lines {
  readonly all: Inbox<string>
  readonly headers: Answer['headers']
  /** The first lines that are no heartbeats, as JSON. */
  readonly first: (count: number) => Promise<unknown[]>
  close(): void
}
