import { fdatasyncSync, openSync, writeSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { eventData } from './event.ts'
import { GroupCommit } from './group-commit.ts'
import { plainLog } from './plain-log.ts'
import { Samples } from './samples.ts'

/**
 * Stores events in one store for a while, each awaited until it is flushed to the disk, so many under way at a time; prints
 * how many a second. No HTTP.
 */

/** What is used of packages, so that the bench can be checked without them. */
interface Batch {
  put(key: Buffer, value: Buffer): unknown
  write(options: { sync: boolean }): Promise<void>
}
type Level = new (
  folder: string,
  options: object
) => {
  open(options: object): Promise<void>
  batch(): Batch
}
interface Lmdb {
  put(key: Buffer, value: Buffer): Promise<boolean>
}
type Sqlite = new (file: string) => {
  exec(statement: string): void
  prepare(statement: string): { run(...values: unknown[]): void }
}
interface Built {
  readonly systemClock: unknown
  readonly DiskBroker: {
    open(
      folder: string,
      settings: object,
      clock: unknown
    ): Promise<{ log: { append(events: readonly object[]): Promise<unknown> } }>
  }
}

/** Resolves once an event is flushed. */
type Append = (topic: string, data: string) => Promise<unknown>

const job = JSON.parse(process.argv[2]!) as {
  readonly store: string
  readonly folder: string
  /** Where the packages are that the bench doesn't bring along. */
  readonly packages: string
  /** When Ringside's is flushed. */
  readonly fsync: string
  readonly underWay: number
  readonly topics: number
  readonly milliseconds: number
}

const stores: Record<string, () => Append | Promise<Append>> = {
  ringside: async () => {
    const { DiskBroker, systemClock } = await built('broker/disk/broker', 'clock')
    const settings = { RING_SIZE: 1000, RING_TTL: 86_400_000, FSYNC: job.fsync, MAX_STORE_BYTES: 8 * 2 ** 30 }
    const { log } = await DiskBroker.open(job.folder, settings, systemClock)
    return (topic, data) => log.append([{ topic, type: 'message', data }])
  },
  plain: () => {
    const log = plainLog(join(job.folder, 'log'))
    return (topic, data) => log.append(`${topic} message ${data}`)
  },
  level: async () => {
    const { ClassicLevel } = (await import('classic-level')) as unknown as { ClassicLevel: Level }
    const level = new ClassicLevel(job.folder, { keyEncoding: 'buffer', valueEncoding: 'buffer' })
    await level.open({ compression: false, writeBufferSize: 8 * 2 ** 20 })
    const commits = new GroupCommit<string[]>(async events => {
      const batch = level.batch()
      for (const [topic, data] of events) batch.put(keyOf(topic!), Buffer.from(`message ${data}`))
      await batch.write({ sync: true })
    })
    return (topic, data) => commits.append([topic, data])
  },
  lmdb: () => {
    const { open } = required('lmdb') as { open: (options: object) => Lmdb }
    // without this the promise of a write resolves before it is flushed
    const options = { path: join(job.folder, 'lmdb'), overlappingSync: false, keyEncoding: 'binary' }
    const lmdb = open({ ...options, encoding: 'binary' })
    return (topic, data) => lmdb.put(keyOf(topic), Buffer.from(`message ${data}`))
  },
  libsql: () => sqlite(required('libsql') as Sqlite),
  // a part of Node from 22 on
  'node:sqlite': () =>
    sqlite((process.getBuiltinModule('node:sqlite') as { DatabaseSync: Sqlite }).DatabaseSync)
}

/** The number of the last key. */
let written = 0

if (job.store === 'fdatasync') console.log(flushTime())
else await writeOn(await stores[job.store]!())
process.exit()

async function writeOn(append: Append): Promise<void> {
  let stored = 0
  let running = true
  const loops = Array.from({ length: job.underWay }, async (_, index) => {
    const topic = `bench${index % job.topics}`
    while (running) {
      await append(topic, eventData(stored))
      stored++
    }
  })
  await pause(job.milliseconds / 4)
  const before = stored
  const began = performance.now()
  await pause(job.milliseconds)
  console.log(Math.round(((stored - before) * 1000) / (performance.now() - began)))
  running = false
  await Promise.all(loops)
}

/** What flushing one event at the end of a file takes, in milliseconds: the median. */
function flushTime(): number {
  const descriptor = openSync(join(job.folder, 'flushed'), 'a')
  const times = new Samples()
  for (const end = performance.now() + job.milliseconds; performance.now() < end;) {
    writeSync(descriptor, eventData(0))
    const began = performance.now()
    fdatasyncSync(descriptor)
    times.add((performance.now() - began) * 1000)
  }
  return times.percentile(50)
}

/** One transaction for all that wait. It blocks, as SQLite does. */
function sqlite(Database: Sqlite): Append {
  const database = new Database(join(job.folder, 'sqlite'))
  database.exec('PRAGMA journal_mode = WAL')
  database.exec('PRAGMA synchronous = FULL')
  database.exec(
    'CREATE TABLE events (topic TEXT, id INTEGER, data TEXT, PRIMARY KEY (topic, id)) WITHOUT ROWID'
  )
  const insert = database.prepare('INSERT INTO events VALUES (?, ?, ?)')
  let id = 0
  const commits = new GroupCommit<string[]>(events => {
    database.exec('BEGIN')
    for (const [topic, data] of events) insert.run(topic, ++id, `message ${data}`)
    database.exec('COMMIT')
  })
  return (topic, data) => commits.append([topic, data])
}

/** As an event log has it: by topic, then by id. */
function keyOf(topic: string): Buffer {
  const key = Buffer.allocUnsafe(topic.length + 7)
  key.writeUInt8(0, key.write(topic, 'latin1'))
  key.writeUIntBE(++written, topic.length + 1, 6)
  return key
}

async function built(...modules: string[]): Promise<Built> {
  const loaded = modules.map(module => import(pathToFileURL(resolve(`dist/${module}.js`)).href))
  return Object.assign({}, ...(await Promise.all(loaded))) as Built
}

function required(name: string): unknown {
  return createRequire(join(resolve(job.packages), 'package.json'))(name)
}

function pause(milliseconds: number): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, milliseconds))
}
