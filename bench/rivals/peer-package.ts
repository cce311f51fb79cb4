import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'

// the peers are installed in bench/, and Ringside itself needs none of them
const require = createRequire(join(process.cwd(), 'bench', 'package.json'))

export function isInstalled(name: string): boolean {
  return isThere(name, 'bench')
}

/** Whether a package is installed in a folder, or above it. */
export function isThere(name: string, folder: string): boolean {
  try {
    createRequire(resolve(folder, 'package.json')).resolve(name)
    return true
  } catch {
    return false
  }
}

/** Loads a peer's package. The caller says what it uses of it, so that the bench can be checked without the peers. */
export function load<Exports>(name: string): Exports {
  return require(name) as Exports
}
