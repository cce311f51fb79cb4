import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import type { Broker } from '../../src/broker/broker.ts'
import { DiskBroker } from '../../src/broker/disk/broker.ts'
import { exportStore, importStore } from '../../src/broker/disk/transfer.ts'
import type { Append } from '../../src/broker/event-log.ts'
import { formatLine, type Line } from '../../src/broker/transfer.ts'
import { systemClock } from '../../src/clock.ts'
import { formatCursor, formatPosition, type Cursor, type Position } from '../../src/event.ts'
import { build, publish } from '../support/app.ts'
import { listen } from '../support/reader.ts'

const SETTINGS = { RING_SIZE: 5, RING_TTL: 3_600_000, FSYNC: 'off', MAX_STORE_BYTES: 1024 ** 3 } as const
const LISTENER = { event: () => {}, tick: () => {}, jump: () => {}, gap: () => {}, up: () => {} }

async function open(folder: string): Promise<DiskBroker> {
  const broker = await DiskBroker.open(folder, SETTINGS, systemClock)
  await broker.log.start(LISTENER)
  return broker
}

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
  const conflict = await log.append([
    { topic: 'dashboards/d', type: 'patch', data: '{}', state: { value: '{}', version: null } }
  ])
  return { birth: log.birth, lost: log.lost, asked: await Promise.all(asked), replayed, reused, conflict }
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

async function* chunksOf(...lines: string[]): AsyncGenerator<Buffer> {
  yield Buffer.from(lines.join('\n'))
}

async function textsOf(folder: string): Promise<string[]> {
  const lines: string[] = []
  for await (const part of exportStore(folder)) lines.push(...part.map(formatLine))
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
  const lines = await textsOf(to)
  t.equal(lines.filter(line => line.startsWith('{"event"')).length, 22)
})

/** `ringside` with these arguments, from its source. */
async function ringside(args: string[], env: Record<string, string> = {}, input?: string) {
  const cli = fileURLToPath(new URL('../../src/cli/ringside.ts', import.meta.url))
  const child = spawn(process.execPath, ['--import', 'tsx', cli, ...args], {
    env: { PATH: process.env['PATH'], ...env }
  })
  child.stdin.on('error', () => {}) // it need not read all
  child.stdin.end(input ?? '')
  const [out, err, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
  return { out, err, code: code as number }
}

t.test('a reader goes on where it was on the store that was moved', async t => {
  const [from, to] = [t.testdir({ from: {} }) + '/from', `${t.testdirName}/to`]
  const first = await build(t, { DATA_DIR: from })
  for (const n of [1, 2, 3]) await publish(first, 'a/b', `${n}`)
  const reader = await listen(t, first, '/events/a/b?rewind=3')
  const seen = await reader.until(2)
  await publish(first, 'a/c', 'missed')
  await publish(first, 'a/b', '4')
  await first.app.close()
  const exported = await ringside(['store', 'export', '--data-dir', from])
  t.equal(exported.code, 0, exported.err)
  const imported = await ringside(['store', 'import'], { DATA_DIR: to }, exported.out)
  t.strictSame(imported, { out: '', err: '', code: 0 })
  const second = await build(t, { DATA_DIR: to })
  const again = await listen(t, second, '/events?topic=a/*', { 'last-event-id': seen[1]!.id! })
  await publish(second, 'a/b', '5')
  const messages = await again.until(4)
  t.strictSame(
    messages.map(({ data }) => data),
    ['3', 'missed', '4', '5']
  )
  t.notOk(again.frames.all.some(({ event }) => event === 'gap'))
})

