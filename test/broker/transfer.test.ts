import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import type { Broker } from '../../src/broker/broker.ts'
import { DiskBroker } from '../../src/broker/disk/broker.ts'
import { exportStore, importStore } from '../../src/broker/disk/transfer.ts'
import type { Append } from '../../src/broker/event-log.ts'
import { formatLine, inSteps, type Line } from '../../src/broker/transfer.ts'
import { RedisBroker } from '../../src/broker/redis/broker.ts'
import { ShardKeys } from '../../src/broker/redis/keys.ts'
import { StoreReading } from '../../src/broker/redis/store-reading.ts'
import { exportRedis, importRedis } from '../../src/broker/redis/transfer.ts'
import { redisTarget } from '../../src/broker/redis/url.ts'
import { systemClock } from '../../src/clock.ts'
import { readSettings } from '../../src/config.ts'
import { covers, formatCursor, formatPosition, type Cursor, type Position } from '../../src/event.ts'
import { Rules } from '../../src/rules/rules.ts'
import { ask, build, publish } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { startRedis, type RedisServer } from '../support/redis-server.ts'
import { listen } from '../support/reader.ts'

const SETTINGS = { RING_SIZE: 5, RING_TTL: 3_600_000, FSYNC: 'off', MAX_STORE_BYTES: 1024 ** 3 } as const
const LISTENER = { event: () => {}, tick: () => {}, jump: () => {}, gap: () => {}, up: () => {} }

async function open(folder: string): Promise<DiskBroker> {
  const broker = await DiskBroker.open(folder, SETTINGS, systemClock)
  await broker.log.start(LISTENER)
  return broker
}

const RULES = new Rules(SETTINGS)

const KEYED: Append[] = [
  { topic: 'chat/1', type: 'message', data: 'with a key', key: 'any key at all' },
  { topic: 'plain', type: 'message', data: Buffer.from([0, 255, 10]), key: 'b' }
]

/** Something of everything: rings that were trimmed, states with versions and without, bytes, times to live, keys. */
async function fill({ log }: Broker): Promise<Cursor[]> {
  const events: Append[] = [
    ...Array.from({ length: 9 }, (_, n) => ({
      topic: `chat/${n % 2}`,
      type: 'message',
      data: `${n} \u2028 "ä"\n`
    })),
    ...Array.from({ length: 12 }, (_, n) => ({ topic: 'a/b/long', type: 'quote', data: `${n}` })),
    { topic: 'chat/1', type: 'message', data: '', ttl: 3600 },
    { topic: 'dashboards/d', type: 'snapshot', data: '{"a":1}', state: { value: '{"a":1}' } },
    { topic: 'dashboards/d', type: 'patch', data: '{"b":1}', state: { value: '{"a":1,"b":1}' } },
    { topic: 'dashboards/e', type: 'snapshot', data: '{}', state: { value: '{}' } },
    { topic: 'dashboards/e', type: 'message', data: 'without a state' },
    { topic: 'dashboards/f', type: 'snapshot', data: '{}', state: { value: '{}' } },
    { topic: 'dashboards/f', type: 'snapshot', data: 'null', state: { value: null } },
    { topic: 'job/1', type: 'message', data: 'half' },
    { topic: 'job/1', type: 'end', data: 'done' },
    ...KEYED
  ]
  const ids: Cursor[] = []
  for (const event of events) {
    const [appended] = await log.append([event])
    if (appended?.outcome !== 'stored') throw new Error(appended?.outcome)
    ids.push(appended.id)
  }
  return ids
}

const FILTERS = [
  'chat/*',
  'chat/0',
  'chat/1',
  'a/b/*',
  'a/b/long',
  'dashboards/*',
  'dashboards/d',
  'job/*',
  '*',
  'plain',
  'none'
]

