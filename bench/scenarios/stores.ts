import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { output, pinned, script, SERVER_CORE } from '../machine.ts'
import { isThere } from '../rivals/peer-package.ts'
import { RINGSIDE, round, type Bench, type Column, type Scenario } from '../scenario.ts'

/** Where packages are installed that are only tried here. */
const PACKAGES = process.env['STORES'] ?? '.'

const STORES = ['plain', 'ringside', 'level', 'lmdb', 'libsql', 'node:sqlite'] as const
const TITLES = {
  plain: 'plain log',
  ringside: 'Ringside’s',
  level: 'classic-level',
  lmdb: 'lmdb',
  libsql: 'libsql',
  'node:sqlite': 'node:sqlite'
} as const

export const stores: Scenario = {
  name: 'stores',
  about:
    'Events stored on disk a second in one process, without HTTP, each awaited until it has been flushed, 256 and 16 under ' +
    'way, each of them on a topic of its own: by Ringside’s event log, and by what it might stand on, one record an event, ' +
    'one flush for all that wait. “FSYNC=off” is Ringside’s log without flushes.',
  peers: RINGSIDE,
  columns: [
    { key: 'flush', title: 'one fdatasync, ms', digits: 2 },
    ...[256, 16].flatMap(count => STORES.map(store => column(store, count))),
    { key: 'off', title: 'FSYNC=off, 256' }
  ],
  async measure(bench) {
    const figures: Record<string, number> = { flush: round(written(bench, 'fdatasync', 1), 2) }
    for (const count of [256, 16])
      for (const store of STORES.filter(isHere)) figures[`${store} ${count}`] = written(bench, store, count)
    return { ...figures, off: written(bench, 'ringside', 256, 'off') }
  }
}

function column(store: (typeof STORES)[number], count: number): Column {
  const column = { key: `${store} ${count}`, title: `${TITLES[store]}, ${count}` }
  return store === 'plain' ? column : { ...column, per: `plain ${count}` }
}

function isHere(store: (typeof STORES)[number]): boolean {
  if (store === 'node:sqlite') return process.getBuiltinModule?.('node:sqlite') !== undefined
  return (store !== 'lmdb' && store !== 'libsql') || isThere(store, PACKAGES)
}

/** What one store does, in a process of its own on the server's core. */
function written(bench: Bench, store: string, underWay: number, fsync = 'commit'): number {
  const folder = mkdtempSync(join(tmpdir(), 'ringside-bench-'))
  const milliseconds = bench.size(2000, 200)
  const job = { store, folder, fsync, underWay, topics: underWay, packages: PACKAGES, milliseconds }
  try {
    const args = [script('load/store-writer'), JSON.stringify(job)]
    return Number(output(...pinned(SERVER_CORE, process.execPath, args)))
  } finally {
    rmSync(folder, { recursive: true })
  }
}
