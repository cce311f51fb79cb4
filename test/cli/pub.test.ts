import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { ask, build, metricsOf, type Address } from '../support/app.ts'
import { eventually, Inbox } from '../support/inbox.ts'
import { exitOf, nobody, run, serve, type Run } from '../support/process.ts'
import { SECRET, tokenFor } from '../support/tokens.ts'

// its processes wait for one another
t.setTimeout(400_000)
t.jobs = 4

/** `ringside pub`, with a standard input that is written to. */
function pub(t: Test, url: string, args: readonly string[], env: Record<string, string> = {}): Run {
  return run(t, ['pub', ...args], { RINGSIDE_URL: url, ...env }, undefined, 'pipe')
}

/** Everything that is held of a topic, as it was published. */
async function heldOf(server: Pick<Address, 'port'>, topic: string): Promise<unknown[]> {
  const held: unknown[] = []
  for (let query = 'since=1h'; ;) {
    const accept = { accept: 'application/json' }
    const page = (await ask(server, `/events/${topic}?${query}&limit=1000`, { headers: accept })).json()
    held.push(...(page['events'] as { data: unknown }[]).map(({ data }) => data))
    if (!page['more']) return held
    query = `after=${page['cursor'] as string}`
  }
}

async function exits(t: Test, run: Run, code: number, says: RegExp | string): Promise<void> {
  t.match(await exitOf(run), { code, signal: null })
  t.match(run.stderr(), says)
}

