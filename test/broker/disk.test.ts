import { cpSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { DiskLog } from '../../src/broker/disk/log.ts'
import { allOf } from '../../src/broker/disk/records.ts'
import { Store } from '../../src/broker/disk/store.ts'
import { DiskBroker } from '../../src/broker/disk/broker.ts'
import { checkStore } from '../../src/broker/disk/inspection.ts'
import { systemClock } from '../../src/clock.ts'
import { comparePositions } from '../../src/event.ts'
import { Memory } from '../../src/memory.ts'
import { Rules } from '../../src/rules/rules.ts'
import { HeldClock } from '../support/clock.ts'
import { eventually } from '../support/inbox.ts'
import { conforms } from './conformance/broker.ts'

const SETTINGS = { FSYNC: 'commit', MAX_STORE_BYTES: 1024 ** 3 } as const

t.test('the broker on disk', async t => {
  conforms(t, async (t, settings) => {
    const clock = new HeldClock()
    const folder = t.testdir()
    const rules = new Rules(settings, settings.rules)
    const open = () =>
      DiskBroker.open(folder, { ...SETTINGS, ...settings }, clock, undefined, undefined, rules)
    return {
      broker: await open(),
      rules,
      keeps: true,
      restart: open,
      pass: ms => clock.advance(ms),
      stepBack: ms => clock.stepBack(ms),
      isHeld: true
    }
  })
})

const LISTENER = { event: () => {}, tick: () => {}, jump: () => {}, gap: () => {}, up: () => {} }
const RINGS = { RING_SIZE: 100_000, RING_TTL: 3_600_000 }

t.test('the files stay within MAX_STORE_BYTES: the oldest events go, and are told as gone', async t => {
  const MAX_STORE_BYTES = 16 * 1024 * 1024
  const settings = { ...RINGS, FSYNC: 'off', MAX_STORE_BYTES } as const
  const { log, close } = await open(t.testdir(), settings, systemClock)
  const data = 'x'.repeat(5000)
  const batch = Array.from({ length: 100 }, (_, n) => ({ topic: `s/${n % 10}`, type: 'message', data }))
  const [first] = await log.append(batch.slice(0, 1))
  for (let written = 0; written < 4 * MAX_STORE_BYTES; written += batch.length * data.length)
    await log.append(batch)
  await eventually(
    () => log.measure(),
    ({ bytes }) => bytes < MAX_STORE_BYTES,
    'room'
  )
  const { events, gaps } = await log.range('s/*', log.birth, 10)
  t.equal(events.length, 10)
  t.equal(gaps.size, 10, 'each topic has lost events')
  if (first?.outcome === 'stored') t.ok(comparePositions(events[0]!.id, first.id[0]!) > 0)
  t.equal((await log.range('s/*', await log.position(), 10)).gaps.size, 0)
  await close()
})

t.test('without memory for more topics the oldest are forgotten, and told as gone', async t => {
  const clock = new HeldClock()
  const settings = { ...RINGS, FSYNC: 'off', MAX_STORE_BYTES: 1024 ** 3 } as const
  const folder = t.testdir()
  const before = await open(folder, settings, clock, new Memory(100_000))
  for (let n = 0; n < 300; n++) {
    await clock.advance(1)
    await before.log.append([
      { topic: `s/${n}`, type: 'message', data: `${n}`, ...(n === 0 && { state: { value: 'kept' } }) }
    ])
  }
  // each of a wildcard of its own
  for (let n = 0; n < 200; n++)
    await before.log.append([{ topic: `s/${n}/x`, type: 'message', data: `${n}` }])
  for (let n = 300; n < 320; n++)
    await before.log.append([{ topic: `s/${n}`, type: 'message', data: `${n}` }])
  const names = await before.log.topics('s/*')
  t.ok(names.length < 150, `${names.length} topics are known`)
  t.ok(names.includes('s/0') && names.includes('s/319'), 'what has a state is kept')
  const check = async ({ log }: typeof before) => {
    t.strictSame([...(await log.range('s/5', log.birth, 10)).gaps.keys()], ['s/5'])
    const { events, gaps } = await log.range('s/*', log.birth, 1000)
    t.strictSame(events.map(({ topic }) => topic).sort(), names.sort())
    t.strictSame([...gaps.keys()], ['s/*'])
  }
  await check(before)
  await clock.advance(1000)
  await before.close()
  const after = await open(folder, settings, clock, new Memory(100_000))
  await check(after)
  await after.close()
  t.strictSame((await checkStore(folder)).damages, [])
  const store = await Store.open(folder)
  const notes = await store.keys(allOf('forgotten'), 1000)
  t.ok(notes.length < 100, `${notes.length} notes of what was forgotten: none of wildcards that are gone`)
  await store.close()
})

t.test('a flush that takes its time holds up no reader, not even while events run out', async t => {
  const clock = new HeldClock()
  const settings = { RING_SIZE: 10, RING_TTL: 5000, FSYNC: 'commit', MAX_STORE_BYTES: 1024 ** 3 } as const
  const store = await Store.open(t.testdir())
  const rules = new Rules(settings, [{ match: 'd/*', ttl: 5000 }])
  const observer = { warn: () => {}, flushed: () => {} }
  const log = await DiskLog.open(store, settings, clock, new Memory(Infinity), observer, rules)
  await log.start(LISTENER)
  const event = { type: 'message', data: '1' }
  await log.append([
    { ...event, topic: 'd/1', state: { value: 'old' } },
    { ...event, topic: 's/a' }
  ])
  await clock.advance(4000)
  await log.append([{ ...event, topic: 's/a', data: '2' }])
  const after = await log.position()
  const write = store.write.bind(store)
  let flush: () => void = () => {}
  const flushed = new Promise<void>(resolve => (flush = resolve))
  store.write = async (batch, sync) => flushed.then(() => write(batch, sync))
  const late = log.append([{ ...event, topic: 's/a', data: '3' }])
  await clock.advance(1500)

  t.strictSame((await log.range('s/*', after, 10)).events, [])
  t.match((await log.newest('s/*', log.birth, 10)).events, [{ data: '2' }])
  const start = (await log.rewind('s/a', 5)).get('s/a')!
  t.match((await log.range('s/a', [start], 10)).events, [{ data: '2' }])
  t.equal(
    (await log.rewind('d/1', 5)).size,
    0,
    'what is too old is not there, although it could not be dropped'
  )
  t.equal(await log.state('d/1'), null)
  t.equal((await log.states(['d/1'])).size + (await log.versions(['d/1'])).size, 0)
  t.equal((await log.subscribe('s/a')).end, null)

  flush()
  t.match(await late, [{ outcome: 'stored' }])
  t.strictSame([...(await log.range('s/*', log.birth, 10)).gaps.keys()], ['s/a'], 'then it is told')
  await log.close()
})

t.test('ephemeral events wait for no flush, and after a kill ids come after theirs', async t => {
  const clock = new HeldClock()
  const settings = { ...RINGS, FSYNC: 'commit', MAX_STORE_BYTES: 1024 ** 3 } as const
  const folder = t.testdir({ store: {}, cut: {} })
  let flushes = 0
  const observer = { warn: () => {}, flushed: () => void flushes++ }
  const rules = new Rules(settings, [{ match: 'e/*', ephemeral: true }])
  const openIn = async (name: string) => {
    const store = await Store.open(join(folder, name))
    const log = await DiskLog.open(store, settings, clock, new Memory(Infinity), observer, rules)
    await log.start(LISTENER)
    return { log, store }
  }
  const { log, store } = await openIn('store')
  const event = { topic: 'e/a', type: 'message', data: '1' }
  const stored = { ...event, topic: 's/a' }
  await log.append([stored])
  t.equal(flushes, 1)
  const keys = async () => (await store.keys({ gte: Buffer.of(0) }, 1000)).length
  const before = await keys()
  for (let n = 0; n < 20; n++) await log.append([{ ...event, topic: `e/${n}` }, event])
  t.equal(flushes, 1)
  t.equal(await keys(), before + 1, 'one record for all: how far their ids have come')
  await log.append([{ ...event, key: 'k' }])
  t.equal(flushes, 2, 'a key is kept')
  await log.append([event, stored])
  t.equal(flushes, 3)
  const [last] = await log.append([event])
  cpSync(join(folder, 'store'), join(folder, 'cut'), { recursive: true })
  t.strictSame((await checkStore(join(folder, 'cut'))).damages, [])
  clock.stepBack(60_000)
  const after = await openIn('cut')
  if (last?.outcome !== 'stored') throw new Error(last?.outcome)
  t.strictSame(await after.log.position(), last.id)
  const [next] = await after.log.append([event])
  t.ok(next?.outcome === 'stored' && comparePositions(next.id[0]!, last.id[0]!) > 0)
  t.strictSame((await after.log.range('e/*', after.log.birth, 10)).events, [])
  await log.close()
  await after.log.close()
})

async function open(...[folder, settings, clock, memory]: Parameters<typeof DiskBroker.open>) {
  const broker = await DiskBroker.open(folder, settings, clock, memory)
  await broker.log.start(LISTENER)
  return { log: broker.log, close: () => broker.close() }
}
