import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { runChaos } from '../chaos/chaos.ts'

t.setTimeout(200_000)

/** A store, and for how many seconds it is struck. */
const RUNS = [
  ['single', 15],
  ['disk', 8]
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
    t.ok(Number(acknowledged) > seconds * 5, `${acknowledged} events were published`)
    for (const transport of ['sse', 'ndjson', 'poll', 'ws']) {
      const delivered = figures[`delivered: ${transport}`]
      t.ok(Number(delivered) > Number(acknowledged), `${delivered} delivered over ${transport}`)
    }
    t.ok(Number(resumes) > 60, `streams were resumed ${resumes} times`)
    t.ok(Number(figures['polls']) > 80, `and ${figures['polls']} pages were asked for`)
    if (kind === 'disk') return
    t.ok(Number(figures['told of members']) > 100, `members were told ${figures['told of members']} times`)
  })
}