/** All that can be asked of a log, but for what time changes. */
async function everything({ log }: Broker, cursors: readonly Cursor[]): Promise<unknown> {
  const asked = FILTERS.map(async filter => {
    const topics = (await log.topics(filter)).filter(topic => topic !== 'none').sort()
    const pages = [log.birth, ...cursors].map(async after => {
      const { events, gaps } = await log.range(filter, after, 100)
      const newest = (await log.newest(filter, after, 100)).events
      return {
        after: formatCursor(after),
        events: events.map(eventOf),
        gaps: textOf(gaps),
        newest: newest.map(eventOf)
      }
    })
    const rewinds = [1, 3, 100].map(async count => textOf(await log.rewind(filter, count)))
    const [states, versions] = await Promise.all([log.states(topics), log.versions(topics)])
    return {
      ...{ filter, topics, states: [...states].sort(), versions: textOf(versions) },
      pages: await Promise.all(pages),
      rewinds: await Promise.all(rewinds)
    }
  })
  const replayed = await log.append(KEYED)
  const reused = await log.append([{ ...KEYED[0]!, data: 'other' }])
  const ended = await log.append([{ topic: 'job/1', type: 'message', data: 'after the end' }])
  const conflict = await log.append([
    { topic: 'dashboards/d', type: 'patch', data: '{}', state: { value: '{}', version: null } }
  ])
  return {
    birth: log.birth,
    lost: log.lost,
    asked: await Promise.all(asked),
    replayed,
    reused,
    ended,
    conflict
  }
}

function eventOf(event: {
  data: string | Uint8Array
  expires?: number
  id: Position
  prev: Position | null
  topic: string
  type: string
}) {
  const { data, expires, id, prev, topic, type } = event
  return { data: typeof data === 'string' ? data : [...data], expires, id, prev, topic, type }
}

function textOf(positions: ReadonlyMap<string, Position>): string[] {
  return [...positions].map(([name, position]) => `${name} ${formatPosition(position)}`).sort()
}

async function* bytesOf(parts: AsyncIterable<readonly Line[]>): AsyncGenerator<Buffer> {
  // in pieces that end anywhere
  for await (const lines of parts)
    for (const piece of lines
      .map(formatLine)
      .join('')
      .match(/[^]{1,50}/gu) ?? [])
      yield Buffer.from(piece)
}

async function* chunksOf(...texts: string[]): AsyncGenerator<Buffer> {
  yield Buffer.from(texts.join(''))
}

async function textsOf(parts: AsyncIterable<readonly Line[]>): Promise<string[]> {
  const lines: string[] = []
  for await (const part of parts) lines.push(...part.map(formatLine))
  return lines
}

/** A store on disk with something of everything in it, closed; and what could be asked of it. */
async function makeStore(folder: string): Promise<{ ids: Cursor[]; before: unknown; position: Cursor }> {
  const broker = await open(folder)
  const ids = await fill(broker)
  const before = await everything(broker, ids)
  await broker.close()
  return { ids, before, position: ids.at(-1)! }
}

t.test('from disk to disk everything is as it was', async t => {
  const [from, to] = [t.testdir({ from: {} }) + '/from', `${t.testdirName}/to`]
  const { ids, before } = await makeStore(from)
  await importStore(to, bytesOf(exportStore(from)))
  const moved = await open(to)
  t.strictSame(await everything(moved, ids), before)
  await moved.close()
  const lines = await textsOf(exportStore(to))
  t.equal(lines.filter(line => line.startsWith('{"event"')).length, 24)
})

/** `ringside` with these arguments, from its source. */
async function ringside(args: string[], env: Record<string, string> = {}, input = '') {
  const cli = fileURLToPath(new URL('../../src/cli/ringside.ts', import.meta.url))
  const child = spawn(process.execPath, ['--import', 'tsx', cli, ...args], {
    env: { PATH: process.env['PATH'], ...env }
  })
  child.stdin.on('error', () => {}) // it need not read all
  child.stdin.end(input)
  const closed = once(child, 'close') as Promise<[code: number]>
  const [out, err, [code]] = await Promise.all([text(child.stdout), text(child.stderr), closed])
  return { out, err, code }
}

let redis: RedisServer
t.before(async () => (redis = await startRedis()))
t.teardown(() => redis.stop())

/** The settings of a store in Redis of its own. */
function redisEnv(KEY_PREFIX: string): Record<string, string> {
  return { REDIS_URL: redis.url, KEY_PREFIX, RING_SIZE: '5', RING_TTL: '1h' }
}

