import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number }
  }[]
  readonly samples: readonly number[]
  readonly timeDeltas: readonly number[]
}

/** Not the server's: what the profiler itself takes is `dispatch`. */
const NOT_OURS = new Set(['(idle)', '(program)', 'dispatch'])

/** Where the processor time of the profiles in a directory went: the functions with the most time of their own. */
export function readProfiles(directory: string, most = 25): string {
  const files = readdirSync(directory).filter(name => name.endsWith('.cpuprofile'))
  return files.map(name => `${name}\n${summary(join(directory, name), most)}`).join('\n\n')
}

function summary(file: string, most: number): string {
  const { nodes, samples, timeDeltas } = JSON.parse(readFileSync(file, 'utf8')) as CpuProfile
  const names = new Map(nodes.map(({ id, callFrame }) => [id, nameOf(callFrame)]))
  const times = new Map<string, number>()
  let busy = 0
  for (const [index, id] of samples.entries()) {
    const name = names.get(id)!
    if (NOT_OURS.has(name)) continue
    const time = timeDeltas[index]!
    busy += time
    times.set(name, (times.get(name) ?? 0) + time)
  }
  return [...times]
    .sort(([, a], [, b]) => b - a)
    .slice(0, most)
    .map(([name, time]) => `${((time / busy) * 100).toFixed(1).padStart(6)} %  ${name}`)
    .join('\n')
}

function nameOf({ functionName, url, lineNumber }: CpuProfile['nodes'][number]['callFrame']): string {
  const file = url.startsWith('file:') ? relative(process.cwd(), fileURLToPath(url)) : url
  return `${functionName || '(anonymous)'}${file && ` ${file}:${lineNumber + 1}`}`
}
