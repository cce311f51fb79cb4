import { execFileSync } from 'node:child_process'
import {
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { DiskBroker } from '../../src/broker/disk/broker.ts'
import { checkStore, repairStore } from '../../src/broker/disk/inspection.ts'
import { META, sealText } from '../../src/broker/disk/records.ts'
import { Store } from '../../src/broker/disk/store.ts'
import { systemClock } from '../../src/clock.ts'
import { covers, type Cursor } from '../../src/event.ts'
import { Memory } from '../../src/memory.ts'
import { Inbox, inTime } from '../support/inbox.ts'
import { randomFrom } from '../support/random.ts'

const SETTINGS = {
  RING_SIZE: 1000,
  RING_TTL: 3_600_000,
  FSYNC: 'commit',
  MAX_STORE_BYTES: 1024 ** 3
} as const
const LISTENER = { event: () => {}, tick: () => {}, jump: () => {}, gap: () => {}, up: () => {} }

async function open(folder: string, warnings?: Inbox<string>): Promise<DiskBroker> {
  const observer = { warn: (message: string) => void warnings?.push(message), flushed: () => {} }
  const broker = await DiskBroker.open(folder, SETTINGS, systemClock, new Memory(1024 ** 3), observer)
  await broker.log.start(LISTENER)
  return broker
}

async function publish(broker: DiskBroker, topic: string, data: string): Promise<Cursor> {
  const [appended] = await broker.log.append([{ topic, type: 'message', data, state: { value: data } }])
  if (appended?.outcome !== 'stored') throw new Error(appended?.outcome)
  return appended.id
}

async function dataOf(broker: DiskBroker, filter: string, after = broker.log.birth): Promise<unknown[]> {
  return (await broker.log.range(filter, after, 10_000)).events.map(({ data }) => data)
}

/** A folder as a power cut would leave it: copied while the store is in use. */
function cut(folder: string, to: string): string {
  rmSync(to, { recursive: true, force: true })
  cpSync(folder, to, { recursive: true })
  return to
}

function logOf(folder: string): string {
  return join(
    folder,
    readdirSync(folder).find(name => name.endsWith('.log'))!
  )
}

t.test('a log that was torn anywhere holds all that came before', async t => {
  const folder = t.testdir()
  const broker = await open(folder)
  const sizes: number[] = []
  for (let n = 1; n <= 12; n++) {
    await publish(broker, `s/${n % 3}`, `${n}`)
    sizes.push(statSync(logOf(folder)).size)
  }
  const whole = cut(folder, join(folder, '..', 'whole'))
  await broker.close()
  const from = sizes[9]!
  for (let length = sizes.at(-1)!; length >= from; length--) {
    const torn = cut(whole, join(folder, '..', 'torn'))
    truncateSync(logOf(torn), length)
    const count = sizes.filter(size => size <= length).length
    const after = await open(torn)
    const expected = Array.from({ length: count }, (_, index) => `${index + 1}`)
    const found = await dataOf(after, 's/*')
    const next = await publish(after, 's/1', 'next')
    const more = await dataOf(after, 's/*')
    if (JSON.stringify([found, more]) !== JSON.stringify([expected, [...expected, 'next']]))
      t.fail(`torn at ${length}`, { found, more, expected, next })
    await after.close()
  }
  t.pass(`${sizes.at(-1)! - from + 1} lengths`)
  t.strictSame((await checkStore(whole)).damages, [])
})

t.test(
  'a flipped bit is found, or changes nothing; what is repaired is told as lost',
  { timeout: 200_000 },
  async t => {
    const folder = t.testdir()
    const filler = 'x'.repeat(2000)
    const broker = await open(folder)
    // more than LevelDB's log holds, so that there are tables as well
    for (let n = 0; n < 6; n++) {
      const items = Array.from({ length: 1000 }, (_, index) => ({ topic: `s/${index % 7}`, type: 'message' }))
      await broker.log.append(items.map((item, index) => ({ ...item, data: `${n} ${index} ${filler}` })))
    }
    const before = await broker.log.position()
    const content = await contentOf(broker)
    await broker.close()
    const whole = folder
    const files = readdirSync(whole).filter(name => /\.(ldb|log)$|MANIFEST/.test(name))
    t.ok(
      files.some(name => name.endsWith('.ldb')),
      files.join(' ')
    )
    const random = randomFrom(18)
    const counts = { refused: 0, found: 0, harmless: 0 }
    for (let round = 0; round < 9; round++) {
      const damaged = cut(whole, join(folder, '..', 'damaged'))
      const file = join(damaged, files[round % files.length]!)
      const bytes = readFileSync(file)
      const at = Math.floor(random() * bytes.length)
      bytes[at]! ^= 1 << Math.floor(random() * 8)
      writeFileSync(file, bytes)
      const what = `${file.split('/').at(-1)} at ${at}`
      const inspection = await checkStore(damaged).catch(error => error as Error)
      const isFound = inspection instanceof Error || inspection.damageCount > 0
      if (inspection instanceof Error) counts.refused++
      else counts[isFound ? 'found' : 'harmless']++
      if (isFound) {
        await repairStore(damaged, Date.now())
        t.strictSame((await checkStore(damaged)).damages, [], `${what}: nothing is damaged any more`)
      }
      const after = await open(damaged)
      const told = covers(after.log.lost, before)
      const same = JSON.stringify(await contentOf(after)) === JSON.stringify(content)
      if (!told && !same) t.fail(`${what}: something is missing, and nobody is told`, { inspection })
      await publish(after, 's/1', 'next')
      await after.close()
    }
    t.ok(counts.found > 2, JSON.stringify(counts))
  }
)

async function contentOf(broker: DiskBroker): Promise<unknown> {
  const topics = (await broker.log.topics('s/*')).sort()
  const rings = topics.map(topic => dataOf(broker, topic))
  return [await Promise.all(rings), await dataOf(broker, 's/*')]
}

t.test('a store that was damaged is not started on', async t => {
  const folder = t.testdir()
  const broker = await open(folder)
  const sizes: number[] = []
  for (let n = 1; n <= 6; n++) {
    await publish(broker, 'a', `${n} ${'x'.repeat(20_000)}`)
    sizes.push(statSync(logOf(folder)).size)
  }
  const whole = cut(folder, join(folder, '..', 'damaged'))
  await broker.close()
  const log = readFileSync(logOf(whole))
  log[sizes[1]! + 200]! ^= 1
  writeFileSync(logOf(whole), log)
  await t.rejects(open(whole), {
    name: 'StoreDamaged',
    message: /^of its newest commits, those from 3 to \d are missing$/
  })
  const { damages } = await repairStore(whole, Date.now())
  t.match(damages, [/^of the newest commits, \d are missing$/])
  const after = await open(whole)
  t.ok(covers(after.log.lost, broker.log.birth), 'readers are told')
  t.match((await dataOf(after, 'a')).at(-1), /^6 /)
  await after.close()
})

t.test('a folder that is in use, or of a newer version, or no folder, is refused in a line', async t => {
  const folder = t.testdir({ file: '' })
  const broker = await open(folder)
  await t.rejects(open(folder), { name: 'StoreUnusable', message: 'another process is using it' })
  await broker.close()
  const store = await Store.open(folder)
  const newer = { version: 2, birth: { ms: 1, seq: 0 } }
  await store.put(META, sealText(META, JSON.stringify(newer)), true)
  await store.close()
  await t.rejects(open(folder), { name: 'StoreUnusable', message: 'it was written by a newer version (2)' })
  await t.rejects(open(join(folder, 'file')), { name: 'StoreUnusable', message: /EEXIST|ENOTDIR/ })
})

/** A file system of so many bytes, or null where this user may not mount one. */
function smallDisk(t: Test, size: string): string | null {
  const folder = mkdtempSync(join(tmpdir(), 'ringside-disk-'))
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', folder], { stdio: 'ignore' })
  } catch {
    rmSync(folder, { recursive: true })
    return null
  }
  t.teardown(() => {
    execFileSync('umount', ['-l', folder])
    rmSync(folder, { recursive: true })
  })
  return folder
}

