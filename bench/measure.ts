import { peers } from './peers.ts'
import { Bench, type Figures } from './scenario.ts'
import { scenarios } from './scenarios/index.ts'

/** One measurement, in a process of its own: this one is the load, and starts the server that is measured. */
export interface Job {
  readonly scenario: string
  readonly peer: string
  readonly quick: boolean
  /** Environment variables of Ringside. */
  readonly settings: Record<string, string>
}

export type Outcome = { readonly figures: Figures } | { readonly error: string }

const job = JSON.parse(process.argv[2]!) as Job
const scenario = scenarios.find(({ name }) => name === job.scenario)!
const bench = new Bench(
  peers.find(({ name }) => name === job.peer)!,
  job.quick,
  job.settings
)

// told to stop, or left alone: no server must outlive us
for (const end of ['SIGTERM', 'disconnect'])
  process.once(end, () => void bench.close().then(() => process.exit(1)))

let outcome: Outcome
try {
  outcome = { figures: await scenario.measure(bench) }
} catch (error) {
  outcome = { error: (error as Error).message }
}
await bench.close()
process.send!(outcome, () => process.exit(0))
