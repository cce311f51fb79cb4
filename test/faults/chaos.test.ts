import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { runChaos } from '../chaos/chaos.ts'

t.setTimeout(200_000)

/** A store, and for how many seconds it is struck. */
const RUNS = [
  ['single', 15],
  ['disk', 10]
] as const

for (const [kind, seconds] of RUNS) {
  t.test(`instances, the store (${kind}) and the network fail at random, and nobody is lied to`, async t => {
    const { zeros, figures, evidence } = await runChaos({
      ...{ seed: 20, seconds, kind, shards: 1, ringSize: 1000, waitReplicas: 0, memory: undefined },
      ...{ subscribers: 60, members: 8, rate: 100 },
      cli: fileURLToPath(new URL('../../dist/cli/ringside.js', import.meta.url))
    })
    if (evidence) t.comment(readFileSync(evidence, 'utf8').slice(0, 10_000))
    t.comment(figures)
    for (const [what, count] of Object.entries(zeros)) t.equal(count, 0, what)
    const { acknowledged, resumes } = figures
    const transports = ['sse', 'ndjson', 'poll', 'ws']
    const delivered = transports.map(transport => Number(figures[`delivered: ${transport}`]))
    const all = delivered.reduce((sum, count) => sum + count)
    t.ok(all > Number(acknowledged), `${all} delivered of ${acknowledged}`)
    t.ok(Number(acknowledged) > seconds, `${acknowledged} events were published`)
    // the only instance is away for much of the time
    if (kind === 'disk') return
    t.ok(Number(acknowledged) > seconds * 10, `${acknowledged} events were published`)
    for (const [index, count] of delivered.entries())
      t.ok(count > Number(acknowledged), `${count} delivered over ${transports[index]}`)
    t.ok(Number(resumes) > 60, `streams were resumed ${resumes} times`)
    t.ok(Number(figures['polls']) > 200, `and ${figures['polls']} pages were asked for`)
    t.ok(Number(figures['told of members']) > 100, `members were told ${figures['told of members']} times`)
  })
}