t.test('a full disk: nothing more is stored, readers are served, and it goes on by itself', async t => {
  const disk = smallDisk(t, '96m')
  if (!disk) return t.pass('this user may not mount', { skip: true })
  const warnings = new Inbox<string>()
  const broker = await open(join(disk, 'store'), warnings)
  const first = await publish(broker, 'a', 'first')
  writeFileSync(join(disk, 'filler'), Buffer.alloc(60 * 1024 * 1024))
  const stored: string[] = ['first']
  const big = 'x'.repeat(500_000)
  let refusal: Error | undefined
  for (let n = 0; n < 500 && !refusal; n++) {
    const data = `${n} ${big}`
    await publish(broker, 'a', data).then(
      () => stored.push(data),
      (error: Error) => (refusal = error)
    )
  }
  t.match(refusal, { name: 'BrokerUnavailable', message: 'the disk is full' })
  t.match(broker.health.unwritable, /[Nn]o space left/)
  t.equal(broker.log.up, true)
  t.match(await dataOf(broker, 'a', first), stored.slice(1), 'readers are served')
  await t.rejects(publish(broker, 'a', 'more'), { name: 'BrokerUnavailable', message: 'the disk is full' })
  t.equal(warnings.all.length, 1, 'the operator is told once')
  rmSync(join(disk, 'filler'))
  const recovered = inTime(
    warnings.until(() => warnings.all.length > 1, 'room'),
    'room'
  ).then(() => true)
  let pages = 0
  for (let isOver = false; !isOver; pages++) {
    const found = await dataOf(broker, 'a', first).catch((error: Error) => error)
    const isWhole = Array.isArray(found) && found.length >= stored.length - 1
    const isRefused = found instanceof Error && found.name === 'BrokerUnavailable'
    if (!isWhole && !isRefused) t.fail('a page lacks what is stored', { found })
    isOver = await Promise.race([recovered, delay(1, false)])
  }
  t.ok(pages > 0, `${pages} pages were read meanwhile`)
  await publish(broker, 'a', 'again')
  const after = await dataOf(broker, 'a', first)
  t.equal(after.at(-1), 'again')
  t.strictSame(after.slice(0, stored.length - 1), stored.slice(1), 'nothing that was acknowledged is missing')
  await broker.close()
  t.strictSame((await checkStore(join(disk, 'store'))).damages, [])
})