async function openRedis(t: Test, prefix: string): Promise<RedisBroker> {
  const settings = readSettings(redisEnv(prefix))
  const broker = new RedisBroker(redisTarget(settings), settings, systemClock, (stage, error) =>
    t.comment(`${stage}: ${error.message}`)
  )
  t.teardown(() => broker.close())
  await new Promise<void>((resolve, reject) => {
    broker.log.start({ ...LISTENER, up: up => up && resolve() }).catch(reject)
  })
  // it may be up before it knows where the life of the store began
  await broker.log.position()
  return broker
}

async function keysOf(prefix: string): Promise<string[]> {
  return ((await redis.command('KEYS', `${prefix}*`)) as string[]).sort()
}

t.test('from disk to Redis and back everything is as it was', async t => {
  const [from, to] = [t.testdir({ from: {} }) + '/from', `${t.testdirName}/to`]
  const { ids, before, position } = await makeStore(from)
  const settings = readSettings(redisEnv('there:'))
  await importRedis(settings, bytesOf(exportStore(from)), RULES)
  const lines = await textsOf(exportRedis(settings))
  t.strictSame(
    sorted(lines),
    sorted(await textsOf(exportStore(from))),
    'the same lines, before anybody uses it'
  )
  const moved = await openRedis(t, 'there:')
  t.strictSame(await everything(moved, ids), before)
  const [next] = await moved.log.append([{ topic: 'chat/1', type: 'message', data: 'next' }])
  t.ok(next?.outcome === 'stored' && covers(next.id, position), 'ids go on')
  const after = await everything(moved, ids)
  await moved.close()
  await importStore(to, bytesOf(exportRedis(settings)))
  const back = await open(to)
  t.strictSame(await everything(back, ids), after)
  await back.close()
})

/** Lines without the head, whose position moves, and without what differs by some milliseconds. */
function sorted(lines: readonly string[]): string[] {
  return lines.map(line => line.replace(/"until":\d{10}\d+/, '"until":0')).sort()
}

/** Begins an export of a store in Redis: its head is read, and all that follows is not yet. */
async function beginExport(t: Test, prefix: string): Promise<AsyncGenerator<Line[]>> {
  const client = new Redis(redis.clientOptions())
  t.teardown(() => client.disconnect())
  await client.connect()
  const rest = new StoreReading({ redis: client, keys: new ShardKeys(prefix, '0') }).lines()
  const head = (await rest.next()).value as Line
  return inSteps(
    (async function* () {
      yield head
      return yield* rest
    })()
  )
}

t.test('a store in Redis that is in use is exported as of one moment', async t => {
  const broker = await openRedis(t, 'live:')
  const ids = await fill(broker)
  const [chat, states] = await Promise.all([
    broker.log.range('chat/1', ids[0]!, 100),
    broker.log.states(['dashboards/d', 'dashboards/e'])
  ])
  const lines = await beginExport(t, 'live:')
  await broker.log.append([
    { topic: 'chat/1', type: 'message', data: 'later' },
    { topic: 'chat/new', type: 'message', data: 'later', key: 'later' },
    { topic: 'plain', type: 'message', data: 'later' }
  ])
  await broker.close()
  const texts = await textsOf(lines)
  t.notMatch(texts.join(''), /later|chat\/new/)
  const to = t.testdir()
  await importStore(to, chunksOf(...texts))
  const moved = await open(to)
  // all but the one that was dropped from a full ring meanwhile
  const after = ids[0]!
  const [is, was] = [await moved.log.range('chat/1', after, 100), chat]
  t.strictSame(is.events.map(eventOf), was.events.slice(1).map(eventOf))
  t.strictSame([...is.gaps], [['chat/1', was.events[0]!.id]])
  t.strictSame(await moved.log.states(['dashboards/d', 'dashboards/e']), states)
  t.strictSame(moved.log.lost, [{ ms: 0, seq: 0 }])
  await moved.close()
})