/** A server that answers each request as it is told, and remembers its keys. */
async function scripted(t: Test, answers: readonly ((response: ServerResponse) => void)[]) {
  const keys = new Inbox<string>()
  const server = createServer((request, response) => {
    request.resume().on('end', () => {
      keys.push(String(request.headers['idempotency-key']))
      answers[Math.min(keys.all.length, answers.length) - 1]!(response)
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  return { keys, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
}

const stored = (response: ServerResponse) => response.writeHead(201).end('{"id":"1-0"}')

t.test('publishes what it is given, and prints the id', async t => {
  const server = await build(t)
  const published = [
    pub(t, server.url, ['a/ü %', 'text, as it is', '--type', 'note']),
    pub(t, server.url, ['b', '{ "price": 1.50 }']),
    pub(t, server.url, ['c', '']),
    pub(t, server.url, ['d', '--key', 'k', '--', '-5'])
  ]
  for (const each of published) await exits(t, each, 0, '')
  for (const each of published) t.match(each.stdout(), /^\d+-\d+\n$/)
  t.strictSame(await heldOf(server, 'a%2F%C3%BC%20%25'), ['text, as it is'])
  const text = (
    await ask(server, '/events/b?rewind=1&envelope=true', { headers: { accept: 'application/json' } })
  ).text
  t.match(text, '"data":{"price":1.50}')
  t.strictSame(await heldOf(server, 'c'), [''])
  const again = pub(t, server.url, ['d', '--key', 'k', '--', '-5'])
  await exits(t, again, 0, '')
  t.equal(again.stdout(), published[3]!.stdout())
  t.strictSame(await heldOf(server, 'd'), [-5])
})

t.test('lines: each is stored once and in order, whatever happens to the server', async t => {
  const settings = { DATA_DIR: t.testdir(), RING_SIZE: '10000', WRITE_RATE: '0' }
  const first = await serve(t, settings)
  const lines = Array.from({ length: 6000 }, (_, n) => (n % 1000 < 800 ? `{"n":${n}}` : `line ${n}`))
  const publisher = pub(t, first.url, ['log', '-'])
  publisher.child.stdin!.write(`${lines.slice(0, 3500).join('\n')}\n`)
  const published = async () =>
    (await metricsOf(first)).get('ringside_events_published_total{feed="events"}') ?? 0
  await eventually(published, published => published > 1000, 'a part of them')
  first.child.kill('SIGKILL')
  await first.exited
  publisher.child.stdin!.end(lines.slice(3500).join('\r\n'))
  const again = await serve(t, { ...settings, PORT: String(first.port) })
  await exits(t, publisher, 0, /; trying again\nringside: it is stored again\n$/)
  t.equal(publisher.stdout(), '')
  t.strictSame(
    await heldOf(again, 'log'),
    lines.map((line, n) => (line.startsWith('{') ? { n } : line))
  )
})

t.test('a line goes out at once, while its pipe stays open', async t => {
  const server = await build(t)
  const publisher = pub(t, server.url, ['log', '-'])
  for (const line of ['one', '{"two":2}', '']) {
    const before = (await heldOf(server, 'log')).length
    publisher.child.stdin!.write(`${line}\n`)
    await eventually(
      () => heldOf(server, 'log'),
      held => held.length === before + 1,
      line
    )
  }
  publisher.child.stdin!.end('without an end')
  await exits(t, publisher, 0, '')
  t.strictSame(await heldOf(server, 'log'), ['one', { two: 2 }, '', 'without an end'])
})

t.test('what has no certain answer is sent again under its key, and what is refused is not', async t => {
  const server = await scripted(t, [
    response => response.destroy(),
    response => response.writeHead(503, { 'retry-after': '0' }).end(),
    response => response.writeHead(429, { 'retry-after': '0' }).end(),
    stored,
    stored,
    response =>
      response.writeHead(422, { 'content-type': 'application/problem+json' }).end('{"detail":"no more"}')
  ])
  const publisher = pub(t, server.url, ['a', '-'])
  publisher.child.stdin!.write('1\n2\n3\n4\n')
  await exits(t, publisher, 1, /^ringside: line 3: no more$/m)
  const [first, , , fourth, fifth, sixth, ...rest] = server.keys.all
  t.strictSame(server.keys.all.slice(0, 4), Array(4).fill(first))
  t.equal(new Set([fourth, fifth, sixth]).size, 3)
  t.strictSame(rest, [])
})

t.test('with a key each line has its own, so that the whole may be sent again', async t => {
  const server = await build(t)
  for (const text of ['{"n":1}\ntwo\n', '{"n":1}\ntwo\nthree\n']) {
    const publisher = pub(t, server.url, ['a', '-', '--key', 'import-17'])
    publisher.child.stdin!.end(text)
    await exits(t, publisher, 0, '')
  }
  t.strictSame(await heldOf(server, 'a'), [{ n: 1 }, 'two', 'three'])
})

t.test('a refused line is named, and those before it are stored', async t => {
  const server = await build(t, { MAX_EVENT_BYTES: '20', MAX_BATCH_BYTES: '200' })
  const lines = [
    'text',
    ...Array.from({ length: 30 }, (_, n) => `{"n":${n}}`),
    `{"n":"${'x'.repeat(20)}"}`,
    '{}'
  ]
  const publisher = pub(t, server.url, ['a', '-'])
  publisher.child.stdin!.write(`${lines.join('\n')}\n`)
  await exits(
    t,
    publisher,
    1,
    /^ringside: line 32: data: has 28 bytes; at most 20 are allowed \(MAX_EVENT_BYTES\)\n$/
  )
  t.strictSame(await heldOf(server, 'a'), ['text', ...Array.from({ length: 30 }, (_, n) => ({ n }))])
  const bytes = pub(t, server.url, ['b', '-'])
  bytes.child.stdin!.write(Buffer.concat([Buffer.from('one\n'), Buffer.from([0xff, 0x0a])]))
  await exits(t, bytes, 1, /^ringside: line 2: .*UTF-8.*\n$/)
})

t.test('says what is wrong', async t => {
  const server = await build(t, { JWT_SECRET: SECRET })
  const mine = await tokenFor({ publish: ['a/**'] })
  const moved = await scripted(t, [
    response => response.writeHead(301, { location: 'https://elsewhere/' }).end()
  ])
  const other = await scripted(t, [response => response.writeHead(200).end('<h1>Hello</h1>')])
  await Promise.all([
    exits(t, pub(t, server.url, ['a/b', 'x']), 1, /^ringside: .*token.*\n$/),
    exits(t, pub(t, server.url, ['b', 'x'], { RINGSIDE_TOKEN: mine }), 1, /^ringside: .*b.*\n$/),
    exits(t, pub(t, server.url, ['a/b', 'x'], { RINGSIDE_TOKEN: `${mine}\n` }), 0, ''),
    exits(
      t,
      pub(t, server.url, ['tickers/A', 'x'], { RINGSIDE_TOKEN: mine }),
      1,
      /written through \/tickers/
    ),
    exits(t, pub(t, moved.url, ['a', 'x']), 1, 'but at https://elsewhere/'),
    exits(t, pub(t, other.url, ['a', 'x']), 1, 'answered 200: it is no Ringside'),
    exits(t, pub(t, await nobody(), ['a', 'x']), 1, /ECONNREFUSED.*; trying again\n.*; nothing was stored\n$/)
  ])
})
