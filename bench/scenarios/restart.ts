import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Caller } from '../load/caller.ts'
import { output, pinned, script, SERVER_CORE } from '../machine.ts'
import { metric } from '../metrics.ts'
import { round, type Bench, type Column, type Figures, type Scenario } from '../scenario.ts'

const MIB = 2 ** 20
const JSON_PAGE = { accept: 'application/json' }

/** What lies in the store: events of such a size. */
const STORES = [
  { key: 'small', title: '10 MB, 1,000 topics', bytes: 10e6, size: 4000, topics: 1000 },
  { key: 'large', title: '1 GB, 1,000 topics', bytes: 1e9, size: 4000, topics: 1000 },
  { key: 'many', title: '10 MB, 100,000 topics', bytes: 10e6, size: 100, topics: 100_000 },
  { key: 'both', title: '1 GB, 100,000 topics', bytes: 1e9, size: 4000, topics: 100_000 }
] as const

export const restart: Scenario = {
  name: 'restart',
  about:
    'A store on disk that holds so much data, in events of 4,000 bytes (of 100 where 10 MB lie on 100,000 topics): from the ' +
    'start of the process until it answers; the memory that it then has of its own, without what it maps of files; and what ' +
    'that is once the last ten events of each of 100 topics have been read, fifty times.',
  peers: ['ringside-disk'],
  columns: STORES.flatMap(({ key, title }): Column[] => [
    { key: `${key} seconds`, title: `${title}: start, s`, digits: 2 },
    { key: `${key} memory`, title: 'memory, MiB' },
    { key: `${key} read`, title: 'read, MiB' },
    { key: `${key} bytes`, title: 'on disk, MB' }
  ]),
  async measure(bench) {
    let figures: Figures = {}
    for (const store of STORES) figures = { ...figures, ...(await startOn(bench, store)) }
    return figures
  }
}

async function startOn(bench: Bench, { key, ...store }: (typeof STORES)[number]): Promise<Figures> {
  const folder = mkdtempSync(join(tmpdir(), 'ringside-bench-'))
  try {
    fill(bench, folder, store)
    const began = performance.now()
    const server = await bench.start({ DATA_DIR: folder, RING_SIZE: '1000000' })
    const seconds = (performance.now() - began) / 1000
    const memory = await server.settledMemory('Pss_Anon')
    const bytes = await metric(server, 'ringside_store_bytes')
    await readSome(bench, server.port, store.topics / 100)
    const read = await server.settledMemory('Pss_Anon')
    await server.stop()
    return {
      [`${key} seconds`]: round(seconds, 2),
      [`${key} memory`]: Math.round(memory / MIB),
      [`${key} read`]: Math.round(read / MIB),
      [`${key} bytes`]: Math.round(bytes / 1e6)
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function fill(
  bench: Bench,
  folder: string,
  { bytes, size, topics }: Omit<(typeof STORES)[number], 'key'>
): void {
  const events = Math.ceil(bytes / size / bench.size(1, 100))
  const job = { folder, size, events, topics: bench.size(topics, topics / 100) }
  output(...pinned(SERVER_CORE, process.execPath, [script('load/store-filler'), JSON.stringify(job)]))
}

async function readSome(bench: Bench, port: number, families: number): Promise<void> {
  const caller = new Caller(port)
  for (let index = 0; index < bench.size(50, 2); index++)
    await caller.get(`/events?topic=bench/${index % families}/*&rewind=10&limit=1000`, JSON_PAGE)
  await caller.stop()
}
