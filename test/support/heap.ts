import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** The bytes that are in use once everything that nobody holds has been collected. */
export function heapInUse(): number {
  collect()
  return process.memoryUsage().heapUsed
}