t.test('a state that changes while it is exported makes readers look anew', async t => {
  const broker = await openRedis(t, 'torn:')
  const ids = await fill(broker)
  const lines = await beginExport(t, 'torn:')
  await broker.log.append([
    { topic: 'dashboards/d', type: 'snapshot', data: '{"a":2}', state: { value: '{"a":2}' } },
    { topic: 'dashboards/new', type: 'snapshot', data: '{"a":2}', state: { value: '{"a":2}' } }
  ])
  await broker.close()
  const texts = await textsOf(lines)
  const to = t.testdir()
  await importStore(to, chunksOf(...texts))
  const moved = await open(to)
  t.equal((await moved.log.state('dashboards/d'))?.value, '{"a":2}')
  t.equal(await moved.log.state('dashboards/new'), null)
  t.ok(covers(moved.log.lost, ids.at(-1)!))
  await moved.close()
})

t.test('a reader goes on where it was on the store that was moved', async t => {
  const from = t.testdir({ from: {} }) + '/from'
  const first = await build(t, { DATA_DIR: from })
  for (const n of [1, 2, 3]) await publish(first, 'a/b', `${n}`)
  const reader = await listen(t, first, '/events/a/b?rewind=3')
  const seen = await reader.until(2)
  await publish(first, 'a/c', 'missed')
  await publish(first, 'a/b', '4')
  await first.app.close()
  const env = { REDIS_URL: redis.url, KEY_PREFIX: 'reader:' }
  const exported = await ringside(['store', 'export', '--data-dir', from])
  t.equal(exported.code, 0, exported.err)
  t.strictSame(await ringside(['store', 'import'], env, exported.out), { out: '', err: '', code: 0 })
  const second = await build(t, env)
  await eventually(
    () => ask(second, '/readyz'),
    ({ status }) => status === 200,
    'the server to be ready'
  )
  const again = await listen(t, second, '/events?topic=a/*', { 'last-event-id': seen[1]!.id! })
  await publish(second, 'a/b', '5')
  const messages = await again.until(4)
  t.strictSame(
    messages.map(({ data }) => data),
    ['3', 'missed', '4', '5']
  )
  t.notOk(again.frames.all.some(({ event }) => event === 'gap'))
  const back = await ringside(['store', 'export', '--redis', redis.url], { KEY_PREFIX: 'reader:' })
  t.equal(back.code, 0, back.err)
  t.equal(back.out.split('\n').filter(line => line.startsWith('{"event"')).length, 6)
})

