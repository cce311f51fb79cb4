import { createRequire } from 'node:module'
import { join } from 'node:path'

// the peers are installed in bench/, and Ringside itself needs none of them
const require = createRequire(join(process.cwd(), 'bench', 'package.json'))

export function isInstalled(name: string): boolean {
  try {
    require.resolve(name)
    return true
  } catch {
    return false
  }
}

/** Loads a peer's package. The caller says what it uses of it, so that the bench can be checked without the peers. */
export function load<Exports>(name: string): Exports {
  return require(name) as Exports
}
