import { spawn } from 'node:child_process'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createInterface } from 'node:readline'
import t, { type Test } from 'tap'
import { build, metricsOf, post, publish, publishAll, type Address } from '../support/app.ts'
import { eventually, inTime } from '../support/inbox.ts'
import { CLI, exitOf, nobody, run, serve, type Run } from '../support/process.ts'
import { bearer, SECRET, tokenFor } from '../support/tokens.ts'

// its processes wait for one another
t.setTimeout(400_000)
t.jobs = 4

/** Resolves once so many subscribers are there. */
function subscribed(server: Pick<Address, 'port'>, count = 1): Promise<unknown> {
  const streams = async () => (await metricsOf(server)).get('ringside_connections{transport="sse"}')
  return eventually(streams, streams => streams === count, `${count} subscribers`)
}

function says(run: Run, what: RegExp): Promise<unknown> {
  return eventually(run.stderr, text => what.test(text), String(what))
}

function prints(run: Run, count: number): Promise<unknown> {
  return eventually(run.stdout, text => text.split('\n').length > count, `${count} lines`)
}

function linesOf({ stdout }: Run): string[] {
  return stdout().trimEnd().split('\n')
}

async function ends(t: Test, { child, exited }: Run): Promise<void> {
  child.kill('SIGINT')
  t.strictSame(await inTime(exited, 'its end'), { code: null, signal: 'SIGINT' }, 'as the shell expects it')
}

t.test('goes on across a kill and a restart of the server, and tells gaps on standard error', async t => {
  const settings = { DATA_DIR: t.testdir(), RING_SIZE: '5' }
  const first = await serve(t, settings)
  const sub = run(t, ['sub', 'a', 'b/*', '--json'], { RINGSIDE_URL: first.url })
  await subscribed(first)
  await publishAll(first, [
    { topic: 'a', data: { n: 1 } },
    { topic: 'b/c', data: 'two' }
  ])
  await prints(sub, 2)
  first.child.kill('SIGKILL')
  await first.exited
  // elsewhere, so that it is not back before its ring has moved on
  const elsewhere = await serve(t, settings)
  for (let n = 3; n < 13; n++) await publish(elsewhere, 'a', String(n))
  await publish(elsewhere, 'b/c', '13')
  elsewhere.child.kill('SIGKILL')
  await elsewhere.exited
  const again = await serve(t, { ...settings, PORT: String(first.port) })
  await prints(sub, 8)
  await publish(again, 'a', '14')
  await prints(sub, 9)
  const events = linesOf(sub).map(line => JSON.parse(line) as { data: unknown; topic: string; id: string })
  t.strictSame(
    events.map(({ data }) => data),
    [{ n: 1 }, 'two', 8, 9, 10, 11, 12, 13, 14]
  )
  t.match(
    sub.stderr(),
    new RegExp(`^ringside: gap \\(expired\\): events on a are missing after ${events[1]!.id}$`, 'm')
  )
  t.equal(sub.stderr().match(/gap/g)!.length, 1)
  t.match(sub.stderr(), /: the connection was lost; trying again\n/)
  t.match(sub.stderr(), /\(connect ECONNREFUSED .*\); trying again\n/)
  t.match(sub.stderr(), /ringside: connected again\n/)
  await ends(t, sub)
})

t.test('prints data as it was published, or the whole event', async t => {
  const server = await build(t)
  const [ids] = [[] as string[]]
  for (const data of ['{"price":12345678901234567890.10}', 'text, as it is', '{ "a": 1 }', '"quoted"'])
    ids.push(await publish(server, 'a', data))
  await post(server, '/events/a', Buffer.from([0, 255]), { 'content-type': 'application/octet-stream' })
  await post(server, '/events/a?end=true', 'over', {})
  const [plain, whole] = [[], ['--json']].map(options =>
    run(t, ['sub', 'a', '--rewind', '10', ...options, '--url', server.url])
  ) as [Run, Run]
  // its topic has ended
  t.match(await exitOf(plain), { code: 0 })
  t.match(await exitOf(whole), { code: 0 })
  t.strictSame(linesOf(plain), [
    ...['{"price":12345678901234567890.10}', 'text, as it is', '{ "a": 1 }', 'quoted', 'AP8=', 'over']
  ])
  t.equal(
    linesOf(whole)[0],
    `{"id":"${ids[0]}","topic":"a","type":"message","time":${ids[0]!.split('-')[0]},"data":{"price":12345678901234567890.10}}`
  )
  t.equal(plain.stderr() + whole.stderr(), '')
})

