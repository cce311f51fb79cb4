import { Session, type Profiler } from 'node:inspector'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

/**
 * Loaded into a server by `--import`: profiles it from its start, begins anew at one SIGURG and stops at the next, and
 * writes the last profile when the process ends.
 */

const session = new Session()
let last: Profiler.Profile | undefined
let running = false

function start(): void {
  session.post('Profiler.start')
  running = true
}

/** The answer comes before the call returns. */
function stop(): void {
  session.post('Profiler.stop', (_error, { profile }) => (last = profile))
  running = false
}

session.connect()
session.post('Profiler.enable')
start()
let signals = 0
process.on('SIGURG', () => {
  if (running) stop()
  if (signals++ % 2 === 0) start()
})
process.on('exit', () => {
  if (running) stop()
  const file = join(process.env['PROFILES'] ?? '.', `${process.pid}.cpuprofile`)
  writeFileSync(file, JSON.stringify(last))
})
