import type { Command } from 'commander'
import { ConfigError, readSettings } from '../config.ts'
import { Failed } from './failed.ts'
import { addExamples } from './help.ts'
import { addTransfers } from './store-transfer.ts'
import type { Env } from './terminal.ts'

/**
 * Adds `ringside store`, for the store of a server that doesn't run. All of it fails (`Failed`) where the store can't be
 * opened, and `check` where something is damaged.
 */
export function addStore(program: Command, env: Env, print: (text: string) => void): void {
  const store = program
    .command('store')
    .description('look after the store of a server that is stopped, and move it')
  store
    .command('check')
    .description('look through all of it, and say what is not as it was stored')
    .option('--data-dir <folder>', 'where it is; default: DATA_DIR')
    .action(async ({ dataDir }: { dataDir?: string }) => {
      const { checkStore } = await import('../broker/disk/inspection.ts')
      const { topics, events, damages, damageCount } = await opened(folderOf(dataDir, env), checkStore)
      for (const damage of damages) print(`${damage}\n`)
      print(
        `${events} events on ${topics} topics, ${damageCount === 0 ? 'all as they were stored' : `${damageCount} damages`}\n`
      )
      if (damageCount > 0) throw new Failed('it is damaged: `ringside store repair` cuts out what is broken')
    })
  store
    .command('repair')
    .description('cut out what is broken, and have readers told what was lost; copy the folder first')
    .option('--data-dir <folder>', 'where it is; default: DATA_DIR')
    .action(async ({ dataDir }: { dataDir?: string }) => {
      const { repairStore } = await import('../broker/disk/inspection.ts')
      const { events, damages, damageCount } = await opened(folderOf(dataDir, env), folder =>
        repairStore(folder, Date.now())
      )
      for (const damage of damages) print(`${damage}\n`)
      print(
        damageCount === 0
          ? `nothing was damaged in ${events} events\n`
          : `${damageCount} damages were cut out\n`
      )
    })
  addTransfers(store, env)
  addExamples(
    store,
    'ringside store check --data-dir /var/lib/ringside',
    'ringside store export --data-dir /var/lib/ringside > backup.ndjson',
    'ringside store import --redis redis://127.0.0.1:6379 < backup.ndjson'
  )
}

function folderOf(given: string | undefined, env: Env): string {
  const folder = given ?? readSettings({ DATA_DIR: env['DATA_DIR'] }).DATA_DIR
  if (folder) return folder
  throw new ConfigError('DATA_DIR: is not set; it says where the store is, unless there is a --data-dir')
}

async function opened<T>(folder: string, use: (folder: string) => Promise<T>): Promise<T> {
  try {
    return await use(folder)
  } catch (error) {
    if (!['StoreUnusable', 'StoreDamaged'].includes((error as Error).name)) throw error
    throw new Failed(`${folder}: ${(error as Error).message}`)
  }
}
