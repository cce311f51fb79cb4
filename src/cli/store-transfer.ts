import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Command } from 'commander'
import { ConfigError, readSettings, type Settings } from '../config.ts'
import type { Line } from '../broker/transfer.ts'
import { Failed } from './failed.ts'
import { Progress } from './progress.ts'
import type { Env } from './terminal.ts'

/** Which store is meant: `--data-dir` or `--redis`, else what the settings say. */
interface Place {
  readonly dataDir?: string
  readonly redis?: string
}

/** A store that lines can be had of, or put into. */
interface Transfers {
  /** What it is called in messages: without the URL, which may have a password in it. */
  readonly name: string
  export(): AsyncIterable<readonly Line[]>
  import(chunks: AsyncIterable<Uint8Array>): Promise<void>
}

const { stdin, stdout } = process

/**
 * Adds `ringside store export` and `import`. Both fail (`Failed`) where the store can't be used, `export` where a part of it
 * is damaged, `import` where it isn't empty or a line is wrong.
 */
export function addTransfers(store: Command, env: Env): void {
  inPlace(store.command('export'))
    .description('write all of a store to standard output, as lines of JSON')
    .action(async (place: Place) => {
      const from = await transfersOf(place, env)
      const { formatLine } = await import('../broker/transfer.ts')
      const texts = async function* () {
        for await (const lines of counted(from.export(), lines => lines.length, 'lines'))
          yield lines.map(formatLine).join('')
      }
      await done(from.name, pipeline(Readable.from(texts()), stdout, { end: false }))
    })
  inPlace(store.command('import'))
    .description('fill an empty store with what export has written, from standard input')
    .action(async (place: Place) => {
      const to = await transfersOf(place, env)
      const chunks = stdin as AsyncIterable<Buffer>
      await done(to.name, to.import(counted(chunks, ({ length }) => length, 'bytes')))
    })
}

function inPlace(command: Command): Command {
  return command
    .option('--data-dir <folder>', 'where the store on disk is; default: DATA_DIR')
    .option('--redis <url>', 'where Redis is; default: REDIS_URL')
}

async function transfersOf({ dataDir, redis }: Place, env: Env): Promise<Transfers> {
  if (dataDir && redis) throw new ConfigError('--data-dir and --redis: there is one store; leave one out')
  const { DATA_DIR } = env
  const folder = dataDir ?? (redis ? undefined : DATA_DIR)
  const url = redis ?? (dataDir ? undefined : env['REDIS_URL'])
  if (url) return redisTransfers(readSettings({ ...redisSettings(env), REDIS_URL: url, DATA_DIR: folder }))
  if (folder) return diskTransfers(folder)
  throw new ConfigError('DATA_DIR or REDIS_URL: neither is set; give --data-dir or --redis')
}

async function diskTransfers(folder: string): Promise<Transfers> {
  const { exportStore, importStore } = await import('../broker/disk/transfer.ts')
  return {
    name: folder,
    export: () => exportStore(folder),
    import: chunks => importStore(folder, chunks)
  }
}

async function redisTransfers(settings: Settings): Promise<Transfers> {
  const { readRules } = await import('../rules/file.ts')
  const { exportRedis, importRedis } = await import('../broker/redis/transfer.ts')
  return {
    name: 'Redis',
    export: () => exportRedis(settings),
    import: chunks => importRedis(settings, chunks, readRules(settings))
  }
}

/** What Redis is connected to with, and how things are called in it: nothing else matters here. */
function redisSettings(env: Env): Record<string, string | undefined> {
  const names = Object.keys(env).filter(name => /^(REDIS_\w+|KEY_PREFIX|RING_TTL|SHARDS|TOPICS)$/.test(name))
  return Object.fromEntries(names.map(name => [name, env[name]]))
}

/** Passes on what comes, and shows on a terminal how much that was. */
async function* counted<T>(
  parts: AsyncIterable<T>,
  sizeOf: (part: T) => number,
  unit: string
): AsyncGenerator<T> {
  const progress = new Progress()
  let count = 0
  const line = () => `${count.toLocaleString('en')} ${unit}`
  for await (const part of parts) {
    count += sizeOf(part)
    yield part
    progress.show(line)
  }
  progress.end(line)
}

async function done(name: string, work: Promise<unknown>): Promise<void> {
  try {
    await work
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'EPIPE') throw new Failed('nobody reads what is exported any more')
    throw new Failed(`${name}: ${message}`)
  }
}