t.test('a wrong line is named, and nothing of it counts', async t => {
  const [from, to] = [t.testdir({ from: {} }) + '/from', `${t.testdirName}/to`]
  await makeStore(from)
  const lines = await textsOf(exportStore(from))
  const events = lines.flatMap((line, index) => (line.startsWith('{"event"') ? [index] : []))
  const inRing = events.find(index => events.includes(index + 1))!
  const wrong: [lines: string[], says: RegExp][] = [
    [lines.slice(1), /^line 1: the head is missing$/],
    [lines.slice(0, -1), new RegExp(`^line ${lines.length}: the end is missing: the export was broken off$`)],
    [[], /^line 1: the end is missing/],
    [lines.toSpliced(inRing + 1, 1), new RegExp(`^line ${inRing + 2}: .*is missing`)],
    [lines.toSpliced(inRing, 1, 'hello\n'), new RegExp(`^line ${inRing + 1}: it is no JSON$`)],
    [lines.toSpliced(3, 1, '[1]\n'), /^line 4: it is no object$/],
    [lines.toSpliced(3, 1, '{"a":1}\n'), /^line 4: it is none of the lines that an export has$/],
    [lines.toSpliced(1, 0, lines[0]!), /^line 2: there is a head already$/],
    [[lines[0]!.replace('"store":1', '"store":2')], /^line 1: it was exported by a newer version \(2\)$/],
    [
      lines.toSpliced(inRing, 1, lines[inRing]!.replace(/"event":"\d+/, '"event":"x')),
      /event is no position$/
    ],
    [
      lines.toSpliced(inRing, 1, lines[inRing]!.replace(/"topic":"/, '$&other/')),
      /does not follow on the line of topic/
    ],
    [
      lines.toSpliced(inRing, 1, lines[inRing]!.replace(/"data":"[^"]*/, '"base64":"?')),
      /base64 is no base64$/
    ],
    [lines.toSpliced(-1, 1, '{"end":3,"lost":"0-0"}\n'), /lines came instead of 3$/],
    [[...lines, lines.at(-1)!], /it comes after the end$/],
    [
      lines.toSpliced(-1, 0, '{"topic":"chat/0","last":"5-0"}\n', lines.at(-1)!).toSpliced(-1, 1),
      /lines came instead of/
    ],
    [
      [
        lines[0]!,
        '{"topic":"t","last":"9-0"}\n',
        '{"topic":"u","last":"9-0"}\n',
        '{"topic":"t","last":"9-0"}\n'
      ],
      /line 4: .*there before$|end is missing/
    ]
  ]
  const settings = readSettings(redisEnv('wrong:'))
  for (const [given, says] of wrong) {
    await t.rejects(importStore(to, chunksOf(given.join(''))), { name: 'TransferFailed', message: says })
    await t.rejects(importRedis(settings, chunksOf(given.join('')), RULES), {
      name: 'TransferFailed',
      message: says
    })
    t.strictSame(await keysOf('wrong:'), [])
  }
  // it is empty as before
  await importStore(to, chunksOf(lines.join('')))
  t.equal((await textsOf(exportStore(to))).length, lines.length)
})

t.test('only what is empty is filled, and by one', async t => {
  const [from, to] = [t.testdir({ from: {} }) + '/from', `${t.testdirName}/to`]
  await makeStore(from)
  const file = (await textsOf(exportStore(from))).join('')
  await importStore(to, chunksOf(file))
  await t.rejects(importStore(to, chunksOf(file)), /there is something in it already/)
  const settings = readSettings(redisEnv('full:'))
  await importRedis(settings, chunksOf(file), RULES)
  const before = await keysOf('full:')
  await t.rejects(
    importRedis(settings, chunksOf(file), RULES),
    /there is something in it already, such as the key full:/
  )
  t.strictSame(await keysOf('full:'), before)

  // one that is killed leaves what nobody takes for a store
  const endless = async function* () {
    yield Buffer.from('{"store":1,"birth":"1-0","lost":"0-0","position":"9-0"}\n')
    for (let n = 0; n < 500; n++) yield Buffer.from(`{"topic":"t/${n}","last":"5-0"}\n`)
    await once(new EventTarget(), 'never')
  }
  const half = readSettings(redisEnv('half:'))
  void importRedis(half, endless(), RULES).catch(() => {})
  await eventually(
    () => keysOf('half:'),
    keys => keys.length > 1,
    'the import to begin'
  )
  await t.rejects(importRedis(half, chunksOf(file), RULES), /an import is under way, or was broken off/)
  await t.rejects(textsOf(exportRedis(half)), /an import is under way, or was broken off/)
  const server = await build(t, redisEnv('half:'))
  const answer = await eventually(
    () => ask(server, '/readyz'),
    ({ text }) => text.includes('Redis'),
    'what Redis says'
  )
  t.equal(answer.status, 503)
})

t.test('the command line says what can not be moved, and exits with 1', async t => {
  const folder = t.testdir()
  const cases: [args: string[], env: Record<string, string>, says: RegExp][] = [
    [['export'], {}, /^ringside: DATA_DIR or REDIS_URL: neither is set/],
    [['export', '--data-dir', `${folder}/none`], {}, /none: .*does not exist/],
    [['export'], { ...redisEnv('none:') }, /^ringside: Redis: there is no store: no key none:\{0\}:clock\n$/],
    [['export'], { ...redisEnv('none:'), SHARDS: '2' }, /SHARDS=2: a store of several shards/],
    [['import', '--redis', 'redis://127.0.0.1:1'], {}, /^ringside: Redis: .*ECONNREFUSED/],
    [['import', '--data-dir', `${folder}/new`], {}, /new: line 1: it is no JSON\n$/]
  ]
  await Promise.all(
    cases.map(async ([args, env, says]) => {
      const { out, err, code } = await ringside(['store', ...args], env, 'nothing\n')
      t.strictSame({ out, code }, { out: '', code: 1 })
      t.match(err, says)
    })
  )
})