t.test('starts where it is told to', async t => {
  const server = await build(t)
  const ids = await publishAll(
    server,
    [1, 2, 3].map(data => ({ topic: 'a', data }))
  )
  await post(server, '/events/a?end=true', '4', {})
  for (const [options, lines] of [
    [
      ['--after', ids[1]!],
      ['3', '4']
    ],
    [
      ['--rewind', '2'],
      ['3', '4']
    ],
    [
      ['--since', '1h'],
      ['1', '2', '3', '4']
    ]
  ] as const) {
    const sub = run(t, ['sub', 'a', ...options, '--url', `${server.url}/`])
    t.match(await exitOf(sub), { code: 0 })
    t.strictSame(linesOf(sub), lines)
  }
})

t.test('in a pipe each line comes at once, and it ends when nobody reads on', async t => {
  const server = await build(t)
  const pipe = spawn('bash', [
    '-c',
    `set -o pipefail; "$0" "$1" sub a --url ${server.url} | head -1`,
    process.execPath,
    CLI
  ])
  const run = { stdout: '', stderr: '' }
  pipe.stdout.on('data', (chunk: Buffer) => (run.stdout += chunk.toString()))
  pipe.stderr.on('data', (chunk: Buffer) => (run.stderr += chunk.toString()))
  const exited = new Promise(resolve => pipe.on('close', resolve))
  await subscribed(server)
  await publish(server, 'a', 'one')
  await eventually(
    () => run.stdout,
    text => text === 'one\n',
    'the first line'
  )
  await publish(server, 'a', 'two')
  t.equal(await inTime(exited, 'the end of the pipe'), 0)
  t.strictSame(run, { stdout: 'one\n', stderr: '' })
})

t.test('a slow reader in the pipe holds it up, and gets all', async t => {
  const server = await build(t, { RING_SIZE: '3000' })
  const sub = spawn(process.execPath, [CLI, 'sub', 'a', '--url', server.url], {
    stdio: ['ignore', 'pipe', 'inherit']
  })
  t.teardown(() => sub.kill('SIGKILL'))
  await subscribed(server)
  const events = Array.from({ length: 1000 }, (_, n) => ({ topic: 'a', data: `${n} ${'x'.repeat(7000)}` }))
  for (let batch = 0; batch < 3; batch++) await publishAll(server, events)
  const lagging = async () => (await metricsOf(server)).get('ringside_lagging_connections')
  await eventually(lagging, lagging => lagging === 1, 'that it reads no further')
  const heads: string[] = []
  createInterface(sub.stdout).on('line', line => heads.push(line.split(' ')[0]!))
  await eventually(
    () => heads.length,
    count => count === 3000,
    'all lines'
  )
  t.strictSame(
    heads,
    Array.from({ length: 3000 }, (_, n) => String(n % 1000))
  )
})

t.test('says what is wrong, and exits with 1 when there is no use in waiting', async t => {
  const server = await build(t, { JWT_SECRET: SECRET })
  const mine = await tokenFor({ subscribe: ['a/**'] })
  for (const [args, env, says] of [
    [['sub', 'a'], {}, /no token|token/],
    [['sub', 'a', '--token', 'no.real.token'], {}, /token/],
    [['sub', 'b'], { RINGSIDE_TOKEN: mine }, /b.*may/]
  ] as const) {
    const sub = run(t, [...args], { RINGSIDE_URL: server.url, ...env })
    t.match(await exitOf(sub), { code: 1 })
    t.match(sub.stderr(), /^ringside: http:.*\n$/)
    t.match(sub.stderr(), says)
  }
  const good = run(t, ['sub', 'a/b', '--token', ` ${mine}\n`], { RINGSIDE_URL: server.url })
  await subscribed(server)
  t.equal((await post(server, '/events/a/b', 'x', bearer(await tokenFor({ publish: ['a/**'] })))).status, 201)
  await prints(good, 1)
})

t.test('another server is told from one that is away', async t => {
  const other = createServer((_request, response) => response.writeHead(404).end('<h1>Not here</h1>')).listen(
    0,
    '127.0.0.1'
  )
  t.teardown(() => other.close())
  await new Promise(resolve => other.on('listening', resolve))
  const url = `http://127.0.0.1:${(other.address() as AddressInfo).port}`
  const sub = run(t, ['sub', 'a', '--url', url])
  t.match(await exitOf(sub), { code: 1 })
  t.equal(sub.stderr(), `ringside: ${url}: the server answered 404\n`)
  const away = run(t, ['sub', 'a', '--url', await nobody()])
  await says(
    away,
    /^ringside: http:\/\/127\.0\.0\.1:\d+: the server does not answer \(connect ECONNREFUSED .*\); trying again\n$/
  )
  await ends(t, away)
})
