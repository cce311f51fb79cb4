/**
 * `npm run chaos -- [--seed N] [--seconds N] [--disk | --cluster | --sentinel] [--memory SIZE]`: breaks things and checks that no subscriber
 * was lied to.
 */
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { runChaos } from './chaos.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    seconds: { type: 'string', default: '120' },
    disk: { type: 'boolean', default: false },
    cluster: { type: 'boolean', default: false },
    sentinel: { type: 'boolean', default: false },
    shards: { type: 'string' },
    'ring-size': { type: 'string', default: '1000' },
    'wait-replicas': { type: 'string' },
    memory: { type: 'string' },
    subscribers: { type: 'string', default: '100' },
    members: { type: 'string', default: '10' },
    rate: { type: 'string', default: '200' },
    cli: { type: 'string', default: 'dist/cli/ringside.js' }
  }
})

const kind = values.disk ? 'disk' : values.cluster ? 'cluster' : values.sentinel ? 'sentinel' : 'single'

const { zeros, figures, evidence } = await runChaos({
  seed: Number(values.seed),
  seconds: Number(values.seconds),
  kind,
  shards: Number(values.shards ?? (kind === 'cluster' ? 3 : 1)),
  ringSize: Number(values['ring-size']),
  // without it a primary that was away may say yes to what its successor never hears of
  waitReplicas: Number(values['wait-replicas'] ?? (kind === 'single' || kind === 'disk' ? 0 : 1)),
  memory: values.memory,
  subscribers: Number(values.subscribers),
  members: Number(values.members),
  rate: Number(values.rate),
  cli: resolve(values.cli)
})

const rows = [...Object.entries(zeros), ...Object.entries(figures)]
const width = Math.max(...rows.map(([name]) => name.length))
for (const [name, value] of rows) console.log(`${name.padEnd(width)}  ${value}`)
if (evidence) console.log(`\nNot as promised. The evidence: ${evidence}`)
process.exit(evidence ? 1 : 0)
