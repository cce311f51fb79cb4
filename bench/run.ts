import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { canPin, describeMachine, LOAD_CORE, othersSeconds, pinned, script } from './machine.ts'
import type { Job, Outcome } from './measure.ts'
import type { Peer } from './peer.ts'
import { FLOORS, peers } from './peers.ts'
import { readProfiles } from './profile.ts'
import { tables, type Measurement, type Report } from './report.ts'
import type { Scenario } from './scenario.ts'
import { scenarios } from './scenarios/index.ts'

/** How long one measurement may take. */
const LIMIT_MS = 600_000
const QUICK_LIMIT_MS = 30_000

const HELP = `npm run bench -- [options]

  --only A,B        these scenarios: ${scenarios.map(({ name }) => name).join(', ')}
  --rivals A,B      Ringside and these: ${peers.map(({ name }) => name).join(', ')};
                    none: the floors alone (net, net-tick, http), and Ringside on disk; by default all that are installed
  --quick           small sizes, one run, under a minute: shows that everything runs, not how fast
  --runs N          how often each is measured, in fresh processes (2)
  --set NAME=VALUE  a setting of Ringside for all scenarios; may be repeated
  --profile DIR     Ringside alone, with a CPU profile of each of its processes: of the last thing measured in it
  --json FILE       writes all figures, with a description of the machine
  --markdown        prints the tables as Markdown
  --from A,B        measures nothing: prints the tables of these JSON files, of one machine, as one

  BEFORE=DIR in the environment: besides, by turns, the Ringside that another checkout has built
`

const { values: options } = parseArgs({
  options: {
    only: { type: 'string' },
    rivals: { type: 'string' },
    quick: { type: 'boolean', default: false },
    runs: { type: 'string' },
    set: { type: 'string', multiple: true, default: [] },
    profile: { type: 'string' },
    json: { type: 'string' },
    markdown: { type: 'boolean', default: false },
    from: { type: 'string' },
    help: { type: 'boolean', default: false }
  }
})

if (options.help) {
  console.log(HELP)
} else if (options.from !== undefined) {
  const reports = options.from.split(',').map(file => JSON.parse(readFileSync(file, 'utf8')) as Report)
  const measurements = reports.flatMap(report => report.measurements)
  console.log(tables({ ...reports[0]!, measurements }, options.markdown))
} else {
  const report = await measureAll()
  if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`)
  console.log(`\n${tables(report, options.markdown)}`)
  if (options.profile !== undefined) console.log(`\n${readProfiles(options.profile)}`)
  process.exitCode = report.measurements.some(each => 'error' in each) ? 1 : 0
}

async function measureAll(): Promise<Report> {
  const { quick } = options
  const chosen = scenarios.filter(({ name }) => picks(options.only, scenarios, name))
  const taking = peersThatAreThere()
  if (!canPin) say('No second core, or no taskset: server and load are not pinned, and disturb each other.')
  const settings = Object.fromEntries(options.set.map(each => each.split(/=(.*)/s, 2) as [string, string]))
  if (options.profile !== undefined) {
    mkdirSync(options.profile, { recursive: true })
    settings['NODE_ARGS'] = `--import=${script('load/profiler')}`
    settings['PROFILES'] = options.profile
  }

  const runs = Number(options.runs ?? (quick ? 1 : 2))
  const jobs = chosen.flatMap(scenario => {
    const hint = scenario.missing?.() ?? null
    if (hint !== null) {
      say(`Not measured: ${scenario.name}. To measure it, install: ${hint}`)
      return []
    }
    const names = (quick && scenario.quickPeers) || scenario.peers
    const peersOfIt = taking.filter(({ name }) => names.includes(name === 'before' ? 'ringside' : name))
    return Array.from({ length: runs }, (_, index) =>
      peersOfIt.map(peer => ({ scenario: scenario.name, peer: peer.name, run: index + 1 }))
    ).flat()
  })
  const measurements: Measurement[] = []
  const worker = async () => {
    for (let job = jobs.shift(); job; job = jobs.shift()) {
      const [started, before] = [performance.now(), othersSeconds()]
      const outcome = await measure({ ...job, quick, settings })
      const seconds = (performance.now() - started) / 1000
      const others = Math.round(((othersSeconds() - before) / seconds) * 100)
      measurements.push({ ...job, others, ...outcome })
      const shown = 'error' in outcome ? outcome.error : outcome.figures
      say(
        `${job.scenario}, ${job.peer}, run ${job.run}, ${seconds.toFixed(1)} s, others ${others} %: ${JSON.stringify(shown)}`
      )
    }
  }
  // what counts is measured alone; where it only matters that it runs, nobody waits for the other
  await Promise.all(Array.from({ length: quick ? availableParallelism() : 1 }, worker))
  return { machine: describeMachine(), quick, settings, measurements }
}

function peersThatAreThere(): readonly Peer[] {
  const wanted = peers.filter(({ name }) => {
    if (name === 'ringside' || name === 'before') return true
    if (options.profile !== undefined) return false
    if (options.rivals === 'none') return [...FLOORS, 'ringside-disk'].includes(name)
    return picks(options.rivals, peers, name)
  })
  const missing = wanted.flatMap(peer => {
    const hint = peer.missing()
    return hint === null ? [] : [{ ...peer, hint }]
  })
  for (const hint of new Set(missing.map(peer => peer.hint))) {
    const names = missing.filter(peer => peer.hint === hint).map(({ name }) => name)
    say(`Not measured: ${names.join(', ')}. To measure with them, install: ${hint}`)
  }
  return wanted.filter(({ name }) => !missing.some(peer => peer.name === name))
}

/** Whether a list from the command line names something; no list names everything. */
function picks(list: string | undefined, known: readonly (Scenario | Peer)[], name: string): boolean {
  if (list === undefined) return true
  const names = list.split(',')
  const unknown = names.filter(each => !known.some(({ name }) => name === each))
  if (unknown.length > 0) {
    say(`${unknown.join(', ')}: unknown; there are ${known.map(({ name }) => name).join(', ')}`)
    process.exit(2)
  }
  return names.includes(name)
}

/** In a process of its own, so that no measurement feels the one before. */
async function measure(job: Job): Promise<Outcome> {
  const [file, args] = pinned(LOAD_CORE, process.execPath, [script('measure'), JSON.stringify(job)])
  const child = spawn(file, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  let outcome: Outcome = { error: 'the load ended without a result' }
  child.on('message', message => (outcome = message as Outcome))
  const limit = setTimeout(
    () => {
      outcome = { error: 'it takes too long' }
      child.kill()
    },
    job.quick ? QUICK_LIMIT_MS : LIMIT_MS
  )
  await once(child, 'close')
  clearTimeout(limit)
  return outcome
}

function say(text: string): void {
  console.error(text)
}
