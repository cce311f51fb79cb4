import type { Constants } from './constants.ts'
import { plan, type Plan, type Workload } from './model.ts'

/** From one laptop on: the same clients, and ever more of them. */
export const STEPS: readonly { readonly name: string; readonly workload: Workload }[] = [
  { name: '10⁴', workload: workload(1e4, 20_000) },
  { name: '10⁶', workload: workload(1e6, 100_000) },
  { name: '10⁸', workload: workload(1e8, 100_000) }
]

function workload(clients: number, descriptors: number): Workload {
  return { clients, topics: 100, shared: 1, own: 1 / 600, descriptors }
}

const NOT_MEASURED = 'not measured yet'

const GIB = 2 ** 30
const MONTH_SECONDS = 730 * 3600

/** The constants and where they are from, as rows of a table. */
export function constantRows(constants: Constants): string[][] {
  return [
    ['Constant', 'Value', 'Table'],
    ...Object.values(constants).map(({ meaning, unit, source, value }) => [
      meaning,
      value === null ? NOT_MEASURED : `${show(value)} ${unit}`,
      source
    ])
  ]
}

/** What each step takes, a column for each. */
export function planRows(constants: Constants): string[][] {
  const plans = STEPS.map(({ workload }) => plan(workload, constants))
  const row = (title: string, cell: (plan: Plan) => string) => [title, ...plans.map(cell)]
  const number = (title: string, of: (plan: Plan) => number) => row(title, plan => show(of(plan)))
  return [
    ['Clients', ...STEPS.map(({ name }) => name)],
    ['descriptors of a process', ...STEPS.map(({ workload }) => show(workload.descriptors))],
    number('deliveries/s', plan => plan.deliveries),
    number('streams, Gbit/s', plan => gigabits(plan.egress)),
    number('compressed, Gbit/s', plan => gigabits(plan.gzipEgress)),
    number('heads of the packets besides, Gbit/s', plan => gigabits(plan.packets)),
    number('cores that are busy', plan => plan.cores),
    number('compressed', plan => plan.gzipCores),
    number('with TLS in Ringside', plan => plan.tlsCores),
    number('processes (half a core each)', plan => plan.processes),
    row('what decides their number', plan => plan.limit),
    number('streams of a process', plan => plan.streamsEach),
    number('memory of the streams, GiB', plan => plan.memory / GIB),
    row('memory of the processes besides, GiB', ({ processMemory }) =>
      processMemory === null ? NOT_MEASURED : show(processMemory / GIB)
    ),
    number('with TLS in Ringside, GiB more', plan => plan.tlsMemory / GIB),
    number('a process is busy with all its streams coming back, s', plan => plan.reopening),
    number('events stored/s', plan => plan.published),
    number('cores of Redis that are busy with it', plan => plan.redisCores),
    number('announcements/s', plan => plan.announcements),
    number('ticks/s', plan => plan.ticks),
    number('memory of Redis, GB', plan => plan.redisMemory / 1e9),
    number('shards', plan => plan.shards),
    number('systems of 8 shards at most', plan => plan.systems),
    number('a month: core hours at half load', plan => plan.processes * 730),
    number('a month: TB out', plan => ((plan.egress + plan.packets) * MONTH_SECONDS) / 1e12),
    number('a month: TB out, compressed', plan => ((plan.gzipEgress + plan.packets) * MONTH_SECONDS) / 1e12)
  ]
}

function gigabits(bytes: number): number {
  return (bytes * 8) / 1e9
}

/** Three digits that count; none that none stand behind. */
export function show(value: number): string {
  return Number(value.toPrecision(3)).toLocaleString('en', { maximumFractionDigits: 4 })
}
